/* SPDX-License-Identifier: MIT */
/* See child.h. */
#include "child.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/sys.h"
#include "base/uffd.h"
#include "install.h"
#include "late.h"
#include "lost.h"
#include "seen.h"
#include "serve.h"

enum {
	CHILD_POLL_MS = 100,
	CHILD_WAIT_NS_MAX = 2000000000,
	EVENTS_WAIT_NS_MAX = 10000000
};

/* What the child does to its memory before it serves itself is seen, too. */
static void note_child(struct tmem_pager *pager, const struct uffd_msg *msg)
{
	struct tmem_deferred *d = pager->seen;
	uint64_t nr = atomic_load(&d->nr);
	struct tmem_note *n = &d->note[nr];

	if (nr == EVENT_NOTES)
		return;
	if (msg->event == UFFD_EVENT_REMAP)
		*n = (struct tmem_note){
			NOTE_MOVED, tmem_vpn(msg->arg.remap.from),
			tmem_vpn(msg->arg.remap.to),
			tmem_vpn(msg->arg.remap.len + TMEM_PAGE_SIZE - 1)
		};
	else
		*n = (struct tmem_note){ msg->event == UFFD_EVENT_UNMAP
						 ? NOTE_UNMAPPED
						 : NOTE_GONE,
					 tmem_vpn(msg->arg.remove.start),
					 tmem_vpn(msg->arg.remove.end), 0 };
	atomic_store(&d->nr, nr + 1);
}

/* An event of a child's. */
static void obey_child(struct tmem_pager *pager, int child_uffd,
		       const struct uffd_msg *msg, uint8_t *page)
{
	switch (msg->event) {
	case UFFD_EVENT_FORK:
		tmem_child_make_whole(pager, (int)msg->arg.fork.ufd,
				      pager->seen, page);
		tmem_sys_close((int)msg->arg.fork.ufd);
		break;
	case UFFD_EVENT_REMAP:
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		if (child_uffd == pager->gate.child_uffd)
			note_child(pager, msg);
		break;
	default:
		break;
	}
}

/* An event of the child's stands in the way of an ioctl. */
static void hear_child(struct tmem_pager *pager, int child_uffd, uint8_t *page)
{
	struct uffd_msg msg = { 0 };

	if (tmem_sys(SYS_read, child_uffd, &msg, sizeof(msg)) !=
	    (long)sizeof(msg))
		return;
	if (msg.event == UFFD_EVENT_PAGEFAULT) /* not now */
		tmem_install_wake(child_uffd,
				  tmem_vpn(msg.arg.pagefault.address), 1);
	else
		obey_child(pager, child_uffd, &msg, page);
}

/* What is at `at` in the table could not be read for the child. */
static void note_lost(struct tmem_pager *pager, uint64_t at, uint64_t vpn,
		      int error)
{
	int32_t nr = pager->gate.child_slot;
	struct tmem_tree_slot *slot = pager->slot;

	if (error == -EOWNERDEAD)
		return;
	if (pager->gate.announced && nr != TMEM_TREE_NO_SLOT)
		slot = &pager->tree->slots[nr];
	tmem_lost_note(pager, slot, vpn,
		       tmem_entry_value(tmem_table_get(&pager->table, at)),
		       error);
}

/* What is out of the child's memory at `to`.  False: the child is dead. */
static bool copy_page(struct tmem_pager *pager, int child_uffd,
		      const struct tmem_deferred *seen, uint64_t to,
		      uint8_t *page)
{
	uint64_t at;
	int found;
	long r;

	for (;;) {
		at = tmem_notes_resolve(seen, to);
		found = tmem_serve_peek_at(pager, at, page);
		if (found == 0)
			return true;
		r = tmem_install_sure(child_uffd, to, found > 0 ? page : NULL);
		if (r == -EAGAIN)
			hear_child(pager, child_uffd, page);
		else if (r == -ENOMEM)
			tmem_sys_pause();
		else
			break;
	}
	if (found < 0 && r > 0)
		note_lost(pager, at, to, found);
	return r != -ESRCH;
}

static bool give_range(struct tmem_pager *pager, int child_uffd,
		       const struct tmem_deferred *seen, uint64_t vpn,
		       uint64_t end, uint8_t *page)
{
	for (; vpn < end && end <= LATE_ASIDE; vpn++)
		if (!copy_page(pager, child_uffd, seen, vpn, page))
			return false;
	return true;
}

void tmem_child_make_whole(struct tmem_pager *pager, int child_uffd,
			   const struct tmem_deferred *seen, uint8_t *page)
{
	uint32_t nr, i;
	uint64_t k;

	for (nr = 0; nr < pager->table.nr_leaves; nr++) {
		const struct tmem_leaf *leaf =
			tmem_table_leaf(&pager->table, nr);

		if (leaf->base == UINT64_MAX)
			continue;
		for (i = 0; i < LEAF_PAGES; i++)
			if (leaf->entry[i] &&
			    !copy_page(pager, child_uffd, seen, leaf->base + i,
				       page))
				return;
	}
	/* And where there are no leaves: the child goes on moving meanwhile. */
	for (k = 0; k < atomic_load(&seen->nr); k++) {
		const struct tmem_note *n = &seen->note[k];

		if (n->kind == NOTE_MOVED &&
		    !give_range(pager, child_uffd, seen, n->to, n->to + n->nr,
				page))
			return;
	}
}

/* Answers one fault of the child. */
static void answer_child(struct tmem_pager *pager, int child_uffd, uint64_t vpn,
			 uint8_t *page)
{
	uint64_t at = tmem_notes_resolve(pager->seen, vpn);
	int found = tmem_serve_peek_at(pager, at, page);
	long r;

	if (found > 0)
		r = tmem_install_copy(child_uffd, vpn, page);
	else if (found == 0)
		r = tmem_install_zero(child_uffd, vpn, 1);
	else
		r = tmem_install_poison(child_uffd, vpn);
	if (found < 0 && r > 0)
		note_lost(pager, at, vpn, found);
	if (r < 0) /* with EAGAIN it faults again, after the event was read */
		tmem_install_wake(child_uffd, vpn, 1);
}

enum child_end {
	CHILD_GOES_ON,
	CHILD_SERVES_ITSELF,
	CHILD_WANTS_ALL
};

static enum child_end read_child(struct tmem_pager *pager, int child_uffd,
				 uint8_t *page)
{
	uint64_t doorbell = (uintptr_t)pager->doorbell;
	struct uffd_msg msg = { 0 };

	while (tmem_sys(SYS_read, child_uffd, &msg, sizeof(msg)) ==
	       (long)sizeof(msg)) {
		uint64_t addr = msg.arg.pagefault.address & ~4095ull;

		if (msg.event != UFFD_EVENT_PAGEFAULT) {
			obey_child(pager, child_uffd, &msg, page);
			continue;
		}
		if (addr == doorbell)
			return CHILD_SERVES_ITSELF;
		if (addr == doorbell + TMEM_PAGE_SIZE)
			return CHILD_WANTS_ALL;
		answer_child(pager, child_uffd, tmem_vpn(addr), page);
	}
	return CHILD_GOES_ON;
}

static bool child_is_dead(struct tmem_pager *pager, int *pidfd)
{
	int pid = atomic_load(&pager->gate.fork_pid);
	struct pollfd p = { .events = POLLIN };

	if (pid > 0 && *pidfd < 0)
		*pidfd = (int)tmem_sys(SYS_pidfd_open, pid, 0);
	if (*pidfd < 0)
		return pid != 0; /* or the fork failed after its event */
	p.fd = *pidfd;
	return tmem_sys(SYS_poll, &p, 1, 0) > 0;
}

/* The answer to the doorbell: what the child must forget. */
static void send_notes(struct tmem_pager *pager, int child_uffd)
{
	struct tmem_deferred *d = (void *)pager->gate_page;
	const struct tmem_deferred *seen = pager->seen;
	uint64_t vpn = tmem_vpn((uintptr_t)pager->doorbell), i, nr;
	long r;

	do {
		memcpy(d, pager->deferred, sizeof(*d));
		nr = pager->gate.child_notes;
		for (i = pager->gate.own_notes;
		     i < atomic_load(&seen->nr) && nr < EVENT_NOTES; i++)
			d->note[nr++] = seen->note[i];
		atomic_store(&d->nr, nr);
		r = tmem_install_sure(child_uffd, vpn, d);
		if (r == -EAGAIN)
			hear_child(pager, child_uffd, pager->gate_page);
		else if (r == -ENOMEM)
			tmem_sys_pause();
	} while (r == -EAGAIN || r == -ENOMEM);
}

static void give_known(void *arg, uint32_t handle, uint32_t entry)
{
	struct tmem_pager *pager = arg;

	(void)entry;
	copy_page(pager, pager->gate.child_uffd, pager->seen,
		  tmem_table_vpn(&pager->table, handle), pager->gate_page);
}

static void give_noted(struct tmem_pager *pager, int child_uffd,
		       const struct tmem_note *n)
{
	uint64_t end = n->kind == NOTE_MOVED ? n->from + n->nr : n->to;

	/* What was moved there is given by the note that says so. */
	tmem_table_walk(&pager->table, n->from, end, give_known, pager);
	if (n->kind == NOTE_MOVED)
		give_range(pager, child_uffd, pager->seen, n->to, n->to + n->nr,
			   pager->gate_page);
}

/*
 * What was dropped or moved around the time of the fork, or by the child: it
 * is going to forget what its table has of that (send_notes()), so it must
 * have what is out there.
 */
static void give_all_noted(struct tmem_pager *pager, int child_uffd)
{
	uint64_t i;

	for (i = 0; i < pager->gate.child_notes; i++)
		give_noted(pager, child_uffd, &pager->deferred->note[i]);
	for (i = pager->gate.own_notes; i < atomic_load(&pager->seen->nr); i++)
		give_noted(pager, child_uffd, &pager->seen->note[i]);
}

void tmem_child_serve(struct tmem_pager *pager, int child_uffd, uint8_t *page)
{
	uint64_t until = tmem_sys_now_ns() + CHILD_WAIT_NS_MAX;
	struct pollfd p = { .fd = child_uffd, .events = POLLIN };
	enum child_end end = CHILD_GOES_ON;
	int pidfd = -1;

	while (end == CHILD_GOES_ON) {
		tmem_sys(SYS_poll, &p, 1, CHILD_POLL_MS);
		end = read_child(pager, child_uffd, page);
		if (end == CHILD_GOES_ON && child_is_dead(pager, &pidfd))
			break;
		if (tmem_sys_now_ns() > until)
			end = CHILD_WANTS_ALL;
	}
	if (end == CHILD_WANTS_ALL)
		tmem_child_make_whole(pager, child_uffd, pager->seen, page);
	/* It may have a pager even so, which was late. */
	if (end != CHILD_GOES_ON) {
		give_all_noted(pager, child_uffd);
		send_notes(pager, child_uffd);
	}
	if (pidfd >= 0)
		tmem_sys_close(pidfd);
}

void tmem_child_find_seen(struct tmem_pager *pager, int child_uffd,
			  uint8_t *page)
{
	uint64_t until = tmem_sys_now_ns() + EVENTS_WAIT_NS_MAX;
	struct tmem_deferred *seen = pager->seen;
	struct tmem_gate *g = &pager->gate;
	uint64_t i, nr, own;
	int r;

	while (tmem_install_is_refused(pager->uffd) &&
	       tmem_sys_now_ns() < until)
		tmem_sys_pause();
	g->child_notes = atomic_load(&pager->deferred->nr);
	/* For children that it may have by then; its own notes follow. */
	memcpy(seen, pager->deferred, sizeof(*seen));
	atomic_store(&seen->nr, g->child_notes);
	for (;;) {
		own = atomic_load(&seen->nr);
		r = tmem_seen_find(pager->deferred, g->child_notes, g->heard,
				   child_uffd, seen);
		if (r != -EAGAIN)
			break;
		hear_child(pager, child_uffd, page);
	}
	nr = g->own_notes = atomic_load(&seen->nr);
	for (i = g->child_notes; i < own; i++)
		seen->note[nr++] = seen->note[i];
	atomic_store(&seen->nr, nr);
}
