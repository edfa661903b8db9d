/* SPDX-License-Identifier: MIT */
/*
 * The log of stalls: for --profile, each pager of a tree notes each fault that
 * it answered.  It is behind struct tmem_tree in the budget's memory, from the
 * next page on; tree->stall_log says how many entries it has, 0: none.
 *
 * Any thread of any pager writes, one process reads, nobody waits: a writer
 * takes the next number, and the entry at that number is its own until others
 * have come round.
 *
 *   S1  An entry's `nr` is 0 while it is written, else 1 + the number that it
 *       was written for.  A reader that finds another one than before has read
 *       nothing.
 *
 * A writer that sleeps while all others come round can spoil an entry: a figure
 * in a profile is wrong, and nothing else.
 */
#ifndef TMEM_WIRE_STALLS_H
#define TMEM_WIRE_STALLS_H

#include "wire/tree.h"

#include <stdbool.h>
#include <stddef.h>

enum {
	TMEM_STALL_LOG_ENTRIES = 16384,
	TMEM_STALL_SLOT_BITS = 16
};

struct tmem_stall_entry {
	_Atomic uint64_t nr;
	_Atomic uint64_t vpn;
	_Atomic uint64_t start_ns; /* CLOCK_MONOTONIC */
	_Atomic uint64_t stall;	   /* ns << TMEM_STALL_SLOT_BITS | slot */
};

struct tmem_stall_log {
	_Atomic uint64_t next; /* number */
	uint64_t reserved[7];
	struct tmem_stall_entry entry[TMEM_STALL_LOG_ENTRIES];
};

struct tmem_stall {
	uint64_t vpn;
	uint64_t start_ns;
	uint64_t ns;
	int slot;
};

_Static_assert(sizeof(struct tmem_stall_entry) == 32, "two in a cache line");
_Static_assert(TMEM_TREE_SLOTS <= 1 << TMEM_STALL_SLOT_BITS, "a slot fits");

/* Where the log is, if there is one. */
#define TMEM_STALL_LOG_OFFSET \
	((sizeof(struct tmem_tree) + 4095) & ~(size_t)4095)

static inline struct tmem_stall_log *tmem_stall_log(struct tmem_tree *tree)
{
	return (void *)((char *)tree + TMEM_STALL_LOG_OFFSET);
}

static inline void tmem_stall_log_add(struct tmem_stall_log *log,
				      const struct tmem_stall *s)
{
	uint64_t nr =
		atomic_fetch_add_explicit(&log->next, 1, memory_order_relaxed);
	struct tmem_stall_entry *e = &log->entry[nr % TMEM_STALL_LOG_ENTRIES];

	/* Who sees one of the next three sees the 0, too. */
	atomic_store_explicit(&e->nr, 0, memory_order_relaxed);
	atomic_store_explicit(&e->vpn, s->vpn, memory_order_release);
	atomic_store_explicit(&e->start_ns, s->start_ns, memory_order_release);
	atomic_store_explicit(&e->stall,
			      s->ns << TMEM_STALL_SLOT_BITS | (uint64_t)s->slot,
			      memory_order_release);
	atomic_store_explicit(&e->nr, nr + 1, memory_order_release);
}

/* The entry of this number; false: not written yet, or not any more. */
static inline bool tmem_stall_log_get(struct tmem_stall_log *log, uint64_t nr,
				      struct tmem_stall *ret)
{
	struct tmem_stall_entry *e = &log->entry[nr % TMEM_STALL_LOG_ENTRIES];
	struct tmem_stall s;
	uint64_t stall;

	if (atomic_load_explicit(&e->nr, memory_order_acquire) != nr + 1)
		return false;
	s.vpn = atomic_load_explicit(&e->vpn, memory_order_acquire);
	s.start_ns = atomic_load_explicit(&e->start_ns, memory_order_acquire);
	stall = atomic_load_explicit(&e->stall, memory_order_acquire);
	if (atomic_load_explicit(&e->nr, memory_order_relaxed) != nr + 1)
		return false;
	s.ns = stall >> TMEM_STALL_SLOT_BITS;
	s.slot = (int)(stall & ((1u << TMEM_STALL_SLOT_BITS) - 1));
	if (s.slot >= TMEM_TREE_SLOTS)
		return false;
	*ret = s;
	return true;
}

#endif
