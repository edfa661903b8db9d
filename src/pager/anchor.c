/* SPDX-License-Identifier: MIT */
/* See wire/anchor.h. */
#include "anchor.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/sys.h"

static struct tmem_anchor *map_at(struct tmem_pager *pager, uint64_t addr)
{
	void *place = tmem_sys_pointer(addr);
	long r = tmem_sys(
		SYS_mmap, place, TMEM_ANCHOR_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (r != (long)addr) {
		if (r > 0) /* Linux before 4.17 takes it for a hint */
			tmem_sys_unmap(tmem_sys_pointer((uint64_t)r),
				       TMEM_ANCHOR_BYTES);
		return NULL;
	}
	TMEM_ASSERT(pager->nr_own < PAGER_MAX_OWN);
	pager->own[pager->nr_own++] =
		(struct tmem_range){ addr, addr + TMEM_ANCHOR_BYTES };
	return place;
}

int tmem_anchor_init(struct tmem_pager *pager)
{
	struct tmem_anchor *anchor = map_at(pager, TMEM_ANCHOR_ADDR);

	if (!anchor)
		anchor = map_at(pager, TMEM_ANCHOR_LOW);
	if (!anchor)
		anchor = tmem_pager_map(pager, TMEM_ANCHOR_BYTES);
	if (!anchor)
		return -ENOMEM;
	memcpy(anchor->version, TMEM_VERSION, sizeof(TMEM_VERSION));
	memcpy(anchor->source, tmem_source_id, sizeof(anchor->source));
	anchor->pager = (uintptr_t)pager;
	memcpy(anchor->magic, TMEM_ANCHOR_MAGIC, sizeof(anchor->magic));
	pager->anchor = anchor;
	return 0;
}
