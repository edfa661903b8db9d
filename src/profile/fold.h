/* SPDX-License-Identifier: MIT */
/*
 * Stacks and what they cost, as text that flame graph tools take: a line a
 * stack, frames from the program to the innermost function, then microseconds.
 *
 * Each stack is of a *group*: all processes of one name.  Of a group all stalls
 * are known, of its stacks a sample.  What the stalls of one length (by powers
 * of two) took together is divided among the samples of that length; so a rare
 * long one counts as what it was, not as all those that nobody sampled.
 *
 * Faults that the kernel takes without the program touching the page, for
 * direct I/O, can't be sampled: they count to whoever was.  A group without any
 * sample has one frame, "[no stack]".
 */
#ifndef TMEM_PROFILE_FOLD_H
#define TMEM_PROFILE_FOLD_H

#include <stdbool.h>

#include "profile/intern.h"
#include "profile/names.h"

enum {
	TMEM_FOLD_DEPTH = 128 /* places in a stack */
};

struct tmem_fold {
	struct tmem_intern groups; /* by name */
	struct tmem_intern stacks; /* by group and places */
};

struct tmem_fold_sums {
	uint64_t samples;
	uint64_t stacks;   /* lines */
	uint64_t stall_us; /* of all lines */
};

void tmem_fold_init(struct tmem_fold *fold);
void tmem_fold_fini(struct tmem_fold *fold);

/* Numbers, or TMEM_INTERN_NONE; places from the outermost to the innermost. */
uint32_t tmem_fold_group(struct tmem_fold *fold, const char *name);
uint32_t tmem_fold_stack(struct tmem_fold *fold, uint32_t group,
			 const uint32_t *places, unsigned nr);

/* A stall of this group. */
void tmem_fold_stall(struct tmem_fold *fold, uint32_t group, uint64_t ns);

/*
 * A stall that was sampled, and how many it stands for; `again`: of the same
 * fault as one before.
 */
void tmem_fold_sample(struct tmem_fold *fold, uint32_t stack, double nr,
		      uint64_t ns, bool again);

/* All of it, sorted; for the caller to free.  NULL: no memory. */
char *tmem_fold_text(const struct tmem_fold *fold,
		     const struct tmem_names *names,
		     struct tmem_fold_sums *ret_sums);

#endif
