/* SPDX-License-Identifier: MIT */
/*
 * Pages that are present but cost nothing yet: the kernel's page of zeros.
 *
 * A program that reads memory which it never wrote gets the kernel's one page
 * of zeros there, and so do pages that we answer a fault with.  They are
 * present, so the kernel tells nobody when they are written to and become
 * memory: a program that reads all of a block and then fills it grows as fast
 * as it can write, while everything else waits for the swap file.  So where
 * there are more of them than could be evicted in time, they are taken out;
 * who touches one again asks us, and waits for its turn.
 *
 *   Z1  silent = pages that the table holds for present - pages present that
 *       cost memory, as far as it has grown since that was known exactly: at
 *       each scan, which counts them.
 *   Z2  They are moved out like any page, and looked at in the frame: one that
 *       was written meanwhile goes where evicted pages go.
 */
#ifndef TMEM_PAGER_ZEROS_H
#define TMEM_PAGER_ZEROS_H

#include "pager.h"

/*
 * A scan has found `found` such pages, with `unknown` pages present that the
 * table does not know (negative: it knows more than that).
 */
void tmem_zeros_counted(struct tmem_pager *pager, int64_t unknown,
			uint64_t found);

/* How many there may be by now. */
int64_t tmem_zeros_silent(const struct tmem_pager *pager, int64_t unknown);

/*
 * Takes out a bounded part of them; the ticker calls it.  `unknown` is as of
 * now.
 */
void tmem_zeros_sweep(struct tmem_pager *pager, int64_t unknown);

#endif
