/* SPDX-License-Identifier: MIT */
/* See born.h and birth.h. */
#include "born.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/sys.h"
#include "birth.h"
#include "event.h"
#include "install.h"
#include "late.h"
#include "procfs.h"
#include "region.h"
#include "serve.h"

enum {
	LOOK_NS = 20000000,
	LOOKS = 1000,
	FREEZES = 20
};

/* Faults that were read while looking for events: they ask again. */
static void give_back_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	while (pager->nr_stash)
		tmem_install_wake(pager->uffd, pager->stash[--pager->nr_stash],
				  1);
}

/* Reads what is to be read.  0: nothing is on its way (N2); -EAGAIN, -EBUSY. */
static int read_all_locked(struct tmem_pager *pager) TMEM_REQUIRES(&pager->lock)
{
	uint64_t addr;
	int r;

	do {
		r = tmem_event_read_locked(pager, &addr);
		if (r == 1) {
			if (pager->nr_stash == PAGER_STASH)
				give_back_locked(pager);
			pager->stash[pager->nr_stash++] = tmem_vpn(addr);
		}
	} while (r >= 0);
	if (r == -EBUSY)
		return r;
	return tmem_install_is_refused(pager->uffd) ? -EAGAIN : 0;
}

/* Nothing is loading or leaving: fork mode has settled. */
static bool is_out(const struct tmem_pager *pager, uint32_t handle)
{
	uint32_t entry = tmem_table_entry(&pager->table, handle);

	return tmem_entry_state(entry) >= PAGE_STORED &&
	       !tmem_table_is_loose(&pager->table, handle);
}

/* One that is out; false: not now, mostly an event has to be read first. */
static bool fetch_locked(struct tmem_pager *pager, uint32_t handle)
	TMEM_REQUIRES(&pager->lock)
{
	uint64_t vpn = tmem_notes_follow(pager->deferred,
					 tmem_table_vpn(&pager->table, handle));
	int found = 0;
	long r = 0;

	if (vpn != UINT64_MAX) {
		found = tmem_serve_peek(pager, vpn, pager->gate_page);
		if (found != 0)
			r = tmem_install_sure(pager->uffd, vpn,
					      found > 0 ? pager->gate_page
							: NULL);
		if (r == -EAGAIN || r == -ENOMEM)
			return false;
		if (r > 0)
			atomic_fetch_add(&pager->usage_delta_pages, 1);
	}
	tmem_table_set_loose(&pager->table, handle); /* T6 */
	return true;
}

/* False: something was moved meanwhile, perhaps to where this has been. */
static bool fetch_pass(struct tmem_pager *pager)
{
	bool whole = true;
	uint32_t nr, i;

	for (nr = 0; nr < pager->table.nr_leaves; nr++) {
		for (i = 0; i < LEAF_PAGES;) {
			uint32_t handle = nr << LEAF_SHIFT | i;
			bool done = true;

			tmem_lock_acquire(&pager->lock);
			if (tmem_table_leaf(&pager->table, nr)->base !=
				    UINT64_MAX &&
			    is_out(pager, handle))
				done = fetch_locked(pager, handle);
			if (!done && read_all_locked(pager) == -EBUSY) {
				tmem_event_catch_up_locked(pager);
				whole = false;
			}
			give_back_locked(pager);
			tmem_lock_release(&pager->lock);
			if (!done)
				tmem_sys_pause();
			i += done;
		}
	}
	return whole;
}

void tmem_born_fetch_all(struct tmem_pager *pager)
{
	while (!fetch_pass(pager))
		;
}

/* Nothing came, and nothing is on its way. */
static bool is_quiet_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	bool quiet = read_all_locked(pager) == 0 &&
		     atomic_load(&pager->deferred->nr) == 0;

	tmem_event_catch_up_locked(pager);
	return quiet;
}

/* What was moved while memory was let go was perhaps not let go. */
static bool was_moved_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	const struct tmem_deferred *d = pager->deferred;
	bool moved = false;
	uint64_t i;

	read_all_locked(pager);
	for (i = 0; i < atomic_load(&d->nr); i++)
		moved |= d->note[i].kind == NOTE_MOVED;
	tmem_event_catch_up_locked(pager);
	return moved;
}

void tmem_born_freeze_locked(struct tmem_pager *pager)
{
	unsigned i;

	tmem_lock_acquire(&pager->lock);
	for (i = 0;; i++) {
		while (!is_quiet_locked(pager)) {
			give_back_locked(pager);
			tmem_lock_release(&pager->lock);
			tmem_sys_pause();
			tmem_lock_acquire(&pager->lock);
		}
		tmem_region_let_go_locked(pager);
		if (!was_moved_locked(pager) || i == FREEZES)
			break;
	}
}

void tmem_born_tell_locked(struct tmem_pager *pager)
{
	struct tmem_birth *page = pager->birth;
	const struct tmem_deferred *d = pager->deferred;
	uint64_t i, nr;
	int r;

	do {
		r = read_all_locked(pager);
		if (r == -EAGAIN)
			tmem_sys_pause();
	} while (r == -EAGAIN);
	nr = atomic_load(&d->nr);
	page->nr = 0;
	for (i = 0; i < nr; i++) /* dropped after its event: N2 */
		if (d->note[i].kind != NOTE_GONE)
			page->note[page->nr++] = d->note[i];
	atomic_store(&page->verdict, r == 0 ? BIRTH_TOLD : BIRTH_UNSURE);
	tmem_sys(SYS_futex, &page->verdict, FUTEX_WAKE, INT32_MAX);
	give_back_locked(pager);
}

/* The child's side */

static bool is_unmapped(const struct tmem_pager *pager, uint64_t start,
			uint64_t end)
{
	return !tmem_procfs_is_mapped(pager->maps_fd, start * TMEM_PAGE_SIZE,
				      end * TMEM_PAGE_SIZE);
}

struct count {
	uint64_t known;
	uint64_t out; /* what only we have, or what is lost */
};

static void count_page(void *arg, uint32_t handle, uint32_t entry)
{
	struct count *c = arg;

	(void)handle;
	c->known++;
	c->out += tmem_entry_state(entry) >= PAGE_STORED;
}

static struct count count(struct tmem_pager *pager, uint64_t start,
			  uint64_t end) TMEM_REQUIRES(&pager->lock)
{
	struct count c = { 0, 0 };

	tmem_table_walk(&pager->table, start, end, count_page, &c);
	return c;
}

static bool has_out(struct tmem_pager *pager, uint64_t start, uint64_t end)
	TMEM_REQUIRES(&pager->lock)
{
	return count(pager, start, end).out != 0;
}

/* Does another note touch these pages, too? */
static bool is_twice(const struct tmem_birth *page, uint64_t nr, uint64_t start,
		     uint64_t end)
{
	uint64_t i;

	for (i = 0; i < page->nr; i++) {
		const struct tmem_note *n = &page->note[i];
		uint64_t stop = n->kind == NOTE_MOVED ? n->from + n->nr : n->to;

		if (i != nr && n->from < end && start < stop)
			return true;
		if (i != nr && n->kind == NOTE_MOVED && n->to < end &&
		    start < n->to + n->nr)
			return true;
	}
	return false;
}

/*
 * These pages are in one mapping with others, which were known before and that
 * nothing came over.  A mapping that was put into a hole is not watched, so it
 * would be one of its own: they were still there when the child was made.
 */
static bool is_same_mapping(struct tmem_pager *pager, uint64_t nr)
	TMEM_REQUIRES(&pager->lock)
{
	const struct tmem_note *n = &pager->birth->note[nr];
	struct procmap_query q = { .size = sizeof(q),
				   .query_addr = n->from * TMEM_PAGE_SIZE };
	uint64_t start, end;

	if (pager->maps_fd < 0 ||
	    tmem_sys(SYS_ioctl, pager->maps_fd, PROCMAP_QUERY, &q) < 0)
		return false;
	start = tmem_vpn(q.vma_start);
	end = tmem_vpn(q.vma_end);
	return end >= n->to && !is_twice(pager->birth, nr, start, end) &&
	       (count(pager, start, n->from).known ||
		count(pager, n->to, end).known);
}

/* N2, for what was unmapped: before the clone, after it, or unknown. */
static bool settle_unmapped_locked(struct tmem_pager *pager, uint64_t nr)
	TMEM_REQUIRES(&pager->lock)
{
	const struct tmem_note *n = &pager->birth->note[nr];

	if (!is_unmapped(pager, n->from, n->to))
		return is_same_mapping(pager, nr);
	tmem_event_forget_locked(pager, n->from, n->to);
	return true;
}

/* The same for what was moved. */
static bool settle_moved_locked(struct tmem_pager *pager,
				const struct tmem_note *n)
	TMEM_REQUIRES(&pager->lock)
{
	if (has_out(pager, n->to, n->to + n->nr))
		return false;
	if (!is_unmapped(pager, n->from, n->from + n->nr))
		return is_unmapped(pager, n->to, n->to + n->nr);
	tmem_event_apply_locked(pager, n);
	return true;
}

static bool settle_locked(struct tmem_pager *pager, uint64_t nr)
	TMEM_REQUIRES(&pager->lock)
{
	const struct tmem_birth *page = pager->birth;
	const struct tmem_note *n = &page->note[nr];
	bool moved = n->kind == NOTE_MOVED;
	uint64_t end = moved ? n->from + n->nr : n->to;

	/* It was marked, and not let go: it is nowhere. */
	if (moved && is_unmapped(pager, n->from, end) &&
	    is_unmapped(pager, n->to, n->to + n->nr))
		return false;
	/* Nothing to lose: what is there, adopting finds. */
	if (!has_out(pager, n->from, end) &&
	    !(moved && has_out(pager, n->to, n->to + n->nr)))
		return true;
	if (end > LATE_ASIDE || is_twice(page, nr, n->from, end) ||
	    (moved && is_twice(page, nr, n->to, n->to + n->nr)))
		return false;
	return moved ? settle_moved_locked(pager, n)
		     : settle_unmapped_locked(pager, nr);
}

static int hear(struct tmem_pager *pager)
{
	struct tmem_birth *page = pager->birth;
	const struct timespec ts = { 0, LOOK_NS };
	unsigned i;

	for (i = 0; i < LOOKS && !atomic_load(&page->verdict); i++)
		tmem_sys(SYS_futex, &page->verdict, FUTEX_WAIT, BIRTH_UNTOLD,
			 &ts, 0, 0);
	return atomic_load(&page->verdict) == BIRTH_TOLD ? 0 : -EAGAIN;
}

int tmem_born_adopt(struct tmem_pager *pager)
{
	uint64_t i;
	int r = hear(pager);
	bool sure = true;

	if (r < 0)
		return r;
	atomic_store(&pager->deferred->nr, 0);
	if (!atomic_load(&pager->armed))
		return 0;
	tmem_lock_acquire(&pager->lock);
	tmem_late_forget_locked(pager);
	for (i = 0; i < pager->birth->nr && sure; i++)
		sure = settle_locked(pager, i);
	tmem_lock_release(&pager->lock);
	if (!sure)
		return -EAGAIN;
	atomic_store(&pager->armed, 0);
	return tmem_region_adopt(pager);
}
