/* SPDX-License-Identifier: MIT */
/*
 * A program with a userfaultfd of its own: its range is served by itself,
 * and must be left alone by any other pager.
 *
 *   missing  the program serves first touches from known pages
 *   protect  the program tracks writes by write protection
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct tt_region other;
static unsigned char *range;
static size_t range_pages;
static int uffd;
static int stop_pipe[2];
static _Atomic unsigned nr_served;

static void open_uffd(uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0)
		tt_skip("userfaultfd: %s", strerror(errno));
	if (ioctl(uffd, UFFDIO_API, &api))
		tt_skip("UFFDIO_API: %s", strerror(errno));
}

static void make_range(uint64_t mode)
{
	struct uffdio_register reg = { .mode = mode };

	range_pages = tt_pages(20);
	range = tt_map(range_pages * TT_PAGE);
	reg.range.start = (uintptr_t)range;
	reg.range.len = range_pages * TT_PAGE;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		tt_fail("the program's own UFFDIO_REGISTER: %s",
			strerror(errno));
}

static void setup_other(void)
{
	tt_pressure_init(60);
	tt_region_map(&other, tt_pages(10), 2);
	tt_region_fill(&other);
}

static void serve_missing(uintptr_t address)
{
	unsigned char page[TT_PAGE];
	size_t nr = (address - (uintptr_t)range) / TT_PAGE;
	struct uffdio_copy copy = { .dst = (uintptr_t)range + nr * TT_PAGE,
				    .src = (uintptr_t)page,
				    .len = TT_PAGE };

	tt_fill(page, 77, nr, 1);
	/* Before the ioctl, which wakes who looks at it. */
	atomic_fetch_add(&nr_served, 1);
	while (ioctl(uffd, UFFDIO_COPY, &copy)) {
		if (errno == EEXIST)
			break;
		if (errno != EAGAIN)
			tt_fail("UFFDIO_COPY: %s", strerror(errno));
	}
}

static void serve_protected(uintptr_t address)
{
	struct uffdio_writeprotect wp = { 0 };

	wp.range.start = address & ~(TT_PAGE - 1ul);
	wp.range.len = TT_PAGE;
	atomic_fetch_add(&nr_served, 1);
	TT_SYS(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
}

static void *server(void *argument)
{
	struct pollfd poller[2] = { { uffd, POLLIN, 0 },
				    { stop_pipe[0], POLLIN, 0 } };
	struct uffd_msg message;

	(void)argument;
	for (;;) {
		TT_SYS(poll(poller, 2, -1));
		if (poller[1].revents)
			return NULL;
		if (read(uffd, &message, sizeof(message)) !=
		    (ssize_t)sizeof(message))
			continue;
		TT_ASSERT(message.event == UFFD_EVENT_PAGEFAULT);
		if (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
			serve_protected(message.arg.pagefault.address);
		else
			serve_missing(message.arg.pagefault.address);
	}
}

static void finish(pthread_t thread)
{
	tt_write_all(stop_pipe[1], "x", 1);
	tt_join(thread);
	close(stop_pipe[0]);
	close(stop_pipe[1]);
	TT_SYS(munmap(range, range_pages * TT_PAGE));
	close(uffd);
	tt_region_verify_shuffled(&other);
	tt_region_unmap(&other);
}

static void missing(void)
{
	pthread_t thread;

	setup_other();
	open_uffd(0);
	make_range(UFFDIO_REGISTER_MODE_MISSING);
	TT_SYS(pipe(stop_pipe));
	atomic_store(&nr_served, 0);
	thread = tt_thread(server, NULL);
	for (unsigned round = 0; round < 3; round++) {
		for (size_t i = 0; i < range_pages; i++) {
			size_t nr = i * 31 % range_pages;

			tt_check(range + nr * TT_PAGE, 77, nr, 1);
		}
		tt_pressure();
		tt_region_verify(&other);
		/* Dropped by the program: it must be asked again. */
		TT_SYS(madvise(range, range_pages * TT_PAGE / 2,
			       MADV_DONTNEED));
	}
	TT_ASSERT(atomic_load(&nr_served) >= range_pages);
	finish(thread);
}

static void protect(void)
{
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	pthread_t thread;

	setup_other();
	open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
	make_range(UFFDIO_REGISTER_MODE_WP);
	for (size_t nr = 0; nr < range_pages; nr++)
		tt_fill(range + nr * TT_PAGE, 78, nr, 1);
	TT_SYS(pipe(stop_pipe));
	atomic_store(&nr_served, 0);
	thread = tt_thread(server, NULL);
	for (unsigned round = 0; round < 2; round++) {
		unsigned before = atomic_load(&nr_served), wrote = 0;

		wp.range.start = (uintptr_t)range;
		wp.range.len = range_pages * TT_PAGE;
		TT_SYS(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
		tt_pressure();
		for (size_t nr = round; nr < range_pages; nr += 3, wrote++)
			tt_fill(range + nr * TT_PAGE, 78, nr, 2 + round);
		for (size_t nr = round; nr < range_pages; nr += 3)
			tt_check(range + nr * TT_PAGE, 78, nr, 2 + round);
		if (atomic_load(&nr_served) - before != wrote)
			tt_fail("the program saw %u of its %u writes",
				atomic_load(&nr_served) - before, wrote);
		tt_region_verify(&other);
	}
	finish(thread);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "missing", missing },
						{ "protect", protect },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
