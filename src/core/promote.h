/* SPDX-License-Identifier: MIT */
/* Loads of pages that are in a tier; the model is in tiering.h. */
#ifndef TMEM_CORE_PROMOTE_H
#define TMEM_CORE_PROMOTE_H

#include "client.h"

/*
 * The page's slot as it was before it went down, into a buffer of
 * TMEM_SLOT_MAX_BYTES.  0, TMEM_MISS (it is gone meanwhile), -EIO.  Waits for
 * I/O, and for a fork to be over.  *dict is the dictionary that the caller
 * holds, 0: none; what the answer needs is held then.
 */
int tmem_promote(const struct tmem_client *client, tmem_pool_id id,
		 const struct tmem_key *key, struct tmem_slot *ret_slot,
		 uint32_t *dict);

/*
 * The same of a slot of form TIER that is pinned: it may belong to no page any
 * more.  0 or -EIO.
 */
int tmem_promote_pinned(struct tmem_store *store, const struct tmem_slot *slot,
			struct tmem_slot *ret_slot);

#endif
