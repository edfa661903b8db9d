/* SPDX-License-Identifier: MIT */
/* See sys.h. */
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>

enum {
	WINDOW_TRIES = 4096
};
#define WINDOW_STEP (1ul << 30)

static uintptr_t window_start;
static uintptr_t window_end; /* 0: no window */
static _Atomic uintptr_t window_next;

void tmem_sys_map_within(uintptr_t start, uintptr_t end)
{
	window_start = start;
	window_end = end;
	atomic_store(&window_next, start);
}

static long map_at(uintptr_t start, size_t bytes, int prot, int flags)
{
	return tmem_sys(SYS_mmap, start, bytes, prot,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1,
			0);
}

/* The next free place; where somebody else is, well past that. */
static long map_in_window(size_t bytes, int prot)
{
	size_t whole = (bytes + 4095) & ~(size_t)4095;
	unsigned i;
	long r = -ENOMEM;

	for (i = 0; i < WINDOW_TRIES; i++) {
		uintptr_t at = atomic_fetch_add(&window_next, whole);

		if (at + whole > window_end || at < window_start) {
			atomic_store(&window_next, window_start);
			continue;
		}
		r = map_at(at, bytes, prot, MAP_FIXED_NOREPLACE);
		if (r != -EEXIST)
			break;
		atomic_fetch_add(&window_next, WINDOW_STEP);
	}
	return r;
}

void *tmem_sys_map_anon(size_t bytes, int prot)
{
	long r = window_end ? map_in_window(bytes, prot)
			    : map_at(0, bytes, prot, 0);

	return r < 0 && r > -4096 ? NULL : tmem_sys_pointer((uint64_t)r);
}

long tmem_sys_open_anew(int fd)
{
	char path[32] = "/proc/self/fd/", digits[12];
	size_t at = strlen(path), n = 0;

	if (fd < 0)
		return -EBADF;
	do
		digits[n++] = (char)('0' + fd % 10);
	while (fd /= 10);
	while (n)
		path[at++] = digits[--n];
	path[at] = 0;
	return tmem_sys(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
}
