/* SPDX-License-Identifier: MIT */
/*
 * Runs of pages in chunks of address space.
 *
 * A *chunk* is 1 MiB of address space, aligned to 1 MiB, mapped when needed
 * and unmapped when its last run is freed (one empty chunk is kept).  Its
 * first page is its header: which pages are in use, and the longest free run.
 * Chunks hang in bins by the length of that run, so that finding room is
 * O(1); a run that fits only into a chunk of the bin below is not looked for:
 * that costs address space, not memory.
 *
 * Memory becomes resident when a page is first touched, so pages are not
 * accounted here (but for the header): whoever gets a run accounts for it,
 * and discards and un-accounts it before it is freed.
 *
 *   P1  A chunk's bitmap has the header's bit; `longest` is the longest run of
 *       clear bits and `bin` its bin.
 *   P2  Free pages are not resident and read as zeroes.
 *   P3  At most one chunk is empty.
 */
#ifndef TMEM_ARENA_PAGES_H
#define TMEM_ARENA_PAGES_H

#include <stddef.h>
#include <stdint.h>

#include "account.h"
#include "base/lock.h"

enum {
	TMEM_CHUNK_PAGES = 256,
	TMEM_CHUNK_BYTES = TMEM_CHUNK_PAGES * 4096,
	TMEM_CHUNK_WORDS = TMEM_CHUNK_PAGES / 64,
	TMEM_CHUNK_BINS = 10, /* 0: full; b: longest in [2^(b-1), 2^b) */
	TMEM_RUN_MAX_PAGES = 128
};

struct tmem_chunk {
	uint64_t magic;
	uint64_t used[TMEM_CHUNK_WORDS];
	struct tmem_chunk *next; /* in its bin */
	struct tmem_chunk *prev;
	uint32_t nr_free;
	uint16_t longest;
	uint16_t bin;
};

struct tmem_pages {
	struct tmem_account *account;
	struct tmem_lock lock;
	uint32_t nr_chunks;
	uint32_t nr_empty;
	struct tmem_chunk *bins[TMEM_CHUNK_BINS];
	_Atomic uint64_t map_failures; /* mappings the kernel refused */
};

void tmem_pages_init(struct tmem_pages *pages, struct tmem_account *account);
/* Unmaps everything, whatever is in use. */
void tmem_pages_fini(struct tmem_pages *pages);

/* nr_pages of zeroes, neither resident nor accounted, or NULL. */
void *tmem_pages_alloc(struct tmem_pages *pages, unsigned nr_pages);
/* Already discarded by the caller. */
void tmem_pages_free(struct tmem_pages *pages, void *start, unsigned nr_pages);

/* fn(arg, start, bytes) for each chunk. */
void tmem_pages_for_each(struct tmem_pages *pages,
			 void (*fn)(void *arg, void *start, size_t bytes),
			 void *arg);
/* The same for a fork's read-only mode: takes no lock. */
void tmem_pages_for_each_quiet(const struct tmem_pages *pages,
			       void (*fn)(void *arg, void *start, size_t bytes),
			       void *arg);

/* Walks P1-P3; returns pages in use, headers included. */
uint64_t tmem_pages_check(struct tmem_pages *pages);

#endif
