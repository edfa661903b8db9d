/* SPDX-License-Identifier: MIT */
/* Snapshots, rule by rule: what travels, what is refused, what changes. */
#include <pthread.h>
#include <sys/mman.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "snapbuf.h"

enum {
	PAGES = 300,
	MANY = 3000
};

static struct tmem_store *store;
static struct tmem_client *client;
static struct tmem_backend backend;
static tmem_pool_id pool;

static struct tmem_store *open_one(uint64_t limit_bytes)
{
	struct tmem_store_options o = { .limit_bytes = limit_bytes,
					.cool_after_ns = 1 };
	struct tmem_store *s;

	CHECK_EQ(tmem_store_open(&o, &s), 0);
	return s;
}

static void begin(void)
{
	store = open_one(32u << 20);
	client = tmem_client_default(store);
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
}

static void end(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 40, 1, key % 3 } },
				 .index = key * 7,
				 .page = page };
}

static void put(const struct tmem_backend *b, tmem_pool_id p, unsigned key,
		uint64_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	page_fill(page, tag);
	CHECK_EQ(b->ops->store(b->self, p, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void drop(tmem_pool_id p, unsigned key)
{
	struct tmem_io io = io_of(key, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, p, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

/* tag 0: it is not there. */
static void must_have(const struct tmem_backend *b, tmem_pool_id p,
		      unsigned key, uint64_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(b->ops->load(b->self, p, &io, 1), 0);
	CHECK_EQ(io.result, tag ? 0 : TMEM_MISS);
	CHECK(!tag || page_is(page, tag));
}

static void fill(uint64_t tags)
{
	unsigned key;

	for (key = 0; key < PAGES; key++)
		put(&backend, pool, key, tags + key);
}

static uint64_t nr_pages(struct tmem_store *s)
{
	struct tmem_backend b = tmem_store_backend(s);
	struct tmem_stats stats;

	CHECK_EQ(b.ops->stats(b.self, &stats), 0);
	return stats.pages;
}

static struct tmem_snapshot save(const struct tmem_snapshot_options *o,
				 struct snapbuf *buf)
{
	struct tmem_snapshot_sink sink = snapbuf_sink(buf);
	struct tmem_snapshot s;

	buf->nr = 0;
	CHECK_EQ(tmem_snapshot_save(client, o, &sink, &s), 0);
	CHECK_EQ(s.stream_bytes, buf->nr);
	tmem_store_check(store);
	return s;
}

static struct tmem_snapshot restore(struct tmem_store *to,
				    const struct tmem_snapshot_options *o,
				    struct snapbuf *buf)
{
	struct tmem_snapshot_source source = snapbuf_source(buf);
	struct tmem_snapshot_fault fault = { 0, "" };
	struct tmem_snapshot s;
	int r = tmem_snapshot_restore(tmem_client_default(to), o, &source, &s,
				      &fault);

	if (r < 0)
		fprintf(stderr, "at %llu: %s\n",
			(unsigned long long)fault.offset, fault.why);
	CHECK_EQ(r, 0);
	CHECK_EQ(buf->at, buf->nr);
	tmem_store_check(to);
	return s;
}

static int try_restore(struct tmem_store *to,
		       const struct tmem_snapshot_options *o,
		       struct snapbuf *buf, struct tmem_snapshot_fault *fault)
{
	struct tmem_snapshot_source source = snapbuf_source(buf);
	struct tmem_snapshot s;

	return tmem_snapshot_restore(tmem_client_default(to), o, &source, &s,
				     fault);
}

/* All counters and gauges but those of memory, which comes and goes. */
static struct tmem_stats figures(struct tmem_store *s)
{
	struct tmem_backend b = tmem_store_backend(s);
	struct tmem_stats stats;

	CHECK_EQ(b.ops->stats(b.self, &stats), 0);
	stats.held_bytes = stats.data_bytes = stats.idle_bytes = 0;
	stats.meta_bytes = 0;
	return stats;
}

static void a_full_one_comes_back_whole(void)
{
	struct snapbuf buf = { .piece = 999 };
	struct tmem_store *other = open_one(32u << 20);
	struct tmem_backend b = tmem_store_backend(other);
	struct tmem_snapshot_options o = { .pool = 0 };
	struct tmem_snapshot s;
	unsigned key;

	begin();
	fill(1);
	o.pool = pool;
	s = save(&o, &buf);
	CHECK_EQ(s.pages, PAGES);
	CHECK_EQ(s.nr_pools, 1);
	CHECK_EQ(s.weight, 0);
	s = restore(other, NULL, &buf);
	CHECK_EQ(s.pages, PAGES);
	CHECK_EQ(s.pools[0].source, pool);
	CHECK_EQ(nr_pages(other), PAGES);
	for (key = 0; key < PAGES; key++)
		must_have(&b, s.pools[0].pool, key, 1 + key);
	CHECK_EQ(b.ops->pool_destroy(b.self, s.pools[0].pool), 0);
	tmem_store_check(other);
	tmem_store_close(other);
	snapbuf_free(&buf);
	end();
}

static void every_form_travels_as_it_is(void)
{
	struct snapbuf buf = { 0 };
	struct tmem_store *other = open_one(32u << 20);
	struct tmem_snapshot_options o = { 0 };
	struct tmem_stats a, b;
	struct tmem_snapshot s;
	tmem_pool_id clone;
	unsigned key;

	begin();
	fill(1);
	tmem_store_maintain(store, 1000000000);
	tmem_store_maintain(store, 1000000000);
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), 0);
	a = figures(store);
	CHECK(a.same_pages && a.raw_pages && a.zstd_pages && a.ref_pages);
	/* A clone's pages travel with their data. */
	o.pool = clone;
	s = save(&o, &buf);
	CHECK_EQ(s.data_bytes, a.stored_bytes - a.same_pages / 2 * 8);
	s = restore(other, NULL, &buf);
	b = figures(other);
	CHECK_EQ(b.zstd_pages, a.zstd_pages);
	CHECK_EQ(b.raw_pages, a.raw_pages);
	CHECK_EQ(b.same_pages, a.same_pages / 2);
	CHECK_EQ(b.ref_pages, 0);
	for (key = 0; key < PAGES; key++) {
		struct tmem_backend be = tmem_store_backend(other);

		must_have(&be, s.pools[0].pool, key, 1 + key);
	}
	tmem_store_close(other);
	snapbuf_free(&buf);
	end();
}

/* An increment, from one store to another, twice in a row. */
static void increments_follow_each_other(void)
{
	struct snapbuf buf = { 0 };
	struct tmem_store *other = open_one(32u << 20);
	struct tmem_backend b = tmem_store_backend(other);
	struct tmem_snapshot_options o = { 0 }, ro = { 0 };
	static struct tmem_snapshot here[3], there[3];
	unsigned key, i;

	begin();
	fill(1);
	here[0] = save(&o, &buf);
	there[0] = restore(other, NULL, &buf);
	for (i = 1; i < 3; i++) {
		for (key = 0; key < 10; key++)
			put(&backend, pool, 20 * i + key, 1000 * i + key);
		for (key = 0; key < 5; key++)
			drop(pool, 100 * i + key);
		o.since = &here[i - 1];
		ro.since = &there[i - 1];
		here[i] = save(&o, &buf);
		CHECK_EQ(here[i].pages, 10);
		CHECK_EQ(here[i].kept_pages, PAGES - 10 - 5 * i);
		there[i] = restore(other, &ro, &buf);
		CHECK_EQ(there[i].kept_pages, here[i].kept_pages);
		CHECK_EQ(b.ops->pool_destroy(b.self, ro.since->pools[0].pool),
			 0);
		CHECK_EQ(nr_pages(other), PAGES - 5 * i);
	}
	for (key = 0; key < PAGES; key++) {
		uint64_t tag = 1 + key;

		if (key >= 20 && key < 30)
			tag = 1000 + key - 20;
		if (key >= 40 && key < 50)
			tag = 2000 + key - 40;
		if ((key >= 100 && key < 105) || (key >= 200 && key < 205))
			tag = 0;
		must_have(&b, there[2].pools[0].pool, key, tag);
	}
	CHECK_EQ(b.ops->pool_destroy(b.self, there[2].pools[0].pool), 0);
	CHECK_EQ(nr_pages(other), 0);
	tmem_store_check(other);
	tmem_store_close(other);
	snapbuf_free(&buf);
	end();
}

static void a_new_form_is_no_change(void)
{
	struct snapbuf buf = { 0 };
	struct tmem_snapshot_options o = { 0 };
	struct tmem_snapshot s;

	begin();
	fill(1);
	s = save(&o, &buf);
	tmem_store_maintain(store, 1000000000);
	tmem_store_maintain(store, 1000000000);
	CHECK(figures(store).cooled > 0);
	o.since = &s;
	s = save(&o, &buf);
	CHECK_EQ(s.pages, 0);
	CHECK_EQ(s.kept_pages, PAGES);
	snapbuf_free(&buf);
	end();
}

/* The pool itself is as good a base as one that was restored. */
static void a_base_that_changed_is_refused(void)
{
	struct snapbuf buf = { 0 };
	struct tmem_snapshot_options o = { 0 };
	struct tmem_snapshot_fault fault;
	static struct tmem_snapshot first, second;
	struct tmem_stats before;

	begin();
	fill(1);
	first = save(&o, &buf);
	put(&backend, pool, 5, 77);
	o.since = &first;
	second = save(&o, &buf);
	/* Key 5 came with the stream, so that it changed is no harm. */
	second = restore(store, &o, &buf);
	must_have(&backend, second.pools[0].pool, 5, 77);
	put(&backend, pool, 6, 78);
	before = figures(store);
	CHECK_EQ(try_restore(store, &o, &buf, &fault), -ESTALE);
	CHECK(strstr(fault.why, "not based") != NULL);
	drop(pool, 6);
	before.invalidates++;
	before.pages--;
	CHECK_EQ(try_restore(store, &o, &buf, &fault), -ESTALE);
	CHECK_EQ(figures(store).pages, before.pages);
	CHECK_EQ(figures(store).pool_pages, before.pool_pages);
	/* Another snapshot's pool, none at all, one that is gone. */
	o.since = &second;
	CHECK_EQ(try_restore(store, &o, &buf, &fault), -ESTALE);
	CHECK_EQ(try_restore(store, NULL, &buf, &fault), -ESTALE);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	o.since = &first;
	CHECK_EQ(try_restore(store, &o, &buf, &fault), -ESTALE);
	snapbuf_free(&buf);
	end();
}

static void what_is_not_ours_is_told(void)
{
	struct snapbuf buf = { 0 };
	struct tmem_snapshot_sink sink = snapbuf_sink(&buf);
	struct tmem_snapshot_options o = { 0 };
	struct tmem_store *other;
	struct tmem_snapshot s;

	begin();
	o.pool = pool + 1;
	CHECK_EQ(tmem_snapshot_save(client, &o, &sink, &s), -ENOENT);
	o.pool = 0;
	s = save(&o, &buf);
	/* A store that never took one, and one that did. */
	other = open_one(2u << 20);
	o.since = &s;
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(other), &o, &sink, &s),
		 -ESTALE);
	o.since = NULL;
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(other), &o, &sink, &s),
		 0);
	s.store++;
	o.since = &s;
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(other), &o, &sink, &s),
		 -ESTALE);
	tmem_store_close(other);
	snapbuf_free(&buf);
	end();
}

static struct tmem_pool_options eph = { .flags = TMEM_POOL_EPHEMERAL };
static struct tmem_pool_options sha = { TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED,
					{ 3, 4 } };

/* A pool of each kind, with pages; the shared one. */
static tmem_pool_id make_pools(void)
{
	tmem_pool_id e, sh;
	unsigned key;

	CHECK_EQ(tmem_client_allow(client, sha.uuid, 1), 0);
	CHECK_EQ(tmem_client_set_weight(client, 123), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &eph, &e), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &sha, &sh), 0);
	for (key = 0; key < 20; key++) {
		put(&backend, pool, key, 100 + key);
		put(&backend, e, key, 200 + key);
		put(&backend, sh, key, 300 + key);
	}
	return sh;
}

static void a_client_travels_with_its_pools(void)
{
	struct tmem_snapshot_options o = { .set_weight = 1 };
	struct tmem_store *other = open_one(32u << 20);
	struct tmem_backend b = tmem_store_backend(other);
	struct snapbuf buf = { 0 };
	struct tmem_snapshot s;
	unsigned key;

	begin();
	make_pools();
	s = save(&o, &buf);
	CHECK_EQ(s.nr_pools, 3);
	CHECK_EQ(s.weight, 123);
	/* Of the shared pool no page travels. */
	CHECK_EQ(s.pages, 40);
	s = restore(other, &o, &buf);
	CHECK_EQ(s.weight, 123);
	CHECK_EQ(s.pools[1].flags, TMEM_POOL_EPHEMERAL);
	/* Who may not share it gets one of his own. */
	CHECK_EQ(s.pools[2].flags, TMEM_POOL_EPHEMERAL);
	for (key = 0; key < 20; key++) {
		must_have(&b, s.pools[0].pool, key, 100 + key);
		must_have(&b, s.pools[1].pool, key, 200 + key);
		must_have(&b, s.pools[1].pool, key, 0);
		must_have(&b, s.pools[2].pool, key, 0);
	}
	tmem_store_check(other);
	tmem_store_close(other);
	snapbuf_free(&buf);
	end();
}

static void a_shared_pool_is_joined(void)
{
	struct tmem_store *other = open_one(32u << 20);
	struct tmem_snapshot_options o = { 0 };
	struct tmem_snapshot_sink sink;
	struct snapbuf buf = { 0 };
	struct tmem_snapshot s;
	tmem_pool_id shared;

	begin();
	shared = make_pools();
	save(&o, &buf);
	CHECK_EQ(tmem_client_allow(tmem_client_default(other), sha.uuid, 1), 0);
	s = restore(other, NULL, &buf);
	CHECK_EQ(s.pools[2].flags, TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED);
	/* Here it is there, and what is in it is the newer. */
	s = restore(store, NULL, &buf);
	CHECK_EQ(s.pools[2].pool, shared);
	must_have(&backend, shared, 3, 303);
	o.pool = shared;
	sink = snapbuf_sink(&buf);
	CHECK_EQ(tmem_snapshot_save(client, &o, &sink, &s), -EINVAL);
	tmem_store_check(other);
	tmem_store_close(other);
	snapbuf_free(&buf);
	end();
}

static void a_key_is_needed_and_the_right_one(void)
{
	char key[TMEM_SNAPSHOT_KEY_BYTES] = "a key", bad[sizeof(key)] = "b";
	struct tmem_snapshot_options o = { .key = key }, no = { 0 };
	struct tmem_snapshot_options wrong = { .key = bad };
	struct snapbuf buf = { 0 }, again = { 0 };
	struct tmem_snapshot_source source;
	struct tmem_snapshot_fault fault;
	struct tmem_snapshot s;
	char page[PAGE];

	begin();
	fill(1);
	save(&o, &buf);
	save(&o, &again);
	/* Nothing of it can be seen, not even that it is the same. */
	page_fill(page, 2 * 3 + 2);
	CHECK(memmem(buf.bytes, buf.nr, page, 64) == NULL);
	CHECK(memmem(again.bytes, again.nr, buf.bytes + 96, 64) == NULL);
	CHECK_EQ(try_restore(store, &no, &buf, &fault), -ENOKEY);
	CHECK_EQ(try_restore(store, &wrong, &buf, &fault), -EBADMSG);
	CHECK_EQ(fault.offset, 64);
	s = restore(store, &o, &buf);
	must_have(&backend, s.pools[0].pool, 9, 10);
	source = snapbuf_source(&buf);
	CHECK_EQ(tmem_snapshot_verify(&o, &source, &s, &fault), 0);
	CHECK_EQ(s.pages, PAGES);
	CHECK_EQ(s.pools[0].pool, 0);
	save(&no, &buf);
	CHECK_EQ(try_restore(store, &o, &buf, &fault), -EKEYREJECTED);
	snapbuf_free(&buf);
	snapbuf_free(&again);
	end();
}

/* A small stream of several blocks. */
static void make_small(struct snapbuf *buf, const void *key)
{
	struct tmem_snapshot_options o = { .key = key };
	unsigned i;

	begin();
	for (i = 0; i < 25; i++)
		put(&backend, pool, i, 3 * i + (i % 8 == 0 ? 2 : i % 2));
	save(&o, buf);
	end();
}

static void refused_unchanged(struct tmem_store *to, struct snapbuf *buf,
			      const struct tmem_snapshot_options *o)
{
	struct tmem_snapshot_fault fault = { ~0ull, NULL };
	struct tmem_stats before = figures(to), after;
	int r = try_restore(to, o, buf, &fault);

	CHECK(r == -EBADMSG || r == -EOPNOTSUPP || r == -ENOKEY ||
	      r == -EKEYREJECTED);
	CHECK(fault.offset <= buf->nr && fault.why && *fault.why);
	after = figures(to);
	CHECK(memcmp(&before, &after, sizeof(after)) == 0);
}

static void cut_short_anywhere(const void *key)
{
	struct tmem_snapshot_options o = { .key = key };
	struct tmem_store *to = open_one(8u << 20);
	struct snapbuf buf = { 0 };
	size_t whole, n;

	make_small(&buf, key);
	whole = buf.nr;
	for (n = 0; n < whole; n += n < 400 || n + 400 > whole ? 1 : 37) {
		buf.nr = n;
		refused_unchanged(to, &buf, &o);
	}
	buf.nr = whole;
	tmem_store_check(to);
	restore(to, &o, &buf);
	tmem_store_close(to);
	snapbuf_free(&buf);
}

static void damaged_anywhere(const void *key)
{
	struct tmem_snapshot_options o = { .key = key };
	struct tmem_store *to = open_one(8u << 20);
	struct snapbuf buf = { 0 };
	size_t n;

	make_small(&buf, key);
	for (n = 0; n < 8 * buf.nr; n += n < 3000 ? 1 : 61) {
		buf.bytes[n / 8] ^= (unsigned char)(1 << n % 8);
		refused_unchanged(to, &buf, &o);
		buf.bytes[n / 8] ^= (unsigned char)(1 << n % 8);
	}
	tmem_store_check(to);
	restore(to, &o, &buf);
	tmem_store_close(to);
	snapbuf_free(&buf);
}

static void a_stream_that_is_cut_short_is_refused(void)
{
	cut_short_anywhere(NULL);
	cut_short_anywhere("0123456789abcdef0123456789abcdef");
}

static void a_stream_that_is_damaged_is_refused(void)
{
	damaged_anywhere(NULL);
	damaged_anywhere("0123456789abcdef0123456789abcdef");
}

/* Blocks swapped, left out, twice, or of another stream with the same key. */
static void blocks_have_their_place(void)
{
	char key[TMEM_SNAPSHOT_KEY_BYTES] = "k";
	struct tmem_snapshot_options o = { .key = key };
	struct snapbuf a = { 0 }, b = { 0 }, x = { 0 };
	struct tmem_snapshot_fault fault;
	uint32_t length;
	size_t first;

	begin();
	fill(2);
	save(&o, &a);
	save(&o, &b);
	memcpy(&length, a.bytes + 64, sizeof(length));
	first = 64 + 16 + length + 16;
	CHECK(first < a.nr / 2);
	/* The first one left out. */
	snapbuf_write(&x, a.bytes, 64);
	snapbuf_write(&x, a.bytes + first, a.nr - first);
	CHECK_EQ(try_restore(store, &o, &x, &fault), -EBADMSG);
	CHECK_EQ(fault.offset, 64);
	/* The first one twice. */
	x.nr = 0;
	snapbuf_write(&x, a.bytes, first);
	snapbuf_write(&x, a.bytes + 64, a.nr - 64);
	CHECK_EQ(try_restore(store, &o, &x, &fault), -EBADMSG);
	CHECK_EQ(fault.offset, first);
	/* The first one of the other. */
	x.nr = 0;
	snapbuf_write(&x, a.bytes, 64);
	snapbuf_write(&x, b.bytes + 64, first - 64);
	snapbuf_write(&x, a.bytes + first, a.nr - first);
	CHECK_EQ(try_restore(store, &o, &x, &fault), -EBADMSG);
	CHECK_EQ(fault.offset, 64);
	snapbuf_free(&a);
	snapbuf_free(&b);
	snapbuf_free(&x);
	end();
}

/* From within the save: what was there at its instant is what travels. */
static void change_everything(void *arg)
{
	unsigned *nr = arg, key;

	if ((*nr)++)
		return;
	for (key = 0; key < PAGES; key += 3)
		put(&backend, pool, key, 5000 + key);
	for (key = 1; key < PAGES; key += 3)
		drop(pool, key);
	put(&backend, pool, 1, 9999);
	put(&backend, pool, PAGES + 1, 9999);
	tmem_store_check(store);
}

static void stores_go_on_meanwhile(void)
{
	unsigned nr = 0, key;
	struct snapbuf buf = { .hook = change_everything, .arg = &nr };
	struct tmem_snapshot_options o = { 0 };
	static struct tmem_snapshot first, second;

	begin();
	fill(1);
	first = save(&o, &buf);
	CHECK(nr > 1);
	CHECK_EQ(first.pages, PAGES);
	second = restore(store, NULL, &buf);
	for (key = 0; key < PAGES; key++)
		must_have(&backend, second.pools[0].pool, key, 1 + key);
	must_have(&backend, second.pools[0].pool, PAGES + 1, 0);
	/* And what changed meanwhile changed since. */
	o = (struct tmem_snapshot_options){ .pool = pool, .since = &first };
	buf.hook = NULL;
	second = save(&o, &buf);
	CHECK_EQ(second.pages, PAGES / 3 + 2);
	CHECK_EQ(second.kept_pages, PAGES / 3);
	snapbuf_free(&buf);
	end();
}

static void destroy_it(void *arg)
{
	unsigned *nr = arg;
	struct tmem_snapshot_sink sink = { NULL, NULL };
	struct tmem_snapshot s;

	if ((*nr)++)
		return;
	CHECK_EQ(tmem_snapshot_save(client, NULL, &sink, &s), -EBUSY);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
	fill(7000);
	tmem_store_check(store);
}

static void a_pool_destroyed_meanwhile_is_saved(void)
{
	unsigned nr = 0, key;
	struct snapbuf buf = { .hook = destroy_it, .arg = &nr };
	struct tmem_snapshot_options o = { 0 };
	struct tmem_snapshot s;

	begin();
	fill(1);
	save(&o, &buf);
	s = restore(store, NULL, &buf);
	CHECK_EQ(s.nr_pools, 1);
	for (key = 0; key < PAGES; key++)
		must_have(&backend, s.pools[0].pool, key, 1 + key);
	snapbuf_free(&buf);
	end();
}

/* It has to end for want of memory, and the stores don't notice. */
static void churn(void *arg)
{
	unsigned *nr = arg, key;

	if ((*nr)++)
		return;
	tmem_store_set_limit(store, TMEM_STORE_MIN_BYTES);
	for (key = 0; key < MANY; key++)
		drop(pool, key);
	tmem_store_check(store);
}

static void fill_many(void)
{
	unsigned key;

	for (key = 0; key < MANY; key++)
		put(&backend, pool, key, 1 + key);
}

static void a_full_store_is_saved_or_it_fails(void)
{
	unsigned nr = 0;
	struct snapbuf buf = { .hook = churn, .arg = &nr };
	struct tmem_snapshot_sink sink = snapbuf_sink(&buf);
	struct tmem_snapshot s;

	begin();
	fill_many();
	CHECK_EQ(tmem_snapshot_save(client, NULL, &sink, &s), -ENOMEM);
	CHECK_EQ(nr_pages(store), 0);
	tmem_store_check(store);
	tmem_store_set_limit(store, 32u << 20);
	fill_many();
	tmem_store_set_limit(store, TMEM_STORE_MIN_BYTES);
	save(&(struct tmem_snapshot_options){ 0 }, &buf);
	/* There is no room for all of that twice. */
	{
		struct tmem_snapshot_fault fault;
		struct tmem_stats before = figures(store), after;

		CHECK_EQ(try_restore(store, NULL, &buf, &fault), -ENOMEM);
		after = figures(store);
		CHECK(memcmp(&before, &after, sizeof(after)) == 0);
	}
	snapbuf_free(&buf);
	end();
}

/* Through a pipe, by descriptors. */
static void *save_to(void *arg)
{
	struct tmem_snapshot_sink sink = { tmem_snapshot_write_fd, arg };
	struct tmem_snapshot s;

	CHECK_EQ(tmem_snapshot_save(client, NULL, &sink, &s), 0);
	return NULL;
}

static void a_pipe_will_do(void)
{
	struct tmem_store *other = open_one(32u << 20);
	struct tmem_backend b = tmem_store_backend(other);
	struct tmem_snapshot_source source;
	struct tmem_snapshot_fault fault;
	struct tmem_snapshot s;
	pthread_t thread;
	int fds[2];

	begin();
	fill(1);
	CHECK_EQ(pipe(fds), 0);
	source =
		(struct tmem_snapshot_source){ tmem_snapshot_read_fd, &fds[0] };
	CHECK_EQ(pthread_create(&thread, NULL, save_to, &fds[1]), 0);
	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(other), NULL,
				       &source, &s, &fault),
		 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	must_have(&b, s.pools[0].pool, 44, 45);
	close(fds[0]);
	close(fds[1]);
	/* A closed one is an error of ours, not of the stream. */
	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(other), NULL,
				       &source, &s, &fault),
		 -EBADF);
	tmem_store_close(other);
	end();
}

int main(void)
{
	RUN(a_full_one_comes_back_whole);
	RUN(every_form_travels_as_it_is);
	RUN(increments_follow_each_other);
	RUN(a_new_form_is_no_change);
	RUN(a_base_that_changed_is_refused);
	RUN(what_is_not_ours_is_told);
	RUN(a_client_travels_with_its_pools);
	RUN(a_shared_pool_is_joined);
	RUN(a_key_is_needed_and_the_right_one);
	RUN(a_stream_that_is_cut_short_is_refused);
	RUN(a_stream_that_is_damaged_is_refused);
	RUN(blocks_have_their_place);
	RUN(stores_go_on_meanwhile);
	RUN(a_pool_destroyed_meanwhile_is_saved);
	RUN(a_full_store_is_saved_or_it_fails);
	RUN(a_pipe_will_do);
	return 0;
}
