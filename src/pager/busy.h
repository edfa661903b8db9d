/* SPDX-License-Identifier: MIT */
/*
 * Pages that the kernel would not move out (EBUSY).
 *
 * It refuses a page that it holds itself (direct I/O, registered buffers), and
 * one that was shared by fork until somebody writes to it, even if nobody
 * else has it any more.  The hand marks such a page *busy* and passes it by.
 * The ticker looks at them again:
 *   - one that only we map is written to, changing nothing, which makes it
 *     movable at no cost unless the kernel holds it;
 *   - one that is still shared is left: evicting it frees nothing while
 *     another process has it.  Such pages go last: only when nothing else
 *     could be evicted, and slowly, as each is copied first.
 */
#ifndef TMEM_PAGER_BUSY_H
#define TMEM_PAGER_BUSY_H

#include "pager.h"

/* Looks at some busy pages, if there are any.  The ticker's. */
void tmem_busy_retry(struct tmem_pager *pager);

#endif
