/* SPDX-License-Identifier: MIT */
/*
 * The swap file's io_uring.
 *
 * Its memory is ours (IORING_SETUP_NO_MMAP, Linux 6.5), one page for the
 * entries and one for the two rings: the kernel refuses to map rings at an
 * address of our choice, and the pager must not land in a hole that the
 * program made, which the program may map over at any time.  The submission
 * ring is short, since each entry is submitted at once; completions for which
 * the other has no room wait in the kernel.
 *
 * Older kernels map the rings themselves; none of those can run the pager.
 */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "frontends/swapfile_impl.h"

enum {
	SQ_ENTRIES = 8,
	CQ_ENTRIES = 128,
	SETUP_NO_MMAP = 1 << 14, /* newer than Debian 12's headers */
	MEMORY_BYTES = 2 * TMEM_PAGE_SIZE
};

_Static_assert(SQ_ENTRIES * sizeof(struct io_uring_sqe) <= TMEM_PAGE_SIZE &&
		       CQ_ENTRIES * sizeof(struct io_uring_cqe) +
				       SQ_ENTRIES * sizeof(unsigned) + 512 <=
			       TMEM_PAGE_SIZE,
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

/* A child that shared the ring's memory would disturb ours. */
static bool open_in_our_memory(struct tmem_swapfile *f)
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
	p.cq_off.resv2 = (uintptr_t)memory + TMEM_PAGE_SIZE;
	if (tmem_sys_madvise(memory, MEMORY_BYTES, MADV_DONTFORK) == 0)
		fd = tmem_sys(SYS_io_uring_setup, SQ_ENTRIES, &p);
	if (fd < 0) {
		tmem_sys_unmap(memory, MEMORY_BYTES);
		return false;
	}
	memset(&f->ring, 0, sizeof(f->ring));
	fill_ring(&f->ring, &p, memory, memory + TMEM_PAGE_SIZE);
	f->ring.ring_fd = f->ring.enter_ring_fd = (int)fd;
	f->ring_memory = memory;
	return true;
}

static bool open_in_kernels_memory(struct tmem_swapfile *f)
{
	if (io_uring_queue_init(f->depth, &f->ring, 0) < 0)
		return false;
	if (io_uring_ring_dontfork(&f->ring) < 0) {
		io_uring_queue_exit(&f->ring);
		return false;
	}
	f->ring_memory = NULL;
	return true;
}

void tmem_swapfile_ring_open(struct tmem_swapfile *f)
{
	f->ring_broken = false;
	f->ring_up = !f->no_uring &&
		     (open_in_our_memory(f) || open_in_kernels_memory(f));
}

void tmem_swapfile_ring_close(struct tmem_swapfile *f)
{
	if (!f->ring_up)
		return;
	if (f->ring_memory) {
		tmem_sys_close(f->ring.ring_fd);
		tmem_sys_unmap(f->ring_memory, MEMORY_BYTES);
	} else {
		io_uring_queue_exit(&f->ring);
	}
	f->ring_up = false;
}

void tmem_swapfile_ring_for_each_mapping(const struct tmem_swapfile *f,
					 void (*fn)(void *arg, void *start,
						    size_t bytes),
					 void *arg)
{
	const struct io_uring_sq *sq = &f->ring.sq;
	const struct io_uring_cq *cq = &f->ring.cq;

	if (!f->ring_up)
		return;
	if (f->ring_memory) {
		fn(arg, f->ring_memory, MEMORY_BYTES);
		return;
	}
	fn(arg, sq->ring_ptr, sq->ring_sz);
	fn(arg, sq->sqes, sq->ring_entries * sizeof(struct io_uring_sqe));
	if (cq->ring_ptr != sq->ring_ptr)
		fn(arg, cq->ring_ptr, cq->ring_sz);
}
