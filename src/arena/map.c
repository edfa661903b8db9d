/* SPDX-License-Identifier: MIT */
/*
 * Memory from the kernel.
 *
 * Alignment: mmap hands out neighbours top-down, so once one chunk is aligned
 * the next usually is; when not, twice as much is mapped and trimmed.
 *
 * A program that locks its memory (mlockall) locks ours too: then a plain
 * MADV_DONTNEED says EINVAL and MADV_DONTNEED_LOCKED (Linux 5.18) does it.
 */
#include "map.h"

#include <stdint.h>

#include "base/assert.h"
#include "base/sys.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

static char *align_up(char *p, size_t align)
{
	return p + (-(uintptr_t)p & (align - 1));
}

static void *map_aligned(size_t bytes, size_t align)
{
	char *raw = tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);
	char *start;

	if (!raw || align_up(raw, align) == raw)
		return raw;
	tmem_sys_unmap(raw, bytes);
	raw = tmem_sys_map_anon(bytes + align, PROT_READ | PROT_WRITE);
	if (!raw)
		return NULL;
	start = align_up(raw, align);
	if (start > raw)
		tmem_sys_unmap(raw, (size_t)(start - raw));
	if (start < raw + align)
		tmem_sys_unmap(start + bytes, (size_t)(raw + align - start));
	return start;
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

const struct tmem_map_ops tmem_map_kernel = {
	.map = map,
	.unmap = unmap,
	.discard = discard,
};

const struct tmem_map_ops *tmem_map = &tmem_map_kernel;
