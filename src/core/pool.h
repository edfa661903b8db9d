/* SPDX-License-Identifier: MIT */
/* Pools: making, joining, leaving, cloning.  See pool.c. */
#ifndef TMEM_CORE_POOL_H
#define TMEM_CORE_POOL_H

#include "client.h"

/* Results as in tmem/backend.h. */
int tmem_pool_create(struct tmem_client *client,
		     const struct tmem_pool_options *options,
		     tmem_pool_id *ret_pool);
int tmem_pool_destroy(struct tmem_client *client, tmem_pool_id id);
int tmem_pool_clone(struct tmem_client *client, tmem_pool_id pool,
		    tmem_pool_id *ret_pool);

/* An ephemeral pool's, and the ghosts with the first; false: no memory. */
bool tmem_pool_make_queues(struct tmem_store *store, struct tmem_pool *pool);
/*
 * A private pool in the making (a restore): nobody can use it, see it or
 * destroy it, and another process does not find it, but its bytes count.  Then
 * it is noted, after which it may come back should this process be killed; and
 * shown.  Or discarded: as if it had never been, in the counters too.
 */
int tmem_pool_stage(struct tmem_client *client, uint32_t flags,
		    tmem_pool_id *ret_pool);
int tmem_pool_note_staged(struct tmem_client *client, tmem_pool_id id);
void tmem_pool_show_staged_locked(struct tmem_client *client, tmem_pool_id id)
	TMEM_REQUIRES(&client->store->control);
void tmem_pool_discard(struct tmem_client *client, tmem_pool_id id);

/* The client goes: destroys or leaves all its pools; control lock held. */
void tmem_pool_leave_all_locked(struct tmem_client *client);

/* The pool if it is live and this client's too, else NULL. */
static inline struct tmem_pool *tmem_pool_of(const struct tmem_client *client,
					     tmem_pool_id id)
{
	struct tmem_pool *pool = &client->store->pools[tmem_pool_number(id)];

	if (!id ||
	    atomic_load_explicit(&pool->id, memory_order_acquire) != id ||
	    !(atomic_load_explicit(&pool->clients, memory_order_relaxed) >>
		      client->nr &
	      1))
		return NULL;
	return pool;
}

/* For whom its bytes count. */
static inline uint64_t tmem_pool_payers(const struct tmem_pool *pool)
{
	return atomic_load_explicit(&pool->clients, memory_order_relaxed) |
	       atomic_load_explicit(&pool->staged, memory_order_relaxed);
}

/* Bytes of an ephemeral pool that count for client `nr`. */
static inline uint64_t tmem_pool_part(struct tmem_pool *pool, uint32_t nr)
{
	uint64_t clients = tmem_pool_payers(pool);

	if (!(clients >> nr & 1))
		return 0;
	return atomic_load_explicit(&pool->bytes, memory_order_relaxed) /
	       (unsigned)__builtin_popcountll(clients);
}

#endif
