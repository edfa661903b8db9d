/* SPDX-License-Identifier: MIT */
/*
 * Clients: their numbers, weights and what they may share.  A weight of 0 is
 * that of a number without a client; the data path reads nothing else here.
 */
#include "client.h"

#include <errno.h>

#include "dedup.h"
#include "durable.h"
#include "pool.h"

#define CLIENT_MAGIC 0x746e65696c632d6dull /* "m-client" */

struct tmem_client *tmem_client_of(void *self)
{
	struct tmem_client *client = self;

	TMEM_ASSERT(client && client->magic == CLIENT_MAGIC);
	return client;
}

struct tmem_client *tmem_client_nr(struct tmem_store *store, uint32_t nr)
{
	uint32_t record = atomic_load(&store->client_records[nr]);

	return record ? tmem_records_get(&store->clients, record,
					 sizeof(struct tmem_client))
		      : NULL;
}

struct tmem_client *tmem_client_restore(struct tmem_store *store, uint32_t nr,
					uint32_t weight)
{
	uint32_t record = tmem_records_alloc(&store->clients);
	struct tmem_client *client;

	if (!record)
		return NULL;
	atomic_store(&store->client_records[nr], record);
	client = tmem_client_nr(store, nr);
	client->magic = CLIENT_MAGIC;
	client->store = store;
	client->record = record;
	client->nr = nr;
	atomic_store(&client->dedup_seed, tmem_dedup_new_seed(store));
	atomic_store(&store->dedup.groups[nr], 0);
	atomic_store(&store->weights[nr], weight);
	return client;
}

static void remove_locked(struct tmem_store *store, struct tmem_client *client)
	TMEM_REQUIRES(&store->control)
{
	tmem_durable_gone(store, &client->slot);
	atomic_store(&store->weights[client->nr], 0);
	atomic_store(&store->client_records[client->nr], 0);
	client->magic = 0;
	tmem_records_free(&store->clients, client->record);
}

static int create_locked(struct tmem_store *store, uint32_t weight,
			 struct tmem_client **ret_client)
	TMEM_REQUIRES(&store->control)
{
	struct tmem_client *client;
	uint32_t nr = 0;

	while (nr < TMEM_MAX_CLIENTS && atomic_load(&store->weights[nr]))
		nr++;
	if (nr == TMEM_MAX_CLIENTS)
		return -ENOSPC;
	client = tmem_client_restore(store, nr, weight);
	if (!client)
		return -ENOMEM;
	if (!tmem_durable_client(store, client)) {
		remove_locked(store, client);
		return -ENOMEM;
	}
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
	bool saved = true;

	store->client = tmem_client_nr(store, 0);
	if (!store->client)
		return tmem_client_create(store, 0, &store->client);
	tmem_lock_acquire(&store->control);
	if (!store->client->slot)
		saved = tmem_durable_client(store, store->client);
	tmem_lock_release(&store->control);
	return saved ? 0 : -ENOMEM;
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
	remove_locked(store, client);
	tmem_lock_release(&store->control);
}

struct tmem_client *tmem_client_default(struct tmem_store *store)
{
	return store->client;
}

int tmem_client_set_weight(struct tmem_client *client, uint32_t weight)
{
	struct tmem_store *store = tmem_client_of(client)->store;
	bool saved;

	if (!weight || weight > TMEM_WEIGHT_MAX)
		return -EINVAL;
	if (!tmem_store_lasts(store)) {
		atomic_store(&store->weights[client->nr], weight);
		return 0;
	}
	tmem_lock_acquire(&client->store->control);
	atomic_store(&store->weights[client->nr], weight);
	saved = tmem_durable_client(client->store, client);
	tmem_lock_release(&client->store->control);
	return saved ? 0 : -ENOMEM;
}

int tmem_client_join_group(struct tmem_client *client, uint32_t group)
{
	struct tmem_store *store = tmem_client_of(client)->store;

	if (!group)
		return -EINVAL;
	atomic_store(&store->dedup.groups[client->nr], group);
	atomic_store(&client->dedup_seed, tmem_dedup_group_seed(store, group));
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
	int r;

	TMEM_ASSERT(tmem_client_of(client));
	if (uuid[0] == UINT64_MAX && uuid[1] == UINT64_MAX)
		return -EINVAL;
	tmem_lock_acquire(&client->store->control);
	r = allow_locked(client, uuid, allow != 0);
	/* What could not be noted: less is allowed than was. */
	if (r == 0 && !tmem_durable_client(client->store, client)) {
		allow_locked(client, uuid, false);
		r = -ENOMEM;
	}
	tmem_lock_release(&client->store->control);
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

uint32_t tmem_client_number(const struct tmem_client *client)
{
	return client->nr;
}

int tmem_client_find(struct tmem_store *store, uint32_t number,
		     struct tmem_client **ret_client)
{
	struct tmem_client *client = NULL;

	tmem_lock_acquire(&store->control);
	if (number < TMEM_MAX_CLIENTS)
		client = tmem_client_nr(store, number);
	tmem_lock_release(&store->control);
	if (client)
		*ret_client = client;
	return client ? 0 : -ENOENT;
}

unsigned tmem_client_pools(struct tmem_client *client,
			   struct tmem_client_pool *ret_pools, unsigned max)
{
	struct tmem_store *store = tmem_client_of(client)->store;
	uint64_t bit = 1ull << client->nr;
	unsigned i, nr = 0;

	tmem_lock_acquire(&client->store->control);
	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		const struct tmem_pool *pool = &store->pools[i];

		if (!atomic_load(&pool->id) ||
		    !(atomic_load(&pool->clients) & bit))
			continue;
		if (nr < max)
			ret_pools[nr] = (struct tmem_client_pool){
				.id = atomic_load(&pool->id),
				.flags = atomic_load(&pool->flags),
				.uuid = { pool->uuid[0], pool->uuid[1] },
			};
		nr++;
	}
	tmem_lock_release(&client->store->control);
	return nr;
}
