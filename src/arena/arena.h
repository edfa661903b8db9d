/* SPDX-License-Identifier: MIT */
/*
 * The arena: where stored bytes live.
 *
 * CLASSES.  Class c has slots of 64 * c bytes, c = 1 .. 65 (a raw page with
 * its header).  A *span* is up to 64 slots of one class in c pages: slots
 * cross page boundaries, nothing is lost at a page's end, and one word is a
 * bitmap of slots, another one of pages.
 *
 * HANDLES.  A slot is named by a 32-bit handle: span number << 6 | slot.  The
 * top bit is never set.  0 names nothing.
 *
 * METADATA.  Everything that changes when a slot is freed lies outside the
 * data pages, in the span's record: so freeing touches no data page, and the
 * pages of a *frozen* span can stay shared with another process after a fork.
 *
 * PAGES.  A page is *touched* once a slot on it was handed out: then it is
 * accounted.  A touched page whose slots are all free is *idle*; idle pages
 * go back to the kernel in batches, class after class, when all classes
 * together have more than 64 and 1/64 of the touched ones, or when the limit
 * is reached.  A free slot whose pages are all touched is *ready*: it is used
 * before any that would need new memory.
 *
 * FROZEN.  tmem_arena_freeze() freezes the spans that exist: no slot of them
 * is handed out, until thaw.  Their idle pages still go back.
 *
 * SHARING.  A clone's slot refers to another slot's data.  The counts lie in
 * a record of their own, which only spans with shared slots have.  A slot
 * whose owner released it while others refer to it is an *orphan*.
 *
 * QUEUES.  What is needed to choose which pages go first (links, and two bits
 * for how often a page was found) is in a record of its own, too, which only
 * spans with such slots have.
 *
 * COMPACTION.  A sparse span is taken off its lists (*leaving*), its slots are
 * moved by who knows what refers to them (core/compact.c), and it goes, or is
 * listed again with what could not be moved.  Slots move only into ready ones,
 * so that it never needs memory.  A shared slot that has moved stays until its
 * references have followed, and until then its span is leaving (sharing.c).
 *
 * RESTARTABLE.  With an image (image.h) slots outlive the process: a slot that
 * is freed is cleared, an orphan is marked as such, none is rewritten in place,
 * and what is rebuilt from (arena_recover.c) lies in the image's runs.
 *
 *   S1  ready == {i in free: all pages of i touched}.
 *   S2  idle == {p touched: all slots on p free}.
 *   S3  A span is on its class's ready list if ready != 0, else on the open
 *       list if free != 0, else on none; frozen ones have lists of their own,
 *       a leaving one is on none.  A class's nr_ready and nr_used count
 *       ready slots of listed spans, and slots in use of all.
 *   S4  A span is on its class's idle list if and only if idle != 0; nr_idle
 *       of class and arena count the pages.
 *   S5  nr_touched is the number of touched pages of all spans; the data
 *       pages in use are those of the spans, plus chunk headers.
 *   S6  A span without touched pages does not exist (but within an alloc, or
 *       while it is leaving).
 *   S7  A share record has a count; orphans are slots in use with one.
 *   S8  What a slot has moved to is in use, shared, and of the same class; the
 *       slot itself is free or an orphan.
 */
#ifndef TMEM_ARENA_ARENA_H
#define TMEM_ARENA_ARENA_H

#include "records.h"
#include "slot.h"

enum {
	TMEM_CLASSES = 66,
	TMEM_SPAN_SLOTS = 64,
	TMEM_SLOT_MAX_BYTES = TMEM_SLOT_GRAIN * (TMEM_CLASSES - 1),
	TMEM_IDLE_PAGES = 64,
	TMEM_IDLE_FRACTION = 64, /* and that part of the touched ones */
	TMEM_CLASSES_UP = 8, /* classes tried above the right one when full */
	/* Compaction: where more than that part of a class is ready slots. */
	TMEM_SPARSE_PART = 12,
	TMEM_SPARSE_LEAST = 16, /* ready slots */
	TMEM_SPARSE_TRIES = 16, /* spans looked at to choose one */
	TMEM_LEAVING_MAX = 32	/* spans at a time */
};

/* A list of slots through their spans' records: the pages of an object. */
struct tmem_link {
	uint32_t next;
	uint32_t prev;
};

enum tmem_span_list {
	TMEM_SPAN_NONE = 0,
	TMEM_SPAN_READY,
	TMEM_SPAN_OPEN,
	TMEM_SPAN_LEAVING
};

struct tmem_span {
	uint64_t free;
	uint64_t ready;
	uint64_t touched; /* pages */
	uint64_t idle;	  /* pages */
	char *base;
	union {
		struct {
			uint32_t next; /* ready or open list; circular */
			uint32_t prev;
		};
		uint64_t moved; /* of a leaving one: slots whose links say
				   where they went */
	};
	uint32_t idle_next; /* 0: last */
	uint32_t idle_prev;
	uint32_t epoch;
	_Atomic uint32_t shares; /* record number, 0: none */
	_Atomic uint32_t ages;	 /* the same */
	uint16_t class;
	uint16_t list; /* enum tmem_span_list */
	struct tmem_link links[TMEM_SPAN_SLOTS];
};
_Static_assert(TMEM_RECORDS_PER_PAGE(sizeof(struct tmem_span)) == 7,
	       "9.2 bytes a slot");
_Static_assert(TMEM_RECORDS_MAX_PAGES * 7u * TMEM_SPAN_SLOTS < 1u << 31,
	       "all spans' handles leave the top bit clear");

struct tmem_shares {
	uint64_t orphans;
	uint32_t nr[TMEM_SPAN_SLOTS];
	uint32_t nr_shared; /* slots with a count */
};

/* The bits belong to slots of several shards. */
struct tmem_ages {
	struct tmem_link links[TMEM_SPAN_SLOTS];
	_Atomic uint64_t main;	/* on the main queue, not the small one */
	_Atomic uint64_t seen;	/* found since it was queued or passed */
	_Atomic uint64_t again; /* and once more */
};

struct tmem_class {
	_Alignas(64) struct tmem_lock lock;
	uint32_t nr_idle;     /* pages */
	uint32_t idle;	      /* list of spans */
	uint32_t lists[2][3]; /* [frozen][enum tmem_span_list] */
	uint64_t nr_ready;    /* slots */
	uint64_t nr_used;     /* slots */
};

struct tmem_arena {
	struct tmem_account *account;
	struct tmem_meta *meta;
	struct tmem_pages pages;
	struct tmem_records spans;
	struct tmem_records shares;
	struct tmem_records ages;
	_Atomic uint64_t nr_touched; /* pages */
	_Atomic uint64_t nr_idle;    /* pages */
	_Atomic uint32_t hand;	     /* the class to be trimmed next */
	bool recovering;	     /* free slots may hold something yet */
	uint32_t epoch;
	uint32_t frozen_before; /* spans of an earlier epoch are frozen */
	/* TMEM_SPARSE_PART, _LEAST; who compacts, and tests. */
	uint32_t sparse_part;
	uint32_t sparse_least;
	struct tmem_class classes[TMEM_CLASSES];
};

void tmem_arena_init(struct tmem_arena *arena, struct tmem_meta *meta,
		     struct tmem_account *account);
void tmem_arena_fini(struct tmem_arena *arena);

/*
 * A handle for `length` bytes of data (at most a page), or 0.  It takes new
 * memory only if `spare_bytes` of the limit are left afterwards (or so: it is
 * no promise, with other threads at work).
 */
uint32_t tmem_arena_alloc(struct tmem_arena *arena, unsigned length,
			  uint64_t spare_bytes);
/*
 * The owner's: frees the slot, or orphans it if it is shared.  True if it is
 * free now.
 */
bool tmem_arena_release(struct tmem_arena *arena, uint32_t handle);
/*
 * The same for a slot whose data were moved: never gives memory back to the
 * kernel, which takes long; tmem_arena_settle() does.
 */
void tmem_arena_release_moved(struct tmem_arena *arena, uint32_t handle);

/*
 * Recovery, by one thread: 0, -ENOMEM or -ENOSPC.
 *
 * adopt: spans as the image has them; every slot counts as free.  scan: calls
 * fn for each slot that is not in use and says that it holds something.
 * is_sound: it can be read, is whole, and of no generation that none has.
 * keep: it is in use from now on.
 * finish: what was not kept holds nothing, and its memory goes back.
 */
int tmem_arena_adopt(struct tmem_arena *arena);
void tmem_arena_scan(struct tmem_arena *arena,
		     void (*fn)(void *arg, uint32_t handle,
				struct tmem_slot *slot),
		     void *arg);
bool tmem_arena_is_sound(const struct tmem_arena *arena, uint32_t handle);
int tmem_arena_keep(struct tmem_arena *arena, uint32_t handle);
bool tmem_arena_is_kept(const struct tmem_arena *arena, uint32_t handle);
/* Is there such a slot at all?  Does somebody refer to it? */
bool tmem_arena_has(const struct tmem_arena *arena, uint32_t handle);
bool tmem_arena_is_shared(const struct tmem_arena *arena, uint32_t handle);
void tmem_arena_finish(struct tmem_arena *arena);
/* Its parts in arena.c. */
void tmem_arena_adopt_span(struct tmem_arena *arena, uint32_t nr, unsigned c,
			   char *base);
void tmem_arena_drop_span(struct tmem_arena *arena, uint32_t nr);

/*
 * One more reference: to that slot, or to the one that it moved to.  Which;
 * 0 if there is no memory for the count.
 */
uint32_t tmem_arena_share(struct tmem_arena *arena, uint32_t handle);
/* True if that freed the slot: it was an orphan. */
bool tmem_arena_unshare(struct tmem_arena *arena, uint32_t handle);
/* The same, but never gives memory back to the kernel: see release_moved. */
bool tmem_arena_unshare_moved(struct tmem_arena *arena, uint32_t handle);

/* Gives the slot's span its record of ages; false: no memory. */
bool tmem_arena_age(struct tmem_arena *arena, uint32_t handle);

/* True if new data of that length may overwrite the slot. */
bool tmem_arena_may_rewrite(const struct tmem_arena *arena, uint32_t handle,
			    unsigned length);

/*
 * For compaction.  leave: the number of a span of that class that is worth it,
 * now leaving, or 0; `shared_too`: one with shared slots, if need be.  find: a
 * ready slot of the same class as a leaving span's slot, or 0.  is_movable: it
 * is in use and nobody refers to it.  settle: the spans go, or are listed
 * again, and all their memory goes back to the kernel together; but of those
 * with slots that have moved (below) only what is idle, and they go on
 * leaving: these come first in `spans` then, and their number is returned.
 * excess_bytes: slots that compaction would be worth for.
 */
uint32_t tmem_arena_leave(struct tmem_arena *arena, unsigned c,
			  bool shared_too);
uint32_t tmem_arena_find(struct tmem_arena *arena, uint32_t handle);
bool tmem_arena_is_movable(struct tmem_arena *arena, uint32_t handle);
unsigned tmem_arena_settle(struct tmem_arena *arena, uint32_t *spans,
			   unsigned nr);
uint64_t tmem_arena_excess_bytes(struct tmem_arena *arena);

/*
 * Of shared slots (sharing.c).  hold: one more reference to one that others
 * refer to; false if nobody does.  set_moved: a leaving span's slot, now an
 * orphan, has an equal one elsewhere, with a count for this.  has_moved: is
 * that so?  forget_moved: that other one, no longer noted, or 0; `ret_freed`:
 * the slot itself is free by now.
 */
bool tmem_arena_hold(struct tmem_arena *arena, uint32_t handle);
bool tmem_arena_is_orphan(struct tmem_arena *arena, uint32_t handle);
void tmem_arena_set_moved(struct tmem_arena *arena, uint32_t from, uint32_t to);
bool tmem_arena_has_moved(struct tmem_arena *arena, uint32_t handle);
uint32_t tmem_arena_forget_moved(struct tmem_arena *arena, uint32_t handle,
				 bool *ret_freed);

/* Gives all idle pages back to the kernel. */
void tmem_arena_trim(struct tmem_arena *arena);

/* Nothing else may be going on. */
void tmem_arena_freeze(struct tmem_arena *arena);
void tmem_arena_thaw(struct tmem_arena *arena);

/* Walks S1-S7; nothing else may be going on.  Counts slots in use. */
void tmem_arena_check(struct tmem_arena *arena, uint64_t *ret_slots,
		      uint64_t *ret_orphans, uint64_t *ret_shares);

/* Bytes of a slot for that much data, header and rounding included. */
static inline unsigned tmem_arena_slot_bytes(unsigned length)
{
	unsigned bytes = (unsigned)sizeof(struct tmem_slot) + length;

	return (bytes + TMEM_SLOT_GRAIN - 1) / TMEM_SLOT_GRAIN *
	       TMEM_SLOT_GRAIN;
}

static inline struct tmem_span *tmem_arena_span(const struct tmem_arena *arena,
						uint32_t handle)
{
	return tmem_records_get(&arena->spans, handle / TMEM_SPAN_SLOTS,
				sizeof(struct tmem_span));
}

static inline struct tmem_slot *tmem_arena_slot(const struct tmem_arena *arena,
						uint32_t handle)
{
	const struct tmem_span *span = tmem_arena_span(arena, handle);

	return (struct tmem_slot *)(span->base +
				    (size_t)(handle % TMEM_SPAN_SLOTS) *
					    span->class * TMEM_SLOT_GRAIN);
}

/* Bytes that the slot takes, rounding included. */
static inline unsigned tmem_arena_size_of(const struct tmem_arena *arena,
					  uint32_t handle)
{
	return tmem_arena_span(arena, handle)->class *
	       (unsigned)TMEM_SLOT_GRAIN;
}

/* Do its slots outlive the process? */
static inline bool tmem_arena_lasts(const struct tmem_arena *arena)
{
	return arena->pages.image != NULL;
}

static inline bool tmem_arena_is_whole(const struct tmem_arena *arena,
				       uint32_t handle)
{
	return tmem_slot_is_whole(tmem_arena_slot(arena, handle),
				  tmem_arena_size_of(arena, handle));
}

/* Guarded by whatever guards the list that the slot is on. */
static inline struct tmem_link *tmem_arena_link(const struct tmem_arena *arena,
						uint32_t handle)
{
	return &tmem_arena_span(arena, handle)->links[handle % TMEM_SPAN_SLOTS];
}

/* A circular list of slots: a new head; one in the place of another. */
static inline void tmem_arena_list_add(const struct tmem_arena *arena,
				       uint32_t *head, uint32_t handle)
{
	struct tmem_link *link = tmem_arena_link(arena, handle), *first;

	if (!*head) {
		link->next = link->prev = handle;
	} else {
		first = tmem_arena_link(arena, *head);
		link->next = *head;
		link->prev = first->prev;
		tmem_arena_link(arena, first->prev)->next = handle;
		first->prev = handle;
	}
	*head = handle;
}

static inline void tmem_arena_list_replace(const struct tmem_arena *arena,
					   uint32_t *head, uint32_t from,
					   uint32_t to)
{
	struct tmem_link *link = tmem_arena_link(arena, to);

	*link = *tmem_arena_link(arena, from);
	if (link->next == from) {
		link->next = link->prev = to;
	} else {
		tmem_arena_link(arena, link->next)->prev = to;
		tmem_arena_link(arena, link->prev)->next = to;
	}
	if (*head == from)
		*head = to;
}

static inline struct tmem_ages *tmem_arena_ages(const struct tmem_arena *arena,
						uint32_t handle)
{
	uint32_t nr = atomic_load_explicit(
		&tmem_arena_span(arena, handle)->ages, memory_order_relaxed);

	return tmem_records_get(&arena->ages, nr, sizeof(struct tmem_ages));
}

#endif
