/* SPDX-License-Identifier: MIT */
/*
 * The budget: how much memory this process may hold, and keeping to it.
 *
 * Use is what the kernel counts: anonymous plus shmem pages of this memory,
 * the store, the tables and the frames being part of it.  It is read from
 * statm at every tick and counted on from there by the handlers.  Memory
 * shared by fork counts by its share (Pss), read more rarely.
 *
 *   B1  grant_bytes is what we may use; we take more from the tree's
 *       avail_bytes while there is any, and give back what we do not use.
 *   B2  Above grant - reserve, every fault evicts what it brought in, and one
 *       page more where half of the reserve is gone; above the grant, all
 *       handlers evict until it holds or nothing is found that can go, but
 *       look for faults in between.
 *   B3  Far from the grant nothing is registered and the program runs as if
 *       alone.  Near it the memory is registered (armed), so that growth comes
 *       to us as faults.
 *   B4  Between two ticks the program can grow unseen by at most what its CPUs
 *       can touch: the period is the head-room over that speed.  Who is over
 *       for long with many relatives looks every 5 ms at the least, or all
 *       of their CPUs would go to this.
 */
#ifndef TMEM_PAGER_BUDGET_H
#define TMEM_PAGER_BUDGET_H

#include "pager.h"

/* Pages in use now, as estimated. */
int64_t tmem_budget_usage_pages(const struct tmem_pager *pager);

/* Is that within the grant? */
bool tmem_budget_fits(const struct tmem_pager *pager);

/* Is the store far from full?  What it refuses then, it refuses for what it is.
 */
bool tmem_budget_store_has_room(const struct tmem_pager *pager);

/* Is half of the reserve still free, so that eviction can wait a little? */
bool tmem_budget_is_roomy(const struct tmem_pager *pager);

/*
 * Evicts for what a handler has brought in.  Returns how many pages it tried
 * to evict, 0 if none had to be.
 */
unsigned tmem_budget_after_fault(struct tmem_handler *me);

/* Evicts if the use is above the grant: a handler that was kicked. */
void tmem_budget_reclaim(struct tmem_handler *me);

/*
 * The ticker's way to the lock: a handler that was put aside while it held it
 * is urged, so that a program that takes all CPUs can't delay us.
 */
void tmem_budget_acquire(struct tmem_pager *pager) TMEM_ACQUIRES(&pager->lock);

/* A page found room nowhere: the keeper hears of it at the next tick. */
void tmem_budget_full(struct tmem_pager *pager);

/*
 * Reads the use, takes and gives back grant, registers memory if near the
 * limit, evicts in an emergency.  Returns the time to the next tick in ns.
 */
uint64_t tmem_budget_tick(struct tmem_pager *pager);

/* Writes the slot's figures. */
void tmem_budget_report(struct tmem_pager *pager);
/* CPU time of the pager process: a system call, so rarely. */
void tmem_budget_report_cpu(struct tmem_pager *pager);

#endif
