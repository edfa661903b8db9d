/* SPDX-License-Identifier: MIT */
/*
 * What a restartable store's pages rest on, in slots of its own: an object
 * record's id, a pool, a client.  A page's slot names its object by number
 * and its pool, so these come before it and go after it:
 *
 *   U1  Each object record, live pool and client has a whole slot that says
 *       what it is; object, pool and client know its handle.  (Not a shared
 *       pool, once a leave could not be noted for lack of memory; not one that
 *       is being restored: a kill leaves none of it.)
 *   U2  An object's slot is there before its first page and goes after its
 *       last.
 *   U3  A pool's slot goes before its pages do; a page whose pool has none is
 *       dropped when the store is opened again.
 *
 * What changes gets a new slot with a higher generation, then the old one is
 * cleared: a kill leaves one of the two, or both, and the newer one counts.
 */
#ifndef TMEM_CORE_DURABLE_H
#define TMEM_CORE_DURABLE_H

#include "client.h"

/* The data of these slots: a format. */
struct tmem_durable_pool {
	uint32_t id;
	uint32_t flags;
	uint64_t clients;
	uint64_t uuid[2];
	uint16_t joins[TMEM_MAX_CLIENTS];
};
_Static_assert(sizeof(struct tmem_durable_pool) == 160, "a format");

struct tmem_durable_client {
	uint32_t weight;
	uint32_t nr_uuids;
	uint64_t uuids[TMEM_CLIENT_UUIDS][2];
};
_Static_assert(sizeof(struct tmem_durable_client) == 264, "a format");

static inline bool tmem_store_lasts(const struct tmem_store *store)
{
	return tmem_arena_lasts(&store->arena);
}

/* Each does nothing if the store is not restartable.  False: no memory. */
bool tmem_durable_object(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t nr) TMEM_REQUIRES(&shard->lock);
bool tmem_durable_pool(struct tmem_store *store, struct tmem_pool *pool)
	TMEM_REQUIRES(&store->control);
bool tmem_durable_client(struct tmem_store *store, struct tmem_client *client)
	TMEM_REQUIRES(&store->control);

/* The slot goes; *slot is 0 then. */
void tmem_durable_gone(struct tmem_store *store, uint32_t *slot);

/* Is it one of these, or of dictslot.h's, not a page's? */
static inline bool tmem_durable_is(const struct tmem_slot *slot)
{
	unsigned form = tmem_slot_form(slot);

	return form >= TMEM_FORM_DICT && form <= TMEM_FORM_OBJECT;
}

/* Compaction has copied one of these: the copy is noted in its place. */
void tmem_durable_moved(struct tmem_store *store, uint32_t from, uint32_t to);
/* Walks U1 and D4 (dicts.h); returns how many there are. */
uint64_t tmem_durable_check(struct tmem_store *store);

#endif
