/* SPDX-License-Identifier: MIT */
/* Queues of ephemeral pages; the model is in queue.h. */
#include "queue.h"

#include "object.h"

enum {
	STEPS = 4 /* for each page that is to go */
};

static struct tmem_link *link_of(const struct tmem_store *store,
				 uint32_t handle)
{
	return &tmem_arena_ages(&store->arena, handle)
			->links[handle % TMEM_SPAN_SLOTS];
}

static uint64_t bit_of(uint32_t handle)
{
	return 1ull << handle % TMEM_SPAN_SLOTS;
}

static bool is_set(_Atomic uint64_t *bits, uint32_t handle)
{
	return atomic_load_explicit(bits, memory_order_relaxed) &
	       bit_of(handle);
}

static void set(_Atomic uint64_t *bits, uint32_t handle)
{
	atomic_fetch_or_explicit(bits, bit_of(handle), memory_order_relaxed);
}

static void clear(_Atomic uint64_t *bits, uint32_t handle)
{
	atomic_fetch_and_explicit(bits, ~bit_of(handle), memory_order_relaxed);
}

static enum tmem_queue_kind kind_of(const struct tmem_store *store,
				    uint32_t handle)
{
	return is_set(&tmem_arena_ages(&store->arena, handle)->main, handle)
		       ? TMEM_QUEUE_MAIN
		       : TMEM_QUEUE_SMALL;
}

/* The shard's lock is held: nobody else writes its count. */
static void count(struct tmem_store *store, struct tmem_queue *q,
		  enum tmem_queue_kind kind, uint32_t handle, int delta)
{
	uint32_t pool = tmem_slot_pool(tmem_arena_slot(&store->arena, handle));
	struct tmem_queues *queues = atomic_load_explicit(
		&store->pools[pool].queues, memory_order_relaxed);

	atomic_store_explicit(&q->nr[kind],
			      tmem_queue_nr(q, kind) + (uint32_t)delta,
			      memory_order_relaxed);
	atomic_fetch_add_explicit(&queues->nr[kind], (uint64_t)(int64_t)delta,
				  memory_order_relaxed);
}

/* At the head; the tail, head's prev, goes first. */
static void push(struct tmem_store *store, struct tmem_queue *q,
		 enum tmem_queue_kind kind, uint32_t handle)
{
	struct tmem_link *link = link_of(store, handle);

	if (!q->head[kind]) {
		link->next = link->prev = handle;
	} else {
		struct tmem_link *head = link_of(store, q->head[kind]);

		link->next = q->head[kind];
		link->prev = head->prev;
		link_of(store, head->prev)->next = handle;
		head->prev = handle;
	}
	q->head[kind] = handle;
	count(store, q, kind, handle, 1);
}

static void unlink_slot(struct tmem_store *store, struct tmem_queue *q,
			enum tmem_queue_kind kind, uint32_t handle)
{
	struct tmem_link *link = link_of(store, handle);

	link_of(store, link->prev)->next = link->next;
	link_of(store, link->next)->prev = link->prev;
	if (q->head[kind] == handle)
		q->head[kind] = link->next == handle ? 0 : link->next;
	count(store, q, kind, handle, -1);
}

/*
 * How long a ghost counts, in pages that went since.  What was loaded from a
 * private pool comes back only when its owner's own memory has turned over.
 */
static uint64_t reach_of(const struct tmem_store *store, uint32_t pool)
{
	uint64_t pages = atomic_load_explicit(&store->ephemeral_pages,
					      memory_order_relaxed);
	uint64_t least = tmem_account_limit(&store->account) / TMEM_PAGE_SIZE;

	/* As many as it could hold, if it is not full. */
	if (pages < least)
		pages = least;
	return tmem_pool_has(store, pool, TMEM_POOL_SHARED) ? pages : 2 * pages;
}

bool tmem_queue_add(struct tmem_store *store, struct tmem_shard *shard,
		    uint32_t handle, uint64_t hash)
{
	uint32_t pool = tmem_slot_pool(tmem_arena_slot(&store->arena, handle));
	enum tmem_queue_kind kind = TMEM_QUEUE_SMALL;
	struct tmem_ages *ages;

	if (!tmem_arena_age(&store->arena, handle))
		return false;
	ages = tmem_arena_ages(&store->arena, handle);
	clear(&ages->seen, handle);
	clear(&ages->again, handle);
	clear(&ages->main, handle);
	if (tmem_ghost_take(&store->ghost, hash, reach_of(store, pool))) {
		kind = TMEM_QUEUE_MAIN;
		set(&ages->main, handle);
	}
	push(store, tmem_queue_of(store, pool, shard), kind, handle);
	atomic_fetch_add_explicit(&store->ephemeral_pages, 1,
				  memory_order_relaxed);
	return true;
}

void tmem_queue_remove(struct tmem_store *store, struct tmem_shard *shard,
		       uint32_t handle)
{
	uint32_t pool = tmem_slot_pool(tmem_arena_slot(&store->arena, handle));

	unlink_slot(store, tmem_queue_of(store, pool, shard),
		    kind_of(store, handle), handle);
	atomic_fetch_sub_explicit(&store->ephemeral_pages, 1,
				  memory_order_relaxed);
}

bool tmem_queue_move(struct tmem_store *store, struct tmem_shard *shard,
		     uint32_t from, uint32_t to)
{
	uint32_t pool = tmem_slot_pool(tmem_arena_slot(&store->arena, from));
	struct tmem_queue *q = tmem_queue_of(store, pool, shard);
	enum tmem_queue_kind kind = kind_of(store, from);
	struct tmem_ages *old, *new;
	struct tmem_link *link;

	if (!tmem_arena_age(&store->arena, to))
		return false;
	old = tmem_arena_ages(&store->arena, from);
	new = tmem_arena_ages(&store->arena, to);
	(is_set(&old->main, from) ? set : clear)(&new->main, to);
	(is_set(&old->seen, from) ? set : clear)(&new->seen, to);
	(is_set(&old->again, from) ? set : clear)(&new->again, to);
	link = link_of(store, to);
	*link = *link_of(store, from);
	if (link->next == from) {
		link->next = link->prev = to;
	} else {
		link_of(store, link->next)->prev = to;
		link_of(store, link->prev)->next = to;
	}
	if (q->head[kind] == from)
		q->head[kind] = to;
	return true;
}

static void count_hit(struct tmem_store *store, uint32_t handle)
{
	uint32_t pool = tmem_slot_pool(tmem_arena_slot(&store->arena, handle));
	struct tmem_queues *queues = atomic_load_explicit(
		&store->pools[pool].queues, memory_order_relaxed);

	atomic_fetch_add_explicit(&queues->hits[kind_of(store, handle)], 1,
				  memory_order_relaxed);
}

void tmem_queue_found(struct tmem_store *store, uint32_t handle, uint64_t hash)
{
	count_hit(store, handle);
	tmem_ghost_add(&store->ghost, hash);
}

void tmem_queue_touch(struct tmem_store *store, uint32_t handle)
{
	struct tmem_ages *ages = tmem_arena_ages(&store->arena, handle);

	count_hit(store, handle);
	set(is_set(&ages->seen, handle) ? &ages->again : &ages->seen, handle);
}

/* Was it found since it was last looked at?  One of the times is used up. */
static bool spend(struct tmem_ages *ages, uint32_t handle)
{
	if (is_set(&ages->again, handle)) {
		clear(&ages->again, handle);
		return true;
	}
	if (!is_set(&ages->seen, handle))
		return false;
	clear(&ages->seen, handle);
	return true;
}

/* The page at the end of a queue: goes (true), or moves on. */
static bool turn(struct tmem_store *store, struct tmem_shard *shard,
		 struct tmem_queue *q, enum tmem_queue_kind kind)
	TMEM_REQUIRES(&shard->lock)
{
	uint32_t handle = link_of(store, q->head[kind])->prev;
	struct tmem_ages *ages = tmem_arena_ages(&store->arena, handle);
	const struct tmem_slot *slot;

	if (spend(ages, handle)) {
		unlink_slot(store, q, kind, handle);
		if (kind == TMEM_QUEUE_SMALL)
			clear(&ages->again, handle);
		set(&ages->main, handle);
		push(store, q, TMEM_QUEUE_MAIN, handle);
		return false;
	}
	slot = tmem_arena_slot(&store->arena, handle);
	if (kind == TMEM_QUEUE_SMALL)
		tmem_ghost_add(&store->ghost, tmem_slot_hash(store, slot));
	tmem_object_drop_page(store, shard, handle);
	return true;
}

unsigned tmem_queue_evict(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t pool, enum tmem_queue_kind kind,
			  unsigned max)
{
	struct tmem_queue *q = tmem_queue_of(store, pool, shard);
	unsigned steps = max * STEPS, nr = 0;

	while (nr < max && steps-- > 0 && q->head[kind])
		nr += turn(store, shard, q, kind);
	shard->stats.evicted += nr;
	return nr;
}
