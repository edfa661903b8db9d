/* SPDX-License-Identifier: MIT */
/*
 * Hints: which pages may have a certain content.
 *
 * A lossy table from the hash of a content to 28-bit *hints*, which name pages
 * (what they mean is the caller's: dedup.c).  A hint may be stale, or about
 * another content with a similar hash: whoever uses one checks.  So nothing
 * needs to be taken out when a page changes or goes, and where there is no
 * room the hint that has been there for longest gives way.
 *
 * PLACES.  31 bits of the hash, r, are used.  A table of n pages of 64 buckets
 * has r at home in bucket r * 64 n / 2^31; a hint is there or in the first of
 * the seven buckets after it (in the same page, in a circle) that has room.  A
 * bucket is a cache line of nine hints, each with how far from home it is and
 * the low 25 bits of r: with the place, that is all of r.
 *
 * SIZE.  n need not be a power of two, so the table is as full at one size as
 * at another, and has 7.5 to 8.5 bytes for each page in the store.  It is
 * resized in steps: page after page, from the end if it grows and from the
 * beginning if it shrinks, moves to where it belongs in the new size.  That is
 * never across what has not moved yet, since places follow r.
 *
 * LOCKS.  Sixteen stripes of pages; n and the like change with all of them
 * held.  Who takes one holds a lock that a fork waits for.
 *
 *   H1  A hint is within reach of the home that its r has, in the old size or
 *       the new one, whichever holds for that r.
 *   H2  The table's pages are those of the size, of both while it changes.
 */
#ifndef TMEM_CORE_HINTS_H
#define TMEM_CORE_HINTS_H

#include "arena/meta.h"

enum {
	TMEM_HINT_BITS = 28,
	TMEM_HINTS_FOUND = 2,
	TMEM_HINTS_BUCKET = 9,
	TMEM_HINTS_STRIPES = 16,
	TMEM_HINTS_INLINE = 16, /* pages before there is a directory */
	TMEM_HINTS_MAX_PAGES = TMEM_RUN_MAX_PAGES * 512,
	TMEM_HINTS_PER_PAGE = 482 /* pages of the store: 8.5 bytes each */
};

struct tmem_hints_bucket {
	/* Hint; 3 bits of distance; a bit of r. */
	uint32_t words[TMEM_HINTS_BUCKET];
	uint16_t low[TMEM_HINTS_BUCKET];
	uint8_t mid[TMEM_HINTS_BUCKET];
	uint8_t hand; /* how many; once all are: 9 + what gives way next */
};
_Static_assert(sizeof(struct tmem_hints_bucket) == 64, "a cache line");

struct tmem_hints_page {
	struct tmem_hints_bucket buckets[64];
};
_Static_assert(sizeof(struct tmem_hints_page) == 4096, "a page");

struct tmem_hints {
	struct {
		_Alignas(64) struct tmem_lock lock;
	} stripes[TMEM_HINTS_STRIPES];
	_Alignas(64) struct tmem_hints_page **pages;
	uint32_t dir_pages; /* of `pages`; 0: it is `first` */
	/* Read without a lock, too, but not relied on. */
	_Atomic uint32_t size;	   /* in pages; 0: nothing yet */
	_Atomic uint32_t new_size; /* the same, if it does not change */
	_Atomic uint32_t moved; /* from there, or up to there, it has changed */
	struct tmem_hints_page *first[TMEM_HINTS_INLINE];
};

void tmem_hints_init(struct tmem_hints *hints);

/*
 * Who may have a content with that hash; returns how many.  If nobody, from
 * now on `hint` may.
 */
unsigned tmem_hints_look(struct tmem_hints *hints, uint32_t r, uint32_t hint,
			 uint32_t found[TMEM_HINTS_FOUND]);

/*
 * Where tmem_hints_look() begins to look, for a prefetch only: it may be gone
 * any moment.  NULL: that can't be said without waiting.
 */
const void *tmem_hints_home(struct tmem_hints *hints, uint32_t r);

/* It turned out that one has not; now another may. */
void tmem_hints_correct(struct tmem_hints *hints, uint32_t r, uint32_t wrong,
			uint32_t hint);

/* False: it has no memory yet. */
bool tmem_hints_are_there(const struct tmem_hints *hints);

/* A step towards the size for so many pages; true: it is not there yet. */
bool tmem_hints_fit(struct tmem_hints *hints, struct tmem_meta *meta,
		    uint64_t nr_pages);

/* Walks H1 and H2; fn(arg, hint) for each. */
void tmem_hints_check(struct tmem_hints *hints,
		      void (*fn)(void *arg, uint32_t hint), void *arg);

#endif
