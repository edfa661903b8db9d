/* SPDX-License-Identifier: MIT */
/*
 * Which pages a process uses in a time: the curve of curve.h, measured.
 *
 * By idle page tracking, if the kernel has it: sampled pages are marked idle,
 * and those that are no longer so were used.  Else by the referenced bits: all
 * of the process's are cleared (/proc/PID/clear_refs), and smaps counts those
 * that were set again.  Neither changes what the process sees; the second
 * makes its pages look unused to the kernel for a while.
 */
#ifndef TMEM_CLI_TRACK_H
#define TMEM_CLI_TRACK_H

#include "cli/curve.h"
#include "cli/memory.h"

#define TMEM_TRACK_BITMAP "/sys/kernel/mm/page_idle/bitmap"

enum tmem_track_way {
	TMEM_TRACK_NONE = 0,
	TMEM_TRACK_IDLE,
	TMEM_TRACK_REFS
};

/* Sampled pages, by address. */
struct tmem_track_sample {
	const uint64_t *addresses;
	uint32_t nr;
};

/*
 * Watches for so many seconds.  0 or -errno: -EOPNOTSUPP, the kernel does not
 * show where pages are; -ESRCH, the process has ended.
 */
int tmem_track_idle(const struct tmem_memory *memory,
		    const struct tmem_track_sample *sample, const char *bitmap,
		    double seconds, struct tmem_curve *ret_curve);
int tmem_track_refs(const struct tmem_memory *memory, double seconds,
		    struct tmem_curve *ret_curve);

#endif
