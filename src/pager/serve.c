/* SPDX-License-Identifier: MIT */
/* See serve.h. */
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "ahead.h"
#include "base/assert.h"
#include "base/sys.h"
#include "base/uffd.h"
#include "budget.h"
#include "clock.h"
#include "event.h"
#include "evict.h"
#include "heat.h"
#include "install.h"
#include "late.h"
#include "load.h"
#include "lost.h"
#include "offsets.h"
#include "solo.h"
#include "wire/stalls.h"

enum {
	ZERO_WINDOW_MAX = 64,
	FREE_NOTES = 32,
	NOTE_NS = 1000000,
	FORK_LOOK_NS = 10000000
};

enum answer {
	ANSWERED = 0,
	ANSWER_LOAD,  /* a load was claimed: read, then finish */
	ANSWER_AGAIN, /* an event waits: read it, then look again */
	ANSWER_OTHER  /* somebody else's load will wake the thread */
};

/* How many untouched neighbours follow, for a program that goes upwards. */
static unsigned zero_window(struct tmem_handler *me, uint32_t handle,
			    uint64_t vpn)
{
	const struct tmem_table *table = &me->pager->table;
	unsigned i, max = 1;

	if (vpn == me->zero_next && me->zero_window)
		max = me->zero_window * 2;
	if (max > ZERO_WINDOW_MAX)
		max = ZERO_WINDOW_MAX;
	for (i = 1; i < max; i++)
		if ((handle + i) % LEAF_PAGES == 0 ||
		    tmem_table_entry(table, handle + i) != 0)
			break;
	me->zero_window = i;
	return i;
}

static enum answer answer_zero_locked(struct tmem_pager *pager,
				      struct tmem_handler *me, uint32_t handle,
				      uint64_t vpn) TMEM_REQUIRES(&pager->lock)
{
	unsigned want = zero_window(me, handle, vpn), i;
	long r = tmem_install_zero(pager->uffd, vpn, want);

	if (r == -ENOENT && want > 1) /* past the mapping's end */
		r = tmem_install_zero(pager->uffd, vpn, 1);
	if (r == -EAGAIN)
		return ANSWER_AGAIN;
	if (r <= 0) {
		/* Present (r is EEXIST) or unmapped: let it look again. */
		tmem_install_wake(pager->uffd, vpn, 1);
		PAGER_COUNT(pager, faults_raced, 1);
		r = r == -EEXIST;
	} else {
		tmem_late_quiet_locked(pager);
		PAGER_COUNT(pager, faults_zero, 1);
		PAGER_COUNT(pager, zero_batch_pages, (uint64_t)r - 1);
		me->zero_next = vpn + (uint64_t)r;
		me->owed_pages += (unsigned)r - 1;
	}
	for (i = 0; i < (unsigned)r; i++) {
		uint32_t entry = tmem_table_entry(&pager->table, handle + i);

		/* RESIDENT already: dropped by the kernel, as told to. */
		if (tmem_entry_state(entry) == PAGE_KEPT)
			tmem_offset_drop_locked(pager, tmem_entry_value(entry));
		tmem_table_set(&pager->table, handle + i, PAGE_RESIDENT, 0);
		tmem_heat_arrived_locked(pager, handle + i);
	}
	atomic_fetch_add(&pager->usage_delta_pages, (int64_t)r);
	return ANSWERED;
}

/* On its way out: the frame still has it. */
static enum answer answer_frame_locked(struct tmem_pager *pager,
				       uint32_t handle, uint64_t vpn)
	TMEM_REQUIRES(&pager->lock)
{
	uint32_t nr = tmem_entry_value(tmem_table_entry(&pager->table, handle));
	long r = tmem_install_copy(pager->uffd, vpn,
				   tmem_frame_page(&pager->frames, nr));

	if (r == -EAGAIN)
		return ANSWER_AGAIN;
	if (r < 0 && r != -EEXIST) {
		tmem_install_wake(pager->uffd, vpn, 1);
		return ANSWERED;
	}
	if (r < 0)
		tmem_install_wake(pager->uffd, vpn, 1);
	PAGER_COUNT(pager, faults_frame, 1);
	atomic_fetch_add(&pager->usage_delta_pages, 1);
	/* A child made by fork just now may need the stored copy: P4. */
	if (!atomic_load(&pager->fork_mode)) {
		tmem_frame(&pager->frames, nr)->gone = true;
		tmem_table_set(&pager->table, handle, PAGE_RESIDENT, 0);
		tmem_heat_came_locked(pager, handle);
	}
	return ANSWERED;
}

static enum answer answer_locked(struct tmem_pager *pager,
				 struct tmem_handler *me, uint64_t vpn)
	TMEM_REQUIRES(&pager->lock)
{
	uint32_t handle = tmem_table_make(&pager->table, vpn), entry;
	long r;

	if (handle == TABLE_NO_HANDLE) {
		/* No memory to note it: never evicted, then. */
		r = tmem_install_zero(pager->uffd, vpn, 1);
		if (r == -EAGAIN)
			return ANSWER_AGAIN;
		if (r < 0) /* present, or unmapped */
			tmem_install_wake(pager->uffd, vpn, 1);
		return ANSWERED;
	}
	entry = tmem_table_entry(&pager->table, handle);
	switch (tmem_entry_state(entry)) {
	case PAGE_STORED:
		tmem_load_claim_locked(pager, me, handle, vpn);
		return ANSWER_LOAD;
	case PAGE_LOADING:
		return ANSWER_OTHER;
	case PAGE_LEAVING:
		return answer_frame_locked(pager, handle, vpn);
	case PAGE_LOST:
		if (tmem_install_poison(pager->uffd, vpn) == -EAGAIN)
			return ANSWER_AGAIN;
		tmem_install_wake(pager->uffd, vpn, 1);
		return ANSWERED;
	default:
		return answer_zero_locked(pager, me, handle, vpn);
	}
}

int tmem_serve_peek(struct tmem_pager *pager, uint64_t vpn, void *ret_page)
{
	return tmem_serve_peek_at(
		pager, tmem_notes_resolve(pager->deferred, vpn), ret_page);
}

int tmem_serve_peek_at(struct tmem_pager *pager, uint64_t at, void *ret_page)
{
	uint32_t entry =
		at == UINT64_MAX ? 0 : tmem_table_get(&pager->table, at);

	int r;

	switch (tmem_entry_state(entry)) {
	case PAGE_STORED:
	case PAGE_KEPT:
	case PAGE_LOADING:
		r = tmem_frontswap_swap_in(pager->frontswap,
					   PAGER_FRONTSWAP_TYPE,
					   tmem_entry_value(entry), ret_page);
		return r == 0 ? 1 : r;
	case PAGE_LEAVING:
		memcpy(ret_page,
		       tmem_frame_page(&pager->frames, tmem_entry_value(entry)),
		       TMEM_PAGE_SIZE);
		return 1;
	case PAGE_LOST:
		return -EOWNERDEAD;
	default:
		return 0;
	}
}

/* Fork mode: answers without noting anything (P4), but for T6. */
static enum answer answer_frozen_locked(struct tmem_handler *me, uint64_t vpn)
{
	struct tmem_pager *pager = me->pager;
	uint64_t at = tmem_notes_resolve(pager->deferred, vpn);
	int found = tmem_serve_peek_at(pager, at, me->page);
	long r;

	if (found > 0)
		r = tmem_install_copy(pager->uffd, vpn, me->page);
	else if (found == 0)
		r = tmem_install_zero(pager->uffd, vpn, 1);
	else
		r = tmem_install_poison(pager->uffd, vpn);
	if (r == -EAGAIN)
		return ANSWER_AGAIN;
	if (r < 0)
		tmem_install_wake(pager->uffd, vpn, 1);
	/* T6, which is nothing to the child. */
	if (found > 0 && (r > 0 || r == -EEXIST))
		tmem_table_set_loose(&pager->table,
				     tmem_table_find(&pager->table, at));
	if (found > 0)
		PAGER_COUNT(pager, faults_store, 1);
	else if (found == 0)
		PAGER_COUNT(pager, faults_zero, 1);
	else if (found != -EOWNERDEAD && r > 0)
		tmem_lost_note(
			pager, pager->slot, vpn,
			tmem_entry_value(tmem_table_get(&pager->table, at)),
			found);
	atomic_fetch_add(&pager->usage_delta_pages, 1);
	return ANSWERED;
}

/*
 * Reads one message, looking for the event that makes ioctls fail; faults go
 * to the backlog, or are sent to ask again if that is full.
 */
static void drain_locked(struct tmem_pager *pager, struct tmem_handler *me)
	TMEM_REQUIRES(&pager->lock)
{
	uint64_t addr;

	if (tmem_event_read_locked(pager, &addr) != 1)
		return;
	if (me->nr_backlog < PAGER_BACKLOG)
		me->backlog[me->nr_backlog++] = addr;
	else
		tmem_install_wake(pager->uffd, tmem_vpn(addr), 1);
}

/* The page could not be read back: who touches it gets SIGBUS. */
static void lose_locked(struct tmem_pager *pager, uint32_t handle,
			uint32_t offset, int error) TMEM_REQUIRES(&pager->lock)
{
	tmem_lost_note(pager, pager->slot,
		       tmem_table_vpn(&pager->table, handle), offset, error);
	tmem_offset_drop_locked(pager, offset);
	tmem_table_set(&pager->table, handle, PAGE_LOST, 0);
}

/* After the load: installs the page, unless an event was faster. */
static enum answer finish_load_locked(struct tmem_pager *pager,
				      struct tmem_handler *me)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_load *load = &me->load[0];
	uint32_t handle = load->handle;
	uint64_t vpn = load->vpn;
	long r;

	if (!tmem_load_stands(pager, load)) {
		tmem_load_return_locked(pager, load);
		return ANSWERED;
	}
	if (load->result < 0) {
		load->handle = TABLE_NO_HANDLE;
		lose_locked(pager, handle, load->offset, load->result);
		tmem_install_poison(pager->uffd, vpn);
		tmem_install_wake(pager->uffd, vpn, 1);
		return ANSWERED;
	}
	r = tmem_install_copy(pager->uffd, vpn, me->page);
	if (r == -EAGAIN)
		return ANSWER_AGAIN;
	if (r < 0 && r != -EEXIST) { /* unmapped; the event will come */
		tmem_load_return_locked(pager, load);
		return ANSWERED;
	}
	if (r < 0)
		tmem_install_wake(pager->uffd, vpn, 1);
	else
		tmem_late_quiet_locked(pager);
	tmem_load_installed_locked(pager, load);
	tmem_heat_came_locked(pager, handle);
	return ANSWERED;
}

static void load(struct tmem_handler *me)
{
	struct tmem_pager *pager = me->pager;
	enum answer a;

	tmem_load_read(me);
	if (me->load[0].in_store)
		PAGER_COUNT(pager, faults_store, 1);
	else
		PAGER_COUNT(pager, faults_swap, 1);
	for (;;) {
		tmem_lock_acquire(&pager->lock);
		a = finish_load_locked(pager, me);
		if (a == ANSWER_AGAIN)
			drain_locked(pager, me);
		else
			tmem_load_end_locked(pager, me);
		tmem_lock_release(&pager->lock);
		if (a != ANSWER_AGAIN)
			break;
		tmem_sys_pause();
	}
}

/* For --profile. */
static void log_stall(struct tmem_pager *pager, uint64_t vpn, uint64_t start,
		      uint64_t ns)
{
	const struct tmem_stall s = {
		.vpn = vpn,
		.start_ns = pager->clock_ns0 +
			    tmem_clock_ns(pager, start - pager->clock_ticks0),
		.ns = ns,
		.slot = pager->slot_nr,
	};

	tmem_stall_log_add(tmem_stall_log(pager->tree), &s);
}

static void note_stall(struct tmem_handler *me, uint64_t vpn, uint64_t start)
{
	uint64_t ns = tmem_clock_ns(me->pager, tmem_clock_ticks() - start);
	struct tmem_tree_counters *c = &me->pager->slot->counters;

	atomic_fetch_add_explicit(&c->stall_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->stall_buckets[tmem_stall_bucket(ns)], 1,
				  memory_order_relaxed);
	if (ns > atomic_load_explicit(&c->stall_max_ns, memory_order_relaxed))
		atomic_store_explicit(&c->stall_max_ns, ns,
				      memory_order_relaxed);
	if (me->pager->tree->stall_log)
		log_stall(me->pager, vpn, start, ns);
}

static void serve_fault(struct tmem_handler *me, uint64_t addr)
{
	struct tmem_pager *pager = me->pager;
	uint64_t vpn = tmem_vpn(addr), start = tmem_clock_ticks();
	bool noted = false;
	enum answer a;

	for (;;) {
		tmem_lock_acquire(&pager->lock);
		if (atomic_load(&pager->fork_mode)) {
			a = answer_frozen_locked(me, vpn);
		} else {
			a = answer_locked(pager, me, vpn);
			if (!noted) {
				tmem_ahead_note_locked(pager, me, addr);
				tmem_solo_follow_locked(pager, me);
			}
			noted = true;
		}
		if (a == ANSWER_AGAIN)
			drain_locked(pager, me);
		tmem_lock_release(&pager->lock);
		if (a != ANSWER_AGAIN)
			break;
		tmem_sys_pause();
	}
	if (a == ANSWER_LOAD)
		load(me);
	note_stall(me, vpn, start);
	me->owed_pages++;
}

/* Under the lock, I/O and all: rare.  ANSWER_OTHER: wait for a loader. */
static enum answer fetch_locked(struct tmem_pager *pager, uint64_t vpn,
				void *scratch) TMEM_REQUIRES(&pager->lock)
{
	uint32_t handle = tmem_table_find(&pager->table, vpn);
	uint32_t entry = tmem_table_get(&pager->table, vpn);
	enum tmem_page_state state = tmem_entry_state(entry);
	uint64_t addr;
	long r;

	if (state == PAGE_LOADING)
		return ANSWER_OTHER;
	if (state < PAGE_STORED || atomic_load(&pager->fork_mode))
		return ANSWERED;
	r = tmem_serve_peek(pager, vpn, scratch);
	if (r < 0 && state != PAGE_LOST) {
		lose_locked(pager, handle, tmem_entry_value(entry), (int)r);
		state = PAGE_LOST;
	}
	r = tmem_install_sure(pager->uffd, vpn,
			      state == PAGE_LOST ? NULL : scratch);
	if (r == -EAGAIN || r == -ENOMEM) {
		if (tmem_event_read_locked(pager, &addr) == 1)
			tmem_install_wake(pager->uffd, tmem_vpn(addr), 1);
		return ANSWER_AGAIN;
	}
	if (state == PAGE_LOST || (r < 0 && r != -EEXIST))
		return ANSWERED;
	if (state == PAGE_LEAVING)
		tmem_frame(&pager->frames, tmem_entry_value(entry))->gone =
			true;
	else
		tmem_offset_drop_locked(pager, tmem_entry_value(entry));
	tmem_table_set(&pager->table, handle, PAGE_RESIDENT, 0);
	atomic_fetch_add(&pager->usage_delta_pages, 1);
	return ANSWERED;
}

bool tmem_serve_fetch(struct tmem_pager *pager, uint64_t vpn, void *scratch)
{
	enum answer a;
	enum tmem_page_state state;

	for (;;) {
		tmem_lock_acquire(&pager->lock);
		a = fetch_locked(pager, vpn, scratch);
		state = tmem_entry_state(tmem_table_get(&pager->table, vpn));
		tmem_lock_release(&pager->lock);
		if (a == ANSWERED)
			return state < PAGE_STORED;
		tmem_sys_pause();
	}
}

/* Evicts for what was brought in. */
static void pay(struct tmem_handler *me)
{
	unsigned nr = tmem_budget_after_fault(me);

	me->owed_pages = me->owed_pages > nr && nr ? me->owed_pages - nr : 0;
}

/*
 * What is left to do while no fault waits: first to read ahead, then to pay
 * for it.  False: nothing.
 */
static bool work_on(struct tmem_handler *me)
{
	int nr = -1;

	if (me->job.left && !tmem_budget_is_roomy(me->pager) && !me->owed_pages)
		me->job.left = 0; /* nothing can go */
	if (tmem_budget_is_roomy(me->pager))
		nr = tmem_ahead_step(me);
	if (nr >= 0)
		me->owed_pages += (unsigned)nr;
	else if (me->owed_pages || me->open)
		pay(me);
	return me->job.left || me->owed_pages || me->open;
}

/* Before it waits for others, who may wait for this: evict.h, V1. */
static void send_rest(struct tmem_handler *me)
{
	while (me->open)
		tmem_evict_some(me->pager, me, FRAME_GROUP);
}

/*
 * Until a fork's event is read its notes must not be full, as nothing is read
 * then: other threads wait the longer the more of them there are.
 */
static void slow_down(const struct tmem_pager *pager)
{
	uint64_t nr = atomic_load(&pager->deferred->nr);
	const struct timespec nap = {
		0, nr > FREE_NOTES ? (long)(nr - FREE_NOTES) * NOTE_NS : 0
	};

	if (nap.tv_nsec && atomic_load(&pager->fork_mode) &&
	    pager->gate.child_uffd < 0)
		tmem_sys(SYS_nanosleep, &nap, NULL);
}

/* A fault or an event; false if there was nothing to read. */
static bool serve_one(struct tmem_handler *me)
{
	struct tmem_pager *pager = me->pager;
	const struct timespec again = { 0, FORK_LOOK_NS };
	uint64_t addr;
	int r = 1;

	if (me->nr_backlog) {
		addr = me->backlog[--me->nr_backlog];
	} else {
		slow_down(pager);
		tmem_lock_acquire(&pager->lock);
		r = tmem_event_read_locked(pager, &addr);
		tmem_lock_release(&pager->lock);
	}
	if (r == 1) {
		serve_fault(me, addr);
		/*
		 * The neighbours at once: the thread that was woken is about
		 * to touch them.  To pay, only after others' faults, unless
		 * the reserve is low; a program's only thread does not wait.
		 */
		if (me->job.left)
			work_on(me);
		else if (atomic_load(&pager->solo) ||
			 !tmem_budget_is_roomy(pager))
			pay(me);
	} else if (r == -EBUSY) {
		uint32_t mode = atomic_load(&pager->fork_mode);

		send_rest(me);
		if (mode)
			tmem_sys_futex_wait(&pager->fork_mode, mode, &again);
		return true;
	}
	return r >= 0;
}

void tmem_serve_kick(struct tmem_pager *pager)
{
	uint64_t one = 1;
	unsigned i;

	for (i = 0; i < pager->nr_handlers; i++)
		tmem_sys(SYS_write, pager->handlers[i].kick_fd, &one,
			 sizeof(one));
}

void tmem_serve_run(struct tmem_handler *me)
{
	struct tmem_pager *pager = me->pager;
	struct pollfd fds[2] = { { .fd = pager->uffd, .events = POLLIN },
				 { .fd = me->kick_fd, .events = POLLIN } };
	uint64_t count;

	while (atomic_load(&pager->state) != PAGER_ENDED) {
		if (atomic_load(&pager->fork_mode))
			send_rest(me);
		fds[0].fd = tmem_solo_may_serve(me) ? pager->uffd : -1;
		if (fds[0].fd >= 0 && serve_one(me))
			continue;
		if (work_on(me))
			continue;
		tmem_sys(SYS_poll, fds, 2, -1);
		if (fds[1].revents & POLLIN) {
			tmem_sys(SYS_read, me->kick_fd, &count, sizeof(count));
			tmem_budget_reclaim(me);
		}
	}
}
