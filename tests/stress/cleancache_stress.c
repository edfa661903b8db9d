/* SPDX-License-Identifier: MIT */
/*
 * Threads on two front ends of one store: each stores, loads and invalidates
 * pages of its own, in private file systems and in a shared one, while one
 * ends file systems and begins them anew and changes the store's limit.  What
 * a thread finds is what it stored last, in that file system and no other.
 * Some pages are everybody's: what is found there is whole.
 *
 * The backend gives a pool the number that has just become free, and aborts
 * when a pool is used that is not there (tests/lib/faultbackend.h).  To be run
 * under ThreadSanitizer too.
 *
 *	cleancache_stress STEPS [SEED]
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "faultbackend.h"
#include "fstest.h"
#include "tmem/cleancache.h"
#include "tmem/client.h"
#include "tmem/store.h"

enum {
	THREADS = 4,
	FRONTS = 2,
	PLACES = 5, /* 0 to 2: private, of front 0; 3, 4: shared, of each */
	SHARED = 3,
	OWN = 150,
	EVERYBODYS = 4,
	MAX_VECTOR = 20,
	STEPS_PER_END = 400,
	LIMIT_BYTES = 2 << 20
};

static struct tmem_store *store;
static struct faultbackend *fbs[FRONTS];
static struct tmem_cleancache *ccs[FRONTS];
static _Atomic tmem_cleancache_fs places[PLACES];
static _Atomic uint64_t done; /* steps, by all */
static _Atomic bool stop;
static uint64_t steps;

struct cell {
	uint64_t tag;
	tmem_cleancache_fs fs; /* where a private page was stored */
};

struct worker {
	pthread_t thread;
	unsigned number;
	struct rng rng;
	uint64_t next_tag;
	struct cell cells[SHARED + 1][OWN];
	char *pages;
};

static struct tmem_cleancache *cc_of(unsigned place)
{
	return ccs[place == PLACES - 1];
}

static void begin(unsigned place)
{
	static const uint64_t uuid[2] = { 3, 4 };
	tmem_cleancache_fs fs;

	if (place < SHARED)
		CHECK_EQ(tmem_cleancache_init_fs(cc_of(place), PAGE, &fs), 0);
	else
		CHECK_EQ(tmem_cleancache_init_shared_fs(cc_of(place), uuid,
							PAGE, &fs),
			 0);
	places[place] = fs;
}

/* Of the i-th page that is stored next. */
static uint64_t tag_of(const struct worker *w, uint64_t i)
{
	return w->next_tag + i * THREADS;
}

/* The workers' numbers become stale under their hands. */
static void *end_and_begin(void *arg)
{
	struct rng *rng = arg;
	uint64_t next = 0;

	while (!stop) {
		unsigned place = (unsigned)rng_below(rng, PLACES);
		struct tmem_cleancache_stats s;

		while (done < next && !stop)
			sched_yield();
		next = done + STEPS_PER_END;
		CHECK_EQ(tmem_cleancache_invalidate_fs(cc_of(place),
						       places[place]),
			 0);
		begin(place);
		CHECK_EQ(tmem_store_set_limit(store,
					      LIMIT_BYTES / 2 +
						      rng_below(rng, 17) *
							      LIMIT_BYTES / 32),
			 0);
		tmem_cleancache_get_stats(cc_of(place), &s);
		CHECK(s.disabled == 0 && s.invalidate_errors == 0);
	}
	return NULL;
}

/* Own pages are files of the thread's, in a row of `nr` from `first`. */
static void fill_vector(const struct worker *w, struct tmem_cleancache_io *io,
			unsigned first, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		io[i] = (struct tmem_cleancache_io){
			.file = tmem_cleancache_inode(w->number),
			.index = (first + i) % OWN,
			.page = w->pages + i * PAGE,
		};
}

static struct cell *cell_of(struct worker *w, unsigned place, uint64_t index)
{
	return &w->cells[place < SHARED ? place : SHARED][index];
}

static void store_own(struct worker *w, unsigned place, unsigned first,
		      unsigned nr)
{
	tmem_cleancache_fs fs = places[place];
	struct tmem_cleancache_io io[MAX_VECTOR];

	fill_vector(w, io, first, nr);
	for (unsigned i = 0; i < nr; i++)
		page_fill(io[i].page, tag_of(w, i));
	tmem_cleancache_store(cc_of(place), fs, io, nr);
	for (unsigned i = 0; i < nr; i++) {
		struct cell *cell = cell_of(w, place, io[i].index);
		uint64_t tag = tag_of(w, i);

		CHECK(io[i].result == 0 || io[i].result == TMEM_REFUSED);
		/* Ignored in one of a shared pair: the other has the old one.
		 */
		if (io[i].result == 0 || place < SHARED)
			*cell = (struct cell){ io[i].result ? 0 : tag, fs };
	}
	w->next_tag += (uint64_t)nr * THREADS;
}

static void load_own(struct worker *w, unsigned place, unsigned first,
		     unsigned nr)
{
	tmem_cleancache_fs fs = places[place];
	struct tmem_cleancache_io io[MAX_VECTOR];

	fill_vector(w, io, first, nr);
	tmem_cleancache_load(cc_of(place), fs, io, nr);
	for (unsigned i = 0; i < nr; i++) {
		struct cell *cell = cell_of(w, place, io[i].index);

		CHECK(io[i].result == 0 || io[i].result == TMEM_MISS);
		if (io[i].result != 0)
			continue;
		CHECK(cell->tag != 0 && page_is(io[i].page, cell->tag));
		CHECK(place >= SHARED || cell->fs == fs);
		if (place < SHARED)
			cell->tag = 0;
	}
}

/*
 * An ended file system ignores it, and then the other one of the pair must be
 * told: the pool may live on in it.
 */
static void invalidate_own(struct worker *w, unsigned place, unsigned first,
			   unsigned nr, bool inode)
{
	struct tmem_cleancache_io io[MAX_VECTOR];
	unsigned last = place < SHARED ? place : PLACES - 1;

	if (place > SHARED)
		place = SHARED;
	fill_vector(w, io, first, nr);
	for (unsigned p = place; p <= last; p++) {
		if (inode)
			CHECK_EQ(tmem_cleancache_invalidate_inode(
					 cc_of(p), places[p], io[0].file),
				 0);
		else
			CHECK_EQ(tmem_cleancache_invalidate_pages(
					 cc_of(p), places[p], io, nr),
				 0);
	}
	/* A number may have changed in between; then it need not be gone. */
	if (place >= SHARED)
		return;
	for (unsigned i = 0; i < (inode ? OWN : nr); i++) {
		unsigned index = inode ? i : (first + i) % OWN;
		struct cell *cell = cell_of(w, place, index);

		if (cell->fs == places[place])
			cell->tag = 0;
	}
}

/* Of these it is known that they are whole, and their tags are 1 modulo 3. */
static void use_everybodys(struct worker *w, unsigned place)
{
	struct tmem_cleancache_io io = {
		.file = tmem_cleancache_inode(THREADS),
		.index = rng_below(&w->rng, EVERYBODYS),
		.page = w->pages,
	};
	uint64_t first;

	switch (rng_below(&w->rng, 4)) {
	case 0:
		page_fill(io.page, rng_below(&w->rng, 1000) * 3 + 1);
		tmem_cleancache_store(cc_of(place), places[place], &io, 1);
		break;
	case 1:
		CHECK_EQ(tmem_cleancache_invalidate_pages(
				 cc_of(place), places[place], &io, 1),
			 0);
		break;
	default:
		tmem_cleancache_load(cc_of(place), places[place], &io, 1);
		memcpy(&first, io.page, sizeof(first));
		CHECK(io.result != 0 ||
		      (~first % 3 == 1 && page_is(io.page, ~first)));
		break;
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 0; i < steps; i++) {
		unsigned place = (unsigned)rng_below(&w->rng, PLACES);
		unsigned first = (unsigned)rng_below(&w->rng, OWN);
		unsigned nr = 1 + (unsigned)rng_below(&w->rng, 3);

		if (rng_below(&w->rng, 16) == 0)
			nr = MAX_VECTOR;
		switch (rng_below(&w->rng, 16)) {
		case 0 ... 5:
			store_own(w, place, first, nr);
			break;
		case 6 ... 11:
			load_own(w, place, first, nr);
			break;
		case 12:
			invalidate_own(w, place, first, nr, false);
			break;
		case 13:
			invalidate_own(w, place, first, 1, i % 8 == 0);
			break;
		default:
			use_everybodys(w, place);
			break;
		}
		done++;
	}
	return NULL;
}

static void open_all(void)
{
	static const uint64_t uuid[2] = { 3, 4 };
	struct tmem_store_options o = { .limit_bytes = LIMIT_BYTES };

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	for (unsigned i = 0; i < FRONTS; i++) {
		struct tmem_client *client;

		CHECK_EQ(tmem_client_create(store, 0, &client), 0);
		CHECK_EQ(tmem_client_allow(client, uuid, 1), 0);
		fbs[i] = faultbackend_create(tmem_client_backend(client));
		CHECK_EQ(tmem_cleancache_open(faultbackend_backend(fbs[i]),
					      &ccs[i]),
			 0);
	}
	for (unsigned place = 0; place < PLACES; place++)
		begin(place);
}

static void close_all(void)
{
	struct tmem_backend be = tmem_store_backend(store);
	struct tmem_stats stats;

	for (unsigned i = 0; i < FRONTS; i++) {
		struct tmem_cleancache_stats s;

		tmem_cleancache_check(ccs[i]);
		tmem_cleancache_get_stats(ccs[i], &s);
		printf("stored %llu, found %llu, missed %llu, ended %llu, "
		       "too late %llu\n",
		       (unsigned long long)s.accepted,
		       (unsigned long long)s.succ_loads,
		       (unsigned long long)s.failed_loads,
		       (unsigned long long)s.fs_invalidates,
		       (unsigned long long)s.ignored_fs);
		CHECK(s.succ_loads > 0 && s.fs_invalidates > 0);
		tmem_cleancache_close(ccs[i]);
		faultbackend_destroy(fbs[i]);
	}
	tmem_store_check(store);
	CHECK_EQ(be.ops->stats(be.self, &stats), 0);
	CHECK_EQ(stats.pages, 0);
	printf("evicted %llu\n", (unsigned long long)stats.evicted);
	tmem_store_close(store);
}

int main(int argc, char **argv)
{
	struct worker *workers = calloc(THREADS, sizeof(*workers));
	struct rng rng;
	pthread_t ender;

	steps = argc > 1 ? strtoull(argv[1], NULL, 0) : 20000;
	rng.state = seed_from(argc, argv, 2);
	CHECK(workers != NULL);
	open_all();
	for (unsigned i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];

		w->number = i;
		w->rng.state = rng_next(&rng);
		w->next_tag = THREADS + i;
		w->pages = pages_alloc(MAX_VECTOR);
		CHECK_EQ(pthread_create(&w->thread, NULL, work, w), 0);
	}
	CHECK_EQ(pthread_create(&ender, NULL, end_and_begin, &rng), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		CHECK_EQ(pthread_join(workers[i].thread, NULL), 0);
		pages_free(workers[i].pages, MAX_VECTOR);
	}
	stop = true;
	CHECK_EQ(pthread_join(ender, NULL), 0);
	close_all();
	free(workers);
	return 0;
}
