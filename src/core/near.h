/* SPDX-License-Identifier: MIT */
/*
 * Bringing near what an operation on a page will touch, before it does.
 *
 * A page is found through three places that each lead to the next: bucket of
 * the index, span's record, slot.  In a store that is larger than the CPU's
 * caches each is a miss.  One page waits for three of them; several pages'
 * misses can be under way together, and a store's while it compresses.
 *
 * In three steps, one for each place: a step reads what the one before has
 * brought near, and prefetches.  An address is computed under the shard's
 * lock, so nothing is read that could be gone; what is prefetched may go
 * before it is used, as a prefetch never faults and its result is a matter of
 * time only.  Locks that are held or closed are not waited for: then the page
 * is not brought near, and that's all.
 *
 * A store that fits into the caches needs none of this and does not pay for it.
 */
#ifndef TMEM_CORE_NEAR_H
#define TMEM_CORE_NEAR_H

#include "core.h"

enum {
	TMEM_NEAR_GROUP = 8 /* pages of a vector at a time */
};

enum tmem_near_for {
	TMEM_NEAR_LOAD,
	TMEM_NEAR_STORE,
	TMEM_NEAR_INVALIDATE
};

/* A store of less is near anyway: L2 caches' size or so.  Tests set it. */
extern uint64_t tmem_near_from_bytes;

static inline bool tmem_near_pays(const struct tmem_store *store)
{
	return tmem_account_held(&store->account) > tmem_near_from_bytes;
}

/* At most TMEM_NEAR_GROUP pages. */
void tmem_near_pages(struct tmem_store *store, uint32_t pool,
		     const struct tmem_io *io, unsigned nr,
		     enum tmem_near_for what);

/* What index entries stand for (struct tmem_index); the shard's lock is held.
 */
void tmem_near_hashes(void *store, const uint32_t *refs, unsigned nr,
		      uint64_t *ret_hashes);

#endif
