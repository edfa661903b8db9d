/* SPDX-License-Identifier: MIT */
/*
 * A growing table of records of one size, named by 32-bit numbers from 1.
 *
 * Top pages of pointers to directory pages, whose entries point to metadata
 * pages full of records.  Each comes when it is first needed, and the first
 * top page has a few words in its place before.  Nothing ever moves, so a
 * record is read by number without this table's lock, by whoever knows that it
 * exists.  A page whose records are all free is given back.
 *
 *   R1  An entry's `used` has a bit for each record in use; an entry without
 *       a page has none.
 *   R2  Entries with a page and a free record are on the `open` list; entries
 *       without a page that once had one on the `bare` list.
 *   R3  nr_used is the number of bits.
 */
#ifndef TMEM_ARENA_RECORDS_H
#define TMEM_ARENA_RECORDS_H

#include "meta.h"

enum {
	TMEM_RECORDS_PER_DIR = 128,
	TMEM_RECORDS_DIRS = 512, /* of a top page */
	TMEM_RECORDS_FEW = 4,
	TMEM_RECORDS_PER_TOP = TMEM_RECORDS_PER_DIR * TMEM_RECORDS_DIRS,
	/* 134 M records of 64 bytes; 14.7 M spans, for 940 M slots. */
	TMEM_RECORDS_TOPS = 32,
	TMEM_RECORDS_MAX_PAGES = TMEM_RECORDS_PER_TOP * TMEM_RECORDS_TOPS
};

struct tmem_records_entry {
	_Alignas(32) char *page;
	uint64_t used;
	uint32_t next; /* entry number + 1 on its list, 0: last */
	uint32_t prev;
};
_Static_assert(sizeof(struct tmem_records_entry) == 32, "128 to a page");

struct tmem_records {
	struct tmem_meta *meta;
	uint32_t record_bytes;
	uint32_t per_page; /* at most 64 */
	struct tmem_lock lock;
	uint32_t nr_entries; /* ever used */
	uint32_t open;	     /* entry number + 1 */
	uint32_t bare;
	uint64_t nr_used;
	/* NULL until first used; the first is `few` before it is a page. */
	struct tmem_records_entry **_Atomic tops[TMEM_RECORDS_TOPS];
	struct tmem_records_entry *few[TMEM_RECORDS_FEW];
};

void tmem_records_init(struct tmem_records *records, struct tmem_meta *meta,
		       uint32_t record_bytes);

/* The number of a zeroed record, or 0. */
uint32_t tmem_records_alloc(struct tmem_records *records);
/* Recovery: that number.  0, -EEXIST, -ERANGE or -ENOMEM. */
int tmem_records_alloc_at(struct tmem_records *records, uint32_t number);
/* Is it in use?  Nothing may change meanwhile. */
bool tmem_records_has(const struct tmem_records *records, uint32_t number);
void tmem_records_free(struct tmem_records *records, uint32_t number);

/* fn(arg, number, record) for each one in use; nothing may change. */
void tmem_records_for_each(struct tmem_records *records,
			   void (*fn)(void *arg, uint32_t number, void *record),
			   void *arg);
void tmem_records_check(struct tmem_records *records);

/* How many records of this size a page has; a constant for the compiler. */
#define TMEM_RECORDS_PER_PAGE(record_bytes) \
	(4096 / (record_bytes) > 64 ? 64 : 4096 / (record_bytes))

static inline struct tmem_records_entry *
tmem_records_entry(const struct tmem_records *records, uint32_t entry)
{
	uint32_t dir = entry / TMEM_RECORDS_PER_DIR;
	struct tmem_records_entry **top = atomic_load_explicit(
		&records->tops[dir / TMEM_RECORDS_DIRS], memory_order_acquire);

	return &top[dir % TMEM_RECORDS_DIRS][entry % TMEM_RECORDS_PER_DIR];
}

/* record_bytes as at init: here so that the division is by a constant. */
static inline void *tmem_records_get(const struct tmem_records *records,
				     uint32_t number, uint32_t record_bytes)
{
	uint32_t per_page = TMEM_RECORDS_PER_PAGE(record_bytes);
	uint32_t i = number - 1;

	return tmem_records_entry(records, i / per_page)->page +
	       (size_t)(i % per_page) * record_bytes;
}

#endif
