/* SPDX-License-Identifier: MIT */
/*
 * Memory from the kernel.
 *
 * Alignment, and adjacency (so that chunks merge into few mappings): in the
 * pager addresses are handed out upwards (tmem_sys_map_within), and a filler
 * makes the next one fit.  Elsewhere the kernel chooses: twice as much is
 * mapped and trimmed, and the next goes right below.
 *
 * A program that locks its memory (mlockall) locks ours too: then a plain
 * MADV_DONTNEED says EINVAL and MADV_DONTNEED_LOCKED (Linux 5.18) does it.
 */
#include "map.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "base/sys.h"

#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif
#ifndef PIDFD_SELF_THREAD
#define PIDFD_SELF_THREAD (-10000)
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* Bytes from p to the next multiple of align. */
static size_t gap(const char *p, size_t align)
{
	return -(uintptr_t)p & (align - 1);
}

static char *anon(size_t bytes)
{
	return tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);
}

/* Where the one that was trimmed last begins; 0: none yet. */
static char *_Atomic trimmed;

/* Right below that, if it is free. */
static void *map_below(size_t bytes, size_t align)
{
	char *start = atomic_load(&trimmed);
	long r;

	if (!start)
		return NULL;
	start -= bytes;
	if (gap(start, align))
		return NULL;
	r = tmem_sys(SYS_mmap, start, bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
			     MAP_FIXED_NOREPLACE,
		     -1, 0);
	if (r != (long)start)
		return NULL;
	atomic_store(&trimmed, start);
	return start;
}

static void *map_trimmed(size_t bytes, size_t align)
{
	char *raw = anon(bytes + align), *start;

	if (!raw)
		return NULL;
	start = raw + gap(raw, align);
	if (start > raw)
		tmem_sys_unmap(raw, (size_t)(start - raw));
	if (start < raw + align)
		tmem_sys_unmap(start + bytes, (size_t)(raw + align - start));
	atomic_store(&trimmed, start);
	return start;
}

/* Behind a filler that ends at a multiple of align, if that is where `raw`
 * would have ended. */
static void *map_filled(char *raw, size_t bytes, size_t align)
{
	size_t filler_bytes = gap(raw + bytes, align);
	char *filler = anon(filler_bytes);

	raw = anon(bytes);
	if (filler)
		tmem_sys_unmap(filler, filler_bytes);
	if (raw && gap(raw, align)) {
		tmem_sys_unmap(raw, bytes);
		raw = NULL;
	}
	return raw;
}

static void *map_aligned(size_t bytes, size_t align)
{
	char *start = map_below(bytes, align), *raw;

	if (start)
		return start;
	raw = anon(bytes);
	if (!raw || !gap(raw, align))
		return raw;
	tmem_sys_unmap(raw, bytes);
	start = map_filled(raw, bytes, align);
	return start ? start : map_trimmed(bytes, align);
}

static void *map(size_t bytes, size_t align)
{
	void *start = map_aligned(bytes, align);

	/* A huge page would be resident where we account for small ones. */
	if (start)
		tmem_sys_madvise(start, bytes, MADV_NOHUGEPAGE);
	return start;
}

static void unmap(void *start, size_t bytes)
{
	tmem_sys_unmap(start, bytes);
}

static void discard(void *start, size_t bytes)
{
	long r = tmem_sys_madvise(start, bytes, MADV_DONTNEED);

	if (r < 0)
		r = tmem_sys_madvise(start, bytes, MADV_DONTNEED_LOCKED);
	TMEM_ASSERT(r == 0);
}

/* False if this kernel can't, or not here: then some may be discarded. */
static bool discard_at_once(const struct iovec *ranges, unsigned nr)
{
	size_t bytes = 0;
	unsigned i;
	long r;

	for (i = 0; i < nr; i++)
		bytes += ranges[i].iov_len;
	r = tmem_sys(SYS_process_madvise, PIDFD_SELF_THREAD, ranges, nr,
		     MADV_DONTNEED, 0);
	return r >= 0 && (size_t)r == bytes;
}

const struct tmem_map_ops tmem_map_kernel = {
	.map = map,
	.unmap = unmap,
	.discard = discard,
};

const struct tmem_map_ops *tmem_map = &tmem_map_kernel;

void tmem_map_discard_all(const struct iovec *ranges, unsigned nr)
{
	unsigned i;

	if (nr > 1 && tmem_map->discard == discard &&
	    discard_at_once(ranges, nr))
		return;
	for (i = 0; i < nr; i++)
		tmem_map->discard(ranges[i].iov_base, ranges[i].iov_len);
}
