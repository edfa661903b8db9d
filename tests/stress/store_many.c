/* SPDX-License-Identifier: MIT */
/*
 * A store with very many pages, used for a while: threads, each with pages of
 * its own, replace, drop and load them while another maintains; then a random
 * 70 % go.  Every page is what was stored last, all the time and in the end,
 * and the invariants hold.
 *
 *	store_many PAGES [ROUNDS] [SEED]
 *
 * A round has as many operations as there are pages.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "storetest.h"

enum {
	THREADS = 2,
	PER_OBJECT = 1000,
	BATCH = 8
};

static uint32_t nr_pages;
static uint8_t *versions; /* 0: the page is not there */
static uint64_t seed;
static _Atomic int done;
static uint64_t maintained_ns; /* CPU */

static double now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* 60 to 400 bytes by LZ4. */
static void fill(uint64_t *page, uint32_t key, uint8_t version)
{
	struct rng rng = { (uint64_t)key << 8 | version };
	unsigned random = 4 + (unsigned)rng_below(&rng, 40), i;

	for (i = 0; i < random; i++)
		page[i] = rng_next(&rng);
	for (; i < PAGE / 8; i++)
		page[i] = key;
}

struct batch {
	struct tmem_io io[BATCH];
	uint64_t pages[BATCH][PAGE / 8];
};

/* Different keys from that one on, all of one thread. */
static void begin(struct batch *b, uint32_t key)
{
	unsigned i;

	for (i = 0; i < BATCH; i++) {
		uint32_t k = (key + i * THREADS) % nr_pages;

		b->io[i] = (struct tmem_io){ .object = { { k / PER_OBJECT } },
					     .index = k,
					     .page = b->pages[i] };
	}
}

static void store_some(struct batch *b)
{
	unsigned i;

	for (i = 0; i < BATCH; i++) {
		uint8_t *version = &versions[b->io[i].index];

		*version = *version == 255 ? 1 : (uint8_t)(*version + 1);
		fill(b->pages[i], b->io[i].index, *version);
	}
	CHECK_EQ(backend.ops->store(backend.self, pool, b->io, BATCH), 0);
	for (i = 0; i < BATCH; i++)
		CHECK_EQ(b->io[i].result, 0);
}

static void load_some(struct batch *b)
{
	uint64_t want[PAGE / 8];
	unsigned i;

	CHECK_EQ(backend.ops->load(backend.self, pool, b->io, BATCH), 0);
	for (i = 0; i < BATCH; i++) {
		uint8_t version = versions[b->io[i].index];

		CHECK_EQ(b->io[i].result, version ? 0 : TMEM_MISS);
		fill(want, b->io[i].index, version);
		CHECK(!version || memcmp(want, b->pages[i], PAGE) == 0);
	}
}

static void drop_some(struct batch *b)
{
	unsigned i;

	CHECK_EQ(backend.ops->invalidate(backend.self, pool, b->io, BATCH), 0);
	for (i = 0; i < BATCH; i++) {
		CHECK_EQ(b->io[i].result,
			 versions[b->io[i].index] ? 0 : TMEM_MISS);
		versions[b->io[i].index] = 0;
	}
}

enum phase {
	FILL,
	USE,
	THIN_OUT,
	VERIFY
};

struct worker {
	enum phase phase;
	uint32_t nr;
	struct rng rng;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	static _Thread_local struct batch b;
	uint32_t i;

	for (i = w->nr; i < nr_pages; i += THREADS * BATCH) {
		unsigned k = (unsigned)rng_below(&w->rng, 10);
		uint32_t at = (uint32_t)rng_below(&w->rng, nr_pages / THREADS);

		begin(&b, w->phase == USE ? at * THREADS + w->nr : i);
		if (w->phase == FILL || (w->phase == USE && k < 5))
			store_some(&b);
		else if (w->phase == VERIFY || (w->phase == USE && k < 8))
			load_some(&b);
		else if (w->phase == USE || k < 7)
			drop_some(&b);
	}
	return NULL;
}

static void *maintain(void *arg)
{
	const struct timespec ts = { 0, 1000000 };

	(void)arg;
	while (!atomic_load(&done)) {
		tmem_store_maintain(store, 2000000);
		nanosleep(&ts, NULL);
	}
	maintained_ns = (uint64_t)(now(CLOCK_THREAD_CPUTIME_ID) * 1e9);
	return NULL;
}

static void run(const char *name, enum phase phase)
{
	static struct worker workers[THREADS];
	pthread_t threads[THREADS], maintainer;
	double start = now(CLOCK_MONOTONIC);
	double cpu = now(CLOCK_PROCESS_CPUTIME_ID);
	struct tmem_stats s;
	uint32_t i;

	atomic_store(&done, 0);
	CHECK_EQ(pthread_create(&maintainer, NULL, maintain, NULL), 0);
	for (i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){ phase, i, { seed++ } };
		CHECK_EQ(pthread_create(&threads[i], NULL, work, &workers[i]),
			 0);
	}
	for (i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	atomic_store(&done, 1);
	CHECK_EQ(pthread_join(maintainer, NULL), 0);
	cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu - (double)maintained_ns / 1e9;
	s = stats();
	printf("%s: %.0f s, %.0f ns of CPU a page (with the test's own), and "
	       "%.1f s of maintenance; %llu pages, %.1f bytes held for each, "
	       "%.1f of them in slots\n",
	       name, now(CLOCK_MONOTONIC) - start, cpu * 1e9 / nr_pages,
	       (double)maintained_ns / 1e9, (unsigned long long)s.pages,
	       (double)s.held_bytes / (double)s.pages,
	       (double)s.slot_bytes / (double)s.pages);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct tmem_store_options o = { .cool_after_ns = 5000000000,
					.maintain_percent = 20 };
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 2, i;

	CHECK(argc > 1);
	nr_pages = (uint32_t)strtoul(argv[1], NULL, 0);
	nr_pages -= nr_pages % (THREADS * BATCH);
	seed = seed_from(argc, argv, 3);
	o.limit_bytes = (64ull << 20) + nr_pages * 1024ull;
	versions = calloc(1, nr_pages);
	CHECK(versions != NULL);
	open_with(&o);
	run("fill", FILL);
	for (i = 0; i < rounds; i++)
		run("use", USE);
	run("verify", VERIFY);
	run("70 % go", THIN_OUT);
	while (tmem_store_maintain(store, 1000000000))
		;
	run("verify", VERIFY);
	tmem_store_check(store);
	close_store();
	free(versions);
	return 0;
}
