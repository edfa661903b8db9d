/* SPDX-License-Identifier: MIT */
/* Making room by dropping ephemeral pages: whose, and how many. */
#ifndef TMEM_CORE_EVICT_H
#define TMEM_CORE_EVICT_H

#include "core.h"

/*
 * Drops up to about `nr` ephemeral pages of whoever holds most for its weight.
 * Returns how many; 0: there is nothing to drop.  No shard's lock is held.
 */
unsigned tmem_evict(struct tmem_store *store, unsigned nr);

/* Until no more is held than the limit allows, if that can be. */
void tmem_evict_to_limit(struct tmem_store *store);

#endif
