/* SPDX-License-Identifier: MIT */
/*
 * Whose ephemeral pages go.  Of the clients the one with the most bytes for
 * its weight: so those above their part come down to it first, and what nobody
 * else needs a client keeps.  (The old rule compared the other way round:
 * clients below their part evicted themselves.)  Of that client's pools one at
 * random, by size, so that each loses in proportion.  Of two of its shards the
 * one with more pages: what each gets is left to chance, and would else drift.
 * Within a pool queue.h says which page.
 */
#include "evict.h"

#include "client.h"
#include "pool.h"
#include "queue.h"

enum {
	SHARD_BATCH = 4, /* pages dropped under one hold of a lock */
	TRIES = 4
};

struct victim {
	uint32_t client;
	uint64_t bytes; /* that count for it */
};

static struct victim choose_client(struct tmem_store *store)
{
	struct victim v = { 0, 0 };
	uint64_t most = 0;
	uint32_t i;

	for (i = 0; i < TMEM_MAX_CLIENTS; i++) {
		uint32_t weight = atomic_load_explicit(&store->weights[i],
						       memory_order_relaxed);
		uint64_t bytes;

		if (!weight)
			continue;
		bytes = tmem_client_bytes(store, i);
		/* 2^20: parts of a byte count, and no limit overflows. */
		if (bytes && (bytes << 20) / weight >= most) {
			most = (bytes << 20) / weight;
			v = (struct victim){ i, bytes };
		}
	}
	return v;
}

/* A pool's number, or -1: all have lost their pages meanwhile. */
static int choose_pool(struct tmem_store *store, const struct victim *v,
		       uint64_t random)
{
	uint64_t left = random % v->bytes;
	int i, last = -1;

	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		uint64_t part = tmem_pool_part(&store->pools[i], v->client);

		if (!part)
			continue;
		last = i;
		if (part > left)
			break;
		left -= part;
	}
	return last;
}

/* The pool may be gone, or another's that is not ephemeral. */
static unsigned evict_in_shard(struct tmem_store *store,
			       struct tmem_shard *shard, uint32_t pool,
			       unsigned nr)
{
	unsigned evicted = 0;

	tmem_lock_acquire(&shard->lock);
	if (atomic_load(&store->pools[pool].id) &&
	    tmem_pool_has(store, pool, TMEM_POOL_EPHEMERAL))
		evicted = tmem_queue_evict(store, shard, pool, nr);
	tmem_lock_release(&shard->lock);
	return evicted;
}

static struct tmem_shard *choose_shard(struct tmem_store *store, uint32_t pool)
{
	uint32_t hand = atomic_fetch_add_explicit(&store->evict_hand, 1,
						  memory_order_relaxed);
	struct tmem_shard *a = &store->shards[hand % store->nr_shards];
	struct tmem_shard *b =
		&store->shards[tmem_hash_word(hand) % store->nr_shards];

	return tmem_queue_pages(tmem_queue_of(store, pool, b)) >
			       tmem_queue_pages(tmem_queue_of(store, pool, a))
		       ? b
		       : a;
}

/* `pool` was ephemeral a moment ago: it has queues. */
static unsigned evict_in_pool(struct tmem_store *store, uint32_t pool,
			      unsigned nr)
{
	unsigned i, evicted = 0;

	for (i = 0; i < store->nr_shards && evicted < nr; i++) {
		unsigned want = nr - evicted;

		evicted +=
			evict_in_shard(store, choose_shard(store, pool), pool,
				       want < SHARD_BATCH ? want : SHARD_BATCH);
	}
	return evicted;
}

unsigned tmem_evict(struct tmem_store *store, unsigned nr)
{
	unsigned evicted = 0, tries;

	for (tries = 0; tries < TRIES && !evicted; tries++) {
		struct victim v = choose_client(store);
		uint32_t hand = atomic_load_explicit(&store->evict_hand,
						     memory_order_relaxed);
		int pool;

		if (!v.bytes)
			break;
		pool = choose_pool(store, &v, tmem_hash_word(hand + tries));
		if (pool >= 0)
			evicted = evict_in_pool(store, (uint32_t)pool, nr);
	}
	return evicted;
}

void tmem_evict_to_limit(struct tmem_store *store)
{
	while (tmem_account_held(&store->account) >
		       tmem_account_limit(&store->account) &&
	       tmem_evict(store, TMEM_SPAN_SLOTS))
		tmem_arena_trim(&store->arena);
}
