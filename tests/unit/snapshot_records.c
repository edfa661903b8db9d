/* SPDX-License-Identifier: MIT */
/*
 * Streams whose sums are right and whose records are not: what a program that
 * writes its own could send.  Each is refused, and nothing comes of it.
 */
#include <tmem/stats.h>
#include <tmem/store.h>

#include "snapbuf.h"
#include "snapshot/snapshot.h"

enum {
	BASE_PAGES = 20
};

static struct tmem_store *store;
static struct tmem_backend backend;
static struct tmem_snapshot base, got;
static struct tmem_snap_writer w;
static struct snapbuf buf;
static struct tmem_snapshot_sink sink;
static struct tmem_snapshot_fault fault;

static void begin(void)
{
	static const struct tmem_snap_chance chance = { { 7, 8 }, "" };

	memset(&w, 0, sizeof(w));
	buf.nr = 0;
	CHECK_EQ(tmem_snap_begin(&w, &sink, NULL, &chance), 0);
}

static void raw(const void *bytes, unsigned nr)
{
	memcpy(tmem_snap_room(&w, nr), bytes, nr);
}

/* What does not fit begins a new block. */
static void new_block(void)
{
	tmem_snap_room(&w, TMEM_SNAP_TEXT_BYTES);
	w.frame.head.length = 0;
}

static void pool(uint16_t number, uint32_t flags, bool based)
{
	struct tmem_snap_pool rec = { .type = TMEM_SNAP_POOL,
				      .number = number,
				      .flags = flags,
				      .source = 256 };

	if (based)
		memcpy(rec.base, base.pools[0].id, sizeof(rec.base));
	raw(&rec, sizeof(rec));
}

static void object(uint16_t number)
{
	struct tmem_snap_object rec = { .type = TMEM_SNAP_OBJECT,
					.pool = number,
					.id = { 1 } };

	raw(&rec, sizeof(rec));
}

static void page(uint8_t form, uint16_t length, uint32_t index)
{
	struct tmem_snap_page rec = { TMEM_SNAP_PAGE, form, length, index };
	char data[PAGE] = "12345678";

	raw(&rec, sizeof(rec));
	raw(data, length);
}

static void keep(uint16_t nr, uint32_t index, const void *steps, unsigned bytes)
{
	struct tmem_snap_keep rec = { TMEM_SNAP_KEEP, 0, nr, index };

	raw(&rec, sizeof(rec));
	raw(steps, bytes);
}

static void client(uint32_t weight)
{
	struct tmem_snap_client rec = { .type = TMEM_SNAP_CLIENT,
					.weight = weight };

	raw(&rec, sizeof(rec));
}

static void totals(uint64_t pages, uint64_t kept, uint64_t bytes)
{
	struct tmem_snap_end rec = { .type = TMEM_SNAP_END,
				     .pages = pages,
				     .kept_pages = kept,
				     .data_bytes = bytes };

	raw(&rec, sizeof(rec));
}

static int restore(void)
{
	struct tmem_snapshot_options o = { .since = &base };
	struct tmem_snapshot_source source;

	CHECK_EQ(tmem_snap_finish(&w), 0);
	source = snapbuf_source(&buf);
	return tmem_snapshot_restore(tmem_client_default(store), &o, &source,
				     &got, &fault);
}

static void expect(int error, const char *why)
{
	struct tmem_stats before, after;

	CHECK_EQ(backend.ops->stats(backend.self, &before), 0);
	CHECK_EQ(restore(), error);
	if (error == 0)
		for (unsigned i = 0; i < got.nr_pools; i++)
			CHECK_EQ(backend.ops->pool_destroy(backend.self,
							   got.pools[i].pool),
				 0);
	else if (!strstr(fault.why, why))
		CHECK_EQ(fprintf(stderr, "%s\n", fault.why), 0);
	CHECK_EQ(backend.ops->stats(backend.self, &after), 0);
	CHECK_EQ(after.pages, before.pages);
	CHECK_EQ(after.pools, before.pools);
	tmem_store_check(store);
	begin();
}

static void open_store(void)
{
	struct tmem_store_options o = { .limit_bytes = 4u << 20 };
	struct tmem_snapshot_options so = { 0 };
	_Alignas(8) char bytes[PAGE];

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &so.pool), 0);
	for (unsigned i = 0; i < BASE_PAGES; i++) {
		struct tmem_io io = { .object = { { 1 } },
				      .index = i,
				      .page = bytes };

		/* The last is equal to another. */
		page_fill(bytes, i < BASE_PAGES - 1 ? i : 1);
		CHECK_EQ(backend.ops->store(backend.self, so.pool, &io, 1), 0);
	}
	sink = snapbuf_sink(&buf);
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(store), &so, &sink,
				    &base),
		 0);
	begin();
}

static void what_is_right_is_restored(void)
{
	totals(0, 0, 0);
	expect(0, "");
	client(5);
	pool(0, 0, true);
	pool(1, TMEM_POOL_EPHEMERAL, false);
	object(0);
	page(TMEM_FORM_SAME, 8, 100);
	keep(3, 1, "\1\2", 2);
	new_block();
	object(1);
	page(TMEM_FORM_RAW, PAGE, UINT32_MAX);
	new_block();
	object(0);
	keep(1, 0, "", 0);
	totals(2, 4, PAGE + 8);
	expect(0, "");
}

static void records_have_their_order(void)
{
	pool(0, 0, false);
	client(5);
	expect(-EBADMSG, "record");
	pool(0, 0, false);
	object(0);
	pool(1, 0, false);
	expect(-EBADMSG, "record");
	pool(1, 0, false);
	expect(-EBADMSG, "record");
	pool(0, 0, false);
	page(TMEM_FORM_SAME, 8, 1);
	expect(-EBADMSG, "record");
	object(0);
	expect(-EBADMSG, "record");
	/* A block does not remember the object of the last one. */
	pool(0, 0, false);
	object(0);
	new_block();
	page(TMEM_FORM_SAME, 8, 1);
	expect(-EBADMSG, "record");
}

static void the_end_is_the_end(void)
{
	pool(0, 0, false);
	expect(-EBADMSG, "record");
	totals(0, 0, 0);
	totals(0, 0, 0);
	expect(-EBADMSG, "record");
	totals(0, 0, 0);
	new_block();
	totals(0, 0, 0);
	expect(-EBADMSG, "record");
	pool(0, 0, false);
	object(0);
	page(TMEM_FORM_SAME, 8, 1);
	totals(1, 0, 9);
	expect(-EBADMSG, "record");
	expect(-EBADMSG, "record"); /* an empty block */
	raw("\6", 1);
	expect(-EBADMSG, "record");
}

static void pages_are_what_they_say(void)
{
	static const struct {
		uint8_t form;
		uint16_t length;
		int error;
		const char *why;
	} bad[] = {
		{ TMEM_FORM_SAME, 7, -EBADMSG, "damaged" },
		{ TMEM_FORM_SAME, 0, -EBADMSG, "record" },
		{ TMEM_FORM_RAW, PAGE - 1, -EBADMSG, "damaged" },
		{ TMEM_FORM_LZ4, 100, -EBADMSG, "damaged" },
		{ TMEM_FORM_ZSTD, 100, -EBADMSG, "damaged" },
		{ TMEM_FORM_ZSTD_DICT, 100, -EOPNOTSUPP, "form" },
		{ TMEM_FORM_REF, 4, -EOPNOTSUPP, "form" },
		{ 0, 8, -EOPNOTSUPP, "form" },
		{ 99, 8, -EOPNOTSUPP, "form" },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pool(0, 0, false);
		object(0);
		page(TMEM_FORM_SAME, 8, 1);
		page(bad[i].form, bad[i].length, 2);
		totals(2, 0, 8 + bad[i].length);
		expect(bad[i].error, bad[i].why);
	}
	pool(0, 0, false);
	object(0);
	page(TMEM_FORM_SAME, 8, 1);
	page(TMEM_FORM_SAME, 8, 1);
	expect(-EBADMSG, "twice");
	pool(0, 0, false);
	raw("\7\0\0\0", 4);
	expect(-EOPNOTSUPP, "dictionaries");
}

static void kept_pages_are_there(void)
{
	static const struct {
		uint16_t nr;
		uint32_t index;
		const char *steps;
		unsigned bytes;
		int error;
		const char *why;
	} bad[] = {
		{ 1, BASE_PAGES, "", 0, -ESTALE, "based" },
		{ 0, 1, "", 0, -EBADMSG, "record" },
		{ 2, 1, "", 0, -EBADMSG, "record" },
		{ 2, 1, "\0", 1, -EBADMSG, "record" },
		{ 2, 1, "\x81\0", 2, -EBADMSG, "record" },
		{ 2, 1, "\xff\xff\xff\xff\x7f", 5, -EBADMSG, "record" },
		{ 2, 1, "\xff\xff\xff\xff\xff\x01", 6, -EBADMSG, "record" },
		{ 2, 1, "\xff\xff\xff\xff\x0f", 5, -EBADMSG, "record" },
	};

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		pool(0, 0, true);
		object(0);
		keep(bad[i].nr, bad[i].index, bad[i].steps, bad[i].bytes);
		expect(bad[i].error, bad[i].why);
	}
	pool(0, 0, false);
	object(0);
	keep(1, 1, "", 0);
	expect(-EBADMSG, "record");
	pool(0, 0, true);
	object(0);
	keep(2, 1, "\1", 1);
	keep(1, 2, "", 0);
	expect(-EBADMSG, "twice");
}

/* What is taken as it is means something in a pool of its kind only. */
static void a_base_is_of_the_same_kind(void)
{
	pool(0, 0, true);
	object(0);
	keep(1, BASE_PAGES - 1, "", 0);
	totals(0, 1, 0);
	expect(0, "");
	pool(0, TMEM_POOL_EPHEMERAL, true);
	object(0);
	keep(1, BASE_PAGES - 1, "", 0);
	totals(0, 1, 0);
	expect(-ESTALE, "based");
}

static void pools_are_what_can_be(void)
{
	struct tmem_snap_pool rec = { .type = TMEM_SNAP_POOL, .source = 1 };

	pool(0, 4, false);
	expect(-EBADMSG, "record");
	pool(0, TMEM_POOL_SHARED, false);
	expect(-EBADMSG, "record");
	pool(0, TMEM_POOL_SHARED | TMEM_POOL_EPHEMERAL, true);
	expect(-EBADMSG, "record");
	/* Of a shared one no pages come. */
	pool(0, TMEM_POOL_SHARED | TMEM_POOL_EPHEMERAL, false);
	object(0);
	expect(-EBADMSG, "record");
	rec.uuid[1] = 1;
	raw(&rec, sizeof(rec));
	expect(-EBADMSG, "record");
	rec = (struct tmem_snap_pool){ .type = TMEM_SNAP_POOL };
	raw(&rec, sizeof(rec));
	expect(-EBADMSG, "record");
	client(0);
	expect(-EBADMSG, "record");
	client(TMEM_WEIGHT_MAX + 1);
	expect(-EBADMSG, "record");
	/* More than there can be here. */
	for (unsigned i = 0; i < TMEM_SNAPSHOT_POOLS; i++)
		pool((uint16_t)i, 0, false);
	totals(0, 0, 0);
	expect(-ENOSPC, "");
}

int main(void)
{
	open_store();
	RUN(what_is_right_is_restored);
	RUN(records_have_their_order);
	RUN(the_end_is_the_end);
	RUN(pages_are_what_they_say);
	RUN(kept_pages_are_there);
	RUN(a_base_is_of_the_same_kind);
	RUN(pools_are_what_can_be);
	tmem_store_check(store);
	tmem_store_close(store);
	snapbuf_free(&buf);
	return 0;
}
