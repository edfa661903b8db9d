/* SPDX-License-Identifier: MIT */
/*
 * The bytes of snapshots, version 1, for ever: tests/golden has a stream of
 * each kind.  All are restored, and hold what they held; those whose bytes
 * depend on no codec are also written again and compared.
 *
 *	snapshot_golden DIR            tests
 *	snapshot_golden --make DIR     writes them, for a new version
 */
#include <tmem/stats.h>
#include <tmem/store.h>

#include "givedict.h"
#include "snapbuf.h"
#include "snapshot/snapshot.h"

enum {
	PAGES = 9
};

/* What a run makes, in this order. */
enum kind {
	FULL = 0,
	INCREMENT,
	SEALED,
	CLIENT,
	FORMS,
	DICTS,
	KINDS
};

static const char *const names[KINDS] = {
	"snapshot-v1-full.tmem",   "snapshot-v1-increment.tmem",
	"snapshot-v1-sealed.tmem", "snapshot-v1-client.tmem",
	"snapshot-v1-forms.tmem",  "snapshot-v1-dicts.tmem",
};

static const char key[TMEM_SNAPSHOT_KEY_BYTES] = "golden golden golden golden";
static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pools[3];

static void open_store(void)
{
	struct tmem_store_options o = { .limit_bytes = 8u << 20,
					.cool_after_ns = 1 };

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	backend = tmem_store_backend(store);
}

static void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static struct tmem_io io_of(unsigned i, void *page)
{
	static const uint32_t indexes[PAGES] = {
		0, 1, 2, 5, 300, 70000, 16777216, UINT32_MAX - 1, UINT32_MAX,
	};

	return (struct tmem_io){ .object = { { i == 2, 0, i == 3 } },
				 .index = indexes[i],
				 .page = page };
}

/* Same-filled, but one that is random; or text, which is compressed. */
static void fill(unsigned char *page, unsigned i, uint64_t tag)
{
	struct rng rng = { tag * 100 + i };

	for (unsigned k = 0; k < PAGE; k++)
		page[k] = (unsigned char)(i == 1 ? rng_next(&rng)
						 : (tag >> k % 8 * 8) + i);
	if (tag >= 20) { /* those of DICTS: one text, its parts in any order */
		fill(page, 0, 10);
		for (unsigned k = 1000; k + 100 <= PAGE; k += 100)
			memcpy(page + k, page + 7 * rng_below(&rng, 120), 100);
		memmove(page, page + 500 + i, PAGE - 500 - i);
		return;
	}
	if (tag >= 10) /* the letters of FORMS */
		for (unsigned k = 0; k < PAGE; k++)
			page[k] = (unsigned char)"etaoin shrdlu"[rng_below(&rng,
									   13)];
}

static void put(tmem_pool_id pool, unsigned i, uint64_t tag)
{
	unsigned char page[PAGE];
	struct tmem_io io = io_of(i, page);

	fill(page, i, tag);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

/* tag 0: it is not there. */
static void must_have(tmem_pool_id pool, unsigned i, uint64_t tag)
{
	unsigned char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(i, page);

	CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, tag ? 0 : TMEM_MISS);
	fill(want, i, tag);
	CHECK(!tag || memcmp(page, want, PAGE) == 0);
}

static struct tmem_snapshot save(const struct tmem_snapshot_options *o,
				 enum kind kind, struct snapbuf *buf)
{
	struct tmem_snap_chance chance = {
		{ 0x1111 * (1 + (uint64_t)kind), 0x2222 }, "0123456789abcde"
	};
	struct tmem_snapshot_sink sink = snapbuf_sink(buf);
	struct tmem_snapshot s;

	CHECK_EQ(tmem_snap_save(tmem_client_default(store), o, &sink, &chance,
				&s),
		 0);
	return s;
}

static void make_pages(struct snapbuf bufs[KINDS])
{
	struct tmem_snapshot_options o = { 0 };
	struct tmem_snapshot full;
	struct tmem_io io = io_of(4, NULL);

	open_store();
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pools[0]), 0);
	for (unsigned i = 0; i < PAGES; i++)
		put(pools[0], i, 1);
	o.pool = pools[0];
	full = save(&o, FULL, &bufs[FULL]);
	o.key = key;
	save(&o, SEALED, &bufs[SEALED]);
	o.key = NULL;
	o.since = &full;
	put(pools[0], 0, 2);
	put(pools[0], 3, 2);
	CHECK_EQ(backend.ops->invalidate(backend.self, pools[0], &io, 1), 0);
	save(&o, INCREMENT, &bufs[INCREMENT]);
	close_store();
}

static void make_client(struct snapbuf *buf)
{
	const uint64_t uuid[2] = { 5, 6 };
	struct tmem_pool_options eph = { .flags = TMEM_POOL_EPHEMERAL };
	struct tmem_pool_options sha = { TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED,
					 { 5, 6 } };
	struct tmem_snapshot_options o = { 0 };

	open_store();
	CHECK_EQ(tmem_client_allow(tmem_client_default(store), uuid, 1), 0);
	CHECK_EQ(tmem_client_set_weight(tmem_client_default(store), 77), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pools[0]), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &eph, &pools[1]), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &sha, &pools[2]), 0);
	for (unsigned i = 0; i < 3; i++)
		put(pools[i], 0, 3 + i);
	put(pools[1], 7, 4);
	save(&o, CLIENT, buf);
	close_store();
}

/* Page 0 becomes zstd, page 1 is LZ4, both of letters. */
static void make_forms(struct snapbuf *buf)
{
	struct tmem_snapshot_options o = { 0 };

	open_store();
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pools[0]), 0);
	put(pools[0], 0, 10);
	tmem_store_maintain(store, 1000000000);
	tmem_store_maintain(store, 1000000000);
	put(pools[0], 1, 10);
	save(&o, FORMS, buf);
	close_store();
}

/* The same with a dictionary of letters. */
static void make_dicts(struct snapbuf *buf)
{
	struct tmem_snapshot_options o = { 0 };
	unsigned char letters[PAGE];
	struct tmem_stats s;

	open_store();
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pools[0]), 0);
	fill(letters, 0, 10);
	CHECK(give_dict(store, pools[0], letters, 1000));
	put(pools[0], 0, 20);
	do {
		tmem_store_maintain(store, 1000000000);
		CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	} while (!s.zstd_dict_pages);
	put(pools[0], 1, 20);
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	CHECK(s.lz4_dict_pages == 1 && s.zstd_dict_pages == 1);
	save(&o, DICTS, buf);
	close_store();
}

static void make_all(struct snapbuf bufs[KINDS])
{
	make_pages(bufs);
	make_client(&bufs[CLIENT]);
	make_forms(&bufs[FORMS]);
	make_dicts(&bufs[DICTS]);
}

static FILE *open_file(const char *dir, enum kind kind, const char *mode)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, names[kind]);
	f = fopen(path, mode);
	CHECK(f != NULL);
	return f;
}

static void read_file(const char *dir, enum kind kind, struct snapbuf *buf)
{
	FILE *f = open_file(dir, kind, "rb");

	buf->bytes = malloc(1u << 20);
	CHECK(buf->bytes != NULL);
	buf->nr = fread(buf->bytes, 1, 1u << 20, f);
	fclose(f);
	CHECK(buf->nr > 64);
}

static struct tmem_snapshot restore(struct snapbuf *buf,
				    const struct tmem_snapshot_options *o)
{
	struct tmem_snapshot_source source = snapbuf_source(buf);
	struct tmem_snapshot_fault fault;
	struct tmem_snapshot s;

	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(store), o, &source,
				       &s, &fault),
		 0);
	return s;
}

static void restore_pages(struct snapbuf bufs[KINDS])
{
	struct tmem_snapshot_options o = { .key = key };
	struct tmem_snapshot full, s;

	open_store();
	s = restore(&bufs[SEALED], &o);
	full = restore(&bufs[FULL], NULL);
	CHECK_EQ(full.pages, PAGES);
	for (unsigned i = 0; i < PAGES; i++) {
		must_have(full.pools[0].pool, i, 1);
		must_have(s.pools[0].pool, i, 1);
	}
	o = (struct tmem_snapshot_options){ .since = &full };
	s = restore(&bufs[INCREMENT], &o);
	CHECK_EQ(s.pages, 2);
	CHECK_EQ(s.kept_pages, PAGES - 3);
	for (unsigned i = 0; i < PAGES; i++)
		must_have(s.pools[0].pool, i,
			  i == 4	     ? 0
			  : i == 0 || i == 3 ? 2
					     : 1);
	close_store();
}

static void restore_others(struct snapbuf bufs[KINDS])
{
	struct tmem_snapshot s;
	struct tmem_stats stats;

	open_store();
	s = restore(&bufs[CLIENT], NULL);
	CHECK_EQ(s.weight, 77);
	CHECK_EQ(s.nr_pools, 3);
	CHECK(s.pools[2].uuid[0] == 5 && s.pools[2].uuid[1] == 6);
	must_have(s.pools[0].pool, 0, 3);
	must_have(s.pools[1].pool, 0, 4);
	must_have(s.pools[1].pool, 7, 4);
	must_have(s.pools[2].pool, 0, 0);
	s = restore(&bufs[FORMS], NULL);
	must_have(s.pools[0].pool, 0, 10);
	must_have(s.pools[0].pool, 1, 10);
	s = restore(&bufs[DICTS], NULL);
	must_have(s.pools[0].pool, 0, 20);
	must_have(s.pools[0].pool, 1, 20);
	CHECK_EQ(backend.ops->stats(backend.self, &stats), 0);
	CHECK(stats.lz4_dict_pages == 1 && stats.zstd_dict_pages == 1);
	close_store();
}

int main(int argc, char **argv)
{
	struct snapbuf made[KINDS] = { { 0 } }, golden[KINDS] = { { 0 } };
	bool make = argc == 3 && strcmp(argv[1], "--make") == 0;
	enum kind kind;

	CHECK(make || argc == 2);
	make_all(made);
	for (kind = 0; kind < KINDS; kind++) {
		if (make) {
			FILE *f = open_file(argv[2], kind, "wb");

			CHECK_EQ(fwrite(made[kind].bytes, 1, made[kind].nr, f),
				 made[kind].nr);
			CHECK_EQ(fclose(f), 0);
			continue;
		}
		read_file(argv[1], kind, &golden[kind]);
		CHECK(kind == FORMS || kind == DICTS ||
		      (golden[kind].nr == made[kind].nr &&
		       memcmp(golden[kind].bytes, made[kind].bytes,
			      made[kind].nr) == 0));
	}
	if (!make) {
		restore_pages(golden);
		restore_others(golden);
	}
	for (kind = 0; kind < KINDS; kind++) {
		snapbuf_free(&made[kind]);
		snapbuf_free(&golden[kind]);
	}
	return 0;
}
