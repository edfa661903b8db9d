/* SPDX-License-Identifier: MIT */
/* See hand.h. */
#include "hand.h"

#include <string.h>

#include "anchor.h"
#include "base/assert.h"
#include "base/chaos.h"
#include "heat.h"
#include "install.h"
#include "late.h"
#include "move.h"
#include "offsets.h"

enum {
	/* How many leaves one call may look at, as a whole and of each. */
	LOOK_MOST = 16384,
	LOOK_EACH = 64,
	/* How many moves may fail in one call. */
	MOVE_FAILURES = 64,
	/* Visits to a leaf until its odd pages are tried again. */
	FORGET_VISITS = 16,
	/* Poor pages are taken in one of so many. */
	POOR_VISITS = 16,
	/* The same if it was a mistake. */
	MISSED_VISITS = 64,
	/* Leaves to choose from before all are looked at. */
	PICKS = 16
};

_Static_assert(LEAF_WORDS == 1, "a visit is to one word");

/* Poor pages whose turn it is not at this visit: hand.h. */
static uint64_t not_yet(const struct tmem_leaf *leaf)
{
	uint64_t poor_turn = 0x0001000100010001ull
			     << leaf->visits % POOR_VISITS;
	uint64_t missed_turn = 1ull << leaf->visits % MISSED_VISITS;

	return (leaf->poor[0] & ~poor_turn) | (leaf->missed[0] & ~missed_turn);
}

/* What can be moved into the frames that the leaf's pass is for. */
static uint64_t movable(const struct tmem_leaf *leaf)
{
	uint64_t all = leaf->resident[0] & ~leaf->pinned[0] & ~leaf->busy[0];

	if (leaf->way == LEAF_WAY_RWX)
		return all & leaf->odd[0] & ~leaf->never[0];
	return all & ~leaf->odd[0];
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

static void forget_odd(struct tmem_leaf *leaf)
{
	if (leaf->visits % FORGET_VISITS)
		return;
	memset(leaf->odd, 0, sizeof(leaf->odd));
	memset(leaf->never, 0, sizeof(leaf->never));
}

/*
 * The pass over a leaf is over: another for the pages that need executable
 * frames, or on to the next leaf.  Protections change unseen, so now and then
 * all is forgotten.
 */
static bool another_pass(struct tmem_leaf *leaf)
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
	forget_odd(leaf);
	return false;
}

/* Notes the pages that were moved into the group's next frames. */
static void note_moved(struct tmem_pager *pager, struct tmem_batch *b,
		       uint32_t handle, unsigned nr) TMEM_REQUIRES(&pager->lock)
{
	while (nr-- > 0) {
		unsigned i = b->group->nr_used++;
		struct tmem_frame *f = &b->group->frame[i];
		uint32_t entry = tmem_table_entry(&pager->table, handle);

		memset(f, 0, sizeof(*f));
		f->handle = handle;
		f->used = true;
		f->unsent = true;
		f->poor = tmem_table_is_poor(&pager->table, handle);
		f->kept = tmem_entry_state(entry) == PAGE_KEPT;
		f->offset = f->kept ? tmem_entry_value(entry)
				    : tmem_offset_take_locked(pager);
		tmem_anchor_moved_locked(pager, f);
		tmem_heat_left_locked(pager, handle);
		tmem_table_set(&pager->table, handle, PAGE_LEAVING,
			       b->group->first + i);
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

static void note_failure(struct tmem_batch *b)
{
	if (++b->failures >= MOVE_FAILURES)
		b->stop = true;
}

unsigned tmem_hand_move_locked(struct tmem_pager *pager, struct tmem_batch *b,
			       uint32_t handle, unsigned nr)
{
	struct tmem_leaf *leaf =
		tmem_table_leaf(&pager->table, handle >> LEAF_SHIFT);
	uint64_t from = tmem_table_vpn(&pager->table, handle) * TMEM_PAGE_SIZE;
	uint8_t *to =
		b->group->pages + (size_t)b->group->nr_used * TMEM_PAGE_SIZE;
	unsigned moved = 0;
	enum tmem_move_end end =
		tmem_move_out(pager->uffd, from, (uintptr_t)to, nr, &moved);

	if (moved)
		tmem_late_quiet_locked(pager);
	if (end == MOVE_GONE && tmem_install_is_refused(pager->uffd))
		end = MOVE_AGAIN; /* moved away, perhaps */
	note_moved(pager, b, handle, moved);
	switch (end) {
	case MOVE_ALL:
		return nr;
	case MOVE_BUSY:
		PAGER_COUNT(pager, evict_busy, 1);
		note_failure(b);
		tmem_table_set_busy(&pager->table, handle + moved);
		atomic_store(&pager->some_busy, 1);
		return moved + 1;
	case MOVE_GONE:
		note_absent(pager, handle + moved);
		return moved + 1;
	case MOVE_WAY:
		note_failure(b);
		/* Two mappings meet in the run, or it is this page. */
		if (nr - moved > 1)
			return moved + tmem_hand_move_locked(pager, b,
							     handle + moved, 1);
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

/* Takes what is left of the visit, run by run, as far as the group has room. */
static void take_left(struct tmem_pager *pager, struct tmem_batch *b)
	TMEM_REQUIRES(&pager->lock)
{
	uint32_t nr = pager->hand_leaf;

	while (!b->stop && b->group->nr_used < b->want) {
		struct tmem_leaf *leaf = tmem_table_leaf(&pager->table, nr);
		unsigned room = b->want - b->group->nr_used, len, i;
		uint64_t bits, holes;

		if (!leaf_suits(leaf, b->group->executable))
			return; /* the last page went */
		bits = pager->hand_left & movable(leaf);
		if (!bits)
			return;
		i = (uint32_t)__builtin_ctzll(bits);
		holes = ~(bits >> i);
		len = holes ? (unsigned)__builtin_ctzll(holes) : 64;
		len = len < room ? len : room;
		i += tmem_hand_move_locked(pager, b, nr << LEAF_SHIFT | i, len);
		pager->hand_left = i < 64 ? bits & ~0ull << i : 0;
	}
}

static uint32_t random_below(struct tmem_pager *pager, uint32_t n)
{
	pager->hand_seed = pager->hand_seed * 6364136223846793005ull +
			   1442695040888963407ull;
	return (uint32_t)((pager->hand_seed >> 32) * n >> 32);
}

/* Is there a page that may go, now or later, into frames of some kind? */
static bool has_some(const struct tmem_leaf *leaf)
{
	return leaf->base != UINT64_MAX && leaf->nr_resident &&
	       (leaf->resident[0] & ~leaf->pinned[0] & ~leaf->busy[0] &
		~leaf->never[0]);
}

/* The same of one that is being chosen; it counts as a visit if there is none.
 */
static bool may_visit(struct tmem_leaf *leaf)
{
	if (has_some(leaf))
		return true;
	leaf->visits++;
	forget_odd(leaf);
	return false;
}

/* A leaf to visit next, or TABLE_NO_LEAF. */
static uint32_t pick_leaf(struct tmem_pager *pager, unsigned *looked)
{
	const struct tmem_table *table = &pager->table;
	uint32_t nr = 0, i;

	if (!table->nr_leaves)
		return TABLE_NO_LEAF;
	for (i = 0; i < PICKS; i++) {
		struct tmem_leaf *leaf;

		nr = random_below(pager, table->nr_leaves);
		leaf = tmem_table_leaf(table, nr);
		if (may_visit(leaf) && !tmem_heat_is_fresh(pager, leaf))
			return nr;
	}
	for (i = 0; i < table->nr_leaves; i++) {
		nr = nr + 1 < table->nr_leaves ? nr + 1 : 0;
		++*looked;
		if (may_visit(tmem_table_leaf(table, nr)))
			return nr;
	}
	return TABLE_NO_LEAF;
}

static void visit(struct tmem_pager *pager, uint32_t nr)
{
	struct tmem_leaf *leaf = tmem_table_leaf(&pager->table, nr);

	leaf->visits++;
	pager->hand_leaf = nr;
	pager->hand_may = tmem_heat_visit(leaf) & ~not_yet(leaf);
	pager->hand_left = pager->hand_may;
}

/* Puts the hand where there may be something; false: nowhere. */
static bool go_on(struct tmem_pager *pager, unsigned *looked)
{
	const struct tmem_table *table = &pager->table;
	uint32_t nr = pager->hand_leaf;
	struct tmem_leaf *leaf =
		nr < table->nr_leaves ? tmem_table_leaf(table, nr) : NULL;

	if (leaf && has_some(leaf)) {
		if (pager->hand_left & movable(leaf))
			return true;
		if (another_pass(leaf)) {
			pager->hand_left = pager->hand_may;
			return true;
		}
	}
	nr = pick_leaf(pager, looked);
	if (nr == TABLE_NO_LEAF)
		return false;
	visit(pager, nr);
	return true;
}

/* In tests: the pages that one wants to leave go first (base/chaos.h). */
static void take_wanted_locked(struct tmem_pager *pager, struct tmem_batch *b)
	TMEM_REQUIRES(&pager->lock)
{
	uint64_t vpn = 0;

	while (tmem_chaos_wants(&vpn) && !b->stop &&
	       (!b->group || b->group->nr_used < b->want)) {
		uint32_t handle = tmem_table_find(&pager->table, vpn++);

		if (handle == TABLE_NO_HANDLE ||
		    !(tmem_table_leaf(&pager->table, handle >> LEAF_SHIFT)
				      ->resident[0] >>
			      handle % LEAF_PAGES &
		      1))
			continue;
		if (!b->group)
			b->group = tmem_frames_take_locked(pager, false);
		if (!b->group)
			return;
		tmem_hand_move_locked(pager, b, handle, 1);
	}
}

void tmem_hand_fill_locked(struct tmem_pager *pager, struct tmem_batch *b)
{
	unsigned looked = 0, most = LOOK_EACH * pager->table.nr_leaves;

	take_wanted_locked(pager, b);
	if (most > LOOK_MOST)
		most = LOOK_MOST;
	while (!b->stop && (!b->group || b->group->nr_used < b->want) &&
	       looked++ < most && go_on(pager, &looked)) {
		const struct tmem_leaf *leaf =
			tmem_table_leaf(&pager->table, pager->hand_leaf);

		if (!b->group)
			b->group = tmem_frames_take_locked(
				pager, leaf->way == LEAF_WAY_RWX);
		if (!b->group) { /* of this kind; the hand goes on elsewhere */
			pager->hand_left = 0;
			return;
		}
		if (!leaf_suits(leaf, b->group->executable))
			return;
		take_left(pager, b);
	}
}
