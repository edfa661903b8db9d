/* SPDX-License-Identifier: MIT */
/*
 * Taking pages out of the program: the one place that knows how.
 *
 * Today by UFFDIO_MOVE (Linux 6.8).  A kernel without it needs another body
 * for this one function, and nothing else.
 */
#ifndef TMEM_PAGER_MOVE_H
#define TMEM_PAGER_MOVE_H

#include <stdint.h>

enum tmem_move_end {
	MOVE_ALL,   /* everything was moved */
	MOVE_AGAIN, /* an event waits to be read: stop */
	MOVE_BUSY,  /* the page after the moved ones is pinned or shared */
	MOVE_GONE,  /* that page is not there any more */
	MOVE_WAY,   /* that page can't be moved into such a frame */
	MOVE_NOMEM, /* no page table for the frame */
	MOVE_DEAD   /* the program's memory is gone */
};

/*
 * Moves up to nr pages from `from` to `to`, in order, until one can't be.
 * *ret_moved pages were.  The pager's lock is held.
 */
enum tmem_move_end tmem_move_out(int uffd, uint64_t from, uint64_t to,
				 unsigned nr, unsigned *ret_moved);

#endif
