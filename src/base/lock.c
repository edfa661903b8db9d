/* SPDX-License-Identifier: MIT */
/*
 * The slow paths of the lock: spin a little (a holder on another CPU is done
 * in a microsecond or two), then sleep.
 */
#include "lock.h"

#include <limits.h>

#include "sys.h"

enum {
	SPINS = 64
};

__thread uint32_t tmem_lock_ranks_held
	__attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Only who has to wait writes to it. */
struct waits {
	_Alignas(64) _Atomic uint64_t contended;
	_Atomic uint64_t sleeps;
	_Atomic uint64_t slept_ns;
};

static struct waits waits[TMEM_NR_RANKS];

static void add(_Atomic uint64_t *to, uint64_t n)
{
	atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

/* since_ns: when the first sleep began, 0: there was none. */
static void count(const struct tmem_lock *lock, uint64_t since_ns)
{
	struct waits *w = &waits[tmem_lock_word(lock) >> 8];

	add(&w->contended, 1);
	if (!since_ns)
		return;
	add(&w->sleeps, 1);
	add(&w->slept_ns, tmem_sys_now_ns() - since_ns);
}

void tmem_lock_waits_of(enum tmem_lock_rank rank,
			struct tmem_lock_waits *ret_waits)
{
	struct waits *w = &waits[rank];

	ret_waits->contended = atomic_load(&w->contended);
	ret_waits->sleeps = atomic_load(&w->sleeps);
	ret_waits->slept_ns = atomic_load(&w->slept_ns);
}

static uint32_t state_of(uint32_t word)
{
	return word & TMEM_LOCK_STATE_MASK;
}

static uint32_t with_state(uint32_t word, uint32_t state)
{
	return (word & ~(uint32_t)TMEM_LOCK_STATE_MASK) | state;
}

/*
 * Waits for a turn.  Whoever has slept takes the lock as HELD_WAITED: there
 * may be other sleepers, and one wake too many is harmless.  *since_ns as
 * count() wants it.
 */
static bool wait_turn(struct tmem_lock *lock, bool give_up_if_closed,
		      uint64_t *since_ns)
{
	uint32_t taken = TMEM_LOCK_HELD;
	unsigned spins = 0;

	for (;;) {
		uint32_t word = tmem_lock_word(lock);
		uint32_t next = word;

		switch (state_of(word)) {
		case TMEM_LOCK_FREE:
			if (atomic_compare_exchange_strong_explicit(
				    &lock->word, &word, with_state(word, taken),
				    memory_order_acquire, memory_order_relaxed))
				return true;
			continue;
		case TMEM_LOCK_CLOSED:
			if (give_up_if_closed) {
				/* What the closer wrote is ours to read. */
				atomic_load(&lock->word);
				return false;
			}
			break;
		case TMEM_LOCK_HELD:
			if (spins++ < SPINS) {
				__builtin_ia32_pause();
				continue;
			}
			next = with_state(word, TMEM_LOCK_HELD_WAITED);
			if (!atomic_compare_exchange_strong(&lock->word, &word,
							    next))
				continue;
			break;
		default:
			break;
		}
		if (!*since_ns)
			*since_ns = tmem_sys_now_ns();
		tmem_sys_futex_wait(&lock->word, next, NULL);
		taken = TMEM_LOCK_HELD_WAITED;
	}
}

void tmem_lock_wait(struct tmem_lock *lock)
{
	uint64_t since_ns = 0;

	wait_turn(lock, false, &since_ns);
	count(lock, since_ns);
}

bool tmem_lock_wait_unless_closed(struct tmem_lock *lock)
{
	uint64_t since_ns = 0;
	bool taken = wait_turn(lock, true, &since_ns);

	if (taken)
		count(lock, since_ns);
	return taken;
}

void tmem_lock_wake(struct tmem_lock *lock)
{
	tmem_sys_futex_wake(&lock->word, 1);
}

void tmem_lock_close(struct tmem_lock *lock)
{
	uint32_t word = tmem_lock_word(lock);

	word = atomic_exchange(&lock->word, with_state(word, TMEM_LOCK_CLOSED));
	TMEM_ASSERT(state_of(word) == TMEM_LOCK_HELD ||
		    state_of(word) == TMEM_LOCK_HELD_WAITED);
	tmem_sys_futex_wake(&lock->word, INT_MAX);
}

void tmem_lock_reopen(struct tmem_lock *lock)
{
	uint32_t word = tmem_lock_word(lock);

	/* As if somebody waited: sleepers on CLOSED are woken by release. */
	word = atomic_exchange(&lock->word,
			       with_state(word, TMEM_LOCK_HELD_WAITED));
	TMEM_ASSERT(state_of(word) == TMEM_LOCK_CLOSED);
	tmem_sys_futex_wake(&lock->word, INT_MAX);
}
