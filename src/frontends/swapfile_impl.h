/* SPDX-License-Identifier: MIT */
/*
 * What swapfile.c and swapfile_write.c share: swapfile.c says how it works.
 */
#ifndef TMEM_FRONTENDS_SWAPFILE_IMPL_H
#define TMEM_FRONTENDS_SWAPFILE_IMPL_H

#include <xxhash.h>

#include "base/lock.h"
#include "base/ring.h"
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

struct tmem_swapfile {
	/* Constant. */
	size_t self_bytes;
	unsigned depth; /* a power of two */
	unsigned max_run;
	uint64_t nr_offsets;
	_Atomic uint32_t *where;
	uint64_t *sums;
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

static inline uint64_t tmem_swapfile_sum(const void *page)
{
	return XXH3_64bits(page, TMEM_PAGE_SIZE);
}

/* The members of tmem_swapdev_ops that swapfile_write.c has. */
int tmem_swapfile_write(void *dev, struct tmem_swapdev_request *request);
void tmem_swapfile_flush(void *dev);
int tmem_swapfile_reap(void *dev, bool wait);
void tmem_swapfile_discard(void *dev, uint64_t offset, uint64_t nr_pages);

/* O_DIRECT was accepted, but this file system can't do it after all. */
void tmem_swapfile_leave_direct(struct tmem_swapfile *file);

#endif
