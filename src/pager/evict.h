/* SPDX-License-Identifier: MIT */
/*
 * Eviction: which pages leave, and on which way.
 *
 * Which: a clock over the leaves of the page table.  The hand passes by a
 * page once after it came in (its young bit), and takes it the next time.
 * User space sees no accesses to present pages; coming back is all we know.
 *
 * How: up to a group of frames at once, under the lock, neighbours in one
 * call (move.h); then without the lock each page is dropped if it is zeros,
 * or compared with its kept copy, or stored, or, if tmem refuses it, queued
 * for the swap file; then under the lock the table is told.  A fault on a
 * page that is on its way out is answered from its frame.
 */
#ifndef TMEM_PAGER_EVICT_H
#define TMEM_PAGER_EVICT_H

#include "pager.h"

/*
 * Evicts up to nr pages (at most FRAME_GROUP).  Returns how many frames were
 * given back or queued; 0 if no page could be taken now; -EBUSY if those that
 * were looked at are busy, but others may not be.
 */
int tmem_evict_some(struct tmem_pager *pager, struct tmem_handler *me,
		    unsigned nr);

/* Finishes writes that are done; with `wait`, at least one if any. */
void tmem_evict_reap(struct tmem_pager *pager, bool wait);

/* If no frame is free because of writes, waits for one; else false. */
bool tmem_evict_wait(struct tmem_pager *pager);

#endif
