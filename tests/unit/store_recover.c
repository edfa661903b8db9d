/* SPDX-License-Identifier: MIT */
/*
 * A restartable store's rules: what is there when its file is opened again,
 * what is refused, and that a damaged image yields right pages or none.
 */
#include <fcntl.h>
#include <sys/mman.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "arena/image.h"
#include "arena/map.h"
#include "core/core.h"
#include "core/durable.h"
#include "core/object.h"
#include "core/pool.h"
#include "fstest.h"
#include "testimage.h"

#define LIMIT (64ull << 20)

enum {
	PAGES = 600
};

static struct tmem_store *open_store(int fd, uint64_t limit)
{
	struct tmem_store_options options = { .limit_bytes = limit,
					      .max_limit_bytes = LIMIT,
					      .arena_fd = &fd };
	struct tmem_store *store = NULL;

	CHECK_EQ(tmem_store_open(&options, &store), 0);
	tmem_store_check(store);
	return store;
}

static int try_open(int fd)
{
	struct tmem_store_options options = { .limit_bytes = LIMIT,
					      .arena_fd = &fd };
	struct tmem_store *store = NULL;
	int r = tmem_store_open(&options, &store);

	if (r == 0)
		tmem_store_close(store);
	return r;
}

static struct tmem_io io_of(uint32_t i, void *page)
{
	return (struct tmem_io){ .object = { { i % 7, 5, i % 3 } },
				 .index = i,
				 .page = page };
}

static int store_page(struct tmem_backend b, tmem_pool_id pool, uint32_t i,
		      uint64_t tag)
{
	char page[PAGE];
	struct tmem_io io = io_of(i, page);

	page_fill(page, tag);
	CHECK_EQ(b.ops->store(b.self, pool, &io, 1), 0);
	return io.result;
}

/* The page has that tag's content; 0: it is not there. */
static void must_have(struct tmem_backend b, tmem_pool_id pool, uint32_t i,
		      uint64_t tag)
{
	char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(i, page);

	CHECK_EQ(b.ops->load(b.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, tag ? 0 : TMEM_MISS);
	page_fill(want, tag);
	CHECK(!tag || memcmp(page, want, PAGE) == 0);
}

static void drop_page(struct tmem_backend b, tmem_pool_id pool, uint32_t i)
{
	struct tmem_io io = io_of(i, NULL);

	CHECK_EQ(b.ops->invalidate(b.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static tmem_pool_id make_pool(struct tmem_backend b, uint32_t flags)
{
	struct tmem_pool_options options = { .flags = flags, .uuid = { 3, 4 } };
	tmem_pool_id pool = 0;

	CHECK_EQ(b.ops->pool_create(b.self, &options, &pool), 0);
	return pool;
}

static struct tmem_stats stats_of(struct tmem_backend b)
{
	struct tmem_stats s;

	CHECK_EQ(b.ops->stats(b.self, &s), 0);
	return s;
}

static uint64_t tag_of(uint32_t i)
{
	return i % 5 ? 1 + i : 100000 + i; /* replaced once */
}

struct pools {
	tmem_pool_id pool;
	tmem_pool_id clone;
	tmem_pool_id eph;
};

/* Stores, clones, replaces and drops; what the store counts then. */
static struct tmem_stats fill_pools(struct tmem_backend b, struct pools *p)
{
	uint32_t i;

	p->pool = make_pool(b, 0);
	p->eph = make_pool(b, TMEM_POOL_EPHEMERAL);
	for (i = 0; i < PAGES; i++)
		CHECK_EQ(store_page(b, p->pool, i, 1 + i), 0);
	CHECK_EQ(b.ops->pool_clone(b.self, p->pool, &p->clone), 0);
	for (i = 0; i < PAGES; i++) {
		if (i % 5 == 0)
			CHECK_EQ(store_page(b, p->pool, i, tag_of(i)), 0);
		if (i % 7 == 0)
			drop_page(b, p->pool, i);
		if (i % 11 == 0)
			drop_page(b, p->clone, i);
		CHECK_EQ(store_page(b, p->eph, i, 7 + i), 0);
		if (i % 3 == 0)
			must_have(b, p->eph, i, 7 + i);
	}
	return stats_of(b);
}

static void check_stats(const struct tmem_stats *after,
			const struct tmem_stats *before)
{
	CHECK_EQ(after->pages, before->pages);
	CHECK_EQ(after->recovered, before->pages);
	CHECK_EQ(after->recover_torn + after->recover_stale, 0);
	CHECK_EQ(after->ref_pages, before->ref_pages);
	CHECK_EQ(after->slot_bytes, before->slot_bytes);
	CHECK_EQ(after->stored_bytes, before->stored_bytes);
	CHECK_EQ(after->ephemeral_pages, before->ephemeral_pages);
	CHECK(after->data_bytes <= before->data_bytes);
}

static void check_pools(struct tmem_backend b, const struct pools *p)
{
	uint32_t i;

	for (i = 0; i < PAGES; i++) {
		must_have(b, p->pool, i, i % 7 ? tag_of(i) : 0);
		must_have(b, p->clone, i, i % 11 ? 1 + i : 0);
		must_have(b, p->eph, i, i % 3 ? 7 + i : 0);
		must_have(b, p->eph, i, 0);
	}
	CHECK_EQ(b.ops->pool_destroy(b.self, p->pool), 0);
	for (i = 0; i < PAGES; i++)
		must_have(b, p->clone, i, i % 11 ? 1 + i : 0);
	CHECK_EQ(b.ops->pool_destroy(b.self, p->clone), 0);
	CHECK_EQ(b.ops->pool_destroy(b.self, p->eph), 0);
}

static void pages_come_back_on(int fd)
{
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_stats before, after;
	struct tmem_backend b;
	struct pools pools;

	before = fill_pools(tmem_store_backend(store), &pools);
	tmem_store_check(store);
	tmem_store_close(store);

	store = open_store(fd, LIMIT);
	b = tmem_store_backend(store);
	after = stats_of(b);
	check_stats(&after, &before);
	check_pools(b, &pools);
	tmem_store_check(store);
	tmem_store_set_limit(store, LIMIT / 2);
	CHECK_EQ(stats_of(b).slot_bytes, 0);
	tmem_store_close(store);
}

static void pages_come_back(void)
{
	int fd = image_memfd();

	pages_come_back_on(fd);
	close(fd);
	fd = image_file();
	pages_come_back_on(fd);
	close(fd);
}

#define SHARED (TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED)

/* Two clients, numbers 1 and 2, the latter twice in the shared pool. */
static void make_clients(int fd, tmem_pool_id *ret_shared,
			 tmem_pool_id *ret_gone)
{
	const uint64_t uuid[2] = { 3, 4 };
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_client *a, *b;
	struct tmem_backend be;

	CHECK_EQ(tmem_client_create(store, 7, &a), 0);
	CHECK_EQ(tmem_client_create(store, 0, &b), 0);
	CHECK_EQ(tmem_client_number(b), 2);
	CHECK_EQ(tmem_client_allow(a, uuid, 1), 0);
	CHECK_EQ(tmem_client_allow(b, uuid, 1), 0);
	*ret_shared = make_pool(tmem_client_backend(a), SHARED);
	CHECK_EQ(make_pool(tmem_client_backend(b), SHARED), *ret_shared);
	CHECK_EQ(make_pool(tmem_client_backend(b), SHARED), *ret_shared);
	*ret_gone = make_pool(tmem_client_backend(a), 0);
	be = tmem_client_backend(a);
	CHECK_EQ(store_page(be, *ret_gone, 1, 1), 0);
	CHECK_EQ(store_page(be, *ret_shared, 2, 2), 0);
	CHECK_EQ(be.ops->pool_destroy(be.self, *ret_gone), 0);
	tmem_store_close(store);
}

static void check_clients(struct tmem_store *store, tmem_pool_id shared)
{
	struct tmem_client_pool pools[4];
	struct tmem_client *client;

	CHECK_EQ(tmem_client_find(store, 3, &client), -ENOENT);
	CHECK_EQ(tmem_client_find(store, 64, &client), -ENOENT);
	CHECK_EQ(tmem_client_find(store, 0, &client), 0);
	CHECK(client == tmem_client_default(store));
	CHECK_EQ(tmem_client_pools(client, pools, 4), 0);
	CHECK_EQ(tmem_client_find(store, 1, &client), 0);
	CHECK_EQ(tmem_client_pools(client, pools, 4), 1);
	CHECK_EQ(pools[0].id, shared);
	CHECK_EQ(pools[0].flags, SHARED);
	CHECK(pools[0].uuid[0] == 3 && pools[0].uuid[1] == 4);
}

static void pools_and_clients_come_back(void)
{
	struct tmem_client_pool pools[4];
	tmem_pool_id shared, gone;
	struct tmem_client *a, *b;
	struct tmem_store *store;
	struct tmem_backend be;
	int fd = image_memfd();

	make_clients(fd, &shared, &gone);
	store = open_store(fd, LIMIT);
	check_clients(store, shared);
	CHECK_EQ(tmem_client_find(store, 1, &a), 0);
	CHECK_EQ(tmem_client_find(store, 2, &b), 0);
	must_have(tmem_client_backend(b), shared, 2, 2);
	/* The id of a pool that is gone does not come again. */
	CHECK(make_pool(tmem_client_backend(a), 0) != gone);
	be = tmem_client_backend(a);
	CHECK_EQ(be.ops->pool_destroy(be.self, gone), -ENOENT);
	/* Of two joins one is left, and the authorisation. */
	be = tmem_client_backend(b);
	CHECK_EQ(be.ops->pool_destroy(be.self, shared), 0);
	CHECK_EQ(tmem_client_pools(b, pools, 4), 1);
	CHECK_EQ(be.ops->pool_destroy(be.self, shared), 0);
	CHECK_EQ(tmem_client_pools(b, pools, 4), 0);
	CHECK_EQ(make_pool(be, SHARED), shared);
	tmem_client_destroy(b);
	tmem_store_check(store);
	tmem_store_close(store);

	store = open_store(fd, LIMIT);
	CHECK_EQ(tmem_client_find(store, 2, &b), -ENOENT);
	tmem_store_close(store);
	close(fd);
}

static void a_file_in_use_is_busy(void)
{
	int fd = image_memfd();
	struct tmem_store *store = open_store(fd, LIMIT);

	CHECK_EQ(try_open(fd), -EBUSY);
	tmem_store_close(store);
	CHECK_EQ(try_open(fd), 0);
	close(fd);
}

/* The bytes of a file, to see that nothing was changed. */
static void expect_untouched(const void *bytes, size_t size, int result)
{
	int fd = image_memfd();
	char *now = malloc(size);

	CHECK(now != NULL);
	CHECK_EQ(pwrite(fd, bytes, size, 0), size);
	CHECK_EQ(try_open(fd), result);
	CHECK_EQ(lseek(fd, 0, SEEK_END), size);
	CHECK_EQ(pread(fd, now, size, 0), size);
	CHECK(memcmp(bytes, now, size) == 0);
	free(now);
	close(fd);
}

static void what_is_no_arena_is_refused(void)
{
	char super[4096], other[4096];
	int fd = image_memfd(), pipes[2];
	size_t at;

	CHECK_EQ(try_open(fd), 0);
	CHECK_EQ(pread(fd, super, sizeof(super), 0), sizeof(super));
	close(fd);
	memset(other, 'x', sizeof(other));
	expect_untouched(other, 1, -EBADMSG);
	expect_untouched(other, sizeof(other), -EBADMSG);
	for (at = 0; at < 72; at++) {
		memcpy(other, super, sizeof(other));
		other[at] ^= 1;
		expect_untouched(other, sizeof(other),
				 at >= 8 && at < 12 ? -EPROTONOSUPPORT
						    : -EBADMSG);
	}
	expect_untouched(super, 71, -EBADMSG);
	CHECK_EQ(try_open(-1), -EBADF);
	CHECK_EQ(pipe(pipes), 0);
	CHECK_EQ(try_open(pipes[0]), -EINVAL);
	close(pipes[0]);
	close(pipes[1]);
}

static void a_file_that_was_cut_is_refused(void)
{
	const int fds[2] = { image_memfd(), image_file() };
	unsigned i, key;
	off_t size;

	for (i = 0; i < 2; i++) {
		struct tmem_store *store = open_store(fds[i], LIMIT);
		struct tmem_backend b = tmem_store_backend(store);
		tmem_pool_id pool = make_pool(b, 0);

		for (key = 0; key < 8000; key++)
			CHECK_EQ(store_page(b, pool, key, 1 + key), 0);
		tmem_store_close(store);
		size = lseek(fds[i], 0, SEEK_END);
		CHECK(size > 8 << 20);
		CHECK_EQ(ftruncate(fds[i], size - 4096), 0);
		CHECK_EQ(try_open(fds[i]), -EBADMSG);
		CHECK_EQ(ftruncate(fds[i], size / 2), 0);
		CHECK_EQ(try_open(fds[i]), -EBADMSG);
		CHECK_EQ(lseek(fds[i], 0, SEEK_END), size / 2);
		/* Longer than it has to be is no harm: killed as it grew. */
		CHECK_EQ(ftruncate(fds[i], size + (4l << 20)), 0);
		CHECK_EQ(try_open(fds[i]), 0);
		close(fds[i]);
	}
}

/* A file that was open when the machine went down: its order is unknown. */
static void an_unclosed_file_of_another_boot_is_stale(void)
{
	int fd = image_file(), copy = image_file();
	struct tmem_store *store = open_store(fd, LIMIT);

	image_copy(fd, copy);
	tmem_store_close(store);
	CHECK_EQ(try_open(copy), 0);
	store = open_store(fd, LIMIT);
	image_copy(fd, copy);
	image_other_boot(copy);
	CHECK_EQ(try_open(copy), image_in_memory(copy) ? 0 : -ESTALE);
	tmem_store_close(store);
	image_copy(fd, copy);
	image_other_boot(copy);
	CHECK_EQ(try_open(copy), 0);
	close(copy);
	close(fd);
}

static void what_is_there_may_exceed_the_limit(void)
{
	int fd = image_memfd();
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_backend b = tmem_store_backend(store);
	tmem_pool_id pool = make_pool(b, 0);
	uint32_t i;

	for (i = 0; i < 4 * PAGES; i++)
		CHECK_EQ(store_page(b, pool, i, 2 + 3 * i), 0);
	tmem_store_close(store);
	store = open_store(fd, TMEM_STORE_MIN_BYTES);
	b = tmem_store_backend(store);
	CHECK(tmem_store_held_bytes(store) > TMEM_STORE_MIN_BYTES);
	for (i = 0; i < 4 * PAGES; i++)
		must_have(b, pool, i, 2 + 3 * i);
	CHECK_EQ(store_page(b, pool, 0, 1), TMEM_REFUSED);
	must_have(b, pool, 0, 0);
	for (i = 1; i < 4 * PAGES; i++)
		drop_page(b, pool, i);
	CHECK_EQ(store_page(b, pool, 0, 1), 0);
	tmem_store_check(store);
	tmem_store_close(store);
	close(fd);
}

/* Whole, but in a shard that there is not: compaction would lock it. */
static void a_slot_in_no_shard_is_dropped(void)
{
	int fd = image_memfd();
	struct tmem_store *store = open_store(fd, LIMIT);
	tmem_pool_id pool = make_pool(tmem_store_backend(store), 0);
	uint32_t number = pool % TMEM_MAX_POOLS;
	struct tmem_client_pool found;
	struct tmem_slot *slot;

	slot = tmem_arena_slot(&store->arena, store->pools[number].slot);
	slot->place = tmem_slot_place(number, TMEM_MAX_SHARDS - 1);
	tmem_slot_seal(slot);
	tmem_store_close(store);
	store = open_store(fd, LIMIT);
	CHECK_EQ(tmem_client_pools(tmem_client_default(store), &found, 1), 0);
	CHECK_EQ(stats_of(tmem_store_backend(store)).recover_torn, 1);
	tmem_store_close(store);
	close(fd);
}

/* As if it were the last that there can be, or the first that is too late. */
static void age(struct tmem_store *store, uint32_t handle, bool last)
{
	struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	uint64_t late = (uint64_t)TMEM_SLOT_EPOCHS_END << TMEM_SLOT_EPOCH_SHIFT;

	slot->form_generation &= ~TMEM_SLOT_GENERATION;
	slot->form_generation |= last ? TMEM_SLOT_GENERATION : late;
	tmem_slot_seal(slot);
}

static uint32_t handle_of(struct tmem_store *store, tmem_pool_id pool,
			  uint32_t i) TMEM_UNANALYSED
{
	struct tmem_io io = io_of(i, NULL);
	struct tmem_key key = tmem_key_of(store, tmem_pool_number(pool),
					  &io.object, io.index);

	return *tmem_object_find_page(store, &key);
}

/* What counted on from there would come to the next form. */
static void a_generation_near_the_end_is_no_slots(bool last)
{
	int fd = image_memfd();
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_backend b = tmem_store_backend(store);
	tmem_pool_id pool = make_pool(b, 0), gone = make_pool(b, 0), other;
	const struct tmem_slot *slot;
	uint32_t i;

	for (i = 0; i < PAGES; i++)
		CHECK_EQ(store_page(b, pool, i, 1 + i), 0);
	age(store, handle_of(store, pool, 0), last);
	slot = tmem_arena_slot(&store->arena, handle_of(store, pool, 7));
	age(store, tmem_object_nr(store, slot->object)->slot, last);
	age(store, store->pools[tmem_pool_number(gone)].slot, last);
	tmem_store_close(store);

	store = open_store(fd, LIMIT);
	b = tmem_store_backend(store);
	CHECK(stats_of(b).recover_torn >= 3);
	must_have(b, pool, 0, 0);
	must_have(b, pool, 7, 0);
	other = make_pool(b, 0);
	for (i = 0; i < PAGES; i++) {
		CHECK_EQ(store_page(b, pool, i, 5 + i), 0);
		CHECK_EQ(store_page(b, other, i, 6 + i), 0);
	}
	tmem_store_close(store);
	store = open_store(fd, LIMIT);
	b = tmem_store_backend(store);
	for (i = 0; i < PAGES; i++) {
		must_have(b, pool, i, 5 + i);
		must_have(b, other, i, 6 + i);
	}
	tmem_store_close(store);
	close(fd);
}

static void a_generation_near_the_end_is_refused(void)
{
	a_generation_near_the_end_is_no_slots(true);
	a_generation_near_the_end_is_no_slots(false);
}

/* One destroy is enough, whatever the image says. */
static void a_private_pool_was_joined_once(void)
{
	int fd = image_memfd();
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_backend b = tmem_store_backend(store);
	tmem_pool_id eph = make_pool(b, TMEM_POOL_EPHEMERAL);
	struct tmem_durable_pool data;
	struct tmem_slot *slot;

	slot = tmem_arena_slot(&store->arena,
			       store->pools[tmem_pool_number(eph)].slot);
	memcpy(&data, slot->data, sizeof(data));
	data.joins[0] = 7;
	memcpy(slot->data, &data, sizeof(data));
	tmem_slot_seal(slot);
	tmem_store_close(store);
	store = open_store(fd, LIMIT);
	b = tmem_store_backend(store);
	CHECK_EQ(b.ops->pool_destroy(b.self, eph), 0);
	CHECK_EQ(b.ops->pool_destroy(b.self, eph), -ENOENT);
	tmem_store_close(store);
	close(fd);
}

/* Numbers that none can have: their records would take 6 MiB, and 50. */
static void a_number_beyond_all_takes_no_memory(void)
{
	int fd = image_memfd();
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_backend b = tmem_store_backend(store);
	tmem_pool_id pool = make_pool(b, 0);
	uint32_t i, handle, object;
	struct tmem_slot *slot;
	uint64_t held;

	for (i = 0; i < PAGES; i++)
		CHECK_EQ(store_page(b, pool, i, 1 + i), 0);
	handle = handle_of(store, pool, 1);
	object = tmem_arena_slot(&store->arena, handle)->object;
	slot = tmem_arena_slot(&store->arena,
			       tmem_object_nr(store, object)->slot);
	slot->object = 1u << 24;
	tmem_slot_seal(slot);
	tmem_image_set_run(
		store->image, tmem_arena_span(&store->arena, handle)->base,
		(1u << 24) + 1, tmem_arena_span(&store->arena, handle)->class);
	held = tmem_store_held_bytes(store);
	tmem_store_close(store);

	store = open_store(fd, LIMIT);
	b = tmem_store_backend(store);
	CHECK(tmem_store_held_bytes(store) < held + (1u << 20));
	must_have(b, pool, 1, 0);
	for (i = 0; i < PAGES; i++)
		CHECK_EQ(store_page(b, pool, i, 5 + i), 0);
	tmem_store_check(store);
	for (i = 0; i < PAGES; i++)
		must_have(b, pool, i, 5 + i);
	tmem_store_close(store);
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
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_backend b = tmem_store_backend(store);
	tmem_pool_id pool = make_pool(b, 0), eph, clone;
	unsigned n, failed = 0;
	uint32_t i;

	eph = make_pool(b, TMEM_POOL_EPHEMERAL);
	for (i = 0; i < PAGES; i++) {
		CHECK_EQ(store_page(b, pool, i, 1 + i), 0);
		CHECK_EQ(store_page(b, eph, i, 1 + i), 0);
	}
	CHECK_EQ(b.ops->pool_clone(b.self, pool, &clone), 0);
	tmem_store_close(store);
	failing.map = failing_map;
	tmem_map = &failing;
	for (n = 1; r < 0; n++) {
		maps_left = n;
		r = try_open(fd);
		CHECK(r == 0 || r == -ENOMEM);
		failed += r < 0;
	}
	CHECK(failed > 3);
	tmem_map = &tmem_map_kernel;
	store = open_store(fd, LIMIT);
	b = tmem_store_backend(store);
	for (i = 0; i < PAGES; i++) {
		must_have(b, pool, i, 1 + i);
		must_have(b, clone, i, 1 + i);
		must_have(b, eph, i, 1 + i);
	}
	tmem_store_close(store);
	close(fd);
}

/* Of an image with damage: right pages or none, and a store that works. */
static void check_damaged(int fd, tmem_pool_id pool, tmem_pool_id clone)
{
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_backend b = tmem_store_backend(store);
	char page[PAGE], want[PAGE];
	uint32_t i;
	unsigned k;

	for (i = 0; i < PAGES; i++)
		for (k = 0; k < 2; k++) {
			struct tmem_io io = io_of(i, page);

			b.ops->load(b.self, k ? clone : pool, &io, 1);
			page_fill(want, k ? 1 + i : tag_of(i));
			CHECK(io.result || memcmp(page, want, PAGE) == 0);
			CHECK(io.result != -EIO);
		}
	pool = make_pool(b, 0);
	for (i = 0; i < PAGES; i++)
		CHECK_EQ(store_page(b, pool, i, 9 + i), 0);
	tmem_store_check(store);
	tmem_store_close(store);
}

static void a_damaged_image_has_right_pages_or_none(unsigned rounds)
{
	int fd = image_memfd(), copy = image_memfd();
	struct tmem_store *store = open_store(fd, LIMIT);
	struct tmem_backend b = tmem_store_backend(store);
	tmem_pool_id pool = make_pool(b, 0), clone = 0;
	struct rng rng = { 17 };
	uint32_t i;

	for (i = 0; i < PAGES; i++)
		CHECK_EQ(store_page(b, pool, i, 1 + i), 0);
	CHECK_EQ(b.ops->pool_clone(b.self, pool, &clone), 0);
	for (i = 0; i < PAGES; i += 5)
		CHECK_EQ(store_page(b, pool, i, tag_of(i)), 0);
	tmem_store_close(store);
	while (rounds-- > 0) {
		image_copy(fd, copy);
		image_damage(copy, &rng, 1 + rounds % 40);
		check_damaged(copy, pool, clone);
		/* And once more, as it was left. */
		CHECK_EQ(try_open(copy), 0);
	}
	close(copy);
	close(fd);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 100;

	RUN(pages_come_back);
	RUN(pools_and_clients_come_back);
	RUN(a_file_in_use_is_busy);
	RUN(what_is_no_arena_is_refused);
	RUN(a_file_that_was_cut_is_refused);
	RUN(an_unclosed_file_of_another_boot_is_stale);
	RUN(what_is_there_may_exceed_the_limit);
	RUN(a_slot_in_no_shard_is_dropped);
	RUN(a_generation_near_the_end_is_refused);
	RUN(a_private_pool_was_joined_once);
	RUN(a_number_beyond_all_takes_no_memory);
	RUN(a_failed_open_loses_nothing);
	a_damaged_image_has_right_pages_or_none(rounds);
	return 0;
}
