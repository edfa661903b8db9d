/* SPDX-License-Identifier: MIT */
/*
 * Page faults as the kernel samples them (perf_event_open): for some faults of
 * the processes that are watched, the registers and a copy of the stack at that
 * moment.  Nothing is stopped, and nobody needs to be traced.
 *
 * Which ones is chosen at random, each with the same probability (the *part*).
 * Every so-manieth would not do: programs take turns.
 */
#ifndef TMEM_PROFILE_PERF_H
#define TMEM_PROFILE_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	TMEM_PERF_REGS = 17, /* in DWARF's order for x86-64; the last is rip */
	TMEM_PERF_RSP = 7,
	TMEM_PERF_RIP = 16,
	TMEM_PERF_STACK_BYTES = 24 << 10
};

struct tmem_perf_sample {
	pid_t pid;	  /* the process, as whoever opened this sees it */
	uint64_t time_ns; /* CLOCK_MONOTONIC */
	uint64_t address; /* that was touched */
	bool in_kernel;	  /* touched by a system call */
	uint64_t regs[TMEM_PERF_REGS];
	const void *stack; /* from rsp upwards; the callee's for the call */
	size_t stack_bytes;
};

struct tmem_perf;

/*
 * Watches nobody yet.  0, or -errno: -EACCES or -EPERM is a matter of rights.
 * May be opened in one process and read in its child.
 */
int tmem_perf_open(double part, struct tmem_perf **ret_perf);
void tmem_perf_close(struct tmem_perf *perf);

/* After the last fork, in the process that reads.  0 or -errno. */
int tmem_perf_map(struct tmem_perf *perf);

/* Whether its faults may become samples; there may be others' as well. */
void tmem_perf_watch(struct tmem_perf *perf, pid_t pid, bool watch);

/* From now on; above 0, at most 1. */
void tmem_perf_set_part(struct tmem_perf *perf, double part);

/*
 * A descriptor each CPU, to be polled: readable when there is much to read.
 * Returns how many, at most `max`.
 */
unsigned tmem_perf_fds(const struct tmem_perf *perf, int *ret_fds,
		       unsigned max);

/* What else must stay open; how many. */
unsigned tmem_perf_other_fds(const struct tmem_perf *perf, int ret_fds[2]);

/*
 * Calls fn for each sample that is there.  Returns how many there were, with
 * those for which there was no room.
 */
uint64_t tmem_perf_read(struct tmem_perf *perf,
			void (*fn)(void *arg, const struct tmem_perf_sample *),
			void *arg);

#endif
