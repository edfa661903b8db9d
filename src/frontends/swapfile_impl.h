/* SPDX-License-Identifier: MIT */
/*
 * What swapfile.c and swapfile_write.c share: swapfile.c says how it works.
 */
#ifndef TMEM_FRONTENDS_SWAPFILE_IMPL_H
#define TMEM_FRONTENDS_SWAPFILE_IMPL_H

#include <string.h>
#include <xxhash.h>

#include "base/lock.h"
#include "base/ring.h"
#include "base/seal.h"
#include "frontends/swapmap.h"
#include "tmem/swapfile.h"

#define TMEM_SWAPFILE_IN_FLIGHT 0x80000000u

/* Life of an entry: swapfile.c. */
enum tmem_swapfile_state {
	TMEM_ENTRY_FREE = 0,
	TMEM_ENTRY_QUEUED,
	TMEM_ENTRY_WRITING,
	TMEM_ENTRY_DONE
};

struct tmem_swapfile_entry {
	struct tmem_swapdev_request *request;
	uint64_t offset;
	uint32_t slot;
	int result;
	_Atomic uint32_t readers;
	_Atomic uint8_t state;
	bool discarded;
};

/* What this process knows of a page at rest, by slot. */
struct tmem_swapfile_slot {
	uint64_t sum;	 /* of the page */
	uint64_t number; /* makes the nonce */
	uint8_t tag[TMEM_SEAL_TAG_BYTES];
};
_Static_assert(sizeof(struct tmem_swapfile_slot) == 32, "a page's overhead");

struct tmem_swapfile {
	/* Constant. */
	size_t self_bytes;
	unsigned depth; /* a power of two */
	unsigned max_run;
	uint64_t nr_offsets;
	_Atomic uint32_t *where;
	struct tmem_swapfile_slot *slots;
	struct tmem_seal *seal; /* NULL: not encrypted */
	char *sealed;		/* a page for each entry */
	uint64_t sum_seed;
	struct tmem_swapfile_entry *entries;
	struct iovec *iov; /* one for each entry */
	int file_fd;
	int map_fd;
	bool no_uring;
	_Atomic bool direct;

	_Atomic uint64_t held;
	_Atomic uint64_t end;
	_Atomic uint32_t in_flight;
	_Atomic uint32_t events; /* bumped when something has ended */

	struct tmem_lock lock;
	struct tmem_swapmap map;
	struct tmem_ring ring; /* its completion side: the collector's */
	uint32_t head;
	uint32_t queued;
	unsigned nr_ring; /* writes that the kernel has */
	unsigned nr_done;
	bool collecting;
	bool ring_broken;
};

static inline uint64_t tmem_swapfile_sum(const struct tmem_swapfile *file,
					 const void *page)
{
	return XXH3_64bits_withSeed(page, TMEM_PAGE_SIZE, file->sum_seed);
}

/* A text of one page; the slot's number is in `ad`, the caller's. */
static inline struct tmem_seal_text tmem_swapfile_text(uint64_t number,
						       const uint32_t *ad,
						       const void *from,
						       void *to)
{
	struct tmem_seal_text text = { .ad = ad,
				       .ad_bytes = sizeof(*ad),
				       .from = from,
				       .to = to,
				       .bytes = TMEM_PAGE_SIZE };

	memcpy(text.nonce, &number, sizeof(number));
	return text;
}

/* The members of tmem_swapdev_ops that swapfile_write.c has. */
int tmem_swapfile_write(void *dev, struct tmem_swapdev_request *request);
void tmem_swapfile_flush(void *dev);
int tmem_swapfile_reap(void *dev, bool wait);
void tmem_swapfile_discard(void *dev, uint64_t offset, uint64_t nr_pages);

/* O_DIRECT was accepted, but this file system can't do it after all. */
void tmem_swapfile_leave_direct(struct tmem_swapfile *file);

#endif
