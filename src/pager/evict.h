/* SPDX-License-Identifier: MIT */
/*
 * Eviction: what becomes of the pages that leave.
 *
 * Which: the hand says that (hand.h), or who looks for pages that
 * cost nothing (zeros.h).
 *
 * How: under the lock a group of frames is filled, since to move neighbours at
 * once costs a quarter, and an interrupt to the program's other CPUs only once.
 * Then each fault pays for a page: without the lock it is dropped if it is
 * zeros, or compared with its kept copy, or stored, or, if tmem refuses it,
 * queued for the swap file; then under the lock the table is told.  After its
 * last page the group is released.  A fault on a page that is on its way out is
 * answered from its frame.
 *
 *   V1  A handler's open group counts in nr_storing.  It sleeps only when it
 *       has none, and in fork mode sends the rest at once.
 */
#ifndef TMEM_PAGER_EVICT_H
#define TMEM_PAGER_EVICT_H

#include "hand.h"
#include "pager.h"

/*
 * Sends out up to nr pages of the handler's open group, after filling a new one
 * if there is none.  Returns how many; 0 if no page could be taken now; -EBUSY
 * if those that were looked at are busy, but others may not be.
 */
int tmem_evict_some(struct tmem_pager *pager, struct tmem_handler *me,
		    unsigned nr);

/*
 * The same in steps, for who chooses the pages: whether nr may leave now;
 * after they were moved into the batch's group, that group, or NULL if it is
 * empty (then it is free again); and what is done with it without the lock.
 * `scratch` is a page.
 */
bool tmem_evict_may_locked(const struct tmem_pager *pager, unsigned nr)
	TMEM_REQUIRES(&pager->lock);
struct tmem_frame_group *tmem_evict_begin_locked(struct tmem_pager *pager,
						 struct tmem_batch *b)
	TMEM_REQUIRES(&pager->lock);
void tmem_evict_finish(struct tmem_pager *pager, struct tmem_frame_group *group,
		       uint8_t *scratch);

/* Finishes writes that are done; with `wait`, at least one if any. */
void tmem_evict_reap(struct tmem_pager *pager, bool wait);

/* If no frame is free because of writes, waits for one; else false. */
bool tmem_evict_wait(struct tmem_pager *pager);

#endif
