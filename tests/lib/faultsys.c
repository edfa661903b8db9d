/* SPDX-License-Identifier: MIT */
/*
 * See faultsys.h.  One thread.  liburing is linked with its entry points
 * wrapped (-Wl,--wrap), so that they count as calls too.
 */
#include "faultsys.h"

#undef tmem_sys_map_anon

#include <errno.h>
#include <stdbool.h>
#include <sys/uio.h>

struct io_uring;

int __real_io_uring_queue_init(unsigned entries, struct io_uring *ring,
			       unsigned flags);
int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring,
			       unsigned flags);
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __real_io_uring_ring_dontfork(struct io_uring *ring);
int __wrap_io_uring_ring_dontfork(struct io_uring *ring);

static unsigned long left; /* calls until the strike, 0: not armed */
static unsigned long struck;
static int how;
static bool sticky;
static long sticky_nr;

void faultsys_arm(unsigned long n, int result, int is_sticky)
{
	left = n;
	struck = 0;
	how = result;
	sticky = is_sticky;
	sticky_nr = -1;
}

unsigned long faultsys_struck(void)
{
	return struck;
}

static bool strikes(long nr)
{
	if (nr == SYS_futex || nr == SYS_sched_yield || nr == SYS_munmap)
		return false;
	if (sticky_nr != nr) {
		if (left == 0 || --left != 0)
			return false;
		if (sticky)
			sticky_nr = nr;
	}
	struck++;
	return true;
}

/* A read or write that moves half of what it was asked to. */
static long half(long nr, long a, long b, long c, long d)
{
	const struct iovec *iov = tmem_sys_pointer((uint64_t)b);

	if ((nr == SYS_pwritev || nr == SYS_preadv) && c > 1)
		return tmem_sys6_real(nr, a, b, c / 2, d, 0, 0);
	if (nr == SYS_pwritev)
		return tmem_sys6_real(SYS_pwrite64, a, (long)iov->iov_base,
				      (long)iov->iov_len / 2, d, 0, 0);
	return tmem_sys6_real(nr, a, b, c / 2, d, 0, 0);
}

static bool can_be_short(long nr)
{
	return nr == SYS_pread64 || nr == SYS_preadv || nr == SYS_pwrite64 ||
	       nr == SYS_pwritev;
}

long tmem_faulty_sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	if (!strikes(nr))
		return tmem_sys6_real(nr, a, b, c, d, e, f);
	if (how < 0)
		return how;
	return can_be_short(nr) ? half(nr, a, b, c, d)
				: tmem_sys6_real(nr, a, b, c, d, e, f);
}

void *tmem_faulty_map_anon(size_t bytes, int prot)
{
	if (strikes(SYS_mmap) && how < 0)
		return NULL;
	return tmem_sys_map_anon(bytes, prot);
}

int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring,
			       unsigned flags)
{
	if (strikes(SYS_io_uring_setup) && how < 0)
		return how;
	return __real_io_uring_queue_init(entries, ring, flags);
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
	/* Interrupted for ever is no kernel's behaviour. */
	if (strikes(SYS_io_uring_enter) && how < 0 && how != -EINTR)
		return how;
	return __real_io_uring_submit(ring);
}

int __wrap_io_uring_ring_dontfork(struct io_uring *ring)
{
	if (strikes(SYS_madvise) && how < 0)
		return how;
	return __real_io_uring_ring_dontfork(ring);
}
