/* SPDX-License-Identifier: MIT */
/*
 * Late events: munmap() and mremap() tell after they have let go of the memory
 * map, so a thread that moves memory to the same place (mremap) may be heard
 * first.
 *
 * Read in that order, what was moved there would be forgotten with the munmap,
 * or go where the first mremap went.  So the places that memory was moved to
 * are remembered while an event from before may still be on its way; and when
 * one says that such a place was left, the kernel's maps tell: memory that is
 * there, and watched, is what was moved, and the event is about what was there
 * before.
 *
 *   E1  No event from before a move is on its way once an ioctl has installed
 *       or moved a page after it: the kernel refuses those (EAGAIN) from before
 *       a munmap until its event was read.  Then nothing is remembered.
 *   E2  What we registered ourselves would say nothing.  So where memory was
 *       moved to we register only when no event is on its way; then nothing is
 *       remembered.
 *   E3  What the table had of a place that memory was moved to is LATE_ASIDE
 *       further on in the table, where no page can be, until the event about it
 *       was read: within pager->aside.  When nothing is remembered, nothing is
 *       there (but in fork mode: then until after it).
 *   E4  Memory that we find present although the table says that its page is
 *       out may have come there after that page was moved away, and the event
 *       is on its way: then the table is right, and stays as it is.
 *
 * All under the pager's lock.
 */
#ifndef TMEM_PAGER_LATE_H
#define TMEM_PAGER_LATE_H

#include "pager.h"

enum {
	/* Parts of one range that are told apart. */
	LATE_KEPT = 15,
	LATE_PARTS = 2 * LATE_KEPT + 1
};

#define LATE_ASIDE (1ull << 35) /* vpns */

/* A part of what an event is about. */
struct tmem_late_part {
	uint64_t start; /* vpns */
	uint64_t end;
	bool is_late; /* it is about what is aside */
};

/* Memory was moved to [to, end) (vpns). */
void tmem_late_moved_locked(struct tmem_pager *pager, uint64_t to, uint64_t end)
	TMEM_REQUIRES(&pager->lock);

/* May [start, end) (addresses) be registered now?  E2 */
bool tmem_late_may_register_locked(struct tmem_pager *pager, uint64_t start,
				   uint64_t end) TMEM_REQUIRES(&pager->lock);

/*
 * [start, end) (vpns) was unmapped, or with `is_move` moved elsewhere, an
 * event says: its parts, in order, without gaps.  At most LATE_PARTS; returns
 * how many.
 */
unsigned tmem_late_left_locked(struct tmem_pager *pager, uint64_t start,
			       uint64_t end, bool is_move,
			       struct tmem_late_part ret_part[LATE_PARTS])
	TMEM_REQUIRES(&pager->lock);

/* Forgets what is remembered, and what is aside. */
void tmem_late_forget_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock);

/* E1: an ioctl has just succeeded. */
static inline void tmem_late_quiet_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	if (pager->nr_moved || pager->aside.end)
		tmem_late_forget_locked(pager);
}

#endif
