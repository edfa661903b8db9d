/* SPDX-License-Identifier: MIT */
/*
 * A restartable store whose process is killed again and again.
 *
 *	recover_kill KILLS [memfd | file | tiers] [SEED]
 *
 * A child opens the store, compares it with the log, and then has threads at
 * work on it: workers, each with a client, pools and pages of its own, and one
 * that compacts, recompresses, learns, and changes pools' dictionaries now and
 * then without having learned.  The parent kills it: after a random time,
 * counted from the start, so while it recovers, too; or it stops the first
 * worker and lets it make a random number of single steps before.
 *
 * The log is memory that all of them share.  Of each page it has what was
 * answered last and what has begun, in one word; likewise of each pool.  What
 * was answered must be there, byte for byte; what had begun is done or not;
 * nothing else may be there, and no slot may be torn.
 *
 * With `tiers` it has a memfd and so little memory that pages go down all the
 * time, to a tier that is soon full and to another one.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "core/compact.h"
#include "core/dicts.h"
#include "core/tiering.h"
#include "fstest.h"
#include "testfile.h"
#include "testimage.h"

enum {
	WORKERS = 2,
	PHRASES = 64,
	PHRASE = 8, /* words */
	DICT_BYTES = 2 * 4096,
	POOLS = 4,
	KEYS = 160,
	EQUALS = 40, /* contents of pages that are equal to others */
	PER_OBJECT = 20,
	EPHEMERAL = 1, /* that pool is */
	STEPS = 4000,
	DROP = -1, /* begun: it goes */
	NO_CLIENT = 0,
	TIERS = 2
};

#define LIMIT	   (48ull << 20)
#define TIER_LIMIT (1792ull << 10)

enum begun {
	NOTHING,
	CREATE,
	DESTROY,
	CLONE /* of pool 0 */
};

/* Low half: what is there (0: nothing); high half: what has begun. */
typedef _Atomic uint64_t cell;

struct pool_log {
	_Atomic uint32_t id;
	_Atomic uint32_t begun;
	cell cells[KEYS];
};

struct worker_log {
	_Atomic uint32_t client;
	_Atomic uint32_t tags;
	struct pool_log pools[POOLS];
};

static struct log {
	_Atomic uint32_t tight;	  /* stores may be refused */
	_Atomic uint32_t lenient; /* or what has begun might have been */
	_Atomic uint64_t ops;
	_Atomic uint64_t recovered;
	_Atomic uint64_t stale;
	_Atomic uint64_t opened;
	_Atomic uint64_t dicts;
	_Atomic uint64_t dict_pages;
	_Atomic uint64_t equals; /* stores of what was there already */
	_Atomic uint64_t refs;	 /* recovered */
	_Atomic uint64_t moved;	 /* to tiers, and what became of it */
	_Atomic uint64_t below;
	_Atomic uint64_t below_by_dict;
	_Atomic uint64_t promoted;
	_Atomic uint64_t cleaned;
	struct worker_log workers[WORKERS];
} * the_log;

static struct tmem_tier_setup tiers[TIERS];
static unsigned nr_tiers;
static int key_fd;

struct worker {
	struct worker_log *log;
	struct tmem_backend b;
	struct tmem_client *client;
	struct rng rng;
	uint32_t nr;
};

static uint64_t word_of(uint32_t there, uint32_t begun)
{
	return there | (uint64_t)begun << 32;
}

static uint32_t there_of(uint64_t word)
{
	return (uint32_t)word;
}

static uint32_t begun_of(uint64_t word)
{
	return (uint32_t)(word >> 32);
}

/* Phrases that others have, too. */
static void fill_alike(uint64_t *w, struct rng *rng, unsigned words)
{
	unsigned i, k;

	for (i = 0; i < words; i += PHRASE) {
		struct rng phrase = { rng_below(rng, PHRASES) };

		for (k = 0; k < PHRASE; k++)
			w[i + k] = rng_next(k ? &phrase : rng);
	}
}

/*
 * Same-filled, like others, well or badly compressible, by tag; one in five is
 * equal to others, else never the same twice.
 */
static void fill(void *page, uint32_t tag)
{
	struct rng rng = { tag % 5 ? tag : tag / 5 % EQUALS };
	unsigned random = (unsigned)(rng_next(&rng) % 10) * 48, i;
	uint64_t *w = page;

	if (tag % 5 == 0)
		tag = tag / 5 % EQUALS;
	if (tag % 3 == 0) {
		fill_alike(w, &rng, PAGE / 8);
		return;
	}
	for (i = 0; i < PAGE / 8; i++)
		w[i] = random && i < random ? rng_next(&rng)
		       : random		    ? i / 3 % 17 + tag
					    : tag;
}

static bool is_tag(const void *page, uint32_t tag)
{
	_Alignas(8) char want[PAGE];

	fill(want, tag);
	return memcmp(page, want, PAGE) == 0;
}

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){ .object = { { key / PER_OBJECT, 1, 2 } },
				 .index = key,
				 .page = page };
}

static int load(struct worker *w, unsigned p, uint32_t key, void *page)
{
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(w->b.ops->load(w->b.self, atomic_load(&w->log->pools[p].id),
				&io, 1),
		 0);
	CHECK(io.result >= 0);
	return io.result;
}

/* Comparing with the log, and settling what had begun. */

static void settle_cell(struct worker *w, unsigned p, uint32_t key)
{
	cell *c = &w->log->pools[p].cells[key];
	uint64_t word = atomic_load(c);
	uint32_t there = there_of(word), begun = begun_of(word);
	_Alignas(8) char page[PAGE];
	int r;

	/* Its load takes it away, and we may be killed after it. */
	if (p == EPHEMERAL)
		atomic_store(c, word_of(there, begun ? begun : (uint32_t)DROP));
	r = load(w, p, key, page);
	if (r == TMEM_MISS) {
		CHECK(!there || begun == (uint32_t)DROP || p == EPHEMERAL ||
		      (begun && atomic_load(&the_log->lenient)));
		atomic_store(c, 0);
	} else if (there && is_tag(page, there)) {
		atomic_store(c, p == EPHEMERAL ? 0 : word_of(there, 0));
	} else {
		CHECK(begun && begun != (uint32_t)DROP && is_tag(page, begun));
		atomic_store(c, p == EPHEMERAL ? 0 : word_of(begun, 0));
	}
}

static bool has_pool(const struct tmem_client_pool *pools, unsigned nr,
		     uint32_t id)
{
	while (nr-- > 0)
		if (id && pools[nr].id == id)
			return true;
	return false;
}

static void forget_pool(struct pool_log *log)
{
	uint32_t key;

	for (key = 0; key < KEYS; key++)
		atomic_store(&log->cells[key], 0);
	atomic_store(&log->id, 0);
	atomic_store(&log->begun, NOTHING);
}

/* A clone has its cells before its id. */
static void note_clone(struct worker_log *log, struct pool_log *pool,
		       uint32_t id)
{
	uint32_t key;

	for (key = 0; key < KEYS; key++)
		atomic_store(&pool->cells[key],
			     atomic_load(&log->pools[0].cells[key]));
	atomic_store(&pool->id, id);
	atomic_store(&pool->begun, NOTHING);
}

static void settle_pools(struct worker *w)
{
	struct tmem_client_pool pools[POOLS + 1];
	unsigned nr = tmem_client_pools(w->client, pools, POOLS + 1), p, i;
	uint32_t known = 0, unknown = 0;

	CHECK(nr <= POOLS);
	for (p = 0; p < POOLS; p++) {
		struct pool_log *log = &w->log->pools[p];

		if (has_pool(pools, nr, atomic_load(&log->id)))
			continue;
		CHECK(!atomic_load(&log->id) ||
		      atomic_load(&log->begun) == DESTROY);
		if (atomic_load(&log->id))
			forget_pool(log);
	}
	for (i = 0; i < nr; i++) {
		for (p = 0; p < POOLS; p++)
			if (atomic_load(&w->log->pools[p].id) == pools[i].id)
				break;
		if (p < POOLS)
			known++;
		else
			unknown = pools[i].id;
	}
	CHECK(known == nr || known + 1 == nr);
	for (p = 0; p < POOLS; p++) {
		struct pool_log *log = &w->log->pools[p];
		uint32_t begun = atomic_load(&log->begun);

		if (unknown && !atomic_load(&log->id) && begun == CLONE)
			note_clone(w->log, log, unknown);
		else if (unknown && !atomic_load(&log->id) && begun == CREATE)
			atomic_store(&log->id, unknown);
		else
			continue;
		unknown = 0;
	}
	CHECK(!unknown);
	for (p = 0; p < POOLS; p++)
		atomic_store(&w->log->pools[p].begun, NOTHING);
}

static void settle(struct worker *w)
{
	uint32_t key;
	unsigned p;

	settle_pools(w);
	for (p = 0; p < POOLS; p++)
		for (key = 0; key < KEYS; key++)
			if (atomic_load(&w->log->pools[p].id))
				settle_cell(w, p, key);
}

/* The workers' operations. */

/* A store was refused that had no reason to be. */
static _Noreturn void explain(struct worker *w)
{
	const struct tmem_counter *counter = tmem_stats_table();
	struct tmem_stats s;

	w->b.ops->stats(w->b.self, &s);
	for (; counter->name; counter++)
		fprintf(stderr, "%s %llu\n", counter->name,
			*(unsigned long long *)((char *)&s + counter->offset));
	abort();
}

static void store_one(struct worker *w, unsigned p, uint32_t key)
{
	cell *c = &w->log->pools[p].cells[key];
	uint32_t there = there_of(atomic_load(c));
	uint32_t tag = atomic_fetch_add(&w->log->tags, WORKERS) + w->nr;
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, tag);
	atomic_store(c, word_of(there, tag));
	CHECK_EQ(w->b.ops->store(w->b.self, atomic_load(&w->log->pools[p].id),
				 &io, 1),
		 0);
	if (io.result && !atomic_load(&the_log->tight) && !nr_tiers)
		explain(w);
	atomic_store(c, io.result ? 0 : tag);
}

static void load_one(struct worker *w, unsigned p, uint32_t key)
{
	cell *c = &w->log->pools[p].cells[key];
	uint32_t there = there_of(atomic_load(c));
	_Alignas(8) char page[PAGE];
	int r;

	if (p == EPHEMERAL)
		atomic_store(c, word_of(there, (uint32_t)DROP));
	r = load(w, p, key, page);
	CHECK(r == (there ? 0 : TMEM_MISS) || p == EPHEMERAL);
	CHECK(r || is_tag(page, there));
	if (p == EPHEMERAL)
		atomic_store(c, 0);
}

static void drop_one(struct worker *w, unsigned p, uint32_t key)
{
	cell *c = &w->log->pools[p].cells[key];
	uint32_t there = there_of(atomic_load(c));
	struct tmem_io io = io_of(key, NULL);

	atomic_store(c, word_of(there, (uint32_t)DROP));
	CHECK_EQ(w->b.ops->invalidate(
			 w->b.self, atomic_load(&w->log->pools[p].id), &io, 1),
		 0);
	CHECK(io.result == (there ? 0 : TMEM_MISS) || p == EPHEMERAL);
	atomic_store(c, 0);
}

static void drop_object(struct worker *w, unsigned p, uint32_t key)
{
	struct pool_log *log = &w->log->pools[p];
	uint64_t pages;
	uint32_t i;

	key -= key % PER_OBJECT;
	for (i = key; i < key + PER_OBJECT; i++)
		atomic_store(&log->cells[i],
			     word_of(there_of(atomic_load(&log->cells[i])),
				     (uint32_t)DROP));
	CHECK_EQ(w->b.ops->invalidate_object(w->b.self, atomic_load(&log->id),
					     io_of(key, NULL).object, &pages),
		 0);
	for (i = key; i < key + PER_OBJECT; i++)
		atomic_store(&log->cells[i], 0);
}

static void make_pool(struct worker *w, unsigned p)
{
	struct tmem_pool_options options = {
		.flags = p == EPHEMERAL ? TMEM_POOL_EPHEMERAL : 0
	};
	struct pool_log *log = &w->log->pools[p];
	tmem_pool_id id;
	int r;

	if (p > EPHEMERAL && atomic_load(&w->log->pools[0].id) &&
	    rng_below(&w->rng, 3)) {
		forget_pool(log);
		atomic_store(&log->begun, CLONE);
		r = w->b.ops->pool_clone(
			w->b.self, atomic_load(&w->log->pools[0].id), &id);
		if (r == 0)
			note_clone(w->log, log, id);
	} else {
		atomic_store(&log->begun, CREATE);
		r = w->b.ops->pool_create(w->b.self, &options, &id);
		if (r == 0)
			atomic_store(&log->id, id);
	}
	CHECK(r == 0 || atomic_load(&the_log->tight) || nr_tiers);
	atomic_store(&log->begun, NOTHING);
}

static void destroy_pool(struct worker *w, unsigned p)
{
	struct pool_log *log = &w->log->pools[p];

	atomic_store(&log->begun, DESTROY);
	CHECK_EQ(w->b.ops->pool_destroy(w->b.self, atomic_load(&log->id)), 0);
	forget_pool(log);
}

static void step(struct worker *w)
{
	unsigned p = (unsigned)rng_below(&w->rng, POOLS), k;
	uint32_t key = (uint32_t)rng_below(&w->rng, KEYS);

	atomic_fetch_add(&the_log->ops, 1);
	if (!atomic_load(&w->log->pools[p].id)) {
		make_pool(w, p);
		return;
	}
	k = (unsigned)rng_below(&w->rng, 1000);
	if (k < 550)
		store_one(w, p, key);
	else if (k < 700)
		load_one(w, p, key);
	else if (k < 970)
		drop_one(w, p, key);
	else if (k < 990)
		drop_object(w, p, key);
	else if (p > EPHEMERAL || k < 992)
		destroy_pool(w, p);
}

static void *work(void *arg)
{
	for (;;)
		step(arg);
	return NULL;
}

/* Some pool's, as if it had learned, or found that it is of no use. */
static void change_dict(struct tmem_store *store, struct rng *rng)
{
	static _Alignas(8) char content[DICT_BYTES];
	struct tmem_dict_spec spec = { .pool = (uint32_t)rng_below(rng, 8),
				       .uses = 1 + (unsigned)rng_below(rng, 3),
				       .content = content };
	uint32_t name;

	fill_alike((uint64_t *)content, rng, sizeof(content) / 8);
	spec.content_bytes =
		TMEM_DICT_MIN_BYTES +
		(unsigned)rng_below(rng, DICT_BYTES - TMEM_DICT_MIN_BYTES);
	tmem_lock_acquire(&store->control);
	if (rng_below(rng, 4) == 0)
		tmem_dicts_retire(store, spec.pool);
	else if (atomic_load(&store->pools[spec.pool].id) &&
		 tmem_dicts_add(store, &spec, &name) == 0)
		tmem_dicts_make_current(store, name);
	store->cool_again = 1;
	tmem_lock_release(&store->control);
}

static uint64_t maintain_seed;

/* What this process has done, on top of what others have. */
static void note_work(struct tmem_store *store)
{
	static struct tmem_stats seen;
	struct tmem_backend b = tmem_store_backend(store);
	struct tmem_stats s;

	b.ops->stats(b.self, &s);
	atomic_fetch_add(&the_log->equals, s.dedup_stores - seen.dedup_stores);
	atomic_fetch_add(&the_log->moved, s.tier_moved - seen.tier_moved);
	atomic_fetch_add(&the_log->promoted,
			 s.tier_promoted - seen.tier_promoted);
	atomic_fetch_add(&the_log->cleaned, s.tier_cleaned - seen.tier_cleaned);
	seen = s;
}

static void *maintain(void *arg)
{
	struct timespec ts = { 0, 200000 };
	struct rng rng = { maintain_seed };

	for (;;) {
		if (rng_below(&rng, 4) == 0)
			change_dict(arg, &rng);
		tmem_store_maintain(arg, 500000);
		note_work(arg);
		nanosleep(&ts, NULL);
	}
	return NULL;
}

/* The child. */

static uint64_t count_of_object(const struct tmem_store *store, uint32_t object)
{
	uint32_t head = tmem_object_nr(store, object)->head, at = head;
	struct tmem_place place;
	uint64_t nr = 0;

	do {
		const struct tmem_slot *slot;

		slot = tmem_arena_slot(&store->arena, at);
		memcpy(&place, slot->data, sizeof(place));
		nr += tmem_slot_form(slot) == TMEM_FORM_TIER && place.dict;
		at = tmem_arena_link(&store->arena, at)->next;
	} while (at != head);
	return nr;
}

static uint64_t count_below_by_dict(struct tmem_store *store) TMEM_UNANALYSED
{
	uint64_t nr = 0;
	uint32_t i, object;
	unsigned list;

	for (i = 0; i < store->nr_shards; i++)
		for (list = 0; list < TMEM_OBJECT_LISTS; list++)
			for (object = store->shards[i].objects[list]; object;
			     object = tmem_object_nr(store, object)->next)
				nr += count_of_object(store, object);
	return nr;
}

static struct tmem_store *open_store(int fd)
{
	uint64_t limit = nr_tiers ? TIER_LIMIT : LIMIT;
	struct tmem_store_options options = { .max_limit_bytes = LIMIT,
					      .cool_after_ns = 1000000,
					      .dict_every_ns = 1000000,
					      .arena_fd = &fd,
					      .tiers = tiers,
					      .nr_tiers = nr_tiers };
	struct tmem_stats s;
	struct tmem_store *store;
	struct tmem_backend b;

	if (atomic_load(&the_log->tight))
		limit = nr_tiers ? TIER_LIMIT / 8 * 7 : TMEM_STORE_MIN_BYTES;
	options.limit_bytes = limit;
	CHECK_EQ(tmem_store_open(&options, &store), 0);
	if (nr_tiers)
		store->tiering->rest_step_ns = 0;
	tmem_compact_eagerly(store);
	tmem_store_check(store);
	b = tmem_store_backend(store);
	b.ops->stats(b.self, &s);
	CHECK_EQ(s.recover_torn, 0);
	CHECK_EQ(s.recover_lost, 0);
	atomic_fetch_add(&the_log->below, s.tier_pages);
	atomic_fetch_add(&the_log->below_by_dict, count_below_by_dict(store));
	atomic_fetch_add(&the_log->refs, s.ref_pages);
	atomic_fetch_add(&the_log->recovered, s.recovered);
	atomic_fetch_add(&the_log->stale, s.recover_stale);
	atomic_fetch_add(&the_log->opened, 1);
	atomic_fetch_add(&the_log->dicts, s.dicts);
	atomic_fetch_add(&the_log->dict_pages,
			 s.lz4_dict_pages + s.zstd_dict_pages);
	return store;
}

/* Clients that a kill left unknown go. */
static void find_clients(struct tmem_store *store, struct worker *workers)
{
	struct tmem_client *client;
	uint32_t nr, i;

	for (nr = 1; nr < TMEM_CLIENTS_MAX; nr++) {
		for (i = 0; i < WORKERS; i++)
			if (atomic_load(&workers[i].log->client) == nr)
				break;
		if (i == WORKERS && !tmem_client_find(store, nr, &client))
			tmem_client_destroy(client);
	}
	for (i = 0; i < WORKERS; i++) {
		struct worker *w = &workers[i];
		int r;

		nr = atomic_load(&w->log->client);
		if (nr != NO_CLIENT) {
			CHECK_EQ(tmem_client_find(store, nr, &w->client), 0);
		} else {
			r = tmem_client_create(store, 0, &w->client);
			if (r == -ENOMEM &&
			    (atomic_load(&the_log->tight) || nr_tiers))
				exit(0);
			CHECK_EQ(r, 0);
			atomic_store(&w->log->client,
				     tmem_client_number(w->client));
		}
		w->b = tmem_client_backend(w->client);
	}
}

static _Noreturn void run_child(int fd, uint64_t seed)
{
	struct tmem_store *store = open_store(fd);
	struct worker workers[WORKERS];
	pthread_t thread;
	uint32_t i;

	for (i = 0; i < WORKERS; i++)
		workers[i] = (struct worker){ .log = &the_log->workers[i],
					      .rng = { seed + i },
					      .nr = i };
	maintain_seed = seed + WORKERS;
	find_clients(store, workers);
	for (i = 0; i < WORKERS; i++)
		settle(&workers[i]);
	atomic_store(&the_log->lenient,
		     atomic_load(&the_log->tight) || nr_tiers);
	CHECK_EQ(pthread_create(&thread, NULL, maintain, store), 0);
	for (i = 1; i < WORKERS; i++)
		CHECK_EQ(pthread_create(&thread, NULL, work, &workers[i]), 0);
	work(&workers[0]);
	exit(1);
}

/* The parent. */

/* Some single steps of the first worker; false if the child is gone. */
static bool single_step(pid_t pid, uint64_t steps)
{
	int status;

	if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
		return true;
	CHECK_EQ(ptrace(PTRACE_INTERRUPT, pid, 0, 0), 0);
	do {
		if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
			return false;
		if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0) < 0)
			return true;
	} while (steps-- > 0);
	return true;
}

/* A disk takes its time for holes. */
static void run_and_kill(int fd, struct rng *rng, bool tight)
{
	uint64_t after_us = rng_below(rng, 4) ? 5000 + rng_below(rng, 30000)
					      : rng_below(rng, 8000);
	uint64_t seed = rng_next(rng);
	int status;
	pid_t pid;

	if (!image_in_memory(fd))
		after_us *= 3;
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	after_us *= 10;
#endif
	atomic_store(&the_log->tight, tight);
	atomic_fetch_or(&the_log->lenient, tight);
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		run_child(fd, seed);
	usleep((useconds_t)after_us);
	if (rng_below(rng, 3) || single_step(pid, rng_below(rng, STEPS)))
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status))
		kill(pid, SIGKILL);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	/* It can do nothing: the limit is below what there is. */
	if ((tight || nr_tiers) && WIFEXITED(status) &&
	    WEXITSTATUS(status) == 0)
		return;
	fprintf(stderr, "the child ended by itself: status %#x\n", status);
	exit(1);
}

/* One that is soon full, and plain; one with a key. */
static void make_tiers(void)
{
	key_fd = tmem_key_create();
	CHECK(key_fd >= 0);
	tiers[0] = (struct tmem_tier_setup){ .kind = TMEM_TIER_KIND_MAPPED,
					     .fd = testfile_ram(),
					     .max_bytes = 8 << 20,
					     .plain = 1 };
	tiers[1] = (struct tmem_tier_setup){ .kind = TMEM_TIER_KIND_FILE,
					     .fd = testfile_disk(),
					     .max_bytes = 48 << 20,
					     .key_fd = &key_fd };
	nr_tiers = TIERS;
}

int main(int argc, char **argv)
{
	unsigned kills = argc > 1 ? (unsigned)atoi(argv[1]) : 20, i;
	bool file = argc > 2 && strcmp(argv[2], "file") == 0;
	struct rng rng = { seed_from(argc, argv, 3) };
	int fd = file ? image_file() : image_memfd();

	the_log = mmap(NULL, sizeof(*the_log), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(the_log != MAP_FAILED);
	if (argc > 2 && strcmp(argv[2], "tiers") == 0)
		make_tiers();
	for (i = 0; i < WORKERS; i++)
		atomic_store(&the_log->workers[i].tags, WORKERS);
	for (i = 0; i < kills; i++)
		run_and_kill(fd, &rng, rng_below(&rng, 5) == 0);
	printf("%llu stores of equal pages, %llu references recovered\n",
	       (unsigned long long)atomic_load(&the_log->equals),
	       (unsigned long long)atomic_load(&the_log->refs));
	printf("%u kills, %llu operations; %llu times recovered %llu pages, "
	       "%llu of them by %llu dictionaries, and %llu stale slots\n",
	       kills, (unsigned long long)atomic_load(&the_log->ops),
	       (unsigned long long)atomic_load(&the_log->opened),
	       (unsigned long long)atomic_load(&the_log->recovered),
	       (unsigned long long)atomic_load(&the_log->dict_pages),
	       (unsigned long long)atomic_load(&the_log->dicts),
	       (unsigned long long)atomic_load(&the_log->stale));
	if (nr_tiers)
		printf("%llu pages moved down, %llu found there, %llu of these "
		       "with a dictionary, %llu came back, %llu cleaned\n",
		       (unsigned long long)atomic_load(&the_log->moved),
		       (unsigned long long)atomic_load(&the_log->below),
		       (unsigned long long)atomic_load(&the_log->below_by_dict),
		       (unsigned long long)atomic_load(&the_log->promoted),
		       (unsigned long long)atomic_load(&the_log->cleaned));
	CHECK(kills < 100 || atomic_load(&the_log->refs) > 0);
	CHECK(kills < 100 || atomic_load(&the_log->equals) > 0);
	CHECK(!nr_tiers || kills < 100 || atomic_load(&the_log->below) > 0);
	CHECK(!nr_tiers || kills < 100 ||
	      atomic_load(&the_log->below_by_dict) > 0);
	return 0;
}
