/* SPDX-License-Identifier: MIT */
/*
 * Threads hammer one page store.  Meant for ThreadSanitizer, and useful
 * without.
 *
 *	store_stress ROUNDS [SEED]
 *	store_stress tier ROUNDS [SEED]
 *
 * Every worker has objects of its own, whose pages it knows exactly, and all
 * share some others, whose pages say which key they belong to, but for those
 * that many keys have: these are stored once.  Meanwhile one
 * thread creates, clones and destroys pools, changes the limit, reads the
 * statistics, joins and leaves the ephemeral pool that all use as a cache,
 * checks the invariants and does what a fork does to a store.  With a tier,
 * another maintains the store all the time, while the tier is in changing
 * moods.
 */
#include <pthread.h>
#include <stdatomic.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "core/compact.h"
#include "core/near.h"
#include "core/tiering.h"
#include "fstest.h"
#include "testtier.h"

enum {
	WORKERS = 3,
	VECTOR = 20,
	KEYS = 256,
	SHARED_KEYS = 64,
	LIMIT = 4 << 20,
	SEGMENTS = 24
};

static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;
static tmem_pool_id cache; /* of the other client's, joined */
static struct tmem_backend other;
static const struct tmem_pool_options cache_options = {
	.flags = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED,
	.uuid = { 1, 1 },
};
static _Atomic int nr_running;
static struct testtier *tier; /* or NULL */

struct worker {
	pthread_t thread;
	unsigned nr;
	uint64_t rounds;
	struct rng rng;
	uint64_t tags[KEYS]; /* 0: not there */
};

/*
 * A page that says what it is: key, version, and words made of the two.  Odd
 * versions are the same page whatever the key.
 */
static void fill(void *page, uint64_t key, uint64_t version)
{
	if (version % 2)
		key = 0;
	struct rng rng = { key * 1000003 + version };
	uint64_t *w = page, random = rng_below(&rng, PAGE / 8);
	unsigned i;

	for (i = 2; i < PAGE / 8; i++)
		w[i] = i < random ? rng_next(&rng) : key;
	w[0] = key;
	w[1] = version;
}

static void check_page(const void *page, uint64_t key, uint64_t version)
{
	_Alignas(8) char want[PAGE];

	fill(want, key, version);
	CHECK(memcmp(page, want, PAGE) == 0);
}

/* One in two is of a few that many keys have. */
static uint64_t draw_version(struct rng *rng)
{
	if (rng_below(rng, 2))
		return 1 + 2 * rng_below(rng, 32);
	return 2 + 2 * rng_below(rng, 1u << 30);
}

static uint64_t version_of(const void *page)
{
	uint64_t version;

	memcpy(&version, (const char *)page + 8, sizeof(version));
	return version;
}

static struct tmem_io io_of(unsigned owner, unsigned key, void *page)
{
	return (struct tmem_io){
		.object = { { owner, key / 100, 0 } },
		.index = key,
		.page = page,
	};
}

static void own_key(struct worker *w, char *page)
{
	unsigned key = (unsigned)rng_below(&w->rng, KEYS);
	uint64_t name = (uint64_t)w->nr << 32 | key;
	struct tmem_io io = io_of(w->nr, key, page);

	switch (rng_below(&w->rng, 8)) {
	case 0:
		backend.ops->invalidate(backend.self, pool, &io, 1);
		CHECK_EQ(io.result, w->tags[key] ? 0 : TMEM_MISS);
		w->tags[key] = 0;
		break;
	case 1:
	case 2:
	case 3: {
		uint64_t version = draw_version(&w->rng);

		fill(page, name, version);
		backend.ops->store(backend.self, pool, &io, 1);
		CHECK(io.result == 0 || io.result == TMEM_REFUSED);
		w->tags[key] = io.result == 0 ? version : 0;
		break;
	}
	default:
		backend.ops->load(backend.self, pool, &io, 1);
		CHECK_EQ(io.result, w->tags[key] ? 0 : TMEM_MISS);
		if (w->tags[key])
			check_page(page, name, w->tags[key]);
	}
}

static void load_own_keys(struct worker *w)
{
	_Alignas(8) char pages[VECTOR][PAGE];
	unsigned first = (unsigned)rng_below(&w->rng, KEYS - VECTOR), i;
	struct tmem_io io[VECTOR];

	for (i = 0; i < VECTOR; i++)
		io[i] = io_of(w->nr, first + i, pages[i]);
	backend.ops->load(backend.self, pool, io, VECTOR);
	for (i = 0; i < VECTOR; i++) {
		uint64_t tag = w->tags[first + i];

		CHECK_EQ(io[i].result, tag ? 0 : TMEM_MISS);
		if (tag)
			check_page(pages[i],
				   (uint64_t)w->nr << 32 | (first + i), tag);
	}
}

static void shared_key(struct worker *w, char *page)
{
	unsigned key = (unsigned)rng_below(&w->rng, SHARED_KEYS);
	uint64_t name = ~(uint64_t)key, dropped;
	struct tmem_io io = io_of(WORKERS, key, page);

	switch (rng_below(&w->rng, 16)) {
	case 0:
		backend.ops->invalidate_object(backend.self, pool, io.object,
					       &dropped);
		break;
	case 1:
	case 2:
		backend.ops->invalidate(backend.self, pool, &io, 1);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
	case 7:
		fill(page, name, draw_version(&w->rng));
		backend.ops->store(backend.self, pool, &io, 1);
		CHECK(io.result == 0 || io.result == TMEM_REFUSED);
		break;
	default:
		backend.ops->load(backend.self, pool, &io, 1);
		CHECK(io.result == 0 || io.result == TMEM_MISS);
		if (io.result == 0)
			check_page(page, name, version_of(page));
	}
}

/* Pages of a cache come and go; what is found is what was put there. */
static void cached_key(struct worker *w, char *page)
{
	unsigned key = (unsigned)rng_below(&w->rng, 4ul * KEYS);
	struct tmem_backend be = rng_below(&w->rng, 2) ? backend : other;
	uint64_t name = 1ull << 40 | key;
	struct tmem_io io = io_of(WORKERS + 1, key, page);

	if (be.ops->load(be.self, cache, &io, 1) == -ENOENT)
		return; /* it has left just now */
	if (io.result == 0) {
		check_page(page, name, version_of(page));
		return;
	}
	CHECK_EQ(io.result, TMEM_MISS);
	fill(page, name, draw_version(&w->rng));
	be.ops->store(be.self, cache, &io, 1);
	CHECK(io.result == 0 || io.result == TMEM_REFUSED ||
	      io.result == -ENOENT);
}

static void *work(void *arg)
{
	_Alignas(8) char page[PAGE];
	struct worker *w = arg;
	uint64_t i;

	for (i = 0; i < w->rounds; i++) {
		own_key(w, page);
		if (i % VECTOR == 0)
			load_own_keys(w);
		shared_key(w, page);
		cached_key(w, page);
	}
	atomic_fetch_sub(&nr_running, 1);
	return NULL;
}

/* A clone has its source's pages as they are at some moment. */
static void clone_and_look(struct rng *rng)
{
	_Alignas(8) char page[PAGE];
	tmem_pool_id clone;
	unsigned i;
	int r;

	r = backend.ops->pool_clone(backend.self, pool, &clone);
	CHECK(r == 0 || r == -ENOMEM);
	if (r < 0)
		return;
	for (i = 0; i < 100; i++) {
		unsigned key = (unsigned)rng_below(rng, SHARED_KEYS);
		struct tmem_io io = io_of(WORKERS, key, page);

		backend.ops->load(backend.self, clone, &io, 1);
		CHECK(io.result == 0 || io.result == TMEM_MISS);
		if (io.result == 0)
			check_page(page, ~(uint64_t)key, version_of(page));
	}
	CHECK_EQ(backend.ops->pool_destroy(backend.self, clone), 0);
}

static void count_mapping(void *arg, void *start, size_t bytes)
{
	CHECK(start && bytes);
	*(uint64_t *)arg += bytes;
}

/* It stays as long as the other client has it. */
static void leave_and_join(struct rng *rng)
{
	struct tmem_client *client = tmem_client_default(store);
	tmem_pool_id again;

	CHECK_EQ(tmem_client_set_weight(client,
					1 + (uint32_t)rng_below(rng, 200)),
		 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, cache), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &cache_options, &again),
		 0);
	CHECK_EQ(again, cache);
}

static void control(struct rng *rng)
{
	uint64_t mapped = 0;
	struct tmem_stats s;

	switch (rng_below(rng, 7)) {
	case 6:
		leave_and_join(rng);
		break;
	case 0:
		clone_and_look(rng);
		break;
	case 1:
		CHECK_EQ(tmem_store_set_limit(
				 store,
				 TMEM_STORE_MIN_BYTES +
					 rng_below(
						 rng,
						 LIMIT - TMEM_STORE_MIN_BYTES)),
			 0);
		break;
	case 2:
		tmem_store_before_fork(store);
		tmem_store_after_fork(store, (int)rng_below(rng, 2));
		break;
	case 3:
		tmem_store_thaw(store);
		break;
	case 4:
		tmem_store_maintain(store, rng_below(rng, 1000000));
		tmem_store_check(store);
		break;
	default:
		CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
		tmem_store_for_each_mapping(store, count_mapping, &mapped);
		CHECK(mapped >= s.held_bytes / 2);
	}
}

static void open_cache(void)
{
	struct tmem_client *client;

	CHECK_EQ(tmem_client_create(store, 0, &client), 0);
	CHECK_EQ(tmem_client_allow(client, cache_options.uuid, 1), 0);
	CHECK_EQ(tmem_client_allow(tmem_client_default(store),
				   cache_options.uuid, 1),
		 0);
	other = tmem_client_backend(client);
	CHECK_EQ(other.ops->pool_create(other.self, &cache_options, &cache), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &cache_options, &cache),
		 0);
}

/* All but lies: what can't be read is not what is looked for here. */
static void *maintain(void *arg)
{
	struct rng *rng = arg;

	while (atomic_load(&nr_running)) {
		struct testtier_mood mood = { 0 };
		unsigned part = (unsigned)rng_below(rng, 900);

		switch (rng_below(rng, 8)) {
		case 0:
			mood.write_error = part;
			break;
		case 1:
			mood.write_full = part;
			break;
		case 2:
			mood.write_timeout = part;
			break;
		case 3:
			mood.busy = part;
			break;
		case 4:
			mood.slow = part;
			break;
		default:
			break;
		}
		testtier_set(tier, &mood);
		tmem_store_maintain(store, 1000000);
	}
	return NULL;
}

static void open_tier(struct rng *rng)
{
	tier = testtier_create(SEGMENTS, rng_next(rng));
	CHECK_EQ(tmem_tiering_attach(store, &testtier_ops, tier, NULL), 0);
	store->tiering->rest_step_ns = 0;
	store->tiering->backoff_step_ns = 1000;
}

static void print_tier(void)
{
	struct tmem_stats s;

	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	printf("%llu down, %llu read, %llu back, %llu cleaned\n",
	       (unsigned long long)s.tier_moved,
	       (unsigned long long)s.tier_reads,
	       (unsigned long long)s.tier_promoted,
	       (unsigned long long)s.tier_cleaned);
}

int main(int argc, char **argv)
{
	bool with_tier = argc > 1 && strcmp(argv[1], "tier") == 0;
	static struct worker workers[WORKERS];
	struct tmem_store_options o = { .limit_bytes = LIMIT,
					.cool_after_ns = 1 };
	struct rng rng, tier_rng;
	pthread_t maintainer;
	uint64_t rounds;
	unsigned i;

	tmem_near_from_bytes = 0; /* as large stores do it */
	argc -= with_tier;
	argv += with_tier;
	rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 10000;
	rng.state = seed_from(argc, argv, 2);
	tier_rng.state = ~rng.state;
	CHECK_EQ(tmem_store_open(&o, &store), 0);
	tmem_compact_eagerly(store);
	if (with_tier)
		open_tier(&tier_rng);
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
	open_cache();
	atomic_store(&nr_running, WORKERS);
	for (i = 0; i < WORKERS; i++) {
		workers[i].nr = i;
		workers[i].rounds = rounds;
		workers[i].rng.state = rng_next(&rng);
		CHECK_EQ(pthread_create(&workers[i].thread, NULL, work,
					&workers[i]),
			 0);
	}
	if (with_tier)
		CHECK_EQ(pthread_create(&maintainer, NULL, maintain, &tier_rng),
			 0);
	while (atomic_load(&nr_running))
		control(&rng);
	for (i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	if (with_tier) {
		pthread_join(maintainer, NULL);
		print_tier();
	}
	tmem_store_check(store);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	tmem_store_check(store);
	tmem_store_close(store);
	return 0;
}
