/* SPDX-License-Identifier: MIT */
/*
 * Heat: how often a page is wanted, judged by how soon it came back.
 *
 * User space sees no touch of a present page.  It does see when a page comes
 * back and knows when it left.  Pages that come back sooner than most others do
 * are wanted more often: each such return raises the page's heat by one, up to
 * 5, and any other lowers it.  A page of heat h is then passed by 2^h - 1 times
 * (hand.h): a hot page stays for long, one that was read once, or in a scan,
 * goes the next time.  What is read ahead has proved nothing.
 *
 * "Sooner than most" is sooner than two of five.  A fixed time would be too
 * long where little is out, since then even what is wanted rarely comes back
 * within it: every page would count as hot, and none.
 *
 * bench/hand_sim compares this with other rules, and docs/decisions has what
 * came of it.  Time is counted in ticks, 256 to a round: as many evictions as
 * there are resident pages.
 *
 *   H1  While a page is resident its `age` holds how often it is still to be
 *       passed by; its young bit says that this is not 0.
 *   H2  While it is out `age` holds the tick when it left.
 */
#ifndef TMEM_PAGER_HEAT_H
#define TMEM_PAGER_HEAT_H

#include "pager.h"

enum {
	HEAT_MAX = 5,
	HEAT_ROUND = 256, /* ticks */
	HEAT_FRESH = 8	  /* the same */
};

/* As for a program that has just started. */
void tmem_heat_init(struct tmem_pager *pager);

/* It came back because it was touched; it is new, or was read ahead. */
void tmem_heat_came_locked(struct tmem_pager *pager, uint32_t handle)
	TMEM_REQUIRES(&pager->lock);
void tmem_heat_arrived_locked(struct tmem_pager *pager, uint32_t handle)
	TMEM_REQUIRES(&pager->lock);
/* It is to be passed by once, whatever it was. */
void tmem_heat_spare_locked(struct tmem_pager *pager, uint32_t handle)
	TMEM_REQUIRES(&pager->lock);

/* The hand takes it. */
void tmem_heat_left_locked(struct tmem_pager *pager, uint32_t handle)
	TMEM_REQUIRES(&pager->lock);

/*
 * The hand comes to a leaf: which of its pages may be taken this time, one bit
 * each.  The others are passed by once less.
 */
uint64_t tmem_heat_visit(struct tmem_leaf *leaf);

/* Has a page come to this leaf just now? */
static inline bool tmem_heat_is_fresh(const struct tmem_pager *pager,
				      const struct tmem_leaf *leaf)
{
	return (uint16_t)(pager->heat_tick - leaf->came) <= HEAT_FRESH;
}

#endif
