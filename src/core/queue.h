/* SPDX-License-Identifier: MIT */
/*
 * In which order ephemeral pages go: for each pool and shard a *small* queue,
 * where new pages prove themselves, and a *main* one (the shape of S3-FIFO).
 *
 * A page enters the small queue, or the main one if it is known from not long
 * ago (ghost.h).  At the end of the small queue a page that was found since
 * moves to the main one, any other goes and leaves a ghost.  At the end of the
 * main queue a page that was found since goes round again, once for each time.
 * So a scan passes through the small queue, a tenth of the pages, and never
 * drives out what is in use.  Which of the two gives is decided over all
 * shards and pools of a client together (evict.c): in a shard alone a tenth is
 * a few pages, and left to chance.
 *
 * A private pool's page is gone once it is found (loads are exclusive): that
 * leaves a ghost, so that it is back in the main queue when it is stored anew.
 *
 * The links and bits are in the arena's records of ages; all here needs the
 * shard's lock.
 *
 *   Q1  A slot of an ephemeral pool is on exactly one of the pool's two queues
 *       in its shard; its bit `main` says which.
 *   Q2  nr[] counts the slots on a queue; the pool's, those of all shards.
 */
#ifndef TMEM_CORE_QUEUE_H
#define TMEM_CORE_QUEUE_H

#include "core.h"

enum tmem_queue_kind {
	TMEM_QUEUE_SMALL = 0,
	TMEM_QUEUE_MAIN,
	TMEM_NR_QUEUES
};

struct tmem_queue {
	uint32_t head[TMEM_NR_QUEUES];	     /* handle; circular; 0: empty */
	_Atomic uint32_t nr[TMEM_NR_QUEUES]; /* also read without the lock */
};

/* An ephemeral pool's, in a metadata page of its own. */
struct tmem_queues {
	_Atomic uint64_t nr[TMEM_NR_QUEUES];   /* of all shards */
	_Atomic uint64_t hits[TMEM_NR_QUEUES]; /* found there, of late */
	struct tmem_queue shard[TMEM_MAX_SHARDS];
	uint16_t joins[TMEM_MAX_CLIENTS]; /* control lock */
};
_Static_assert(sizeof(struct tmem_queues) <= 4096, "a page");

static inline struct tmem_queue *tmem_queue_of(struct tmem_store *store,
					       uint32_t pool,
					       const struct tmem_shard *shard)
{
	struct tmem_queues *queues = atomic_load_explicit(
		&store->pools[pool].queues, memory_order_acquire);

	return &queues->shard[shard - store->shards];
}

static inline uint32_t tmem_queue_nr(const struct tmem_queue *q,
				     enum tmem_queue_kind kind)
{
	return atomic_load_explicit(&q->nr[kind], memory_order_relaxed);
}

/* Pages of a pool on one of its two queues, in all shards. */
static inline uint64_t tmem_queues_nr(struct tmem_pool *pool,
				      enum tmem_queue_kind kind)
{
	struct tmem_queues *queues =
		atomic_load_explicit(&pool->queues, memory_order_acquire);

	return queues ? atomic_load_explicit(&queues->nr[kind],
					     memory_order_relaxed)
		      : 0;
}

/* A slot that was just indexed; false: no memory for its record. */
bool tmem_queue_add(struct tmem_store *store, struct tmem_shard *shard,
		    uint32_t handle, uint64_t hash) TMEM_REQUIRES(&shard->lock);
void tmem_queue_remove(struct tmem_store *store, struct tmem_shard *shard,
		       uint32_t handle) TMEM_REQUIRES(&shard->lock);
/* The page moved to another slot: it keeps its place. */
bool tmem_queue_move(struct tmem_store *store, struct tmem_shard *shard,
		     uint32_t from, uint32_t to) TMEM_REQUIRES(&shard->lock);
/* The page was found, and stays. */
void tmem_queue_touch(struct tmem_store *store, uint32_t handle);
/* The page was found and is about to go with that; it leaves a ghost. */
void tmem_queue_found(struct tmem_store *store, uint32_t handle, uint64_t hash);

/*
 * Evicts up to `max` pages from one of a pool's queues in that shard, in a
 * bounded number of steps; returns how many.
 */
unsigned tmem_queue_evict(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t pool, enum tmem_queue_kind kind,
			  unsigned max) TMEM_REQUIRES(&shard->lock);

#endif
