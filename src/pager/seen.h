/* SPDX-License-Identifier: MIT */
/*
 * Seen: which of the events around a fork happened before its child was made.
 *
 * An event is queued after the memory map was let go of, the fork's own too.
 * So one that was read before it may be about what its caller did just after
 * the child's memory was copied, and one that is read after it about what was
 * done before.  The child's memory tells: what is mapped there, and watched, is
 * compared with what would be after so many of the notes, and those that agree
 * best are what it has seen.
 *
 *   B1  Nothing is out in the child but by what it has seen: a page that is
 *       missing there is what the table has at the place that the seen notes
 *       lead back to.
 *   B2  Two moments that leave the same places mapped can't be told apart; the
 *       nearer to when the fork's event was read is taken.
 */
#ifndef TMEM_PAGER_SEEN_H
#define TMEM_PAGER_SEEN_H

#include <stdint.h>

#include "notes.h"

/*
 * Of the first nr notes, `heard` of which were read before the fork's event,
 * puts those that the memory behind child_uffd has seen into *ret_seen, so that
 * tmem_notes_resolve() leads from its places to the table's.  -EAGAIN: an
 * event of the child's own has to be read first.
 */
int tmem_seen_find(const struct tmem_deferred *all, uint64_t nr, uint64_t heard,
		   int child_uffd, struct tmem_deferred *ret_seen);

#endif
