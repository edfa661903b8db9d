/* SPDX-License-Identifier: MIT */
/*
 * Whose ephemeral pages go.  Of the clients the one with the most bytes for
 * its weight: so those above their part come down to it first, and what nobody
 * else needs a client keeps.  (The old rule compared the other way round:
 * clients below their part evicted themselves.)
 *
 * Of that client's pages those on small queues give as long as they are their
 * part of all, else those on main ones (queue.h).  The part, a tenth at first,
 * grows by a percent where a page on a small queue is found more often than one
 * on a main queue, and shrinks where less.  Of its pools one at random, by
 * pages on such a queue, so that each loses in proportion; of two of its shards
 * the one with more of them: what each gets is left to chance, and would drift.
 */
#include "evict.h"

#include "client.h"
#include "pool.h"
#include "queue.h"

enum {
	SHARD_BATCH = 4, /* pages dropped under one hold of a lock */
	TRIES = 4,
	/* In percent. */
	SMALL_LEAST = 10,
	SMALL_MOST = 90,
	/* The part is set anew when so much of the pages was evicted. */
	ADAPT_PART = 64
};

struct victim {
	uint32_t client;
	uint64_t bytes; /* that count for it */
	enum tmem_queue_kind kind;
	uint64_t pages; /* on queues of that kind */
	uint64_t all;
};

static struct victim choose_client(struct tmem_store *store)
{
	struct victim v = { 0 };
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
			v.client = i;
			v.bytes = bytes;
		}
	}
	return v;
}

/* Pages on a pool's queues, if its bytes count for the client. */
static uint64_t pages_of(struct tmem_pool *pool, uint32_t client,
			 enum tmem_queue_kind kind)
{
	return tmem_pool_payers(pool) >> client & 1 ? tmem_queues_nr(pool, kind)
						    : 0;
}

static uint32_t part_of(const struct tmem_store *store, uint32_t client)
{
	uint32_t part = atomic_load_explicit(&store->small_part[client],
					     memory_order_relaxed);

	return part < SMALL_LEAST ? SMALL_LEAST : part;
}

/* Sums what was found on queues of a kind, and forgets half of it. */
static uint64_t age_hits(struct tmem_store *store, uint32_t client,
			 enum tmem_queue_kind kind, uint64_t *pages)
{
	uint64_t sum = 0;
	uint32_t i;

	*pages = 0;
	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		struct tmem_pool *pool = &store->pools[i];
		uint64_t nr = pages_of(pool, client, kind), hits;

		if (!nr)
			continue;
		hits = atomic_load(&atomic_load(&pool->queues)->hits[kind]);
		atomic_fetch_sub(&atomic_load(&pool->queues)->hits[kind],
				 hits - hits / 2);
		*pages += nr;
		sum += hits;
	}
	return sum;
}

/* So many were evicted: is the small queues' part right? */
static void adapt(struct tmem_store *store, const struct victim *v, unsigned nr)
{
	_Atomic uint32_t *evictions = &store->evictions[v->client];
	uint64_t small_hits, main_hits, small, main;
	uint32_t part = part_of(store, v->client);

	if ((atomic_fetch_add(evictions, nr) + nr) * (uint64_t)ADAPT_PART <
	    v->all)
		return;
	atomic_store(evictions, 0);
	small_hits = age_hits(store, v->client, TMEM_QUEUE_SMALL, &small);
	main_hits = age_hits(store, v->client, TMEM_QUEUE_MAIN, &main);
	if (small_hits * main > main_hits * small && part < SMALL_MOST)
		part++;
	else if (small_hits * main < main_hits * small && part > SMALL_LEAST)
		part--;
	atomic_store(&store->small_part[v->client], part);
}

/* Which kind of queue gives. */
static void choose_kind(struct tmem_store *store, struct victim *v)
{
	uint64_t small = 0, main = 0;
	uint32_t i;

	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		struct tmem_pool *pool = &store->pools[i];

		small += pages_of(pool, v->client, TMEM_QUEUE_SMALL);
		main += pages_of(pool, v->client, TMEM_QUEUE_MAIN);
	}
	v->all = small + main;
	v->kind = small * 100 >= v->all * part_of(store, v->client)
			  ? TMEM_QUEUE_SMALL
			  : TMEM_QUEUE_MAIN;
	v->pages = v->kind == TMEM_QUEUE_SMALL ? small : main;
}

/* A pool's number, or -1: all have lost their pages meanwhile. */
static int choose_pool(struct tmem_store *store, const struct victim *v,
		       uint64_t random)
{
	uint64_t left = random % v->pages;
	int i, last = -1;

	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		uint64_t pages = pages_of(&store->pools[i], v->client, v->kind);

		if (!pages)
			continue;
		last = i;
		if (pages > left)
			break;
		left -= pages;
	}
	return last;
}

/* The pool may be gone, or another's that is not ephemeral. */
static unsigned evict_in_shard(struct tmem_store *store,
			       struct tmem_shard *shard, uint32_t pool,
			       enum tmem_queue_kind kind, unsigned nr)
{
	unsigned evicted = 0;

	tmem_lock_acquire(&shard->lock);
	if (atomic_load(&store->pools[pool].id) &&
	    tmem_pool_has(store, pool, TMEM_POOL_EPHEMERAL))
		evicted = tmem_queue_evict(store, shard, pool, kind, nr);
	tmem_lock_release(&shard->lock);
	return evicted;
}

static struct tmem_shard *choose_shard(struct tmem_store *store, uint32_t pool,
				       enum tmem_queue_kind kind)
{
	uint32_t hand = atomic_fetch_add_explicit(&store->evict_hand, 1,
						  memory_order_relaxed);
	struct tmem_shard *a = &store->shards[hand % store->nr_shards];
	struct tmem_shard *b =
		&store->shards[tmem_hash_word(hand) % store->nr_shards];

	return tmem_queue_nr(tmem_queue_of(store, pool, b), kind) >
			       tmem_queue_nr(tmem_queue_of(store, pool, a),
					     kind)
		       ? b
		       : a;
}

/* `pool` was ephemeral a moment ago: it has queues. */
static unsigned evict_in_pool(struct tmem_store *store, uint32_t pool,
			      enum tmem_queue_kind kind, unsigned nr)
{
	unsigned i, evicted = 0;

	for (i = 0; i < store->nr_shards && evicted < nr; i++) {
		unsigned want = nr - evicted;

		evicted += evict_in_shard(
			store, choose_shard(store, pool, kind), pool, kind,
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
		choose_kind(store, &v);
		if (!v.pages)
			continue;
		pool = choose_pool(store, &v, tmem_hash_word(hand + tries));
		if (pool >= 0)
			evicted = evict_in_pool(store, (uint32_t)pool, v.kind,
						nr);
		if (evicted)
			adapt(store, &v, evicted);
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
