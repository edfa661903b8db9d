/* SPDX-License-Identifier: MIT */
/* See related.h. */
#include "related.h"

#include "base/sys.h"
#include "budget.h"
#include "pin.h"

enum {
	UNSHARE_BATCH = 512
};

static bool relative_lives(const struct tmem_pager *pager)
{
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
		if (of == mine ||
		    (parent != TMEM_TREE_NO_SLOT && pager->forked &&
		     (i == parent || of == parent)))
			return true;
	}
	return false;
}

void tmem_related_update(struct tmem_pager *pager)
{
	if (!atomic_load(&pager->related) || relative_lives(pager))
		return;
	tmem_lock_acquire(&pager->lock);
	if (!atomic_load(&pager->fork_mode)) {
		atomic_store(&pager->related, 0);
		/* Pages once shared stay unmovable until written. */
		pager->was_related = true;
		tmem_store_thaw(pager->store);
	}
	tmem_lock_release(&pager->lock);
}

static unsigned collect_locked(struct tmem_pager *pager, uint64_t *ret_addr)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_table *table = &pager->table;
	unsigned nr = 0;
	uint32_t leaves;

	for (leaves = 0; leaves < table->nr_leaves && nr < UNSHARE_BATCH;
	     leaves++, pager->unshare_leaf++) {
		const struct tmem_leaf *leaf;
		unsigned i;

		if (pager->unshare_leaf >= table->nr_leaves)
			pager->unshare_leaf = 0;
		leaf = tmem_table_leaf(table, pager->unshare_leaf);
		if (leaf->base == UINT64_MAX)
			continue;
		for (i = 0; i < LEAF_PAGES && nr < UNSHARE_BATCH; i++)
			if (leaf->resident[i / 64] >> i % 64 & 1 &&
			    !(leaf->pinned[i / 64] >> i % 64 & 1))
				ret_addr[nr++] = (leaf->base + i) << 12;
	}
	return nr;
}

void tmem_related_unshare(struct tmem_pager *pager)
{
	static uint64_t addr[UNSHARE_BATCH];
	unsigned nr, i;

	if (!pager->need_unshare)
		return;
	pager->need_unshare = 0;
	tmem_lock_acquire(&pager->lock);
	nr = collect_locked(pager, addr);
	tmem_lock_release(&pager->lock);
	for (i = 0; i < nr; i++)
		tmem_pin_touch(pager, addr[i]);
	PAGER_COUNT(pager, unshared_pages, nr);
}
