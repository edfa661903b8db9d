/* SPDX-License-Identifier: MIT */
/*
 * The tier in a file or on a block device: NVMe, and what looks like it.
 *
 * Segment n is at n MiB.  O_DIRECT where the file system has it, so that the
 * page cache does not hold a second copy of cold pages; io_uring where the
 * kernel has it, else pread and pwrite in the thread that submits.
 *
 * An *op* is one I/O.  A write, and a read of more than SMALL_MAX whole
 * blocks, goes from or to the caller's buffer.  Smaller reads go by a bounce
 * buffer of the op's own: that makes alignment our affair, lets ranges that
 * touch be one I/O, and lets go of a request at its deadline while the kernel
 * still has the memory.
 *
 * `requests` of an op are those that wait for it; whoever takes one off that
 * list, under the lock, answers it: at the end of the I/O (finish) or at its
 * deadline (expire).  The request of a large op that expires is `held`.  A
 * write that has expired is undone when it ends.
 *
 * One thread at a time *collects* the ring's completions and sleeps in it;
 * others that wait sleep on `events`, which is bumped when something was
 * answered, when something was given to the ring, and when a collector leaves.
 *
 * Invariants:
 *  T1 in_flight is the number of ops that are busy.
 *  T2 An op in the ring is busy; nr_ring counts them.
 *  T3 A request is on one op's list, or held by one, or not the tier's.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/assert.h"
#include "base/lock.h"
#include "base/ring.h"
#include "base/sys.h"
#include "space.h"

enum {
	DEFAULT_DEPTH = 32,
	MAX_DEPTH = 64, /* half of what the ring has completions for */
	BLOCK = TMEM_TIER_BLOCK,
	BOUNCE_BYTES = 64 << 10,
	SMALL_MAX = 32 << 10,
	MAX_TRIES = 3,
	SECOND = 1000000000
};

struct op {
	struct tmem_tier_request *requests;
	struct tmem_tier_request *held;
	char *memory; /* the caller's buffer or the bounce buffer */
	uint32_t segment;
	uint32_t offset; /* of memory[0] in the segment */
	uint32_t bytes;
	bool is_write;
	bool is_small;
	bool is_busy;
};

struct file_tier {
	/* Constant. */
	size_t self_bytes;
	unsigned depth;
	bool no_uring;
	char *bounce;
	struct op *ops;
	_Atomic bool direct;

	struct tmem_space space;
	_Atomic uint32_t in_flight;
	_Atomic uint32_t events;

	struct tmem_lock lock;
	struct tmem_ring ring; /* its completion side: the collector's */
	unsigned nr_ring;
	bool collecting;
	bool ring_broken;
};

static void wake_all(struct file_tier *f)
{
	f->events++;
	tmem_sys_futex_wake(&f->events, INT32_MAX);
}

/* O_DIRECT was accepted, but this file system can't do it after all. */
static void leave_direct(struct file_tier *f)
{
	long flags = tmem_sys(SYS_fcntl, f->space.fd, F_GETFL);

	if (flags >= 0)
		tmem_sys(SYS_fcntl, f->space.fd, F_SETFL, flags & ~O_DIRECT);
	f->direct = false;
}

/*
 * What `res` of the ring, or 0, leaves to be done, here and now.  0 or the
 * errno of the whole.
 */
static int do_rest(struct file_tier *f, const struct op *op, long res)
{
	const long nr = op->is_write ? SYS_pwrite64 : SYS_pread64;
	uint32_t done = 0, tries = 0;

	for (;;) {
		if (res > 0) {
			/* Direct I/O goes on at a block. */
			uint32_t whole = (done + (uint32_t)res) & ~(BLOCK - 1u);

			tries = whole > done ? 0 : tries + 1;
			done = whole;
		} else if (res == 0 || res == -EAGAIN || res == -EINVAL) {
			tries++;
			if (res == -EINVAL && f->direct)
				leave_direct(f);
		} else if (res != -EINTR) {
			return tmem_space_error(res);
		}
		if (done == op->bytes)
			return 0;
		if (tries > MAX_TRIES && res < 0)
			return (int)res;
		if (tries > MAX_TRIES)
			return op->is_write ? -ENOSPC : -EIO;
		res = tmem_sys(nr, f->space.fd, op->memory + done,
			       op->bytes - done,
			       tmem_space_at(op->segment) + op->offset + done);
	}
}

static int answer_list(struct file_tier *f, const struct op *op,
		       struct tmem_tier_request *list, int result)
{
	int n = 0;

	while (list) {
		struct tmem_tier_request *q = list;

		list = q->next;
		if (op->is_small && result == 0)
			memcpy(q->buffer, op->memory + (q->offset - op->offset),
			       q->bytes);
		if (!op->is_write && result == 0)
			f->space.counters.read_bytes += q->bytes;
		if (!op->is_write)
			f->space.counters.reads++;
		tmem_space_answer(&f->space, q, result, TMEM_TIER_DONE);
		n++;
	}
	return n;
}

/* The I/O has ended, with `res` bytes or an errno.  Answers, and frees it. */
static int finish(struct file_tier *f, struct op *op, long res)
{
	struct tmem_tier_request *list, *held;
	int result = do_rest(f, op, res), n;

	tmem_lock_acquire(&f->lock);
	list = op->requests;
	held = op->held;
	op->requests = op->held = NULL;
	tmem_lock_release(&f->lock);
	if (op->is_write && result == 0 && list)
		tmem_space_written(&f->space, op->segment, op->bytes);
	else if (op->is_write)
		tmem_space_unwritten(&f->space, op->segment);
	n = answer_list(f, op, list, result);
	if (held)
		held->state = TMEM_TIER_DONE;
	tmem_lock_acquire(&f->lock);
	op->is_busy = false;
	f->in_flight--;
	tmem_lock_release(&f->lock);
	wake_all(f);
	return n;
}

/* Deadlines */

/* Takes what is over its deadline off the list. */
static int expire_op_locked(struct file_tier *f, struct op *op, uint64_t now,
			    uint64_t *next_ns) TMEM_REQUIRES(&f->lock)
{
	struct tmem_tier_request **at = &op->requests, *q;
	int n = 0;

	while ((q = *at) != NULL) {
		if (q->deadline_ns == 0 || q->deadline_ns > now) {
			if (q->deadline_ns != 0 && q->deadline_ns < *next_ns)
				*next_ns = q->deadline_ns;
			at = &q->next;
			continue;
		}
		*at = q->next;
		if (!op->is_small)
			op->held = q;
		tmem_space_answer(&f->space, q, -ETIMEDOUT,
				  op->is_small ? TMEM_TIER_DONE
					       : TMEM_TIER_HELD);
		n++;
	}
	return n;
}

static int expire(struct file_tier *f, uint64_t now, uint64_t *next_ns)
{
	int n = 0;

	tmem_lock_acquire(&f->lock);
	for (unsigned i = 0; i < f->depth; i++)
		if (f->ops[i].is_busy)
			n += expire_op_locked(f, &f->ops[i], now, next_ns);
	tmem_lock_release(&f->lock);
	if (n != 0)
		wake_all(f);
	return n;
}

/* Submitting */

static struct op *take_op(struct file_tier *f)
{
	struct op *op = NULL;

	tmem_lock_acquire(&f->lock);
	for (unsigned i = 0; i < f->depth && !op; i++) {
		if (f->ops[i].is_busy)
			continue;
		op = &f->ops[i];
		op->is_busy = true;
		f->in_flight++;
	}
	tmem_lock_release(&f->lock);
	return op;
}

static bool submit_locked(struct file_tier *f, struct op *op)
	TMEM_REQUIRES(&f->lock)
{
	uint64_t at = tmem_space_at(op->segment) + op->offset;
	struct io_uring_sqe *sqe;

	if (!f->ring.up || f->ring_broken)
		return false;
	sqe = tmem_ring_entry(&f->ring);
	if (sqe) {
		if (op->is_write)
			io_uring_prep_write(sqe, f->space.fd, op->memory,
					    op->bytes, at);
		else
			io_uring_prep_read(sqe, f->space.fd, op->memory,
					   op->bytes, at);
		sqe->user_data = (uint64_t)(op - f->ops);
		if (tmem_ring_submit(&f->ring)) {
			f->nr_ring++;
			return true;
		}
	}
	f->ring_broken = true;
	return false;
}

/* With `list` waiting for it; by the ring, or here and now. */
static void start(struct file_tier *f, struct op *op,
		  struct tmem_tier_request *list)
{
	bool submitted, is_watched;

	if (!op->is_write) {
		f->space.counters.read_ios++;
		f->space.counters.read_io_bytes += op->bytes;
	}
	tmem_lock_acquire(&f->lock);
	op->requests = list;
	submitted = submit_locked(f, op);
	is_watched = f->collecting;
	tmem_lock_release(&f->lock);
	if (!submitted)
		finish(f, op, 0);
	else if (is_watched)
		wake_all(f);
}

static int file_write(void *tier, struct tmem_tier_request *q)
{
	struct file_tier *f = tier;
	struct op *op = take_op(f);
	int r;

	if (!op)
		return 0;
	r = tmem_space_claim(&f->space, q);
	if (r < 0) {
		tmem_lock_acquire(&f->lock);
		op->is_busy = false;
		f->in_flight--;
		tmem_lock_release(&f->lock);
		tmem_space_answer(&f->space, q, r, TMEM_TIER_DONE);
		return 1;
	}
	op->is_write = true;
	op->is_small = false;
	op->memory = q->buffer;
	op->segment = q->segment;
	op->offset = 0;
	op->bytes = q->bytes;
	q->next = NULL;
	q->state = TMEM_TIER_PENDING;
	start(f, op, q);
	return 1;
}

static bool is_small(const struct tmem_tier_request *q)
{
	return q->bytes <= SMALL_MAX ||
	       ((uintptr_t)q->buffer | q->offset | q->bytes) % BLOCK != 0;
}

static uint32_t first_block(const struct tmem_tier_request *q)
{
	return q->offset & ~(BLOCK - 1u);
}

static uint32_t end_block(const struct tmem_tier_request *q)
{
	return (q->offset + q->bytes + BLOCK - 1) & ~(BLOCK - 1u);
}

/* True if the op then reads q too: its blocks touch, and there is room. */
static bool widen(struct op *op, const struct tmem_tier_request *q)
{
	uint32_t first = first_block(q), end = end_block(q);
	uint32_t op_end = op->offset + op->bytes;

	if (q->segment != op->segment || !is_small(q) || first > op_end ||
	    end < op->offset)
		return false;
	if (first > op->offset)
		first = op->offset;
	if (end < op_end)
		end = op_end;
	if (end - first > BOUNCE_BYTES)
		return false;
	op->offset = first;
	op->bytes = end - first;
	return true;
}

/* The op for as many of them as it can be for. */
static unsigned fill_read(struct file_tier *f, struct op *op,
			  struct tmem_tier_request *const *requests,
			  unsigned nr)
{
	struct tmem_tier_request *q = requests[0];
	unsigned n = 1;

	op->is_write = false;
	op->is_small = is_small(q);
	op->segment = q->segment;
	op->offset = first_block(q);
	op->bytes = end_block(q) - op->offset;
	op->memory = q->buffer;
	if (op->is_small)
		op->memory = f->bounce + (op - f->ops) * BOUNCE_BYTES;
	q->state = TMEM_TIER_PENDING;
	while (op->is_small && n < nr &&
	       tmem_space_check_read(&f->space, requests[n]) == 0 &&
	       widen(op, requests[n])) {
		q->next = requests[n++];
		q = q->next;
		q->state = TMEM_TIER_PENDING;
	}
	q->next = NULL;
	return n;
}

static int file_read(void *tier, struct tmem_tier_request *const *requests,
		     unsigned nr)
{
	struct file_tier *f = tier;
	unsigned taken = 0;

	while (taken < nr) {
		struct tmem_tier_request *first = requests[taken];
		int r = tmem_space_check_read(&f->space, first);
		struct op *op;

		if (r < 0) {
			tmem_space_answer(&f->space, first, r, TMEM_TIER_DONE);
			taken++;
			continue;
		}
		op = take_op(f);
		if (!op)
			break;
		taken += fill_read(f, op, requests + taken, nr - taken);
		start(f, op, first);
	}
	return (int)taken;
}

static int file_drop(void *tier, uint32_t segment)
{
	struct file_tier *f = tier;

	return tmem_space_drop(&f->space, segment);
}

/* Answering */

static int collect(struct file_tier *f)
{
	struct io_uring_cqe *cqe;
	int n = 0;

	if (!f->ring.up)
		return 0;
	while (io_uring_peek_cqe(&f->ring.uring, &cqe) == 0) {
		struct op *op = &f->ops[cqe->user_data];
		int res = cqe->res;

		io_uring_cqe_seen(&f->ring.uring, cqe);
		tmem_lock_acquire(&f->lock);
		TMEM_ASSERT(op->is_busy && f->nr_ring != 0);
		f->nr_ring--;
		tmem_lock_release(&f->lock);
		n += finish(f, op, res);
	}
	return n;
}

static bool begin_collecting(struct file_tier *f)
{
	bool mine;

	tmem_lock_acquire(&f->lock);
	mine = !f->collecting;
	f->collecting = true;
	tmem_lock_release(&f->lock);
	return mine;
}

static void end_collecting(struct file_tier *f)
{
	tmem_lock_acquire(&f->lock);
	f->collecting = false;
	tmem_lock_release(&f->lock);
	wake_all(f);
}

/* Until `events` is not `seen`, a completion (if it is ours to see), a time. */
static void sleep_until(struct file_tier *f, bool mine, uint32_t seen,
			uint64_t until_ns)
{
	uint64_t now = tmem_sys_now_ns();
	uint64_t left = until_ns > now ? until_ns - now : 0;
	struct timespec ts = { (time_t)(left / SECOND), (long)(left % SECOND) };
	bool in_ring;

	tmem_lock_acquire(&f->lock);
	in_ring = mine && f->nr_ring != 0;
	tmem_lock_release(&f->lock);
	if (in_ring)
		tmem_ring_wait(&f->ring, until_ns);
	else
		tmem_sys_futex_wait(&f->events, seen, &ts);
}

static int file_poll(void *tier, const struct tmem_tier_request *request,
		     uint64_t until_ns)
{
	struct file_tier *f = tier;
	bool mine = false;
	int n = 0;

	for (;;) {
		uint64_t now = tmem_sys_now_ns(), next = until_ns;
		uint32_t seen = f->events;

		if (f->in_flight == 0)
			break;
		mine = mine || begin_collecting(f);
		if (mine)
			n += collect(f);
		n += expire(f, now, &next);
		if (now >= until_ns || f->in_flight == 0 ||
		    (request ? tmem_tier_is_answered(request) : n != 0))
			break;
		sleep_until(f, mine, seen, next);
		if (!request && !mine)
			until_ns = 0; /* somebody else may have been faster */
	}
	if (mine)
		end_collecting(f);
	return n;
}

/* Opening and closing */

static void set_up_direct(struct file_tier *f)
{
	long flags = tmem_sys(SYS_fcntl, f->space.fd, F_GETFL);

	if (flags < 0)
		return;
	f->direct = (flags & O_DIRECT) != 0;
	if (f->direct)
		return;
	if (tmem_sys(SYS_fcntl, f->space.fd, F_SETFL, flags | O_DIRECT) < 0)
		return;
	f->direct = true;
	if (tmem_sys(SYS_pread64, f->space.fd, f->bounce, BLOCK, 0) < 0)
		leave_direct(f);
}

static void open_ring(struct file_tier *f)
{
	f->ring_broken = false;
	f->ring.up = false;
	if (!f->no_uring)
		tmem_ring_open(&f->ring, f->depth);
}

static void free_memory(struct file_tier *f)
{
	if (f->bounce)
		tmem_sys_unmap(f->bounce, (size_t)f->depth * BOUNCE_BYTES);
	tmem_sys_unmap(f, f->self_bytes);
}

static int file_open(const struct tmem_tier_options *options, void **ret_tier)
{
	unsigned depth = options->depth ? options->depth : DEFAULT_DEPTH;
	struct file_tier *f;
	size_t bytes;
	int r;

	if (depth > MAX_DEPTH)
		depth = MAX_DEPTH;
	bytes = sizeof(*f) + depth * sizeof(struct op);
	f = tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);
	if (!f)
		return -ENOMEM;
	f->self_bytes = bytes;
	f->depth = depth;
	f->no_uring = options->no_uring;
	f->ops = (struct op *)(f + 1);
	f->bounce = tmem_sys_map_anon((size_t)depth * BOUNCE_BYTES,
				      PROT_READ | PROT_WRITE);
	r = f->bounce ? tmem_space_open(&f->space, options) : -ENOMEM;
	if (r < 0) {
		free_memory(f);
		return r;
	}
	tmem_sys_madvise(f->bounce, (size_t)depth * BOUNCE_BYTES,
			 MADV_NOHUGEPAGE);
	tmem_lock_init(&f->lock, TMEM_RANK_TIER);
	if (!options->no_direct)
		set_up_direct(f);
	open_ring(f);
	*ret_tier = f;
	return 0;
}

static int file_reopen(void *tier)
{
	struct file_tier *f = tier;

	TMEM_ASSERT(f->in_flight == 0);
	tmem_lock_init(&f->lock, TMEM_RANK_TIER);
	f->collecting = false;
	f->nr_ring = 0;
	open_ring(f);
	return 0;
}

static void file_stats(void *tier, struct tmem_tier_stats *ret_stats)
{
	struct file_tier *f = tier;

	tmem_space_get_stats(&f->space, ret_stats);
	ret_stats->memory_bytes +=
		f->self_bytes + (size_t)f->depth * BOUNCE_BYTES;
}

static void file_close(void *tier)
{
	struct file_tier *f = tier;

	if (!f)
		return;
	while (f->in_flight != 0)
		file_poll(f, NULL, tmem_sys_now_ns() + SECOND);
	tmem_ring_close(&f->ring);
	tmem_space_close(&f->space);
	free_memory(f);
}

const struct tmem_tier_ops tmem_tier_file = {
	.name = "file",
	.open = file_open,
	.write = file_write,
	.read = file_read,
	.drop = file_drop,
	.poll = file_poll,
	.reopen = file_reopen,
	.stats = file_stats,
	.close = file_close,
};
