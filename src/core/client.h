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
	uint32_t nr_uuids;
	uint64_t uuids[TMEM_CLIENT_UUIDS][2];
};

/* The client behind a backend's self. */
struct tmem_client *tmem_client_of(void *self);

/* The default client, when a store is opened. */
int tmem_client_init_default(struct tmem_store *store);

/* With the control lock held: may it share that pool? */
bool tmem_client_may_share(const struct tmem_client *client,
			   const uint64_t uuid[2]);

/* The same for a number: bytes that count for it. */
uint64_t tmem_client_bytes(struct tmem_store *store, uint32_t nr);

#endif
