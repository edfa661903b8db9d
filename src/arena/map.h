/* SPDX-License-Identifier: MIT */
/*
 * How the arena gets memory from the kernel and gives it back: a seam, so
 * that tests can make the n-th mapping fail.
 *
 *  - map: private anonymous zeroes, aligned to `align` (a power of two, not
 *    smaller than a page), never huge pages, or NULL.
 *  - unmap: gives such a mapping back, whole.
 *  - discard: drops the content of some pages of it: they read as zeroes and
 *    cost nothing until touched.  Cannot fail on memory that we mapped.
 */
#ifndef TMEM_ARENA_MAP_H
#define TMEM_ARENA_MAP_H

#include <stddef.h>
#include <sys/uio.h>

struct tmem_map_ops {
	void *(*map)(size_t bytes, size_t align);
	void (*unmap)(void *start, size_t bytes);
	void (*discard)(void *start, size_t bytes);
};

extern const struct tmem_map_ops tmem_map_kernel;

/* The one in use; tests put another in its place before they open a store. */
extern const struct tmem_map_ops *tmem_map;

enum {
	TMEM_MAP_RANGES = 128
};

/*
 * Discards at most TMEM_MAP_RANGES ranges.  From Linux 6.16 on in one call, so
 * that the CPUs that run other threads are interrupted once and not for each.
 */
void tmem_map_discard_all(const struct iovec *ranges, unsigned nr);

#endif
