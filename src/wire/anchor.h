/* SPDX-License-Identifier: MIT */
/*
 * The anchor: some pages of the pager's at an address that never changes, by
 * which `tmem core` finds all the rest in a core dump (src/crash).
 *
 * It names the sources that the pager was built from: who reads the pager's
 * structures must have been built from the same.
 *
 * It is also the last that a dump has of the whole program, as struct
 * tmem_pager is the first of the pager's memory: dumps are written upwards, and
 * it is where a process's addresses end.  Both count the pages that were ever
 * moved out, and the stored copies that were ever dropped.  Where the counts
 * differ the pager was at work meanwhile, and `moved` says with which pages, if
 * they were not too many:
 *   - without drops what is stored at an offset is that page's, whenever it
 *     was read, as an offset without an owner has nothing stored;
 *   - but a copy that was kept may be the one before.
 */
#ifndef TMEM_WIRE_ANCHOR_H
#define TMEM_WIRE_ANCHOR_H

#include <stdatomic.h>
#include <stdint.h>

/*
 * Where the pager's memory goes, which is never paged: between what
 * programs, their libraries, and the usual runtimes and sanitizers use.
 */
#define TMEM_WINDOW_START 0x400000000000ul
#define TMEM_WINDOW_END	  0x480000000000ul

enum {
	TMEM_ANCHOR_BYTES = 16384,
	TMEM_ANCHOR_MAGIC_BYTES = 16,
	TMEM_ANCHOR_TEXT_BYTES = 32,
	TMEM_ANCHOR_MOVED = 1000
};

/*
 * Where it is; and where it is if that is taken, as by the stack of a program
 * whose addresses are not random: the end of the window, where it misses what
 * is moved while the rest is written.
 */
#define TMEM_ANCHOR_ADDR (0x7ffffffff000ul - TMEM_ANCHOR_BYTES)
#define TMEM_ANCHOR_LOW	 (TMEM_WINDOW_END - TMEM_ANCHOR_BYTES)

#define TMEM_ANCHOR_MAGIC "tmem anchor 1\r\n" /* with its NUL */

struct tmem_anchor_move {
	uint64_t vpn;
	uint32_t offset; /* of frontswap */
	uint32_t kept;	 /* an older copy may be there */
};

struct tmem_anchor {
	char magic[TMEM_ANCHOR_MAGIC_BYTES]; /* written last */
	char version[TMEM_ANCHOR_TEXT_BYTES];
	char source[TMEM_ANCHOR_TEXT_BYTES]; /* tmem_source_id */
	uint64_t pager;			     /* struct tmem_pager */
	_Atomic uint64_t nr_taken;
	_Atomic uint64_t nr_dropped;
	/* The n-th, counted from 0, is at n % MOVED. */
	struct tmem_anchor_move moved[TMEM_ANCHOR_MOVED];
};
_Static_assert(sizeof(TMEM_ANCHOR_MAGIC) == TMEM_ANCHOR_MAGIC_BYTES, "whole");
_Static_assert(sizeof(struct tmem_anchor) <= TMEM_ANCHOR_BYTES, "its place");

/* A digest of the sources of the pager and the store; tools/source-id. */
extern const char tmem_source_id[TMEM_ANCHOR_TEXT_BYTES]
	__attribute__((visibility("hidden")));

#endif
