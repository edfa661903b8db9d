/* SPDX-License-Identifier: MIT */
/*
 * The ghost table and the exact ghost; evict_ghost.h says what they are.
 * An entry of 0 is empty: tags are never 0.
 */
#include "evict_ghost.h"

#include <stdlib.h>

#include "evict_trace.h"

enum {
	WAYS = 16,
	TAG_BITS = 18,
	AGE_BITS = 12,
	AGE_MASK = (1 << AGE_BITS) - 1,
	TICKS = 256 /* in the limit */
};

void evict_ghost_init(struct evict_ghost *g, uint32_t nr_keys, uint64_t limit,
		      unsigned table_percent)
{
	*g = (struct evict_ghost){ .limit = limit };
	if (table_percent) {
		g->tick = limit / TICKS + 1;
		g->nr_sets = limit * table_percent / 100 / WAYS + 1;
		g->entries = evict_alloc(g->nr_sets * WAYS, sizeof(uint32_t));
	} else {
		g->noted = evict_alloc(nr_keys, sizeof(uint64_t));
		g->hits = evict_alloc(nr_keys, 1);
	}
}

void evict_ghost_fini(struct evict_ghost *g)
{
	free(g->noted);
	free(g->hits);
	free(g->entries);
}

static uint32_t *set_of(const struct evict_ghost *g, uint32_t key,
			uint32_t *ret_tag)
{
	uint64_t hash = evict_mix(key + 0x9e3779b97f4a7c15ull);

	*ret_tag = (uint32_t)(hash % ((1 << TAG_BITS) - 1)) + 1;
	return g->entries + ((hash >> 32) * g->nr_sets >> 32) * WAYS;
}

static uint32_t age_of(const struct evict_ghost *g, uint32_t entry)
{
	return (uint32_t)(g->now / g->tick - entry) & AGE_MASK;
}

void evict_ghost_note(struct evict_ghost *g, uint32_t key, unsigned hits)
{
	uint32_t *set, *entry, tag, i;

	g->now++;
	if (g->noted) {
		g->noted[key] = g->now;
		g->hits[key] = (uint8_t)hits;
		return;
	}
	set = set_of(g, key, &tag);
	entry = set;
	for (i = 0; i < WAYS && *entry; i++)
		if (!set[i] || age_of(g, set[i]) > age_of(g, *entry))
			entry = &set[i];
	*entry = tag << (AGE_BITS + 2) | hits << AGE_BITS |
		 ((uint32_t)(g->now / g->tick) & AGE_MASK);
}

static bool recall_exact(struct evict_ghost *g, uint32_t key,
			 unsigned *ret_hits)
{
	uint64_t noted = g->noted[key];

	g->noted[key] = 0;
	if (!noted || g->now - noted >= g->limit)
		return false;
	*ret_hits = g->hits[key];
	return true;
}

bool evict_ghost_recall(struct evict_ghost *g, uint32_t key, unsigned *ret_hits)
{
	uint32_t *set, tag, i;

	if (g->noted)
		return recall_exact(g, key, ret_hits);
	set = set_of(g, key, &tag);
	for (i = 0; i < WAYS; i++) {
		if (set[i] >> (AGE_BITS + 2) != tag)
			continue;
		*ret_hits = set[i] >> AGE_BITS & 3;
		tag = age_of(g, set[i]) * g->tick < g->limit;
		set[i] = 0;
		return tag;
	}
	return false;
}
