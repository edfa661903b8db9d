/* SPDX-License-Identifier: MIT */
/*
 * The swap file's writing side: entries from write to done().  swapfile.c
 * says how it works and what holds.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

#include "base/chaos.h"
#include "base/sys.h"
#include "frontends/swapfile_impl.h"

enum {
	DISCARD_STEP = 1024 /* pages forgotten under one hold of the lock */
};

void tmem_swapfile_leave_direct(struct tmem_swapfile *f)
{
	long flags = tmem_sys(SYS_fcntl, f->file_fd, F_GETFL);

	if (flags >= 0)
		tmem_sys(SYS_fcntl, f->file_fd, F_SETFL, flags & ~O_DIRECT);
	f->direct = false;
}

/* Nobody reads the page any more once this returns. */
static void wait_for_readers(struct tmem_swapfile_entry *e)
{
	unsigned spins = 0;

	while (e->readers != 0) {
		if (++spins % 128 == 0)
			tmem_sys(SYS_sched_yield);
		else
			__builtin_ia32_pause();
	}
}

/* True if something was there. */
static bool forget_locked(struct tmem_swapfile *f, uint64_t offset)
	TMEM_REQUIRES(&f->lock)
{
	uint32_t w = f->where[offset];

	if (w == 0)
		return false;
	f->where[offset] = 0;
	f->held--;
	if (w & TMEM_SWAPFILE_IN_FLIGHT)
		f->entries[w & ~TMEM_SWAPFILE_IN_FLIGHT].discarded = true;
	else
		tmem_swapmap_drop(&f->map, w - 1);
	return true;
}

/* What goes to the disk. */
static void *page_of(const struct tmem_swapfile *f,
		     const struct tmem_swapfile_entry *e)
{
	return f->seal ? f->sealed + (e - f->entries) * TMEM_PAGE_SIZE
		       : e->request->page;
}

/* One page, synchronously: 0 or -errno. */
static int write_one(struct tmem_swapfile *f,
		     const struct tmem_swapfile_entry *e)
{
	if (tmem_chaos_hits(TMEM_CHAOS_WRITE))
		return -EIO;
	for (unsigned shorts = 0; shorts < 2;) {
		long r = tmem_sys(SYS_pwrite64, f->file_fd, page_of(f, e),
				  TMEM_PAGE_SIZE,
				  (uint64_t)e->slot * TMEM_PAGE_SIZE);

		if (r == TMEM_PAGE_SIZE)
			return 0;
		if (r >= 0) {
			shorts++;
			continue;
		}
		if (r == -EINVAL && f->direct) {
			tmem_swapfile_leave_direct(f);
			continue;
		}
		if (r == -EFBIG || r == -EDQUOT)
			return -ENOSPC;
		if (r != -EINTR)
			return (int)r;
	}
	return -ENOSPC;
}

/*
 * The write of `nr` entries from `index` ended with `res`: what it did not
 * write is tried page by page, so that each page gets its own result.
 */
static void finish_run(struct tmem_swapfile *f, unsigned index, unsigned nr,
		       long res)
{
	unsigned whole = res > 0 ? (unsigned)(res / TMEM_PAGE_SIZE) : 0;

	if (tmem_chaos_hits(TMEM_CHAOS_SHORT))
		whole /= 2;
	for (unsigned i = 0; i < nr; i++) {
		struct tmem_swapfile_entry *e = &f->entries[index + i];

		e->result = i < whole ? 0 : write_one(f, e);
	}
}

static void wake_all(struct tmem_swapfile *f)
{
	f->events++;
	tmem_sys_futex_wake(&f->events, INT32_MAX);
}

/*
 * Takes queued entries whose slots are in a row out of the queue.  Pages
 * discarded meanwhile are done already.  Returns how many, 0 if none is left.
 */
static unsigned take_run_locked(struct tmem_swapfile *f, unsigned *ret_index)
	TMEM_REQUIRES(&f->lock)
{
	const unsigned mask = f->depth - 1;
	unsigned index, nr = 0;

	while (f->queued != f->head && f->entries[f->queued & mask].discarded) {
		f->entries[f->queued & mask].state = TMEM_ENTRY_DONE;
		f->nr_done++;
		f->queued++;
	}
	index = f->queued & mask;
	while (f->queued != f->head && nr < f->max_run &&
	       index + nr < f->depth) {
		struct tmem_swapfile_entry *e = &f->entries[index + nr];

		if (e->discarded || e->slot != f->entries[index].slot + nr)
			break;
		e->state = TMEM_ENTRY_WRITING;
		f->iov[index + nr].iov_base = page_of(f, e);
		f->iov[index + nr].iov_len = TMEM_PAGE_SIZE;
		nr++;
		f->queued++;
	}
	*ret_index = index;
	return nr;
}

/* False if the ring can't be used: it is not asked again. */
static bool submit_locked(struct tmem_swapfile *f, unsigned index, unsigned nr)
	TMEM_REQUIRES(&f->lock)
{
	struct io_uring_sqe *sqe;

	if (!f->ring.up || f->ring_broken)
		return false;
	sqe = tmem_ring_entry(&f->ring);
	if (sqe) {
		io_uring_prep_writev(sqe, f->file_fd, &f->iov[index], nr,
				     (uint64_t)f->entries[index].slot *
					     TMEM_PAGE_SIZE);
		sqe->user_data = index | (uint64_t)nr << 32;
		if (tmem_ring_submit(&f->ring)) {
			f->nr_ring++;
			return true;
		}
	}
	f->ring_broken = true;
	return false;
}

/* Each page once: a nonce is for one text. */
static void seal_run(struct tmem_swapfile *f, unsigned index, unsigned nr)
{
	uint64_t number = tmem_swapmap_draw_numbers(&f->map, nr);

	for (unsigned i = index; i < index + nr; i++) {
		struct tmem_swapfile_entry *e = &f->entries[i];
		struct tmem_swapfile_slot *s = &f->slots[e->slot];
		struct tmem_seal_text text;

		s->number = number++;
		text = tmem_swapfile_text(s->number, &e->slot, e->request->page,
					  page_of(f, e));
		tmem_seal_encrypt(f->seal, &text, s->tag);
	}
}

static void write_run(struct tmem_swapfile *f, unsigned index, unsigned nr)
{
	long r = tmem_sys(SYS_pwritev, f->file_fd, &f->iov[index], nr,
			  (uint64_t)f->entries[index].slot * TMEM_PAGE_SIZE);

	finish_run(f, index, nr, r);
	tmem_lock_acquire(&f->lock);
	for (unsigned i = 0; i < nr; i++)
		f->entries[index + i].state = TMEM_ENTRY_DONE;
	f->nr_done += nr;
	tmem_lock_release(&f->lock);
	wake_all(f);
}

void tmem_swapfile_flush(void *dev)
{
	struct tmem_swapfile *f = dev;
	unsigned index, nr;

	for (;;) {
		bool submitted, is_watched;

		tmem_lock_acquire(&f->lock);
		nr = take_run_locked(f, &index);
		tmem_lock_release(&f->lock);
		if (nr == 0)
			return;
		if (f->seal)
			seal_run(f, index, nr);
		tmem_lock_acquire(&f->lock);
		submitted = submit_locked(f, index, nr);
		/* Who collects may sleep, having seen nothing in the ring. */
		is_watched = f->collecting && f->nr_ring == 1;
		tmem_lock_release(&f->lock);
		if (!submitted)
			write_run(f, index, nr);
		else if (is_watched)
			wake_all(f);
	}
}

static int write_locked(struct tmem_swapfile *f,
			struct tmem_swapdev_request *request, uint64_t sum)
	TMEM_REQUIRES(&f->lock)
{
	uint32_t index = f->head & (f->depth - 1);
	struct tmem_swapfile_entry *e = &f->entries[index];
	int r;

	if (e->state != TMEM_ENTRY_FREE)
		return -EAGAIN;
	forget_locked(f, request->offset);
	r = tmem_chaos_hits(TMEM_CHAOS_FULL)
		    ? -ENOSPC
		    : tmem_swapmap_alloc(&f->map, &e->slot);
	if (r < 0)
		return r;
	f->slots[e->slot].sum = sum;
	e->request = request;
	e->offset = request->offset;
	e->result = 0;
	e->discarded = false;
	e->state = TMEM_ENTRY_QUEUED;
	f->head++;
	f->in_flight++;
	f->held++;
	if (f->end <= request->offset)
		f->end = request->offset + 1;
	f->where[request->offset] = TMEM_SWAPFILE_IN_FLIGHT | index;
	return 0;
}

int tmem_swapfile_write(void *dev, struct tmem_swapdev_request *request)
{
	struct tmem_swapfile *f = dev;
	uint64_t sum;
	bool ready;
	int r;

	if (request->offset >= f->nr_offsets)
		return -EINVAL;
	sum = tmem_swapfile_sum(f, request->page);
	tmem_lock_acquire(&f->lock);
	r = write_locked(f, request, sum);
	ready = f->ring.up && !f->ring_broken &&
		f->head - f->queued >= f->max_run;
	tmem_lock_release(&f->lock);
	if (r == 0 && ready)
		tmem_swapfile_flush(f);
	return r;
}

/* Collecting */

static void complete(struct tmem_swapfile *f, struct tmem_swapfile_entry *e)
{
	struct tmem_swapdev_request *request = e->request;
	int result;

	tmem_lock_acquire(&f->lock);
	result = e->discarded ? 0 : e->result;
	if (!e->discarded && result == 0) {
		f->where[e->offset] = e->slot + 1;
	} else if (!e->discarded) {
		f->where[e->offset] = 0;
		f->held--;
	}
	tmem_swapmap_written(&f->map, e->slot);
	if (e->discarded || result != 0)
		tmem_swapmap_drop(&f->map, e->slot);
	tmem_lock_release(&f->lock);
	wait_for_readers(e);
	e->state = TMEM_ENTRY_FREE;
	f->in_flight--;
	request->done(request, result);
}

static int collect_done(struct tmem_swapfile *f)
{
	int n = 0;

	for (unsigned i = 0; i < f->depth; i++) {
		struct tmem_swapfile_entry *e = &f->entries[i];

		if (e->state != TMEM_ENTRY_DONE)
			continue;
		tmem_lock_acquire(&f->lock);
		f->nr_done--;
		tmem_lock_release(&f->lock);
		complete(f, e);
		n++;
	}
	return n;
}

static int collect_ring(struct tmem_swapfile *f)
{
	struct io_uring_cqe *cqe;
	int n = 0;

	while (io_uring_peek_cqe(&f->ring.uring, &cqe) == 0) {
		unsigned index = (uint32_t)cqe->user_data;
		unsigned nr = (unsigned)(cqe->user_data >> 32);
		int res = cqe->res;

		io_uring_cqe_seen(&f->ring.uring, cqe);
		tmem_lock_acquire(&f->lock);
		f->nr_ring--;
		tmem_lock_release(&f->lock);
		finish_run(f, index, nr, res);
		for (unsigned i = 0; i < nr; i++)
			complete(f, &f->entries[index + i]);
		n += (int)nr;
	}
	return n;
}

/* What has finished; calls done(). */
static int collect(struct tmem_swapfile *f)
{
	bool done, ring;
	int n = 0;

	tmem_lock_acquire(&f->lock);
	done = f->nr_done != 0;
	ring = f->nr_ring != 0;
	tmem_lock_release(&f->lock);
	if (done)
		n += collect_done(f);
	if (ring)
		n += collect_ring(f);
	return n;
}

/* Sleeps until something may have finished. */
static void block(struct tmem_swapfile *f)
{
	uint32_t seen = f->events;
	bool ring, idle;

	tmem_lock_acquire(&f->lock);
	ring = f->nr_ring != 0;
	idle = f->nr_done != 0 || f->queued != f->head;
	tmem_lock_release(&f->lock);
	if (idle)
		return;
	if (!ring)
		tmem_sys_futex_wait(&f->events, seen, NULL);
	else
		tmem_ring_wait(&f->ring, 0);
}

int tmem_swapfile_reap(void *dev, bool wait)
{
	struct tmem_swapfile *f = dev;
	uint32_t seen;
	bool mine;
	int n;

	if (wait)
		tmem_swapfile_flush(f);
	if (f->in_flight == 0)
		return 0;
	tmem_lock_acquire(&f->lock);
	mine = !f->collecting;
	f->collecting = true;
	seen = f->events;
	tmem_lock_release(&f->lock);
	if (!mine) {
		if (wait)
			tmem_sys_futex_wait(&f->events, seen, NULL);
		return 0;
	}
	n = collect(f);
	while (n == 0 && wait && f->in_flight != 0) {
		block(f);
		tmem_swapfile_flush(f);
		n = collect(f);
	}
	tmem_lock_acquire(&f->lock);
	f->collecting = false;
	tmem_lock_release(&f->lock);
	wake_all(f);
	return n;
}

void tmem_swapfile_discard(void *dev, uint64_t offset, uint64_t nr_pages)
{
	struct tmem_swapfile *f = dev;
	uint64_t end = f->end;

	if (f->held == 0 || offset >= end)
		return;
	if (nr_pages < end - offset)
		end = offset + nr_pages;
	while (offset < end && f->held != 0) {
		unsigned n = 0;

		while (offset < end && f->where[offset] == 0)
			offset++;
		if (offset == end)
			return;
		tmem_lock_acquire(&f->lock);
		for (; offset < end && n < DISCARD_STEP; n++)
			forget_locked(f, offset++);
		tmem_lock_release(&f->lock);
	}
}
