/* SPDX-License-Identifier: MIT */
/* --profile: the keeper's side of the process that profiles. */
#ifndef TMEM_CLI_PROFILE_H
#define TMEM_CLI_PROFILE_H

#include "cli/options.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What it says when it has written the file. */
struct tmem_profile_result {
	int32_t error; /* errno */
	int32_t reserved;
	uint64_t samples;
	uint64_t stacks;
	uint64_t stall_us;
	uint64_t lost;	     /* stalls */
	uint64_t unreadable; /* processes */
};

struct tmem_perf;
struct tmem_keeper;

struct tmem_profile {
	int out_fd;
	struct tmem_perf *perf; /* NULL: not asked for, or started */
	int link_fd;		/* to the profiler; -1 */
	pid_t pid;		/* its; 0: none */
	bool known;		/* the result is */
	struct tmem_profile_result result;
};

/*
 * Before anything is started: the file and the kernel's events, if --profile
 * was given.  0, or an exit status after a line.
 */
int tmem_profile_open(const struct tmem_run_options *o,
		      struct tmem_profile *profile);
/* Starts the profiler; before the program, and before we reap orphans. */
void tmem_profile_start(struct tmem_keeper *k);
/* Of the profiler itself. */
uint64_t tmem_profile_memory_bytes(const struct tmem_profile *p);
/*
 * When nothing of the tree is left: has the file written, tells if that fails,
 * and ends the profiler.
 */
void tmem_profile_write(struct tmem_keeper *k);

#endif
