/* SPDX-License-Identifier: MIT */
/*
 * Recovery: the index and all other metadata from the slots of an image.
 *
 * The slots are scanned once for each kind, in the order in which one rests on
 * another: clients, pools, dictionaries, objects, references (only counted),
 * data, references.  A slot that is whole and rests on something is kept; of
 * two that name the same the one with the higher generation.  What was not kept
 * is cleared at the end, and its memory goes back.
 *
 *  - A slot that lost its page to a newer one, whose pool or object is gone or
 *    that is marked as an orphan, stays as an orphan as long as a reference
 *    names it; so references are counted before.
 *  - What is older is cleared at once, before what is newer could go.
 *  - Recovery may be killed, and begins anew then: it only clears slots that
 *    would be dropped again, and marks as orphans what would be orphans again.
 *  - Nothing in the image is trusted: numbers are checked before they are used
 *    and a slot's data only once its checksum was.
 *
 * It is done by one thread, before anybody has the store, so the locks that
 * functions ask for are not taken.  The limit does not count meanwhile.
 */
#include "recover.h"

#include <errno.h>
#include <string.h>

#include "arena/image.h"
#include "dictslot.h"
#include "durable.h"
#include "object.h"
#include "pool.h"
#include "queue.h"
#include "tiering.h"
#include "unzip.h"

struct recovery {
	struct tmem_store *store;
	uint64_t limit_bytes; /* the store's own */
	int error;
	uint64_t kept; /* slots */
	uint64_t torn;
	uint64_t stale;
	uint64_t lost;	  /* pages in a tier that does not have them */
	uint64_t missing; /* or that is not there */
	/* The newest slot of each. */
	uint32_t clients[TMEM_MAX_CLIENTS];
	uint32_t pools[TMEM_MAX_POOLS];
	struct tmem_dict_scan dicts;
};

static struct tmem_slot *slot_of(const struct recovery *r, uint32_t handle)
{
	return tmem_arena_slot(&r->store->arena, handle);
}

static bool keep(struct recovery *r, uint32_t handle)
{
	int error = tmem_arena_keep(&r->store->arena, handle);

	if (error < 0)
		r->error = error;
	else
		r->kept++;
	return error == 0;
}

static void drop(struct recovery *r, struct tmem_slot *slot)
{
	tmem_slot_clear(slot);
	r->stale++;
}

static bool is_sound(const struct recovery *r, uint32_t handle)
{
	return tmem_arena_is_sound(&r->store->arena, handle);
}

/* Clients and pools. */

/* The newer of a slot and the one noted at *newest is noted. */
static void note_newest(struct recovery *r, uint32_t handle, uint32_t *newest)
{
	struct tmem_slot *slot = slot_of(r, handle), *other;

	if (tmem_slot_generation(slot) > r->store->generation)
		r->store->generation = tmem_slot_generation(slot);
	if (!*newest) {
		*newest = handle;
		return;
	}
	other = slot_of(r, *newest);
	if (tmem_slot_generation(slot) > tmem_slot_generation(other)) {
		drop(r, other);
		*newest = handle;
	} else {
		drop(r, slot);
	}
}

/* Compaction takes that shard's lock. */
static bool has_shard(const struct recovery *r, const struct tmem_slot *slot)
{
	return tmem_slot_shard(slot) < r->store->nr_shards;
}

static void find_owners(void *arg, uint32_t handle, struct tmem_slot *slot)
{
	struct recovery *r = arg;

	if (!has_shard(r, slot))
		return;
	switch (tmem_slot_form(slot)) {
	case TMEM_FORM_CLIENT:
		if (is_sound(r, handle) && slot->object < TMEM_MAX_CLIENTS &&
		    slot->length == sizeof(struct tmem_durable_client))
			note_newest(r, handle, &r->clients[slot->object]);
		break;
	case TMEM_FORM_POOL:
		if (is_sound(r, handle) && slot->object < TMEM_MAX_POOLS &&
		    slot->length == sizeof(struct tmem_durable_pool))
			note_newest(r, handle, &r->pools[slot->object]);
		break;
	case TMEM_FORM_DICT:
		if (is_sound(r, handle))
			tmem_dictslot_note(&r->dicts, slot);
		break;
	default:
		break;
	}
}

static void restore_client(struct recovery *r, uint32_t nr, uint32_t handle)
{
	struct tmem_durable_client data;
	struct tmem_client *client;

	memcpy(&data, slot_of(r, handle)->data, sizeof(data));
	if (!data.weight || data.weight > TMEM_WEIGHT_MAX ||
	    data.nr_uuids > TMEM_CLIENT_UUIDS || !keep(r, handle))
		return;
	client = tmem_client_restore(r->store, nr, data.weight);
	if (!client) {
		r->error = -ENOMEM;
		return;
	}
	client->nr_uuids = data.nr_uuids;
	memcpy(client->uuids, data.uuids,
	       data.nr_uuids * sizeof(data.uuids[0]));
	client->slot = handle;
}

static uint64_t live_clients(const struct tmem_store *store)
{
	uint64_t clients = 0;
	uint32_t i;

	for (i = 0; i < TMEM_MAX_CLIENTS; i++)
		if (atomic_load(&store->weights[i]))
			clients |= 1ull << i;
	return clients;
}

static bool is_pool(const struct recovery *r, uint32_t number,
		    const struct tmem_durable_pool *data)
{
	const uint32_t both = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED;
	uint64_t clients = data->clients;

	return data->id >= TMEM_MAX_POOLS &&
	       tmem_pool_number(data->id) == number && !(data->flags & ~both) &&
	       data->flags != TMEM_POOL_SHARED && clients &&
	       !(clients & ~live_clients(r->store)) &&
	       ((data->flags & TMEM_POOL_SHARED) || !(clients & (clients - 1)));
}

/* As many ghosts as the limit allows that will count. */
static bool make_queues(struct recovery *r, struct tmem_pool *pool)
{
	if (!atomic_load(&r->store->ghost.nr_entries))
		tmem_ghost_init(&r->store->ghost, &r->store->meta,
				r->limit_bytes);
	return tmem_pool_make_queues(r->store, pool);
}

static void restore_pool(struct recovery *r, uint32_t number, uint32_t handle)
{
	struct tmem_pool *pool = &r->store->pools[number];
	struct tmem_durable_pool data;
	uint32_t i;

	memcpy(&data, slot_of(r, handle)->data, sizeof(data));
	if (!is_pool(r, number, &data))
		return;
	if (!(data.flags & TMEM_POOL_SHARED)) /* nobody joins it again */
		memset(data.joins, 0, sizeof(data.joins));
	if ((data.flags & TMEM_POOL_EPHEMERAL) && !make_queues(r, pool)) {
		r->error = -ENOMEM;
		return;
	}
	if (!keep(r, handle))
		return;
	for (i = 0; i < TMEM_MAX_CLIENTS; i++)
		if (data.flags & TMEM_POOL_EPHEMERAL)
			atomic_load(&pool->queues)->joins[i] =
				!(data.clients >> i & 1) ? 0
				: data.joins[i]		 ? data.joins[i]
							 : 1;
	pool->slot = handle;
	pool->used = 1;
	memcpy(pool->uuid, data.uuid, sizeof(pool->uuid));
	atomic_store(&pool->flags, data.flags);
	atomic_store(&pool->clients, data.clients);
	atomic_store(&pool->id, data.id);
}

static void restore_owners(struct recovery *r)
{
	struct tmem_store *store = r->store;
	uint32_t generation =
		(uint32_t)tmem_image_word(store->image) % (1u << 24);
	uint32_t i;

	tmem_arena_scan(&store->arena, find_owners, r);
	for (i = 0; i < TMEM_MAX_CLIENTS && !r->error; i++)
		if (r->clients[i])
			restore_client(r, i, r->clients[i]);
	/* Its slot may be damaged; no new one can be had yet. */
	if (!tmem_client_nr(store, 0) &&
	    !tmem_client_restore(store, 0, TMEM_WEIGHT_DEFAULT))
		r->error = -ENOMEM;
	for (i = 0; i < TMEM_MAX_POOLS && !r->error; i++) {
		if (r->pools[i])
			restore_pool(r, i, r->pools[i]);
		/* No id that was in use comes again. */
		store->pools[i].generation =
			atomic_load(&store->pools[i].id) / TMEM_MAX_POOLS;
		if (store->pools[i].generation < generation)
			store->pools[i].generation = generation;
	}
}

/* Objects. */

/* The shard that a slot says it is in, of a live pool; or NULL. */
static struct tmem_shard *shard_of(const struct recovery *r,
				   const struct tmem_slot *slot)
{
	struct tmem_store *store = r->store;
	uint32_t pool = tmem_slot_pool(slot);

	if (pool >= TMEM_MAX_POOLS || !atomic_load(&store->pools[pool].id) ||
	    tmem_slot_shard(slot) >= store->nr_shards)
		return NULL;
	return &store->shards[tmem_slot_shard(slot)];
}

static void note_generation(struct tmem_shard *shard,
			    const struct tmem_slot *slot)
{
	if (tmem_slot_generation(slot) > shard->generation)
		shard->generation = tmem_slot_generation(slot);
}

/* False if there can be no such record. */
static bool restore_object(struct recovery *r, uint32_t handle,
			   const struct tmem_key *key) TMEM_UNANALYSED
{
	struct tmem_store *store = r->store;
	uint32_t nr = slot_of(r, handle)->object;
	struct tmem_object *object;
	int error = -ERANGE;

	/* Its record would take memory for all that are before it. */
	if (nr <= tmem_image_most(store->image, 4096 / TMEM_SLOT_GRAIN))
		error = tmem_records_alloc_at(&store->objects, nr);
	if (error == -EEXIST || error == -ERANGE)
		return false;
	if (error == 0 && !tmem_object_init(store, key, nr)) {
		tmem_records_free(&store->objects, nr);
		error = -ENOMEM;
	}
	if (error < 0) {
		r->error = error;
		return true;
	}
	object = tmem_object_nr(store, nr);
	object->client = TMEM_CLIENT_UNKNOWN;
	if (keep(r, handle))
		object->slot = handle;
	return true;
}

static void find_object(void *arg, uint32_t handle,
			struct tmem_slot *slot) TMEM_UNANALYSED
{
	struct recovery *r = arg;
	struct tmem_object_id id;
	struct tmem_key key;

	if (tmem_slot_form(slot) != TMEM_FORM_OBJECT || r->error ||
	    !is_sound(r, handle) || slot->length != sizeof(id))
		return;
	memcpy(&id, slot->data, sizeof(id));
	key = tmem_key_of(r->store, tmem_slot_pool(slot), &id, 0);
	key.shard = shard_of(r, slot);
	if (key.shard) {
		note_generation(key.shard, slot);
		if (!tmem_object_find(r->store, key.shard, key.pool, &id) &&
		    restore_object(r, handle, &key))
			return;
	}
	if (!r->error)
		drop(r, slot);
}

/* Pages. */

/* Does a slot's form have data that others may refer to? */
static bool has_data(const struct tmem_slot *slot)
{
	unsigned form = tmem_slot_form(slot);
	const struct tmem_codec *codec = tmem_codec_of(form);

	return form == TMEM_FORM_TIER || (codec && form != TMEM_FORM_SAME);
}

static bool is_page(const struct tmem_slot *slot)
{
	return has_data(slot) || tmem_slot_form(slot) == TMEM_FORM_SAME;
}

/* Whom a sound reference refers to, if there can be such a slot; or 0. */
static uint32_t target_of(const struct recovery *r, uint32_t handle)
{
	const struct tmem_slot *slot = slot_of(r, handle);
	uint32_t target;

	if (slot->length != sizeof(target))
		return 0;
	memcpy(&target, slot->data, sizeof(target));
	return target != handle && tmem_arena_has(&r->store->arena, target)
		       ? target
		       : 0;
}

static void count_reference(void *arg, uint32_t handle, struct tmem_slot *slot)
{
	struct recovery *r = arg;
	uint32_t target;

	if (tmem_slot_form(slot) != TMEM_FORM_REF || !is_sound(r, handle))
		return;
	target = target_of(r, handle);
	if (target && !tmem_arena_share(&r->store->arena, target))
		r->error = -ENOMEM;
}

/* False if the slot names no page: its object or pool is not there. */
static bool key_of(const struct recovery *r, const struct tmem_slot *slot,
		   struct tmem_key *ret_key) TMEM_UNANALYSED
{
	struct tmem_store *store = r->store;
	struct tmem_shard *shard = shard_of(r, slot);
	const struct tmem_object *object;
	uint32_t pool = tmem_slot_pool(slot);

	if (!shard || !tmem_records_has(&store->objects, slot->object))
		return false;
	object = tmem_object_nr(store, slot->object);
	if (object->pool != pool ||
	    tmem_object_find(store, shard, pool, &object->id) != slot->object)
		return false;
	*ret_key = tmem_key_of(store, pool, &object->id, slot->index);
	return ret_key->shard == shard;
}

/* Is it a page's newest slot?  Then an older one goes. */
static bool wins(struct recovery *r, const struct tmem_key *key,
		 const struct tmem_slot *slot) TMEM_UNANALYSED
{
	struct tmem_store *store = r->store;
	const uint32_t *entry = tmem_object_find_page(store, key);

	note_generation(key->shard, slot);
	if (!entry)
		return true;
	if (tmem_slot_generation(slot_of(r, *entry)) >=
	    tmem_slot_generation(slot))
		return false;
	r->stale++;
	/* Not its object's last: it must stay. */
	tmem_object_nr(store, slot->object)->nr_pages++;
	tmem_object_drop_page(store, key->shard, *entry);
	tmem_object_nr(store, slot->object)->nr_pages--;
	return true;
}

/* Adds a sound slot to its page's key. */
static void adopt(struct recovery *r, const struct tmem_key *key,
		  uint32_t handle) TMEM_UNANALYSED
{
	if (!keep(r, handle))
		return;
	if (!tmem_object_adopt_page(r->store, key, handle))
		r->error = -ENOMEM;
	key->shard->stats.recovered++;
}

/* What reads a page's form must be there before the page is. */
static void make_reader(struct recovery *r, unsigned form)
{
	struct tmem_store *store = r->store;

	if (tmem_codec_of(form)->decompress_bytes &&
	    !atomic_load(&store->unzips[0]) && !tmem_unzip_make(store))
		r->error = -ENOMEM;
}

/* False: a slot of a page below RAM that says nothing possible. */
static bool find_below(struct recovery *r, const struct tmem_slot *slot,
		       int *ret_found, unsigned *ret_form)
{
	struct tmem_place place;
	int found = tmem_tiering_find(r->store, slot);

	if (found < 0)
		r->error = found;
	if (found < 0 || found == TMEM_FOUND_NOTHING)
		return false;
	memcpy(&place, slot->data, sizeof(place));
	*ret_form = place.form;
	*ret_found = found;
	return true;
}

static void find_data(void *arg, uint32_t handle,
		      struct tmem_slot *slot) TMEM_UNANALYSED
{
	struct recovery *r = arg;
	unsigned form = tmem_slot_form(slot);
	uint64_t kept = r->kept;
	struct tmem_key key;
	int found = TMEM_FOUND_LIVE;
	bool is_readable;

	if (r->error || !is_page(slot) || !is_sound(r, handle) ||
	    (form == TMEM_FORM_TIER && !find_below(r, slot, &found, &form)))
		return;
	make_reader(r, form);
	is_readable = tmem_dicts_can_read(r->store, slot);
	if (!(slot->form_generation & TMEM_SLOT_ORPHAN) &&
	    key_of(r, slot, &key) && wins(r, &key, slot) && is_readable)
		adopt(r, &key, handle);
	else if (!has_data(slot) || !is_readable ||
		 !tmem_arena_is_shared(&r->store->arena, handle))
		drop(r, slot);
	else if (keep(r, handle))
		tmem_object_adopt_orphan(r->store, &r->store->shards[0],
					 handle);
	r->lost += found != TMEM_FOUND_LIVE && r->kept != kept;
	r->missing += found == TMEM_FOUND_MISSING && r->kept != kept;
}

static void find_reference(void *arg, uint32_t handle,
			   struct tmem_slot *slot) TMEM_UNANALYSED
{
	struct recovery *r = arg;
	struct tmem_store *store = r->store;
	struct tmem_key key;
	uint32_t target;

	if (r->error || tmem_slot_form(slot) != TMEM_FORM_REF ||
	    !is_sound(r, handle))
		return;
	target = target_of(r, handle);
	if (key_of(r, slot, &key) && wins(r, &key, slot) && target &&
	    tmem_arena_is_kept(&store->arena, target) &&
	    has_data(slot_of(r, target))) {
		adopt(r, &key, handle);
		return;
	}
	if (target && tmem_arena_is_kept(&store->arena, target))
		tmem_object_unrefer(store, &store->shards[0], slot);
	else if (target)
		tmem_arena_unshare(&store->arena, target);
	drop(r, slot);
}

/* Objects of a list whose pages all went, or that had none yet. */
static void drop_empty_of(struct tmem_store *store, struct tmem_shard *shard,
			  unsigned list) TMEM_UNANALYSED
{
	uint32_t nr, next;

	for (nr = shard->objects[list]; nr; nr = next) {
		const struct tmem_object *object = tmem_object_nr(store, nr);

		next = object->next;
		if (!object->nr_pages)
			tmem_object_free(store, shard, nr);
	}
}

static void drop_empty(struct recovery *r) TMEM_UNANALYSED
{
	uint32_t i;
	unsigned list;

	for (i = 0; i < r->store->nr_shards; i++)
		for (list = 0; list < TMEM_OBJECT_LISTS; list++)
			drop_empty_of(r->store, &r->store->shards[i], list);
}

/* What is left is not whole, or is no form that there is. */
static void count_torn(void *arg, uint32_t handle, struct tmem_slot *slot)
{
	struct recovery *r = arg;

	(void)handle;
	(void)slot;
	r->torn++;
}

static int recover(struct recovery *r) TMEM_UNANALYSED
{
	static void (*const scans[])(void *arg, uint32_t handle,
				     struct tmem_slot *slot) = {
		find_object, count_reference, find_data, find_reference
	};
	struct tmem_store *store = r->store;
	unsigned i;

	r->error = tmem_arena_adopt(&store->arena);
	if (!r->error)
		restore_owners(r);
	if (!r->error)
		r->error = tmem_dictslot_recover(&r->dicts);
	for (i = 0; i < sizeof(scans) / sizeof(scans[0]) && !r->error; i++)
		tmem_arena_scan(&store->arena, scans[i], r);
	if (r->error)
		return r->error;
	drop_empty(r);
	tmem_arena_scan(&store->arena, count_torn, r);
	tmem_arena_finish(&store->arena);
	tmem_dicts_sweep(store);
	tmem_tiering_recovered(store);
	store->shards[0].stats.recover_torn = r->torn;
	store->shards[0].stats.recover_stale = r->stale + r->dicts.stale;
	store->shards[0].stats.recover_lost = r->lost;
	return r->missing != 0;
}

int tmem_recover(struct tmem_store *store)
{
	struct recovery r = {
		.store = store,
		.limit_bytes = tmem_account_limit(&store->account),
		.dicts.store = store,
	};
	int error;

	atomic_store(&store->account.limit_bytes, UINT64_MAX / 2);
	error = recover(&r);
	atomic_store(&store->account.limit_bytes, r.limit_bytes);
	return error;
}
