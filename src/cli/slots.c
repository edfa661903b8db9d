/* SPDX-License-Identifier: MIT */
/*
 * Slot life as the keeper sees it; tree.h has the states.
 *
 * A FREE slot is always clean (zero, but no parent and no target), so that a
 * pager which claims one by compare-and-swap finds nothing of its former
 * user.  The keeper cleans before it frees.
 *
 * The end of a slot has two halves, in any order: the program ends (pidfd),
 * the pager goes (connection).  A pager that goes while its program lives
 * has either said so (state DEAD, at exec), or the program shows that it
 * has become another one by a new stack; else the pager was killed, and then
 * the program is killed too: its evicted memory cannot be had any more.
 */
#include "cli/keeper.h"

#include "base/assert.h"
#include "cli/proc.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <tmem/swapfile.h>
#include <unistd.h>

#define CLAIM_TIMEOUT_NS (10 * TMEM_S)
#define HUNG_PAGER_NS	 (5 * TMEM_S)

static uint64_t get(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void clean(struct tmem_tree_slot *slot)
{
	uint32_t state = atomic_load(&slot->state);

	memset((char *)slot + sizeof(slot->state), 0,
	       sizeof(*slot) - sizeof(slot->state));
	atomic_store(&slot->state, state);
	atomic_store(&slot->parent_slot, TMEM_TREE_NO_SLOT);
	atomic_store(&slot->target_bytes, UINT64_MAX);
}

static void init_slot(struct tmem_keeper_slot *s)
{
	memset(s, 0, sizeof(*s));
	s->conn = s->uffd = s->wake_fd = s->pid_fd = -1;
}

void tmem_slots_init(struct tmem_keeper *k)
{
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		clean(&k->tree->slots[i]);
		init_slot(&k->slots[i]);
	}
	for (i = 0; i < TMEM_MAX_CONNS; i++)
		k->conns[i].fd = -1;
}

int tmem_slots_claim(struct tmem_keeper *k)
{
	uint32_t expected;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		expected = TMEM_SLOT_FREE;
		if (atomic_compare_exchange_strong(&k->tree->slots[i].state,
						   &expected,
						   TMEM_SLOT_CLAIMED)) {
			/* A claim that was given up leaves traces. */
			clean(&k->tree->slots[i]);
			return i;
		}
	}
	return TMEM_TREE_NO_SLOT;
}

int tmem_slots_attach(struct tmem_keeper *k, int slot, int conn, pid_t pid)
{
	struct tmem_keeper_slot *s = &k->slots[slot];
	struct tmem_tree_slot *t = &k->tree->slots[slot];
	struct tmem_proc proc;
	int pid_fd, wake_fd;

	pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pid_fd < 0)
		return -errno;
	wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake_fd < 0 || tmem_proc_read(pid, &proc) < 0) {
		close(pid_fd);
		close_fd(&wake_fd);
		return -ESRCH;
	}
	init_slot(s);
	s->pid_fd = pid_fd;
	s->wake_fd = wake_fd;
	s->conn = conn;
	s->pid = pid;
	s->start_stack = proc.start_stack;
	k->conns[conn].slot = slot;
	atomic_store(&t->pid, pid);
	atomic_store(&t->pager_pid, k->conns[conn].pid);
	k->totals.nr_paged++;
	return tmem_keeper_watch(k, pid_fd, TMEM_EVENT_PROGRAM, (unsigned)slot);
}

static void add_counters(struct tmem_tree_counters *sum,
			 const struct tmem_tree_counters *c)
{
	uint64_t max = get(&sum->stall_max_ns);
	int i;

	if (max < get(&c->stall_max_ns))
		max = get(&c->stall_max_ns);
#define COUNTER(name, unit, text)                                          \
	atomic_store_explicit(&sum->name, get(&sum->name) + get(&c->name), \
			      memory_order_relaxed);
#include "wire/counters.def"
#undef COUNTER
	atomic_store_explicit(&sum->stall_max_ns, max, memory_order_relaxed);
	for (i = 0; i < TMEM_STALL_BUCKETS; i++)
		atomic_fetch_add_explicit(&sum->stall_buckets[i],
					  get(&c->stall_buckets[i]),
					  memory_order_relaxed);
}

static void raise_to(uint64_t *peak, uint64_t value)
{
	if (*peak < value)
		*peak = value;
}

/* Peaks that a pager saw of its own slot, between two of our looks. */
static void take_slot_peaks(struct tmem_keeper *k,
			    const struct tmem_tree_slot *t)
{
	struct tmem_keeper_totals *p = &k->totals;

	raise_to(&p->peak_bytes,
		 get(&k->tree->keeper_bytes) + get(&t->peak_bytes));
	raise_to(&p->peak_swapped_pages, get(&t->peak_swapped_pages));
	raise_to(&p->peak_same_pages, get(&t->same_pages));
	raise_to(&p->peak_raw_pages, get(&t->raw_pages));
	if (p->peak_stored_pages >= get(&t->peak_stored_pages))
		return;
	p->peak_stored_pages = get(&t->peak_stored_pages);
	p->peak_stored_bytes = get(&t->peak_stored_bytes);
	p->peak_held_bytes = get(&t->peak_held_bytes);
}

static void reap(struct tmem_keeper *k, int slot)
{
	struct tmem_keeper_slot *s = &k->slots[slot];
	struct tmem_tree_slot *t = &k->tree->slots[slot];
	uint64_t grant;

	if (atomic_load(&t->state) != TMEM_SLOT_DEAD)
		k->swap_has_lost = true;
	atomic_store(&t->state, TMEM_SLOT_DEAD);
	tmem_slots_sample(k);
	take_slot_peaks(k, t);
	tmem_lost_collect(k, slot);
	add_counters(&k->totals.counters, &t->counters);
	k->totals.refused_pages += get(&t->refused_pages);
	if (k->swap_map_fd >= 0)
		tmem_swapmap_reap(k->swap_map_fd, (unsigned)slot);
	close_fd(&s->uffd);
	close_fd(&s->wake_fd);
	close_fd(&s->pid_fd);
	init_slot(s);
	grant = get(&t->grant_bytes);
	clean(t);
	atomic_fetch_add(&k->tree->avail_bytes, (int64_t)grant);
	atomic_store(&t->state, TMEM_SLOT_FREE);
}

/* pidfds are readable when the process has ended. */
static bool has_ended(const struct tmem_keeper_slot *s)
{
	struct pollfd p = { .fd = s->pid_fd, .events = POLLIN };

	return s->ended || poll(&p, 1, 0) != 0;
}

static bool has_execed(const struct tmem_keeper *k, int slot)
{
	const struct tmem_keeper_slot *s = &k->slots[slot];
	struct tmem_proc proc;
	int i;

	if (atomic_load(&k->tree->slots[slot].state) == TMEM_SLOT_DEAD)
		return true;
	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		if (i != slot && k->slots[i].conn >= 0 &&
		    k->slots[i].pid == s->pid)
			return true;
	/* A first thread that ended before the others has no stack. */
	return tmem_proc_read(s->pid, &proc) == 0 && proc.state != 'Z' &&
	       proc.start_stack != s->start_stack;
}

void tmem_slots_pager_gone(struct tmem_keeper *k, int slot)
{
	struct tmem_keeper_slot *s = &k->slots[slot];

	s->conn = -1;
	/* It may have ended while we asked whether it had become another. */
	if (has_ended(s) || has_execed(k, slot) || has_ended(s)) {
		reap(k, slot);
		return;
	}
	tmem_keeper_say(k,
			"the pager of process %d (%.15s) is gone, so its "
			"evicted memory is lost; the process is killed",
			(int)s->pid, k->tree->slots[slot].comm);
	syscall(SYS_pidfd_send_signal, s->pid_fd, SIGKILL, NULL, 0);
}

void tmem_slots_program_ended(struct tmem_keeper *k, int slot)
{
	struct tmem_keeper_slot *s = &k->slots[slot];

	s->ended = true;
	s->since_ns = tmem_keeper_now_ns();
	/* It would stay readable; conn decides from here on. */
	epoll_ctl(k->epoll_fd, EPOLL_CTL_DEL, s->pid_fd, NULL);
	if (s->conn < 0)
		reap(k, slot);
}

static void sweep_claim(struct tmem_keeper *k, int slot, uint64_t now)
{
	struct tmem_keeper_slot *s = &k->slots[slot];
	struct tmem_tree_slot *t = &k->tree->slots[slot];
	uint32_t expected = TMEM_SLOT_CLAIMED;
	pid_t pid = atomic_load(&t->pid);

	if (!s->since_ns) {
		s->since_ns = now;
		return;
	}
	/* Without any process left nobody can come. */
	if (now - s->since_ns < CLAIM_TIMEOUT_NS &&
	    !(k->no_children && k->main_pid_fd < 0))
		return;
	/* A child that is stopped before its HELLO may come yet. */
	if (pid > 0 && tmem_proc_is_alive(pid))
		return;
	if (atomic_compare_exchange_strong(&t->state, &expected,
					   TMEM_SLOT_DEAD))
		reap(k, slot);
}

void tmem_slots_sweep(struct tmem_keeper *k)
{
	uint64_t now = tmem_keeper_now_ns();
	struct tmem_keeper_slot *s;
	uint32_t state;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		s = &k->slots[i];
		state = atomic_load(&k->tree->slots[i].state);
		if (state == TMEM_SLOT_FREE) {
			s->since_ns = 0;
		} else if (s->conn < 0 && s->pid_fd < 0) {
			if (state == TMEM_SLOT_DEAD)
				reap(k, i);
			else
				sweep_claim(k, i, now);
		} else if (s->conn >= 0 && s->ended &&
			   now - s->since_ns > HUNG_PAGER_NS) {
			kill(k->conns[s->conn].pid, SIGKILL);
		}
	}
}

unsigned tmem_slots_in_use(const struct tmem_keeper *k, unsigned *ret_others)
{
	unsigned used = 0, others = 0;
	pid_t pid;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		if (atomic_load(&k->tree->slots[i].state) == TMEM_SLOT_FREE)
			continue;
		used++;
		pid = atomic_load(&k->tree->slots[i].pid);
		if (pid != k->main_pid && !k->slots[i].ended)
			others++;
	}
	*ret_others = others;
	return used;
}

uint64_t tmem_slots_sample(struct tmem_keeper *k)
{
	uint64_t usage = 0, stored = 0, bytes = 0, held = 0, same = 0, raw = 0;
	uint64_t swapped = 0, shared = 0, unpageable = 0, all;
	struct tmem_keeper_totals *p = &k->totals;
	const struct tmem_tree_slot *t;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		t = &k->tree->slots[i];
		if (atomic_load(&t->state) == TMEM_SLOT_FREE)
			continue;
		usage += get(&t->usage_bytes);
		stored += get(&t->stored_pages);
		bytes += get(&t->stored_bytes);
		held += get(&t->store_held_bytes);
		same += get(&t->same_pages);
		raw += get(&t->raw_pages);
		swapped += get(&t->swapped_pages);
		shared += get(&t->shared_bytes);
		unpageable += get(&t->unpageable_bytes);
	}
	all = usage + get(&k->tree->keeper_bytes);
	raise_to(&p->peak_bytes, all);
	if (get(&k->tree->peak_bytes) < usage)
		atomic_store(&k->tree->peak_bytes, usage);
	raise_to(&p->peak_same_pages, same);
	raise_to(&p->peak_raw_pages, raw);
	raise_to(&p->peak_swapped_pages, swapped);
	raise_to(&p->peak_shared_bytes, shared);
	raise_to(&p->peak_unpageable_bytes, unpageable);
	if (p->peak_stored_pages < stored) {
		p->peak_stored_pages = stored;
		p->peak_stored_bytes = bytes;
		p->peak_held_bytes = held;
	}
	return usage;
}

void tmem_slots_totals(const struct tmem_keeper *k,
		       struct tmem_keeper_totals *ret_totals)
{
	const struct tmem_tree_slot *t;
	int i;

	*ret_totals = k->totals;
	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		t = &k->tree->slots[i];
		if (atomic_load(&t->state) == TMEM_SLOT_FREE)
			continue;
		add_counters(&ret_totals->counters, &t->counters);
		ret_totals->refused_pages += get(&t->refused_pages);
	}
}

void tmem_slots_check(const struct tmem_keeper *k)
{
	const struct tmem_keeper_slot *s;
	int64_t granted = 0;
	bool live = false;
	uint32_t state;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		s = &k->slots[i];
		state = atomic_load(&k->tree->slots[i].state);
		granted += (int64_t)get(&k->tree->slots[i].grant_bytes);
		if (s->conn >= 0) {
			TMEM_INVARIANT("K1", state != TMEM_SLOT_FREE);
			TMEM_INVARIANT("K1", k->conns[s->conn].slot == i);
		}
		if (state == TMEM_SLOT_FREE)
			TMEM_INVARIANT("K2", s->pid_fd < 0 && s->uffd < 0);
		else
			live = true;
	}
	/* Pagers move memory between slot and avail while we add up. */
	if (!live)
		TMEM_INVARIANT(
			"I1",
			granted + atomic_load(&k->tree->avail_bytes) +
					(int64_t)get(&k->tree->keeper_bytes) ==
				(int64_t)get(&k->tree->limit_bytes));
}

void tmem_slots_wake(struct tmem_keeper *k, int slot)
{
	const uint64_t one = 1;

	/* Full means that the pager has not looked yet: just as well. */
	if (k->slots[slot].wake_fd >= 0 &&
	    write(k->slots[slot].wake_fd, &one, sizeof(one)) < 0)
		TMEM_ASSERT(errno == EAGAIN);
}
