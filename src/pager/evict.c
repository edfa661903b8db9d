/* SPDX-License-Identifier: MIT */
/* See evict.h. */
#include "evict.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/sys.h"
#include "budget.h"
#include "event.h"
#include "install.h"
#include "move.h"
#include "offsets.h"

enum {
	/* How much of the table one call may look through. */
	SCAN_LEAVES = 16384,
	/* How many moves may fail in one call. */
	MOVE_FAILURES = 64,
	/* Rounds of the clock until odd pages are tried again. */
	FORGET_ROUNDS = 16,
	/* So many refused in a row, and that part of all: nothing fits. */
	REFUSED_LEAST = 64,
	REFUSED_PART = 8
};

/*
 * What may be evicted in one word of a leaf, from bit `from` on; passes by
 * the young ones.
 */
static uint64_t take_word(struct tmem_leaf *leaf, uint32_t word, uint32_t from)
{
	uint64_t old = leaf->resident[word] & ~leaf->pinned[word] &
		       ~leaf->busy[word] & (~0ull << from);
	uint64_t now;

	if (leaf->way == LEAF_WAY_RWX)
		old &= leaf->odd[word] & ~leaf->never[word];
	else
		old &= ~leaf->odd[word];
	now = old & ~leaf->young[word];
	leaf->young[word] &= ~old;
	return now;
}

/* A page that can't be moved into frames of this kind. */
static void note_odd(struct tmem_leaf *leaf, uint32_t handle)
{
	uint32_t i = handle % LEAF_PAGES;
	uint64_t bit = 1ull << i % 64;

	if (leaf->way == LEAF_WAY_RW)
		leaf->odd[i / 64] |= bit;
	else
		leaf->never[i / 64] |= bit;
}

/*
 * The pass over a leaf is over: another for the pages that need executable
 * frames, or on to the next leaf.  Protections change unseen, so now and then
 * all is forgotten.
 */
static bool another_pass(const struct tmem_pager *pager, struct tmem_leaf *leaf)
{
	uint64_t left = 0;
	unsigned i;

	for (i = 0; i < LEAF_WORDS; i++)
		left |= leaf->resident[i] & leaf->odd[i] & ~leaf->never[i];
	if (leaf->way == LEAF_WAY_RW && left) {
		leaf->way = LEAF_WAY_RWX;
		return true;
	}
	leaf->way = LEAF_WAY_RW;
	if (pager->hand_rounds % FORGET_ROUNDS == 0) {
		memset(leaf->odd, 0, sizeof(leaf->odd));
		memset(leaf->never, 0, sizeof(leaf->never));
	}
	return false;
}

struct batch {
	struct tmem_frame_group *group;
	unsigned want;
	unsigned failures;
	bool stop;
};

/* Notes the pages that were moved into the group's next frames. */
static void note_moved(struct tmem_pager *pager, struct batch *b,
		       uint32_t handle, unsigned nr) TMEM_REQUIRES(&pager->lock)
{
	uint32_t first =
		(uint32_t)(b->group - pager->frames.group) * FRAME_GROUP;

	while (nr-- > 0) {
		unsigned i = b->group->nr_used++;
		struct tmem_frame *f = &b->group->frame[i];
		uint32_t entry = tmem_table_entry(&pager->table, handle);

		memset(f, 0, sizeof(*f));
		f->handle = handle;
		f->used = true;
		f->kept = tmem_entry_state(entry) == PAGE_KEPT;
		f->offset = f->kept ? tmem_entry_value(entry)
				    : tmem_offset_take_locked(pager);
		tmem_table_set(&pager->table, handle, PAGE_LEAVING, first + i);
		handle++;
	}
}

/* The page is not there although we thought so: it is zeros when touched. */
static void note_absent(struct tmem_pager *pager, uint32_t handle)
	TMEM_REQUIRES(&pager->lock)
{
	uint32_t entry = tmem_table_entry(&pager->table, handle);

	if (tmem_entry_state(entry) == PAGE_KEPT)
		tmem_offset_drop_locked(pager, tmem_entry_value(entry));
	tmem_table_set(&pager->table, handle, PAGE_NONE, 0);
}

/* Moves one run of neighbours; returns how far it got. */
static unsigned move_run(struct tmem_pager *pager, struct batch *b,
			 uint32_t handle, unsigned nr)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_leaf *leaf =
		tmem_table_leaf(&pager->table, handle >> LEAF_SHIFT);
	uint64_t from = tmem_table_vpn(&pager->table, handle) * TMEM_PAGE_SIZE;
	uint8_t *to =
		b->group->pages + (size_t)b->group->nr_used * TMEM_PAGE_SIZE;
	unsigned moved = 0;
	enum tmem_move_end end =
		tmem_move_out(pager->uffd, from, (uintptr_t)to, nr, &moved);

	note_moved(pager, b, handle, moved);
	switch (end) {
	case MOVE_ALL:
		return nr;
	case MOVE_BUSY:
		PAGER_COUNT(pager, evict_busy, 1);
		b->failures++;
		tmem_table_set_busy(&pager->table, handle + moved);
		atomic_store(&pager->some_busy, 1);
		return moved + 1;
	case MOVE_GONE:
		note_absent(pager, handle + moved);
		return moved + 1;
	case MOVE_WAY:
		b->failures++;
		/* Two mappings meet in the run, or it is this page. */
		if (nr - moved > 1)
			return moved + move_run(pager, b, handle + moved, 1);
		note_odd(leaf, handle + moved);
		return moved + 1;
	case MOVE_AGAIN:
		PAGER_COUNT(pager, evict_again, 1);
		b->stop = true;
		return nr;
	default:
		b->stop = true;
		return nr;
	}
}

static bool leaf_suits(const struct tmem_leaf *leaf, bool executable)
{
	return leaf->base != UINT64_MAX && leaf->nr_resident &&
	       (leaf->way == LEAF_WAY_RWX) == executable;
}

/* Evicts from one word of a leaf; returns the bit where it stopped, or 64. */
static uint32_t evict_word(struct tmem_pager *pager, struct batch *b,
			   uint64_t bits) TMEM_REQUIRES(&pager->lock)
{
	uint32_t nr = pager->hand_leaf, word = pager->hand_word;
	struct tmem_leaf *leaf = tmem_table_leaf(&pager->table, nr);
	uint32_t i = 0;

	while (bits && leaf_suits(leaf, b->group->executable)) {
		unsigned room = b->want - b->group->nr_used, len;
		uint64_t holes;

		i = (uint32_t)__builtin_ctzll(bits);
		if (b->stop || !room)
			return i;
		holes = ~(bits >> i);
		len = holes ? (unsigned)__builtin_ctzll(holes) : 64;
		len = len < room ? len : room;
		i += move_run(pager, b, nr << LEAF_SHIFT | (word * 64 + i),
			      len);
		if (b->failures >= MOVE_FAILURES)
			b->stop = true;
		if (i >= 64)
			return 64;
		bits &= ~0ull << i;
	}
	return 64;
}

/* Puts the hand on the next leaf that has something; false: none found. */
static bool next_leaf(struct tmem_pager *pager, unsigned *scanned)
{
	struct tmem_table *table = &pager->table;

	while (*scanned < SCAN_LEAVES && *scanned <= 2 * table->nr_leaves) {
		const struct tmem_leaf *leaf;

		if (pager->hand_leaf >= table->nr_leaves) {
			pager->hand_leaf = 0;
			pager->hand_word = 0;
			pager->hand_bit = 0;
			pager->hand_rounds++;
			if (!table->nr_leaves)
				return false;
		}
		leaf = tmem_table_leaf(table, pager->hand_leaf);
		if (leaf_suits(leaf, false) || leaf_suits(leaf, true))
			return true;
		pager->hand_leaf++;
		pager->hand_word = 0;
		pager->hand_bit = 0;
		(*scanned)++;
	}
	return false;
}

static void advance_hand(struct tmem_pager *pager, uint32_t bit,
			 unsigned *scanned)
{
	pager->hand_bit = bit % 64;
	pager->hand_word += bit / 64;
	if (pager->hand_word == LEAF_WORDS) {
		pager->hand_word = 0;
		if (!another_pass(pager, tmem_table_leaf(&pager->table,
							 pager->hand_leaf)))
			pager->hand_leaf++;
		(*scanned)++;
	}
}

static void fill_group_locked(struct tmem_pager *pager, struct batch *b)
	TMEM_REQUIRES(&pager->lock)
{
	unsigned scanned = 0;

	while (!b->stop && (!b->group || b->group->nr_used < b->want) &&
	       next_leaf(pager, &scanned)) {
		struct tmem_leaf *leaf =
			tmem_table_leaf(&pager->table, pager->hand_leaf);
		uint64_t bits;

		if (!b->group)
			b->group = tmem_frames_take_locked(
				pager, leaf->way == LEAF_WAY_RWX);
		if (!b->group || !leaf_suits(leaf, b->group->executable))
			return;
		bits = take_word(leaf, pager->hand_word, pager->hand_bit);
		advance_hand(pager, evict_word(pager, b, bits), &scanned);
	}
}

static bool is_zeros(const uint8_t *page)
{
	uint64_t first;

	memcpy(&first, page, sizeof(first));
	return first == 0 && memcmp(page, page + sizeof(first),
				    TMEM_PAGE_SIZE - sizeof(first)) == 0;
}

enum {
	OUT_ZERO = 1,
	OUT_CLEAN,
	OUT_STORED,
	OUT_REFUSED
};

/* Without the lock: what becomes of the page in frame i. */
static int send_out(struct tmem_pager *pager, const struct tmem_frame *f,
		    const uint8_t *page, uint8_t *scratch)
{
	struct tmem_frontswap *fs = pager->frontswap;

	if (f->kept) {
		if (tmem_frontswap_test(fs, PAGER_FRONTSWAP_TYPE, f->offset) &&
		    tmem_frontswap_swap_in(fs, PAGER_FRONTSWAP_TYPE, f->offset,
					   scratch) == 0 &&
		    memcmp(scratch, page, TMEM_PAGE_SIZE) == 0)
			return OUT_CLEAN;
		if (pager->swapfile &&
		    tmem_swapfile_equals(pager->swapfile, f->offset, page))
			return OUT_CLEAN;
		tmem_frontswap_invalidate_page(fs, PAGER_FRONTSWAP_TYPE,
					       f->offset);
	}
	if (is_zeros(page))
		return OUT_ZERO;
	return tmem_frontswap_store(fs, PAGER_FRONTSWAP_TYPE, f->offset,
				    page) == 0
		       ? OUT_STORED
		       : OUT_REFUSED;
}

/* Neither tmem nor the swap file takes it: it goes back where it was. */
static void put_back_locked(struct tmem_pager *pager,
			    const struct tmem_frame *f, const uint8_t *page)
	TMEM_REQUIRES(&pager->lock)
{
	uint64_t vpn, addr;
	long r = -EAGAIN;

	PAGER_COUNT(pager, evict_nospace, 1);
	while (r == -EAGAIN && !f->gone) {
		vpn = tmem_table_vpn(&pager->table, f->handle);
		if (tmem_event_resolve(pager, vpn) != vpn)
			break; /* unmapped while events are put off */
		r = tmem_install_copy(pager->uffd, vpn, page);
		/* The event that waits may be about this very page. */
		if (r == -EAGAIN && tmem_event_read_locked(pager, &addr) == 1)
			tmem_install_wake(pager->uffd, tmem_vpn(addr), 1);
		if (r == -EAGAIN)
			tmem_sys_pause();
	}
	if (!f->gone) {
		tmem_table_set(&pager->table, f->handle, PAGE_RESIDENT, 0);
		tmem_table_set_young(&pager->table, f->handle);
	}
}

/* The frame's page has arrived somewhere: tells the table. */
static void settle_locked(struct tmem_pager *pager, struct tmem_frame *f,
			  const uint8_t *page) TMEM_REQUIRES(&pager->lock)
{
	f->used = false;
	pager->refused_run =
		f->result == OUT_REFUSED ? pager->refused_run + 1 : 0;
	if (f->result == OUT_REFUSED && !f->gone) {
		/* Without a swap file it may be just these pages. */
		if (pager->swapfile ||
		    pager->refused_run >=
			    REFUSED_LEAST +
				    pager->table.nr_resident / REFUSED_PART)
			tmem_budget_full(pager);
		put_back_locked(pager, f, page);
	}
	if (f->gone || f->result == OUT_REFUSED || f->result == OUT_ZERO) {
		tmem_offset_drop_locked(pager, f->offset);
		if (!f->gone && f->result == OUT_ZERO) {
			PAGER_COUNT(pager, evicted_zero, 1);
			tmem_table_set(&pager->table, f->handle, PAGE_NONE, 0);
		}
		return;
	}
	if (f->result == OUT_CLEAN)
		PAGER_COUNT(pager, evicted_clean, 1);
	else if (f->to_swap)
		PAGER_COUNT(pager, evicted_swap, 1);
	else
		PAGER_COUNT(pager, evicted_store, 1);
	tmem_table_set(&pager->table, f->handle, PAGE_STORED, f->offset);
}

static void write_done(struct tmem_swapdev_request *request, int result)
{
	struct tmem_frame *f = request->arg;

	f->result = result == 0 ? OUT_STORED : OUT_REFUSED;
	atomic_store(&f->writing, false);
}

/* Queues a refused page for the swap file, if there is one with room. */
static void queue_write(struct tmem_pager *pager, struct tmem_frame *f,
			void *page)
{
	int r;

	if (!pager->swapfile)
		return;
	f->request = (struct tmem_swapdev_request){
		.offset = f->offset,
		.page = page,
		.done = write_done,
		.arg = f,
	};
	f->to_swap = true;
	atomic_store(&f->writing, true);
	do {
		r = tmem_frontswap_write(pager->frontswap, PAGER_FRONTSWAP_TYPE,
					 &f->request);
		if (r == -EAGAIN)
			tmem_frontswap_reap(pager->frontswap,
					    PAGER_FRONTSWAP_TYPE, true);
	} while (r == -EAGAIN);
	if (r != 0)
		atomic_store(&f->writing, false);
}

/* Settles what is done; true if the whole group is, and may be released. */
static bool settle_group_locked(struct tmem_pager *pager,
				struct tmem_frame_group *group)
	TMEM_REQUIRES(&pager->lock)
{
	unsigned i, left = 0;

	for (i = 0; i < group->nr_used; i++) {
		struct tmem_frame *f = &group->frame[i];

		if (f->used && !atomic_load(&f->writing))
			settle_locked(pager, f,
				      group->pages +
					      (size_t)i * TMEM_PAGE_SIZE);
		left += f->used;
	}
	group->owned = left == 0;
	return left == 0;
}

static void free_group(struct tmem_pager *pager, struct tmem_frame_group *group)
{
	unsigned nr = group->nr_used;

	tmem_frames_release(pager, group);
	atomic_fetch_sub(&pager->usage_delta_pages, nr);
	tmem_lock_acquire(&pager->lock);
	group->nr_used = 0;
	group->owned = false;
	group->busy = false;
	tmem_lock_release(&pager->lock);
}

/* A group that only waited for its writes, and they are done; or NULL. */
static struct tmem_frame_group *take_written_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	unsigned i, k;

	for (i = 0; i < FRAME_GROUPS; i++) {
		struct tmem_frame_group *group = &pager->frames.group[i];
		bool done = group->busy && !group->owned && group->nr_used;

		for (k = 0; k < group->nr_used && done; k++)
			done = !atomic_load(&group->frame[k].writing);
		if (done && settle_group_locked(pager, group))
			return group;
	}
	return NULL;
}

void tmem_evict_reap(struct tmem_pager *pager, bool wait)
{
	struct tmem_frame_group *group;

	if (!pager->swapfile)
		return;
	tmem_frontswap_reap(pager->frontswap, PAGER_FRONTSWAP_TYPE, wait);
	do {
		tmem_lock_acquire(&pager->lock);
		group = take_written_locked(pager);
		tmem_lock_release(&pager->lock);
		if (group)
			free_group(pager, group);
	} while (group);
}

bool tmem_evict_wait(struct tmem_pager *pager)
{
	unsigned i, writing = 0, free = 0;

	if (!pager->swapfile)
		return false;
	tmem_lock_acquire(&pager->lock);
	for (i = 0; i < FRAME_GROUPS_RW; i++) {
		const struct tmem_frame_group *group = &pager->frames.group[i];

		free += !group->busy;
		writing += group->busy && !group->owned;
	}
	tmem_lock_release(&pager->lock);
	if (free || !writing)
		return false;
	tmem_evict_reap(pager, true);
	return true;
}

/* Moves pages out into a group; NULL if none could be: 0 or -EBUSY. */
static struct tmem_frame_group *move_out(struct tmem_pager *pager, unsigned nr,
					 int *ret_why)
{
	struct batch b = { .want = nr < FRAME_GROUP ? nr : FRAME_GROUP };

	tmem_lock_acquire(&pager->lock);
	if (!atomic_load(&pager->fork_mode) &&
	    tmem_offsets_left(pager) >= FRAME_GROUP)
		fill_group_locked(pager, &b);
	if (b.group && !b.group->nr_used) {
		b.group->busy = false;
		b.group->owned = false;
		b.group = NULL;
	}
	if (b.group)
		atomic_fetch_add(&pager->nr_storing, 1);
	tmem_lock_release(&pager->lock);
	*ret_why = b.failures ? -EBUSY : 0;
	return b.group;
}

int tmem_evict_some(struct tmem_pager *pager, struct tmem_handler *me,
		    unsigned nr)
{
	struct tmem_frame_group *group;
	unsigned i, done;
	bool free;
	int why;

	tmem_evict_reap(pager, false);
	group = move_out(pager, nr, &why);
	if (!group)
		return why;
	done = group->nr_used;
	for (i = 0; i < done; i++) {
		struct tmem_frame *f = &group->frame[i];
		uint8_t *page = group->pages + (size_t)i * TMEM_PAGE_SIZE;

		f->result = send_out(pager, f, page, me->page2);
		if (f->result == OUT_REFUSED)
			queue_write(pager, f, page);
	}
	if (pager->swapfile)
		tmem_frontswap_flush(pager->frontswap, PAGER_FRONTSWAP_TYPE);
	atomic_fetch_sub(&pager->nr_storing, 1);
	tmem_lock_acquire(&pager->lock);
	free = settle_group_locked(pager, group);
	tmem_lock_release(&pager->lock);
	if (free)
		free_group(pager, group);
	return (int)done;
}
