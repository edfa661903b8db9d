/* SPDX-License-Identifier: MIT */
/*
 * Snapshots while threads store, drop, load, clone and compact.  Each writer
 * has its own pairs of pages and gives the first of a pair a new version, then
 * the second: so at any instant the first is as new as the second or one
 * ahead, and what a snapshot holds of one instant must be so, too.  Each is
 * restored, full or as an increment, while more of it goes on.
 *
 *	snapshot_stress ROUNDS [SEED]
 */
#include <pthread.h>
#include <stdatomic.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "core/compact.h"
#include "snapbuf.h"

enum {
	WRITERS = 3,
	PAIRS = 150
};

static struct tmem_store *store, *other;
static struct tmem_backend backend;
static tmem_pool_id pool;
static _Atomic int done;
static uint64_t seed;

/* Which of a pair: far apart, in another object, so in other shards. */
static struct tmem_io io_of(unsigned writer, unsigned pair, unsigned which,
			    void *page)
{
	return (struct tmem_io){ .object = { { writer, which, 7 } },
				 .index = pair * 5 + which * 1000,
				 .page = page };
}

static void fill(uint64_t *page, unsigned writer, unsigned pair,
		 uint64_t version)
{
	struct rng rng = { writer * 1000 + pair };
	unsigned random = (unsigned)rng_below(&rng, 560), i;

	for (i = 0; i < PAGE / 8; i++)
		page[i] = i < random ? rng_next(&rng) ^ version : version;
	page[PAGE / 8 - 1] = version;
}

static void put(unsigned writer, unsigned pair, unsigned which,
		uint64_t version)
{
	uint64_t page[PAGE / 8];
	struct tmem_io io = io_of(writer, pair, which, page);

	fill(page, writer, pair, version);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void drop(unsigned writer, unsigned pair, unsigned which)
{
	struct tmem_io io = io_of(writer, pair, which, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1), 0);
}

/* The page's version; 0: it is not there. */
static uint64_t get(const struct tmem_backend *b, tmem_pool_id p,
		    const unsigned at[3])
{
	uint64_t page[PAGE / 8], want[PAGE / 8];
	struct tmem_io io = io_of(at[0], at[1], at[2], page);

	CHECK_EQ(b->ops->load(b->self, p, &io, 1), 0);
	CHECK(io.result == 0 || io.result == TMEM_MISS);
	if (io.result)
		return 0;
	fill(want, at[0], at[1], page[PAGE / 8 - 1]);
	CHECK(memcmp(page, want, PAGE) == 0);
	return page[PAGE / 8 - 1];
}

/* A pair: stored n times, first and second; or dropped, second and first. */
static void *write_pairs(void *arg)
{
	unsigned writer = *(const unsigned *)arg;
	struct rng rng = { seed + writer };
	uint64_t versions[PAIRS] = { 0 };

	while (!atomic_load(&done)) {
		unsigned pair = (unsigned)rng_below(&rng, PAIRS);

		if (versions[pair] && rng_below(&rng, 8) == 0) {
			drop(writer, pair, 1);
			drop(writer, pair, 0);
			versions[pair] = 0;
			continue;
		}
		versions[pair]++;
		put(writer, pair, 0, versions[pair]);
		put(writer, pair, 1, versions[pair]);
	}
	return NULL;
}

static void *maintain(void *arg)
{
	struct rng rng = { seed + 99 };
	tmem_pool_id clone;

	(void)arg;
	while (!atomic_load(&done)) {
		unsigned at[3] = { (unsigned)rng_below(&rng, WRITERS),
				   (unsigned)rng_below(&rng, PAIRS),
				   (unsigned)rng_below(&rng, 2) };

		get(&backend, pool, at);
		if (rng_below(&rng, 3) == 0)
			tmem_store_maintain(store, 300000);
		if (rng_below(&rng, 60) == 0 &&
		    backend.ops->pool_clone(backend.self, pool, &clone) == 0)
			CHECK_EQ(backend.ops->pool_destroy(backend.self, clone),
				 0);
		if (rng_below(&rng, 40) == 0)
			tmem_store_check(store);
	}
	return NULL;
}

static void check_pairs(const struct tmem_snapshot *s)
{
	struct tmem_backend b = tmem_store_backend(other);
	uint64_t first, second;
	unsigned at[3];

	for (at[0] = 0; at[0] < WRITERS; at[0]++)
		for (at[1] = 0; at[1] < PAIRS; at[1]++) {
			at[2] = 0;
			first = get(&b, s->pools[0].pool, at);
			at[2] = 1;
			second = get(&b, s->pools[0].pool, at);
			/* Dropped the other way round: then any first. */
			CHECK(first == second || first == second + 1 ||
			      (second == 0 && first));
		}
}

static void restore(struct snapbuf *buf, const struct tmem_snapshot *base,
		    struct tmem_snapshot *ret)
{
	struct tmem_snapshot_source source = snapbuf_source(buf);
	struct tmem_snapshot_options o = { .since = base };
	struct tmem_backend b = tmem_store_backend(other);
	struct tmem_snapshot_fault fault;

	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(other), &o, &source,
				       ret, &fault),
		 0);
	if (base)
		CHECK_EQ(b.ops->pool_destroy(b.self, base->pools[0].pool), 0);
}

static void save_round(unsigned long round)
{
	static struct tmem_snapshot here[2], there[2];
	const struct tmem_snapshot *since = NULL, *base = NULL;
	struct tmem_backend b = tmem_store_backend(other);
	struct tmem_snapshot_options o = { .pool = pool };
	struct snapbuf buf = { 0 };
	struct tmem_snapshot_sink sink = snapbuf_sink(&buf);
	unsigned now = round % 2;

	if (round % 6) {
		since = &here[!now];
		base = &there[!now];
	} else if (round) {
		CHECK_EQ(b.ops->pool_destroy(b.self, there[!now].pools[0].pool),
			 0);
	}
	o.since = since;
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(store), &o, &sink,
				    &here[now]),
		 0);
	restore(&buf, base, &there[now]);
	check_pairs(&there[now]);
	snapbuf_free(&buf);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 20;
	struct tmem_store_options o = { .limit_bytes = 64u << 20,
					.cool_after_ns = 1 };
	static unsigned writers[WRITERS] = { 0, 1, 2 };
	pthread_t threads[WRITERS + 1];
	unsigned i;

	seed = seed_from(argc, argv, 2);
	CHECK_EQ(tmem_store_open(&o, &store), 0);
	CHECK_EQ(tmem_store_open(&o, &other), 0);
	tmem_compact_eagerly(store);
	tmem_compact_eagerly(other);
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
	for (i = 0; i < WRITERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, write_pairs,
					&writers[i]),
			 0);
	CHECK_EQ(pthread_create(&threads[WRITERS], NULL, maintain, NULL), 0);
	for (unsigned long n = 0; n < rounds; n++)
		save_round(n);
	atomic_store(&done, 1);
	for (i = 0; i <= WRITERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	tmem_store_check(store);
	tmem_store_check(other);
	tmem_store_close(store);
	tmem_store_close(other);
	return 0;
}
