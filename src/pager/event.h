/* SPDX-License-Identifier: MIT */
/*
 * Events: what the kernel tells of the program's mmap calls.
 *
 * The caller of munmap, mremap, madvise or fork waits until its event was
 * read; the event is read and applied under the pager's lock (P1).
 *
 * In fork mode (P4) an event is put off, once nothing is in flight any more:
 * noted in one page, in order, and faults look through those notes first.
 *
 * An event that was read before the fork's own may have happened before the
 * child was made or just after, and the other way round: seen.h finds out.
 * What the notes cover is then put into the child's memory, and the child
 * forgets what its table says of it.
 */
#ifndef TMEM_PAGER_EVENT_H
#define TMEM_PAGER_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/uffd.h"
#include "notes.h"
#include "pager.h"

/*
 * Reads one message.  A fault: returns 1 with its address in *ret_addr, the
 * low 12 bits of the thread's number in place of the offset in the page.  An
 * event: applies it and returns 0.  Nothing to read: -EAGAIN.  -EBUSY: an
 * event can't be noted now, fork mode must end first.
 */
int tmem_event_read_locked(struct tmem_pager *pager, uint64_t *ret_addr)
	TMEM_REQUIRES(&pager->lock);

/* Fork mode, and there may be no room to note another event. */
bool tmem_event_is_full(const struct tmem_pager *pager);

/* Drops what is known of [start, end) (vpns): its content is not wanted. */
void tmem_event_forget_locked(struct tmem_pager *pager, uint64_t start,
			      uint64_t end) TMEM_REQUIRES(&pager->lock);

/* In a fork's child: forgets what the notes cover. */
void tmem_event_forget_noted_locked(struct tmem_pager *pager,
				    const struct tmem_deferred *notes)
	TMEM_REQUIRES(&pager->lock);

/* Applies one. */
void tmem_event_apply_locked(struct tmem_pager *pager,
			     const struct tmem_note *n)
	TMEM_REQUIRES(&pager->lock);

/* Applies the notes; fork mode is over. */
void tmem_event_catch_up_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock);

#endif
