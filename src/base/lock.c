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
 * may be other sleepers, and one wake too many is harmless.
 */
static bool wait_turn(struct tmem_lock *lock, bool give_up_if_closed)
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
		tmem_sys_futex_wait(&lock->word, next, NULL);
		taken = TMEM_LOCK_HELD_WAITED;
	}
}

void tmem_lock_wait(struct tmem_lock *lock)
{
	wait_turn(lock, false);
}

bool tmem_lock_wait_unless_closed(struct tmem_lock *lock)
{
	return wait_turn(lock, true);
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
