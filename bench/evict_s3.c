/* SPDX-License-Identifier: MIT */
/*
 * S3-FIFO, as its paper has it, and as the store can have it.
 *
 * A new page goes to the small list, or to main if the ghost remembers it.
 * If small has its part of the cache or more, its tail goes to main if it was
 * hit `promote` times, else it is evicted and noted in the ghost.  Else main's
 * tail goes back to its head, with a hit less, until one has no hits.
 *
 * In the store each shard has lists of its own for each pool; blocks of 16
 * neighbouring keys fall into the same shard.  With EVICT_TURN these *pairs* of
 * lists together do what one would: whether small or main must give is decided
 * by the sums, then pairs give in turn, each in proportion to what it has of
 * that list, so that pages grow equally old in all.  A turn is about 16 pages,
 * so that a shard's lock is taken once for so many, but at most 1/64 of a list
 * of mean length.
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

/* By list number; [0] has the sums of both. */
struct pair {
	struct evict_list lists[MAIN + 1];
};

/* Whose turn it is to give up pages of a list. */
struct turn {
	uint32_t hand;
	uint64_t due; /* what is left of it: pages, by the sum's pages */
};

struct evict_s3 {
	struct evict_rules rules;
	uint32_t capacity;
	uint32_t nr[MAIN + 1]; /* by list; [0]: of both */
	struct evict_node *nodes;
	struct pair *pairs;
	uint32_t nr_pairs;
	struct evict_ghost ghost;
	uint32_t small_percent;	 /* now */
	uint32_t evictions;	 /* since small_percent was looked at */
	uint64_t hits[MAIN + 1]; /* by list */
	struct turn turns[MAIN + 1];
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
	s3->nodes = evict_alloc((uint64_t)nr_keys + 1, sizeof(*s3->nodes));
	s3->nr_pairs = s3->rules.nr_shards * (rules->two_pools ? 2 : 1);
	s3->pairs = evict_alloc(s3->nr_pairs, sizeof(*s3->pairs));
	evict_ghost_init(&s3->ghost, nr_keys,
			 (uint64_t)capacity * rules->ghost_percent / 100,
			 rules->table_percent);
	return s3;
}

void evict_s3_destroy(struct evict_s3 *s3)
{
	evict_ghost_fini(&s3->ghost);
	free(s3->nodes);
	free(s3->pairs);
	free(s3);
}

static struct pair *pair_of(const struct evict_s3 *s3, uint32_t key)
{
	uint32_t pair =
		(uint32_t)(evict_mix(key / BLOCK + 1) % s3->rules.nr_shards);

	if (s3->rules.two_pools && key >= s3->rules.second_pool)
		pair += s3->rules.nr_shards;
	return &s3->pairs[pair];
}

static void push(struct evict_s3 *s3, struct pair *pair, uint32_t n,
		 uint8_t list)
{
	s3->nodes[n].list = list;
	evict_push(s3->nodes, &pair->lists[list], n);
	pair->lists[0].nr++;
	s3->nr[list]++;
	s3->nr[0]++;
}

static void pull(struct evict_s3 *s3, struct pair *pair, uint32_t n)
{
	uint8_t list = s3->nodes[n].list;

	evict_unlink(s3->nodes, &pair->lists[list], n);
	s3->nodes[n].list = 0;
	pair->lists[0].nr--;
	s3->nr[list]--;
	s3->nr[0]--;
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
	pull(s3, pair_of(s3, key), key + 1);
	if (s3->rules.taken != EVICT_FORGET)
		evict_ghost_note(&s3->ghost, key, hits);
	return true;
}

/* Moves one page on, or evicts it: then true. */
static bool step(struct evict_s3 *s3, struct pair *pair, uint8_t list,
		 bool last)
{
	uint32_t n = pair->lists[list].tail;
	struct evict_node *node = &s3->nodes[n];

	pull(s3, pair, n);
	if (!last && list == SMALL && node->hits >= s3->rules.promote) {
		node->hits = 0;
		push(s3, pair, n, MAIN);
		return false;
	}
	if (!last && list == MAIN && node->hits) {
		node->hits--;
		push(s3, pair, n, MAIN);
		return false;
	}
	if (list == SMALL)
		evict_ghost_note(&s3->ghost, n - 1, 0);
	return true;
}

/* Which list must give, of so many pages in small and in main. */
static uint8_t give(const struct evict_s3 *s3, uint64_t small, uint64_t main)
{
	if (!main ||
	    (small && small * 100 >= (small + main) * s3->small_percent))
		return SMALL;
	return MAIN;
}

/* The pair whose turn it is to give of this list; 0: of both. */
static struct pair *take_turn(struct evict_s3 *s3, unsigned list)
{
	struct turn *turn = &s3->turns[list];
	uint32_t length = s3->nr[list] / s3->nr_pairs / TURN_PART + 1;

	if (length > TURN)
		length = TURN;
	while (turn->due < s3->nr[list] ||
	       !s3->pairs[turn->hand].lists[list].nr) {
		turn->hand = (turn->hand + 1) % s3->nr_pairs;
		turn->due += (uint64_t)s3->pairs[turn->hand].lists[list].nr *
			     s3->nr_pairs * length;
	}
	turn->due -= s3->nr[list];
	return &s3->pairs[turn->hand];
}

/* The pair and the list that must give; `own`: the pair that gets a page. */
static struct pair *choose(struct evict_s3 *s3, struct pair *own,
			   uint8_t *ret_list)
{
	struct pair *pair = own;

	if (s3->rules.spread == EVICT_TURN) {
		*ret_list = give(s3, s3->nr[SMALL], s3->nr[MAIN]);
		return take_turn(s3, *ret_list);
	}
	if (s3->rules.spread == EVICT_EACH || !own->lists[0].nr)
		pair = take_turn(s3, 0);
	*ret_list = give(s3, pair->lists[SMALL].nr, pair->lists[MAIN].nr);
	return pair;
}

static void adapt(struct evict_s3 *s3)
{
	if ((uint64_t)++s3->evictions * s3->rules.adapt < s3->capacity)
		return;
	if (s3->hits[SMALL] * s3->nr[MAIN] > s3->hits[MAIN] * s3->nr[SMALL]) {
		if (s3->small_percent < SMALL_PERCENT_MAX)
			s3->small_percent++;
	} else if (s3->small_percent > s3->rules.small_percent) {
		s3->small_percent--;
	}
	s3->hits[SMALL] /= 2;
	s3->hits[MAIN] /= 2;
	s3->evictions = 0;
}

static void evict(struct evict_s3 *s3, struct pair *own)
{
	unsigned moves = 0;
	struct pair *pair;
	uint8_t list;

	if (s3->rules.adapt)
		adapt(s3);
	do
		pair = choose(s3, own, &list);
	while (!step(s3, pair, list,
		     s3->rules.max_moves && moves++ == s3->rules.max_moves));
}

void evict_s3_put(struct evict_s3 *s3, uint32_t key)
{
	struct evict_node *node = &s3->nodes[key + 1];
	struct pair *pair = pair_of(s3, key);
	unsigned hits = 0;
	bool known;

	assert(!node->list);
	known = evict_ghost_recall(&s3->ghost, key, &hits);
	while (s3->nr[0] >= s3->capacity)
		evict(s3, pair);
	node->hits = (uint8_t)hits;
	push(s3, pair, key + 1, known ? MAIN : SMALL);
}
