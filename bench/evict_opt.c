/* SPDX-License-Identifier: MIT */
/*
 * Belady's optimum, for both ways to use a cache.
 *
 * A page that is kept from one event to its next get or take is an interval
 * and, kept to its end, a hit.  The most intervals with at most `capacity` at
 * any moment: take each as it begins, and when there are too many, drop the
 * one that ends last.  Ends are event numbers, each of one page only, so the
 * cache is a set of numbers; a tree of bitmaps, 64 bits a node, finds the
 * largest in a few steps.
 */
#include "evict_policy.h"

#include <stdlib.h>

#include "evict_trace.h"

enum {
	LEVELS = 5
}; /* 2^30 events */

struct set {
	uint64_t *level[LEVELS];
};

static void set_init(struct set *set, uint32_t nr)
{
	uint64_t words = nr;
	unsigned l;

	for (l = 0; l < LEVELS; l++) {
		words = words / 64 + 1;
		set->level[l] = evict_alloc(words, sizeof(uint64_t));
	}
}

static void set_fini(struct set *set)
{
	unsigned l;

	for (l = 0; l < LEVELS; l++)
		free(set->level[l]);
}

static void set_add(struct set *set, uint32_t i)
{
	unsigned l;

	for (l = 0; l < LEVELS; l++, i /= 64)
		set->level[l][i / 64] |= 1ull << i % 64;
}

/* True if it was there. */
static bool set_remove(struct set *set, uint32_t i)
{
	unsigned l;

	if (!(set->level[0][i / 64] & 1ull << i % 64))
		return false;
	for (l = 0; l < LEVELS; l++, i /= 64) {
		set->level[l][i / 64] &= ~(1ull << i % 64);
		if (set->level[l][i / 64])
			break;
	}
	return true;
}

/* Of a set that is not empty. */
static uint32_t set_largest(const struct set *set)
{
	uint32_t i = 0;
	unsigned l;

	for (l = LEVELS; l-- > 0;)
		i = i * 64 + 63 - (uint32_t)__builtin_clzll(set->level[l][i]);
	return i;
}

/* For each event the next get or take of its page; nr: none. */
static uint32_t *next_asked(const struct evict_stream *s)
{
	uint32_t *next = evict_alloc(s->nr, sizeof(*next));
	uint32_t *of_key = evict_alloc(s->nr_keys, sizeof(*of_key));
	uint32_t i;

	for (i = 0; i < s->nr_keys; i++)
		of_key[i] = s->nr;
	for (i = s->nr; i-- > 0;) {
		next[i] = of_key[s->keys[i]];
		if (!s->what || s->what[i] != EVICT_PUT)
			of_key[s->keys[i]] = i;
	}
	free(of_key);
	return next;
}

uint32_t evict_optimum(const struct evict_stream *stream, uint32_t capacity)
{
	uint32_t *next = next_asked(stream);
	uint32_t hits = 0, held = 0, i;
	struct set set;

	set_init(&set, stream->nr);
	for (i = 0; i < stream->nr; i++) {
		uint8_t what = stream->what ? stream->what[i] : EVICT_GET;

		if (what != EVICT_PUT && set_remove(&set, i)) {
			hits++;
			held--;
		}
		if (what == EVICT_TAKE || next[i] == stream->nr)
			continue;
		set_add(&set, next[i]);
		if (++held > capacity) {
			set_remove(&set, set_largest(&set));
			held--;
		}
	}
	set_fini(&set);
	free(next);
	return hits;
}
