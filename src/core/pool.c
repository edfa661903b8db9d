/* SPDX-License-Identifier: MIT */
/*
 * Pools: create, join, leave, destroy, clone.  Control operations: one at a
 * time, under the store's control lock.
 *
 * Who may use a pool is a mask of clients.  A shared pool has no owner: its
 * bytes count for all its clients in equal parts, so that nothing has to be
 * handed over when one leaves; only the objects that the leaver was the last
 * to use go with it.
 */
#include "pool.h"

#include <errno.h>
#include <string.h>

#include "cool.h"
#include "dedup.h"
#include "dicts.h"
#include "durable.h"
#include "object.h"
#include "queue.h"

enum {
	DROP_BATCH = 256,
	LOOK_BATCH = 256,
	EVERY_CLIENT = -1,
	NOBODY = -2 /* all pages, which were never anybody's: not counted */
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

/*
 * An id comes again after 2^24 others of its number: a stale one is told.  Its
 * clients come first, if it has any yet.
 */
static tmem_pool_id publish_locked(struct tmem_store *store,
				   struct tmem_pool *pool)
	TMEM_REQUIRES(&store->control)
{
	uint32_t number = (uint32_t)(pool - store->pools);
	tmem_pool_id id;

	do
		id = ++pool->generation * TMEM_MAX_POOLS + number;
	while (id < TMEM_MAX_POOLS);
	atomic_store_explicit(&pool->id, id, memory_order_release);
	return id;
}

/*
 * Looks at some of the pool's objects, from shard->walk on, and drops those
 * that `client` was the last to use, or all; false if these were the last.
 */
static bool drop_some_locked(struct tmem_store *store, struct tmem_shard *shard,
			     uint32_t pool, int client)
	TMEM_REQUIRES(&shard->lock)
{
	uint32_t budget = DROP_BATCH, dropped = 0, looked = 0;
	uint64_t *counter = client >= 0 ? &shard->stats.left_pages
					: &shard->stats.pool_pages;

	while (shard->walk && dropped < budget && looked++ < LOOK_BATCH) {
		uint32_t nr = shard->walk;
		const struct tmem_object *object = tmem_object_nr(store, nr);

		if (object->pool == pool &&
		    (client < 0 || object->client == (uint32_t)client ||
		     object->client == TMEM_CLIENT_UNKNOWN))
			dropped += tmem_object_drop(store, shard, nr,
						    budget - dropped);
		/* An object that is gone has moved it on. */
		if (shard->walk == nr && dropped < budget)
			shard->walk = object->next;
	}
	if (client != NOBODY)
		*counter += dropped;
	return shard->walk != 0;
}

/*
 * Of all shards, in turn: whoever waits for one gets it before it is locked
 * again.
 */
static void drop_all(struct tmem_store *store, uint32_t pool, int client)
{
	bool more = true;
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++) {
		struct tmem_shard *shard = &store->shards[i];

		tmem_lock_acquire(&shard->lock);
		shard->walk = *tmem_object_list(shard, pool);
		tmem_lock_release(&shard->lock);
	}
	while (more) {
		more = false;
		for (i = 0; i < store->nr_shards; i++) {
			struct tmem_shard *shard = &store->shards[i];

			tmem_lock_acquire(&shard->lock);
			more |= drop_some_locked(store, shard, pool, client);
			tmem_dedup_trim(store);
			tmem_lock_release(&shard->lock);
		}
	}
}

/* The live shared pool of that UUID, or NULL. */
static struct tmem_pool *find_shared_locked(struct tmem_store *store,
					    const uint64_t uuid[2])
	TMEM_REQUIRES(&store->control)
{
	uint32_t i;

	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		struct tmem_pool *pool = &store->pools[i];

		if (atomic_load(&pool->id) &&
		    (atomic_load(&pool->flags) & TMEM_POOL_SHARED) &&
		    pool->uuid[0] == uuid[0] && pool->uuid[1] == uuid[1])
			return pool;
	}
	return NULL;
}

/* Nobody uses it any more; `client`: EVERY_CLIENT, or NOBODY ever did. */
static void remove_locked(struct tmem_store *store, struct tmem_pool *pool,
			  int client) TMEM_REQUIRES(&store->control)
{
	uint32_t number = (uint32_t)(pool - store->pools);

	/* Who takes a shard's lock after us sees that it is gone. */
	atomic_store(&pool->id, 0);
	tmem_durable_gone(store, &pool->slot);
	tmem_dicts_retire(store, number);
	drop_all(store, number, client);
	atomic_store(&pool->clients, 0);
	atomic_store(&pool->staged, 0);
	TMEM_ASSERT(atomic_load(&pool->bytes) == 0);
	atomic_store(&pool->flags, 0);
	pool->used = 0;
}

static uint16_t *joins_of(struct tmem_pool *pool,
			  const struct tmem_client *client)
{
	return &atomic_load(&pool->queues)->joins[client->nr];
}

bool tmem_pool_make_queues(struct tmem_store *store, struct tmem_pool *pool)
{
	if (!atomic_load(&pool->queues))
		atomic_store(&pool->queues, tmem_meta_alloc(&store->meta, 1));
	if (!atomic_load(&store->ghost.nr_entries))
		tmem_ghost_init(&store->ghost, &store->meta,
				tmem_account_limit(&store->account));
	return atomic_load(&pool->queues) != NULL;
}

static int join_locked(struct tmem_client *client, struct tmem_pool *pool,
		       tmem_pool_id *ret_pool)
	TMEM_REQUIRES(&client->store->control)
{
	uint64_t bit = 1ull << client->nr;

	if (*joins_of(pool, client) == UINT16_MAX)
		return -ENOSPC;
	++*joins_of(pool, client);
	atomic_fetch_or(&pool->clients, bit);
	if (!tmem_durable_pool(client->store, pool)) {
		if (!--*joins_of(pool, client))
			atomic_fetch_and(&pool->clients, ~bit);
		return -ENOMEM;
	}
	*ret_pool = atomic_load(&pool->id);
	return 0;
}

/* A number, with what its kind needs. */
static int prepare_locked(struct tmem_client *client, uint32_t flags,
			  struct tmem_pool **ret_pool)
	TMEM_REQUIRES(&client->store->control)
{
	struct tmem_store *store = client->store;
	int number = reserve_locked(client->store);
	struct tmem_pool *pool;

	if (number < 0)
		return number;
	pool = &store->pools[number];
	if ((flags & TMEM_POOL_EPHEMERAL) &&
	    !tmem_pool_make_queues(store, pool)) {
		pool->used = 0;
		return -ENOMEM;
	}
	atomic_store(&pool->flags, flags);
	if (flags & TMEM_POOL_EPHEMERAL)
		*joins_of(pool, client) = 1;
	*ret_pool = pool;
	return 0;
}

static int make_locked(struct tmem_client *client,
		       const struct tmem_pool_options *options, uint32_t flags,
		       tmem_pool_id *ret_pool)
	TMEM_REQUIRES(&client->store->control)
{
	struct tmem_pool *pool;
	tmem_pool_id id;
	int r = prepare_locked(client, flags, &pool);

	if (r < 0)
		return r;
	if (flags & TMEM_POOL_SHARED)
		memcpy(pool->uuid, options->uuid, sizeof(pool->uuid));
	atomic_store(&pool->clients, 1ull << client->nr);
	id = publish_locked(client->store, pool);
	if (!tmem_durable_pool(client->store, pool)) {
		remove_locked(client->store, pool, NOBODY);
		return -ENOMEM;
	}
	*ret_pool = id;
	return 0;
}

static int create_locked(struct tmem_client *client,
			 const struct tmem_pool_options *options,
			 tmem_pool_id *ret_pool)
	TMEM_REQUIRES(&client->store->control)
{
	uint32_t flags = options ? options->flags : 0;
	struct tmem_pool *pool;
	int r;

	if (!(flags & TMEM_POOL_SHARED))
		return make_locked(client, options, flags, ret_pool);
	if (!tmem_client_may_share(client, options->uuid)) {
		flags &= ~(uint32_t)TMEM_POOL_SHARED;
		r = make_locked(client, options, flags, ret_pool);
		return r < 0 ? r : TMEM_PRIVATE;
	}
	pool = find_shared_locked(client->store, options->uuid);
	if (pool)
		return join_locked(client, pool, ret_pool);
	return make_locked(client, options, flags, ret_pool);
}

int tmem_pool_create(struct tmem_client *client,
		     const struct tmem_pool_options *options,
		     tmem_pool_id *ret_pool)
{
	const uint32_t both = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED;
	int r;

	if (options &&
	    ((options->flags & ~both) || options->flags == TMEM_POOL_SHARED))
		return -EINVAL;
	tmem_lock_acquire(&client->store->control);
	r = create_locked(client, options, ret_pool);
	tmem_lock_release(&client->store->control);
	return r;
}

/*
 * A client has left, or will have to leave less often.  If there is no memory
 * to note it a shared pool rather goes with this process than that the client
 * comes back.
 */
static void note_locked(struct tmem_store *store, struct tmem_pool *pool)
	TMEM_REQUIRES(&store->control)
{
	if (!tmem_durable_pool(store, pool))
		tmem_durable_gone(store, &pool->slot);
}

static void leave_locked(struct tmem_client *client, struct tmem_pool *pool)
	TMEM_REQUIRES(&client->store->control)
{
	struct tmem_store *store = client->store;
	uint64_t bit = 1ull << client->nr;

	if ((atomic_load(&pool->flags) & TMEM_POOL_EPHEMERAL) &&
	    --*joins_of(pool, client)) {
		note_locked(client->store, pool);
		return; /* it has joined more than once */
	}
	if (atomic_load(&pool->clients) == bit) {
		remove_locked(client->store, pool, EVERY_CLIENT);
		return;
	}
	atomic_fetch_and(&pool->clients, ~bit);
	drop_all(store, (uint32_t)(pool - store->pools), (int)client->nr);
	note_locked(client->store, pool);
}

int tmem_pool_destroy(struct tmem_client *client, tmem_pool_id id)
{
	struct tmem_pool *pool;

	tmem_lock_acquire(&client->store->control);
	pool = tmem_pool_of(client, id);
	if (pool)
		leave_locked(client, pool);
	tmem_lock_release(&client->store->control);
	return pool ? 0 : -ENOENT;
}

/* Nobody but its maker knows it, so it is there. */
static struct tmem_pool *staged_of(struct tmem_client *client, tmem_pool_id id)
{
	struct tmem_pool *pool = &client->store->pools[tmem_pool_number(id)];

	TMEM_ASSERT(atomic_load(&pool->id) == id && atomic_load(&pool->staged));
	return pool;
}

int tmem_pool_stage(struct tmem_client *client, uint32_t flags,
		    tmem_pool_id *ret_pool)
{
	struct tmem_pool *pool;
	int r;

	tmem_lock_acquire(&client->store->control);
	r = prepare_locked(client, flags, &pool);
	if (r == 0) {
		atomic_store(&pool->staged, 1ull << client->nr);
		*ret_pool = publish_locked(client->store, pool);
	}
	tmem_lock_release(&client->store->control);
	return r;
}

int tmem_pool_note_staged(struct tmem_client *client, tmem_pool_id id)
{
	struct tmem_pool *pool = staged_of(client, id);
	bool noted;

	tmem_lock_acquire(&client->store->control);
	noted = tmem_durable_pool(client->store, pool);
	tmem_lock_release(&client->store->control);
	return noted ? 0 : -ENOMEM;
}

void tmem_pool_show_staged_locked(struct tmem_client *client, tmem_pool_id id)
{
	struct tmem_pool *pool = staged_of(client, id);

	/* Its bytes count for somebody all the time. */
	atomic_store(&pool->clients, atomic_load(&pool->staged));
	atomic_store(&pool->staged, 0);
}

void tmem_pool_discard(struct tmem_client *client, tmem_pool_id id)
{
	struct tmem_pool *pool = staged_of(client, id);

	tmem_lock_acquire(&client->store->control);
	if (atomic_load(&pool->flags) & TMEM_POOL_EPHEMERAL)
		*joins_of(pool, client) = 0;
	remove_locked(client->store, pool, NOBODY);
	tmem_lock_release(&client->store->control);
}

void tmem_pool_leave_all_locked(struct tmem_client *client) TMEM_UNANALYSED
{
	struct tmem_store *store = client->store;
	uint64_t bit = 1ull << client->nr;
	uint32_t i;

	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		struct tmem_pool *pool = &store->pools[i];

		if (!atomic_load(&pool->id))
			continue;
		while (atomic_load(&pool->clients) & bit)
			leave_locked(client, pool);
	}
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
	tmem_cool_touch(tmem_arena_slot(&store->arena, target));
	target = tmem_arena_share(&store->arena, target);
	if (!target)
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
		for (nr = *tmem_object_list(&store->shards[i], from); nr;
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

		shard->walk = *tmem_object_list(shard, pool);
		while (drop_some_locked(store, shard, pool, NOBODY))
			;
	}
}

/* With every shard held: the clone, whole or not at all. */
static int clone_locked(struct tmem_client *client, uint32_t from, int number,
			tmem_pool_id *ret_pool) TMEM_UNANALYSED
{
	struct tmem_store *store = client->store;
	struct tmem_pool *pool = &store->pools[number];
	tmem_pool_id id;

	if (clone_all(store, from, (uint32_t)number)) {
		atomic_store(&pool->clients, 1ull << client->nr);
		id = publish_locked(store, pool);
		if (tmem_durable_pool(store, pool)) {
			store->shards[0].stats.clones++;
			*ret_pool = id;
			return 0;
		}
		atomic_store(&pool->id, 0);
		atomic_store(&pool->clients, 0);
	}
	undo_clone(store, (uint32_t)number);
	pool->used = 0;
	return -ENOMEM;
}

/* The number of the clone-to-be, or why there can be none. */
static int reserve_clone_locked(struct tmem_client *client, tmem_pool_id id)
	TMEM_REQUIRES(&client->store->control)
{
	const struct tmem_pool *pool = tmem_pool_of(client, id);

	if (!pool)
		return -ENOENT;
	if (atomic_load(&pool->flags) & TMEM_POOL_EPHEMERAL)
		return -EINVAL;
	return reserve_locked(client->store);
}

int tmem_pool_clone(struct tmem_client *client, tmem_pool_id pool,
		    tmem_pool_id *ret_pool) TMEM_UNANALYSED
{
	struct tmem_store *store = client->store;
	int number, r;

	tmem_lock_acquire(&store->control);
	r = number = reserve_clone_locked(client, pool);
	if (number >= 0) {
		tmem_shards_acquire(store);
		r = clone_locked(client, tmem_pool_number(pool), number,
				 ret_pool);
		tmem_shards_release(store);
	}
	tmem_lock_release(&store->control);
	return r;
}
