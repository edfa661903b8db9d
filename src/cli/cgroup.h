/* SPDX-License-Identifier: MIT */
/*
 * The memory cgroups a process is in, v1 or v2: their limits and use.  `root`
 * is "" (or another file system root, for tests).  UINT64_MAX: no limit.
 */
#ifndef TMEM_CLI_CGROUP_H
#define TMEM_CLI_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

enum {
	TMEM_CGROUP_SPARE = 10 /* a tenth of a limit is left free */
};

/*
 * What the tightest memory cgroup of a process still allows, page cache that
 * can be dropped not counted as used.
 */
uint64_t tmem_cgroup_headroom(const char *root, pid_t pid);
/* The least of all their limits, those that throttle included. */
uint64_t tmem_cgroup_limit(const char *root, pid_t pid);
/*
 * How much a tree of processes that uses `tree_bytes` of each of them may use,
 * so that no more than nine tenths of any are used: what others have there
 * (and the kernel, for whomever) is left to them; page cache is not, for it
 * makes room.
 */
uint64_t tmem_cgroup_allowance(const char *root, pid_t pid,
			       uint64_t tree_bytes);

#endif
