/* SPDX-License-Identifier: MIT */
/*
 * The hand: which pages leave, and into which frames.
 *
 * It visits leaves of the page table at random, those apart where a page came
 * just now, and takes what is resident there: all but the pages that are to be
 * passed by once more (heat.h).  At random, because a program that goes
 * through more than there is, over and over, would find each page just gone if
 * the oldest went first; so it finds a good part.  What it takes is moved into
 * a group of frames, neighbours in one call (move.h).
 *
 * A page that compresses poorly can only go to the swap file, from where it
 * takes five times as long to come back.  So it is taken at one of 16 visits,
 * and at one of 64 after it did come back.
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
