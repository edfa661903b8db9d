/* SPDX-License-Identifier: MIT */
/*
 * Swap files for tests: an unlinked file in TMEM_TEST_DIR, else in /var/tmp,
 * and a slot map for it.
 */
#ifndef TESTFILE_H
#define TESTFILE_H

#include <fcntl.h>
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

static inline int testfile_map(uint64_t max_pages, unsigned max_users)
{
	int fd = tmem_swapmap_create(max_pages, max_users);

	CHECK(fd >= 0);
	return fd;
}

#endif
