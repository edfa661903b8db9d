/* SPDX-License-Identifier: MIT */
/*
 * Clients of a local store: who share it and must not harm each other.
 *
 * A store has a default client, which tmem_store_backend() speaks for.  More
 * are made here, for each program, virtual machine or tenant.  A client sees
 * its own pools and the shared pools that it has joined; the number of any
 * other pool is to it as if there were none.
 *
 * WEIGHT.  Ephemeral pages are evicted from the client that holds most of them
 * for its weight, so that under pressure each keeps its part, and what one
 * does not need is for the others.  A shared pool's pages count for each of
 * its clients in equal parts.
 *
 * Threads: any, except that a client must not be destroyed while one of its
 * operations is in flight.
 */
#ifndef TMEM_CLIENT_H
#define TMEM_CLIENT_H

#include <tmem/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_store;
struct tmem_client;

#define TMEM_WEIGHT_DEFAULT 100u
#define TMEM_WEIGHT_MAX	    10000u
/* Shared pools that a client may be authorised for at a time. */
#define TMEM_CLIENT_UUIDS 16u

/* weight 0: the default.  0, -EINVAL, -ENOSPC (too many) or -ENOMEM. */
TMEM_API int tmem_client_create(struct tmem_store *store, uint32_t weight,
				struct tmem_client **ret_client);
/* Destroys or leaves its pools.  NULL is accepted; not the default client. */
TMEM_API void tmem_client_destroy(struct tmem_client *client);

/*
 * A client's number, below TMEM_CLIENTS_MAX, and the client of a number:
 * 0 or -ENOENT.  The default one's is 0.  When a restartable store is opened
 * again its clients are there, with their numbers, weights, authorisations and
 * pools; whose they are its user has to know.
 */
#define TMEM_CLIENTS_MAX 64u
TMEM_API uint32_t tmem_client_number(const struct tmem_client *client);
TMEM_API int tmem_client_find(struct tmem_store *store, uint32_t number,
			      struct tmem_client **ret_client);

struct tmem_client_pool {
	tmem_pool_id id;
	uint32_t flags;	  /* enum tmem_pool_flags */
	uint64_t uuid[2]; /* of a shared one */
};

/* The client's pools, the first `max` of them; returns how many there are. */
TMEM_API unsigned tmem_client_pools(struct tmem_client *client,
				    struct tmem_client_pool *ret_pools,
				    unsigned max);

/* Valid until the client is destroyed, or its store closed. */
TMEM_API struct tmem_client *tmem_client_default(struct tmem_store *store);

/* This client's view of the store, as a backend. */
TMEM_API struct tmem_backend tmem_client_backend(struct tmem_client *client);

/*
 * 1 .. TMEM_WEIGHT_MAX; takes effect with the next evictions.  0; -EINVAL;
 * -ENOMEM: it does, but a restartable store could not note it.
 */
TMEM_API int tmem_client_set_weight(struct tmem_client *client,
				    uint32_t weight);

/*
 * Whether the client may create or join the shared pool of that UUID from now
 * on: at first it may none.  The UUID alone is no secret.  0; -EINVAL: all
 * ones; -ENOSPC: TMEM_CLIENT_UUIDS are allowed already; -ENOMEM: a restartable
 * store could not note it, and the client may not.
 */
TMEM_API int tmem_client_allow(struct tmem_client *client,
			       const uint64_t uuid[2], int allow);

/*
 * Equal pages of one client are stored once, those of different clients are
 * not: how long a store takes would tell what others have.  From now on this
 * client's new pages are compared with those of all clients in the same group,
 * which must trust each other.  When a restartable store is opened again its
 * clients are in no group: whose they are its user says anew, and so whom they
 * trust.  0; -EINVAL: group 0.
 */
TMEM_API int tmem_client_join_group(struct tmem_client *client, uint32_t group);

/* Bytes of ephemeral pages that count for it, its parts of shared ones too. */
TMEM_API uint64_t tmem_client_ephemeral_bytes(const struct tmem_client *client);

#ifdef __cplusplus
}
#endif
#endif
