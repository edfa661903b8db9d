/* SPDX-License-Identifier: MIT */
/*
 * The profiler: which stacks paid for the stalls of a tree.
 *
 *   kernel (perf.h)   samples of faults: process, page, stack
 *   pagers (stalls.h) all faults that they answered: process, page, how long
 *
 * The two are brought together by process and page (match.h), the stacks get
 * their names (unwind.h) and are added up (fold.h).  Processes are those of the
 * tree's slots.
 *
 * The kernel is asked for about two thousand samples a second.  Unwinding takes
 * time, too: so a step takes no more of them than its part of a CPU allows for,
 * at random, and each then stands for those that were not taken.
 */
#ifndef TMEM_PROFILE_PROFILER_H
#define TMEM_PROFILE_PROFILER_H

#include "profile/fold.h"
#include "profile/perf.h"
#include "wire/tree.h"

/* Of all faults, to be sampled until it is known better. */
#define TMEM_PROFILER_PART 0.05

struct tmem_profiler;

/* NULL: no memory.  Both stay the caller's. */
struct tmem_profiler *tmem_profiler_create(struct tmem_tree *tree,
					   struct tmem_perf *perf);
void tmem_profiler_destroy(struct tmem_profiler *profiler);

/* What there is to read; true if there was something. */
bool tmem_profiler_step(struct tmem_profiler *profiler);

struct tmem_profiler_sums {
	struct tmem_fold_sums fold;
	uint64_t lost;	     /* stalls that there was no room for */
	uint64_t unreadable; /* processes whose map was not for us to read */
};

/* The profile so far, for the caller to free; NULL: no memory. */
char *tmem_profiler_text(const struct tmem_profiler *profiler,
			 struct tmem_profiler_sums *ret_sums);

#endif
