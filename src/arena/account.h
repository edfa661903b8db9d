/* SPDX-License-Identifier: MIT */
/*
 * The hard limit.  Every page of memory that a store owns is taken from the
 * account before it may become resident and given back after it has been
 * returned to the kernel:
 *
 *   A1  held_bytes >= what is resident, at every moment.
 *   A2  a take never lifts held_bytes over limit_bytes.  (A lowered limit may
 *       be below what is held: nothing can be taken then.)
 *   A3  open_bytes are part of held_bytes: set aside by whoever makes room,
 *       for takes that the limit denies while it does so.
 */
#ifndef TMEM_ARENA_ACCOUNT_H
#define TMEM_ARENA_ACCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"

struct tmem_account {
	_Atomic uint64_t held_bytes;
	_Atomic uint64_t limit_bytes;
	_Atomic uint64_t open_bytes;
};

static inline uint64_t tmem_account_held(const struct tmem_account *account)
{
	return atomic_load_explicit(&account->held_bytes, memory_order_relaxed);
}

static inline uint64_t tmem_account_limit(const struct tmem_account *account)
{
	return atomic_load_explicit(&account->limit_bytes,
				    memory_order_relaxed);
}

/* What was set aside becomes used: held_bytes stays what it is. */
static inline bool tmem_account_draw(struct tmem_account *account,
				     uint64_t bytes)
{
	uint64_t open = atomic_load_explicit(&account->open_bytes,
					     memory_order_relaxed);

	do {
		if (open < bytes)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		&account->open_bytes, &open, open - bytes, memory_order_relaxed,
		memory_order_relaxed));
	return true;
}

static inline bool tmem_account_take(struct tmem_account *account,
				     uint64_t bytes)
{
	uint64_t held = tmem_account_held(account);

	do {
		uint64_t limit = tmem_account_limit(account);

		if (held > limit || bytes > limit - held)
			return tmem_account_draw(account, bytes);
	} while (!atomic_compare_exchange_weak_explicit(
		&account->held_bytes, &held, held + bytes, memory_order_relaxed,
		memory_order_relaxed));
	return true;
}

static inline void tmem_account_give(struct tmem_account *account,
				     uint64_t bytes)
{
	uint64_t held = atomic_fetch_sub_explicit(&account->held_bytes, bytes,
						  memory_order_relaxed);

	TMEM_ASSERT(held >= bytes);
}

#endif
