/* SPDX-License-Identifier: MIT */
/*
 * Upkeep: a thread of the pager that makes the store smaller.
 *
 * Memory of the store that is only partly used goes back to the kernel, and
 * pages that were out for UPKEEP_COOL_NS get a smaller form (zstd), which is
 * slower to read: what does the work is the store's (tmem_store_maintain()),
 * when and how much is decided here.  What it saves is memory that the
 * program can keep resident.
 *
 *   K1  It takes a tenth of one CPU while one is idle or the store is nearly
 *       full, else a fiftieth: after each step it sleeps for so many times what
 *       the step took, 1 to 20 ms.  The thread is an ordinary one: it holds
 *       locks that handlers wait for, so nothing may keep it from going on.
 *   K2  In fork mode and while a core is written it starts nothing, and the
 *       store's locks stop what has begun (P4).
 */
#ifndef TMEM_PAGER_UPKEEP_H
#define TMEM_PAGER_UPKEEP_H

#include "pager.h"

/* Most pages that come back at all come back sooner. */
#define UPKEEP_COOL_NS 5000000000ull

/* The thread; `arg` is the pager.  Never returns. */
void tmem_upkeep_run(void *arg);

#endif
