/* SPDX-License-Identifier: MIT */
/* The page store beside an oracle; see storemodel.h. */
#include "storemodel.h"

#include <stdatomic.h>
#include <sys/mman.h>

#include <tmem/client.h>
#include <tmem/stats.h>

#include "arena/map.h"
#include "base/seal.h"
#include "core/compact.h"
#include "core/near.h"
#include "core/tiering.h"
#include "fstest.h"
#include "testtier.h"

enum {
	POOLS = 4,
	OBJECTS = 6,
	INDEXES = 40,
	MAX_VECTOR = 8,
	RECENT = 200, /* pages */
	VECTOR_BYTES = MAX_VECTOR * 4096
};

enum kind {
	PERSISTENT = 0,
	EPHEMERAL,
	SHARED, /* by both clients */
	KINDS
};

struct pool {
	tmem_pool_id id; /* 0: not there */
	enum kind kind;
	uint64_t cells[OBJECTS][INDEXES]; /* the page's tag, 0: none */
};

struct storemodel {
	struct storemodel_options o;
	struct tmem_store *store;
	struct tmem_backend backend;
	struct tmem_client *other;
	struct pool pools[POOLS];
	tmem_pool_id stale; /* destroyed */
	uint64_t next_tag;
	bool tier_lies; /* reads from it may fail now */
	char *pages;
	int fd; /* of a restartable store */
};

/* The map seam. */

static struct {
	unsigned long left; /* until one fails, 0: never */
	int sticky;
	unsigned long struck;
	_Atomic uint64_t bytes;
} maps;

static void *map(size_t bytes, size_t align)
{
	void *start;

	if (maps.left && --maps.left == 0) {
		maps.struck++;
		maps.left = maps.sticky ? 1 : 0;
		return NULL;
	}
	start = tmem_map_kernel.map(bytes, align);
	if (start)
		atomic_fetch_add(&maps.bytes, bytes);
	return start;
}

static void unmap(void *start, size_t bytes)
{
	atomic_fetch_sub(&maps.bytes, bytes);
	tmem_map_kernel.unmap(start, bytes);
}

static void discard(void *start, size_t bytes)
{
	tmem_map_kernel.discard(start, bytes);
}

static const struct tmem_map_ops counted = {
	.map = map,
	.unmap = unmap,
	.discard = discard,
};

void storemodel_maps_arm(unsigned long n, int sticky)
{
	tmem_map = &counted;
	maps.left = n;
	maps.sticky = sticky;
	maps.struck = 0;
}

unsigned long storemodel_maps_struck(void)
{
	return maps.struck;
}

uint64_t storemodel_maps_bytes(void)
{
	return atomic_load(&maps.bytes);
}

/* Keys and pages. */

static struct tmem_object_id object_id(unsigned object)
{
	/* Ids that differ in one word only, and the extremes. */
	static const struct tmem_object_id ids[OBJECTS] = {
		{ { 0, 0, 0 } },
		{ { 1, 0, 0 } },
		{ { 0, 1, 0 } },
		{ { 0, 0, 1 } },
		{ { ~0ull, ~0ull, ~0ull } },
		{ { 0x123456789abcdefull, 7, 1ull << 63 } },
	};

	return ids[object];
}

static uint32_t index_of(unsigned i)
{
	/* Dense, then far apart, then the highest. */
	if (i < INDEXES / 2)
		return i;
	if (i < INDEXES - 4)
		return i * 0x01000193u;
	return UINT32_MAX - (INDEXES - 1 - i);
}

void storemodel_fill(void *page, uint64_t tag)
{
	struct rng rng = { tag };
	unsigned kind = (unsigned)(rng_next(&rng) % 8), random, i;
	uint64_t *w = page;

	/*
	 * 0: same-filled; 7: random; between: that share of random words.  Of
	 * every second kind the rest is what others have too.
	 */
	random = kind == 0 ? 0 : kind == 7 ? PAGE / 8 : PAGE / 8 * kind / 7;
	for (i = 0; i < PAGE / 8; i++) {
		struct rng common = { i + 1 };

		if (i < random)
			w[i] = rng_next(&rng);
		else
			w[i] = kind % 2 ? rng_next(&common) : tag;
	}
	if (kind)
		w[PAGE / 8 - 1] = ~tag;
}

static uint32_t draw(struct storemodel *m, uint32_t below)
{
	return m->o.draw(m->o.arg) % below;
}

static struct pool *draw_pool(struct storemodel *m)
{
	return &m->pools[draw(m, POOLS)];
}

/* An element of a vector and the cell that it is about. */
static uint64_t *draw_key(struct storemodel *m, struct pool *pool,
			  struct tmem_io *io, unsigned slot)
{
	unsigned object = draw(m, OBJECTS), index = draw(m, INDEXES);

	io->object = object_id(object);
	io->index = index_of(index);
	io->page = m->pages + (size_t)slot * PAGE;
	io->result = -1;
	return &pool->cells[object][index];
}

/* Who operates on a pool: of a shared one, either client. */
static struct tmem_backend draw_backend(struct storemodel *m,
					const struct pool *pool)
{
	if (pool->kind == SHARED && draw(m, 2))
		return tmem_client_backend(m->other);
	return m->backend;
}

/* Steps. */

static void store_step(struct storemodel *m, struct pool *pool)
{
	struct tmem_backend be = draw_backend(m, pool);
	struct tmem_io io[MAX_VECTOR];
	uint64_t *cells[MAX_VECTOR], tags[MAX_VECTOR];
	unsigned nr = 1 + draw(m, MAX_VECTOR), i;
	uint64_t held = tmem_store_held_bytes(m->store);
	struct tmem_stats s;
	uint64_t after;

	m->backend.ops->stats(m->backend.self, &s);
	for (i = 0; i < nr; i++) {
		cells[i] = draw_key(m, pool, &io[i], i);
		/* Now and then a page that was stored before. */
		tags[i] = ++m->next_tag;
		if (draw(m, 4) == 0)
			tags[i] = 1 + draw(m, (uint32_t)m->next_tag);
		/* Or one that probably is there. */
		else if (m->next_tag > RECENT && draw(m, 4) == 0)
			tags[i] = m->next_tag - draw(m, RECENT);
		storemodel_fill(io[i].page, tags[i]);
	}
	CHECK_EQ(be.ops->store(be.self, pool->id, io, nr), 0);
	for (i = 0; i < nr; i++) {
		CHECK(io[i].result == 0 || io[i].result == TMEM_REFUSED);
		*cells[i] = io[i].result == 0 ? tags[i] : 0;
		if (i == 0 && held > s.limit_bytes)
			CHECK_EQ(io[i].result, TMEM_REFUSED);
	}
	after = tmem_store_held_bytes(m->store);
	CHECK(after <= s.limit_bytes || after <= held);
}

/* An ephemeral page may be gone; a private one is, once it was loaded. */
static void check_load(const struct storemodel *m, const struct pool *pool,
		       struct tmem_io *io, uint64_t *cell)
{
	_Alignas(8) char want[PAGE];
	uint64_t tag = *cell;

	if (pool->kind != PERSISTENT && io->result == TMEM_MISS)
		tag = *cell = 0;
	if (pool->kind == EPHEMERAL)
		*cell = 0;
	if (io->result == -EIO && tag && m->tier_lies &&
	    pool->kind == PERSISTENT)
		tag = 0; /* it is there, and can't be had now */
	else
		CHECK_EQ(io->result, tag ? 0 : TMEM_MISS);
	if (tag)
		storemodel_fill(want, tag);
	else
		memset(want, 0x5a, PAGE);
	CHECK(memcmp(io->page, want, PAGE) == 0);
}

static void load_step(struct storemodel *m, struct pool *pool)
{
	struct tmem_backend be = draw_backend(m, pool);
	struct tmem_io io[MAX_VECTOR];
	uint64_t *cells[MAX_VECTOR];
	unsigned nr = 1 + draw(m, MAX_VECTOR), i;

	memset(m->pages, 0x5a, VECTOR_BYTES);
	for (i = 0; i < nr; i++)
		cells[i] = draw_key(m, pool, &io[i], i);
	CHECK_EQ(be.ops->load(be.self, pool->id, io, nr), 0);
	for (i = 0; i < nr; i++)
		check_load(m, pool, &io[i], cells[i]);
}

static void invalidate_step(struct storemodel *m, struct pool *pool)
{
	struct tmem_backend be = draw_backend(m, pool);
	struct tmem_io io[MAX_VECTOR];
	uint64_t *cells[MAX_VECTOR];
	unsigned nr = 1 + draw(m, MAX_VECTOR), i;

	for (i = 0; i < nr; i++)
		cells[i] = draw_key(m, pool, &io[i], i);
	CHECK_EQ(be.ops->invalidate(be.self, pool->id, io, nr), 0);
	for (i = 0; i < nr; i++) {
		if (pool->kind == PERSISTENT || !*cells[i])
			CHECK_EQ(io[i].result, *cells[i] ? 0 : TMEM_MISS);
		*cells[i] = 0;
	}
}

static void object_step(struct storemodel *m, struct pool *pool)
{
	unsigned object = draw(m, OBJECTS), i;
	uint64_t want = 0, pages = ~0ull;

	for (i = 0; i < INDEXES; i++) {
		want += pool->cells[object][i] != 0;
		pool->cells[object][i] = 0;
	}
	CHECK_EQ(m->backend.ops->invalidate_object(m->backend.self, pool->id,
						   object_id(object), &pages),
		 0);
	CHECK(pages == want || (pool->kind != PERSISTENT && pages < want));
}

static void create_pool(struct storemodel *m, struct pool *pool)
{
	struct tmem_pool_options o = { .uuid = { 7, 0 } };
	struct tmem_backend be = tmem_client_backend(m->other);
	const struct tmem_backend_ops *ops = m->backend.ops;
	tmem_pool_id joined;

	pool->kind = (enum kind)draw(m, KINDS);
	o.uuid[1] = (uint64_t)(pool - m->pools);
	if (pool->kind != PERSISTENT)
		o.flags |= TMEM_POOL_EPHEMERAL;
	if (pool->kind == SHARED)
		o.flags |= TMEM_POOL_SHARED;
	if (ops->pool_create(m->backend.self, &o, &pool->id) != 0) {
		/* Its queues need a page, or its slot does. */
		CHECK(pool->kind != PERSISTENT || m->o.restartable);
		*pool = (struct pool){ 0 };
		return;
	}
	if (pool->kind != SHARED)
		return;
	if (be.ops->pool_create(be.self, &o, &joined) != 0) {
		CHECK(m->o.restartable);
		CHECK_EQ(ops->pool_destroy(m->backend.self, pool->id), 0);
		*pool = (struct pool){ 0 };
		return;
	}
	CHECK_EQ(joined, pool->id);
}

/* One of its clients after the other; the pages of the first go with it. */
static void destroy_pool(struct storemodel *m, struct pool *pool)
{
	struct tmem_backend be = tmem_client_backend(m->other);

	CHECK_EQ(be.ops->pool_destroy(be.self, pool->id),
		 pool->kind == SHARED ? 0 : -ENOENT);
	CHECK_EQ(m->backend.ops->pool_destroy(m->backend.self, pool->id), 0);
}

/* A pool comes, goes, or is cloned into a place that is free. */
static void pool_step(struct storemodel *m)
{
	const struct tmem_backend_ops *ops = m->backend.ops;
	struct pool *pool = draw_pool(m), *from = draw_pool(m);
	tmem_pool_id id = 0;
	int r;

	if (pool->id) {
		destroy_pool(m, pool);
		m->stale = pool->id;
		*pool = (struct pool){ 0 };
	} else if (from->id) {
		r = ops->pool_clone(m->backend.self, from->id, &id);
		if (from->kind != PERSISTENT)
			CHECK_EQ(r, -EINVAL);
		else
			CHECK(r == 0 || (r == -ENOMEM && !id));
		if (r == 0) {
			*pool = *from;
			pool->id = id;
		}
	} else {
		create_pool(m, pool);
	}
}

/* A pool that is gone answers nothing. */
static void stale_step(struct storemodel *m)
{
	const struct tmem_backend_ops *ops = m->backend.ops;
	struct tmem_io io = { .object = object_id(0), .page = m->pages };
	tmem_pool_id id;
	uint64_t pages;

	if (!m->stale)
		return;
	CHECK_EQ(ops->store(m->backend.self, m->stale, &io, 1), -ENOENT);
	CHECK_EQ(io.result, -ENOENT);
	CHECK_EQ(ops->load(m->backend.self, m->stale, &io, 1), -ENOENT);
	CHECK_EQ(ops->invalidate(m->backend.self, m->stale, &io, 1), -ENOENT);
	CHECK_EQ(ops->invalidate_object(m->backend.self, m->stale, io.object,
					&pages),
		 -ENOENT);
	CHECK_EQ(ops->pool_clone(m->backend.self, m->stale, &id), -ENOENT);
	CHECK_EQ(ops->pool_destroy(m->backend.self, m->stale), -ENOENT);
}

static void limit_step(struct storemodel *m)
{
	uint64_t span = m->o.max_limit_bytes - TMEM_STORE_MIN_BYTES;
	uint64_t limit = TMEM_STORE_MIN_BYTES + span * draw(m, 1024) / 1023;
	struct tmem_stats s;
	int r;

	CHECK_EQ(tmem_store_set_limit(m->store, limit), 0);
	m->backend.ops->stats(m->backend.self, &s);
	CHECK(s.held_bytes <= limit || !s.ephemeral_pages);
	while (tmem_store_maintain(m->store, 1000000000))
		;
	r = tmem_client_set_weight(m->other, 1 + draw(m, 1000));
	CHECK(r == 0 || (m->o.restartable && r == -ENOMEM));
	CHECK_EQ(tmem_store_set_limit(m->store, m->o.max_limit_bytes + 1),
		 -EINVAL);
	CHECK_EQ(tmem_store_set_limit(m->store, TMEM_STORE_MIN_BYTES - 1),
		 -EINVAL);
}

static int open_store(struct storemodel *m)
{
	struct tmem_store_options o = {
		.limit_bytes = m->o.limit_bytes,
		.max_limit_bytes = m->o.max_limit_bytes,
		.no_raw = m->o.no_raw,
		.cool_after_ns = 1, /* in every second round */
		.dict_every_ns = 1,
		.arena_fd = m->o.restartable ? &m->fd : NULL,
	};
	int r = tmem_store_open(&o, &m->store);

	if (r < 0)
		return r;
	m->backend = tmem_store_backend(m->store);
	tmem_compact_eagerly(m->store);
	return 0;
}

/* Everything is there again. */
static void restart(struct storemodel *m)
{
	struct tmem_stats before, after;
	bool copies = tmem_sweep_is_on(m->store); /* that may be unused */

	m->backend.ops->stats(m->backend.self, &before);
	tmem_store_close(m->store);
	CHECK_EQ(open_store(m), 0);
	CHECK_EQ(tmem_client_find(m->store, 1, &m->other), 0);
	m->backend.ops->stats(m->backend.self, &after);
	CHECK_EQ(after.recovered, before.pages);
	CHECK_EQ(after.pages, before.pages);
	CHECK_EQ(after.ephemeral_pages, before.ephemeral_pages);
	CHECK(after.slot_bytes == before.slot_bytes ||
	      (copies && after.slot_bytes < before.slot_bytes));
	CHECK(after.stored_bytes == before.stored_bytes ||
	      (copies && after.stored_bytes < before.stored_bytes));
	CHECK_EQ(after.lz4_dict_pages, before.lz4_dict_pages);
	CHECK_EQ(after.zstd_dict_pages, before.zstd_dict_pages);
	CHECK(after.dicts <= before.dicts); /* what nobody needed goes */
	CHECK_EQ(after.recover_torn + after.recover_stale, 0);
}

/* What a fork does to a store, but for the fork. */
static void fork_step(struct storemodel *m)
{
	struct pool *pool = draw_pool(m);
	unsigned what = draw(m, 4);

	if (what && m->o.restartable) {
		restart(m);
		return;
	}
	if (what == 0) {
		if (!m->o.restartable)
			tmem_store_thaw(m->store);
		tmem_store_maintain(m->store, draw(m, 2) ? 0 : 1000000);
		return;
	}
	tmem_store_before_fork(m->store);
	/* Loads of ephemeral pages, and from a tier, wait until it is over. */
	if (pool->id && pool->kind == PERSISTENT && !m->o.tier)
		load_step(m, pool);
	tmem_store_after_fork(m->store, what != 1);
}

/* Its next mood: one trouble or none; and some time to move pages. */
static void tier_step(struct storemodel *m)
{
	struct testtier_mood mood = { 0 };
	unsigned *const troubles[] = { &mood.write_error,   &mood.write_full,
				       &mood.write_timeout, &mood.busy,
				       &mood.slow,	    &mood.read_error,
				       &mood.read_garbage };
	unsigned what = draw(m, 12);

	if (what < sizeof(troubles) / sizeof(troubles[0]))
		*troubles[what] = 1 + draw(m, 1000);
	mood.hold = what == 7;
	m->tier_lies = mood.read_error || mood.read_garbage;
	testtier_set(m->o.tier, &mood);
	tmem_store_maintain(m->store, draw(m, 2) ? 100000 : 20000000);
	/* Loads wait for it. */
	mood.hold = false;
	testtier_set(m->o.tier, &mood);
}

/* Some steps of compaction, not all that there is to do. */
static void maintain_step(struct storemodel *m)
{
	unsigned n;

	for (n = 1 + draw(m, 16); n; n--)
		tmem_store_maintain(m->store, 0);
}

void storemodel_step(struct storemodel *m)
{
	uint32_t what = draw(m, 1024);
	struct pool *pool = draw_pool(m);

	if (m->o.tier && draw(m, 40) == 0)
		tier_step(m);
	if (what >= 1021)
		limit_step(m);
	else if (what >= 1015)
		fork_step(m);
	else if (what >= 1013)
		stale_step(m);
	else if (what >= 1011 || !pool->id)
		pool_step(m);
	else if (what >= 1007)
		object_step(m, pool);
	else if (what >= 900)
		invalidate_step(m, pool);
	else if (what >= 500)
		load_step(m, pool);
	else if (what >= 492)
		maintain_step(m);
	else
		store_step(m, pool);
}

/* Every cell of a pool, one by one. */
static uint64_t check_pool(struct storemodel *m, struct pool *pool)
{
	struct tmem_io io = { .page = m->pages };
	unsigned object, index;
	uint64_t pages = 0;

	for (object = 0; object < OBJECTS; object++)
		for (index = 0; index < INDEXES; index++) {
			io.object = object_id(object);
			io.index = index_of(index);
			memset(m->pages, 0x5a, PAGE);
			CHECK_EQ(m->backend.ops->load(m->backend.self, pool->id,
						      &io, 1),
				 0);
			check_load(m, pool, &io, &pool->cells[object][index]);
			pages += pool->kind == PERSISTENT &&
				 pool->cells[object][index] != 0;
		}
	return pages;
}

void storemodel_check(struct storemodel *m)
{
	uint64_t pages = 0, pools = 0;
	struct tmem_stats s;
	unsigned i;

	if (m->o.tier) {
		testtier_set(m->o.tier, &(struct testtier_mood){ 0 });
		m->tier_lies = false;
	}
	tmem_store_check(m->store);
	for (i = 0; i < POOLS; i++)
		if (m->pools[i].id) {
			pages += check_pool(m, &m->pools[i]);
			pools++;
		}
	CHECK_EQ(m->backend.ops->stats(m->backend.self, &s), 0);
	CHECK_EQ(s.pages - s.ephemeral_pages, pages);
	CHECK_EQ(s.pools, pools);
	CHECK_EQ(s.pages, s.same_pages + s.lz4_pages + s.raw_pages +
				  s.zstd_pages + s.lz4_dict_pages +
				  s.zstd_dict_pages + s.tier_pages +
				  s.ref_pages);
	if (m->o.no_raw)
		CHECK_EQ(s.raw_pages, 0);
	CHECK_EQ(s.held_bytes, tmem_store_held_bytes(m->store));
}

struct tmem_store *storemodel_store(struct storemodel *m)
{
	return m->store;
}

/* False: no memory. */
static bool add_tier(struct storemodel *m)
{
	struct tmem_seal_key key;
	struct tmem_seal *seal = NULL;
	int r;

	CHECK_EQ(tmem_seal_draw(&key), 0);
	CHECK_EQ(tmem_seal_create(&key, &seal), 0);
	r = tmem_tiering_attach(m->store, &testtier_ops, m->o.tier, seal);
	if (r < 0) {
		CHECK_EQ(r, -ENOMEM);
		testtier_ops.close(m->o.tier);
		tmem_seal_destroy(seal);
		return false;
	}
	m->store->tiering->rest_step_ns = 0;
	m->store->tiering->backoff_step_ns = 1;
	return true;
}

struct storemodel *storemodel_open(const struct storemodel_options *options)
{
	struct storemodel *m = calloc(1, sizeof(*m));
	int r;

	CHECK(m != NULL);
	tmem_near_from_bytes = 0; /* as large stores do it */
	m->o = *options;
	m->fd = options->restartable ? memfd_create("model", MFD_CLOEXEC) : -1;
	m->pages = aligned_alloc(PAGE, VECTOR_BYTES);
	CHECK(m->pages != NULL);
	r = open_store(m);
	if (r < 0) {
		CHECK_EQ(r, -ENOMEM);
		if (m->fd >= 0)
			close(m->fd);
		if (m->o.tier)
			testtier_ops.close(m->o.tier);
		free(m->pages);
		free(m);
		return NULL;
	}
	if (m->o.tier && !add_tier(m)) {
		storemodel_close(m);
		return NULL;
	}
	CHECK_EQ(tmem_client_create(m->store, 300, &m->other), 0);
	for (r = 0; r < POOLS; r++) {
		uint64_t uuid[2] = { 7, (uint64_t)r };

		CHECK_EQ(tmem_client_allow(tmem_client_default(m->store), uuid,
					   1),
			 0);
		CHECK_EQ(tmem_client_allow(m->other, uuid, 1), 0);
	}
	return m;
}

void storemodel_close(struct storemodel *m)
{
	tmem_store_close(m->store);
	if (m->fd >= 0)
		close(m->fd);
	free(m->pages);
	free(m);
}
