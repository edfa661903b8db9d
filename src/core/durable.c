/* SPDX-License-Identifier: MIT */
/* Slots of objects, pools and clients; the model is in durable.h. */
#include "durable.h"

#include <string.h>

#include "arena/image.h"
#include "dictslot.h"
#include "pool.h"
#include "queue.h"

/* A slot of what it is, the handle of which is at *slot; the old one goes. */
static bool write_slot(struct tmem_store *store, uint32_t *slot,
		       const struct tmem_slot *head, uint64_t word,
		       const void *data)
{
	uint32_t handle = tmem_arena_alloc(&store->arena, head->length, 0);
	uint32_t old = *slot;
	struct tmem_slot *to;

	if (!handle)
		return false;
	to = tmem_arena_slot(&store->arena, handle);
	to->object = head->object;
	to->index = 0;
	to->place = head->place;
	to->length = head->length;
	memcpy(to->data, data, head->length);
	tmem_slot_publish(to, word);
	*slot = handle;
	tmem_durable_gone(store, &old);
	return true;
}

static uint64_t word_of(unsigned form, uint64_t generation)
{
	return (uint64_t)form << TMEM_SLOT_FORM_SHIFT | generation;
}

bool tmem_durable_object(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t nr)
{
	struct tmem_object *object = tmem_object_nr(store, nr);
	struct tmem_slot head = {
		.object = nr,
		.place = tmem_slot_place(object->pool,
					 (uint32_t)(shard - store->shards)),
		.length = sizeof(object->id),
	};

	return !tmem_store_lasts(store) ||
	       write_slot(store, &object->slot, &head,
			  word_of(TMEM_FORM_OBJECT, ++shard->generation),
			  &object->id);
}

bool tmem_durable_pool(struct tmem_store *store, struct tmem_pool *pool)
{
	const struct tmem_queues *queues = atomic_load(&pool->queues);
	struct tmem_durable_pool data = {
		.id = atomic_load(&pool->id),
		.flags = atomic_load(&pool->flags),
		.clients = tmem_pool_payers(pool),
		.uuid = { pool->uuid[0], pool->uuid[1] },
	};
	uint32_t number = (uint32_t)(pool - store->pools);
	struct tmem_slot head = { .object = number,
				  .place = tmem_slot_place(number, 0),
				  .length = sizeof(data) };

	if (!tmem_store_lasts(store))
		return true;
	if (data.flags & TMEM_POOL_EPHEMERAL)
		memcpy(data.joins, queues->joins, sizeof(data.joins));
	/* No later pool of that number may have its id, whatever happens. */
	if (pool->generation > tmem_image_word(store->arena.pages.image))
		tmem_image_set_word(store->arena.pages.image, pool->generation);
	return write_slot(store, &pool->slot, &head,
			  word_of(TMEM_FORM_POOL, ++store->generation), &data);
}

bool tmem_durable_client(struct tmem_store *store, struct tmem_client *client)
{
	struct tmem_durable_client data = {
		.weight = atomic_load(&store->weights[client->nr]),
		.nr_uuids = client->nr_uuids,
	};
	struct tmem_slot head = { .object = client->nr,
				  .length = sizeof(data) };

	if (!tmem_store_lasts(store))
		return true;
	memcpy(data.uuids, client->uuids,
	       client->nr_uuids * sizeof(data.uuids[0]));
	return write_slot(store, &client->slot, &head,
			  word_of(TMEM_FORM_CLIENT, ++store->generation),
			  &data);
}

void tmem_durable_gone(struct tmem_store *store, uint32_t *slot)
{
	if (*slot)
		tmem_arena_release(&store->arena, *slot);
	*slot = 0;
}

void tmem_durable_moved(struct tmem_store *store, uint32_t from, uint32_t to)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, from);

	switch (tmem_slot_form(slot)) {
	case TMEM_FORM_OBJECT:
		tmem_object_nr(store, slot->object)->slot = to;
		break;
	case TMEM_FORM_POOL:
		store->pools[slot->object].slot = to;
		break;
	case TMEM_FORM_CLIENT:
		tmem_client_nr(store, slot->object)->slot = to;
		break;
	default:
		tmem_dictslot_moved(store, from, to);
		break;
	}
}

struct walk {
	struct tmem_store *store;
	uint64_t nr;
};

static void check_slot(struct walk *w, uint32_t handle, unsigned form,
		       uint32_t number)
{
	const struct tmem_slot *slot =
		tmem_arena_slot(&w->store->arena, handle);

	TMEM_INVARIANT("U1", handle);
	TMEM_INVARIANT("U1", tmem_arena_is_whole(&w->store->arena, handle));
	TMEM_INVARIANT("U1", tmem_slot_form(slot) == form);
	TMEM_INVARIANT("U1", slot->object == number);
	w->nr++;
}

static void check_object(void *arg, uint32_t number, void *record)
{
	const struct tmem_object *object = record;
	struct walk *w = arg;
	const struct tmem_slot *slot;

	check_slot(w, object->slot, TMEM_FORM_OBJECT, number);
	slot = tmem_arena_slot(&w->store->arena, object->slot);
	TMEM_INVARIANT("U1", tmem_slot_pool(slot) == object->pool);
	TMEM_INVARIANT("U1",
		       !memcmp(slot->data, &object->id, sizeof(object->id)));
}

/* A change could not be noted; or it is to be noted when it is all there. */
static bool may_lack_slot(const struct tmem_store *store, uint32_t pool)
{
	return !store->pools[pool].slot &&
	       (tmem_pool_has(store, pool, TMEM_POOL_SHARED) ||
		atomic_load(&store->pools[pool].staged));
}

uint64_t tmem_durable_check(struct tmem_store *store)
{
	struct walk w = { .store = store };
	uint32_t i;

	if (!tmem_store_lasts(store))
		return 0;
	tmem_records_for_each(&store->objects, check_object, &w);
	for (i = 0; i < TMEM_MAX_POOLS; i++)
		if (atomic_load(&store->pools[i].id) &&
		    !may_lack_slot(store, i))
			check_slot(&w, store->pools[i].slot, TMEM_FORM_POOL, i);
	for (i = 0; i < TMEM_MAX_CLIENTS; i++)
		if (atomic_load(&store->weights[i]))
			check_slot(&w, tmem_client_nr(store, i)->slot,
				   TMEM_FORM_CLIENT, i);
	return w.nr + tmem_dictslot_check(store);
}
