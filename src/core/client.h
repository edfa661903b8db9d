/* SPDX-License-Identifier: MIT */
/* Clients, inside: see tmem/client.h. */
#ifndef TMEM_CORE_CLIENT_H
#define TMEM_CORE_CLIENT_H

#include <tmem/client.h>

#include "core.h"

struct tmem_client {
	uint64_t magic;
	struct tmem_store *store;
	uint32_t record; /* its number in store->clients */
	uint32_t nr;	 /* its bit in a pool's mask */
	uint32_t slot;	 /* durable.h */
	uint32_t nr_uuids;
	_Atomic uint64_t dedup_seed;
	uint64_t uuids[TMEM_CLIENT_UUIDS][2];
};

/* The client behind a backend's self. */
struct tmem_client *tmem_client_of(void *self);

/* The default client, when a store is opened, unless it is there. */
int tmem_client_init_default(struct tmem_store *store);

/* Client number `nr`, which exists, or NULL. */
struct tmem_client *tmem_client_nr(struct tmem_store *store, uint32_t nr);
/* Recovery: client `nr`, which does not exist, with that weight.  Or NULL. */
struct tmem_client *tmem_client_restore(struct tmem_store *store, uint32_t nr,
					uint32_t weight);

/* With the control lock held: may it share that pool? */
bool tmem_client_may_share(const struct tmem_client *client,
			   const uint64_t uuid[2]);

/* The same for a number: bytes that count for it. */
uint64_t tmem_client_bytes(struct tmem_store *store, uint32_t nr);

#endif
