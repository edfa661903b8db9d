/* SPDX-License-Identifier: MIT */
/* See hand.h. */
#include "hand.h"

#include <string.h>

#include "anchor.h"
#include "base/assert.h"
#include "late.h"
#include "move.h"
#include "offsets.h"

enum {
	/* How much of the table one call may look through. */
	SCAN_LEAVES = 16384,
	/* How many moves may fail in one call. */
	MOVE_FAILURES = 64,
	/* Rounds of the clock until odd pages are tried again. */
	FORGET_ROUNDS = 16
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
		f->kept = tmem_entry_state(entry) == PAGE_KEPT;
		f->offset = f->kept ? tmem_entry_value(entry)
				    : tmem_offset_take_locked(pager);
		tmem_anchor_moved_locked(pager, f);
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

/* Evicts from one word of a leaf; returns the bit where it stopped, or 64. */
static uint32_t evict_word(struct tmem_pager *pager, struct tmem_batch *b,
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
		i += tmem_hand_move_locked(
			pager, b, nr << LEAF_SHIFT | (word * 64 + i), len);
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

void tmem_hand_fill_locked(struct tmem_pager *pager, struct tmem_batch *b)
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
