/* SPDX-License-Identifier: MIT */
/* See late.h. */
#include "late.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/sys.h"
#include "event.h"
#include "install.h"
#include "procfs.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

enum {
	LOOKS = 500 /* 30 ms */
};

/* An mremap() of this place that leaves the mapping where it is. */
struct stays {
	const struct tmem_pager *pager;
	uint64_t start; /* address */
	bool awake;	/* somebody does not sleep: it may be the caller */
};

void tmem_late_moved_locked(struct tmem_pager *pager, uint64_t to, uint64_t end)
{
	struct tmem_range *last = &pager->moved[PAGER_MAX_MOVED - 1];
	struct tmem_range *aside = &pager->aside;

	if (!aside->end || to + LATE_ASIDE < aside->start)
		aside->start = to + LATE_ASIDE;
	if (end + LATE_ASIDE > aside->end)
		aside->end = end + LATE_ASIDE;
	if (pager->nr_moved < PAGER_MAX_MOVED) {
		pager->moved[pager->nr_moved++] =
			(struct tmem_range){ to, end };
		return;
	}
	/* The last one becomes all that there is room for. */
	last->start = to < last->start ? to : last->start;
	last->end = end > last->end ? end : last->end;
}

void tmem_late_forget_locked(struct tmem_pager *pager)
{
	struct tmem_range aside = pager->aside;

	pager->nr_moved = 0;
	/* In fork mode the table stays as it is. */
	if (!aside.end || atomic_load(&pager->fork_mode))
		return;
	pager->aside = (struct tmem_range){ 0, 0 };
	tmem_event_forget_locked(pager, aside.start, aside.end);
}

static bool meets(const struct tmem_range *r, uint64_t start, uint64_t end)
{
	return r->start < end && start < r->end;
}

static bool was_moved_to(const struct tmem_pager *pager, uint64_t start,
			 uint64_t end)
{
	unsigned i;

	for (i = 0; i < pager->nr_moved; i++)
		if (meets(&pager->moved[i], start, end))
			return true;
	return false;
}

bool tmem_late_may_register_locked(struct tmem_pager *pager, uint64_t start,
				   uint64_t end)
{
	if (!was_moved_to(pager, tmem_vpn(start), tmem_vpn(end)))
		return true;
	if (tmem_install_is_refused(pager->uffd))
		return false;
	tmem_late_forget_locked(pager);
	return true;
}

/* What of [start, end) lies in one of them and in memory that is watched. */
static unsigned find_kept(const struct tmem_pager *pager, uint64_t start,
			  uint64_t end, struct tmem_range kept[LATE_KEPT])
{
	struct tmem_range there[PROCFS_WATCHED];
	unsigned nr = tmem_procfs_watched(
		start * TMEM_PAGE_SIZE, end * TMEM_PAGE_SIZE,
		(char *)pager->maps_buffer, PAGER_MAPS_BUFFER, there);
	unsigned i, k, n = 0;

	for (i = 0; i < nr; i++) {
		uint64_t from = tmem_vpn(there[i].start);
		uint64_t to = tmem_vpn(there[i].end);

		for (k = 0; k < pager->nr_moved && n < LATE_KEPT; k++) {
			const struct tmem_range *m = &pager->moved[k];

			if (!meets(m, from, to))
				continue;
			kept[n].start = m->start > from ? m->start : from;
			kept[n++].end = m->end < to ? m->end : to;
		}
	}
	return n;
}

static bool keeps_mapping(void *arg, int tid)
{
	struct stays *s = arg;
	uint64_t args[6];
	int r = tmem_procfs_syscall(s->pager->program_pid, tid, SYS_mremap,
				    args);

	s->awake |= r == -EAGAIN;
	return r == 0 && args[0] == s->start && (args[3] & MREMAP_DONTUNMAP);
}

/*
 * Watched memory is still where it is said to have been moved away.  That is
 * so, too, if the caller asked for it, who waits; such a move is never late:
 * nothing can have been moved to a place that is still mapped.
 */
static bool is_still_there(const struct tmem_pager *pager, uint64_t start)
{
	struct stays s = { pager, start * TMEM_PAGE_SIZE, true };
	unsigned i;

	/* The event is there a moment before its caller sleeps. */
	for (i = 0; i < LOOKS && s.awake; i++) {
		if (i)
			tmem_sys_pause();
		s.awake = false;
		if (tmem_procfs_tasks(pager->program_pid, keeps_mapping, &s))
			return true;
	}
	return false;
}

unsigned tmem_late_left_locked(struct tmem_pager *pager, uint64_t start,
			       uint64_t end, bool is_move,
			       struct tmem_late_part ret_part[LATE_PARTS])
{
	struct tmem_range kept[LATE_KEPT];
	unsigned i, nr_kept = 0, nr = 0;

	/* Mostly it is not mapped, and the quick look says so. */
	if (was_moved_to(pager, start, end) &&
	    tmem_procfs_is_mapped(pager->maps_fd, start * TMEM_PAGE_SIZE,
				  end * TMEM_PAGE_SIZE))
		nr_kept = find_kept(pager, start, end, kept);
	if (nr_kept && is_move && is_still_there(pager, start))
		nr_kept = 0;
	while (start < end) {
		uint64_t stop = end, next = end;

		/* The first that is kept, if any, is [stop, next). */
		for (i = 0; i < nr_kept; i++) {
			if (kept[i].end <= start || kept[i].start >= stop)
				continue;
			stop = kept[i].start > start ? kept[i].start : start;
			next = kept[i].end < end ? kept[i].end : end;
		}
		if (stop > start)
			ret_part[nr++] =
				(struct tmem_late_part){ start, stop, false };
		if (stop < end)
			ret_part[nr++] =
				(struct tmem_late_part){ stop, next, true };
		start = stop < end ? next : end;
	}
	return nr;
}
