/* SPDX-License-Identifier: MIT */
/*
 * An munmap or mremap that is told of after a later mremap to the same place:
 * what was moved there stays, all else is gone.  On real mappings, with a real
 * userfaultfd.
 */
#include "pager/late.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/sys.h"
#include "fstest.h"
#include "pager/event.h"
#include "pager/install.h"
#include "pager/procfs.h"

enum {
	NR = 16, /* pages of the place */
	USER_ONLY = 1
};

static struct tmem_pager pager;
static int uffd;
static char *place;
static uint64_t first; /* its vpn */
static struct tmem_range forgotten;

static void map(unsigned from, unsigned nr)
{
	char *p =
		mmap(place + from * 4096ul, nr * 4096ul, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	CHECK(p != MAP_FAILED);
}

static void watch(unsigned from, unsigned nr)
{
	struct uffdio_register r = {
		.range = { (uintptr_t)place + from * 4096ul, nr * 4096ul },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	CHECK_EQ(ioctl(uffd, UFFDIO_REGISTER, &r), 0);
}

/* The place again, and nothing remembered. */
static void empty(void)
{
	CHECK_EQ(munmap(place, NR * 4096ul), 0);
	pager.nr_moved = 0;
	pager.aside = (struct tmem_range){ 0, 0 };
}

static bool quiet = true;

/* The ioctl that asks whether an event is on its way. */
bool tmem_install_is_refused(int uffd)
{
	(void)uffd;
	return !quiet;
}

void tmem_event_forget_locked(struct tmem_pager *p, uint64_t start,
			      uint64_t end)
{
	(void)p;
	forgotten = (struct tmem_range){ start, end };
}

/* Pages of the place that are gone, as bits. */
static unsigned left(bool is_move) TMEM_UNANALYSED
{
	struct tmem_late_part p[LATE_PARTS];
	uint64_t vpn, last = first;
	unsigned i, nr, bits = 0;

	nr = tmem_late_left_locked(&pager, first, first + NR, is_move, p);
	CHECK(nr <= LATE_PARTS);
	for (i = 0; i < nr; i++) {
		CHECK(p[i].start == last && p[i].start < p[i].end);
		last = p[i].end;
		for (vpn = p[i].start; vpn < p[i].end && !p[i].is_late; vpn++)
			bits |= 1u << (vpn - first);
	}
	CHECK_EQ(last, first + NR);
	return bits;
}

static unsigned gone(void)
{
	unsigned bits = left(false);

	CHECK_EQ(left(true), bits);
	return bits;
}

static void moved(unsigned from, unsigned to) TMEM_UNANALYSED
{
	tmem_late_moved_locked(&pager, first + from, first + to);
}

static void one_move(void) TMEM_UNANALYSED
{
	CHECK_EQ(gone(), 0xffff); /* nothing was moved */
	moved(4, 8);
	CHECK_EQ(gone(), 0xffff); /* nor is it there */
	map(4, 4);
	CHECK_EQ(gone(), 0xffff); /* there is something else */
	watch(4, 4);
	CHECK_EQ(gone(), 0xff0f);
	map(6, 2); /* half of it is */
	CHECK_EQ(gone(), 0xffcf);
	tmem_late_quiet_locked(&pager);
	CHECK_EQ(gone(), 0xffff);
	CHECK_EQ(forgotten.start, first + 4 + LATE_ASIDE);
	CHECK_EQ(forgotten.end, first + 8 + LATE_ASIDE);
	forgotten.end = 0;
	moved(4, 8);
	atomic_store(&pager.fork_mode, 1); /* not now */
	tmem_late_quiet_locked(&pager);
	CHECK_EQ(forgotten.end, 0);
	atomic_store(&pager.fork_mode, 0);
	tmem_late_quiet_locked(&pager);
	CHECK_EQ(forgotten.end, first + 8 + LATE_ASIDE);
	CHECK_EQ(pager.aside.end, 0);
	empty();
}

static void several(void) TMEM_UNANALYSED
{
	unsigned i;

	map(0, NR);
	watch(0, NR);
	moved(0, 2);
	moved(14, 16);
	moved(5, 6);
	CHECK_EQ(gone(), 0x3fdc);
	/* E2: not there while an event may be on its way. */
	quiet = false;
	CHECK(tmem_late_may_register_locked(&pager, (first + 20) * 4096,
					    (first + 21) * 4096));
	CHECK(!tmem_late_may_register_locked(&pager, (first + 5) * 4096,
					     (first + 7) * 4096));
	CHECK_EQ(gone(), 0x3fdc);
	quiet = true;
	CHECK(tmem_late_may_register_locked(&pager, (first + 5) * 4096,
					    (first + 7) * 4096));
	CHECK_EQ(gone(), 0xffff);
	pager.nr_moved = 0;
	for (i = 0; i < NR; i += 2) /* as many as there is room for */
		moved(i, i + 1);
	CHECK_EQ(gone(), 0xaaaa);
	moved(9, 10); /* and one more */
	CHECK_EQ(gone(), 0x80aa);
	empty();
}

/* Moves all of the place, and leaves it mapped. */
static void *dontunmap(void *to)
{
	CHECK(mremap(place, NR * 4096ul, NR * 4096ul,
		     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
		     to) == to);
	return NULL;
}

static void a_place_that_stays_mapped(void)
{
	struct pollfd event = { .fd = uffd, .events = POLLIN };
	struct uffd_msg msg;
	pthread_t thread;
	void *to;

	map(0, NR);
	watch(0, NR);
	to = mmap(NULL, NR * 4096ul, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		  0);
	CHECK(to != MAP_FAILED);
	moved(0, NR);
	CHECK_EQ(left(true), 0); /* nobody is at it */
	CHECK_EQ(pthread_create(&thread, NULL, dontunmap, to), 0);
	CHECK_EQ(poll(&event, 1, 10000), 1);
	CHECK_EQ(left(true), 0xffff);
	CHECK_EQ(left(false), 0);
	CHECK_EQ(read(uffd, &msg, sizeof(msg)), sizeof(msg));
	CHECK_EQ(msg.event, UFFD_EVENT_REMAP);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(left(true), 0);
	CHECK_EQ(munmap(to, NR * 4096ul), 0);
	empty();
}

static uint64_t end_of(unsigned page)
{
	return tmem_procfs_mapping_end(
		pager.maps_fd, (uintptr_t)place + page * 4096ul,
		(char *)pager.maps_buffer, PAGER_MAPS_BUFFER);
}

static void mapping_ends(void)
{
	map(2, 3);
	map(7, 1);
	CHECK_EQ(end_of(1), 0);
	CHECK_EQ(end_of(2), (uintptr_t)place + 5 * 4096ul);
	CHECK_EQ(end_of(4), (uintptr_t)place + 5 * 4096ul);
	CHECK_EQ(end_of(5), 0);
	CHECK_EQ(end_of(7), (uintptr_t)place + 8 * 4096ul);
	empty();
}

static void kernel_version(void)
{
	struct utsname name;
	unsigned major, minor;

	CHECK_EQ(uname(&name), 0);
	CHECK_EQ(sscanf(name.release, "%u.%u", &major, &minor), 2);
	CHECK(tmem_procfs_linux(major, minor));
	CHECK(tmem_procfs_linux(major, 0) && tmem_procfs_linux(2, 6));
	CHECK(!tmem_procfs_linux(major, minor + 1));
	CHECK(!tmem_procfs_linux(major + 1, 0));
}

static void all(void)
{
	one_move();
	several();
	a_place_that_stays_mapped();
	mapping_ends();
}

int main(void)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_EVENT_REMAP };

	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | USER_ONLY);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) {
		puts("no userfaultfd here");
		return 77;
	}
	pager.program_pid = getpid();
	pager.maps_buffer = malloc(PAGER_MAPS_BUFFER);
	CHECK(pager.maps_buffer);
	place = mmap(NULL, NR * 4096ul, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	CHECK(place != MAP_FAILED);
	first = (uintptr_t)place / 4096;
	empty();
	pager.maps_fd = -1; /* as on a kernel without PROCMAP_QUERY */
	all();
	kernel_version();
	pager.maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	CHECK(pager.maps_fd >= 0);
	all();
	free(pager.maps_buffer);
	return 0;
}
