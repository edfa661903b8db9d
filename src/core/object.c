/* SPDX-License-Identifier: MIT */
/* Objects and the entries of their pages; see object.h. */
#include "object.h"

#include <string.h>

#include "dicts.h"
#include "durable.h"
#include "queue.h"
#include "saving.h"
#include "tiering.h"

#define EPOCH_MASK ((uint64_t)(TMEM_SLOT_EPOCHS - 1) << TMEM_SLOT_EPOCH_SHIFT)

enum {
	SPARE_PART = 128, /* of the limit */
	SPARE_LEAST = 16 * 4096
};

static bool same_id(const struct tmem_object_id *a,
		    const struct tmem_object_id *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] &&
	       a->word[2] == b->word[2];
}

struct object_match {
	const struct tmem_store *store;
	const struct tmem_object_id *id;
	uint32_t pool;
};

static bool is_object(void *arg, uint32_t ref)
{
	const struct object_match *want = arg;
	const struct tmem_object *object;

	if (!(ref & TMEM_REF_OBJECT))
		return false;
	object = tmem_object_nr(want->store, ref & ~TMEM_REF_OBJECT);
	return object->pool == want->pool && same_id(&object->id, want->id);
}

struct page_match {
	const struct tmem_store *store;
	const struct tmem_key *key;
};

static bool is_page(void *arg, uint32_t ref)
{
	const struct page_match *want = arg;
	const struct tmem_slot *slot;

	if (ref & TMEM_REF_OBJECT)
		return false;
	slot = tmem_arena_slot(&want->store->arena, ref);
	return slot->index == want->key->index &&
	       tmem_slot_pool(slot) == want->key->pool &&
	       same_id(&tmem_object_nr(want->store, slot->object)->id,
		       want->key->object);
}

/* An object's own index entry lies where no page of it needs to be. */
static uint64_t entry_hash(uint64_t object_hash)
{
	return tmem_hash_word(object_hash);
}

uint64_t tmem_object_ref_hash(const struct tmem_store *store, uint32_t ref)
{
	if (ref & TMEM_REF_OBJECT)
		return entry_hash(
			tmem_object_nr(store, ref & ~TMEM_REF_OBJECT)->hash);
	return tmem_slot_hash(store, tmem_arena_slot(&store->arena, ref));
}

uint32_t tmem_object_find(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t pool, const struct tmem_object_id *id)
{
	struct object_match want = { store, id, pool };
	uint64_t hash = entry_hash(tmem_object_hash(pool, id));
	uint32_t *entry;

	entry = tmem_index_find(&shard->index, hash, is_object, &want);
	return entry ? *entry & ~TMEM_REF_OBJECT : 0;
}

uint32_t *tmem_object_find_page(struct tmem_store *store,
				const struct tmem_key *key)
{
	struct page_match want = { store, key };

	return tmem_index_find(&key->shard->index, key->hash, is_page, &want);
}

bool tmem_object_init(struct tmem_store *store, const struct tmem_key *key,
		      uint32_t nr)
{
	struct tmem_shard *shard = key->shard;
	struct tmem_object *object;
	uint32_t *head;

	if (!tmem_index_insert(&shard->index, &store->meta,
			       entry_hash(key->object_hash),
			       nr | TMEM_REF_OBJECT))
		return false;
	object = tmem_object_nr(store, nr);
	object->hash = key->object_hash;
	object->id = *key->object;
	object->pool = key->pool;
	head = tmem_object_list(shard, key->pool);
	object->next = *head;
	if (*head)
		tmem_object_nr(store, *head)->prev = nr;
	*head = nr;
	shard->stats.objects++;
	return true;
}

static uint32_t create_object(struct tmem_store *store,
			      const struct tmem_key *key)
	TMEM_REQUIRES(&key->shard->lock)
{
	uint32_t nr = tmem_records_alloc(&store->objects);

	if (!nr)
		return 0;
	if (!tmem_object_init(store, key, nr)) {
		tmem_records_free(&store->objects, nr);
		return 0;
	}
	if (!tmem_durable_object(store, key->shard, nr)) {
		tmem_object_free(store, key->shard, nr);
		return 0;
	}
	return nr;
}

void tmem_object_free(struct tmem_store *store, struct tmem_shard *shard,
		      uint32_t nr)
{
	struct tmem_object *object = tmem_object_nr(store, nr);

	tmem_durable_gone(store, &object->slot);
	tmem_index_remove(&shard->index, &store->meta, entry_hash(object->hash),
			  nr | TMEM_REF_OBJECT);
	if (object->prev)
		tmem_object_nr(store, object->prev)->next = object->next;
	else
		*tmem_object_list(shard, object->pool) = object->next;
	if (shard->walk == nr)
		shard->walk = object->next;
	if (object->next)
		tmem_object_nr(store, object->next)->prev = object->prev;
	shard->stats.objects--;
	tmem_records_free(&store->objects, nr);
}

/* At the list's head; the tail, head's prev, is the oldest. */
static void link_page(struct tmem_store *store, struct tmem_object *object,
		      uint32_t handle)
{
	tmem_arena_list_add(&store->arena, &object->head, handle);
	object->nr_pages++;
}

static void unlink_page(struct tmem_store *store, struct tmem_object *object,
			uint32_t handle)
{
	struct tmem_link *link = tmem_arena_link(&store->arena, handle);

	tmem_arena_link(&store->arena, link->prev)->next = link->next;
	tmem_arena_link(&store->arena, link->next)->prev = link->prev;
	if (object->head == handle)
		object->head = link->next == handle ? 0 : link->next;
	object->nr_pages--;
}

/* The gauge of pages of that form. */
static uint64_t *form_gauge(struct tmem_stats *stats, unsigned form)
{
	switch (form) {
	case TMEM_FORM_SAME:
		return &stats->same_pages;
	case TMEM_FORM_LZ4:
		return &stats->lz4_pages;
	case TMEM_FORM_RAW:
		return &stats->raw_pages;
	case TMEM_FORM_ZSTD:
		return &stats->zstd_pages;
	case TMEM_FORM_TIER:
		return &stats->tier_pages;
	case TMEM_FORM_LZ4_DICT:
		return &stats->lz4_dict_pages;
	case TMEM_FORM_ZSTD_DICT:
		return &stats->zstd_dict_pages;
	default:
		return &stats->ref_pages;
	}
}

static void gauge(struct tmem_shard *shard, unsigned form, int by)
{
	shard->stats.pages += (uint64_t)by;
	*form_gauge(&shard->stats, form) += (uint64_t)by;
	atomic_store_explicit(&shard->nr_pages, (uint32_t)shard->stats.pages,
			      memory_order_relaxed);
}

static bool is_ephemeral(const struct tmem_store *store,
			 const struct tmem_slot *slot)
{
	return tmem_pool_has(store, tmem_slot_pool(slot), TMEM_POOL_EPHEMERAL);
}

/* Bytes of an ephemeral pool's slot come or go. */
static void charge(struct tmem_store *store, const struct tmem_slot *slot,
		   int64_t bytes)
{
	if (is_ephemeral(store, slot))
		atomic_fetch_add_explicit(
			&store->pools[tmem_slot_pool(slot)].bytes,
			(uint64_t)bytes, memory_order_relaxed);
}

/*
 * What an ephemeral page's data leaves of the limit: eviction frees slots here
 * and there, but metadata need whole pages, and must not wait for one.
 */
static uint64_t spare_bytes(const struct tmem_store *store, uint32_t pool)
{
	if (!tmem_pool_has(store, pool, TMEM_POOL_EPHEMERAL))
		return 0;
	return tmem_account_limit(&store->account) / SPARE_PART + SPARE_LEAST;
}

/* A new slot's place in the order of eviction; false: no memory. */
static bool queue_page(struct tmem_store *store, const struct tmem_key *key,
		       uint32_t handle) TMEM_REQUIRES(&key->shard->lock)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);

	return !is_ephemeral(store, slot) ||
	       tmem_queue_add(store, key->shard, handle, key->hash);
}

/* A slot that names the page, indexed and queued; or 0. */
static uint32_t new_slot(struct tmem_store *store, const struct tmem_key *key,
			 uint32_t object, unsigned length)
	TMEM_REQUIRES(&key->shard->lock)
{
	uint32_t handle = tmem_arena_alloc(&store->arena, length,
					   spare_bytes(store, key->pool));
	struct tmem_slot *slot;

	if (!handle)
		return 0;
	slot = tmem_arena_slot(&store->arena, handle);
	slot->object = object;
	slot->index = key->index;
	slot->place = tmem_slot_place(key->pool,
				      (uint32_t)(key->shard - store->shards));
	if (!tmem_index_insert(&key->shard->index, &store->meta, key->hash,
			       handle)) {
		tmem_arena_release(&store->arena, handle);
		return 0;
	}
	if (!queue_page(store, key, handle)) {
		tmem_index_remove(&key->shard->index, &store->meta, key->hash,
				  handle);
		tmem_arena_release(&store->arena, handle);
		return 0;
	}
	return handle;
}

uint32_t tmem_object_add_page(struct tmem_store *store,
			      const struct tmem_key *key, unsigned length)
{
	uint32_t nr, handle;

	nr = tmem_object_find(store, key->shard, key->pool, key->object);
	if (!nr)
		nr = create_object(store, key);
	if (!nr)
		return 0;
	handle = new_slot(store, key, nr, length);
	if (handle)
		link_page(store, tmem_object_nr(store, nr), handle);
	else if (!tmem_object_nr(store, nr)->nr_pages)
		tmem_object_free(store, key->shard, nr);
	return handle;
}

static void count_page(struct tmem_store *store, struct tmem_shard *shard,
		       uint32_t handle, unsigned form)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	unsigned size = tmem_arena_size_of(&store->arena, handle);

	gauge(shard, form, 1);
	shard->stats.slot_bytes += size;
	charge(store, slot, size);
	if (form != TMEM_FORM_REF)
		shard->stats.stored_bytes += slot->length;
	if (form == TMEM_FORM_TIER)
		tmem_tiering_note(store, &shard->stats, slot->data);
	tmem_dicts_count(store, tmem_dicts_of_slot(slot), 1);
}

void tmem_object_fill(struct tmem_store *store, struct tmem_shard *shard,
		      uint32_t handle, unsigned form, const void *data,
		      unsigned length)
{
	struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);

	slot->length = (uint16_t)length;
	memcpy(slot->data, data, length);
	tmem_slot_publish(slot, (uint64_t)form << TMEM_SLOT_FORM_SHIFT |
					++shard->generation);
	count_page(store, shard, handle, form);
}

/* Off the gauges of pages, but not of bytes: a shared slot may stay. */
static void uncount_page(struct tmem_shard *shard, const struct tmem_slot *slot)
{
	gauge(shard, tmem_slot_form(slot), -1);
}

/* A slot's data, to be counted out once the slot is gone. */
struct data {
	unsigned form;
	unsigned length;
	unsigned size;
	uint32_t dict;
	struct tmem_place place; /* if that is what it is */
};

static struct data data_of(const struct tmem_store *store, uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct data data = {
		.form = tmem_slot_form(slot),
		.length = slot->length,
		.size = tmem_arena_size_of(&store->arena, handle),
		.dict = tmem_dicts_of_slot(slot),
	};

	if (data.form == TMEM_FORM_TIER)
		memcpy(&data.place, slot->data, sizeof(data.place));
	return data;
}

static void uncount_bytes(struct tmem_store *store, struct tmem_shard *shard,
			  const struct data *data)
{
	shard->stats.slot_bytes -= data->size;
	if (data->form != TMEM_FORM_REF)
		shard->stats.stored_bytes -= data->length;
	if (data->form == TMEM_FORM_TIER)
		tmem_tiering_forget(store, &shard->stats, &data->place);
	tmem_dicts_count(store, data->dict, -1);
}

void tmem_object_uncount(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct data data = data_of(store, handle);

	uncount_page(shard, slot);
	charge(store, slot, -(int64_t)data.size);
	uncount_bytes(store, shard, &data);
}

void tmem_object_unshare(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle)
{
	struct data data = data_of(store, handle);

	if (tmem_arena_unshare(&store->arena, handle))
		uncount_bytes(store, shard, &data);
}

void tmem_object_unshare_moved(struct tmem_store *store,
			       struct tmem_shard *shard, uint32_t handle)
{
	struct data data = data_of(store, handle);

	if (tmem_arena_unshare_moved(&store->arena, handle))
		uncount_bytes(store, shard, &data);
}

/* Gives a reference's target up. */
void tmem_object_unrefer(struct tmem_store *store, struct tmem_shard *shard,
			 const struct tmem_slot *reference)
{
	uint32_t target;

	memcpy(&target, reference->data, sizeof(target));
	tmem_object_unshare(store, shard, target);
}

void tmem_object_release(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct data data = data_of(store, handle);

	uncount_page(shard, slot);
	charge(store, slot, -(int64_t)data.size);
	if (data.form == TMEM_FORM_REF)
		tmem_object_unrefer(store, shard, slot);
	if (tmem_arena_release(&store->arena, handle))
		uncount_bytes(store, shard, &data);
}

uint32_t tmem_object_move_page(struct tmem_store *store,
			       struct tmem_shard *shard, uint32_t *entry,
			       unsigned length)
{
	uint32_t old = *entry, new;
	struct tmem_slot *from = tmem_arena_slot(&store->arena, old), *to;
	struct tmem_object *object;

	new = tmem_arena_alloc(&store->arena, length,
			       spare_bytes(store, tmem_slot_pool(from)));
	if (!new)
		return 0;
	to = tmem_arena_slot(&store->arena, new);
	to->object = from->object;
	to->index = from->index;
	to->place = from->place;
	if (is_ephemeral(store, from) &&
	    !tmem_queue_move(store, shard, old, new)) {
		tmem_arena_release(&store->arena, new);
		return 0;
	}
	tmem_saving_keep(store, shard, old);
	object = tmem_object_nr(store, from->object);
	/* In its place: its neighbours are near, the list's head is not. */
	tmem_arena_list_replace(&store->arena, &object->head, old, new);
	*entry = new;
	return old;
}

static bool is_ref(void *arg, uint32_t ref)
{
	return ref == *(const uint32_t *)arg;
}

bool tmem_object_relocate(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t handle)
{
	const struct tmem_slot *from = tmem_arena_slot(&store->arena, handle);
	uint32_t new = tmem_arena_find(&store->arena, handle);

	if (!new)
		return false;
	if (tmem_durable_is(from)) {
		tmem_slot_copy(tmem_arena_slot(&store->arena, new), from);
		tmem_durable_moved(store, handle, new);
		tmem_arena_release_moved(&store->arena, handle);
		return true;
	}
	if (is_ephemeral(store, from) &&
	    !tmem_queue_move(store, shard, handle, new)) {
		tmem_arena_release(&store->arena, new);
		return false;
	}
	tmem_slot_copy(tmem_arena_slot(&store->arena, new), from);
	tmem_arena_list_replace(&store->arena,
				&tmem_object_nr(store, from->object)->head,
				handle, new);
	*tmem_index_find(&shard->index, tmem_slot_hash(store, from), is_ref,
			 &handle) = new;
	tmem_arena_release_moved(&store->arena, handle);
	return true;
}

/* Its data is there twice from now on. */
static void count_copy(struct tmem_store *store, struct tmem_shard *shard,
		       uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);

	shard->stats.slot_bytes += tmem_arena_size_of(&store->arena, handle);
	shard->stats.stored_bytes += slot->length;
	if (tmem_slot_form(slot) == TMEM_FORM_TIER)
		tmem_tiering_note(store, &shard->stats, slot->data);
	tmem_dicts_count(store, tmem_dicts_of_slot(slot), 1);
}

bool tmem_object_relocate_shared(struct tmem_store *store,
				 struct tmem_shard *shard, uint32_t handle)
{
	const struct tmem_slot *from = tmem_arena_slot(&store->arena, handle);
	bool orphan = tmem_arena_is_orphan(&store->arena, handle);
	uint32_t new;

	/* An ephemeral page's slot is shared by pins only, for a moment. */
	if (!orphan && is_ephemeral(store, from))
		return false;
	new = tmem_arena_find(&store->arena, handle);
	if (!new)
		return false;
	if (!tmem_arena_share(&store->arena, new)) {
		tmem_arena_release(&store->arena, new);
		return false;
	}
	tmem_slot_copy(tmem_arena_slot(&store->arena, new), from);
	count_copy(store, shard, new);
	if (orphan) { /* and so is the copy */
		tmem_arena_release_moved(&store->arena, new);
	} else {
		tmem_arena_list_replace(
			&store->arena,
			&tmem_object_nr(store, from->object)->head, handle,
			new);
		*tmem_index_find(&shard->index, tmem_slot_hash(store, from),
				 is_ref, &handle) = new;
		tmem_arena_release_moved(&store->arena, handle);
	}
	tmem_arena_set_moved(&store->arena, handle, new);
	atomic_fetch_add_explicit(&store->nr_pinned, 1, memory_order_relaxed);
	return true;
}

bool tmem_object_redirect(struct tmem_store *store, struct tmem_shard *shard,
			  uint64_t hash, uint32_t handle)
{
	uint32_t *entry = tmem_index_find(&shard->index, hash, is_ref, &handle);
	struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct tmem_object_form new = { TMEM_FORM_REF, sizeof(uint32_t), NULL };
	uint32_t from, to;

	/* What is damaged leads anywhere; the next load will say so. */
	if (!entry || tmem_slot_form(slot) != TMEM_FORM_REF ||
	    !tmem_arena_is_whole(&store->arena, handle))
		return false;
	memcpy(&from, slot->data, sizeof(from));
	if (!tmem_arena_has_moved(&store->arena, from))
		return false;
	to = tmem_arena_share(&store->arena, from);
	if (!to)
		return false;
	new.data = &to;
	if (!tmem_store_lasts(store)) {
		memcpy(slot->data, &to, sizeof(to));
		tmem_slot_seal(slot);
		tmem_object_unshare_moved(store, shard, from);
		return true;
	}
	/* No slot is rewritten that may be read after a kill. */
	if (tmem_object_change_form(store, shard, entry, &new))
		return true;
	tmem_object_unshare(store, shard, to);
	return false;
}

/*
 * Gives the page at an index entry a slot for `length` bytes, to be filled; its
 * place in lists and queues stays.  The old one, to be released, or 0.
 */
static uint32_t reshape(struct tmem_store *store, struct tmem_shard *shard,
			uint32_t *entry, unsigned length)
	TMEM_REQUIRES(&shard->lock)
{
	uint32_t old = *entry, new = tmem_arena_alloc(&store->arena, length, 0);
	struct tmem_slot *from = tmem_arena_slot(&store->arena, old), *to;

	if (!new)
		return 0;
	to = tmem_arena_slot(&store->arena, new);
	to->object = from->object;
	to->index = from->index;
	to->place = from->place;
	if (is_ephemeral(store, from) &&
	    !tmem_queue_move(store, shard, old, new)) {
		tmem_arena_release(&store->arena, new);
		return 0;
	}
	tmem_arena_list_replace(&store->arena,
				&tmem_object_nr(store, from->object)->head, old,
				new);
	*entry = new;
	return old;
}

/* The content is as old as it was: see saving.h. */
static void keep_epoch(struct tmem_slot *slot, uint64_t epoch)
{
	slot->form_generation = (slot->form_generation & ~EPOCH_MASK) | epoch;
	tmem_slot_seal(slot);
}

bool tmem_object_change_form(struct tmem_store *store, struct tmem_shard *shard,
			     uint32_t *entry,
			     const struct tmem_object_form *new)
{
	uint64_t epoch =
		tmem_arena_slot(&store->arena, *entry)->form_generation &
		EPOCH_MASK;
	uint32_t old = reshape(store, shard, entry, new->length);

	if (!old)
		return false;
	tmem_object_fill(store, shard, *entry, new->form, new->data,
			 new->length);
	keep_epoch(tmem_arena_slot(&store->arena, *entry), epoch);
	tmem_object_release(store, shard, old);
	return true;
}

void tmem_object_drop_page(struct tmem_store *store, struct tmem_shard *shard,
			   uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	uint32_t nr = slot->object;
	struct tmem_object *object = tmem_object_nr(store, nr);

	tmem_saving_keep(store, shard, handle);
	tmem_index_remove(&shard->index, &store->meta,
			  tmem_slot_hash(store, slot), handle);
	if (is_ephemeral(store, slot))
		tmem_queue_remove(store, shard, handle);
	unlink_page(store, object, handle);
	tmem_object_release(store, shard, handle);
	if (!object->nr_pages)
		tmem_object_free(store, shard, nr);
}

uint32_t tmem_object_drop(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t nr, uint32_t max)
{
	struct tmem_object *object = tmem_object_nr(store, nr);
	uint32_t left = object->nr_pages < max ? object->nr_pages : max;
	uint32_t dropped;

	for (dropped = 0; dropped < left; dropped++) {
		uint32_t oldest;

		oldest = tmem_arena_link(&store->arena, object->head)->prev;
		tmem_object_drop_page(store, shard, oldest);
	}
	return dropped;
}

void tmem_object_adopt_orphan(struct tmem_store *store,
			      struct tmem_shard *shard, uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);

	shard->stats.slot_bytes += tmem_arena_size_of(&store->arena, handle);
	shard->stats.stored_bytes += slot->length;
	tmem_dicts_count(store, tmem_dicts_of_slot(slot), 1);
	if (tmem_slot_form(slot) == TMEM_FORM_TIER)
		tmem_tiering_note(store, &shard->stats, slot->data);
	tmem_arena_release(&store->arena, handle);
}

bool tmem_object_adopt_page(struct tmem_store *store,
			    const struct tmem_key *key, uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct tmem_shard *shard = key->shard;

	if (!tmem_index_insert(&shard->index, &store->meta, key->hash, handle))
		return false;
	if (!queue_page(store, key, handle)) {
		tmem_index_remove(&shard->index, &store->meta, key->hash,
				  handle);
		return false;
	}
	link_page(store, tmem_object_nr(store, slot->object), handle);
	count_page(store, shard, handle, tmem_slot_form(slot));
	return true;
}
