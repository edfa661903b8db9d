/* SPDX-License-Identifier: MIT */
/*
 * Time on the fault path: the time stamp counter, scaled by comparing it with
 * the kernel's clock now and then.  (A system call for the time would cost a
 * tenth of a fault; libc's clock_gettime may be the program's own.)
 */
#ifndef TMEM_PAGER_CLOCK_H
#define TMEM_PAGER_CLOCK_H

#include <x86intrin.h>

#include "base/sys.h"
#include "pager.h"

static inline uint64_t tmem_clock_ticks(void)
{
	return __rdtsc();
}

static inline void tmem_clock_start(struct tmem_pager *pager)
{
	pager->clock_ticks0 = __rdtsc();
	pager->clock_ns0 = tmem_sys_now_ns();
	/* Until it is known better: 2 GHz. */
	atomic_store(&pager->clock_scale, 1ull << 31);
}

static inline void tmem_clock_adjust(struct tmem_pager *pager)
{
	uint64_t ticks = __rdtsc() - pager->clock_ticks0;
	uint64_t ns = tmem_sys_now_ns() - pager->clock_ns0;

	if (ticks)
		atomic_store(&pager->clock_scale,
			     (uint64_t)(((unsigned __int128)ns << 32) / ticks));
}

static inline uint64_t tmem_clock_ns(struct tmem_pager *pager, uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks *
			   atomic_load(&pager->clock_scale)) >>
			  32);
}

#endif
