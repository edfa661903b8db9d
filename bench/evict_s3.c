/* SPDX-License-Identifier: MIT */
/*
 * S3-FIFO, as its paper has it, and as the store can have it.
 *
 * A new page goes to the small list, or to main if the ghost remembers it.
 * If small is more than its part of the cache, its tail goes to main if it was
 * hit `promote` times, else it is evicted and noted in the ghost.  Else main's
 * tail goes back to its head, with a hit less, until one has no hits.
 *
 * In the store each shard has lists of its own; blocks of 16 neighbouring keys
 * fall into the same.  With EVICT_TURN the shards give up pages in turn, each
 * in proportion to what it holds; a shard's turn is about 16 pages, so that
 * its lock is taken once for so many, but at most 1/64 of a small shard's.
 *
 * With `adapt`, small's part of the cache grows by a hundredth of it when its
 * pages were hit more often than main's, each as a mean of all its pages, and
 * shrinks likewise, down to small_percent; hits count half as much each time.
 */
#include "evict_policy.h"

#include <assert.h>
#include <stdlib.h>

#include "evict_ghost.h"
#include "evict_list.h"
#include "evict_trace.h"

enum {
	SMALL = 1,
	MAIN = 2,
	MAX_HITS = 3,
	BLOCK = 16,
	TURN = 16,
	TURN_PART = 64, /* of a shard */
	SMALL_PERCENT_MAX = 90
};

struct shard {
	struct evict_list small;
	struct evict_list main;
};

struct evict_s3 {
	struct evict_rules rules;
	uint32_t capacity;
	uint32_t nr;
	struct evict_node *nodes;
	struct shard *shards;
	struct evict_ghost ghost;
	uint32_t small_percent;	 /* now */
	uint32_t evictions;	 /* since small_percent was looked at */
	uint64_t hits[MAIN + 1]; /* by list */
	uint32_t turn; /* pages that a shard of mean size gives up in turn */
	uint32_t hand; /* the shard whose turn it is */
	uint64_t due;  /* pages by `nr` that are left of its turn */
};

struct evict_s3 *evict_s3_create(const struct evict_rules *rules,
				 uint32_t nr_keys, uint32_t capacity)
{
	struct evict_s3 *s3 = evict_alloc(1, sizeof(*s3));

	s3->rules = *rules;
	if (!rules->nr_shards)
		s3->rules.nr_shards = 1;
	s3->capacity = capacity;
	s3->small_percent = rules->small_percent;
	s3->turn = capacity / s3->rules.nr_shards / TURN_PART + 1;
	if (s3->turn > TURN)
		s3->turn = TURN;
	s3->nodes = evict_alloc((uint64_t)nr_keys + 1, sizeof(*s3->nodes));
	s3->shards = evict_alloc(s3->rules.nr_shards, sizeof(*s3->shards));
	evict_ghost_init(&s3->ghost, nr_keys,
			 (uint64_t)capacity * rules->ghost_percent / 100,
			 rules->table_percent);
	return s3;
}

void evict_s3_destroy(struct evict_s3 *s3)
{
	evict_ghost_fini(&s3->ghost);
	free(s3->nodes);
	free(s3->shards);
	free(s3);
}

static struct shard *shard_of(const struct evict_s3 *s3, uint32_t key)
{
	return &s3->shards[evict_mix(key / BLOCK + 1) % s3->rules.nr_shards];
}

static uint32_t pages(const struct shard *shard)
{
	return shard->small.nr + shard->main.nr;
}

static void push(struct evict_s3 *s3, struct shard *shard, uint32_t n,
		 uint8_t list)
{
	s3->nodes[n].list = list;
	evict_push(s3->nodes, list == MAIN ? &shard->main : &shard->small, n);
}

static void pull(struct evict_s3 *s3, struct shard *shard, uint32_t n)
{
	evict_unlink(s3->nodes,
		     s3->nodes[n].list == MAIN ? &shard->main : &shard->small,
		     n);
	s3->nodes[n].list = 0;
}

bool evict_s3_get(struct evict_s3 *s3, uint32_t key)
{
	struct evict_node *node = &s3->nodes[key + 1];

	if (!node->list)
		return false;
	s3->hits[node->list]++;
	if (node->hits < MAX_HITS)
		node->hits++;
	return true;
}

bool evict_s3_take(struct evict_s3 *s3, uint32_t key)
{
	struct evict_node *node = &s3->nodes[key + 1];
	unsigned hits = 0;

	if (!node->list)
		return false;
	if (s3->rules.taken == EVICT_COUNT && node->list == MAIN)
		hits = node->hits < MAX_HITS ? node->hits + 1u : MAX_HITS;
	s3->hits[node->list]++;
	pull(s3, shard_of(s3, key), key + 1);
	s3->nr--;
	if (s3->rules.taken != EVICT_FORGET)
		evict_ghost_note(&s3->ghost, key, hits);
	return true;
}

/* Moves one page on, or evicts it: then true. */
static bool step(struct evict_s3 *s3, struct shard *shard, bool last)
{
	bool small = shard->small.nr &&
		     (!shard->main.nr ||
		      (uint64_t)shard->small.nr * 100 >=
			      (uint64_t)pages(shard) * s3->small_percent);
	uint32_t n = small ? shard->small.tail : shard->main.tail;
	struct evict_node *node = &s3->nodes[n];

	pull(s3, shard, n);
	if (!last && small && node->hits >= s3->rules.promote) {
		node->hits = 0;
		push(s3, shard, n, MAIN);
		return false;
	}
	if (!last && !small && node->hits) {
		node->hits--;
		push(s3, shard, n, MAIN);
		return false;
	}
	s3->nr--;
	if (small)
		evict_ghost_note(&s3->ghost, n - 1, 0);
	return true;
}

/* The shard that must give up a page; `own`: the one that gets one. */
static struct shard *choose(struct evict_s3 *s3, struct shard *own)
{
	if (s3->rules.spread == EVICT_OWN && pages(own))
		return own;
	while (s3->due < s3->nr || !pages(&s3->shards[s3->hand])) {
		s3->hand = (s3->hand + 1) % s3->rules.nr_shards;
		s3->due += (uint64_t)pages(&s3->shards[s3->hand]) *
			   s3->rules.nr_shards * s3->turn;
	}
	s3->due -= s3->nr;
	return &s3->shards[s3->hand];
}

static void adapt(struct evict_s3 *s3)
{
	uint64_t small = 0, main = 0;
	uint32_t i;

	if ((uint64_t)++s3->evictions * s3->rules.adapt < s3->capacity)
		return;
	for (i = 0; i < s3->rules.nr_shards; i++) {
		small += s3->shards[i].small.nr;
		main += s3->shards[i].main.nr;
	}
	if (s3->hits[SMALL] * main > s3->hits[MAIN] * small) {
		if (s3->small_percent < SMALL_PERCENT_MAX)
			s3->small_percent++;
	} else if (s3->small_percent > s3->rules.small_percent) {
		s3->small_percent--;
	}
	s3->hits[SMALL] /= 2;
	s3->hits[MAIN] /= 2;
	s3->evictions = 0;
}

static void evict(struct evict_s3 *s3, struct shard *own)
{
	struct shard *shard = choose(s3, own);
	unsigned moves = 0;

	if (s3->rules.adapt)
		adapt(s3);

	while (!step(s3, shard, moves && moves == s3->rules.max_moves))
		moves++;
}

void evict_s3_put(struct evict_s3 *s3, uint32_t key)
{
	struct evict_node *node = &s3->nodes[key + 1];
	struct shard *shard = shard_of(s3, key);
	unsigned hits = 0;
	bool known;

	assert(!node->list);
	known = evict_ghost_recall(&s3->ghost, key, &hits);
	while (s3->nr >= s3->capacity)
		evict(s3, shard);
	node->hits = (uint8_t)hits;
	s3->nr++;
	push(s3, shard, key + 1, known ? MAIN : SMALL);
}
