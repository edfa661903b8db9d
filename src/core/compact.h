/* SPDX-License-Identifier: MIT */
/* Compaction; the model is in compact.c, and for shared slots in sweep.c. */
#ifndef TMEM_CORE_COMPACT_H
#define TMEM_CORE_COMPACT_H

#include "core.h"

/* Until that time, or until there is nothing to do: then false. */
bool tmem_compact(struct tmem_store *store, uint64_t until_ns);

/*
 * Some spans at once, where others have room for their slots at all: dear, for
 * when pages are wanted.  False: there are none.
 */
bool tmem_compact_hard(struct tmem_store *store);

/*
 * A batch of spans that are leaving from now on, at most TMEM_LEAVING_MAX; how
 * many.  move: all their slots that can be moved, and shared ones if their
 * bytes are to be counted; how many.
 */
unsigned tmem_compact_choose(struct tmem_store *store, uint32_t *spans,
			     bool shared_too) TMEM_REQUIRES(&store->control);
unsigned tmem_compact_move(struct tmem_store *store, const uint32_t *spans,
			   unsigned nr, uint64_t *copied_bytes)
	TMEM_REQUIRES(&store->control);

/* A step of some 100 us, or a batch of spans; false: nothing to do. */
bool tmem_sweep_some(struct tmem_store *store) TMEM_REQUIRES(&store->control);
/* At the end of a restartable store: what nobody refers to goes. */
void tmem_sweep_fini(struct tmem_store *store) TMEM_REQUIRES(&store->control);

/* For tests: every hole is worth it. */
static inline void tmem_compact_eagerly(struct tmem_store *store)
{
	store->arena.sparse_part = 1000;
	store->arena.sparse_least = 0;
	store->sweep.worth_part = 100000;
}

static inline bool tmem_sweep_is_on(const struct tmem_store *store)
{
	return store->sweep.stage != TMEM_SWEEP_NONE;
}

#endif
