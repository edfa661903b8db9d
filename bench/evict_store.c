/* SPDX-License-Identifier: MIT */
/* See evict_store.h. */
#include "evict_store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "evict_trace.h"

enum {
	WORDS = TMEM_PAGE_SIZE / 8,
	OBJECT_PAGES = 1024,
	LOOK_EVERY = 4096, /* events between two looks at how many it holds */
	TRIES = 3,	   /* to find the limit */
	NOISE_WORDS = 192, /* of a page's words; the rest is zeros */
	PAGE_BYTES = 1664  /* about what it takes then */
};

static uint64_t noise[2 * WORDS];

struct target {
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pool;
};

static void fail(const char *what)
{
	fprintf(stderr, "evict_bench: the store: %s\n", what);
	exit(1);
}

static void open_target(struct target *t, uint64_t limit_bytes, bool victim)
{
	const struct tmem_store_options o = { .limit_bytes = limit_bytes };
	struct tmem_pool_options p = { .flags = TMEM_POOL_EPHEMERAL,
				       .uuid = { 1, 2 } };
	struct tmem_client *client;

	if (tmem_store_open(&o, &t->store) < 0)
		fail("cannot be opened");
	client = tmem_client_default(t->store);
	if (!victim) {
		p.flags |= TMEM_POOL_SHARED;
		if (tmem_client_allow(client, p.uuid, 1) < 0)
			fail("does not allow a shared pool");
	}
	t->backend = tmem_client_backend(client);
	if (t->backend.ops->pool_create(t->backend.self, &p, &t->pool) != 0)
		fail("has no pool");
}

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){ .object = { { key / OBJECT_PAGES, 0, 0 } },
				 .index = key % OBJECT_PAGES,
				 .page = page };
}

/* A page of its own for each key, which LZ4 makes 2.6 times smaller. */
static void fill(uint64_t *page, uint32_t key)
{
	memcpy(page, noise + key % WORDS, NOISE_WORDS * sizeof(*page));
	page[0] = key;
}

static bool get(struct target *t, uint32_t key)
{
	static uint64_t page[WORDS], expected[WORDS];
	struct tmem_io io = io_of(key, page);

	t->backend.ops->load(t->backend.self, t->pool, &io, 1);
	if (io.result < 0)
		fail("cannot read a page");
	fill(expected, key);
	if (io.result == 0 && memcmp(page, expected, sizeof(page)) != 0)
		fail("gave back a wrong page");
	return io.result == 0;
}

static void put(struct target *t, uint32_t key)
{
	static uint64_t page[WORDS];
	struct tmem_io io = io_of(key, page);

	fill(page, key);
	/* It may refuse: then the next get misses. */
	t->backend.ops->store(t->backend.self, t->pool, &io, 1);
}

static uint64_t pages_of(struct target *t)
{
	struct tmem_stats s;

	t->backend.ops->stats(t->backend.self, &s);
	return s.ephemeral_pages;
}

static bool play(struct target *t, const struct evict_stream *s, uint32_t i)
{
	bool hit = false;

	if (!s->what || s->what[i] == EVICT_TAKE)
		hit = get(t, s->keys[i]);
	if (!hit && (!s->what || s->what[i] == EVICT_PUT))
		put(t, s->keys[i]);
	return hit;
}

static uint32_t run(const struct evict_stream *stream, uint64_t limit_bytes,
		    double *ret_pages)
{
	uint32_t hits = 0, looks = 0, i;
	double pages = 0;
	struct target t;

	open_target(&t, limit_bytes, stream->what);
	for (i = 0; i < stream->nr; i++) {
		hits += play(&t, stream, i);
		if (i % LOOK_EVERY == 0 && i >= stream->nr / 2) {
			pages += (double)pages_of(&t);
			looks++;
		}
	}
	*ret_pages = looks ? pages / looks : 0;
	tmem_store_check(t.store);
	tmem_store_close(t.store);
	return hits;
}

uint32_t evict_store_run(const struct evict_stream *stream, uint32_t capacity,
			 double *ret_pages)
{
	double limit = TMEM_STORE_MIN_BYTES + (double)capacity * PAGE_BYTES;
	struct evict_random random = { 1 };
	uint32_t hits = 0;
	unsigned i;

	for (i = 0; i < 2 * WORDS; i++)
		noise[i] = evict_mix(++random.state);
	for (i = 0; i < TRIES; i++) {
		hits = run(stream, (uint64_t)limit, ret_pages);
		if (fabs(*ret_pages - capacity) <= capacity / 100.0)
			break;
		limit += (capacity - *ret_pages) * PAGE_BYTES;
		if (limit < TMEM_STORE_MIN_BYTES)
			limit = TMEM_STORE_MIN_BYTES;
	}
	return hits;
}
