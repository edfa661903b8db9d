/* SPDX-License-Identifier: MIT */
/* See gate.h. */
#include "gate.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/chaos.h"
#include "base/sys.h"
#include "base/uffd.h"
#include "born.h"
#include "child.h"
#include "event.h"
#include "evict.h"
#include "install.h"
#include "link.h"
#include "pin.h"
#include "procfs.h"
#include "region.h"
#include "serve.h"
#include "start.h"

enum {
	CLONE_LOOK_MS = 100
};

static void ring(struct tmem_pager *pager)
{
	atomic_fetch_add(&pager->gate.signal, 1);
	tmem_sys_futex_wake(&pager->gate.signal, 1);
}

bool tmem_gate_begin(struct tmem_pager *pager)
{
	uint32_t me = (uint32_t)tmem_sys(SYS_gettid), owner = 0;

	while (!atomic_compare_exchange_strong(&pager->gate.busy, &owner, me)) {
		if (owner == me) /* from an atfork handler of its own fork */
			return false;
		tmem_sys_futex_wait(&pager->gate.busy, owner, NULL);
		owner = 0;
	}
	return true;
}

void tmem_gate_call(struct tmem_pager *pager, enum tmem_gate_command command)
{
	struct tmem_gate *g = &pager->gate;

	atomic_store(&g->answer, 0);
	atomic_store(&g->command, command);
	ring(pager);
	while (!atomic_load(&g->answer) &&
	       atomic_load(&pager->state) == PAGER_SERVING)
		tmem_sys_futex_wait(&g->answer, 0, NULL);
}

void tmem_gate_end(struct tmem_pager *pager)
{
	atomic_store(&pager->gate.busy, 0);
	tmem_sys_futex_wake(&pager->gate.busy, 1);
}

void tmem_gate_reset(struct tmem_pager *pager)
{
	int32_t slot = pager->gate.child_slot;
	bool whole = pager->gate.whole;

	memset(&pager->gate, 0, sizeof(pager->gate));
	pager->gate.child_uffd = -1;
	pager->gate.child_slot = slot;
	pager->gate.whole = whole;
}

static void answer(struct tmem_pager *pager)
{
	atomic_store(&pager->gate.command, GATE_NONE);
	atomic_store(&pager->gate.answer, 1);
	tmem_sys_futex_wake(&pager->gate.answer, 1);
}

/*
 * Fork mode is on; waits until what was in flight has arrived.  False: it may
 * not have, as it waits for an event that can't be noted any more.
 */
static bool settle(struct tmem_pager *pager)
{
	bool busy, full;
	unsigned i;

	do {
		tmem_evict_reap(pager, false);
		tmem_lock_acquire(&pager->lock);
		busy = atomic_load(&pager->nr_storing) ||
		       atomic_load(&pager->nr_loading);
		for (i = 0; i < FRAME_GROUPS; i++)
			busy |= pager->frames.group[i].nr_used != 0;
		full = tmem_event_is_full(pager);
		tmem_lock_release(&pager->lock);
		TMEM_CHAOS_AT(FORK_SETTLES, 0);
		if (busy)
			tmem_sys_pause();
	} while (busy && !full);
	return !busy;
}

/* Has the program installed a filter since we were started? */
static bool program_is_filtered(const struct tmem_pager *pager)
{
	char path[64];
	uint64_t theirs = 0, ours = 0;

	tmem_procfs_path(path, "/proc/", (uint64_t)pager->program_pid,
			 "/status");
	tmem_procfs_value(path, "Seccomp_filters:", &theirs);
	tmem_procfs_value("/proc/self/status", "Seccomp_filters:", &ours);
	return theirs > ours;
}

/* A place for the child's pager, if it can have one. */
static void claim_slot(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;

	g->child_slot = TMEM_TREE_NO_SLOT;
	g->child_reason = TMEM_NOT_PAGED_SECCOMP;
	if (!program_is_filtered(pager)) {
		g->child_slot = tmem_link_claim(pager);
		g->child_reason = TMEM_NOT_PAGED_SLOTS;
	}
}

static void enter_fork_mode(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;

	tmem_lock_acquire(&pager->lock);
	atomic_store(&pager->fork_mode, 1);
	g->settling = true;
	tmem_lock_release(&pager->lock);
	settle(pager);
	tmem_lock_acquire(&pager->lock);
	g->settling = false;
	tmem_lock_release(&pager->lock);
	TMEM_CHAOS_AT(FORK_SETTLED, 0);
	atomic_store(&pager->gate.fork_pid, 0);
}

/* The last step: from here on nothing of ours changes. */
static void rest(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;

	if (pager->swapfile && g->child_slot != TMEM_TREE_NO_SLOT &&
	    tmem_swapfile_before_fork(pager->swapfile,
				      (unsigned)g->child_slot) != 0) {
		tmem_link_unclaim(pager, g->child_slot);
		g->child_slot = TMEM_TREE_NO_SLOT;
		g->child_reason = TMEM_NOT_PAGED_FAILED;
	}
	tmem_frontswap_before_fork(pager->frontswap);
	tmem_store_before_fork(pager->store);
	g->announced = true;
}

static void fork_begin(struct tmem_pager *pager)
{
	claim_slot(pager);
	enter_fork_mode(pager);
	rest(pager);
	atomic_store(&pager->gate.expected, true);
}

static void wake(struct tmem_pager *pager, bool forked)
{
	if (pager->gate.announced) {
		tmem_store_after_fork(pager->store, forked);
		tmem_frontswap_after_fork(pager->frontswap);
	}
	if (forked) {
		atomic_store(&pager->related, 1);
		atomic_store(&pager->pss_stale, 1);
	}
}

static void leave_fork_mode(struct tmem_pager *pager, bool forked)
{
	wake(pager, forked);
	tmem_lock_acquire(&pager->lock);
	tmem_event_catch_up_locked(pager);
	atomic_store(&pager->fork_mode, 0);
	tmem_lock_release(&pager->lock);
	tmem_sys_futex_wake(&pager->fork_mode, INT32_MAX);
	pager->gate.announced = false;
	atomic_store(&pager->gate.expected, false);
}

/* trap.h: the fork is made by libc, with nothing out.  No event tells of it. */
static void fork_whole(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;

	g->whole = true;
	g->child_slot = TMEM_TREE_NO_SLOT;
	g->child_reason = TMEM_NOT_PAGED_SECCOMP;
	enter_fork_mode(pager);
	tmem_born_fetch_all(pager);
	tmem_lock_acquire(&pager->lock);
	tmem_region_let_go_locked(pager);
	tmem_lock_release(&pager->lock);
	rest(pager);
}

static void birth_begin(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;

	claim_slot(pager);
	if (g->whole || g->child_slot == TMEM_TREE_NO_SLOT) {
		tmem_link_unclaim(pager, g->child_slot);
		if (g->child_slot != TMEM_TREE_NO_SLOT)
			g->child_reason = TMEM_NOT_PAGED_FAILED;
		g->child_slot = TMEM_TREE_NO_SLOT;
		g->whole = true;
	}
	enter_fork_mode(pager);
	if (g->whole)
		tmem_born_fetch_all(pager);
}

/* Waits for the clone with the lock held: N1 of birth.h. */
static void wait_for_clone(struct tmem_pager *pager)
{
	const struct timespec look = { 0, CLONE_LOOK_MS * 1000000l };
	struct tmem_gate *g = &pager->gate;

	while (atomic_load(&g->command) != GATE_BIRTH_DONE) {
		uint32_t seen = atomic_load(&g->signal);

		if (atomic_load(&g->command) == GATE_BIRTH_DONE)
			break;
		if (tmem_sys_futex_wait(&g->signal, seen, &look) ==
			    -ETIMEDOUT &&
		    !tmem_start_program_lives(pager))
			break;
	}
}

static void birth(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;
	bool forked;

	tmem_born_freeze_locked(pager);
	rest(pager);
	answer(pager);
	wait_for_clone(pager);
	forked = atomic_load(&g->fork_pid) > 0;
	wake(pager, forked);
	if (forked)
		tmem_born_tell_locked(pager);
	else
		tmem_link_unclaim(pager, g->child_slot);
	tmem_region_keep_locked(pager);
	tmem_event_catch_up_locked(pager);
	atomic_store(&pager->fork_mode, 0);
	tmem_lock_release(&pager->lock);
	tmem_sys_futex_wake(&pager->fork_mode, INT32_MAX);
	g->announced = false;
}

static void make_raw_child_whole(struct tmem_pager *pager, int child_uffd,
				 uint8_t *page)
{
	if (settle(pager)) {
		tmem_child_make_whole(pager, child_uffd, pager->seen, page);
		return;
	}
	/* What is in motion stops for us, however long this takes. */
	tmem_lock_acquire(&pager->lock);
	tmem_child_make_whole(pager, child_uffd, pager->seen, page);
	tmem_lock_release(&pager->lock);
}

static void run_child(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;
	uint8_t *page = pager->gate_page;
	int child_uffd = g->child_uffd;

	tmem_child_find_seen(pager, child_uffd, page);
	if (g->announced) {
		tmem_child_serve(pager, child_uffd, page);
	} else {
		make_raw_child_whole(pager, child_uffd, page);
		tmem_link_not_paged(pager->tree_name, 0,
				    TMEM_NOT_PAGED_RAW_FORK, pager->comm);
	}
	tmem_sys_close(child_uffd);
	g->child_uffd = -1;
	leave_fork_mode(pager, true);
}

static void rescue_frame_locked(struct tmem_pager *pager, int child_uffd,
				const struct tmem_frame_group *group,
				unsigned i) TMEM_REQUIRES(&pager->lock)
{
	uint64_t vpn = tmem_table_vpn(&pager->table, group->frame[i].handle);
	long r;

	do {
		r = tmem_install_copy(child_uffd, vpn,
				      group->pages +
					      (size_t)i * TMEM_PAGE_SIZE);
		if (r == -EAGAIN || r == -ENOMEM)
			tmem_sys_pause();
	} while (r == -EAGAIN || r == -ENOMEM);
}

/*
 * P3 for a fork that nobody announced: frames are not copied to the child,
 * and what is in them was out when it was made.
 */
static void rescue_frames_locked(struct tmem_pager *pager, int child_uffd)
	TMEM_REQUIRES(&pager->lock)
{
	unsigned g, i;

	for (g = 0; g < FRAME_GROUPS; g++) {
		struct tmem_frame_group *group = &pager->frames.group[g];

		for (i = 0; i < group->nr_used; i++)
			if (group->frame[i].used && !group->frame[i].gone)
				rescue_frame_locked(pager, child_uffd, group,
						    i);
	}
}

void tmem_gate_child_locked(struct tmem_pager *pager, int child_uffd)
{
	struct tmem_gate *g = &pager->gate;

	if (g->child_uffd >= 0 ||
	    (g->announced && !atomic_load(&g->expected))) {
		/* A second one while the gate is busy: made whole here. */
		tmem_child_make_whole(pager, child_uffd, pager->deferred,
				      pager->spare_page);
		tmem_sys_close(child_uffd);
		return;
	}
	if (!g->announced) {
		atomic_store(&pager->fork_mode, 1);
		rescue_frames_locked(pager, child_uffd);
	}
	TMEM_CHAOS_AT(FORK_HEARD, 0);
	g->heard = atomic_load(&pager->deferred->nr);
	g->child_uffd = child_uffd;
	atomic_store(&g->expected, false);
	ring(pager);
}

static void pin(struct tmem_pager *pager, uint64_t start, uint64_t end)
{
	tmem_lock_acquire(&pager->lock);
	tmem_pin_range_locked(pager, start, end);
	tmem_lock_release(&pager->lock);
	tmem_pin_fetch(pager, pager->gate_page);
}

static void note_out(void *arg, uint32_t handle, uint32_t entry)
{
	enum tmem_page_state state = tmem_entry_state(entry);

	(void)handle;
	*(bool *)arg |= state == PAGE_STORED || state == PAGE_LOADING ||
			state == PAGE_LEAVING;
}

/* If nothing of it is out: what is missing then is zeros, for the kernel. */
static bool leave_out_locked(struct tmem_pager *pager, uint64_t start,
			     uint64_t end) TMEM_REQUIRES(&pager->lock)
{
	struct uffdio_range range = { .start = start, .len = end - start };
	bool is_out = atomic_load(&pager->fork_mode);

	tmem_table_walk(&pager->table, tmem_vpn(start), tmem_vpn(end), note_out,
			&is_out);
	if (is_out)
		return false;
	tmem_sys(SYS_ioctl, pager->uffd, UFFDIO_UNREGISTER, &range);
	if (pager->trapped)
		tmem_sys_madvise(tmem_sys_pointer(start), end - start,
				 MADV_DOFORK);
	tmem_table_unpin(&pager->table, tmem_vpn(start), tmem_vpn(end));
	tmem_event_forget_locked(pager, tmem_vpn(start), tmem_vpn(end));
	tmem_region_leave_out_locked(pager, start, end);
	return true;
}

static void leave_out(struct tmem_pager *pager, uint64_t start, uint64_t end)
{
	bool done;
	uint64_t vpn;

	TMEM_CHAOS_AT(LEAVES_OUT, tmem_vpn(start));
	/* Everything back first, and to stay. */
	pin(pager, start, end);
	for (;;) {
		for (vpn = tmem_vpn(start); vpn < tmem_vpn(end); vpn++)
			tmem_serve_fetch(pager, vpn, pager->gate_page);
		tmem_lock_acquire(&pager->lock);
		done = leave_out_locked(pager, start, end);
		tmem_lock_release(&pager->lock);
		if (done)
			return;
		if (pager->gate.child_uffd >= 0) /* of a raw fork */
			run_child(pager);
		else
			tmem_sys_pause();
	}
}

static void home(struct tmem_pager *pager, bool keep, uint64_t start,
		 uint64_t end)
{
	tmem_lock_acquire(&pager->lock);
	if (keep)
		tmem_region_home_locked(pager, start, end);
	else
		tmem_region_no_home_locked(pager, start, end);
	/* Watched from now on: its end is told, and no child gets it past us.
	 */
	if (atomic_load(&pager->armed))
		tmem_region_refill_locked(pager, start, end);
	tmem_lock_release(&pager->lock);
}

static void unlock_mapping(void *arg, void *start, size_t bytes)
{
	(void)arg;
	tmem_sys(SYS_munlock, start, bytes);
}

/* Locked memory of ours could not be given back. */
static void unlock_own(struct tmem_pager *pager)
{
	unsigned i;

	for (i = 0; i < pager->nr_own; i++)
		unlock_mapping(NULL, tmem_sys_pointer(pager->own[i].start),
			       pager->own[i].end - pager->own[i].start);
	tmem_store_for_each_mapping(pager->store, unlock_mapping, NULL);
	tmem_frontswap_for_each_mapping(pager->frontswap, unlock_mapping, NULL);
	tmem_table_for_each_mapping(&pager->table, unlock_mapping, NULL);
}

static void obey(struct tmem_pager *pager, uint32_t command)
{
	struct tmem_gate *g = &pager->gate;

	switch (command) {
	case GATE_FORK_BEGIN:
		fork_begin(pager);
		break;
	case GATE_FORK_END:
		if (pager->trapped) {
			tmem_lock_acquire(&pager->lock);
			tmem_region_keep_locked(pager);
			tmem_lock_release(&pager->lock);
			leave_fork_mode(pager, true);
		} else if (atomic_load(&g->fork_pid) < 0) {
			tmem_link_unclaim(pager, g->child_slot);
			leave_fork_mode(pager, false);
		} else if (atomic_load(&g->expected)) {
			/* Nothing is watched, so nothing was out. */
			leave_fork_mode(pager, true);
		}
		break;
	case GATE_PIN:
		pin(pager, g->range_start, g->range_end);
		break;
	case GATE_LEAVE_OUT:
		leave_out(pager, g->range_start, g->range_end);
		break;
	case GATE_UNLOCK:
		unlock_own(pager);
		break;
	case GATE_HOME:
	case GATE_NO_HOME:
		home(pager, command == GATE_HOME, g->range_start, g->range_end);
		break;
	case GATE_BIRTH_ASK:
		g->untrapped = program_is_filtered(pager);
		break;
	case GATE_FORK_WHOLE:
		fork_whole(pager);
		break;
	case GATE_BIRTH_BEGIN:
		birth_begin(pager);
		break;
	case GATE_BIRTH_FREEZE:
		birth(pager); /* and what GATE_BIRTH_DONE asks for */
		break;
	default:
		break;
	}
	answer(pager);
}

/*
 * The kernel lets the parent go on as soon as the fork event is read: its
 * FORK_END may overtake the handler that read it.
 */
static bool must_wait_for_event(const struct tmem_pager *pager,
				uint32_t command)
{
	return command == GATE_FORK_END && !pager->trapped &&
	       atomic_load(&pager->armed) &&
	       atomic_load(&pager->gate.fork_pid) > 0 &&
	       atomic_load(&pager->gate.expected);
}

void tmem_gate_run(struct tmem_pager *pager)
{
	struct tmem_gate *g = &pager->gate;

	while (atomic_load(&pager->state) != PAGER_ENDED) {
		uint32_t seen = atomic_load(&g->signal);
		uint32_t command = atomic_load(&g->command);

		/* Until a fork is over, there is nothing else to do. */
		if (g->child_uffd >= 0)
			run_child(pager);
		else if (command &&
			 (!g->announced || command == GATE_FORK_END) &&
			 !must_wait_for_event(pager, command))
			obey(pager, command);
		else
			tmem_sys_futex_wait(&g->signal, seen, NULL);
	}
}
