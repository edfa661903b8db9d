/* SPDX-License-Identifier: MIT */
/*
 * Streams as an enemy would have them.  The first byte of the input says how:
 *
 *	0	the rest is a stream;
 *	1	the rest is records, which get a header, blocks and right sums;
 *	2	the same; KEEP records find a base (its id: zeroes but the last
 *		byte, which is 1)
 *	3	the same, sealed
 *	4	a stream that was saved, patched: three bytes each say where and
 *		what; sums are left as they were
 *
 * Whatever is refused leaves the store as it was; what is restored is whole.
 */
#include <tmem/stats.h>
#include <tmem/store.h>

#include "givedict.h"
#include "snapbuf.h"
#include "snapshot/snapshot.h"

enum {
	BASE_PAGES = 40
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char key[TMEM_SNAPSHOT_KEY_BYTES] = "fuzz";
static struct tmem_store *store;
static struct tmem_backend backend;
static struct tmem_snapshot base;
static struct snapbuf saved;

/* A pool of some pages, saved: the base of what comes. */
static void open_store(void)
{
	struct tmem_store_options o = { .limit_bytes = 4u << 20 };
	const struct tmem_snap_chance chance = { { 0, 1ull << 56 }, "" };
	struct tmem_snapshot_options so = { 0 };
	struct tmem_snapshot_sink sink = snapbuf_sink(&saved);
	_Alignas(8) char page[PAGE];

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &so.pool), 0);
	page_fill(page, 30);
	CHECK(give_dict(store, so.pool, page, TMEM_DICT_MIN_BYTES));
	for (unsigned i = 0; i < BASE_PAGES; i++) {
		struct tmem_io io = { .object = { { i % 2 } },
				      .index = i,
				      .page = page };

		page_fill(page, i % 10 ? 3 * i + i % 2 : 2);
		CHECK_EQ(backend.ops->store(backend.self, so.pool, &io, 1), 0);
		CHECK_EQ(io.result, 0);
	}
	CHECK_EQ(tmem_snap_save(tmem_client_default(store), &so, &sink, &chance,
				&base),
		 0);
}

static uint64_t nr_pages(uint64_t *ret_pools)
{
	struct tmem_stats s;

	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	*ret_pools = s.pools;
	return s.pages;
}

static void read_stream(struct snapbuf *buf, bool sealed)
{
	struct tmem_snapshot_options o = { .since = &base,
					   .key = sealed ? key : NULL };
	struct tmem_snapshot_source source = snapbuf_source(buf);
	struct tmem_snapshot_fault fault;
	static struct tmem_snapshot s;
	uint64_t pools, pools_before, before = nr_pages(&pools_before);
	int r = tmem_snapshot_restore(tmem_client_default(store), &o, &source,
				      &s, &fault);

	if (r < 0)
		CHECK(fault.why != NULL && fault.offset <= buf->nr);
	tmem_store_check(store);
	for (unsigned i = 0; r == 0 && i < s.nr_pools; i++)
		CHECK_EQ(backend.ops->pool_destroy(backend.self,
						   s.pools[i].pool),
			 0);
	CHECK_EQ(nr_pages(&pools), before);
	CHECK_EQ(pools, pools_before);
	source = snapbuf_source(buf);
	tmem_snapshot_verify(&o, &source, &s, &fault);
}

/* As a stream whose sums are right; 0xff 0xff where a block ends. */
static void wrap(const uint8_t *data, size_t size, bool sealed,
		 struct snapbuf *buf)
{
	static struct tmem_snap_writer w;
	const struct tmem_snap_chance chance = { { 7, 8 }, "salt" };
	struct tmem_snapshot_sink sink = snapbuf_sink(buf);

	memset(&w, 0, sizeof(w));
	CHECK_EQ(tmem_snap_begin(&w, &sink, sealed ? key : NULL, &chance), 0);
	while (size) {
		if (size >= 2 && data[0] == 0xff && data[1] == 0xff) {
			/* What does not fit begins another one. */
			tmem_snap_room(&w, TMEM_SNAP_TEXT_BYTES);
			w.frame.head.length = 0;
			data += 2;
			size -= 2;
			continue;
		}
		memcpy(tmem_snap_room(&w, 1), data, 1);
		data++;
		size--;
	}
	CHECK_EQ(tmem_snap_finish(&w), 0);
	tmem_snap_writer_fini(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct snapbuf buf = { 0 };
	unsigned how;

	if (!store)
		open_store();
	if (!size)
		return 0;
	how = *data++ % 5;
	size--;
	switch (how) {
	case 0:
		snapbuf_write(&buf, data, size);
		break;
	case 4:
		snapbuf_write(&buf, saved.bytes, saved.nr);
		for (; size >= 3; data += 3, size -= 3)
			buf.bytes[(size_t)(data[0] | data[1] << 8) % buf.nr] =
				data[2];
		break;
	default:
		wrap(data, size, how == 3, &buf);
		break;
	}
	read_stream(&buf, how == 3);
	snapbuf_free(&buf);
	return 0;
}
