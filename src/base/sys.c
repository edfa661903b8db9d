/* SPDX-License-Identifier: MIT */
/* See sys.h. */
#include "sys.h"

#include <stdatomic.h>

static _Atomic uintptr_t map_hint;

void tmem_sys_map_from(uintptr_t start)
{
	atomic_store(&map_hint, start);
}

void *tmem_sys_map_anon(size_t bytes, int prot)
{
	uintptr_t hint = atomic_load_explicit(&map_hint, memory_order_relaxed);
	long r;

	if (hint)
		hint = atomic_fetch_add(&map_hint,
					(bytes + 4095) & ~(size_t)4095);
	r = tmem_sys(SYS_mmap, hint, bytes, prot,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return r < 0 && r > -4096 ? NULL : tmem_sys_pointer((uint64_t)r);
}
