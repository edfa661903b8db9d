/* SPDX-License-Identifier: MIT */
/* The pager's side of wire/anchor.h. */
#ifndef TMEM_PAGER_ANCHOR_H
#define TMEM_PAGER_ANCHOR_H

#include "pager.h"
#include "wire/anchor.h"

/*
 * Places it; where both its addresses are taken, elsewhere, and a core dump
 * can't be rebuilt.  0 or -ENOMEM.
 */
int tmem_anchor_init(struct tmem_pager *pager);

/* A page is in that frame. */
static inline void tmem_anchor_moved_locked(struct tmem_pager *pager,
					    const struct tmem_frame *f)
	TMEM_REQUIRES(&pager->lock)
{
	uint64_t nr = pager->nr_taken++;

	pager->anchor->moved[nr % TMEM_ANCHOR_MOVED] =
		(struct tmem_anchor_move){ .vpn = tmem_table_vpn(&pager->table,
								 f->handle),
					   .offset = f->offset,
					   .kept = f->kept };
	atomic_store_explicit(&pager->anchor->nr_taken, nr + 1,
			      memory_order_release);
}

/* A stored copy has no owner any more. */
static inline void tmem_anchor_dropped_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	atomic_store_explicit(&pager->anchor->nr_dropped, ++pager->nr_dropped,
			      memory_order_release);
}

#endif
