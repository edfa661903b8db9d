/* SPDX-License-Identifier: MIT */
/*
 * Pools: create, destroy, clone.  Control operations: one at a time, under
 * the store's control lock.
 */
#include <errno.h>
#include <string.h>

#include "object.h"

enum {
	DROP_BATCH = 256
};

/* A free pool number, or -ENOSPC. */
static int reserve_locked(struct tmem_store *store)
	TMEM_REQUIRES(&store->control)
{
	int i;

	for (i = 0; i < TMEM_MAX_POOLS; i++)
		if (!store->pools[i].used) {
			store->pools[i].used = 1;
			return i;
		}
	return -ENOSPC;
}

/* An id comes again after 2^24 others of its number: a stale one is told. */
static tmem_pool_id publish_locked(struct tmem_store *store, int number)
	TMEM_REQUIRES(&store->control)
{
	struct tmem_pool *pool = &store->pools[number];
	tmem_pool_id id;

	do
		id = ++pool->generation * TMEM_MAX_POOLS + (uint32_t)number;
	while (id < TMEM_MAX_POOLS);
	atomic_store_explicit(&pool->id, id, memory_order_release);
	return id;
}

/* Drops some pages of the pool; false if the shard has none any more. */
static bool drop_some_locked(struct tmem_store *store, struct tmem_shard *shard,
			     uint32_t pool) TMEM_REQUIRES(&shard->lock)
{
	uint32_t nr, next, budget = DROP_BATCH;

	for (nr = shard->objects; nr && budget; nr = next) {
		next = tmem_object_nr(store, nr)->next;
		if (tmem_object_nr(store, nr)->pool == pool)
			budget -= tmem_object_drop(store, shard, nr, budget);
	}
	shard->stats.pool_pages += DROP_BATCH - budget;
	return !budget;
}

static void drop_shard(struct tmem_store *store, struct tmem_shard *shard,
		       uint32_t pool)
{
	bool more;

	do {
		tmem_lock_acquire(&shard->lock);
		more = drop_some_locked(store, shard, pool);
		tmem_lock_release(&shard->lock);
	} while (more);
}

int tmem_pool_create(struct tmem_store *store, tmem_pool_id *ret_pool)
{
	int number;

	tmem_lock_acquire(&store->control);
	number = reserve_locked(store);
	if (number >= 0)
		*ret_pool = publish_locked(store, number);
	tmem_lock_release(&store->control);
	return number < 0 ? number : 0;
}

int tmem_pool_destroy(struct tmem_store *store, tmem_pool_id pool)
{
	uint32_t number = tmem_pool_number(pool), i;
	int r = -ENOENT;

	tmem_lock_acquire(&store->control);
	if (tmem_pool_is_live(store, pool)) {
		/* Who takes a shard's lock after us sees that it is gone. */
		atomic_store(&store->pools[number].id, 0);
		for (i = 0; i < store->nr_shards; i++)
			drop_shard(store, &store->shards[i], number);
		store->pools[number].used = 0;
		r = 0;
	}
	tmem_lock_release(&store->control);
	return r;
}

/* The clone of one page: the same word, or a reference to the data. */
static bool clone_page(struct tmem_store *store, const struct tmem_key *key,
		       uint32_t handle) TMEM_UNANALYSED
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	uint32_t target = handle, new;

	if (tmem_slot_form(slot) == TMEM_FORM_REF)
		memcpy(&target, slot->data, sizeof(target));
	if (tmem_slot_form(slot) == TMEM_FORM_SAME) {
		new = tmem_object_add_page(store, key, slot->length);
		if (new)
			tmem_object_fill(store, key->shard, new, TMEM_FORM_SAME,
					 slot->data, slot->length);
		return new != 0;
	}
	if (!tmem_arena_share(&store->arena, target))
		return false;
	new = tmem_object_add_page(store, key, sizeof(target));
	if (new)
		tmem_object_fill(store, key->shard, new, TMEM_FORM_REF, &target,
				 sizeof(target));
	else
		tmem_arena_unshare(&store->arena, target);
	return new != 0;
}

static bool clone_object(struct tmem_store *store, uint32_t nr,
			 uint32_t pool) TMEM_UNANALYSED
{
	struct tmem_object *object = tmem_object_nr(store, nr);
	uint32_t handle = object->head;

	do {
		struct tmem_key key;

		key = tmem_key_of(
			store, pool, &object->id,
			tmem_arena_slot(&store->arena, handle)->index);
		if (!clone_page(store, &key, handle))
			return false;
		handle = tmem_arena_link(&store->arena, handle)->next;
	} while (handle != object->head);
	return true;
}

static bool clone_all(struct tmem_store *store, uint32_t from,
		      uint32_t to) TMEM_UNANALYSED
{
	uint32_t i, nr;

	for (i = 0; i < store->nr_shards; i++)
		for (nr = store->shards[i].objects; nr;
		     nr = tmem_object_nr(store, nr)->next)
			if (tmem_object_nr(store, nr)->pool == from &&
			    !clone_object(store, nr, to))
				return false;
	return true;
}

/* With every shard held: all pages of the pool, uncounted. */
static void undo_clone(struct tmem_store *store, uint32_t pool) TMEM_UNANALYSED
{
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++) {
		struct tmem_shard *shard = &store->shards[i];
		uint64_t pool_pages = shard->stats.pool_pages;

		while (drop_some_locked(store, shard, pool))
			;
		shard->stats.pool_pages = pool_pages;
	}
}

int tmem_pool_clone(struct tmem_store *store, tmem_pool_id pool,
		    tmem_pool_id *ret_pool) TMEM_UNANALYSED
{
	int number = -ENOENT;
	bool cloned;

	tmem_lock_acquire(&store->control);
	if (tmem_pool_is_live(store, pool))
		number = reserve_locked(store);
	if (number >= 0) {
		tmem_shards_acquire(store);
		cloned = clone_all(store, tmem_pool_number(pool),
				   (uint32_t)number);
		if (cloned) {
			store->shards[0].stats.clones++;
			*ret_pool = publish_locked(store, number);
		} else {
			undo_clone(store, (uint32_t)number);
			store->pools[number].used = 0;
			number = -ENOMEM;
		}
		tmem_shards_release(store);
	}
	tmem_lock_release(&store->control);
	return number < 0 ? number : 0;
}
