/* SPDX-License-Identifier: MIT */
/* See late.h. */
#include "late.h"

#include "procfs.h"

void tmem_late_moved_locked(struct tmem_pager *pager, uint64_t to, uint64_t end)
{
	struct tmem_range *last = &pager->moved[PAGER_MAX_MOVED - 1];

	if (pager->nr_moved < PAGER_MAX_MOVED) {
		pager->moved[pager->nr_moved++] =
			(struct tmem_range){ to, end };
		return;
	}
	/* The last one becomes all that there is room for. */
	last->start = to < last->start ? to : last->start;
	last->end = end > last->end ? end : last->end;
}

static bool meets(const struct tmem_range *r, uint64_t start, uint64_t end)
{
	return r->start < end && start < r->end;
}

void tmem_late_registered_locked(struct tmem_pager *pager, uint64_t start,
				 uint64_t end)
{
	unsigned i;

	for (i = 0; i < pager->nr_moved; i++)
		if (meets(&pager->moved[i], tmem_vpn(start), tmem_vpn(end)))
			pager->nr_moved = 0;
}

/* What of [start, end) lies in one of them and in memory that is watched. */
static unsigned find_kept(const struct tmem_pager *pager, uint64_t start,
			  uint64_t end, struct tmem_range kept[LATE_PARTS - 1])
{
	struct tmem_range there[LATE_PARTS];
	unsigned nr = tmem_procfs_watched(
		start * TMEM_PAGE_SIZE, end * TMEM_PAGE_SIZE,
		(char *)pager->maps_buffer, PAGER_MAPS_BUFFER, there);
	unsigned i, k, n = 0;

	for (i = 0; i < nr; i++) {
		uint64_t from = tmem_vpn(there[i].start);
		uint64_t to = tmem_vpn(there[i].end);

		for (k = 0; k < pager->nr_moved && n < LATE_PARTS - 1; k++) {
			const struct tmem_range *m = &pager->moved[k];

			if (!meets(m, from, to))
				continue;
			kept[n].start = m->start > from ? m->start : from;
			kept[n++].end = m->end < to ? m->end : to;
		}
	}
	return n;
}

unsigned tmem_late_unmapped_locked(struct tmem_pager *pager, uint64_t start,
				   uint64_t end,
				   struct tmem_range ret_gone[LATE_PARTS])
{
	struct tmem_range kept[LATE_PARTS - 1];
	unsigned i, nr_kept = 0, nr = 0;
	bool maybe = false;

	for (i = 0; i < pager->nr_moved; i++)
		maybe |= meets(&pager->moved[i], start, end);
	/* Mostly it is not mapped, and the quick look says so. */
	if (maybe &&
	    tmem_procfs_is_mapped(pager->maps_fd, start * TMEM_PAGE_SIZE,
				  end * TMEM_PAGE_SIZE))
		nr_kept = find_kept(pager, start, end, kept);
	while (start < end) {
		uint64_t stop = end, next = end;

		for (i = 0; i < nr_kept; i++) {
			if (kept[i].end <= start || kept[i].start >= stop)
				continue;
			stop = kept[i].start > start ? kept[i].start : start;
			next = kept[i].end < end ? kept[i].end : end;
		}
		if (stop > start)
			ret_gone[nr++] = (struct tmem_range){ start, stop };
		start = stop < end ? next : end;
	}
	return nr;
}
