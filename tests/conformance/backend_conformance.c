/* SPDX-License-Identifier: MIT */
/*
 * What tmem/backend.h asks of every backend, tried on each: the local store,
 * roomy and nearly full, and the refusing one.  A test may not assume that a
 * page is accepted: where one was refused, it expects a miss.
 */
#include <tmem/stats.h>
#include <tmem/store.h>

#include "fstest.h"

enum {
	KEYS = 400,
	VECTOR = 16
};

static struct tmem_backend backend;
static tmem_pool_id pool;

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){
		.object = { { key / 64, 0, key / 64 } },
		.index = key * 11,
		.page = page,
		.result = 77,
	};
}

static int put(unsigned key, uint64_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	page_fill(page, tag);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	CHECK(io.result == 0 || io.result == TMEM_REFUSED);
	return io.result;
}

/* The page is `tag`, or, if that was refused, not there. */
static void expect(unsigned key, uint64_t tag, int stored)
{
	_Alignas(8) char page[PAGE], untouched[PAGE];
	struct tmem_io io = io_of(key, page);

	memset(page, 0x5a, PAGE);
	memcpy(untouched, page, PAGE);
	CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, stored == 0 ? 0 : TMEM_MISS);
	if (stored == 0)
		CHECK(page_is(page, tag));
	else
		CHECK(memcmp(page, untouched, PAGE) == 0);
}

static void every_member_is_there(void)
{
	const struct tmem_backend_ops *ops = backend.ops;

	CHECK(ops->name && ops->pool_create && ops->pool_destroy &&
	      ops->pool_clone && ops->store && ops->load && ops->invalidate &&
	      ops->invalidate_object && ops->stats);
}

static void put_put_get_and_get_get(void)
{
	int r;

	expect(1, 0, TMEM_MISS);
	put(1, 100);
	r = put(1, 201);
	expect(1, 201, r);
	expect(1, 201, r);
	/* Noise over it: accepted or refused, never the old page again. */
	r = put(1, 302);
	expect(1, 302, r);
	expect(1, 302, r);
}

static void invalidated_is_gone(void)
{
	int r = put(2, 100);
	struct tmem_io io = io_of(2, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, r == 0 ? 0 : TMEM_MISS);
	CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, TMEM_MISS);
	expect(2, 0, TMEM_MISS);
}

static void vectors_are_done_in_order(void)
{
	static _Alignas(8) char pages[VECTOR][PAGE];
	struct tmem_io io[VECTOR];
	unsigned i;

	/* Each key twice: the later wins. */
	for (i = 0; i < VECTOR; i++) {
		io[i] = io_of(10 + i / 2, pages[i]);
		page_fill(pages[i], 1000 + i * 3);
	}
	CHECK_EQ(backend.ops->store(backend.self, pool, io, VECTOR), 0);
	for (i = 1; i < VECTOR; i += 2)
		expect(10 + i / 2, 1000 + i * 3, io[i].result);
	CHECK_EQ(backend.ops->store(backend.self, pool, io, 0), 0);
}

static void objects_go_as_a_whole(void)
{
	struct tmem_object_id other = { { 99, 99, 99 } };
	int stored[KEYS];
	uint64_t pages = 1, want = 0;
	unsigned key;

	for (key = 0; key < KEYS; key++)
		stored[key] = put(key, key * 3 + 1);
	for (key = 64; key < 128; key++)
		want += stored[key] == 0;
	CHECK_EQ(backend.ops->invalidate_object(backend.self, pool,
						io_of(64, NULL).object, &pages),
		 0);
	CHECK_EQ(pages, want);
	for (key = 0; key < KEYS; key++)
		expect(key, key * 3 + 1, key / 64 == 1 ? 1 : stored[key]);
	CHECK_EQ(backend.ops->invalidate_object(backend.self, pool, other,
						&pages),
		 0);
	CHECK_EQ(pages, 0);
}

static void a_clone_is_a_pool_of_its_own(void)
{
	tmem_pool_id original = pool, clone = 0;
	int stored = put(300, 1), r, again;

	r = backend.ops->pool_clone(backend.self, pool, &clone);
	CHECK(r == 0 || r == -ENOMEM);
	if (r < 0)
		return;
	pool = clone;
	expect(300, 1, stored);
	again = put(300, 4);
	expect(300, 4, again);
	pool = original;
	if (original != clone)
		expect(300, 1, stored);
	pool = clone;
	if (original != clone)
		CHECK_EQ(backend.ops->pool_destroy(backend.self, clone), 0);
	pool = original;
}

static void no_such_pool_is_enoent(void)
{
	tmem_pool_id none = 0xfffffe, right = pool, id = 5;
	_Alignas(8) char page[PAGE] = { 0 };
	struct tmem_io io[2] = { io_of(1, page), io_of(2, page) };
	uint64_t pages;

	CHECK_EQ(backend.ops->store(backend.self, none, io, 2), -ENOENT);
	CHECK(io[0].result == -ENOENT && io[1].result == -ENOENT);
	io[0].result = io[1].result = 0;
	CHECK_EQ(backend.ops->load(backend.self, none, io, 2), -ENOENT);
	CHECK(io[0].result == -ENOENT && io[1].result == -ENOENT);
	io[0].result = io[1].result = 0;
	CHECK_EQ(backend.ops->invalidate(backend.self, none, io, 2), -ENOENT);
	CHECK(io[0].result == -ENOENT && io[1].result == -ENOENT);
	CHECK_EQ(backend.ops->invalidate_object(backend.self, none,
						io[0].object, &pages),
		 -ENOENT);
	CHECK_EQ(backend.ops->pool_clone(backend.self, none, &id), -ENOENT);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, none), -ENOENT);
	CHECK_EQ(id, 5);
	CHECK_EQ(pool, right);
}

static void statistics_are_there(void)
{
	struct tmem_stats s;

	memset(&s, 0x5a, sizeof(s));
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	CHECK(s.pages <= KEYS + 100);
	CHECK(s.held_bytes <= s.limit_bytes);
}

static void destroyed_with_all_its_pages(void)
{
	tmem_pool_id old = pool;

	put(1, 1);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
	expect(1, 0, TMEM_MISS);
	(void)old;
}

static void suite(const char *name, struct tmem_backend b)
{
	fprintf(stderr, "%s (%s)\n", name, b.ops->name);
	backend = b;
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
	RUN(every_member_is_there);
	RUN(put_put_get_and_get_get);
	RUN(invalidated_is_gone);
	RUN(vectors_are_done_in_order);
	RUN(objects_go_as_a_whole);
	RUN(a_clone_is_a_pool_of_its_own);
	RUN(no_such_pool_is_enoent);
	RUN(statistics_are_there);
	RUN(destroyed_with_all_its_pages);
}

static void local_store(const char *name, uint64_t limit_bytes)
{
	struct tmem_store_options o = { .limit_bytes = limit_bytes };
	struct tmem_store *store;

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	suite(name, tmem_store_backend(store));
	tmem_store_check(store);
	tmem_store_close(store);
}

int main(void)
{
	local_store("roomy", 32u << 20);
	local_store("nearly full", TMEM_STORE_MIN_BYTES);
	suite("refusing", tmem_backend_refusing());
	return 0;
}
