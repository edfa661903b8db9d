/* SPDX-License-Identifier: MIT */
/*
 * The figures of a store: what the shards counted, added up, and what the
 * account and the arena hold now.  Counters wrap like any unsigned number, so
 * a gauge that fell in one shard and rose in another comes out right.
 */
#include <stddef.h>

#include "dicts.h"
#include "tiering.h"

enum {
	NR_FIGURES = sizeof(struct tmem_stats) / sizeof(uint64_t)
};

static const struct tmem_counter table[] = {
#define COUNTER(name, unit, text) \
	{ #name, unit, text, offsetof(struct tmem_stats, name) },
#include <tmem/counters.def>
#undef COUNTER
	{ NULL, NULL, NULL, 0 },
};

_Static_assert(sizeof(table) / sizeof(table[0]) == NR_FIGURES + 1,
	       "nothing but counters in the struct");

static void add(struct tmem_stats *to, const struct tmem_stats *from)
{
	const struct tmem_counter *c;

	for (c = table; c->name; c++)
		*(uint64_t *)((char *)to + c->offset) +=
			*(const uint64_t *)((const char *)from + c->offset);
}

/* During a fork nothing changes, and nothing may be written. */
static void add_shard(struct tmem_shard *shard,
		      struct tmem_stats *to) TMEM_UNANALYSED
{
	bool locked = tmem_lock_acquire_unless_closed(&shard->lock);

	add(to, &shard->stats);
	if (locked)
		tmem_lock_release(&shard->lock);
}

static uint64_t count_scratches(struct tmem_store *store)
{
	uint64_t nr = 0;
	unsigned i;

	for (i = 0; i < TMEM_MAX_SCRATCHES; i++)
		nr += atomic_load(&store->scratches[i].ready);
	return nr;
}

static void add_lock_waits(struct tmem_stats *to)
{
	struct tmem_lock_waits waits;
	unsigned rank;

	for (rank = TMEM_RANK_STORE; rank <= TMEM_RANK_PAGES; rank++) {
		tmem_lock_waits_of(rank, &waits);
		to->lock_waits += waits.contended;
		to->lock_sleep_ns += waits.slept_ns;
	}
}

void tmem_store_stats(struct tmem_store *store, struct tmem_stats *ret_stats)
{
	struct tmem_stats s = { 0 };
	unsigned i;

	for (i = 0; i < store->nr_shards; i++)
		add_shard(&store->shards[i], &s);
	for (i = 0; i < TMEM_MAX_POOLS; i++)
		s.pools += atomic_load(&store->pools[i].id) != 0;
	add_lock_waits(&s);
	s.ephemeral_pages = atomic_load(&store->ephemeral_pages);
	if (store->tiering)
		tmem_tiering_stats(store->tiering, &s);
	s.map_failures = atomic_load(&store->meta.pages.map_failures) +
			 atomic_load(&store->arena.pages.map_failures);
	s.trainings = atomic_load(&store->work.trainings);
	s.dicts_adopted = atomic_load(&store->work.adopted);
	s.recompress_ns = atomic_load(&store->work.cpu_ns);
	s.dicts = tmem_dicts_sum(store, &s.dict_bytes);
	s.held_bytes = tmem_account_held(&store->account);
	s.limit_bytes = tmem_account_limit(&store->account);
	s.data_bytes = atomic_load(&store->arena.nr_touched) * 4096;
	s.idle_bytes = atomic_load(&store->arena.nr_idle) * 4096;
	s.scratch_bytes = count_scratches(store) * TMEM_SCRATCH_PAGES * 4096;
	s.fixed_bytes = store->fixed_bytes;
	s.meta_bytes =
		s.held_bytes - s.data_bytes - s.scratch_bytes - s.fixed_bytes;
	if (store->tiering)
		s.tier_memory_bytes = tmem_tiering_bytes(store);
	s.meta_bytes -= s.tier_memory_bytes;
	*ret_stats = s;
}

const struct tmem_counter *tmem_stats_table(void)
{
	return table;
}
