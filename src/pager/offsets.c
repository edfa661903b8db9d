/* SPDX-License-Identifier: MIT */
/* See offsets.h. */
#include "offsets.h"

#include <errno.h>

#include "anchor.h"
#include "base/assert.h"
#include "base/sys.h"

int tmem_offsets_init(struct tmem_pager *pager)
{
	uint64_t nr = atomic_load(&pager->tree->limit_bytes) / TMEM_PAGE_SIZE *
		      OFFSETS_PER_PAGE;

	pager->nr_offsets = nr > OFFSETS_MAX ? OFFSETS_MAX : nr & ~63ull;
	pager->offsets_used = tmem_pager_map(pager, pager->nr_offsets / 8);
	return pager->offsets_used ? 0 : -ENOMEM;
}

uint32_t tmem_offset_take_locked(struct tmem_pager *pager)
{
	uint32_t word = pager->offset_hint, bit;

	TMEM_ASSERT(tmem_offsets_left(pager) > 0);
	while (pager->offsets_used[word] == UINT64_MAX)
		word++;
	pager->offset_hint = word;
	bit = (uint32_t)__builtin_ctzll(~pager->offsets_used[word]);
	pager->offsets_used[word] |= 1ull << bit;
	pager->stored_pages++;
	return word * 64 + bit;
}

void tmem_offset_drop_locked(struct tmem_pager *pager, uint32_t offset)
{
	uint64_t mask = 1ull << offset % 64;

	TMEM_ASSERT(pager->offsets_used[offset / 64] & mask);
	tmem_anchor_dropped_locked(pager);
	tmem_frontswap_invalidate_page(pager->frontswap, PAGER_FRONTSWAP_TYPE,
				       offset);
	pager->offsets_used[offset / 64] &= ~mask;
	if (offset / 64 < pager->offset_hint)
		pager->offset_hint = offset / 64;
	pager->stored_pages--;
}
