/* SPDX-License-Identifier: MIT */
/*
 * Compaction: what is held after most pages went is near what the rest needs,
 * nothing is lost, and who loads meanwhile does not notice.
 *
 * Usage: store_compact [PAGES [SEED]]
 */
#include <pthread.h>
#include <stdatomic.h>

#include "storetest.h"

enum {
	KEEP_PERCENT = 30,
	BUDGET_NS = 2000000
};

static uint32_t nr_pages = 60000;
static uint64_t seed;
static bool all_random;
static _Atomic int done;

static void open_store(void)
{
	struct tmem_store_options o = { .limit_bytes = 8ull << 30 };

	open_with(&o);
}

/* From same-filled to 3/4 random. */
static void fill(void *page, uint32_t key)
{
	struct rng rng = { key + seed };
	unsigned random = (unsigned)(rng_next(&rng) % 384), i;
	uint64_t *w = page;

	if (all_random)
		random = PAGE / 8;
	for (i = 0; i < PAGE / 8; i++)
		w[i] = i < random ? rng_next(&rng) : key;
}

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){ .object = { { key >> 16 } },
				 .index = key & 0xffff,
				 .page = page };
}

static void put(uint32_t key)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, key);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void get(uint32_t key)
{
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
	fill(want, key);
	CHECK(memcmp(page, want, PAGE) == 0);
}

static bool is_kept(uint32_t key)
{
	struct rng rng = { key ^ seed * 31 };

	return rng_next(&rng) % 100 < KEEP_PERCENT;
}

static uint64_t thin_out(void)
{
	uint32_t key;

	for (key = 0; key < nr_pages; key++) {
		struct tmem_io io = io_of(key, NULL);

		if (is_kept(key))
			continue;
		CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1),
			 0);
		CHECK_EQ(io.result, 0);
	}
	return stats().held_bytes;
}

/* What a store takes that never had any other pages. */
static uint64_t needed_bytes(void)
{
	uint64_t bytes;
	uint32_t key;

	open_store();
	for (key = 0; key < nr_pages; key++)
		if (is_kept(key))
			put(key);
	bytes = stats().held_bytes;
	close_store();
	return bytes;
}

static void *load_all_the_time(void *arg)
{
	uint32_t key;

	(void)arg;
	while (!atomic_load(&done))
		for (key = 0; key < nr_pages && !atomic_load(&done); key++)
			if (is_kept(key))
				get(key);
	return NULL;
}

static void memory_comes_near_to_what_the_rest_needs(void)
{
	uint64_t need = needed_bytes(), before;
	struct tmem_stats s;
	pthread_t loader;
	uint32_t key;

	open_store();
	for (key = 0; key < nr_pages; key++)
		put(key);
	before = thin_out();
	CHECK_EQ(pthread_create(&loader, NULL, load_all_the_time, NULL), 0);
	while (tmem_store_maintain(store, BUDGET_NS))
		;
	atomic_store(&done, 1);
	pthread_join(loader, NULL);
	s = stats();
	fprintf(stderr, "    needed %lu KiB, held %lu, then %lu: %.3f\n",
		need >> 10, before >> 10, s.held_bytes >> 10,
		(double)s.held_bytes / (double)need);
	CHECK(s.moved > 0);
	CHECK(s.held_bytes * 100 <= need * 125);
	for (key = 0; key < nr_pages; key++)
		if (is_kept(key))
			get(key);
	/* There is nothing left to do, and the pages can all go. */
	CHECK_EQ(tmem_store_maintain(store, BUDGET_NS), 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	CHECK_EQ(stats().data_bytes, stats().idle_bytes);
	close_store();
}

static void ephemeral_and_shared_pages_survive_it(void)
{
	struct tmem_pool_options o = { .flags = TMEM_POOL_EPHEMERAL };
	tmem_pool_id persistent, ephemeral, clone;
	uint32_t key;

	nr_pages = 20000;
	open_store();
	persistent = pool;
	for (key = 0; key < nr_pages; key++)
		put(key);
	CHECK_EQ(backend.ops->pool_create(backend.self, &o, &ephemeral), 0);
	pool = ephemeral;
	for (key = 0; key < nr_pages; key++)
		put(key);
	thin_out();
	pool = persistent;
	thin_out();
	CHECK_EQ(backend.ops->pool_clone(backend.self, persistent, &clone), 0);
	for (key = 0; key < nr_pages; key += 2)
		if (is_kept(key))
			put(key);
	while (tmem_store_maintain(store, BUDGET_NS))
		tmem_store_check(store);
	for (key = 0; key < nr_pages; key++) {
		if (!is_kept(key))
			continue;
		pool = clone;
		get(key);
		pool = ephemeral;
		get(key);
		pool = persistent;
		get(key);
	}
	close_store();
}

/* Their spans have 63 slots, not 64. */
static void pages_stored_as_they_are_survive_it(void)
{
	uint32_t key;

	nr_pages = 5000;
	all_random = true;
	open_store();
	for (key = 0; key < nr_pages; key++)
		put(key);
	CHECK_EQ(stats().raw_pages, nr_pages);
	thin_out();
	while (tmem_store_maintain(store, BUDGET_NS))
		tmem_store_check(store);
	CHECK(stats().moved > 0);
	for (key = 0; key < nr_pages; key++)
		if (is_kept(key))
			get(key);
	all_random = false;
	close_store();
}

int main(int argc, char **argv)
{
	if (argc > 1)
		nr_pages = (uint32_t)strtoul(argv[1], NULL, 0);
	seed = seed_from(argc, argv, 2);
	RUN(memory_comes_near_to_what_the_rest_needs);
	RUN(ephemeral_and_shared_pages_survive_it);
	RUN(pages_stored_as_they_are_survive_it);
	return 0;
}
