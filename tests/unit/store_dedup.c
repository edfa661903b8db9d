/* SPDX-License-Identifier: MIT */
/*
 * Equal pages are stored once: whose, what becomes of them when their owners
 * change or go, and that nobody can tell what another client has.
 */
#include <stdio.h>
#include <time.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "fstest.h"

enum {
	KEYS = 500,
#ifdef __SANITIZE_THREAD__
	MANY = 4000,
#else
	MANY = 20000,
#endif
	POOLS = 3,
	SAMPLES = 10000
};

static struct tmem_store *store;
static struct tmem_backend a, b; /* two clients */
static struct tmem_client *client_a, *client_b;
static tmem_pool_id pool_a, pool_b;

static void open_store(int no_dedup)
{
	struct tmem_store_options o = { .limit_bytes = 256ull << 20,
					.no_dedup = no_dedup,
					.cool_after_ns = 1 };

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	CHECK_EQ(tmem_client_create(store, 0, &client_a), 0);
	CHECK_EQ(tmem_client_create(store, 0, &client_b), 0);
	a = tmem_client_backend(client_a);
	b = tmem_client_backend(client_b);
	CHECK_EQ(a.ops->pool_create(a.self, NULL, &pool_a), 0);
	CHECK_EQ(b.ops->pool_create(b.self, NULL, &pool_b), 0);
}

static void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static struct tmem_stats stats(void)
{
	struct tmem_stats s;

	CHECK_EQ(a.ops->stats(a.self, &s), 0);
	return s;
}

static void fill(void *page, uint64_t content)
{
	struct rng rng = { content + 1 };
	uint64_t *w = page;
	unsigned i;

	for (i = 0; i < PAGE / 8; i++)
		w[i] = i % 2 ? rng_next(&rng) : content;
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 100 } },
				 .index = key,
				 .page = page };
}

static void put(struct tmem_backend be, tmem_pool_id pool, unsigned key,
		uint64_t content)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, content);
	CHECK_EQ(be.ops->store(be.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void get(struct tmem_backend be, tmem_pool_id pool, unsigned key,
		uint64_t content)
{
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(be.ops->load(be.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
	fill(want, content);
	CHECK(memcmp(page, want, PAGE) == 0);
}

static void drop(struct tmem_backend be, tmem_pool_id pool, unsigned key)
{
	struct tmem_io io = io_of(key, NULL);

	CHECK_EQ(be.ops->invalidate(be.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void equal_pages_of_a_client_are_stored_once(void)
{
	uint64_t once;
	unsigned key;

	open_store(0);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, key, key);
	once = stats().stored_bytes;
	for (key = 0; key < 2 * KEYS; key++)
		put(a, pool_a, KEYS + key, key % KEYS);
	CHECK_EQ(stats().stored_bytes, once);
	CHECK_EQ(stats().dedup_stores, 2 * KEYS);
	CHECK_EQ(stats().ref_pages, 2 * KEYS);
	for (key = 0; key < 3 * KEYS; key++)
		get(a, pool_a, key, key % KEYS);
	close_store();
}

static void a_page_that_did_not_change_is_not_stored_again(void)
{
	unsigned key;

	open_store(0);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, key, key);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, key, key);
	CHECK_EQ(stats().stores_same, KEYS);
	CHECK_EQ(stats().ref_pages, 0);
	close_store();
}

static void data_lives_as_long_as_its_last_user(void)
{
	unsigned key;

	open_store(0);
	for (key = 0; key < 3 * KEYS; key++)
		put(a, pool_a, key, key % KEYS);
	/* Owners drop theirs, change theirs; users stay. */
	for (key = 0; key < KEYS; key += 2)
		drop(a, pool_a, key);
	for (key = 1; key < KEYS; key += 2)
		put(a, pool_a, key, 9000 + key);
	tmem_store_check(store);
	for (key = KEYS; key < 3 * KEYS; key++)
		get(a, pool_a, key, key % KEYS);
	/* Whom nobody owns any more is found all the same. */
	put(a, pool_a, 0, 0);
	get(a, pool_a, 0, 0);
	for (key = KEYS; key < 3 * KEYS; key++)
		drop(a, pool_a, key);
	tmem_store_check(store);
	get(a, pool_a, 0, 0);
	get(a, pool_a, 1, 9001);
	CHECK_EQ(a.ops->pool_destroy(a.self, pool_a), 0);
	CHECK_EQ(stats().stored_bytes, 0);
	close_store();
}

static void clients_share_nothing_unless_they_trust_each_other(void)
{
	unsigned key;

	open_store(0);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, key, key);
	for (key = 0; key < KEYS; key++)
		put(b, pool_b, key, key);
	CHECK_EQ(stats().dedup_stores, 0);
	CHECK_EQ(tmem_client_join_group(client_a, 0), -EINVAL);
	CHECK_EQ(tmem_client_join_group(client_a, 7), 0);
	CHECK_EQ(tmem_client_join_group(client_b, 7), 0);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, KEYS + key, 5000 + key);
	for (key = 0; key < KEYS; key++)
		put(b, pool_b, KEYS + key, 5000 + key);
	CHECK_EQ(stats().dedup_stores, KEYS);
	tmem_client_destroy(client_a);
	for (key = 0; key < KEYS; key++)
		get(b, pool_b, KEYS + key, 5000 + key);
	close_store();
}

/* Whoever leaves a group takes its pages along, though not their hashes. */
static void who_has_left_a_group_shares_no_more(void)
{
	unsigned key;

	open_store(0);
	CHECK_EQ(tmem_client_join_group(client_a, 7), 0);
	CHECK_EQ(tmem_client_join_group(client_b, 7), 0);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, key, key);
	CHECK_EQ(tmem_client_join_group(client_a, 8), 0);
	for (key = 0; key < KEYS; key++)
		put(b, pool_b, key, key);
	CHECK_EQ(stats().dedup_stores, 0);
	for (key = 0; key < KEYS; key++)
		get(b, pool_b, key, key);
	close_store();
}

/* Evicting one frees its memory, whoever has the same. */
static void ephemeral_pages_take_no_part(void)
{
	struct tmem_pool_options o = { .flags = TMEM_POOL_EPHEMERAL };
	tmem_pool_id cache;
	unsigned key;

	open_store(0);
	CHECK_EQ(a.ops->pool_create(a.self, &o, &cache), 0);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, key, key);
	for (key = 0; key < 2 * KEYS; key++)
		put(a, cache, key, key);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, 2 * KEYS + key, KEYS + key);
	CHECK_EQ(stats().dedup_stores, 0);
	close_store();
}

/* The same set in three pools, `seed` 0: in order. */
static unsigned saved_of_three(const tmem_pool_id *pools, uint64_t first,
			       uint64_t seed)
{
	static unsigned order[MANY];
	uint64_t before = stats().dedup_stores;
	struct rng rng = { seed };
	unsigned i, pool;

	for (i = 0; i < MANY; i++)
		order[i] = i;
	for (pool = 0; pool < POOLS; pool++) {
		for (i = MANY; seed && i-- > 1;) {
			unsigned j = (unsigned)rng_below(&rng, i + 1);
			unsigned was = order[i];

			order[i] = order[j];
			order[j] = was;
		}
		for (i = 0; i < MANY; i++)
			put(a, pools[pool], (unsigned)first + order[i],
			    first + order[i]);
	}
	return (unsigned)((stats().dedup_stores - before) * 100 /
			  ((POOLS - 1ull) * MANY));
}

static void nearly_all_equal_pages_are_found(void)
{
	tmem_pool_id pools[POOLS] = { pool_a };
	unsigned i, saved;

	open_store(0);
	pools[0] = pool_a;
	for (i = 1; i < POOLS; i++)
		CHECK_EQ(a.ops->pool_create(a.self, NULL, &pools[i]), 0);
	for (i = 0; i < 3; i++) {
		saved = saved_of_three(pools, (uint64_t)i * MANY, i);
		fprintf(stderr, "    %u %% saved\n", saved);
		CHECK(saved >= 90);
	}
	for (i = 0; i < MANY; i += 97)
		get(a, pools[i % POOLS], i, i);
	tmem_store_check(store);
	/* The table goes with the pages. */
	for (i = 0; i < POOLS; i++)
		CHECK_EQ(a.ops->pool_destroy(a.self, pools[i]), 0);
	while (tmem_store_maintain(store, 1000000000))
		;
	fprintf(stderr, "    metadata then %zu KiB\n",
		(size_t)stats().meta_bytes >> 10);
	CHECK(stats().meta_bytes < 500u << 10);
	close_store();
}

static void nothing_is_compared_if_that_is_off(void)
{
	unsigned key;

	open_store(1);
	for (key = 0; key < 2 * KEYS; key++)
		put(a, pool_a, key, key % KEYS);
	CHECK_EQ(stats().dedup_stores, 0);
	close_store();
}

static void clones_and_cold_pages_and_compaction(void)
{
	tmem_pool_id clone;
	unsigned key;

	open_store(0);
	for (key = 0; key < 3 * KEYS; key++)
		put(a, pool_a, key, key % KEYS);
	CHECK_EQ(a.ops->pool_clone(a.self, pool_a, &clone), 0);
	for (key = 0; key < KEYS; key++)
		put(a, pool_a, key, 7000 + key);
	for (key = 0; key < 8; key++)
		while (tmem_store_maintain(store, 1000000000))
			;
	tmem_store_check(store);
	for (key = 0; key < 3 * KEYS; key++)
		get(a, clone, key, key % KEYS);
	for (key = KEYS; key < 3 * KEYS; key++)
		get(a, pool_a, key, key % KEYS);
	for (key = 0; key < KEYS; key++)
		get(a, pool_a, key, 7000 + key);
	close_store();
}

/* Timing: Kolmogorov and Smirnov's test of two samples. */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_value(const void *x, const void *y)
{
	uint64_t p = *(const uint64_t *)x, q = *(const uint64_t *)y;

	return p < q ? -1 : p > q;
}

/* The largest distance of the two distributions, in 1/SAMPLES. */
static unsigned distance(uint64_t *x, uint64_t *y)
{
	unsigned i = 0, j = 0, most = 0;

	qsort(x, SAMPLES, sizeof(*x), by_value);
	qsort(y, SAMPLES, sizeof(*y), by_value);
	while (i < SAMPLES && j < SAMPLES) {
		uint64_t at = x[i] < y[j] ? x[i] : y[j];
		unsigned apart;

		while (i < SAMPLES && x[i] == at)
			i++;
		while (j < SAMPLES && y[j] == at)
			j++;
		apart = i > j ? i - j : j - i;
		if (apart > most)
			most = apart;
	}
	return most;
}

static uint64_t time_store(unsigned key, uint64_t content)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);
	uint64_t start;

	fill(page, content);
	start = now_ns();
	b.ops->store(b.self, pool_b, &io, 1);
	start = now_ns() - start;
	CHECK_EQ(io.result, 0);
	drop(b, pool_b, key);
	return start;
}

/* Neighbours, so that they compress alike; A has one of the two. */
static uint64_t content_of(unsigned i, bool known)
{
	struct rng rng = { i };

	return 1000000u + 2ul * i + (rng_below(&rng, 2) == known);
}

static unsigned measure(void)
{
	static uint64_t known[SAMPLES], random[SAMPLES];
	struct rng rng = { now_ns() };
	unsigned i;

	for (i = 0; i < SAMPLES; i++) {
		/* Which of the two comes first must not tell them apart. */
		if (rng_below(&rng, 2)) {
			known[i] = time_store(i, content_of(i, true));
			random[i] = time_store(i, content_of(i, false));
		} else {
			random[i] = time_store(i, content_of(i, false));
			known[i] = time_store(i, content_of(i, true));
		}
	}
	return distance(known, random);
}

static void the_time_of_a_store_says_nothing_of_others(void)
{
	/* p > 0.01: 1.628 * sqrt(2 / n) apart at the most. */
	const unsigned most = (unsigned)(1.628 * 0.0141421 * SAMPLES);
	unsigned i, apart = 0;

	open_store(0);
	for (i = 0; i < SAMPLES; i++)
		put(a, pool_a, i, content_of(i, true));
	/* By chance one in a hundred is further apart. */
	for (i = 0; i < 3; i++) {
		apart = measure();
		fprintf(stderr, "    apart %u of %u\n", apart, most);
		if (apart <= most)
			break;
	}
	CHECK(apart <= most);
	close_store();
}

int main(void)
{
	RUN(equal_pages_of_a_client_are_stored_once);
	RUN(a_page_that_did_not_change_is_not_stored_again);
	RUN(data_lives_as_long_as_its_last_user);
	RUN(clients_share_nothing_unless_they_trust_each_other);
	RUN(who_has_left_a_group_shares_no_more);
	RUN(ephemeral_pages_take_no_part);
	RUN(nearly_all_equal_pages_are_found);
	RUN(nothing_is_compared_if_that_is_off);
	RUN(clones_and_cold_pages_and_compaction);
	RUN(the_time_of_a_store_says_nothing_of_others);
	return 0;
}
