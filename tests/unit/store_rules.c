/* SPDX-License-Identifier: MIT */
/* What tmem/store.h and tmem/backend.h promise, one rule a test. */
#include <stddef.h>

#include "core/core.h"
#include "core/object.h"
#include "storetest.h"

static void open_store(uint64_t limit_bytes, int no_raw)
{
	struct tmem_store_options o = {
		.limit_bytes = limit_bytes,
		.max_limit_bytes = 64u << 20,
		.no_raw = no_raw,
	};

	open_with(&o);
}

/* The first `random` words are random, the others the tag. */
static void fill(void *page, uint64_t tag, unsigned random)
{
	struct rng rng = { tag };
	uint64_t *w = page;
	unsigned i;

	for (i = 0; i < PAGE / 8; i++)
		w[i] = i < random ? rng_next(&rng) : tag;
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){
		.object = { { 1, 2, key / 1000 } },
		.index = key,
		.page = page,
	};
}

static int put(unsigned key, uint64_t tag, unsigned random)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, tag, random);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	return io.result;
}

static int get(unsigned key, uint64_t tag, unsigned random)
{
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
	fill(want, tag, random);
	if (io.result == 0)
		CHECK(memcmp(page, want, PAGE) == 0);
	return io.result;
}

static int drop(unsigned key)
{
	struct tmem_io io = io_of(key, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1), 0);
	return io.result;
}

static void bad_options_are_refused(void)
{
	struct tmem_store_options o = { .limit_bytes =
						TMEM_STORE_MIN_BYTES - 1 };

	store = NULL;
	CHECK_EQ(tmem_store_open(&o, &store), -EINVAL);
	o.limit_bytes = 2ull * TMEM_STORE_MIN_BYTES;
	o.max_limit_bytes = TMEM_STORE_MIN_BYTES;
	CHECK_EQ(tmem_store_open(&o, &store), -EINVAL);
	CHECK(!store);
	tmem_store_close(NULL);
}

static void the_later_store_wins(void)
{
	open_store(8u << 20, 0);
	CHECK_EQ(get(1, 0, 0), TMEM_MISS);
	CHECK_EQ(put(1, 11, 100), 0);
	CHECK_EQ(put(1, 12, 200), 0);
	CHECK_EQ(get(1, 12, 200), 0);
	CHECK_EQ(get(1, 12, 200), 0);
	CHECK_EQ(drop(1), 0);
	CHECK_EQ(drop(1), TMEM_MISS);
	CHECK_EQ(get(1, 0, 0), TMEM_MISS);
	CHECK_EQ(get(1, 0, 0), TMEM_MISS);
	close_store();
}

static void the_same_key_twice_in_a_vector(void)
{
	_Alignas(8) char pages[2][PAGE];
	struct tmem_io io[2] = { io_of(3, pages[0]), io_of(3, pages[1]) };

	open_store(8u << 20, 0);
	fill(pages[0], 1, 100);
	fill(pages[1], 2, 100);
	CHECK_EQ(backend.ops->store(backend.self, pool, io, 2), 0);
	CHECK(io[0].result == 0 && io[1].result == 0);
	CHECK_EQ(get(3, 2, 100), 0);
	CHECK_EQ(backend.ops->invalidate(backend.self, pool, io, 2), 0);
	CHECK_EQ(io[0].result, 0);
	CHECK_EQ(io[1].result, TMEM_MISS);
	close_store();
}

static void pages_need_no_alignment(void)
{
	char raw[2 * PAGE + 16];
	struct tmem_io io = io_of(1, raw + 3);

	open_store(8u << 20, 0);
	memset(raw, 7, sizeof(raw));
	raw[100] = 1;
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	io.page = raw + PAGE + 5;
	CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
	CHECK(memcmp(raw + 3, raw + PAGE + 5, PAGE) == 0);
	close_store();
}

/* Fills with pages of `random` random words until one is refused. */
static unsigned fill_up(unsigned first, unsigned random)
{
	unsigned key = first;

	while (put(key, key, random) == 0)
		key++;
	return key;
}

static void a_refused_store_leaves_a_miss(void)
{
	unsigned end;

	open_store(2u << 20, 1);
	end = fill_up(0, 200);
	CHECK(end > 100);
	CHECK_EQ(get(end, 0, 0), TMEM_MISS);
	/* Incompressible over an old page: refused, and the old one gone. */
	CHECK_EQ(get(5, 5, 200), 0);
	CHECK_EQ(put(5, 99, 512), TMEM_REFUSED);
	CHECK_EQ(get(5, 0, 0), TMEM_MISS);
	CHECK(stats().refused_full > 0);
	CHECK_EQ(stats().refused_poor, 1);
	CHECK_EQ(stats().dropped_old, 1);
	close_store();
}

static void a_full_store_takes_a_replacement_of_the_same_size(void)
{
	unsigned end, key;

	open_store(2u << 20, 1);
	end = fill_up(0, 200);
	for (key = 0; key < end; key += 7)
		CHECK_EQ(put(key, key + 100000, 200), 0);
	for (key = 0; key < end; key += 7)
		CHECK_EQ(get(key, key + 100000, 200), 0);
	close_store();
}

static void the_limit_holds_everything(void)
{
	uint64_t limit = 3u << 20, pages;
	unsigned key = 0, random;

	open_store(limit, 0);
	for (random = 0; random < 512; random += 37)
		for (pages = 0; pages < 300; pages++) {
			put(key, key, random);
			key++;
			CHECK(tmem_store_held_bytes(store) <= limit);
		}
	CHECK(tmem_store_held_bytes(store) > limit - limit / 8);
	close_store();
}

static void a_lowered_limit_refuses_and_drops_nothing(void)
{
	unsigned key, end;

	open_store(4u << 20, 1);
	end = fill_up(0, 200);
	CHECK_EQ(tmem_store_set_limit(store, 2u << 20), 0);
	CHECK_EQ(put(end, end, 200), TMEM_REFUSED);
	CHECK_EQ(put(end, end, 0), TMEM_REFUSED);
	for (key = 0; key < end; key++)
		CHECK_EQ(get(key, key, 200), 0);
	CHECK(stats().refused_limit == 2);
	/* Until enough was invalidated. */
	for (key = 0; key < end * 3 / 4; key++)
		CHECK_EQ(drop(key), 0);
	CHECK_EQ(put(end, end, 200), 0);
	/* And a higher one takes effect at once. */
	CHECK_EQ(tmem_store_set_limit(store, 64u << 20), 0);
	CHECK(fill_up(end + 1, 200) > end + 10000);
	CHECK_EQ(tmem_store_set_limit(store, (64u << 20) + 1), -EINVAL);
	close_store();
}

static void an_empty_store_is_small(void)
{
	struct tmem_store_options o = { .limit_bytes = 1ull << 40 };

	open_store(8u << 20, 0);
	CHECK(tmem_store_held_bytes(store) <= 200u << 10);
	close_store();
	CHECK_EQ(tmem_store_open(&o, &store), 0);
	CHECK(tmem_store_held_bytes(store) <= 200u << 10);
	close_store();
}

static void memory_comes_back_when_pages_go(void)
{
	uint64_t full, pages;
	unsigned key;

	open_store(32u << 20, 0);
	for (key = 0; key < 10000; key++)
		CHECK_EQ(put(key, key, 150 + key % 100), 0);
	full = tmem_store_held_bytes(store);
	CHECK(full > 12u << 20);
	for (key = 0; key < 5000; key++)
		CHECK_EQ(drop(key), 0);
	CHECK(tmem_store_held_bytes(store) < full * 6 / 10);
	for (key = 5; key < 10; key++)
		CHECK_EQ(backend.ops->invalidate_object(
				 backend.self, pool,
				 (struct tmem_object_id){ { 1, 2, key } },
				 &pages),
			 0);
	CHECK_EQ(stats().pages, 0);
	CHECK(tmem_store_held_bytes(store) < 1u << 20);
	close_store();
}

static void same_filled_pages_cost_a_small_slot(void)
{
	uint64_t before;
	unsigned key;

	open_store(32u << 20, 0);
	before = tmem_store_held_bytes(store);
	for (key = 0; key < 20000; key++)
		CHECK_EQ(put(key, key * 0x9e3779b97f4a7c15ull, 0), 0);
	CHECK_EQ(stats().same_pages, 20000);
	CHECK((tmem_store_held_bytes(store) - before) / 20000 <= 100);
	for (key = 0; key < 20000; key++)
		CHECK_EQ(get(key, key * 0x9e3779b97f4a7c15ull, 0), 0);
	close_store();
}

static void raw_only_while_there_is_room(void)
{
	unsigned key = 0;

	open_store(4u << 20, 0);
	while (put(key, key, 512) == 0)
		key++;
	CHECK(key > 300 && stats().raw_pages == key);
	CHECK(stats().held_bytes >= (2u << 20) &&
	      stats().held_bytes < (2u << 20) + (256u << 10));
	CHECK_EQ(stats().refused_poor, 1);
	close_store();
	open_store(4u << 20, 1);
	CHECK_EQ(put(1, 1, 512), TMEM_REFUSED);
	close_store();
}

static void hopeless_pages_are_compressed_once(void)
{
	unsigned i;

	open_store(4u << 20, 1);
	for (i = 0; i < 10; i++)
		CHECK_EQ(put(i, 4711, 512), TMEM_REFUSED);
	CHECK_EQ(stats().hopeless_skips, 9);
	/* What it becomes when it is written is another page. */
	CHECK_EQ(put(1, 4711, 100), 0);
	close_store();
}

/* Damages a byte of the page's slot. */
static void damage(unsigned key, size_t offset) TMEM_UNANALYSED
{
	struct tmem_io io = io_of(key, NULL);
	struct tmem_key k = tmem_key_of(store, tmem_pool_number(pool),
					&io.object, io.index);
	uint32_t *entry = tmem_object_find_page(store, &k);

	CHECK(entry);
	((char *)tmem_arena_slot(&store->arena, *entry))[offset] ^= 4;
}

static void damage_is_an_error_and_never_a_page(void)
{
	static const size_t offsets[] = {
		offsetof(struct tmem_slot, checksum),
		offsetof(struct tmem_slot, length),
		offsetof(struct tmem_slot, form_generation),
		offsetof(struct tmem_slot, form_generation) + 7,
		offsetof(struct tmem_slot, data),
		offsetof(struct tmem_slot, data) + 200,
	};
	char page[PAGE], before[PAGE];
	struct tmem_io io = io_of(9, page);
	unsigned i;

	open_store(8u << 20, 0);
	CHECK_EQ(put(9, 9, 100), 0);
	memset(page, 0x5a, PAGE);
	memcpy(before, page, PAGE);
	for (i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		damage(9, offsets[i]);
		CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
		CHECK_EQ(io.result, -EIO);
		CHECK(memcmp(page, before, PAGE) == 0);
		damage(9, offsets[i]);
		CHECK_EQ(get(9, 9, 100), 0);
	}
	CHECK_EQ(stats().load_damaged, i);
	close_store();
}

static void a_clone_shares_data_until_it_is_written(void)
{
	tmem_pool_id original, clone;
	uint64_t before;
	unsigned key;

	open_store(32u << 20, 0);
	original = pool;
	for (key = 0; key < 2000; key++)
		CHECK_EQ(put(key, key, 200), 0);
	before = tmem_store_held_bytes(store);
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), 0);
	CHECK(tmem_store_held_bytes(store) - before < 320000);
	for (key = 0; key < 2000; key += 2)
		CHECK_EQ(put(key, key + 5000, 210), 0);
	for (key = 1; key < 2000; key += 4)
		CHECK_EQ(drop(key), 0);
	pool = clone;
	for (key = 0; key < 2000; key++)
		CHECK_EQ(get(key, key, 200), 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, original), 0);
	tmem_store_check(store);
	for (key = 0; key < 2000; key++)
		CHECK_EQ(get(key, key, 200), 0);
	close_store();
}

static void a_clone_without_room_changes_nothing(void)
{
	tmem_pool_id clone = 12345;
	unsigned key, end;
	struct tmem_stats s;

	open_store(2u << 20, 1);
	end = fill_up(0, 40);
	s = stats();
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), -ENOMEM);
	CHECK_EQ(clone, 12345);
	CHECK(stats().pages == s.pages && stats().pools == s.pools &&
	      stats().clones == 0);
	for (key = 0; key < end; key++)
		CHECK_EQ(get(key, key, 40), 0);
	close_store();
}

static void there_are_256_pools_at_a_time(void)
{
	tmem_pool_id ids[300], again;
	unsigned nr = 0;

	open_store(8u << 20, 0);
	while (backend.ops->pool_create(backend.self, NULL, &ids[nr]) == 0)
		CHECK(++nr < 300);
	CHECK_EQ(nr, 255);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, ids[7]), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &again), 0);
	CHECK(again != ids[7]);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, ids[7]), -ENOENT);
	close_store();
}

static void every_counter_has_a_text(void)
{
	const struct tmem_counter *c;
	size_t offset = 0;

	for (c = tmem_stats_table(); c->name; c++) {
		CHECK_EQ(c->offset, offset);
		CHECK(strlen(c->name) > 2 && strlen(c->unit) > 2);
		CHECK(strlen(c->text) > 10 &&
		      c->text[strlen(c->text) - 1] == '.');
		offset += sizeof(uint64_t);
	}
	CHECK_EQ(offset, sizeof(struct tmem_stats));
}

int main(void)
{
	RUN(bad_options_are_refused);
	RUN(the_later_store_wins);
	RUN(the_same_key_twice_in_a_vector);
	RUN(pages_need_no_alignment);
	RUN(a_refused_store_leaves_a_miss);
	RUN(a_full_store_takes_a_replacement_of_the_same_size);
	RUN(the_limit_holds_everything);
	RUN(a_lowered_limit_refuses_and_drops_nothing);
	RUN(an_empty_store_is_small);
	RUN(memory_comes_back_when_pages_go);
	RUN(same_filled_pages_cost_a_small_slot);
	RUN(raw_only_while_there_is_room);
	RUN(hopeless_pages_are_compressed_once);
	RUN(damage_is_an_error_and_never_a_page);
	RUN(a_clone_shares_data_until_it_is_written);
	RUN(a_clone_without_room_changes_nothing);
	RUN(there_are_256_pools_at_a_time);
	RUN(every_counter_has_a_text);
	return 0;
}
