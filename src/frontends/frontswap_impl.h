/* SPDX-License-Identifier: MIT */
/*
 * What frontswap.c and frontswap_shrink.c share: frontswap.c says how it
 * works.
 */
#ifndef TMEM_FRONTENDS_FRONTSWAP_IMPL_H
#define TMEM_FRONTENDS_FRONTSWAP_IMPL_H

#include <errno.h>
#include <stdatomic.h>

#include "base/lock.h"
#include "tmem/frontswap.h"

enum {
	TMEM_FS_OBJECT_BITS = 4,
	TMEM_FS_OBJECTS = 1 << TMEM_FS_OBJECT_BITS,
	TMEM_FS_STRIPES = 64, /* neighbours don't share a lock */
	TMEM_FS_MOVES = 32    /* pages that shrink has under way at the most */
};

/* Counters that several threads bump. */
struct tmem_fs_counters {
	_Atomic uint64_t loads;
	_Atomic uint64_t succ_stores;
	_Atomic uint64_t failed_stores;
	_Atomic uint64_t invalidates;
	_Atomic uint64_t device_writes;
	_Atomic uint64_t device_reads;
	_Atomic uint64_t device_full;
	_Atomic uint64_t device_errors;
	_Atomic uint64_t lost_pages;
	_Atomic uint64_t writethroughs;
	_Atomic uint64_t exclusive_loads;
	_Atomic uint64_t shrunk_pages;
};

struct tmem_fs_swap_type {
	uint64_t nr_pages; /* 0: not active */
	struct tmem_swapdev device;
	_Atomic uint64_t *bits;
	_Atomic uint64_t curr_pages;
	uint64_t shrink_next; /* shrink's: where it goes on */
};

/* A page that shrink is moving. */
struct tmem_fs_move {
	struct tmem_swapdev_request request;
	_Atomic uint32_t type; /* TMEM_FRONTSWAP_MAX_TYPES: none */
	_Atomic uint64_t offset;
	_Atomic bool cancelled;
	_Atomic bool done;
	int result;
};

struct tmem_frontswap {
	struct tmem_backend backend;
	tmem_pool_id pool;
	bool writethrough;
	bool exclusive;
	_Atomic bool forking;

	struct tmem_lock control; /* types come and go */
	_Atomic bool shrinking;
	_Atomic uint32_t nr_moves;
	struct tmem_fs_swap_type types[TMEM_FRONTSWAP_MAX_TYPES];
	struct tmem_fs_counters counters;
	struct tmem_lock stripes[TMEM_FS_STRIPES];
	struct tmem_fs_move moves[TMEM_FS_MOVES];
	char *buffers; /* TMEM_FS_MOVES pages */
};

static inline void tmem_fs_count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline struct tmem_io tmem_fs_page_io(unsigned type, uint64_t offset,
					     void *page)
{
	return (struct tmem_io){
		.object.word[0] = (uint64_t)type << TMEM_FS_OBJECT_BITS |
				  (offset & (TMEM_FS_OBJECTS - 1)),
		.index = (uint32_t)(offset >> TMEM_FS_OBJECT_BITS),
		.page = page,
	};
}

static inline struct tmem_lock *tmem_fs_stripe(struct tmem_frontswap *fs,
					       uint64_t offset)
{
	return &fs->stripes[offset % TMEM_FS_STRIPES];
}

static inline bool tmem_fs_test_bit(const struct tmem_fs_swap_type *t,
				    uint64_t offset)
{
	return t->bits[offset / 64] >> (offset % 64) & 1;
}

static inline bool tmem_fs_clear_bit(struct tmem_fs_swap_type *t,
				     uint64_t offset)
{
	uint64_t bit = 1ull << (offset % 64);

	if (!tmem_fs_test_bit(t, offset))
		return false;
	atomic_fetch_and(&t->bits[offset / 64], ~bit);
	t->curr_pages--;
	return true;
}

static inline int tmem_fs_backend_load(struct tmem_frontswap *fs,
				       struct tmem_io *io)
{
	int r = fs->backend.ops->load(fs->backend.self, fs->pool, io, 1);

	return r < 0 ? r : io->result;
}

static inline void tmem_fs_backend_invalidate(struct tmem_frontswap *fs,
					      unsigned type, uint64_t offset)
{
	struct tmem_io io = tmem_fs_page_io(type, offset, NULL);

	fs->backend.ops->invalidate(fs->backend.self, fs->pool, &io, 1);
}

static inline void tmem_fs_count_device(struct tmem_frontswap *fs, int result)
{
	if (result == -ENOSPC)
		tmem_fs_count(&fs->counters.device_full);
	else if (result < 0)
		tmem_fs_count(&fs->counters.device_errors);
	else
		tmem_fs_count(&fs->counters.device_writes);
}

/* The next page at or after *offset that tmem has. */
static inline bool tmem_fs_next_page(const struct tmem_fs_swap_type *t,
				     uint64_t *offset)
{
	for (uint64_t o = *offset; o < t->nr_pages;) {
		uint64_t word = t->bits[o / 64] >> (o % 64);

		if (word) {
			*offset = o + (unsigned)__builtin_ctzll(word);
			return *offset < t->nr_pages;
		}
		o = (o / 64 + 1) * 64;
	}
	return false;
}

#endif
