/* SPDX-License-Identifier: MIT */
/* See busy.h. */
#include "busy.h"

#include "base/sys.h"
#include "budget.h"
#include "pin.h"

enum {
	/* Pages written to, leaves looked at: one call's worth. */
	SOLE_BATCH = 512,
	SHARED_BATCH = 32,
	LEAF_BATCH = 512,
	/* Relatives: with more, everyone's copy is more than what it frees. */
	FEW = 2
};

/* So long nothing else could be evicted: not for a wrong estimate. */
#define PATIENCE_NS 100000000ull
/* And then for so long without waiting again. */
#define UNSHARE_NS 1000000000ull
/* Between looks, however many relatives there are. */
#define PAUSE_MAX_NS 1000000000ull

/* /proc/PID/pagemap: mapped by us alone. */
#define PAGEMAP_SOLE (1ull << 56)

struct busy_list {
	uint64_t *addr;
	unsigned nr;
	unsigned nr_busy; /* seen */
	unsigned nr_shared;
	unsigned max_shared;
	bool left; /* some were not looked at, or left */
};

static bool has_busy(const struct tmem_leaf *leaf)
{
	uint64_t any = 0;
	unsigned i;

	if (leaf->base == UINT64_MAX)
		return false;
	for (i = 0; i < LEAF_WORDS; i++)
		any |= leaf->busy[i];
	return any != 0;
}

/* Which busy pages of the leaf are worth another try; no longer marked. */
static void look_at_leaf_locked(struct tmem_pager *pager,
				struct tmem_leaf *leaf, struct busy_list *list)
	TMEM_REQUIRES(&pager->lock)
{
	const uint64_t *map = (const uint64_t *)pager->ticker_page;
	long n = tmem_sys(SYS_pread64, pager->pagemap_fd, pager->ticker_page,
			  LEAF_PAGES * sizeof(*map), leaf->base * sizeof(*map));
	unsigned i;

	if (n != (long)(LEAF_PAGES * sizeof(*map)))
		return;
	for (i = 0; i < LEAF_PAGES; i++) {
		uint64_t bit = 1ull << i % 64;
		bool shared = !(map[i] & PAGEMAP_SOLE);

		if (!(leaf->busy[i / 64] & bit))
			continue;
		list->nr_busy++;
		if (list->nr == SOLE_BATCH ||
		    (shared && list->nr_shared == list->max_shared)) {
			list->left = true;
			continue;
		}
		leaf->busy[i / 64] &= ~bit;
		list->nr_shared += shared;
		/* A pinned page may come back into use any moment: not ours. */
		if (!(leaf->pinned[i / 64] & bit))
			list->addr[list->nr++] =
				(leaf->base + i) * TMEM_PAGE_SIZE;
	}
}

static void look_locked(struct tmem_pager *pager, struct busy_list *list)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_table *table = &pager->table;
	unsigned looked = 0;
	uint32_t i;

	for (i = 0; i < table->nr_leaves; i++, pager->busy_leaf++) {
		struct tmem_leaf *leaf;

		if (pager->busy_leaf >= table->nr_leaves)
			pager->busy_leaf = 0;
		leaf = tmem_table_leaf(table, pager->busy_leaf);
		if (!has_busy(leaf))
			continue;
		if (looked++ == LEAF_BATCH || list->nr == SOLE_BATCH) {
			list->left = true;
			return;
		}
		look_at_leaf_locked(pager, leaf, list);
	}
}

/* All processes together hold more than they may. */
static bool tree_is_over(const struct tmem_pager *pager)
{
	const struct tmem_tree *tree = pager->tree;
	uint64_t sum = atomic_load(&tree->keeper_bytes);
	unsigned i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		if (atomic_load(&tree->slots[i].state) == TMEM_SLOT_LIVE)
			sum += atomic_load(&tree->slots[i].usage_bytes);
	return sum > atomic_load(&tree->limit_bytes);
}

/* Since when nothing was found: until they were asked, and that wasn't so. */
static void note_starved(struct tmem_pager *pager, uint64_t now)
{
	bool starved = atomic_exchange(&pager->evict_starved, 0);

	if (!starved && (pager->asked_before || tmem_budget_fits(pager)))
		pager->starved_ns = 0;
	else if (starved && !pager->starved_ns)
		pager->starved_ns = now;
	pager->asked_before = pager->asked;
	pager->asked = false;
}

/* Nothing else can go, or that was so a moment ago and is again. */
static bool may_unshare(const struct tmem_pager *pager, uint64_t now)
{
	if (!pager->starved_ns || (now - pager->starved_ns <= PATIENCE_NS &&
				   now >= pager->unshare_until_ns))
		return false;
	return !tmem_budget_fits(pager) &&
	       (pager->nr_relatives <= FEW || tree_is_over(pager));
}

/*
 * Reading pagemap is slow: a fiftieth of the time for looks in vain, and a
 * twenty-fifth for those of all relatives together, if they are many.
 */
static uint64_t pause_after(const struct tmem_pager *pager, uint64_t began)
{
	uint64_t took = tmem_sys_now_ns() - began;
	uint64_t share = took * 25 * (pager->nr_relatives + 1);

	if (share > PAUSE_MAX_NS)
		share = PAUSE_MAX_NS;
	return share > took * 50 ? share : took * 50;
}

void tmem_busy_retry(struct tmem_pager *pager)
{
	static uint64_t addr[SOLE_BATCH];
	struct busy_list list = { .addr = addr };
	uint64_t now = tmem_sys_now_ns();
	unsigned i;

	note_starved(pager, now);
	if (may_unshare(pager, now))
		list.max_shared = SHARED_BATCH;
	if (now < pager->busy_next_ns || !atomic_exchange(&pager->some_busy, 0))
		return;
	tmem_budget_acquire(pager);
	if (!atomic_load(&pager->fork_mode))
		look_locked(pager, &list);
	else
		list.left = true;
	tmem_lock_release(&pager->lock);
	if (list.left)
		atomic_store(&pager->some_busy, 1);
	for (i = 0; i < list.nr; i++)
		tmem_pin_touch(pager, addr[i]);
	/* Copies, which Rss does not show, nor the program's minor faults. */
	pager->pss_at_read += list.nr_shared;
	if (list.nr_shared)
		pager->unshare_until_ns = now + UNSHARE_NS;
	if (list.nr)
		pager->ask_next_ns = 0;
	PAGER_COUNT(pager, unshared_pages, list.nr);
	if (list.nr < list.nr_busy / 4)
		pager->busy_next_ns = now + pause_after(pager, now);
}
