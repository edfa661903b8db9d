/* SPDX-License-Identifier: MIT */
/*
 * A fork's child until it serves itself (gate.h): its faults are answered, and
 * what has to be in its memory is put there, through its userfaultfd.
 *
 * Its memory is that of the parent as of the clone, so places in it lead to the
 * table, which stands still (pager.h, P4), by the notes that the child has seen
 * (seen.h) and by what it does itself before it serves itself.  That follows in
 * the same page, from gate.own_notes on.
 */
#ifndef TMEM_PAGER_CHILD_H
#define TMEM_PAGER_CHILD_H

#include "notes.h"
#include "pager.h"

/*
 * First: fills pager->seen.  What happened before the child was made has mostly
 * been read; what has not makes the kernel refuse, and is read by the handlers.
 * `page` is scratch, here and below.
 */
void tmem_child_find_seen(struct tmem_pager *pager, int child_uffd,
			  uint8_t *page);

/*
 * Until the child serves itself, is whole, or is dead.  So long the parent's
 * fork does not return: in fork mode nothing is evicted, and what the parent
 * wrote to would be copied, without bounds.
 */
void tmem_child_serve(struct tmem_pager *pager, int child_uffd, uint8_t *page);

/*
 * All that is out, into the child's memory, which leads to the table by the
 * notes in `seen`.
 */
void tmem_child_make_whole(struct tmem_pager *pager, int child_uffd,
			   const struct tmem_deferred *seen, uint8_t *page);

#endif
