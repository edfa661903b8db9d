/* SPDX-License-Identifier: MIT */
/*
 * Runs of pages in chunks of address space.
 *
 * A *chunk* is 4 MiB of address space, aligned to 4 MiB, mapped when needed
 * and unmapped when its last run is freed (one empty chunk is kept).  Its
 * first pages are its header: one says which pages are in use, and the longest
 * free run; two are touched in an image only.
 * Chunks hang in bins by the length of that run, so that finding room is
 * O(1); a run that fits only into a chunk of the bin below is not looked for:
 * that costs address space, not memory.
 *
 * Memory becomes resident when a page is first touched, so pages are not
 * accounted here (but for the header): whoever gets a run accounts for it,
 * and discards and un-accounts it before it is freed.
 *
 *   P1  A chunk's bitmap has the header's bits; `longest` is the longest run of
 *       clear bits and `bin` its bin.
 *   P2  Free pages are not resident and read as zeroes.
 *   P3  At most one chunk is empty.
 */
#ifndef TMEM_ARENA_PAGES_H
#define TMEM_ARENA_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "account.h"
#include "base/lock.h"

enum {
	TMEM_CHUNK_PAGES = 1024,
	TMEM_CHUNK_BYTES = TMEM_CHUNK_PAGES * 4096,
	TMEM_CHUNK_WORDS = TMEM_CHUNK_PAGES / 64,
	TMEM_CHUNK_BINS = 12, /* 0: full; b: longest in [2^(b-1), 2^b) */
	TMEM_CHUNK_HEAD_PAGES = 3,
	TMEM_CHUNK_RUNS_AT = 4096, /* bytes, in an image's: see image.h */
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
	uint64_t data[TMEM_CHUNK_WORDS]; /* while recovering: no holes */
};
_Static_assert(sizeof(struct tmem_chunk) <= TMEM_CHUNK_RUNS_AT, "a page");
_Static_assert(TMEM_CHUNK_RUNS_AT + TMEM_CHUNK_PAGES * 8 <=
		       TMEM_CHUNK_HEAD_PAGES * 4096,
	       "a word for each page");

struct tmem_pages {
	struct tmem_account *account;
	struct tmem_image *image; /* NULL: private memory */
	struct tmem_lock lock;
	uint32_t nr_chunks;
	uint32_t nr_empty;
	struct tmem_chunk *bins[TMEM_CHUNK_BINS];
	_Atomic uint64_t map_failures; /* mappings the kernel refused */
};

/* What a chunk's header takes. */
static inline uint64_t tmem_pages_head_bytes(const struct tmem_pages *pages)
{
	return pages->image ? TMEM_CHUNK_HEAD_PAGES * 4096ul : 4096;
}

void tmem_pages_init(struct tmem_pages *pages, struct tmem_account *account);
/* Unmaps everything, whatever is in use. */
void tmem_pages_fini(struct tmem_pages *pages);

/* nr_pages of zeroes, neither resident nor accounted, or NULL. */
void *tmem_pages_alloc(struct tmem_pages *pages, unsigned nr_pages);
/* Before pages of a run are touched; false: no room for them. */
bool tmem_pages_populate(struct tmem_pages *pages, void *start,
			 unsigned nr_pages);
/* At most TMEM_MAP_RANGES ranges of pages. */
void tmem_pages_discard(struct tmem_pages *pages, const struct iovec *ranges,
			unsigned nr);
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

/*
 * Recovery, one thread: a chunk of the image as it is found, without runs;
 * NULL: no memory under the limit.  claim: a run of it, if nobody has it.
 */
struct tmem_chunk *tmem_pages_adopt(struct tmem_pages *pages, void *start);
bool tmem_pages_claim(struct tmem_pages *pages, void *start, unsigned nr_pages);
/* The chunk goes if no run of it was claimed. */
void tmem_pages_abandon(struct tmem_pages *pages, struct tmem_chunk *chunk);
/* True if all these bytes were in the image. */
bool tmem_pages_have_data(void *start, size_t bytes);
/*
 * The pages of a run whose bits are in `kept` stay; then finish: all others
 * that had data are given back.
 */
void tmem_pages_keep_data(void *start, uint64_t kept);
void tmem_pages_finish(struct tmem_pages *pages);

/* Walks P1-P3; returns pages in use, with what headers take. */
uint64_t tmem_pages_check(struct tmem_pages *pages);

#endif
