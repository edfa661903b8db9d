/* SPDX-License-Identifier: MIT */
/*
 * Swap files for tests: an unlinked file in TMEM_TEST_DIR, else in /var/tmp,
 * and a slot map for it.
 */
#ifndef TESTFILE_H
#define TESTFILE_H

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "fstest.h"
#include "tmem/swapfile.h"

static inline int testfile_disk(void)
{
	const char *dir = getenv("TMEM_TEST_DIR");
	char path[4096];
	int fd = open(dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC,
		      0600);

	if (fd >= 0)
		return fd;
	snprintf(path, sizeof(path), "%s/tmem-test-XXXXXX",
		 dir ? dir : "/var/tmp");
	fd = mkostemp(path, O_CLOEXEC);
	CHECK(fd >= 0);
	unlink(path);
	return fd;
}

/* On tmpfs. */
static inline int testfile_ram(void)
{
	int fd = (int)syscall(SYS_memfd_create, "tmem-test", 1u);

	CHECK(fd >= 0);
	return fd;
}

/* A loop device over a file, or -1 where that isn't allowed. */
static inline int testfile_loop(uint64_t bytes)
{
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1;
	int backing, number;
	char path[32];
	struct loop_info64 info = { .lo_flags = LO_FLAGS_AUTOCLEAR };

	if (control < 0)
		return -1;
	backing = testfile_disk();
	CHECK_EQ(ftruncate(backing, (off_t)bytes), 0);
	number = ioctl(control, LOOP_CTL_GET_FREE);
	if (number >= 0) {
		snprintf(path, sizeof(path), "/dev/loop%d", number);
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (fd >= 0 && (ioctl(fd, LOOP_SET_FD, backing) < 0 ||
			ioctl(fd, LOOP_SET_STATUS64, &info) < 0)) {
		close(fd);
		fd = -1;
	}
	close(backing);
	close(control);
	return fd;
}

static inline int testfile_map(uint64_t max_pages, unsigned max_users)
{
	int fd = tmem_swapmap_create(max_pages, max_users);

	CHECK(fd >= 0);
	return fd;
}

#endif
