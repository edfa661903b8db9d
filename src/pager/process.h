/* SPDX-License-Identifier: MIT */
/*
 * Making the pager process and its threads, without libc.
 *
 * The process shares the program's memory and nothing else (CLONE_VM only).
 * It is cloned twice, so that it is an orphan from the start: nobody in the
 * program ever waits for it or gets its SIGCHLD.  Each of its threads has a
 * thread block of its own, large enough for the variables that libc and we
 * have in the program's; libc does not know of it, so nothing that looks up
 * "this thread" may be called.
 */
#ifndef TMEM_PAGER_PROCESS_H
#define TMEM_PAGER_PROCESS_H

#include "pager.h"

typedef void tmem_process_fn(void *arg);

/* How much thread-local storage lies below the thread pointer. */
void tmem_process_measure(struct tmem_pager *pager);

/* Memory for a stack and thread block, or NULL. */
void *tmem_process_block(struct tmem_pager *pager);

/* From the program: the process.  0 or -errno. */
int tmem_process_spawn(struct tmem_pager *pager, void *block,
		       tmem_process_fn *fn);
/* From the pager process: one more thread.  Its tid, or -errno. */
int tmem_process_thread(struct tmem_pager *pager, void *block,
			tmem_process_fn *fn, void *arg);

#endif
