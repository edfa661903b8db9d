/* SPDX-License-Identifier: MIT */
/*
 * S3-FIFO's ghost: which pages have left lately.
 *
 * It remembers a page for `limit` further pages that are noted.  Exact, for
 * comparison; or, as the store would have it, a table: sets of 16 entries in a
 * cache line, an entry of 32 bits {tag 18, hits 2, age 12}.  The age is the
 * number of pages noted so far, in units of 1/256 of the limit, modulo 4096.
 * A set that is full forgets its oldest entry.
 */
#ifndef EVICT_GHOST_H
#define EVICT_GHOST_H

#include <stdbool.h>
#include <stdint.h>

struct evict_ghost {
	uint64_t limit;
	uint64_t now;	 /* pages noted so far */
	uint64_t *noted; /* exact: by key, when, from 1 on; 0: not */
	uint8_t *hits;	 /* exact: by key */
	uint32_t *entries;
	uint64_t nr_sets;
	uint64_t tick; /* pages noted in a unit of age */
};

/* table_percent: entries in the table by limit; 0: exact. */
void evict_ghost_init(struct evict_ghost *g, uint32_t nr_keys, uint64_t limit,
		      unsigned table_percent);
void evict_ghost_fini(struct evict_ghost *g);
/* hits: 0 to 3. */
void evict_ghost_note(struct evict_ghost *g, uint32_t key, unsigned hits);
/* True if it was there: forgets it. */
bool evict_ghost_recall(struct evict_ghost *g, uint32_t key,
			unsigned *ret_hits);

#endif
