/* SPDX-License-Identifier: MIT */
/*
 * Read-ahead against everything that may happen to a page meanwhile.
 *
 * The pager's own streams, loads, table and events run on a kernel, a program
 * and a store that are a few arrays here.  At each point where read-ahead lets
 * go of the lock, and at each ioctl, a random schedule may unmap, drop or move
 * pages, write to them, evict others, have an event wait unread (the ioctls
 * say EAGAIN), turn fork mode on, or make a copy unreadable.  What is
 * installed must be what the program would read without us.  An event may be
 * heard before one that happened earlier, and made its place free: late.h.
 * After each step:
 *
 *   A1  A page that is present has the program's content; one that is not is
 *       STORED with a copy of it, or is to be zeros and NONE.
 *   A2  Nothing is LOADING, and no thread that touched a page while it was is
 *       still asleep.
 *   A3  The copies in use are those of STORED and KEPT pages.
 *   A4  Pages read ahead: still marked, found used, or wasted; no other.
 *
 * Usage: pager_ahead [STEPS [SEED]]
 */
#include "pager/ahead.h"
#include "pager/budget.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "fstest.h"
#include "pager/event.h"
#include "pager/gate.h"
#include "pager/install.h"
#include "pager/late.h"
#include "pager/load.h"
#include "pager/offsets.h"
#include "pager/region.h"
#include "wire/anchor.h"

enum {
	NR = 4 * LEAF_PAGES,
	OFFSETS = 4 * NR,
	BASE = 0x7f0000,
	NOT_READABLE = 0
};

/* The kernel and the program: 0 is a page of zeros. */
static uint64_t want[NR];  /* what the program is to read */
static uint64_t there[NR]; /* what is there, if it is */
static bool present[NR];
static bool asleep[NR];	       /* somebody waits for this page */
static uint64_t copy[OFFSETS]; /* frontswap */
static bool unreadable[OFFSETS];
static struct tmem_note pending; /* an event that was not read yet */
static bool is_late;		 /* it has happened, and so did a later one */

static struct tmem_pager pager;
static struct tmem_anchor anchor;
static struct tmem_tree tree;
static struct tmem_tree_slot slot;
static struct tmem_handler *me = &pager.handlers[0];
static struct rng rng;
static uint64_t last_id;
static unsigned nr_installed, nr_refused;

struct tmem_pager *tmem_pager;

static uint32_t roll(uint32_t n)
{
	return (uint32_t)rng_below(&rng, n);
}

static uint32_t state_of(unsigned i)
{
	return tmem_entry_state(tmem_table_get(&pager.table, BASE + i));
}

/* What the rest of the pager is to it here */

void tmem_gate_child_locked(struct tmem_pager *p, int uffd)
{
	(void)p;
	(void)uffd;
}

void tmem_region_refill_locked(struct tmem_pager *p, uint64_t start,
			       uint64_t end)
{
	(void)p;
	(void)start;
	(void)end;
}

void tmem_region_no_home_locked(struct tmem_pager *p, uint64_t start,
				uint64_t end)
{
	(void)p;
	(void)start;
	(void)end;
}

void *tmem_pager_map(struct tmem_pager *p, size_t bytes)
{
	(void)p;
	return calloc(1, bytes);
}

bool tmem_swapfile_is_roomy(const struct tmem_swapfile *f)
{
	(void)f;
	return false;
}

/* Nothing is registered here. */
bool tmem_install_is_refused(int uffd)
{
	(void)uffd;
	return false;
}

bool tmem_budget_store_has_room(const struct tmem_pager *p)
{
	(void)p;
	return roll(2);
}

bool tmem_frontswap_test(struct tmem_frontswap *fs, unsigned type,
			 uint64_t offset)
{
	(void)fs;
	(void)type;
	return offset % 3 != 0;
}

void tmem_frontswap_invalidate_page(struct tmem_frontswap *fs, unsigned type,
				    uint64_t offset)
{
	(void)fs;
	(void)type;
	copy[offset] = UINT64_MAX;
}

static void wake(uint64_t vpn, unsigned nr)
{
	while (nr-- > 0 && vpn < LATE_ASIDE)
		asleep[vpn + nr - BASE] = false;
}

void tmem_install_wake(int uffd, uint64_t vpn, unsigned nr)
{
	(void)uffd;
	wake(vpn, nr);
}

/* What happens to the program */

static void evict(unsigned i) TMEM_UNANALYSED
{
	uint32_t handle = tmem_table_find(&pager.table, BASE + i), offset;
	uint32_t entry = tmem_table_get(&pager.table, BASE + i);

	if (state_of(i) != PAGE_RESIDENT && state_of(i) != PAGE_KEPT)
		return;
	offset = state_of(i) == PAGE_KEPT ? tmem_entry_value(entry)
					  : tmem_offset_take_locked(&pager);
	copy[offset] = there[i];
	unreadable[offset] = roll(40) == NOT_READABLE;
	present[i] = false;
	tmem_table_set(&pager.table, handle, PAGE_STORED, offset);
}

static void populate(unsigned i)
{
	uint32_t handle = tmem_table_make(&pager.table, BASE + i);

	if (present[i] || state_of(i) != PAGE_NONE)
		return;
	present[i] = true;
	there[i] = want[i] = ++last_id;
	tmem_table_set(&pager.table, handle, PAGE_RESIDENT, 0);
}

/* The kernel does it; the threads that wait there are not woken by that. */
static void happen(const struct tmem_note *n)
{
	unsigned i, from = (unsigned)(n->from - BASE);

	if (n->kind != NOTE_MOVED) {
		for (i = from; i < n->to - BASE; i++) {
			present[i] = false;
			want[i] = 0;
		}
		return;
	}
	for (i = 0; i < n->nr; i++) {
		unsigned to = (unsigned)(n->to - BASE) + i;

		present[to] = present[from + i];
		there[to] = there[from + i];
		want[to] = want[from + i];
		present[from + i] = false;
		want[from + i] = 0;
	}
}

/* An event is read: noted or applied, as event.c does it. */
static void read_event(const struct tmem_note *n) TMEM_UNANALYSED
{
	uint64_t nr = atomic_load(&pager.deferred->nr);

	pager.deferred->note[nr] = *n;
	atomic_store(&pager.deferred->nr, nr + 1);
	if (!atomic_load(&pager.fork_mode))
		tmem_event_catch_up_locked(&pager);
	if (n->kind == NOTE_MOVED)
		tmem_late_moved_locked(&pager, n->to, n->to + n->nr);
}

static struct tmem_note random_event(void)
{
	struct tmem_note n = { .kind = 1 + roll(3),
			       .from = BASE + roll(NR / 2 - 24) };

	n.nr = 1 + roll(24);
	n.to = n.from + n.nr;
	if (n.kind == NOTE_MOVED)
		n.to = BASE + NR / 2 + roll(NR / 2 - 24);
	return n;
}

static void read_pending(void)
{
	if (!pending.kind)
		return;
	if (!is_late)
		happen(&pending);
	read_event(&pending);
	pending.kind = 0;
	is_late = false;
}

/* A place is left, and then moved to, which is heard first. */
static void swapped_events(void)
{
	struct tmem_note n = random_event(), left = { .nr = n.nr };

	n.kind = NOTE_MOVED;
	n.to = BASE + NR / 2 + 24 * roll(3);
	left.from = n.to;
	left.kind = roll(2) ? NOTE_MOVED : NOTE_UNMAPPED;
	left.to = left.kind == NOTE_MOVED ? BASE + NR - 25 : n.to + n.nr;
	happen(&left);
	happen(&n);
	read_event(&n);
	pending = left;
	pending.from += LATE_ASIDE;
	if (left.kind == NOTE_UNMAPPED)
		pending.to += LATE_ASIDE;
	is_late = true;
}

/* It is answered without noting it. */
static void fault_in_fork_mode(unsigned i)
{
	if (present[i] || state_of(i) != PAGE_STORED ||
	    tmem_notes_resolve(pager.deferred, BASE + i) != BASE + i)
		return;
	present[i] = true;
	there[i] = want[i];
}

static void something(void)
{
	unsigned i = roll(NR);
	struct tmem_note n;

	switch (roll(9)) {
	case 0:
	case 1:
		read_pending();
		n = random_event();
		if (atomic_load(&pager.deferred->nr) >= EVENT_NOTES)
			break;
		happen(&n);
		read_event(&n);
		break;
	case 2:
		if (!pending.kind)
			pending = random_event();
		break;
	case 3:
		if (!atomic_load(&pager.fork_mode) && !is_late)
			evict(i);
		break;
	case 4:
		if (present[i]) /* a write */
			there[i] = want[i] = ++last_id;
		break;
	case 5:
		if (atomic_load(&pager.fork_mode) && !is_late)
			fault_in_fork_mode(i);
		break;
	case 6:
		if (roll(20) == 0)
			atomic_store(&pager.fork_mode, 1);
		break;
	case 7:
		if (!pending.kind &&
		    atomic_load(&pager.deferred->nr) < EVENT_NOTES - 1)
			swapped_events();
		break;
	default:
		/* Somebody touches a page that is being loaded. */
		if (!atomic_load(&pager.fork_mode))
			for (i = 0; i < NR; i++)
				asleep[i] |= !present[i] &&
					     state_of(i) == PAGE_LOADING &&
					     roll(2);
		break;
	}
}

static void meanwhile(void)
{
	unsigned n;

	tmem_lock_acquire(&pager.lock);
	for (n = roll(4); n > 0; n--)
		something();
	tmem_lock_release(&pager.lock);
}

int tmem_frontswap_swap_in(struct tmem_frontswap *fs, unsigned type,
			   uint64_t offset, void *page)
{
	uint64_t id = copy[offset];
	bool fails = unreadable[offset];

	(void)fs;
	(void)type;
	TMEM_ASSERT(id != UINT64_MAX); /* the copy of a load stays: L4 */
	meanwhile();
	TMEM_ASSERT(copy[offset] == id);
	if (fails)
		return -EIO;
	memcpy(page, &id, sizeof(id));
	return 0;
}

void tmem_frontswap_swap_in_many(struct tmem_frontswap *fs, unsigned type,
				 struct tmem_swapdev_read *reads, unsigned nr)
{
	for (; nr > 0; nr--, reads++)
		reads->result = tmem_frontswap_swap_in(fs, type, reads->offset,
						       reads->page);
}

long tmem_install_pages(int uffd, uint64_t vpn, const void *pages, unsigned nr)
{
	unsigned first = (unsigned)(vpn - BASE), i, stop = nr;

	(void)uffd;
	nr_refused++;
	if (pending.kind)
		return -EAGAIN;
	if (roll(12) == 0) /* mappings meet, or no memory */
		return nr > 1 && roll(2) ? -ENOENT : -ENOMEM;
	if (roll(4) == 0)
		stop = 1 + roll(nr);
	for (i = 0; i < stop && !present[first + i]; i++) {
		memcpy(&there[first + i],
		       (const char *)pages + (size_t)i * TMEM_PAGE_SIZE, 8);
		TMEM_ASSERT(there[first + i] == want[first + i]); /* A1 */
		present[first + i] = true;
		nr_installed++;
	}
	if (!i)
		return -EEXIST;
	nr_refused--;
	wake(vpn, i);
	return i;
}

long tmem_install_copy(int uffd, uint64_t vpn, const void *page)
{
	return tmem_install_pages(uffd, vpn, page, 1);
}

/* A1 to A4 */

static void check(void)
{
	const struct tmem_tree_counters *c = &slot.counters;
	unsigned i, copies = 0;

	for (i = 0; i < NR; i++) {
		uint32_t entry = tmem_table_get(&pager.table, BASE + i);
		uint32_t state = tmem_entry_state(entry);

		TMEM_ASSERT(state != PAGE_LOADING && !asleep[i]);
		copies += state == PAGE_STORED || state == PAGE_KEPT;
		if (present[i])
			TMEM_ASSERT(there[i] == want[i]);
		else if (state == PAGE_STORED)
			TMEM_ASSERT(copy[tmem_entry_value(entry)] == want[i]);
		else
			TMEM_ASSERT(state == PAGE_NONE && want[i] == 0);
	}
	TMEM_ASSERT(copies == pager.stored_pages);
	TMEM_ASSERT(atomic_load(&pager.nr_loading) == 0 && me->nr_loads == 0);
	TMEM_ASSERT(atomic_load(&c->readahead_pages) ==
		    atomic_load(&c->readahead_hits) + pager.table.nr_ahead +
			    pager.table.nr_wasted);
	tmem_table_check(&pager.table);
}

static void leave_fork_mode(void) TMEM_UNANALYSED
{
	tmem_event_catch_up_locked(&pager);
	atomic_store(&pager.fork_mode, 0);
}

static void prepare(void)
{
	unsigned i;

	tmem_lock_acquire(&pager.lock);
	atomic_store(&pager.related, roll(2));
	for (i = 0; i < NR; i++)
		if (roll(3) == 0)
			populate(i);
	for (i = 0; i < NR; i++)
		if (roll(4))
			evict(i);
	/* A fault that the streams make something of, or any job. */
	tmem_ahead_note_locked(&pager, me, ((uint64_t)BASE + roll(NR)) << 12);
	if (roll(4)) {
		me->job.vpn = BASE + roll(NR);
		me->job.stride = (int64_t)roll(7) - 3;
		if (!me->job.stride)
			me->job.stride = 1;
		me->job.left = 1 + roll(STREAM_WINDOW_MAX);
		me->job.looked = 0;
		pager.swapfile = roll(2) ? (void *)&pager : NULL;
	}
	tmem_lock_release(&pager.lock);
}

static void step(void)
{
	prepare();
	while (tmem_ahead_step(me) >= 0)
		if (roll(2))
			meanwhile();
	tmem_lock_acquire(&pager.lock);
	read_pending();
	leave_fork_mode();
	tmem_late_forget_locked(&pager);
	tmem_lock_release(&pager.lock);
	check();
}

/* Where a page is, and what a place has, by the same notes. */
static void check_notes(void) TMEM_UNANALYSED
{
	struct tmem_deferred *d = pager.deferred;
	uint64_t vpn, at, k;

	for (k = 0; k < 8; k++) {
		uint64_t from = BASE + roll(32), nr = 1 + roll(8);

		d->note[k] = (struct tmem_note){ NOTE_GONE + roll(3), from,
						 from + nr, nr };
		if (d->note[k].kind == NOTE_MOVED)
			d->note[k].to = from + nr + roll(16);
		if (d->note[k].kind != NOTE_GONE && roll(4) == 0) {
			d->note[k].from += LATE_ASIDE;
			if (d->note[k].kind == NOTE_UNMAPPED)
				d->note[k].to += LATE_ASIDE;
		}
		atomic_store(&d->nr, k + 1);
		for (vpn = BASE; vpn < BASE + 64; vpn++) {
			at = tmem_notes_follow(pager.deferred, vpn);
			TMEM_ASSERT(at == UINT64_MAX ||
				    tmem_notes_resolve(pager.deferred, at) ==
					    vpn);
			at = tmem_notes_resolve(pager.deferred, vpn);
			TMEM_ASSERT(at == UINT64_MAX ||
				    tmem_notes_follow(pager.deferred, at) ==
					    vpn);
		}
	}
	atomic_store(&d->nr, 0);
}

int main(int argc, char **argv)
{
	unsigned long steps = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000, i;

	rng.state = seed_from(argc, argv, 2);
	pager.tree = &tree;
	pager.slot = &slot;
	atomic_store(&tree.limit_bytes, (uint64_t)NR * TMEM_PAGE_SIZE);
	tmem_lock_init(&pager.lock, TMEM_RANK_PAGER);
	pager.deferred = calloc(1, sizeof(*pager.deferred));
	pager.anchor = &anchor;
	pager.nr_handlers = 1;
	me->pager = &pager;
	me->page = calloc(PAGER_LOADS, TMEM_PAGE_SIZE);
	if (!pager.deferred || !me->page || tmem_table_init(&pager.table) ||
	    tmem_offsets_init(&pager))
		return 2;
	tmem_ahead_start(&pager);
	for (i = 0; i < 100; i++)
		check_notes();
	for (i = 0; i < steps; i++)
		step();
	printf("%u pages installed, %u refusals\n", nr_installed, nr_refused);
	return nr_installed && nr_refused ? 0 : 1;
}
