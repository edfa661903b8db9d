/* SPDX-License-Identifier: MIT */
/*
 * Ghosts: which pages were there not long ago.  An ephemeral page that comes
 * back is worth more than one that was never seen before.
 *
 * A table of 32-bit entries in sets of 16 (a cache line): 20 bits of the key's
 * hash and 12 bits of age, counted in 1/1024 of the table's size.  No lock: a
 * lost update or a wrong hit (one in 60,000) costs a page's place in a queue,
 * nothing else.
 *
 * Made with the first ephemeral pool, four entries for each page that the limit
 * of then would hold raw (two for each at a ratio of two); without memory for
 * it there are no ghosts.
 */
#ifndef TMEM_CORE_GHOST_H
#define TMEM_CORE_GHOST_H

#include "arena/meta.h"

enum {
	TMEM_GHOST_RUNS = 64,
	TMEM_GHOST_RUN_ENTRIES = TMEM_RUN_MAX_PAGES * 1024
};

struct tmem_ghost {
	_Atomic uint32_t nr_entries; /* a power of two; 0: not made */
	_Atomic uint32_t nr_added;
	_Atomic uint32_t *runs[TMEM_GHOST_RUNS];
};

void tmem_ghost_init(struct tmem_ghost *ghost, struct tmem_meta *meta,
		     uint64_t limit_bytes);
void tmem_ghost_add(struct tmem_ghost *ghost, uint64_t hash);
/* True, and it is forgotten, if it was among the last `reach` added. */
bool tmem_ghost_take(struct tmem_ghost *ghost, uint64_t hash, uint64_t reach);

#endif
