/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of pages that can't be read from their slots alone: compressed
 * with a dictionary of their pool, or moved to a tier.
 */
#include <sys/mman.h>
#include <unistd.h>

#include <tmem/stats.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "core/core.h"
#include "core/pool.h"
#include "givedict.h"
#include "snapbuf.h"

enum {
	PAGES = 3000,
	PHRASE = 64,
	PHRASES = 400,
	LIMIT = 6 << 20
};

static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;
static int tier_fd = -1;
static unsigned stride; /* one in so many pages changes */

/* Phrases that all pages draw from: on one of them few come twice. */
static void fill(unsigned char *page, unsigned key, unsigned version)
{
	struct rng rng = { key * 1009ull + version * 77ull };
	unsigned i, k;

	for (i = 0; i < PAGE / PHRASE; i++) {
		struct rng phrase = { 7919 + rng_below(&rng, PHRASES) };

		for (k = 0; k < PHRASE; k++)
			page[i * PHRASE + k] =
				(unsigned char)(rng_next(&phrase) >> 24);
		for (k = 0; k < 8; k++)
			page[i * PHRASE + k] = (unsigned char)rng_next(&rng);
	}
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 500 } },
				 .index = key,
				 .page = page };
}

static int put(unsigned key, unsigned version)
{
	unsigned char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, key, version);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	return io.result;
}

/* version 0: it is not there. */
static void must_have(const struct tmem_backend *b, tmem_pool_id from,
		      unsigned key, unsigned version)
{
	unsigned char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(b->ops->load(b->self, from, &io, 1), 0);
	CHECK_EQ(io.result, version ? 0 : TMEM_MISS);
	fill(want, key, version);
	CHECK(!version || memcmp(page, want, PAGE) == 0);
}

static struct tmem_stats stats_of(const struct tmem_backend *b)
{
	struct tmem_stats s;

	CHECK_EQ(b->ops->stats(b->self, &s), 0);
	return s;
}

static struct tmem_stats stats(void)
{
	return stats_of(&backend);
}

static void settle_one(struct tmem_store *which)
{
	unsigned i;

	for (i = 0; i < 8; i++)
		while (tmem_store_maintain(which, 1000000000))
			;
}

static void settle(void)
{
	settle_one(store);
}

static void begin(uint64_t limit_bytes, bool with_tier)
{
	struct tmem_store_options o = { .limit_bytes = limit_bytes,
					.cool_after_ns = 1,
					.dict_every_ns = 1 };
	struct tmem_tier_setup setup = { .kind = TMEM_TIER_KIND_MAPPED,
					 .max_bytes = 64 << 20 };

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	if (with_tier) {
		tier_fd = memfd_create("tier", MFD_CLOEXEC);
		CHECK_EQ(ftruncate(tier_fd, 64 << 20), 0);
		setup.fd = tier_fd;
		CHECK_EQ(tmem_store_add_tier(store, &setup), 0);
	}
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
}

static void end(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
	if (tier_fd >= 0)
		close(tier_fd);
	tier_fd = -1;
}

/* Stores all, as far as there is room for. */
static unsigned fill_store(void)
{
	unsigned key;

	for (key = 0; key < PAGES; key++) {
		if (put(key, 1) != 0)
			break;
		if (key % 500 == 499)
			settle();
	}
	settle();
	return key;
}

/* Meanwhile: what the saver has yet to read is replaced and dropped. */
static void change(void *arg)
{
	unsigned *nr = arg, key;

	if ((*nr)++)
		return;
	for (key = 0; key < PAGES; key += stride)
		put(key, 2);
	for (key = 1; key < PAGES; key += stride) {
		struct tmem_io io = io_of(key, NULL);

		backend.ops->invalidate(backend.self, pool, &io, 1);
	}
	settle();
	tmem_store_check(store);
}

/* What there is of forms with a dictionary. */
static uint64_t dict_pages(const struct tmem_stats *s)
{
	return s->lz4_dict_pages + s->zstd_dict_pages;
}

/* As many as there are, which no page has: no more find room. */
static void take_all_dicts(struct tmem_store *which) TMEM_UNANALYSED
{
	static const char content[TMEM_DICT_MIN_BYTES] = "nothing";
	struct tmem_dict_spec spec = { .pool = TMEM_MAX_POOLS - 1,
				       .uses = TMEM_DICT_LZ4,
				       .content_bytes = sizeof(content),
				       .content = content };
	uint32_t name;

	tmem_lock_acquire(&which->control);
	while (tmem_dicts_add(which, &spec, &name) == 0)
		;
	tmem_lock_release(&which->control);
}

/* A pool with so many pages that have its dictionary; then it goes. */
static void must_go_on(struct tmem_store *other, tmem_pool_id id,
		       uint64_t nr_dict)
{
	struct tmem_backend b = tmem_store_backend(other);
	unsigned char page[PAGE];
	struct tmem_io io = io_of(PAGES, page);
	struct tmem_stats is;

	settle_one(other);
	is = stats_of(&b);
	if (nr_dict) {
		CHECK_EQ(is.dicts, 1);
		CHECK(dict_pages(&is) >= nr_dict);
		fill(page, PAGES, 1);
		CHECK_EQ(b.ops->store(b.self, id, &io, 1), 0);
		CHECK(stats_of(&b).lz4_dict_pages > is.lz4_dict_pages);
	}
	CHECK_EQ(b.ops->pool_destroy(b.self, id), 0);
	settle_one(other);
	CHECK_EQ(stats_of(&b).dicts, 0);
	tmem_store_check(other);
}

enum restored {
	AS_THEY_ARE = 0,
	PLAIN /* there is no room for a dictionary */
};

static void save_and_restore(unsigned nr_pages, bool changing,
			     enum restored how)
{
	struct tmem_store_options o = { .limit_bytes = 64 << 20 };
	unsigned nr = 0, key;
	struct snapbuf buf = { .hook = changing ? change : NULL, .arg = &nr };
	struct tmem_snapshot_sink sink = snapbuf_sink(&buf);
	struct tmem_snapshot_source source;
	struct tmem_snapshot_fault fault;
	static struct tmem_snapshot s;
	struct tmem_stats was = stats(), is;
	struct tmem_store *other;
	struct tmem_backend b;

	CHECK_EQ(
		tmem_snapshot_save(tmem_client_default(store), NULL, &sink, &s),
		0);
	CHECK_EQ(s.pages, nr_pages);
	tmem_store_check(store);
	CHECK_EQ(tmem_store_open(&o, &other), 0);
	if (how == PLAIN)
		take_all_dicts(other);
	source = snapbuf_source(&buf);
	CHECK_EQ(tmem_snapshot_verify(NULL, &source, &s, &fault), 0);
	source = snapbuf_source(&buf);
	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(other), NULL,
				       &source, &s, &fault),
		 0);
	b = tmem_store_backend(other);
	is = stats_of(&b);
	if (how == PLAIN)
		CHECK_EQ(dict_pages(&is), 0);
	else if (!was.tier_pages)
		CHECK_EQ(dict_pages(&is), dict_pages(&was));
	else
		CHECK(dict_pages(&is) >= dict_pages(&was));
	for (key = 0; key < PAGES; key++)
		must_have(&b, s.pools[0].pool, key, key < nr_pages);
	tmem_store_check(other);
	must_go_on(other, s.pools[0].pool,
		   how == AS_THEY_ARE && !was.tier_pages ? dict_pages(&was)
							 : 0);
	tmem_store_close(other);
	snapbuf_free(&buf);
}

static void pages_travel_with_their_dictionary(void)
{
	stride = 3;
	begin(64 << 20, false);
	CHECK_EQ(fill_store(), PAGES);
	CHECK(stats().zstd_dict_pages > PAGES / 2);
	save_and_restore(PAGES, false, AS_THEY_ARE);
	save_and_restore(PAGES, false, PLAIN);
	save_and_restore(PAGES, true, AS_THEY_ARE);
	end();
}

/*
 * Of a clone, whose pages have the dictionary of a pool that is not saved, and
 * after it came a dictionary of its own: two in the stream.
 */
static void a_clone_takes_along_what_it_needs(void)
{
	static char content[2 * PAGE];
	struct snapbuf buf = { 0 };
	struct tmem_snapshot_sink sink = snapbuf_sink(&buf);
	struct tmem_snapshot_source source;
	struct tmem_snapshot_options o = { 0 };
	static struct tmem_snapshot s;
	tmem_pool_id clone;
	unsigned key;

	begin(64 << 20, false);
	CHECK_EQ(fill_store(), PAGES);
	store->dict_every_ns = 0;
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	pool = clone;
	fill((unsigned char *)content, 1, 1);
	fill((unsigned char *)content + PAGE, 2, 1);
	CHECK(give_dict(store, pool, content, sizeof(content)));
	for (key = 0; key < PAGES; key += 2)
		CHECK_EQ(put(key, 2), 0);
	o.pool = pool;
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(store), &o, &sink, &s),
		 0);
	CHECK_EQ(stats().dicts, 2);
	/* Into the same store: the old ones go before it is read. */
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	settle();
	CHECK_EQ(stats().dicts, 0);
	source = snapbuf_source(&buf);
	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(store), NULL,
				       &source, &s, NULL),
		 0);
	CHECK_EQ(stats().dicts, 2);
	CHECK(stats().lz4_dict_pages && stats().zstd_dict_pages);
	for (key = 0; key < PAGES; key++)
		must_have(&backend, s.pools[0].pool, key, key % 2 ? 1 : 2);
	settle(); /* all come to the one that the pool goes on with */
	CHECK_EQ(stats().dicts, 1);
	for (key = 0; key < PAGES; key++)
		must_have(&backend, s.pools[0].pool, key, key % 2 ? 1 : 2);
	snapbuf_free(&buf);
	end();
}

static void pages_in_a_tier_are_read_from_there(void)
{
	unsigned nr;

	stride = 20; /* what is kept needs room */
	begin(LIMIT, true);
	nr = fill_store();
	CHECK(nr > PAGES / 2);
	CHECK(stats().tier_pages > nr / 4);
	save_and_restore(nr, false, AS_THEY_ARE);
	save_and_restore(nr, true, AS_THEY_ARE);
	end();
}

/* An increment's pages are copied as they are; then their base goes. */
static void kept_pages_of_a_cache_keep_their_dictionary(void)
{
	struct tmem_pool_options cache = { .flags = TMEM_POOL_EPHEMERAL };
	struct snapbuf buf = { 0 };
	struct tmem_snapshot_sink sink = snapbuf_sink(&buf);
	struct tmem_snapshot_source source;
	struct tmem_snapshot_options o = { 0 };
	struct tmem_snapshot_fault fault;
	static struct tmem_snapshot first, second;
	struct tmem_client *client;
	unsigned key;

	begin(64 << 20, false);
	client = tmem_client_default(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, &cache, &pool), 0);
	CHECK_EQ(fill_store(), PAGES);
	CHECK(stats().zstd_dict_pages > PAGES / 2);
	o.pool = pool;
	CHECK_EQ(tmem_snapshot_save(client, &o, &sink, &first), 0);
	buf.nr = 0;
	o.since = &first;
	CHECK_EQ(tmem_snapshot_save(client, &o, &sink, &second), 0);
	CHECK_EQ(second.kept_pages, PAGES);
	source = snapbuf_source(&buf);
	CHECK_EQ(tmem_snapshot_restore(client, &o, &source, &second, &fault),
		 0);
	tmem_store_check(store);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	store->dict_every_ns = 0;
	settle();
	CHECK(stats().zstd_dict_pages > PAGES / 2);
	for (key = 0; key < PAGES; key++)
		must_have(&backend, second.pools[0].pool, key, 1);
	settle();
	CHECK_EQ(stats().dicts, 0);
	snapbuf_free(&buf);
	end();
}

int main(void)
{
	RUN(pages_travel_with_their_dictionary);
	RUN(a_clone_takes_along_what_it_needs);
	RUN(pages_in_a_tier_are_read_from_there);
	RUN(kept_pages_of_a_cache_keep_their_dictionary);
	return 0;
}
