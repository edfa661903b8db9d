/* SPDX-License-Identifier: MIT */
/*
 * Loads: pages on their way back, read without the pager's lock.
 *
 * A handler claims pages (STORED becomes LOADING), releases the lock, reads
 * them into its scratch, takes the lock again and installs them; one page for
 * a fault, several when it reads ahead.  Meanwhile anything may happen to them:
 *
 *   L1  A page is LOADING if and only if one load of one handler names it;
 *       LOADING and the load's handle change together, under the lock.
 *   L2  An event that takes the page away (munmap, MADV_DONTNEED) makes the
 *       load's handle TABLE_NO_HANDLE; one that moves it gives the load the
 *       new handle.  Either wakes who waits at the old address.
 *   L3  A page is installed only where it was claimed, if the load still names
 *       it there and no note of fork mode says otherwise (P2).  Else it is
 *       STORED again, its copy untouched, and who waits asks again.
 *   L4  The copy in frontswap is dropped only after the kernel said that the
 *       page is present, or that nobody wants it (P3): until then only the
 *       loader may drop it.
 *   L5  When a load ends, whoever waits at the page's address is woken.
 *   L6  nr_loading counts the handlers that have loads: fork mode waits for
 *       them to end.
 */
#ifndef TMEM_PAGER_LOAD_H
#define TMEM_PAGER_LOAD_H

#include "pager.h"

/* The page is STORED and becomes this handler's next load. */
void tmem_load_claim_locked(struct tmem_pager *pager, struct tmem_handler *me,
			    uint32_t handle, uint64_t vpn)
	TMEM_REQUIRES(&pager->lock);

/* Reads all of them, without the lock; results in the loads. */
void tmem_load_read(struct tmem_handler *me);

/* May the page be installed where it was claimed?  L3 */
bool tmem_load_stands(const struct tmem_pager *pager,
		      const struct tmem_load *load);

/* The page is present. */
void tmem_load_installed_locked(struct tmem_pager *pager,
				struct tmem_load *load)
	TMEM_REQUIRES(&pager->lock);
/* It is not, and is not wanted or can't be: as it was, if it still is. */
void tmem_load_return_locked(struct tmem_pager *pager, struct tmem_load *load)
	TMEM_REQUIRES(&pager->lock);

/* All of them have been installed or returned. */
void tmem_load_end_locked(struct tmem_pager *pager, struct tmem_handler *me)
	TMEM_REQUIRES(&pager->lock);

/* The scratch page of the handler's load i. */
static inline uint8_t *tmem_load_page(const struct tmem_handler *me, unsigned i)
{
	return me->page + (size_t)i * TMEM_PAGE_SIZE;
}

#endif
