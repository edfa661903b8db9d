/* SPDX-License-Identifier: MIT */
/* See event.h. */
#include "event.h"

#include <errno.h>

#include "base/assert.h"
#include "base/chaos.h"
#include "base/sys.h"
#include "gate.h"
#include "install.h"
#include "late.h"
#include "offsets.h"
#include "procfs.h"
#include "region.h"

struct move_arg {
	struct tmem_pager *pager;
	uint64_t from;
	uint64_t to;
};

/* The load that some handler runs for this page, which is LOADING. */
static struct tmem_load *load_of(struct tmem_pager *pager, uint32_t handle)
{
	unsigned i, k;

	for (i = 0; i < pager->nr_handlers; i++) {
		struct tmem_handler *h = &pager->handlers[i];

		for (k = 0; k < h->nr_loads; k++)
			if (h->load[k].handle == handle)
				return &h->load[k];
	}
	return NULL;
}

/*
 * The page leaves this address while it is loaded: who waits here for the
 * loader, which will wake elsewhere or not at all, asks again.
 */
static struct tmem_load *divert_load(struct tmem_pager *pager, uint32_t handle)
{
	struct tmem_load *load = load_of(pager, handle);

	TMEM_ASSERT(load); /* L1 */
	tmem_install_wake(pager->uffd, tmem_table_vpn(&pager->table, handle),
			  1);
	return load;
}

static void forget_page(void *arg, uint32_t handle, uint32_t entry)
	TMEM_UNANALYSED /* the lock is held: tmem_table_walk()'s caller does */
{
	struct tmem_pager *pager = arg;
	uint32_t value = tmem_entry_value(entry);

	switch (tmem_entry_state(entry)) {
	case PAGE_KEPT:
	case PAGE_STORED:
		tmem_offset_drop_locked(pager, value);
		break;
	case PAGE_LOADING:
		/* The loader still reads the copy: it drops it. */
		divert_load(pager, handle)->handle = TABLE_NO_HANDLE;
		break;
	case PAGE_LEAVING:
		tmem_frame(&pager->frames, value)->gone = true;
		break;
	default:
		break;
	}
	tmem_table_set(&pager->table, handle, PAGE_NONE, 0);
}

void tmem_event_forget_locked(struct tmem_pager *pager, uint64_t start,
			      uint64_t end)
{
	tmem_table_walk(&pager->table, start, end, forget_page, pager);
}

static void move_page(void *arg, uint32_t handle, uint32_t entry)
{
	const struct move_arg *m = arg;
	struct tmem_table *table = &m->pager->table;
	uint64_t vpn = tmem_table_vpn(table, handle) - m->from + m->to;
	uint32_t new = tmem_table_make(table, vpn);
	enum tmem_page_state state = tmem_entry_state(entry);
	uint32_t value = tmem_entry_value(entry);
	bool loose = tmem_table_is_loose(table, handle);

	/* Without a place to note it the page would be lost: stop here. */
	TMEM_ASSERT(new != TABLE_NO_HANDLE);
	if (state == PAGE_LOADING) {
		divert_load(m->pager, handle)->handle = new;
	} else if (state == PAGE_LEAVING) {
		tmem_frame(&m->pager->frames, value)->handle = new;
	}
	tmem_table_set(table, new, state, value);
	if (loose)
		tmem_table_set_loose(table, new);
	tmem_table_set(table, handle, PAGE_NONE, 0);
}

void tmem_event_apply_locked(struct tmem_pager *pager,
			     const struct tmem_note *n)
{
	struct move_arg m = { pager, n->from, n->to };
	struct move_arg aside = { pager, n->to, n->to + LATE_ASIDE };

	switch (n->kind) {
	case NOTE_UNMAPPED:
		tmem_table_unpin(&pager->table, n->from, n->to);
		tmem_event_forget_locked(pager, n->from, n->to);
		break;
	case NOTE_GONE:
		tmem_event_forget_locked(pager, n->from, n->to);
		break;
	default:
		/* What was there has left; where to may be told late: E3. */
		tmem_event_forget_locked(pager, aside.to, aside.to + n->nr);
		tmem_table_walk(&pager->table, n->to, n->to + n->nr, move_page,
				&aside);
		tmem_table_walk(&pager->table, n->from, n->from + n->nr,
				move_page, &m);
		tmem_table_unpin(&pager->table, n->from, n->from + n->nr);
		break;
	}
}

void tmem_event_catch_up_locked(struct tmem_pager *pager)
{
	struct tmem_deferred *d = pager->deferred;
	uint64_t i, nr = atomic_load(&d->nr);

	for (i = 0; i < nr; i++)
		tmem_event_apply_locked(pager, &d->note[i]);
	atomic_store(&d->nr, 0);
}

void tmem_event_forget_noted_locked(struct tmem_pager *pager,
				    const struct tmem_deferred *notes)
{
	uint64_t i, nr = atomic_load(&notes->nr);

	for (i = 0; i < nr && i < EVENT_NOTES; i++) {
		const struct tmem_note *n = &notes->note[i];

		if (n->kind != NOTE_MOVED) {
			tmem_event_forget_locked(pager, n->from, n->to);
			continue;
		}
		tmem_event_forget_locked(pager, n->from, n->from + n->nr);
		tmem_event_forget_locked(pager, n->to, n->to + n->nr);
		tmem_event_forget_locked(pager, n->to + LATE_ASIDE,
					 n->to + LATE_ASIDE + n->nr);
	}
}

static void note_locked(struct tmem_pager *pager, const struct tmem_note *n)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_deferred *d = pager->deferred;
	uint64_t nr = atomic_load(&d->nr);

	if (!atomic_load(&pager->fork_mode) || pager->gate.settling) {
		tmem_event_apply_locked(pager, n);
		return;
	}
	TMEM_ASSERT(nr < EVENT_NOTES);
	d->note[nr] = *n;
	atomic_store(&d->nr, nr + 1);
}

/*
 * How many of the `nr` pages that an event says were moved are at `to`.  For
 * an mremap() to a fixed place that also shrinks, Linux 6.12 reports the old
 * length (6.18 the new one): what is mapped after the new place would be
 * taken for moved, and forgotten.  Where the new mapping ends is looked up
 * only there: the caller goes on once its event was read, and may have
 * changed it again.
 */
static uint64_t moved_pages(const struct tmem_pager *pager, uint64_t to,
			    uint64_t nr)
{
	uint64_t end, there;

	if (pager->remaps_right)
		return nr;
	end = tmem_procfs_mapping_end(pager->maps_fd, to * TMEM_PAGE_SIZE,
				      (char *)pager->maps_buffer,
				      PAGER_MAPS_BUFFER);
	if (!end)
		return nr;
	there = tmem_vpn(end) - to;
	return there < nr ? there : nr;
}

static void unmapped_locked(struct tmem_pager *pager, uint64_t start,
			    uint64_t end) TMEM_REQUIRES(&pager->lock)
{
	struct tmem_late_part part[LATE_PARTS];
	unsigned i, nr = tmem_late_left_locked(pager, start, end, false, part);

	for (i = 0; i < nr; i++) {
		uint64_t aside = part[i].is_late ? LATE_ASIDE : 0;
		struct tmem_note n = { NOTE_UNMAPPED, part[i].start + aside,
				       part[i].end + aside, 0 };

		note_locked(pager, &n);
	}
}

static void moved_locked(struct tmem_pager *pager, uint64_t from, uint64_t to,
			 uint64_t nr_pages) TMEM_REQUIRES(&pager->lock)
{
	uint64_t end = from + moved_pages(pager, to, nr_pages);
	struct tmem_late_part part[LATE_PARTS];
	unsigned i, nr = tmem_late_left_locked(pager, from, end, true, part);

	for (i = 0; i < nr; i++) {
		uint64_t aside = part[i].is_late ? LATE_ASIDE : 0;
		struct tmem_note n = { NOTE_MOVED, part[i].start + aside,
				       to + part[i].start - from,
				       part[i].end - part[i].start };

		note_locked(pager, &n);
	}
	tmem_late_moved_locked(pager, to, to + end - from);
}

static void event_locked(struct tmem_pager *pager, const struct uffd_msg *msg)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_note n = { NOTE_GONE, tmem_vpn(msg->arg.remove.start),
			       tmem_vpn(msg->arg.remove.end), 0 };

	switch (msg->event) {
	case UFFD_EVENT_FORK:
		PAGER_COUNT(pager, events_fork, 1);
		tmem_gate_child_locked(pager, (int)msg->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
		PAGER_COUNT(pager, events_remap, 1);
		tmem_region_no_home_locked(pager, msg->arg.remap.from,
					   msg->arg.remap.from +
						   msg->arg.remap.len);
		moved_locked(pager, tmem_vpn(msg->arg.remap.from),
			     tmem_vpn(msg->arg.remap.to),
			     tmem_vpn(msg->arg.remap.len + TMEM_PAGE_SIZE - 1));
		break;
	case UFFD_EVENT_REMOVE:
		PAGER_COUNT(pager, events_remove, 1);
		note_locked(pager, &n);
		break;
	case UFFD_EVENT_UNMAP:
		PAGER_COUNT(pager, events_unmap, 1);
		unmapped_locked(pager, n.from, n.to);
		tmem_region_no_home_locked(pager, msg->arg.remove.start,
					   msg->arg.remove.end);
		if (!atomic_load(&pager->fork_mode))
			tmem_region_refill_locked(pager, msg->arg.remove.start,
						  msg->arg.remove.end);
		break;
	default:
		break;
	}
}

bool tmem_event_is_full(const struct tmem_pager *pager)
{
	return atomic_load(&pager->fork_mode) &&
	       atomic_load(&pager->deferred->nr) > EVENT_NOTES - LATE_PARTS;
}

int tmem_event_read_locked(struct tmem_pager *pager, uint64_t *ret_addr)
{
	struct uffd_msg msg = { 0 };
	long r;

	if (tmem_event_is_full(pager))
		return -EBUSY;
	if (tmem_chaos_hits(TMEM_CHAOS_LATE))
		return -EAGAIN;
	r = tmem_sys(SYS_read, pager->uffd, &msg, sizeof(msg));
	if (r != (long)sizeof(msg))
		return r < 0 && r != -EINTR ? (int)r : -EAGAIN;
	if (msg.event == UFFD_EVENT_PAGEFAULT) {
		*ret_addr = (msg.arg.pagefault.address & ~4095ull) |
			    (msg.arg.pagefault.feat.ptid & 4095);
		return 1;
	}
	event_locked(pager, &msg);
	return 0;
}
