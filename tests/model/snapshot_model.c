/* SPDX-License-Identifier: MIT */
/*
 * Snapshots beside an oracle.  Random stores, invalidations, clones and
 * maintenance in one store; now and then it is saved, whole or what changed,
 * and while the stream is written more of these happen, from within the sink.
 * It is restored into another store, or the same, where it must hold what the
 * oracle held when the save was called: no page more, none less, none newer
 * (of ephemeral pools: none newer).  Streams are also damaged, cut short,
 * and broken off.
 *
 *	snapshot_model STEPS [SEED]
 */
#include <tmem/stats.h>
#include <tmem/store.h>

#include "core/compact.h"
#include "snapbuf.h"

enum {
	POOLS = 4,
	KEYS = 700,
	SAVE_EVERY = 400
};

struct pool {
	tmem_pool_id id; /* 0: not there */
	bool ephemeral;
	uint64_t tags[KEYS]; /* 0: no page */
};

/* A store and its snapshots; `there` is where `here` was restored to. */
static struct rng rng;
static struct tmem_store *store, *other;
static struct tmem_backend a, b;
static struct pool pools[POOLS], then[POOLS];
static uint64_t next_tag;
static struct tmem_snapshot here, there, now;
static bool has_here, calm;
static unsigned long counts[6];

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key % 9, key % 2 } },
				 .index = key * (key % 3 ? 1 : 0x10001),
				 .page = page };
}

static void make_pool(struct pool *p)
{
	struct tmem_pool_options o = { 0 };

	*p = (struct pool){ .ephemeral = rng_below(&rng, 3) == 0 };
	o.flags = p->ephemeral ? TMEM_POOL_EPHEMERAL : 0;
	CHECK_EQ(a.ops->pool_create(a.self, &o, &p->id), 0);
}

static void clone_pool(struct pool *p)
{
	const struct pool *from = &pools[rng_below(&rng, POOLS)];

	if (!from->id || from->ephemeral || from == p)
		return;
	*p = *from;
	CHECK_EQ(a.ops->pool_clone(a.self, from->id, &p->id), 0);
}

static void change_pool(struct pool *p)
{
	if (!p->id && rng_below(&rng, 2)) {
		make_pool(p);
	} else if (!p->id) {
		clone_pool(p);
	} else if (rng_below(&rng, 20) == 0) {
		CHECK_EQ(a.ops->pool_destroy(a.self, p->id), 0);
		*p = (struct pool){ 0 };
	}
}

static void change_page(struct pool *p)
{
	unsigned key = (unsigned)rng_below(&rng, KEYS);
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	if (!p->id)
		return;
	if (rng_below(&rng, 3)) {
		p->tags[key] = ++next_tag;
		page_fill(page, next_tag);
		CHECK_EQ(a.ops->store(a.self, p->id, &io, 1), 0);
		CHECK_EQ(io.result, 0);
	} else {
		CHECK_EQ(a.ops->invalidate(a.self, p->id, &io, 1), 0);
		CHECK_EQ(io.result, p->tags[key] ? 0 : TMEM_MISS);
		p->tags[key] = 0;
	}
}

static void load_page(struct pool *p)
{
	unsigned key = (unsigned)rng_below(&rng, KEYS);
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	if (!p->id)
		return;
	CHECK_EQ(a.ops->load(a.self, p->id, &io, 1), 0);
	CHECK_EQ(io.result, p->tags[key] ? 0 : TMEM_MISS);
	CHECK(io.result || page_is(page, p->tags[key]));
	if (p->ephemeral)
		p->tags[key] = 0;
}

static void drop_object(struct pool *p)
{
	unsigned key = (unsigned)rng_below(&rng, KEYS), i;
	struct tmem_object_id id = io_of(key, NULL).object;
	uint64_t nr;

	if (!p->id)
		return;
	CHECK_EQ(a.ops->invalidate_object(a.self, p->id, id, &nr), 0);
	for (i = 0; i < KEYS; i++) {
		struct tmem_io io = io_of(i, NULL);

		if (memcmp(&io.object, &id, sizeof(id)) == 0)
			p->tags[i] = 0;
	}
}

static void step(void)
{
	struct pool *p = &pools[rng_below(&rng, POOLS)];
	uint64_t what = rng_below(&rng, 300);

	if (what < 4)
		change_pool(p);
	else if (what < 6)
		drop_object(p);
	else if (what < 10)
		tmem_store_maintain(store, rng_below(&rng, 2000000));
	else if (what < 60)
		load_page(p);
	else
		change_page(p);
}

/* While the stream is written. */
static void meanwhile(void *arg)
{
	(void)arg;
	if (calm)
		return;
	for (uint64_t n = rng_below(&rng, 60); n; n--)
		step();
	if (rng_below(&rng, 20) == 0)
		tmem_store_check(store);
}

/* The oracle's pool of that number, as it was at the instant. */
static const struct pool *pool_then(tmem_pool_id id)
{
	for (unsigned i = 0; i < POOLS; i++)
		if (then[i].id == id)
			return &then[i];
	CHECK(!"a pool that there was");
	return NULL;
}

static void compare_pool(const struct tmem_backend *to,
			 const struct tmem_snapshot_pool *got, bool exact)
{
	const struct pool *p = pool_then(got->source);
	_Alignas(8) char page[PAGE];

	CHECK_EQ(got->flags, p->ephemeral ? TMEM_POOL_EPHEMERAL : 0);
	for (unsigned key = 0; key < KEYS; key++) {
		struct tmem_io io = io_of(key, page);

		CHECK_EQ(to->ops->load(to->self, got->pool, &io, 1), 0);
		CHECK(io.result == 0 || io.result == TMEM_MISS);
		if (io.result == 0)
			CHECK(p->tags[key] && page_is(page, p->tags[key]));
		else
			CHECK(!p->tags[key] || (p->ephemeral && !exact));
	}
}

static void destroy_all(const struct tmem_backend *of,
			const struct tmem_snapshot *s)
{
	for (unsigned i = 0; i < s->nr_pools; i++)
		CHECK_EQ(of->ops->pool_destroy(of->self, s->pools[i].pool), 0);
}

static uint64_t nr_pages(const struct tmem_backend *of)
{
	struct tmem_stats s;

	CHECK_EQ(of->ops->stats(of->self, &s), 0);
	return s.pages;
}

/* Damaged in one place, or cut short: refused, and nothing came. */
static void spoil(struct snapbuf *buf, const struct tmem_snapshot_options *o)
{
	struct tmem_snapshot_source source = snapbuf_source(buf);
	struct tmem_snapshot_fault fault;
	uint64_t before = nr_pages(&b);
	size_t at = rng_below(&rng, buf->nr), nr = buf->nr;
	struct tmem_snapshot s;
	int r;

	if (rng_below(&rng, 2))
		buf->nr = at;
	else
		buf->bytes[at] ^= (unsigned char)(1 + rng_below(&rng, 255));
	r = tmem_snapshot_restore(tmem_client_default(other), o, &source, &s,
				  &fault);
	CHECK(r < 0 && *fault.why && fault.offset <= at);
	CHECK_EQ(nr_pages(&b), before);
	if (rng_below(&rng, 8) == 0)
		tmem_store_check(other);
	counts[0]++;
	buf->nr = nr;
}

static void save(struct snapbuf *buf, struct tmem_snapshot_options *o)
{
	struct tmem_snapshot_sink sink = snapbuf_sink(buf);
	struct tmem_snapshot_options so = *o;
	unsigned i = (unsigned)rng_below(&rng, POOLS);
	int r;

	calm = rng_below(&rng, 4) == 0;
	so.since = has_here && rng_below(&rng, 4) ? &here : NULL;
	so.pool = rng_below(&rng, 3) ? 0 : pools[i].id;
	o->since = so.since ? &there : NULL;
	o->pool = so.pool;
	memcpy(then, pools, sizeof(then));
	r = tmem_snapshot_save(tmem_client_default(store), &so, &sink, &now);
	CHECK_EQ(r, buf->left || !buf->error ? 0 : buf->error);
	if (rng_below(&rng, 4) == 0)
		tmem_store_check(store);
	if (r < 0)
		o->since = NULL;
	counts[1] += r < 0;
}

static void restore(struct snapbuf *buf, const struct tmem_snapshot_options *o)
{
	struct tmem_snapshot_source source = snapbuf_source(buf);
	struct tmem_snapshot_fault fault;
	struct tmem_snapshot s;

	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(other), o, &source,
				       &s, &fault),
		 0);
	CHECK_EQ(s.pages, now.pages);
	CHECK_EQ(s.kept_pages, now.kept_pages);
	for (unsigned i = 0; i < s.nr_pools; i++)
		compare_pool(&b, &s.pools[i], calm && !o->since);
	if (o->pool) {
		destroy_all(&b, &s);
	} else {
		if (has_here)
			destroy_all(&b, &there);
		here = now;
		there = s;
		has_here = true;
	}
	if (rng_below(&rng, 8) == 0)
		tmem_store_check(other);
	counts[2]++;
	counts[3] += s.pages;
	counts[4] += s.kept_pages;
	counts[5] += o->since != NULL;
}

static void save_and_restore(void)
{
	static const char key[TMEM_SNAPSHOT_KEY_BYTES] = "model";
	struct tmem_snapshot_options o = { .key = rng_below(&rng, 3) ? NULL
								     : key };
	struct snapbuf buf = { .hook = meanwhile,
			       .piece = rng_below(&rng, 3) ? 0 : 5000 };

	if (rng_below(&rng, 6) == 0) {
		buf.left = 1 + rng_below(&rng, 12);
		buf.error = -EPIPE;
	}
	save(&buf, &o);
	/* It was to be broken off: was it? */
	if (buf.error && !buf.left) {
		snapbuf_free(&buf);
		return;
	}
	buf.left = 0;
	spoil(&buf, &o);
	snapbuf_free(&buf);
	save(&buf, &o);
	restore(&buf, &o);
	snapbuf_free(&buf);
}

int main(int argc, char **argv)
{
	unsigned long steps = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000;
	struct tmem_store_options o = { .limit_bytes = 64u << 20,
					.cool_after_ns = 1 };

	rng.state = seed_from(argc, argv, 2);
	CHECK_EQ(tmem_store_open(&o, &store), 0);
	CHECK_EQ(tmem_store_open(&o, &other), 0);
	tmem_compact_eagerly(store);
	tmem_compact_eagerly(other);
	a = tmem_store_backend(store);
	b = tmem_store_backend(other);
	for (unsigned long i = 1; i <= steps; i++) {
		step();
		if (i % SAVE_EVERY == 0)
			save_and_restore();
	}
	tmem_store_check(store);
	tmem_store_check(other);
	printf("%lu restored (%lu of them increments, %lu pages, %lu kept), "
	       "%lu broken off, %lu spoilt\n",
	       counts[2], counts[5], counts[3], counts[4], counts[1],
	       counts[0]);
	CHECK(steps < 20000 || (counts[1] && counts[4] && counts[5]));
	tmem_store_close(store);
	tmem_store_close(other);
	return 0;
}
