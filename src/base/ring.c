/* SPDX-License-Identifier: MIT */
/* See ring.h. */
#include "ring.h"

#include <errno.h>
#include <string.h>

#include "sys.h"

enum {
	PAGE = 4096,
	SQ_ENTRIES = 8,
	CQ_ENTRIES = 128,
	SETUP_NO_MMAP = 1 << 14, /* newer than Debian 12's headers */
	MEMORY_BYTES = 2 * PAGE,
	SIGSET_BYTES = 8
};

_Static_assert(SQ_ENTRIES * sizeof(struct io_uring_sqe) <= PAGE &&
		       CQ_ENTRIES * sizeof(struct io_uring_cqe) +
				       SQ_ENTRIES * sizeof(unsigned) + 512 <=
			       PAGE,
	       "one page each");

/* What liburing wants to know of a ring in our memory. */
static void fill_ring(struct io_uring *ring, const struct io_uring_params *p,
		      char *sqes, char *base)
{
	struct io_uring_sq *sq = &ring->sq;
	struct io_uring_cq *cq = &ring->cq;

	sq->khead = (unsigned *)(base + p->sq_off.head);
	sq->ktail = (unsigned *)(base + p->sq_off.tail);
	sq->kring_mask = (unsigned *)(base + p->sq_off.ring_mask);
	sq->kring_entries = (unsigned *)(base + p->sq_off.ring_entries);
	sq->kflags = (unsigned *)(base + p->sq_off.flags);
	sq->kdropped = (unsigned *)(base + p->sq_off.dropped);
	sq->array = (unsigned *)(base + p->sq_off.array);
	sq->sqes = (struct io_uring_sqe *)sqes;
	sq->ring_mask = *sq->kring_mask;
	sq->ring_entries = *sq->kring_entries;
	cq->khead = (unsigned *)(base + p->cq_off.head);
	cq->ktail = (unsigned *)(base + p->cq_off.tail);
	cq->kring_mask = (unsigned *)(base + p->cq_off.ring_mask);
	cq->kring_entries = (unsigned *)(base + p->cq_off.ring_entries);
	cq->kflags = (unsigned *)(base + p->cq_off.flags);
	cq->koverflow = (unsigned *)(base + p->cq_off.overflow);
	cq->cqes = (struct io_uring_cqe *)(base + p->cq_off.cqes);
	cq->ring_mask = *cq->kring_mask;
	cq->ring_entries = *cq->kring_entries;
	for (unsigned i = 0; i < sq->ring_entries; i++)
		sq->array[i] = i;
	ring->features = p->features;
	ring->flags = p->flags;
}

static bool open_in_our_memory(struct tmem_ring *ring)
{
	struct io_uring_params p = {
		.flags = SETUP_NO_MMAP | IORING_SETUP_CQSIZE,
		.cq_entries = CQ_ENTRIES,
	};
	char *memory = tmem_sys_map_anon(MEMORY_BYTES, PROT_READ | PROT_WRITE);
	long fd = -ENOMEM;

	if (!memory)
		return false;
	/* Where newer headers say user_addr. */
	p.sq_off.resv2 = (uintptr_t)memory;
	p.cq_off.resv2 = (uintptr_t)memory + PAGE;
	if (tmem_sys_madvise(memory, MEMORY_BYTES, MADV_DONTFORK) == 0)
		fd = tmem_sys(SYS_io_uring_setup, SQ_ENTRIES, &p);
	if (fd < 0) {
		tmem_sys_unmap(memory, MEMORY_BYTES);
		return false;
	}
	memset(&ring->uring, 0, sizeof(ring->uring));
	fill_ring(&ring->uring, &p, memory, memory + PAGE);
	ring->uring.ring_fd = ring->uring.enter_ring_fd = (int)fd;
	ring->memory = memory;
	return true;
}

static bool open_in_kernels_memory(struct tmem_ring *ring, unsigned entries)
{
	if (io_uring_queue_init(entries, &ring->uring, 0) < 0)
		return false;
	if (io_uring_ring_dontfork(&ring->uring) < 0) {
		io_uring_queue_exit(&ring->uring);
		return false;
	}
	ring->memory = NULL;
	return true;
}

void tmem_ring_open(struct tmem_ring *ring, unsigned entries)
{
	ring->up = open_in_our_memory(ring) ||
		   open_in_kernels_memory(ring, entries);
}

void tmem_ring_close(struct tmem_ring *ring)
{
	if (!ring->up)
		return;
	if (ring->memory) {
		tmem_sys_close(ring->uring.ring_fd);
		tmem_sys_unmap(ring->memory, MEMORY_BYTES);
	} else {
		io_uring_queue_exit(&ring->uring);
	}
	ring->up = false;
}

bool tmem_ring_submit(struct tmem_ring *ring)
{
	int r;

	do {
		r = io_uring_submit(&ring->uring);
	} while (r == -EINTR);
	return r == 1;
}

void tmem_ring_wait(struct tmem_ring *ring, uint64_t until_ns)
{
	uint64_t now = until_ns ? tmem_sys_now_ns() : 0;
	uint64_t left = until_ns > now ? until_ns - now : 0;
	struct __kernel_timespec ts = { .tv_sec = (int64_t)(left / 1000000000u),
					.tv_nsec = (long)(left % 1000000000u) };
	struct io_uring_getevents_arg arg = { .sigmask_sz = SIGSET_BYTES,
					      .ts = (uintptr_t)&ts };
	long r;

	if (until_ns)
		r = tmem_sys(SYS_io_uring_enter, ring->uring.ring_fd, 0, 1,
			     IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
			     &arg, sizeof(arg));
	else
		r = tmem_sys(SYS_io_uring_enter, ring->uring.ring_fd, 0, 1,
			     IORING_ENTER_GETEVENTS, NULL, 0);
	if (r < 0 && r != -ETIME)
		tmem_sys(SYS_sched_yield);
}

void tmem_ring_for_each_mapping(const struct tmem_ring *ring,
				void (*fn)(void *arg, void *start,
					   size_t bytes),
				void *arg)
{
	const struct io_uring_sq *sq = &ring->uring.sq;
	const struct io_uring_cq *cq = &ring->uring.cq;

	if (!ring->up)
		return;
	if (ring->memory) {
		fn(arg, ring->memory, MEMORY_BYTES);
		return;
	}
	fn(arg, sq->ring_ptr, sq->ring_sz);
	fn(arg, sq->sqes, sq->ring_entries * sizeof(struct io_uring_sqe));
	if (cq->ring_ptr != sq->ring_ptr)
		fn(arg, cq->ring_ptr, cq->ring_sz);
}
