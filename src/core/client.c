/* SPDX-License-Identifier: MIT */
/*
 * Clients: their numbers, weights and what they may share.  A weight of 0 is
 * that of a number without a client; the data path reads nothing else here.
 */
#include "client.h"

#include <errno.h>

#include "pool.h"

#define CLIENT_MAGIC 0x746e65696c632d6dull /* "m-client" */

struct tmem_client *tmem_client_of(void *self)
{
	struct tmem_client *client = self;

	TMEM_ASSERT(client && client->magic == CLIENT_MAGIC);
	return client;
}

static struct tmem_client *client_nr(struct tmem_store *store, uint32_t record)
{
	return tmem_records_get(&store->clients, record,
				sizeof(struct tmem_client));
}

static int create_locked(struct tmem_store *store, uint32_t weight,
			 struct tmem_client **ret_client)
	TMEM_REQUIRES(&store->control)
{
	struct tmem_client *client;
	uint32_t nr = 0, record;

	while (nr < TMEM_MAX_CLIENTS && atomic_load(&store->weights[nr]))
		nr++;
	if (nr == TMEM_MAX_CLIENTS)
		return -ENOSPC;
	record = tmem_records_alloc(&store->clients);
	if (!record)
		return -ENOMEM;
	client = client_nr(store, record);
	client->magic = CLIENT_MAGIC;
	client->store = store;
	client->record = record;
	client->nr = nr;
	atomic_store(&store->weights[nr], weight);
	*ret_client = client;
	return 0;
}

int tmem_client_create(struct tmem_store *store, uint32_t weight,
		       struct tmem_client **ret_client)
{
	int r;

	if (weight > TMEM_WEIGHT_MAX)
		return -EINVAL;
	tmem_lock_acquire(&store->control);
	r = create_locked(store, weight ? weight : TMEM_WEIGHT_DEFAULT,
			  ret_client);
	tmem_lock_release(&store->control);
	return r;
}

int tmem_client_init_default(struct tmem_store *store)
{
	return tmem_client_create(store, 0, &store->client);
}

void tmem_client_destroy(struct tmem_client *client)
{
	struct tmem_store *store;

	if (!client)
		return;
	store = tmem_client_of(client)->store;
	TMEM_ASSERT(client != store->client);
	tmem_lock_acquire(&store->control);
	tmem_pool_leave_all_locked(client);
	atomic_store(&store->weights[client->nr], 0);
	client->magic = 0;
	tmem_records_free(&store->clients, client->record);
	tmem_lock_release(&store->control);
}

struct tmem_client *tmem_client_default(struct tmem_store *store)
{
	return store->client;
}

int tmem_client_set_weight(struct tmem_client *client, uint32_t weight)
{
	if (!weight || weight > TMEM_WEIGHT_MAX)
		return -EINVAL;
	atomic_store(&tmem_client_of(client)->store->weights[client->nr],
		     weight);
	return 0;
}

static uint32_t find_uuid(const struct tmem_client *client,
			  const uint64_t uuid[2])
{
	uint32_t i;

	for (i = 0; i < client->nr_uuids; i++)
		if (client->uuids[i][0] == uuid[0] &&
		    client->uuids[i][1] == uuid[1])
			break;
	return i;
}

bool tmem_client_may_share(const struct tmem_client *client,
			   const uint64_t uuid[2])
{
	return find_uuid(client, uuid) < client->nr_uuids;
}

static int allow_locked(struct tmem_client *client, const uint64_t uuid[2],
			bool allow)
{
	uint32_t i = find_uuid(client, uuid);
	bool known = i < client->nr_uuids;

	if (allow && !known) {
		if (i == TMEM_CLIENT_UUIDS)
			return -ENOSPC;
		client->uuids[i][0] = uuid[0];
		client->uuids[i][1] = uuid[1];
		client->nr_uuids++;
	} else if (!allow && known) {
		uint32_t last = --client->nr_uuids;

		client->uuids[i][0] = client->uuids[last][0];
		client->uuids[i][1] = client->uuids[last][1];
	}
	return 0;
}

int tmem_client_allow(struct tmem_client *client, const uint64_t uuid[2],
		      int allow)
{
	struct tmem_store *store = tmem_client_of(client)->store;
	int r;

	if (uuid[0] == UINT64_MAX && uuid[1] == UINT64_MAX)
		return -EINVAL;
	tmem_lock_acquire(&store->control);
	r = allow_locked(client, uuid, allow != 0);
	tmem_lock_release(&store->control);
	return r;
}

uint64_t tmem_client_bytes(struct tmem_store *store, uint32_t nr)
{
	uint64_t bytes = 0;
	uint32_t i;

	for (i = 0; i < TMEM_MAX_POOLS; i++)
		bytes += tmem_pool_part(&store->pools[i], nr);
	return bytes;
}

uint64_t tmem_client_ephemeral_bytes(const struct tmem_client *client)
{
	return tmem_client_bytes(client->store, client->nr);
}
