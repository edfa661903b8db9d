/* SPDX-License-Identifier: MIT */
/*
 * FIFO, LRU, CLOCK and SIEVE: one list each, newest page first.
 *
 *   FIFO   evicts the tail
 *   LRU    a hit moves the page to the head; evicts the tail
 *   CLOCK  a hit marks the page; a marked tail goes back to the head, unmarked
 *   SIEVE  a hit marks the page; a hand goes from tail to head, unmarks, and
 *          evicts the first unmarked page: nothing moves
 */
#include "evict_policy.h"

#include <assert.h>
#include <stdlib.h>

#include "evict_list.h"
#include "evict_trace.h"

struct evict_cache {
	struct evict_rules rules;
	struct evict_s3 *s3; /* then the rest is unused */
	uint32_t capacity;
	struct evict_node *nodes;
	struct evict_list list;
	uint32_t hand; /* of SIEVE; 0: begins at the tail */
};

struct evict_cache *evict_cache_create(const struct evict_rules *rules,
				       uint32_t nr_keys, uint32_t capacity)
{
	struct evict_cache *cache = evict_alloc(1, sizeof(*cache));

	assert(capacity);
	cache->rules = *rules;
	cache->capacity = capacity;
	if (rules->kind == EVICT_S3)
		cache->s3 = evict_s3_create(rules, nr_keys, capacity);
	else
		cache->nodes = evict_alloc((uint64_t)nr_keys + 1,
					   sizeof(*cache->nodes));
	return cache;
}

void evict_cache_destroy(struct evict_cache *cache)
{
	if (cache->s3)
		evict_s3_destroy(cache->s3);
	free(cache->nodes);
	free(cache);
}

bool evict_cache_get(struct evict_cache *cache, uint32_t key)
{
	uint32_t n = key + 1;

	if (cache->s3)
		return evict_s3_get(cache->s3, key);
	if (!cache->nodes[n].list)
		return false;
	cache->nodes[n].hits = 1;
	if (cache->rules.kind == EVICT_LRU) {
		evict_unlink(cache->nodes, &cache->list, n);
		evict_push(cache->nodes, &cache->list, n);
	}
	return true;
}

static void drop(struct evict_cache *cache, uint32_t n)
{
	if (cache->hand == n)
		cache->hand = cache->nodes[n].newer;
	evict_unlink(cache->nodes, &cache->list, n);
	cache->nodes[n].list = 0;
}

bool evict_cache_take(struct evict_cache *cache, uint32_t key)
{
	if (cache->s3)
		return evict_s3_take(cache->s3, key);
	if (!cache->nodes[key + 1].list)
		return false;
	drop(cache, key + 1);
	return true;
}

static void evict_clock(struct evict_cache *cache)
{
	uint32_t n = cache->list.tail;

	while (cache->nodes[n].hits) {
		cache->nodes[n].hits = 0;
		evict_unlink(cache->nodes, &cache->list, n);
		evict_push(cache->nodes, &cache->list, n);
		n = cache->list.tail;
	}
	drop(cache, n);
}

static void evict_sieve(struct evict_cache *cache)
{
	uint32_t n = cache->hand ? cache->hand : cache->list.tail;

	while (cache->nodes[n].hits) {
		cache->nodes[n].hits = 0;
		n = cache->nodes[n].newer;
		if (!n)
			n = cache->list.tail;
	}
	cache->hand = n;
	drop(cache, n);
}

void evict_cache_put(struct evict_cache *cache, uint32_t key)
{
	uint32_t n = key + 1;

	if (cache->s3) {
		evict_s3_put(cache->s3, key);
		return;
	}
	assert(!cache->nodes[n].list);
	if (cache->list.nr == cache->capacity) {
		if (cache->rules.kind == EVICT_CLOCK)
			evict_clock(cache);
		else if (cache->rules.kind == EVICT_SIEVE)
			evict_sieve(cache);
		else
			drop(cache, cache->list.tail);
	}
	cache->nodes[n].list = 1;
	cache->nodes[n].hits = 0;
	evict_push(cache->nodes, &cache->list, n);
}

uint32_t evict_run(const struct evict_stream *stream,
		   const struct evict_rules *rules, uint32_t capacity)
{
	struct evict_rules r = *rules;
	struct evict_cache *cache;
	uint32_t hits = 0, i;

	r.second_pool = stream->second_pool;
	cache = evict_cache_create(&r, stream->nr_keys, capacity);
	for (i = 0; i < stream->nr; i++) {
		uint32_t key = stream->keys[i];

		if (!stream->what) {
			if (evict_cache_get(cache, key))
				hits++;
			else
				evict_cache_put(cache, key);
		} else if (stream->what[i] == EVICT_TAKE) {
			hits += evict_cache_take(cache, key);
		} else {
			evict_cache_put(cache, key);
		}
	}
	evict_cache_destroy(cache);
	return hits;
}

void evict_stream_behind(const struct evict_stream *requests, uint32_t front,
			 struct evict_stream *ret_stream)
{
	struct evict_stream s = { .nr_keys = requests->nr_keys,
				  .second_pool = requests->second_pool };
	struct evict_node *nodes =
		evict_alloc((uint64_t)s.nr_keys + 1, sizeof(*nodes));
	struct evict_list list = { 0 };
	uint32_t i, n;

	s.keys = evict_alloc(2 * (uint64_t)requests->nr, sizeof(*s.keys));
	s.what = evict_alloc(2 * (uint64_t)requests->nr, 1);
	for (i = 0; i < requests->nr; i++) {
		n = requests->keys[i] + 1;
		if (nodes[n].list) {
			evict_unlink(nodes, &list, n);
		} else {
			s.what[s.nr] = EVICT_TAKE;
			s.keys[s.nr++] = n - 1;
			s.asked++;
		}
		nodes[n].list = 1;
		evict_push(nodes, &list, n);
		if (list.nr <= front)
			continue;
		n = list.tail;
		evict_unlink(nodes, &list, n);
		nodes[n].list = 0;
		s.what[s.nr] = EVICT_PUT;
		s.keys[s.nr++] = n - 1;
	}
	free(nodes);
	*ret_stream = s;
}
