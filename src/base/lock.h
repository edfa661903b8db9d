/* SPDX-License-Identifier: MIT */
/*
 * The only lock type: four bytes, a futex, no libc.
 *
 * RANKS.  Every lock has a rank, and a thread acquires in rising rank only;
 * that is asserted at each acquire, so a wrong order fails on its first run
 * and not on its first deadlock.  The enum is the lock order of the whole
 * program.  What a thread holds is one word of static TLS (initial-exec, no
 * allocation), so a pager thread needs no more of libc than its block.
 *
 * WORD.  Bits 0-7: FREE, HELD, HELD_WAITED (a sleeper may exist) or CLOSED;
 * bits 8-15: the rank.  Futexes are private: they work across processes that
 * share the address space (CLONE_VM).
 *
 * CLOSED is for fork(2).  A holder may close its lock instead of releasing
 * it: nobody holds it then, and nobody can change the word until it is
 * reopened.  Readers that know how to live without the lock ask with
 * tmem_lock_acquire_unless_closed() and write nothing if it is closed; so a
 * child's copy of the memory never has a lock that somebody holds.
 *
 *   L1  FREE -> HELD by acquire; HELD* -> FREE by the holder's release;
 *       HELD* -> CLOSED by the holder's close; CLOSED -> HELD by reopen.
 *   L2  A sleeper sleeps on HELD_WAITED or on CLOSED; whoever leaves one of
 *       these wakes.
 */
#ifndef TMEM_BASE_LOCK_H
#define TMEM_BASE_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "assert.h"
#include "chaos.h"

#ifdef __clang__
#define TMEM_ATTR_(x) __attribute__((x))
#else
#define TMEM_ATTR_(x)
#endif
#define TMEM_CAPABILITY(name)  TMEM_ATTR_(capability(name))
#define TMEM_REQUIRES(...)     TMEM_ATTR_(requires_capability(__VA_ARGS__))
#define TMEM_ACQUIRES(...)     TMEM_ATTR_(acquire_capability(__VA_ARGS__))
#define TMEM_RELEASES(...)     TMEM_ATTR_(release_capability(__VA_ARGS__))
#define TMEM_TRY_ACQUIRES(...) TMEM_ATTR_(try_acquire_capability(__VA_ARGS__))
#define TMEM_EXCLUDES(...)     TMEM_ATTR_(locks_excluded(__VA_ARGS__))
/* Arrays of locks and hand-over: what the analysis cannot follow. */
#define TMEM_UNANALYSED TMEM_ATTR_(no_thread_safety_analysis)

/* Outermost first.  A rank that nobody uses yet is not listed. */
enum tmem_lock_rank {
	TMEM_RANK_PAGER = 1, /* the pager's tables */
	TMEM_RANK_FRONTSWAP, /* a swap type's table */
	TMEM_RANK_CLEAN,     /* cleancache's table of file systems */
	TMEM_RANK_SWAPFILE,  /* the device's rings and maps */
	TMEM_RANK_STORE,     /* a store's pool table and control operations */
	TMEM_RANK_SCRATCH,   /* a compression scratch; held over a vector */
	TMEM_RANK_SHARD,     /* one shard of the index */
	TMEM_RANK_HINTS,     /* a stripe of the table of contents */
	TMEM_RANK_CLASS,     /* one size class of the arena */
	TMEM_RANK_RECORDS,   /* a table of records (spans, objects) */
	TMEM_RANK_META,	     /* the metadata pages */
	TMEM_RANK_PAGES,     /* the page runs of chunks */
	TMEM_RANK_CLUSTER,   /* a range read from a tier; held over I/O */
	TMEM_RANK_TIER,	     /* a tier's I/Os in flight */
	TMEM_NR_RANKS
};

enum {
	TMEM_LOCK_FREE = 0,
	TMEM_LOCK_HELD,
	TMEM_LOCK_HELD_WAITED,
	TMEM_LOCK_CLOSED,
	TMEM_LOCK_STATE_MASK = 0xff
};

struct TMEM_CAPABILITY("lock") tmem_lock {
	_Atomic uint32_t word;
};
_Static_assert(sizeof(struct tmem_lock) == 4, "four bytes");

#define TMEM_LOCK_INIT(rank)          \
	{                             \
		(uint32_t)(rank) << 8 \
	}

/* One bit for each rank that this thread holds. */
extern __thread uint32_t tmem_lock_ranks_held
	__attribute__((tls_model("initial-exec"), visibility("hidden")));

/*
 * What waiting for locks of a rank has cost this process so far.  Acquiring a
 * lock that is free counts nothing.
 */
struct tmem_lock_waits {
	uint64_t contended; /* acquires that found the lock held or closed */
	uint64_t sleeps;    /* of these, those that slept */
	uint64_t slept_ns;
};

void tmem_lock_waits_of(enum tmem_lock_rank rank,
			struct tmem_lock_waits *ret_waits);

void tmem_lock_wait(struct tmem_lock *lock);
bool tmem_lock_wait_unless_closed(struct tmem_lock *lock);
void tmem_lock_wake(struct tmem_lock *lock);

static inline void tmem_lock_init(struct tmem_lock *lock,
				  enum tmem_lock_rank rank)
{
	atomic_init(&lock->word, (uint32_t)rank << 8);
}

static inline uint32_t tmem_lock_word(const struct tmem_lock *lock)
{
	return atomic_load_explicit(&lock->word, memory_order_relaxed);
}

/* Asserts the order and notes the rank as held. */
static inline void tmem_lock_push_rank(const struct tmem_lock *lock)
{
	uint32_t rank = tmem_lock_word(lock) >> 8;

	TMEM_ASSERT(tmem_lock_ranks_held >> rank == 0);
	tmem_lock_ranks_held |= 1u << rank;
}

static inline void tmem_lock_pop_rank(const struct tmem_lock *lock)
{
	uint32_t bit = 1u << (tmem_lock_word(lock) >> 8);

	TMEM_ASSERT(tmem_lock_ranks_held & bit);
	tmem_lock_ranks_held &= ~bit;
}

/* FREE -> HELD, if it is FREE. */
static inline bool tmem_lock_grab(struct tmem_lock *lock)
{
	uint32_t word = tmem_lock_word(lock);

	return (word & TMEM_LOCK_STATE_MASK) == TMEM_LOCK_FREE &&
	       atomic_compare_exchange_strong_explicit(
		       &lock->word, &word, word | TMEM_LOCK_HELD,
		       memory_order_acquire, memory_order_relaxed);
}

/* Gives up HELD* for FREE; wakes whoever waits. */
static inline void tmem_lock_drop(struct tmem_lock *lock)
{
	uint32_t word = tmem_lock_word(lock) & ~(uint32_t)TMEM_LOCK_STATE_MASK;

	word = atomic_exchange_explicit(&lock->word, word,
					memory_order_release);
	if ((word & TMEM_LOCK_STATE_MASK) == TMEM_LOCK_HELD_WAITED)
		tmem_lock_wake(lock);
	TMEM_ASSERT((word & TMEM_LOCK_STATE_MASK) != TMEM_LOCK_FREE &&
		    (word & TMEM_LOCK_STATE_MASK) != TMEM_LOCK_CLOSED);
}

/* Waits while it is held or closed. */
static inline void tmem_lock_acquire(struct tmem_lock *lock)
	TMEM_ACQUIRES(lock) TMEM_UNANALYSED
{
	tmem_lock_push_rank(lock);
	if (!tmem_lock_grab(lock))
		tmem_lock_wait(lock);
}

static inline bool tmem_lock_try_acquire(struct tmem_lock *lock)
	TMEM_TRY_ACQUIRES(true, lock) TMEM_UNANALYSED
{
	if (!tmem_lock_grab(lock))
		return false;
	tmem_lock_push_rank(lock);
	return true;
}

/* False, and nothing written, if it is closed: nobody holds it. */
static inline bool tmem_lock_acquire_unless_closed(struct tmem_lock *lock)
	TMEM_TRY_ACQUIRES(true, lock) TMEM_UNANALYSED
{
	if (!tmem_lock_grab(lock) && !tmem_lock_wait_unless_closed(lock))
		return false;
	tmem_lock_push_rank(lock);
	return true;
}

static inline void tmem_lock_release(struct tmem_lock *lock)
	TMEM_RELEASES(lock) TMEM_UNANALYSED
{
	tmem_lock_pop_rank(lock);
	tmem_lock_drop(lock);
	if (!tmem_lock_ranks_held)
		tmem_chaos_pause();
}

/*
 * One more lock of the rank that is held already: only for operations that
 * take a whole array of locks, always in the array's order.
 */
static inline void
tmem_lock_acquire_also(struct tmem_lock *lock) TMEM_UNANALYSED
{
	uint32_t rank = tmem_lock_word(lock) >> 8;

	TMEM_ASSERT(tmem_lock_ranks_held >> rank == 1);
	if (!tmem_lock_grab(lock))
		tmem_lock_wait(lock);
}

/* Releases one of an array; the last with tmem_lock_release(). */
static inline void
tmem_lock_release_also(struct tmem_lock *lock) TMEM_UNANALYSED
{
	tmem_lock_drop(lock);
}

/* HELD -> CLOSED.  The rank stays noted until tmem_lock_pop_rank(). */
void tmem_lock_close(struct tmem_lock *lock);
/* CLOSED -> HELD by this thread; the rank is not noted, see above. */
void tmem_lock_reopen(struct tmem_lock *lock);

static inline bool tmem_lock_is_closed(struct tmem_lock *lock)
{
	return (atomic_load_explicit(&lock->word, memory_order_seq_cst) &
		TMEM_LOCK_STATE_MASK) == TMEM_LOCK_CLOSED;
}

#endif
