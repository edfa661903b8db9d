/* SPDX-License-Identifier: MIT */
/*
 * An io_uring whose memory is ours.
 *
 * Its memory is ours (IORING_SETUP_NO_MMAP, Linux 6.5), one page for the
 * entries and one for the two rings: the kernel refuses to map rings at an
 * address of our choice, and the pager must not land in a hole that the
 * program made, which the program may map over at any time.  The submission
 * ring is short, since each entry is submitted at once; completions for which
 * the other has no room wait in the kernel.
 *
 * Older kernels map the rings themselves; none of those can run the pager.
 *
 * A child of fork(2) does not inherit the ring's memory: it would disturb
 * ours.  It opens one of its own in the same struct.
 */
#ifndef TMEM_BASE_RING_H
#define TMEM_BASE_RING_H

#include <liburing.h>
#include <stdatomic.h>
#include <stdbool.h>

struct tmem_ring {
	struct io_uring uring; /* its completion side: one thread at a time */
	void *memory;	       /* NULL: the kernel mapped it */
	_Atomic bool up;
};

/* Sets `up` if there can be a ring.  `entries` is a hint. */
void tmem_ring_open(struct tmem_ring *ring, unsigned entries);
void tmem_ring_close(struct tmem_ring *ring);

/* The next entry to fill in, or NULL; to be submitted at once. */
static inline struct io_uring_sqe *tmem_ring_entry(struct tmem_ring *ring)
{
	return io_uring_get_sqe(&ring->uring);
}

/* Submits the entry.  False if the ring can't be used: don't ask again. */
bool tmem_ring_submit(struct tmem_ring *ring);

/* Sleeps until there is a completion, or (if not 0) until that time. */
void tmem_ring_wait(struct tmem_ring *ring, uint64_t until_ns);

void tmem_ring_for_each_mapping(const struct tmem_ring *ring,
				void (*fn)(void *arg, void *start,
					   size_t bytes),
				void *arg);

#endif
