/* SPDX-License-Identifier: MIT */
/*
 * Compaction where slots are shared: by equal pages, by clones, by who has
 * them in hand; across a fork, and in a store that is opened again.
 */
#include <pthread.h>
#include <stdatomic.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "core/compact.h"
#include "core/object.h"
#include "core/saving.h"
#include "fstest.h"
#include "testimage.h"

enum {
	PAGES = 20000,
	KEEP_PERCENT = 30,
	BUDGET_NS = 2000000,
	PINS = 400
};

static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;
static unsigned duplicates; /* percent */
static uint32_t content[PAGES];
static _Atomic int done;

static void open_store(const int *fd)
{
	struct tmem_store_options o = { .limit_bytes = 1ull << 30,
					.arena_fd = fd };

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	backend = tmem_store_backend(store);
}

static void open_with_pool(const int *fd)
{
	open_store(fd);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
}

static void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static struct tmem_stats stats(void)
{
	struct tmem_stats s;

	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	return s;
}

/* That part of all equals a page before, drawn from all of these. */
static void draw_contents(unsigned percent)
{
	struct rng rng = { percent };
	uint32_t key;

	duplicates = percent;
	for (key = 0; key < PAGES; key++) {
		content[key] = key;
		if (key && rng_below(&rng, 100) < percent)
			content[key] = content[rng_below(&rng, key)];
	}
}

/* Few sizes, each of which has many spans, as in a larger store. */
static void fill(void *page, uint32_t tag)
{
	struct rng rng = { tag };
	unsigned random = 40 * (1 + (unsigned)rng_below(&rng, 8)), i;
	uint64_t *w = page;

	for (i = 0; i < PAGE / 8; i++)
		w[i] = i < random ? rng_next(&rng) : tag;
}

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){ .object = { { key >> 12 } },
				 .index = key & 0xfff,
				 .page = page };
}

static void put(tmem_pool_id to, uint32_t key, uint32_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, tag);
	CHECK_EQ(backend.ops->store(backend.self, to, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void get(tmem_pool_id from, uint32_t key, uint32_t tag)
{
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(backend.ops->load(backend.self, from, &io, 1), 0);
	CHECK_EQ(io.result, 0);
	fill(want, tag);
	CHECK(memcmp(page, want, PAGE) == 0);
}

static bool is_kept(uint32_t key, uint32_t set)
{
	struct rng rng = { key * 7 + set };

	return rng_below(&rng, 100) < KEEP_PERCENT;
}

static void put_all(tmem_pool_id to)
{
	uint32_t key;

	for (key = 0; key < PAGES; key++)
		put(to, key, content[key]);
}

static void put_kept(tmem_pool_id to, uint32_t set)
{
	uint32_t key;

	for (key = 0; key < PAGES; key++)
		if (is_kept(key, set))
			put(to, key, content[key]);
}

static void get_kept(tmem_pool_id from, uint32_t set)
{
	uint32_t key;

	for (key = 0; key < PAGES; key++)
		if (is_kept(key, set))
			get(from, key, content[key]);
}

static void drop(tmem_pool_id from, uint32_t key)
{
	struct tmem_io io = io_of(key, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, from, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void thin_out(tmem_pool_id what, uint32_t set)
{
	uint32_t key;

	for (key = 0; key < PAGES; key++)
		if (!is_kept(key, set))
			drop(what, key);
}

static void maintain(void)
{
	while (tmem_store_maintain(store, BUDGET_NS))
		;
	CHECK(!tmem_sweep_is_on(store));
}

/* Until references follow, and half of the index is walked. */
static void maintain_half(void)
{
	do
		CHECK(tmem_store_maintain(store, 0));
	while (store->sweep.stage != TMEM_SWEEP_FOLLOW ||
	       store->sweep.pos[0] < 1u << (TMEM_INDEX_TAG_BITS - 1));
	tmem_store_check(store);
	CHECK(stats().redirected > 0);
}

/* Held, and what a store needs that never had any other pages. */
static void check_held(uint64_t before, uint64_t need)
{
	uint64_t held = stats().held_bytes;

	fprintf(stderr, "    %u %%: needed %lu KiB, held %lu, then %lu: %.3f\n",
		duplicates, need >> 10, before >> 10, held >> 10,
		(double)held / (double)need);
	CHECK(held * 100 <= need * 125);
}

static void *load_all_the_time(void *arg)
{
	(void)arg;
	while (!atomic_load(&done))
		get_kept(pool, 1);
	return NULL;
}

static void equal_pages_all_over_leave_no_holes(void)
{
	static const unsigned parts[] = { 5, 20, 50 };
	uint64_t before, need;
	pthread_t loader;
	unsigned i;

	for (i = 0; i < 3; i++) {
		draw_contents(parts[i]);
		open_with_pool(NULL);
		put_kept(pool, 1);
		need = stats().held_bytes;
		close_store();

		open_with_pool(NULL);
		put_all(pool);
		thin_out(pool, 1);
		before = stats().held_bytes;
		atomic_store(&done, 0);
		CHECK_EQ(pthread_create(&loader, NULL, load_all_the_time, NULL),
			 0);
		maintain();
		atomic_store(&done, 1);
		pthread_join(loader, NULL);
		check_held(before, need);
		get_kept(pool, 1);
		CHECK_EQ(tmem_store_maintain(store, BUDGET_NS), 0);
		CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
		CHECK_EQ(stats().data_bytes, stats().idle_bytes);
		close_store();
	}
}

/* The clone's pages have no owner where the original's went. */
static void clones_leave_no_holes(void)
{
	tmem_pool_id clone;
	uint64_t before, need;

	draw_contents(0);
	open_with_pool(NULL);
	put_kept(pool, 1);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &clone), 0);
	put_kept(clone, 2);
	need = stats().held_bytes;
	close_store();

	open_with_pool(NULL);
	put_all(pool);
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), 0);
	thin_out(pool, 1);
	thin_out(clone, 2);
	before = stats().held_bytes;
	maintain();
	check_held(before, need);
	get_kept(pool, 1);
	get_kept(clone, 2);
	close_store();
}

/* New references to what has moved are to where it is now. */
static void pages_come_and_go_meanwhile(void)
{
	tmem_pool_id clone;
	uint32_t key;

	draw_contents(30);
	open_with_pool(NULL);
	put_all(pool);
	thin_out(pool, 1);
	maintain_half();
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), 0);
	tmem_store_check(store);
	for (key = 0; key < PAGES; key += 3)
		put(pool, key, content[key / 2]);
	for (key = 0; key < PAGES; key += 2)
		if (is_kept(key, 1))
			drop(clone, key);
	tmem_store_check(store);
	maintain();
	for (key = 0; key < PAGES; key++)
		if (key % 3 == 0)
			get(pool, key, content[key / 2]);
		else if (is_kept(key, 1))
			get(pool, key, content[key]);
	close_store();
}

static void a_restartable_store_is_compacted_too(void)
{
	uint64_t before, need;
	int fd = image_memfd();

	draw_contents(20);
	open_with_pool(&fd);
	put_kept(pool, 1);
	need = stats().held_bytes;
	close_store();
	close(fd);

	fd = image_memfd();
	open_with_pool(&fd);
	put_all(pool);
	thin_out(pool, 1);
	before = stats().held_bytes;
	maintain_half();
	close_store();
	open_store(&fd);
	CHECK_EQ(stats().recover_torn + stats().recover_stale, 0);
	get_kept(pool, 1);
	maintain();
	check_held(before, need);
	close_store();
	open_store(&fd);
	CHECK_EQ(stats().recover_torn + stats().recover_stale, 0);
	get_kept(pool, 1);
	close_store();
	close(fd);
}

static void a_fork_interrupts_it(void)
{
	uint64_t redirected;
	uint32_t key;

	draw_contents(20);
	open_with_pool(NULL);
	put_all(pool);
	thin_out(pool, 1);
	maintain_half();
	redirected = stats().redirected;
	tmem_store_before_fork(store);
	tmem_store_after_fork(store, 1);
	CHECK_EQ(tmem_store_maintain(store, BUDGET_NS), 0);
	CHECK_EQ(stats().redirected, redirected);
	tmem_store_check(store);
	get_kept(pool, 1);
	for (key = 0; key < PAGES; key += 5)
		put(pool, key, content[key]);
	tmem_store_check(store);
	tmem_store_thaw(store);
	maintain();
	CHECK(stats().redirected > redirected);
	get_kept(pool, 1);
	close_store();
}

static uint32_t pin(uint32_t key) TMEM_UNANALYSED
{
	struct tmem_io io = io_of(key, NULL);
	struct tmem_key k = tmem_key_of(store, tmem_pool_number(pool),
					&io.object, io.index);
	uint32_t pinned;

	tmem_lock_acquire(&k.shard->lock);
	pinned = tmem_saving_pin(store, k.shard,
				 *tmem_object_find_page(store, &k));
	tmem_lock_release(&k.shard->lock);
	CHECK(pinned);
	return pinned;
}

static void unpin(uint32_t handle) TMEM_UNANALYSED
{
	tmem_lock_acquire(&store->shards[0].lock);
	tmem_saving_unpin(store, &store->shards[0], handle);
	tmem_lock_release(&store->shards[0].lock);
}

/* What a snapshot holds can't move; nothing is tried for ever. */
static void what_somebody_holds_stays(void)
{
	struct tmem_slot before[PINS];
	uint32_t pins[PINS], key, nr = 0;

	draw_contents(5);
	open_with_pool(NULL);
	put_all(pool);
	for (key = 0; nr < PINS; key += 3) {
		pins[nr] = pin(key);
		before[nr] = *tmem_arena_slot(&store->arena, pins[nr]);
		nr++;
	}
	thin_out(pool, 1);
	maintain();
	while (nr--) {
		CHECK(memcmp(&before[nr],
			     tmem_arena_slot(&store->arena, pins[nr]),
			     sizeof(before[nr])) == 0);
		CHECK(tmem_arena_is_whole(&store->arena, pins[nr]));
		unpin(pins[nr]);
	}
	tmem_store_check(store);
	maintain();
	get_kept(pool, 1);
	close_store();
}

int main(void)
{
	RUN(equal_pages_all_over_leave_no_holes);
	RUN(clones_leave_no_holes);
	RUN(pages_come_and_go_meanwhile);
	RUN(a_restartable_store_is_compacted_too);
	RUN(a_fork_interrupts_it);
	RUN(what_somebody_holds_stays);
	return 0;
}
