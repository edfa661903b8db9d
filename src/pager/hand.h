/* SPDX-License-Identifier: MIT */
/*
 * The hand of the clock: which pages leave, and into which frames.
 *
 * The hand goes round over the leaves of the page table.  It passes by a page
 * once after it came in (its young bit), and takes it the next time.  User
 * space sees no accesses to present pages; coming back is all we know.  What
 * it takes is moved into a group of frames, neighbours in one call (move.h).
 */
#ifndef TMEM_PAGER_HAND_H
#define TMEM_PAGER_HAND_H

#include "pager.h"

/* One group being filled. */
struct tmem_batch {
	struct tmem_frame_group *group; /* NULL: none was taken yet */
	unsigned want;			/* pages, at most the group's */
	unsigned failures;		/* moves that the kernel refused */
	bool stop;			/* it is not worth going on */
};

/* Fills the group, which it takes, with what the hand comes to. */
void tmem_hand_fill_locked(struct tmem_pager *pager, struct tmem_batch *b)
	TMEM_REQUIRES(&pager->lock);

/*
 * Moves nr present neighbours of one leaf, from `handle` on, into b->group,
 * which has room for them.  Returns how many of them it is done with: moved,
 * or noted as what they are.
 */
unsigned tmem_hand_move_locked(struct tmem_pager *pager, struct tmem_batch *b,
			       uint32_t handle, unsigned nr)
	TMEM_REQUIRES(&pager->lock);

#endif
