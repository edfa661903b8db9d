/* SPDX-License-Identifier: MIT */
/*
 * The frontswap offsets of this process: which are in use.
 *
 * An offset is taken when a page leaves and dropped when nobody needs its
 * stored copy; dropping invalidates the page in frontswap.  One bit each, in
 * memory touched as offsets are; the lowest free one is taken, so the bitmap
 * stays dense.
 */
#ifndef TMEM_PAGER_OFFSETS_H
#define TMEM_PAGER_OFFSETS_H

#include <stdint.h>

#include "pager.h"

/* At most 2^27: 512 GiB evicted. */
enum {
	OFFSETS_MAX = 1 << 27,
	OFFSETS_PER_PAGE = 32
};

/* As many as 32 times the budget's pages: same-filled pages cost little. */
int tmem_offsets_init(struct tmem_pager *pager);
/* How many can still be taken. */
static inline uint64_t tmem_offsets_left(const struct tmem_pager *pager)
{
	return pager->nr_offsets - pager->stored_pages;
}

/* One must be left. */
uint32_t tmem_offset_take_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock);
/* Invalidates what is stored there, and frees the offset. */
void tmem_offset_drop_locked(struct tmem_pager *pager, uint32_t offset)
	TMEM_REQUIRES(&pager->lock);

#endif
