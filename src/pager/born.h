/* SPDX-License-Identifier: MIT */
/*
 * The pagers' part in a birth (birth.h): the parent's gate, which stands still
 * for it, and the child's new pager, which makes sure of what it got.
 */
#ifndef TMEM_PAGER_BORN_H
#define TMEM_PAGER_BORN_H

#include "pager.h"

/* The gate: in fork mode, brings all that is out into memory. */
void tmem_born_fetch_all(struct tmem_pager *pager);

/*
 * The gate: no event is on its way, nor noted, and memory may go to the child.
 * The lock is held when it returns.
 */
void tmem_born_freeze_locked(struct tmem_pager *pager)
	TMEM_ACQUIRES(&pager->lock);

/* The gate, after the clone: tells the child what came meanwhile. */
void tmem_born_tell_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock);

/*
 * The child's new pager: watches what the parent's watched.  0, or -errno if
 * it is not sure to have all of it (N2, N3).
 */
int tmem_born_adopt(struct tmem_pager *pager);

#endif
