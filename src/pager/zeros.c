/* SPDX-License-Identifier: MIT */
/* See zeros.h. */
#include "zeros.h"

#include "base/sys.h"
#include "base/uffd.h"
#include "evict.h"

enum {
	/* Leaves that one lookup covers, pages that one sweep takes. */
	LOOK_LEAVES = 256,
	SWEEP_PAGES = 65536,
	REGIONS = 256
};

void tmem_zeros_counted(struct tmem_pager *pager, int64_t unknown,
			uint64_t found)
{
	pager->zeros_base = -unknown - (int64_t)found;
}

int64_t tmem_zeros_silent(const struct tmem_pager *pager, int64_t unknown)
{
	return -unknown - pager->zeros_base;
}

/* From zeros_leaf on: neighbours in memory, as far as leaves follow so. */
static uint64_t look_until(const struct tmem_table *table, uint32_t first,
			   uint32_t *ret_leaves)
{
	uint64_t vpn = tmem_table_leaf(table, first)->base;
	uint32_t n = 0;

	while (n < LOOK_LEAVES && first + n < table->nr_leaves &&
	       tmem_table_leaf(table, first + n)->base == vpn) {
		vpn += LEAF_PAGES;
		n++;
	}
	*ret_leaves = n;
	return vpn;
}

/* Which pages of one leaf's word may go, of those from `from` to `to`. */
static uint64_t may_go(const struct tmem_leaf *leaf, uint32_t word,
		       uint32_t from, uint32_t to)
{
	uint64_t bits = leaf->resident[word] & ~leaf->pinned[word] &
			~leaf->busy[word] & ~leaf->odd[word] & (~0ull << from);

	return to < 64 ? bits & ((1ull << to) - 1) : bits;
}

/* Moves what is in [vpn, end), as far as the group has room. */
static void take_range(struct tmem_pager *pager, struct tmem_batch *b,
		       uint64_t vpn, uint64_t end) TMEM_REQUIRES(&pager->lock)
{
	while (vpn < end && !b->stop && b->group->nr_used < b->want) {
		uint32_t handle = tmem_table_find(&pager->table, vpn);
		uint32_t from = vpn % 64, i, len;
		uint64_t stop = vpn - from + 64, bits, room;

		if (stop > end)
			stop = end;
		bits = handle == TABLE_NO_HANDLE
			       ? 0
			       : may_go(tmem_table_leaf(&pager->table,
							handle >> LEAF_SHIFT),
					vpn % LEAF_PAGES / 64, from,
					(uint32_t)(stop - (vpn - from)));
		if (!bits) {
			vpn = stop;
			continue;
		}
		i = (uint32_t)__builtin_ctzll(bits);
		bits = ~(bits >> i);
		len = bits ? (uint32_t)__builtin_ctzll(bits) : 64;
		room = b->want - b->group->nr_used;
		vpn += i - from;
		vpn += tmem_hand_move_locked(pager, b, handle + (i - from),
					     len < room ? len : (uint32_t)room);
	}
}

/*
 * Fills the group from where the last sweep stopped; advances.  False: the
 * end of the table was reached.
 */
static bool fill_locked(struct tmem_pager *pager, struct tmem_batch *b)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_table *table = &pager->table;
	struct page_region *found = pager->regions;

	while (pager->zeros_leaf < table->nr_leaves && !b->stop) {
		struct pm_scan_arg arg = {
			.size = sizeof(arg),
			.vec = (uintptr_t)found,
			.vec_len = REGIONS,
			.max_pages = b->want - b->group->nr_used,
			.category_mask = PAGE_IS_PFNZERO,
			.return_mask = PAGE_IS_PFNZERO,
		};
		uint32_t leaves;
		long n, i;

		if (tmem_table_leaf(table, pager->zeros_leaf)->base ==
		    UINT64_MAX) {
			pager->zeros_leaf++;
			pager->zeros_done = 0;
			continue;
		}
		arg.end = look_until(table, pager->zeros_leaf, &leaves) *
			  TMEM_PAGE_SIZE;
		arg.start = tmem_table_leaf(table, pager->zeros_leaf)->base *
			    TMEM_PAGE_SIZE;
		if (pager->zeros_done > arg.start &&
		    pager->zeros_done < arg.end)
			arg.start = pager->zeros_done;
		n = tmem_sys(SYS_ioctl, pager->pagemap_fd, PAGEMAP_SCAN, &arg);
		for (i = 0; i < n; i++)
			take_range(pager, b, tmem_vpn(found[i].start),
				   tmem_vpn(found[i].end));
		pager->zeros_done = arg.walk_end;
		if (n < 0 || arg.walk_end >= arg.end) {
			pager->zeros_leaf += leaves;
			pager->zeros_done = 0;
		}
		if (b->group->nr_used >= b->want)
			return true;
	}
	return pager->zeros_leaf < table->nr_leaves;
}

/* One group; false: all of the table was looked at, or it can't be now. */
static bool sweep_some(struct tmem_pager *pager, unsigned *taken, bool *ret_all)
{
	struct tmem_batch b = { .want = FRAME_ZEROS };
	struct tmem_frame_group *group = NULL;
	bool more = false;

	tmem_lock_acquire(&pager->lock);
	if (tmem_evict_may_locked(pager, b.want))
		b.group = tmem_frames_take_zeros_locked(pager);
	if (b.group) {
		more = fill_locked(pager, &b);
		*ret_all = !more;
		more = more && !b.stop;
		group = tmem_evict_begin_locked(pager, &b);
	}
	tmem_lock_release(&pager->lock);
	if (group) {
		*taken += group->nr_used;
		tmem_evict_finish(pager, group, pager->ticker_page);
	}
	return more;
}

void tmem_zeros_sweep(struct tmem_pager *pager, int64_t unknown)
{
	unsigned taken = 0;
	bool all = false;

	tmem_evict_reap(pager, false);
	while (taken < SWEEP_PAGES && sweep_some(pager, &taken, &all))
		;
	if (!all)
		return;
	pager->zeros_leaf = 0;
	pager->zeros_done = 0;
	/* What is left now can't go, or came meanwhile. */
	tmem_zeros_counted(pager, unknown + (int64_t)taken, 0);
}
