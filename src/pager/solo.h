/* SPDX-License-Identifier: MIT */
/*
 * Solo: which handler serves a program that has one thread.
 *
 * A fault wakes every handler that waits, and memory in use on two CPUs needs
 * an interrupt for each change of a mapping.  So while the program has one
 * thread only the handler of that thread's CPU waits for faults.  (A virtual
 * machine leaves its host for each interrupt and each wake on another CPU: a
 * fault that is served from another CPU costs three times as much.)
 *
 * The scheduler moves the thread when it likes.  The kernel writes the CPU
 * into the thread's rseq area, which libc has registered; the handler looks
 * there at each fault, and hands over to the right one.  Where there is no
 * such area the ticker asks /proc every few milliseconds.
 *
 *   S1  The area is read only while its page is pinned, so present; who unmaps
 *       it is the thread that waits for this very fault.
 */
#ifndef TMEM_PAGER_SOLO_H
#define TMEM_PAGER_SOLO_H

#include "pager.h"

/* From the thread that the program, or a fork's child, starts with. */
void tmem_solo_init(struct tmem_pager *pager);

/* The program has nr threads; the ticker says so every few milliseconds. */
void tmem_solo_threads(struct tmem_pager *pager, unsigned nr);

/* A fault is being served: by the right handler? */
void tmem_solo_follow_locked(struct tmem_pager *pager, struct tmem_handler *me)
	TMEM_REQUIRES(&pager->lock);

/* Is it this handler's turn to wait for faults? */
static inline bool tmem_solo_may_serve(const struct tmem_handler *me)
{
	uint32_t solo = atomic_load(&me->pager->solo);

	return !solo || solo == me->nr + 1;
}

#endif
