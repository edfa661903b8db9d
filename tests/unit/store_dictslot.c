/* SPDX-License-Identifier: MIT */
/*
 * Dictionaries of a restartable store: what comes back with its pages, for
 * whom, what goes, and that a kill or damage costs no page its right bytes.
 *
 *	store_dictslot [ROUNDS]
 *
 * A copy of the image of a store at work is what a kill would leave.
 */
#include <pthread.h>
#include <stdatomic.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "arena/image.h"
#include "arena/map.h"
#include "core/compact.h"
#include "core/dictslot.h"
#include "fstest.h"
#include "testimage.h"

enum {
	PAGES = 300,
	FEW = 40,
	PHRASES = 64,
	PHRASE = 64,
	DAMAGES = 6
};

#define LIMIT (32ull << 20)

static struct tmem_store *store;
static struct tmem_backend b;

static int try_open(int fd, uint64_t limit)
{
	struct tmem_store_options o = { .limit_bytes = limit,
					.max_limit_bytes = LIMIT,
					.cool_after_ns = 1,
					.dict_every_ns = 1,
					.no_dedup = 1,
					.arena_fd = &fd };
	int r = tmem_store_open(&o, &store);

	if (r == 0)
		b = tmem_store_backend(store);
	return r;
}

static void open_store(int fd)
{
	CHECK_EQ(try_open(fd, LIMIT), 0);
	tmem_store_check(store);
}

static void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static struct tmem_stats stats(void)
{
	struct tmem_stats s;

	CHECK_EQ(b.ops->stats(b.self, &s), 0);
	return s;
}

/* Killed and opened again; *fd is the copy from then on. */
static void kill_and_open(int *fd)
{
	int copy = image_memfd();

	image_copy(*fd, copy);
	close_store();
	close(*fd);
	*fd = copy;
	open_store(copy);
	CHECK_EQ(stats().recover_torn, 0);
}

/* Phrases of the topic, which a page has only once each. */
static void fill(unsigned char *page, unsigned topic, unsigned key)
{
	struct rng rng = { key * 1009ull + topic };
	unsigned i, k;

	for (i = 0; i < PAGE / PHRASE; i++) {
		struct rng phrase = { topic * 7919ull +
				      rng_below(&rng, PHRASES) };

		for (k = 0; k < PHRASE; k++)
			page[i * PHRASE + k] =
				(unsigned char)(rng_next(&phrase) >> 24);
		for (k = 0; k < 8; k++)
			page[i * PHRASE + k] = (unsigned char)rng_next(&rng);
	}
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 50 } },
				 .index = key,
				 .page = page };
}

static void put(tmem_pool_id to, unsigned topic, unsigned key)
{
	unsigned char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, topic, key);
	CHECK_EQ(b.ops->store(b.self, to, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void put_all(tmem_pool_id to, unsigned topic)
{
	unsigned key;

	for (key = 0; key < PAGES; key++)
		put(to, topic, key);
}

/* TMEM_MISS, or 0 if it is that topic's page, byte for byte. */
static int get(tmem_pool_id from, unsigned topic, unsigned key)
{
	unsigned char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(b.ops->load(b.self, from, &io, 1), 0);
	CHECK(io.result >= 0);
	fill(want, topic, key);
	CHECK(io.result || memcmp(page, want, PAGE) == 0);
	return io.result;
}

static void get_all(tmem_pool_id from, unsigned topic)
{
	unsigned key;

	for (key = 0; key < PAGES; key++)
		CHECK_EQ(get(from, topic, key), 0);
}

static tmem_pool_id make_pool(void)
{
	tmem_pool_id pool;

	CHECK_EQ(b.ops->pool_create(b.self, NULL, &pool), 0);
	return pool;
}

static tmem_pool_id clone_of(tmem_pool_id pool)
{
	tmem_pool_id clone;

	CHECK_EQ(b.ops->pool_clone(b.self, pool, &clone), 0);
	return clone;
}

static void maintain(unsigned times)
{
	while (times-- > 0) {
		while (tmem_store_maintain(store, 1000000000))
			;
		tmem_store_check(store);
	}
}

static uint32_t name_of(tmem_pool_id pool)
{
	return atomic_load(&store->pools[tmem_pool_number(pool)].dict) & 0xffff;
}

/* A dictionary of the topic's phrases, for the pool; 0, or what add says. */
static int add_dict(tmem_pool_id pool, unsigned topic, unsigned bytes)
{
	static unsigned char content[TMEM_DICT_MAX_BYTES];
	struct tmem_dict_spec spec = { .pool = tmem_pool_number(pool),
				       .uses = TMEM_DICT_LZ4 | TMEM_DICT_ZSTD,
				       .content_bytes = bytes,
				       .content = content };
	uint32_t name;
	unsigned i;
	int r;

	for (i = 0; i + PAGE <= sizeof(content); i += PAGE)
		fill(content + i, topic, PAGES + i);
	tmem_lock_acquire(&store->control);
	r = tmem_dicts_add(store, &spec, &name);
	if (r == 0)
		tmem_dicts_make_current(store, name);
	tmem_lock_release(&store->control);
	return r;
}

static void they_come_back_with_their_pages(void)
{
	struct tmem_stats before, after;
	int fd = image_memfd();
	tmem_pool_id pool;
	uint32_t name;

	open_store(fd);
	pool = make_pool();
	put_all(pool, 1);
	maintain(6);
	name = name_of(pool);
	CHECK(name);
	put(pool, 1, 5); /* both forms */
	before = stats();
	CHECK(before.lz4_dict_pages && before.zstd_dict_pages);
	kill_and_open(&fd);
	after = stats();
	CHECK_EQ(name_of(pool), name);
	CHECK_EQ(after.dicts, before.dicts);
	CHECK_EQ(after.dict_bytes, before.dict_bytes);
	CHECK_EQ(after.recovered, PAGES);
	CHECK_EQ(after.lz4_dict_pages, before.lz4_dict_pages);
	CHECK_EQ(after.zstd_dict_pages, before.zstd_dict_pages);
	get_all(pool, 1);
	/* It goes on being used. */
	put_all(pool, 1);
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	close_store();
	close(fd);
}

static void pools_go_on_learning(void)
{
	int fd = image_memfd();
	tmem_pool_id pool;
	uint32_t name;
	unsigned i;

	open_store(fd);
	pool = make_pool();
	put_all(pool, 1);
	maintain(2);
	name = name_of(pool);
	kill_and_open(&fd);
	put_all(pool, 2);
	for (i = 0; i < 60 && name_of(pool) == name; i++)
		maintain(1);
	CHECK(name_of(pool) && name_of(pool) != name);
	maintain(6);
	CHECK_EQ(stats().dicts, 1);
	get_all(pool, 2);
	kill_and_open(&fd);
	CHECK_EQ(stats().dicts, 1);
	get_all(pool, 2);
	close_store();
	close(fd);
}

static void a_clone_keeps_it_without_its_pool(void)
{
	int fd = image_memfd();
	tmem_pool_id pool, clone, next;
	unsigned key;

	open_store(fd);
	pool = make_pool();
	CHECK_EQ(add_dict(pool, 1, 9000), 0);
	put_all(pool, 1);
	clone = clone_of(pool);
	CHECK_EQ(b.ops->pool_destroy(b.self, pool), 0);
	kill_and_open(&fd);
	CHECK_EQ(stats().dicts, 1);
	get_all(clone, 1);
	/* Who has the number now has nothing of it. */
	next = make_pool();
	CHECK_EQ(tmem_pool_number(next), tmem_pool_number(pool));
	kill_and_open(&fd);
	for (key = 0; key < FEW; key++)
		put(next, 1, key);
	CHECK_EQ(name_of(next), 0);
	CHECK_EQ(stats().lz4_dict_pages + stats().zstd_dict_pages, 0);
	get_all(clone, 1);
	CHECK_EQ(b.ops->pool_destroy(b.self, clone), 0);
	/* Nobody has swept; an opened store has none that nobody needs. */
	CHECK_EQ(stats().dicts, 1);
	kill_and_open(&fd);
	CHECK_EQ(stats().dicts, 0);
	for (key = 0; key < FEW; key++)
		CHECK_EQ(get(next, 1, key), 0);
	close_store();
	close(fd);
}

/* Whatever the image says. */
static void a_shared_pool_gets_none(void)
{
	struct tmem_pool_options o = {
		.flags = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED,
		.uuid = { 1, 2 },
	};
	int fd = image_memfd();
	tmem_pool_id shared;

	open_store(fd);
	CHECK_EQ(tmem_client_allow(b.self, o.uuid, 1), 0);
	CHECK_EQ(b.ops->pool_create(b.self, &o, &shared), 0);
	CHECK_EQ(add_dict(shared, 1, 3000), 0);
	CHECK(name_of(shared));
	kill_and_open(&fd);
	CHECK_EQ(name_of(shared), 0);
	CHECK_EQ(stats().dicts, 0);
	close_store();
	close(fd);
}

static void sizes_come_back(void)
{
	static const unsigned sizes[] = { TMEM_DICT_MIN_BYTES,
					  TMEM_DICT_PART_BYTES,
					  TMEM_DICT_PART_BYTES + 1,
					  3 * TMEM_DICT_PART_BYTES - 1,
					  TMEM_DICT_MAX_BYTES };
	int fd = image_memfd();
	tmem_pool_id pools[5];
	unsigned i, key;

	open_store(fd);
	for (i = 0; i < 5; i++) {
		pools[i] = make_pool();
		CHECK_EQ(add_dict(pools[i], 1 + i, sizes[i]), 0);
		for (key = 0; key < FEW; key++)
			put(pools[i], 1 + i, key);
	}
	CHECK_EQ(stats().lz4_dict_pages, 5 * FEW);
	kill_and_open(&fd);
	CHECK_EQ(stats().dicts, 5);
	for (i = 0; i < 5; i++) {
		const struct tmem_dict *dict =
			tmem_dicts_get(store, name_of(pools[i]));

		CHECK(dict && dict->content_bytes == sizes[i]);
		for (key = 0; key < FEW; key++)
			CHECK_EQ(get(pools[i], 1 + i, key), 0);
	}
	close_store();
	close(fd);
}

/* Killed between two steps of a change: see tmem_dicts_make_current(). */
static void of_two_that_are_current_the_newer_counts(void)
{
	int fd = image_memfd();
	tmem_pool_id pool;
	uint32_t old, new;

	open_store(fd);
	pool = make_pool();
	CHECK_EQ(add_dict(pool, 1, 5000), 0);
	old = name_of(pool);
	put_all(pool, 1);
	CHECK_EQ(add_dict(pool, 2, 5000), 0);
	new = name_of(pool);
	tmem_lock_acquire(&store->control);
	tmem_dictslot_mark(
		store,
		atomic_load(&store->dicts)->records[tmem_dict_place(old)].slot,
		true);
	tmem_lock_release(&store->control);
	tmem_store_close(store);
	open_store(fd);
	CHECK_EQ(name_of(pool), new);
	CHECK_EQ(stats().dicts, 2);
	/* The pages go on their way to it. */
	maintain(2);
	CHECK_EQ(stats().dicts, 1);
	get_all(pool, 1);
	close_store();
	close(fd);
}

static void one_that_pays_no_more_stays_dropped(void)
{
	int fd = image_memfd();
	tmem_pool_id pool;

	open_store(fd);
	pool = make_pool();
	CHECK_EQ(add_dict(pool, 1, 5000), 0);
	put_all(pool, 1);
	tmem_lock_acquire(&store->control);
	tmem_dicts_retire(store, tmem_pool_number(pool));
	tmem_lock_release(&store->control);
	kill_and_open(&fd);
	CHECK_EQ(name_of(pool), 0);
	CHECK_EQ(stats().dicts, 1);
	get_all(pool, 1);
	close_store();
	close(fd);
}

/* Damage: no kill does that.  Its pages go, others stay, and nothing else. */
static void without_a_part_its_pages_go(void)
{
	int fd = image_memfd();
	tmem_pool_id pool, other;
	struct tmem_dict_table *table;
	unsigned key;

	open_store(fd);
	pool = make_pool();
	other = make_pool();
	CHECK_EQ(add_dict(pool, 1, 5000), 0);
	put_all(pool, 1);
	CHECK_EQ(add_dict(other, 2, 5000), 0);
	put_all(other, 2);
	clone_of(pool);
	table = atomic_load(&store->dicts);
	tmem_slot_clear(tmem_arena_slot(
		&store->arena,
		tmem_arena_link(
			&store->arena,
			table->records[tmem_dict_place(name_of(pool))].slot)
			->next));
	tmem_store_close(store);
	open_store(fd);
	CHECK_EQ(stats().dicts, 1);
	CHECK_EQ(name_of(pool), 0);
	CHECK_EQ(stats().pages, PAGES);
	CHECK_EQ(stats().recover_stale, 2 * PAGES + 2);
	for (key = 0; key < PAGES; key++)
		CHECK_EQ(get(pool, 1, key), TMEM_MISS);
	get_all(other, 2);
	put_all(pool, 1);
	get_all(pool, 1);
	close_store();
	open_store(fd);
	get_all(pool, 1);
	get_all(other, 2);
	close_store();
	close(fd);
}

/* The sum of its parts' handles. */
static uint64_t where_it_is(uint32_t name)
{
	const struct tmem_dict_record *r =
		&atomic_load(&store->dicts)->records[tmem_dict_place(name)];
	uint32_t handle = r->slot;
	uint64_t sum = 0;

	do {
		sum += handle;
		handle = tmem_arena_link(&store->arena, handle)->next;
	} while (handle != r->slot);
	return sum;
}

static void compaction_moves_the_parts(void)
{
	int fd = image_memfd();
	tmem_pool_id pool, others[3];
	uint64_t where;
	uint32_t name;
	unsigned i;

	open_store(fd);
	pool = make_pool();
	for (i = 0; i < 3; i++)
		others[i] = make_pool();
	/* Two spans of parts, some of its own in each. */
	CHECK_EQ(add_dict(others[0], 2, 60000), 0);
	CHECK_EQ(add_dict(others[1], 3, 60000), 0);
	CHECK_EQ(add_dict(pool, 1, 20000), 0);
	CHECK_EQ(add_dict(others[2], 4, 60000), 0);
	put_all(pool, 1);
	name = name_of(pool);
	where = where_it_is(name);
	for (i = 0; i < 3; i++)
		CHECK_EQ(b.ops->pool_destroy(b.self, others[i]), 0);
	maintain(6);
	for (i = 0; i < 64 && tmem_compact_hard(store); i++)
		tmem_store_check(store);
	CHECK_EQ(stats().dicts, 1);
	CHECK_EQ(name_of(pool), name);
	CHECK(where_it_is(name) != where);
	get_all(pool, 1);
	kill_and_open(&fd);
	CHECK_EQ(name_of(pool), name);
	get_all(pool, 1);
	close_store();
	close(fd);
}

static unsigned maps_left; /* until one fails */

static void *failing_map(size_t bytes, size_t align)
{
	if (maps_left && --maps_left == 0)
		return NULL;
	return tmem_map_kernel.map(bytes, align);
}

static void a_failed_open_loses_nothing(void)
{
	struct tmem_map_ops failing = tmem_map_kernel;
	int fd = image_memfd(), r = -ENOMEM;
	unsigned n, failed = 0, i;
	tmem_pool_id pools[12];

	open_store(fd);
	for (i = 0; i < 12; i++) {
		pools[i] = make_pool();
		CHECK_EQ(add_dict(pools[i], i, 60000), 0);
		put(pools[i], i, i);
	}
	close_store();
	failing.map = failing_map;
	tmem_map = &failing;
	for (n = 1; r < 0; n++) {
		maps_left = n;
		r = try_open(fd, LIMIT);
		CHECK(r == 0 || r == -ENOMEM);
		failed += r < 0;
	}
	maps_left = 0;
	CHECK(failed > 4);
	tmem_map = &tmem_map_kernel;
	CHECK_EQ(stats().dicts, 12);
	for (i = 0; i < 12; i++)
		CHECK_EQ(get(pools[i], i, i), 0);
	close_store();
	/* And it is taken over the limit. */
	CHECK_EQ(try_open(fd, TMEM_STORE_MIN_BYTES), 0);
	CHECK(tmem_store_held_bytes(store) > TMEM_STORE_MIN_BYTES);
	CHECK_EQ(stats().dicts, 12);
	CHECK_EQ(add_dict(pools[0], 1, 5000), -ENOMEM);
	for (i = 0; i < 12; i++)
		CHECK_EQ(get(pools[i], i, i), 0);
	close_store();
	close(fd);
}

/* At every limit it is there whole or not at all. */
static void the_limit_strikes(void)
{
	unsigned added = 0, denied = 0;
	uint64_t spare;
	tmem_pool_id pool;
	int fd, r;

	for (spare = 0; added < 3; spare += 4096) {
		fd = image_memfd();
		open_store(fd);
		pool = make_pool();
		put(pool, 1, 0);
		atomic_store(&store->account.limit_bytes,
			     tmem_store_held_bytes(store) + spare);
		r = add_dict(pool, 1, 20000);
		CHECK(r == 0 || r == -ENOMEM);
		added += r == 0;
		denied += r < 0;
		CHECK_EQ(stats().dicts, r == 0);
		kill_and_open(&fd);
		CHECK_EQ(stats().dicts, r == 0);
		CHECK_EQ(get(pool, 1, 0), 0);
		close_store();
		close(fd);
	}
	CHECK(denied > 5);
}

static _Atomic bool done;

static void *load_and_store(void *arg)
{
	const tmem_pool_id *pool = arg;
	unsigned key = 0;

	while (!atomic_load(&done)) {
		CHECK_EQ(get(*pool, 1, key % PAGES), 0);
		put(*pool, 1, key % PAGES);
		key += 7;
	}
	return NULL;
}

static void threads_go_on_while_they_change(void)
{
	int fd = image_memfd();
	tmem_pool_id pool, other;
	pthread_t thread;
	unsigned i;

	open_store(fd);
	pool = make_pool();
	put_all(pool, 1);
	CHECK_EQ(pthread_create(&thread, NULL, load_and_store, &pool), 0);
	for (i = 0; i < 12; i++) {
		other = make_pool();
		CHECK_EQ(add_dict(other, 2, 60000), 0);
		CHECK_EQ(add_dict(pool, 1 + i % 2, 3000 + i * 1000), 0);
		CHECK_EQ(b.ops->pool_destroy(b.self, other), 0);
		maintain(1);
		tmem_compact_hard(store);
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
	kill_and_open(&fd);
	CHECK(name_of(pool));
	get_all(pool, 1);
	close_store();
	close(fd);
}

static void a_damaged_image_has_right_pages_or_none(unsigned rounds)
{
	int fd = image_memfd(), copy = image_memfd();
	tmem_pool_id pools[3];
	struct rng rng = { 1 };
	unsigned i, p, key;

	open_store(fd);
	for (p = 0; p < 2; p++) {
		pools[p] = make_pool();
		CHECK_EQ(add_dict(pools[p], 1 + p, 9000), 0);
		for (key = 0; key < FEW; key++)
			put(pools[p], 1 + p, key);
	}
	pools[2] = clone_of(pools[0]);
	close_store();
	for (i = 0; i < rounds; i++) {
		image_copy(fd, copy);
		image_damage(copy, &rng,
			     1 + (unsigned)rng_below(&rng, DAMAGES));
		open_store(copy);
		for (p = 0; p < 3; p++)
			for (key = 0; key < FEW; key++) {
				unsigned char page[PAGE], want[PAGE];
				struct tmem_io io = io_of(key, page);

				b.ops->load(b.self, pools[p], &io, 1);
				fill(want, p == 1 ? 2 : 1, key);
				CHECK(io.result != -EIO);
				CHECK(io.result ||
				      memcmp(page, want, PAGE) == 0);
			}
		maintain(1);
		close_store();
	}
	close(fd);
	close(copy);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 60;

	RUN(they_come_back_with_their_pages);
	RUN(pools_go_on_learning);
	RUN(a_clone_keeps_it_without_its_pool);
	RUN(a_shared_pool_gets_none);
	RUN(sizes_come_back);
	RUN(of_two_that_are_current_the_newer_counts);
	RUN(one_that_pays_no_more_stays_dropped);
	RUN(without_a_part_its_pages_go);
	RUN(compaction_moves_the_parts);
	RUN(a_failed_open_loses_nothing);
	RUN(the_limit_strikes);
	RUN(threads_go_on_while_they_change);
	a_damaged_image_has_right_pages_or_none(rounds);
	return 0;
}
