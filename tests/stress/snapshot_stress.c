/* SPDX-License-Identifier: MIT */
/*
 * Snapshots while threads store, drop, load, clone and compact.  Each writer
 * has its own pairs of pages and gives the first of a pair a new version, then
 * the second: so at any instant the first is as new as the second or one
 * ahead, and what a snapshot holds of one instant must be so, too.  Each is
 * restored, full or as an increment, while more of it goes on and somebody
 * looks: what he sees is whole.  Now and then the pool gets a new dictionary.
 *
 *	snapshot_stress ROUNDS [SEED]
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "core/compact.h"
#include "givedict.h"
#include "snapbuf.h"

enum {
	WRITERS = 3,
	PAIRS = 150,
	WATCHED = 100 /* rounds that somebody looks at */
};

static struct tmem_store *store, *other;
static struct tmem_backend backend;
static tmem_pool_id pool;
static _Atomic int done;
static _Atomic unsigned long rounds_done;
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

/* The page's version; 0: it is not there; -ENOENT: there is no such pool. */
static int64_t look(const struct tmem_backend *b, tmem_pool_id p,
		    const unsigned at[3])
{
	uint64_t page[PAGE / 8], want[PAGE / 8];
	struct tmem_io io = io_of(at[0], at[1], at[2], page);
	int r = b->ops->load(b->self, p, &io, 1);

	if (r == -ENOENT)
		return r;
	CHECK_EQ(r, 0);
	CHECK(io.result == 0 || io.result == TMEM_MISS);
	if (io.result)
		return 0;
	fill(want, at[0], at[1], page[PAGE / 8 - 1]);
	CHECK(memcmp(page, want, PAGE) == 0);
	return (int64_t)page[PAGE / 8 - 1];
}

static uint64_t get(const struct tmem_backend *b, tmem_pool_id p,
		    const unsigned at[3])
{
	int64_t version = look(b, p, at);

	CHECK(version >= 0);
	return (uint64_t)version;
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

/* Some pages' way: a page's first words are those of others. */
static void give_one(uint64_t nr)
{
	uint64_t page[PAGE / 8];

	fill(page, nr % WRITERS, nr % PAIRS, nr);
	give_dict(store, pool, page, PAGE);
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
		if (rng_below(&rng, 200) == 0)
			give_one(rng_next(&rng));
		if (rng_below(&rng, 60) == 0 &&
		    backend.ops->pool_clone(backend.self, pool, &clone) == 0)
			CHECK_EQ(backend.ops->pool_destroy(backend.self, clone),
				 0);
		if (rng_below(&rng, 40) == 0)
			tmem_store_check(store);
	}
	return NULL;
}

/* False: there is no such pool any more. */
static bool check_pairs(tmem_pool_id p)
{
	struct tmem_backend b = tmem_store_backend(other);
	int64_t first, second;
	unsigned at[3];

	for (at[0] = 0; at[0] < WRITERS; at[0]++)
		for (at[1] = 0; at[1] < PAIRS; at[1]++) {
			at[2] = 0;
			first = look(&b, p, at);
			at[2] = 1;
			second = look(&b, p, at);
			if (first == -ENOENT || second == -ENOENT)
				return false;
			/* Dropped the other way round: then any first. */
			CHECK(first == second || first == second + 1 ||
			      (second == 0 && first));
		}
	return true;
}

/* Pools come and go, whole; each is looked at as soon as it is seen. */
static void *look_at_what_is_there(void *arg)
{
	struct tmem_client *client = tmem_client_default(other);
	struct tmem_client_pool pools[3];
	tmem_pool_id seen[2] = { 0 };
	unsigned nr, i;

	(void)arg;
	while (!atomic_load(&done) && atomic_load(&rounds_done) < WATCHED) {
		nr = tmem_client_pools(client, pools, 3);
		CHECK(nr <= 2); /* one, and what it is based on */
		tmem_store_maintain(other, 100000);
		for (i = 0; i < nr; i++)
			if (pools[i].id != seen[i])
				check_pairs(seen[i] = pools[i].id);
		sched_yield();
	}
	return NULL;
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
	CHECK(check_pairs(there[now].pools[0].pool));
	snapbuf_free(&buf);
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 20;
	struct tmem_store_options o = { .limit_bytes = 64u << 20,
					.cool_after_ns = 1 };
	static unsigned writers[WRITERS] = { 0, 1, 2 };
	pthread_t threads[WRITERS + 2];
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
	CHECK_EQ(pthread_create(&threads[WRITERS + 1], NULL,
				look_at_what_is_there, NULL),
		 0);
	for (unsigned long n = 0; n < rounds; n++) {
		save_round(n);
		atomic_fetch_add(&rounds_done, 1);
	}
	atomic_store(&done, 1);
	for (i = 0; i < WRITERS + 2; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	tmem_store_check(store);
	tmem_store_check(other);
	tmem_store_close(store);
	tmem_store_close(other);
	return 0;
}
