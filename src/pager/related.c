/* SPDX-License-Identifier: MIT */
/* See related.h. */
#include "related.h"

#include "budget.h"

static uint32_t count_relatives(const struct tmem_pager *pager)
{
	uint32_t nr = 0;
	const struct tmem_tree *tree = pager->tree;
	int32_t mine = pager->slot_nr, i;
	int32_t parent = atomic_load(&pager->slot->parent_slot);

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		const struct tmem_tree_slot *s = &tree->slots[i];
		uint32_t state = atomic_load(&s->state);
		int32_t of = atomic_load(&s->parent_slot);

		if (i == mine ||
		    (state != TMEM_SLOT_LIVE && state != TMEM_SLOT_CLAIMED))
			continue;
		nr += of == mine ||
		      (parent != TMEM_TREE_NO_SLOT && pager->forked &&
		       (i == parent || of == parent));
	}
	return nr;
}

void tmem_related_update(struct tmem_pager *pager)
{
	uint32_t was = pager->nr_relatives;

	if (!atomic_load(&pager->related))
		return;
	pager->nr_relatives = count_relatives(pager);
	if (pager->nr_relatives < was)
		pager->busy_next_ns = 0; /* what was shared may be ours now */
	if (pager->nr_relatives)
		return;
	tmem_budget_acquire(pager);
	if (!atomic_load(&pager->fork_mode)) {
		atomic_store(&pager->related, 0);
		tmem_store_thaw(pager->store);
	}
	tmem_lock_release(&pager->lock);
}
