/* SPDX-License-Identifier: MIT */
/* Ghosts; the model is in ghost.h. */
#include "ghost.h"

enum {
	SET = 16,
	LEAST = 1024,
	AGE_BITS = 12,
	AGE_MASK = (1 << AGE_BITS) - 1,
	AGES = 1024 /* to the table's size; age 0 is never used */
};

static bool make_runs(struct tmem_ghost *ghost, struct tmem_meta *meta,
		      uint64_t nr_entries)
{
	unsigned per_run = TMEM_GHOST_RUN_ENTRIES, nr_runs = 1, i;

	if (nr_entries < per_run)
		per_run = (unsigned)nr_entries;
	else
		nr_runs = (unsigned)(nr_entries / per_run);
	for (i = 0; i < nr_runs; i++) {
		ghost->runs[i] = tmem_meta_alloc(meta, per_run / 1024);
		if (!ghost->runs[i])
			break;
	}
	if (i == nr_runs)
		return true;
	while (i-- > 0)
		tmem_meta_free(meta, ghost->runs[i], per_run / 1024);
	return false;
}

void tmem_ghost_init(struct tmem_ghost *ghost, struct tmem_meta *meta,
		     uint64_t limit_bytes)
{
	uint64_t nr_entries = LEAST;

	while (nr_entries < limit_bytes / 1024 &&
	       nr_entries < (uint64_t)TMEM_GHOST_RUNS * TMEM_GHOST_RUN_ENTRIES)
		nr_entries *= 2;
	if (make_runs(ghost, meta, nr_entries))
		atomic_store(&ghost->nr_entries, (uint32_t)nr_entries);
}

static uint32_t size_of(const struct tmem_ghost *ghost)
{
	return atomic_load_explicit(&ghost->nr_entries, memory_order_acquire);
}

static _Atomic uint32_t *set_of(const struct tmem_ghost *ghost, uint64_t hash)
{
	uint32_t first =
		(uint32_t)hash & (size_of(ghost) - 1) & ~(uint32_t)(SET - 1);

	return &ghost->runs[first / TMEM_GHOST_RUN_ENTRIES]
			   [first % TMEM_GHOST_RUN_ENTRIES];
}

static uint32_t tag_of(uint64_t hash)
{
	return (uint32_t)(hash >> 32) & ~(uint32_t)AGE_MASK;
}

/* 1 .. AGE_MASK, in a circle. */
static uint32_t age_at(const struct tmem_ghost *ghost, uint32_t nr_added)
{
	return nr_added / (size_of(ghost) / AGES) % AGE_MASK + 1;
}

/* How long ago that was; the oldest for an entry that is free. */
static uint32_t age_of(uint32_t entry, uint32_t now)
{
	uint32_t then = entry & AGE_MASK;

	if (!then)
		return AGE_MASK;
	return now >= then ? now - then : now + AGE_MASK - then;
}

void tmem_ghost_add(struct tmem_ghost *ghost, uint64_t hash)
{
	_Atomic uint32_t *set, *oldest;
	uint32_t now, age, max = 0;
	unsigned i;

	if (!size_of(ghost))
		return;
	now = age_at(ghost, atomic_fetch_add_explicit(&ghost->nr_added, 1,
						      memory_order_relaxed));
	set = oldest = set_of(ghost, hash);
	for (i = 0; i < SET; i++) {
		age = age_of(
			atomic_load_explicit(&set[i], memory_order_relaxed),
			now);
		if (age >= max) {
			max = age;
			oldest = &set[i];
		}
	}
	atomic_store_explicit(oldest, tag_of(hash) | now, memory_order_relaxed);
}

bool tmem_ghost_take(struct tmem_ghost *ghost, uint64_t hash, uint64_t reach)
{
	_Atomic uint32_t *set;
	uint64_t oldest;
	uint32_t now, entry;
	unsigned i;

	if (!size_of(ghost))
		return false;
	now = age_at(ghost, atomic_load_explicit(&ghost->nr_added,
						 memory_order_relaxed));
	oldest = reach / (size_of(ghost) / AGES);
	if (oldest > AGE_MASK - 1)
		oldest = AGE_MASK - 1; /* beyond are free entries */
	set = set_of(ghost, hash);
	for (i = 0; i < SET; i++) {
		entry = atomic_load_explicit(&set[i], memory_order_relaxed);
		if ((entry & ~(uint32_t)AGE_MASK) != tag_of(hash) ||
		    age_of(entry, now) > oldest)
			continue;
		atomic_store_explicit(&set[i], 0, memory_order_relaxed);
		return true;
	}
	return false;
}
