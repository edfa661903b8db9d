/* SPDX-License-Identifier: MIT */
/*
 * The tier in mapped memory: persistent memory by DAX, or a plain file.
 *
 * Segment n is at n MiB of one shared mapping; a write and a read are a copy,
 * done before write and read return, so nothing is ever in flight or held.
 * The system's granules are cache lines: no range is read as more than it is.
 *
 * FLUSHING.  What a tier owes is that a segment outlives the *process*: its
 * key is in RAM, so nothing outlives the machine unless the key does.  A
 * shared mapping owes that already: the page cache, or the memory itself, has
 * what was copied.  With MAP_SYNC (DAX, where the kernel grants it) a line
 * that has left the CPU's caches is also durable, metadata of the file
 * included, so there a write ends by writing its lines back and a fence:
 * what was answered 0 then survives a power failure.  In a plain file it does
 * not: write-back is the kernel's, at its own time; no msync here, since
 * whoever wants cold pages on a disk opens the file tier.
 *
 * ERRORS.  Touching a mapping of a file that can't get a block, or can't read
 * one, is SIGBUS, which would end the program.  So a write allocates first
 * (fallocate: ENOSPC is then an answer), and both first have the kernel fault
 * the pages in (MADV_POPULATE_*, Linux 5.14), which says an errno instead.
 * A line of persistent memory that is broken (a machine check at the copy) is
 * the one thing that remains a SIGBUS.
 */
#include <cpuid.h>
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "space.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 3
#endif

enum {
	LINE_BYTES = 64,
	LEAF = 7,
	HAS_CLFLUSHOPT = 1 << 23,
	HAS_CLWB = 1 << 24
};

enum flush {
	FLUSH_NONE, /* not MAP_SYNC */
	FLUSH_CLWB,
	FLUSH_CLFLUSHOPT,
	FLUSH_CLFLUSH
};

struct mapped_tier {
	struct tmem_space space;
	char *start;
	size_t bytes;
	enum flush flush;
};

static enum flush best_flush(void)
{
	unsigned a, b = 0, c, d;

	if (!__get_cpuid_count(LEAF, 0, &a, &b, &c, &d))
		return FLUSH_CLFLUSH;
	if (b & HAS_CLWB)
		return FLUSH_CLWB;
	return b & HAS_CLFLUSHOPT ? FLUSH_CLFLUSHOPT : FLUSH_CLFLUSH;
}

static void flush_lines(enum flush how, const char *start, size_t bytes)
{
	if (how == FLUSH_NONE)
		return;
	for (size_t at = 0; at < bytes; at += LINE_BYTES) {
		const char *line = start + at;

		if (how == FLUSH_CLWB)
			__asm__ volatile("clwb %0" : : "m"(*line) : "memory");
		else if (how == FLUSH_CLFLUSHOPT)
			__asm__ volatile("clflushopt %0"
					 :
					 : "m"(*line)
					 : "memory");
		else
			__asm__ volatile("clflush %0"
					 :
					 : "m"(*line)
					 : "memory");
	}
	__asm__ volatile("sfence" : : : "memory");
}

/* The pages under it are there, for reading or writing: 0 or -errno. */
static int populate(const char *start, size_t bytes, int advice)
{
	uintptr_t first = (uintptr_t)start & ~(uintptr_t)(TMEM_TIER_BLOCK - 1);
	uintptr_t end = (uintptr_t)start + bytes;
	long r = tmem_sys(SYS_madvise, first, end - first, advice);

	/* Where touching it would be SIGBUS. */
	if (r == -EFAULT || r == -EHWPOISON)
		return -EIO;
	return (int)r;
}

static int write_segment(struct mapped_tier *m,
			 const struct tmem_tier_request *q)
{
	char *to = m->start + tmem_space_at(q->segment);
	long r = 0;

	if (!m->space.is_device)
		r = tmem_sys(SYS_fallocate, m->space.fd, 0,
			     tmem_space_at(q->segment), q->bytes);
	if (r < 0)
		return tmem_space_error(r);
	r = populate(to, q->bytes, MADV_POPULATE_WRITE);
	if (r < 0)
		return tmem_space_error(r);
	memcpy(to, q->buffer, q->bytes);
	flush_lines(m->flush, to, q->bytes);
	return 0;
}

static int mapped_write(void *tier, struct tmem_tier_request *q)
{
	struct mapped_tier *m = tier;
	int r = tmem_space_claim(&m->space, q);

	if (r == 0) {
		r = write_segment(m, q);
		if (r == 0)
			tmem_space_written(&m->space, q->segment, q->bytes);
		else
			tmem_space_unwritten(&m->space, q->segment);
	}
	tmem_space_answer(&m->space, q, r, TMEM_TIER_DONE);
	return 1;
}

static int read_range(struct mapped_tier *m, const struct tmem_tier_request *q)
{
	const char *from = m->start + tmem_space_at(q->segment) + q->offset;
	struct tmem_space_counters *c = &m->space.counters;
	int r = populate(from, q->bytes, MADV_POPULATE_READ);

	c->reads++;
	c->read_ios++;
	if (r < 0)
		return r;
	memcpy(q->buffer, from, q->bytes);
	c->read_bytes += q->bytes;
	c->read_io_bytes += q->bytes;
	return 0;
}

static int mapped_read(void *tier, struct tmem_tier_request *const *requests,
		       unsigned nr)
{
	struct mapped_tier *m = tier;

	for (unsigned i = 0; i < nr; i++) {
		int r = tmem_space_check_read(&m->space, requests[i]);

		if (r == 0)
			r = read_range(m, requests[i]);
		tmem_space_answer(&m->space, requests[i], r, TMEM_TIER_DONE);
	}
	return (int)nr;
}

static int mapped_drop(void *tier, uint32_t segment)
{
	struct mapped_tier *m = tier;

	return tmem_space_drop(&m->space, segment);
}

static int mapped_poll(void *tier, const struct tmem_tier_request *request,
		       uint64_t until_ns)
{
	(void)tier;
	(void)request;
	(void)until_ns;
	return 0;
}

static int mapped_reopen(void *tier)
{
	(void)tier;
	return 0;
}

/* Over a reservation, so that it is where our memory is. */
static int map(struct mapped_tier *m)
{
	const int prot = PROT_READ | PROT_WRITE;
	long r;

	m->start = tmem_sys_map_anon(m->bytes, PROT_NONE);
	if (!m->start)
		return -ENOMEM;
	r = tmem_sys(SYS_mmap, m->start, m->bytes, prot,
		     MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, m->space.fd,
		     0);
	m->flush = best_flush();
	if (r < 0 && r > -4096) {
		m->flush = FLUSH_NONE;
		r = tmem_sys(SYS_mmap, m->start, m->bytes, prot,
			     MAP_SHARED | MAP_FIXED, m->space.fd, 0);
	}
	if (r < 0 && r > -4096) {
		tmem_sys_unmap(m->start, m->bytes);
		return (int)r;
	}
	return 0;
}

static int mapped_open(const struct tmem_tier_options *options, void **ret_tier)
{
	struct mapped_tier *m =
		tmem_sys_map_anon(sizeof(*m), PROT_READ | PROT_WRITE);
	int r;

	if (!m)
		return -ENOMEM;
	r = tmem_space_open(&m->space, options);
	if (r == 0) {
		m->bytes = (size_t)m->space.nr_segments * TMEM_SEGMENT_BYTES;
		r = map(m);
		/* A kernel that can't would leave us to SIGBUS. */
		if (r == 0 &&
		    tmem_sys_madvise(m->start, 0, MADV_POPULATE_READ) < 0) {
			tmem_sys_unmap(m->start, m->bytes);
			r = -EOPNOTSUPP;
		}
		if (r < 0)
			tmem_space_close(&m->space);
	}
	if (r < 0) {
		tmem_sys_unmap(m, sizeof(*m));
		return r;
	}
	*ret_tier = m;
	return 0;
}

static void mapped_stats(void *tier, struct tmem_tier_stats *ret_stats)
{
	struct mapped_tier *m = tier;

	tmem_space_get_stats(&m->space, ret_stats);
	ret_stats->memory_bytes += sizeof(*m) + m->bytes;
}

static void mapped_close(void *tier)
{
	struct mapped_tier *m = tier;

	if (!m)
		return;
	tmem_sys_unmap(m->start, m->bytes);
	tmem_space_close(&m->space);
	tmem_sys_unmap(m, sizeof(*m));
}

const struct tmem_tier_ops tmem_tier_mapped = {
	.name = "mapped",
	.open = mapped_open,
	.write = mapped_write,
	.read = mapped_read,
	.drop = mapped_drop,
	.poll = mapped_poll,
	.reopen = mapped_reopen,
	.stats = mapped_stats,
	.close = mapped_close,
};
