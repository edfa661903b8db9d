/* SPDX-License-Identifier: MIT */
/*
 * Streams whose sums are right and whose records are not: what a program that
 * writes its own could send.  Each is refused, and nothing comes of it.
 */
#include <tmem/stats.h>
#include <tmem/store.h>

#include "codecs/dict.h"
#include "core/core.h"
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

/* As it should be; then the record's 16 bytes patched by the caller. */
static struct tmem_snap_dict right_dict(void)
{
	return (struct tmem_snap_dict){ .type = TMEM_SNAP_DICT,
					.uses = TMEM_DICT_LZ4,
					.number = 5,
					.current = 1,
					.content_bytes = 300 };
}

static void dict(const struct tmem_snap_dict *rec, unsigned content_bytes)
{
	static char content[TMEM_DICT_MAX_BYTES + 1] = "12345678";

	raw(rec, sizeof(*rec));
	raw(content, content_bytes);
}

/* Of a page, by that number; the data are what LZ4 makes of one word. */
static void dict_page(uint16_t number, uint32_t index)
{
	static const unsigned char lz4[] = {
		0x8f, '1', '2', '3', '4', '5', '6', '7', '8', 8, 0,
	};
	unsigned char data[64] = { 0 };
	struct tmem_snap_page rec = { TMEM_SNAP_PAGE, TMEM_FORM_LZ4_DICT, 0,
				      index };
	unsigned n = 2 + sizeof(lz4), rest = PAGE - 8 - 19 - 12;

	memcpy(data, &number, 2);
	memcpy(data + 2, lz4, sizeof(lz4));
	for (; rest >= 255; rest -= 255)
		data[n++] = 255;
	data[n++] = (unsigned char)rest;
	data[n++] = 12 << 4;
	for (rest = 0; rest < 12; rest++)
		data[n + rest] = (unsigned char)"567812345678"[rest];
	rec.length = (uint16_t)(n + 12);
	raw(&rec, sizeof(rec));
	raw(data, rec.length);
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
		{ TMEM_FORM_ZSTD_DICT, 100, -EBADMSG, "lacks" },
		{ TMEM_FORM_DICT, 100, -EOPNOTSUPP, "form" },
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
}

static void dictionaries_are_what_they_say(void)
{
	const struct tmem_snap_dict right = right_dict();
	struct tmem_snap_dict bad[12];
	unsigned i;

	for (i = 0; i < 12; i++)
		bad[i] = right;
	bad[0].uses = 0;
	bad[1].uses = 4;
	bad[2].number = TMEM_SNAP_DICTS;
	bad[3].pool = 2;
	bad[4].pool = 1; /* shared */
	bad[5].current = 2;
	bad[6].content_bytes = TMEM_DICT_MIN_BYTES - 1;
	bad[7].content_bytes = TMEM_DICT_MAX_BYTES + 1;
	bad[8].zero = 1;
	bad[9].content_bytes = 301; /* of which one is missing */
	bad[10].content_bytes = UINT32_MAX;
	bad[11].type = 99;
	for (i = 0; i < 12; i++) {
		pool(0, 0, false);
		pool(1, TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED, false);
		dict(&bad[i], i == 7 ? bad[i].content_bytes : 300);
		expect(-EBADMSG, "record");
	}
	dict(&right, 300); /* before the pools */
	expect(-EBADMSG, "record");
	pool(0, 0, false);
	dict(&right, 300);
	pool(1, 0, false); /* which are over then */
	expect(-EBADMSG, "record");
	pool(0, 0, false);
	raw("\7\0\0\0", 4);
	expect(-EBADMSG, "record");
	/* What zstd would take for its own. */
	pool(0, 0, false);
	raw(&right, sizeof(right));
	raw("\x37\xa4\x30\xec", 4);
	for (i = 0; i < 296; i++)
		raw("x", 1);
	expect(-EBADMSG, "record");
}

static void pages_name_a_dictionary(void)
{
	struct tmem_snap_dict rec = right_dict();
	struct tmem_stats s;
	unsigned i;

	pool(0, 0, false);
	object(0);
	dict_page(5, 1);
	expect(-EBADMSG, "lacks");
	pool(0, 0, false);
	dict(&rec, 300);
	object(0);
	dict_page(6, 1);
	expect(-EBADMSG, "lacks");
	pool(0, 0, false);
	dict(&rec, 300);
	object(0);
	dict_page(UINT16_MAX, 1);
	expect(-EBADMSG, "lacks");
	pool(0, 0, false);
	dict(&rec, 300);
	object(0);
	page(TMEM_FORM_LZ4_DICT, 2, 1);
	expect(-EBADMSG, "damaged");
	pool(0, 0, false);
	dict(&rec, 300);
	object(0);
	page(TMEM_FORM_LZ4, 100, 2);
	expect(-EBADMSG, "damaged");
	/* More, one after another with that number, than the store gives. */
	pool(0, 0, false);
	for (i = 0; i < 3 * TMEM_MAX_DICTS; i++) {
		dict(&rec, 300);
		new_block();
		object(0);
		dict_page(5, i);
	}
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	CHECK_EQ(s.dicts, 0);
	expect(-EBADMSG, "record"); /* there is no end */
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	CHECK_EQ(s.dicts, 0);
}

/* Several for one number, and pages of all, are what they were. */
static void a_number_is_used_again(void)
{
	struct tmem_snap_dict rec = right_dict();
	struct tmem_stats s;
	char data[PAGE];
	uint64_t bytes = 0;
	unsigned i;

	pool(0, 0, false);
	for (i = 0; i < 40; i++) {
		dict(&rec, 300);
		object(0);
		dict_page(5, i);
		bytes += 2 + 11 + 17 + 12;
		new_block();
	}
	totals(40, 0, bytes);
	CHECK_EQ(restore(), 0);
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	CHECK_EQ(s.dicts, TMEM_MAX_DICTS / 4);
	CHECK_EQ(s.lz4_dict_pages, TMEM_MAX_DICTS / 4);
	for (i = 0; i < 40; i++) {
		struct tmem_io io = { .object = { { 1 } },
				      .index = i,
				      .page = data };

		CHECK_EQ(backend.ops->load(backend.self, got.pools[0].pool, &io,
					   1),
			 0);
		CHECK_EQ(io.result, 0);
		CHECK(memcmp(data, "12345678", 8) == 0 &&
		      memcmp(data, data + 8, PAGE - 8) == 0);
	}
	tmem_store_check(store);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, got.pools[0].pool), 0);
	while (tmem_store_maintain(store, 1000000000))
		;
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	CHECK_EQ(s.dicts, 0);
	begin();
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
	RUN(dictionaries_are_what_they_say);
	RUN(pages_name_a_dictionary);
	RUN(a_number_is_used_again);
	RUN(kept_pages_are_there);
	RUN(a_base_is_of_the_same_kind);
	RUN(pools_are_what_can_be);
	tmem_store_check(store);
	tmem_store_close(store);
	snapbuf_free(&buf);
	return 0;
}
