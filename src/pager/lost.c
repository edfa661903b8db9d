/* SPDX-License-Identifier: MIT */
/* See lost.h. */
#include "lost.h"

void tmem_lost_note(struct tmem_pager *pager, struct tmem_tree_slot *slot,
		    uint64_t vpn, uint32_t offset, int error)
{
	uint32_t nr = atomic_fetch_add(&slot->nr_lost, 1);
	struct tmem_tree_lost *lost;
	int64_t place = -1;

	atomic_fetch_add_explicit(&slot->counters.faults_lost, 1,
				  memory_order_relaxed);
	if (nr >= TMEM_TREE_LOST_PAGES)
		return;
	if (pager->swapfile &&
	    !tmem_frontswap_test(pager->frontswap, PAGER_FRONTSWAP_TYPE,
				 offset))
		place = tmem_swapfile_place(pager->swapfile, offset);
	lost = &slot->lost[nr];
	lost->place = place;
	lost->error = error;
	atomic_store(&lost->addr, vpn * TMEM_PAGE_SIZE);
}
