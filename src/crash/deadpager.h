/* SPDX-License-Identifier: MIT */
/*
 * A pager in a core dump: what became of each page that was evicted.
 *
 * The anchor (wire/anchor.h) leads to it.  Its page table says which pages are
 * out and where; the content is in the store or in a frame of the dump itself,
 * else in the swap file, which no dump has.
 *
 * NEVER A WRONG BYTE.  A page is REBUILT only if all of this holds:
 *   - the dump has zeros in its place: else it was present, and may be newer
 *     than what is stored;
 *   - nothing says that it may have been present with zeros: answered in fork
 *     mode (table.h, T6), covered by an event that was put off, being
 *     installed just then, or served by another process's pager;
 *   - its offset is in use, no other page claims it, and what is there is no
 *     older than the page, whatever the pager did meanwhile (wire/anchor.h);
 *   - the slot's name and checksum are right.
 * In a living pager's memory, however it was caught, that is enough; in a
 * damaged one several bytes would have to be wrong in the right way.
 */
#ifndef TMEM_CRASH_DEADPAGER_H
#define TMEM_CRASH_DEADPAGER_H

#include "corefile.h"

#include <tmem/frontswap.h>

enum tmem_page_fate {
	TMEM_FATE_REBUILT = 0,
	TMEM_FATE_PRESENT,  /* the core has it, though it says evicted */
	TMEM_FATE_SWAPPED,  /* in the swap file */
	TMEM_FATE_DAMAGED,  /* its stored form is damaged or not there */
	TMEM_FATE_LOST,	    /* had been lost before the crash */
	TMEM_FATE_UNSURE,   /* maybe present, with zeros; or in motion */
	TMEM_FATE_LEFT_OUT, /* the core has no bytes for it */
	TMEM_FATE_NO_BYTES, /* not evicted, but gdb did not write it */
	TMEM_FATES
};

/* Why many pages are UNSURE, if they are. */
enum tmem_deadpager_doubt {
	TMEM_DOUBT_NONE = 0,
	TMEM_DOUBT_PROCESS, /* the pager is that of another process */
	TMEM_DOUBT_FORKED,  /* of a fork's child that was not whole yet */
	TMEM_DOUBT_AT_WORK  /* much was moved out meanwhile */
};

enum tmem_deadpager_why {
	TMEM_DEAD_NO_PAGER = 1,
	TMEM_DEAD_OTHER_BUILD,
	TMEM_DEAD_DAMAGED
};

struct tmem_fate {
	uint64_t addr;
	enum tmem_page_fate fate;
	/* Of a page that is rebuilt: where it goes, and what. */
	uint64_t file_offset;
	const void *content;
};

struct tmem_deadpager;

/* Of the dump, for people. */
struct tmem_deadpager_info {
	char version[32]; /* of tmem, as the dump says */
	char comm[16];
	int32_t pid; /* that it served */
	bool served; /* false: everything was in memory */
	enum tmem_deadpager_doubt doubt;
	uint64_t nr_damaged; /* parts of its table that can't be read */
};

/*
 * 0, enum tmem_deadpager_why, or -errno.  What is known is in *ret_info in any
 * case.  The core file stays the caller's, who keeps it open.
 */
int tmem_deadpager_open(const struct tmem_corefile *core,
			struct tmem_deadpager **ret,
			struct tmem_deadpager_info *ret_info);
void tmem_deadpager_close(struct tmem_deadpager *dp);

/*
 * Calls fn for each page that was evicted, by address.  Stops if fn does not
 * return 0, and returns what it did; else 0 or -ENOMEM.
 */
int tmem_deadpager_walk(struct tmem_deadpager *dp,
			int (*fn)(void *arg, const struct tmem_fate *fate),
			void *arg);
/* Again, after a walk: nr_damaged has grown. */
void tmem_deadpager_get_info(const struct tmem_deadpager *dp,
			     struct tmem_deadpager_info *ret_info);

#endif
