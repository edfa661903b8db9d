/* SPDX-License-Identifier: MIT */
/*
 * UFFDIO_MOVE, with its partial results made plain: the kernel says how many
 * bytes were moved, or why none was; after a partial move the same call on
 * the rest tells why it stopped.
 */
#include "move.h"

#include <errno.h>

#include <tmem/tmem.h>

#include "base/chaos.h"
#include "base/sys.h"
#include "base/uffd.h"

static enum tmem_move_end why(long error)
{
	switch (error) {
	case -EAGAIN:
		return MOVE_AGAIN;
	case -EBUSY:
		return MOVE_BUSY;
	case -ENOENT:
		return MOVE_GONE;
	case -EINVAL:
	case -EPERM:
		return MOVE_WAY;
	case -ENOMEM:
		return MOVE_NOMEM;
	case -ESRCH:
		return MOVE_DEAD;
	default:
		return MOVE_BUSY;
	}
}

/* The kernel's answer, or in tests another one: base/chaos.h. */
static long move_some(int uffd, struct uffdio_move *move)
{
	long r;

	if (tmem_chaos_hits(TMEM_CHAOS_AGAIN))
		return -EAGAIN;
	if (tmem_chaos_hits(TMEM_CHAOS_BUSY))
		return -EBUSY;
	if (tmem_chaos_hits(TMEM_CHAOS_NOMEM))
		return -ENOMEM;
	if (tmem_chaos_hits(TMEM_CHAOS_GONE))
		return -ENOENT;
	move->len = (uint64_t)tmem_chaos_fewer(
			    TMEM_CHAOS_PARTIAL,
			    (unsigned)(move->len / TMEM_PAGE_SIZE)) *
		    TMEM_PAGE_SIZE;
	r = tmem_sys(SYS_ioctl, uffd, UFFDIO_MOVE, move);
	if (move->move == TMEM_PAGE_SIZE && tmem_chaos_hits(TMEM_CHAOS_EXISTS))
		move->move = -EEXIST;
	return r;
}

enum tmem_move_end tmem_move_out(int uffd, uint64_t from, uint64_t to,
				 unsigned nr, unsigned *ret_moved)
{
	uint64_t bytes = (uint64_t)nr * TMEM_PAGE_SIZE, done = 0;

	while (done < bytes) {
		struct uffdio_move move = {
			.dst = to + done,
			.src = from + done,
			.len = bytes - done,
			.mode = UFFDIO_MOVE_MODE_DONTWAKE,
		};
		long r = move_some(uffd, &move);

		if (move.move > 0) {
			done += (uint64_t)move.move;
			continue;
		}
		/*
		 * Frames are empty beforehand, so a page that "exists" there
		 * is this one: seen while the kernel's own swap was active.
		 */
		if (move.move == -EEXIST || r == -EEXIST) {
			done += TMEM_PAGE_SIZE;
			continue;
		}
		*ret_moved = (unsigned)(done / TMEM_PAGE_SIZE);
		return why(move.move < 0 ? move.move : r);
	}
	*ret_moved = nr;
	return MOVE_ALL;
}
