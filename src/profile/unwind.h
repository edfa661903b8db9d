/* SPDX-License-Identifier: MIT */
/*
 * From registers and a copy of a stack to places in files, by the unwind tables
 * that these have (libdw).  Of the process nothing is read but its map, and
 * once that has been, it may be gone.
 */
#ifndef TMEM_PROFILE_UNWIND_H
#define TMEM_PROFILE_UNWIND_H

#include "profile/fold.h"
#include "profile/perf.h"
#include "profile/places.h"

struct tmem_unwind;

/* 0 or -errno: it is gone, or its map is not for us to read. */
int tmem_unwind_open(pid_t pid, struct tmem_places *places,
		     struct tmem_fold *fold, struct tmem_unwind **ret_unwind);
void tmem_unwind_close(struct tmem_unwind *unwind);

/*
 * The stack's number in `fold`, of this group; TMEM_INTERN_NONE: no memory.
 * Where the way to the start of the stack is lost, it begins with PLACE_CUT.
 */
uint32_t tmem_unwind_stack(struct tmem_unwind *unwind, uint32_t group,
			   const struct tmem_perf_sample *sample);

#endif
