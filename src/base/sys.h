/* SPDX-License-Identifier: MIT */
/*
 * System calls without libc: raw results (negative errno), no errno, no
 * cancellation, no thread-local storage.
 *
 * The pager runs in a process of its own inside the program's memory, with a
 * thread block that libc does not know; the store and the swap file run
 * there too.  So everything on those paths calls the kernel through here.
 */
#ifndef TMEM_BASE_SYS_H
#define TMEM_BASE_SYS_H

#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#ifndef __x86_64__
#error "tmem runs on x86-64 so far: see src/base/sys.h"
#endif

static inline long tmem_sys6(long nr, long a, long b, long c, long d, long e,
			     long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
			   "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define TMEM_SYS_(nr, a, b, c, d, e, f, ...)                                 \
	tmem_sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), \
		  (long)(f))
/* tmem_sys(SYS_x, up to six arguments): the raw result. */
#define tmem_sys(nr, ...) TMEM_SYS_(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static inline long tmem_sys_close(int fd)
{
	return tmem_sys(SYS_close, fd);
}

/* Addresses come from the kernel as numbers; this is the one way back. */
static inline void *tmem_sys_pointer(uint64_t addr)
{
	return (void *)(uintptr_t)addr; /* NOLINT(performance-no-int-to-ptr) */
}

/* Private anonymous memory, or NULL. */
void *tmem_sys_map_anon(size_t bytes, int prot);

/*
 * From now on all memory is taken from this window, upwards; none outside.
 * The pager keeps out of the program's way like this (a hole that the program
 * made is the program's to map again), and knows its own memory by address.
 */
void tmem_sys_map_within(uintptr_t start, uintptr_t end);

static inline long tmem_sys_unmap(void *start, size_t bytes)
{
	return tmem_sys(SYS_munmap, start, bytes);
}

static inline long tmem_sys_madvise(void *start, size_t bytes, int advice)
{
	return tmem_sys(SYS_madvise, start, bytes, advice);
}

/*
 * A description of its own for what `fd` has open, for reading and writing
 * (close-on-exec): a lock on it is nobody else's.  Or -errno.
 */
long tmem_sys_open_anew(int fd);

/* Waits while *word == value; spurious returns are normal. */
static inline long tmem_sys_futex_wait(const void *word, uint32_t value,
				       const struct timespec *timeout)
{
	return tmem_sys(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout);
}

static inline long tmem_sys_futex_wake(const void *word, int nr)
{
	return tmem_sys(SYS_futex, word, FUTEX_WAKE_PRIVATE, nr);
}

/*
 * Lets others run, those of lower priority too: a yield would not, and who
 * waits for one of them at real-time priority would wait for ever.
 */
static inline void tmem_sys_pause(void)
{
	struct timespec ts = { 0, 20000 };

	tmem_sys(SYS_nanosleep, &ts, 0);
}

/* Monotonic time in nanoseconds. */
static inline uint64_t tmem_sys_now_ns(void)
{
	struct timespec ts = { 0, 0 };

	tmem_sys(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

#endif
