/* SPDX-License-Identifier: MIT */
/* The memory cgroup this process is in: its limit and use, v1 or v2. */
#ifndef TMEM_CLI_CGROUP_H
#define TMEM_CLI_CGROUP_H

#include <stdint.h>
#include <sys/types.h>

/*
 * What the tightest memory cgroup of a process still allows, v1 or v2, page
 * cache that can be dropped not counted as used.  UINT64_MAX: no limit.
 * `root` is "" (or another file system root, for tests).
 */
uint64_t tmem_cgroup_headroom(const char *root, pid_t pid);

#endif
