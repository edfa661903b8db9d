/* SPDX-License-Identifier: MIT */
/* See install.h. */
#include "install.h"

#include <errno.h>

#include <tmem/tmem.h>

#include "base/chaos.h"
#include "base/sys.h"
#include "base/uffd.h"

/*
 * The kernel's two answers made one: how far it got, or why it did not.
 *
 * One that had to wait for the memory map while an mremap() or munmap() had it
 * finds nothing there, and does not look for events again: in tests, where
 * that is rare, base/chaos.h makes it common.
 */
static long outcome(long r, int64_t bytes)
{
	if (bytes > 0)
		return (long)(bytes / TMEM_PAGE_SIZE);
	if (bytes < 0)
		r = (long)bytes;
	return r == -EAGAIN && tmem_chaos_hits(TMEM_CHAOS_UNTOLD) ? -ENOENT : r;
}

/* Nothing, but in tests: base/chaos.h. */
static long made_up(void)
{
	if (tmem_chaos_hits(TMEM_CHAOS_AGAIN))
		return -EAGAIN;
	return tmem_chaos_hits(TMEM_CHAOS_NOMEM) ? -ENOMEM : 0;
}

long tmem_install_pages(int uffd, uint64_t vpn, const void *pages, unsigned nr)
{
	struct uffdio_copy copy = {
		.dst = vpn * TMEM_PAGE_SIZE,
		.src = (uintptr_t)pages,
		.len = (uint64_t)tmem_chaos_fewer(TMEM_CHAOS_PARTIAL, nr) *
		       TMEM_PAGE_SIZE,
	};
	long r = made_up();

	if (r < 0)
		return r;
	r = tmem_sys(SYS_ioctl, uffd, UFFDIO_COPY, &copy);
	return outcome(r, copy.copy);
}

long tmem_install_copy(int uffd, uint64_t vpn, const void *page)
{
	return tmem_install_pages(uffd, vpn, page, 1);
}

long tmem_install_zero(int uffd, uint64_t vpn, unsigned nr)
{
	struct uffdio_zeropage zero = {
		.range = { .start = vpn * TMEM_PAGE_SIZE,
			   .len = (uint64_t)tmem_chaos_fewer(TMEM_CHAOS_PARTIAL,
							     nr) *
				  TMEM_PAGE_SIZE },
	};
	long r = made_up();

	if (r < 0)
		return r;
	r = tmem_sys(SYS_ioctl, uffd, UFFDIO_ZEROPAGE, &zero);
	return outcome(r, zero.zeropage);
}

long tmem_install_poison(int uffd, uint64_t vpn)
{
	struct uffdio_poison poison = {
		.range = { .start = vpn * TMEM_PAGE_SIZE,
			   .len = TMEM_PAGE_SIZE },
	};
	long r = made_up();

	if (r < 0)
		return r;
	r = tmem_sys(SYS_ioctl, uffd, UFFDIO_POISON, &poison);
	return outcome(r, poison.updated);
}

void tmem_install_wake(int uffd, uint64_t vpn, unsigned nr)
{
	struct uffdio_range range = {
		.start = vpn * TMEM_PAGE_SIZE,
		.len = (uint64_t)nr * TMEM_PAGE_SIZE,
	};

	tmem_sys(SYS_ioctl, uffd, UFFDIO_WAKE, &range);
}

bool tmem_install_is_refused(int uffd)
{
	/* The kernel looks for events before it looks at what is asked. */
	struct uffdio_writeprotect nothing = { 0 };

	return tmem_sys(SYS_ioctl, uffd, UFFDIO_WRITEPROTECT, &nothing) ==
	       -EAGAIN;
}

/* One that was refused when it was asked for may not be refused any more. */
static bool is_gone(int uffd, uint64_t vpn)
{
	int r = tmem_install_is_watched(uffd, vpn);

	return r != 1 && r != -EAGAIN && !tmem_install_is_refused(uffd);
}

long tmem_install_sure(int uffd, uint64_t vpn, const void *page_or_null)
{
	long r = page_or_null ? tmem_install_copy(uffd, vpn, page_or_null)
			      : tmem_install_poison(uffd, vpn);

	return r == -ENOENT && !is_gone(uffd, vpn) ? -EAGAIN : r;
}

int tmem_install_is_watched(int uffd, uint64_t vpn)
{
	/* Nothing that anonymous memory could do: EINVAL. */
	struct uffdio_continue c = {
		.range = { .start = vpn * TMEM_PAGE_SIZE,
			   .len = TMEM_PAGE_SIZE },
	};
	long r = tmem_sys(SYS_ioctl, uffd, UFFDIO_CONTINUE, &c);

	if (c.mapped < 0)
		r = (long)c.mapped;
	if (r == -EINVAL)
		return 1;
	return r == -ENOENT ? 0 : (int)r;
}
