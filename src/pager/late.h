/* SPDX-License-Identifier: MIT */
/*
 * Late events: munmap() tells after it has let go of the memory map, so a
 * thread that moves memory to the same place (mremap) may be heard first.
 *
 * Read in that order, the munmap would make us forget what was moved.  So the
 * places that memory was moved to are remembered while an event from before
 * may still be on its way; and when one says that such a place was unmapped,
 * the kernel's maps tell: memory that is there, and watched, is what was
 * moved.
 *
 *   E1  No event from before a move is on its way once an ioctl has installed
 *       or moved a page after it: the kernel refuses those (EAGAIN) from before
 *       a munmap until its event was read.  Then nothing is remembered.
 *   E2  What we registered ourselves says nothing: then its place is not
 *       remembered any more either.
 *
 * All under the pager's lock.
 */
#ifndef TMEM_PAGER_LATE_H
#define TMEM_PAGER_LATE_H

#include "pager.h"

enum {
	/* Parts of one range. */
	LATE_PARTS = 16
};

/* Memory was moved to [to, end) (vpns). */
void tmem_late_moved_locked(struct tmem_pager *pager, uint64_t to, uint64_t end)
	TMEM_REQUIRES(&pager->lock);

/* [start, end) (addresses) was registered: E2. */
void tmem_late_registered_locked(struct tmem_pager *pager, uint64_t start,
				 uint64_t end) TMEM_REQUIRES(&pager->lock);

/*
 * [start, end) (vpns) was unmapped, an event says: which parts of it are
 * really gone, at most LATE_PARTS; returns how many.
 */
unsigned tmem_late_unmapped_locked(struct tmem_pager *pager, uint64_t start,
				   uint64_t end,
				   struct tmem_range ret_gone[LATE_PARTS])
	TMEM_REQUIRES(&pager->lock);

/* E1: an ioctl has just succeeded. */
static inline void tmem_late_quiet_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	pager->nr_moved = 0;
}

#endif
