/* SPDX-License-Identifier: MIT */
/* See copy.h. */
#include "cli/copy.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	BLOCK = 128 << 10
};

static int write_all(int fd, const char *from, size_t bytes, off_t at)
{
	while (bytes) {
		ssize_t n = pwrite(fd, from, bytes, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		from += n;
		at += n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int copy_by_hand(int from, int to, off_t at, off_t end)
{
	char *block = malloc(BLOCK);
	int r = block ? 0 : -ENOMEM;

	while (at < end && r == 0) {
		size_t want = end - at < BLOCK ? (size_t)(end - at) : BLOCK;
		ssize_t n = pread(from, block, want, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			r = n < 0 ? -errno : -EIO; /* it became shorter */
		else
			r = write_all(to, block, (size_t)n, at);
		at += n;
	}
	free(block);
	return r;
}

static int copy_data(int from, int to, off_t at, off_t end)
{
	while (at < end) {
		off_t in = at, out = at;
		ssize_t n = copy_file_range(from, &in, to, &out,
					    (size_t)(end - at), 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* not between these two */
			return copy_by_hand(from, to, at, end);
		at += n;
	}
	return 0;
}

int tmem_copy_sparse(int from, int to)
{
	off_t data = 0, hole, bytes;
	struct stat st;
	int r = 0;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	if (fstat(from, &st) < 0)
		return -errno;
	bytes = st.st_size;
	if (ftruncate(to, bytes) < 0)
		return -errno;
	while (data < bytes && r == 0) {
		off_t next = lseek(from, data, SEEK_DATA);

		if (next < 0 && errno == ENXIO) /* the rest is a hole */
			break;
		data = next < 0 ? data : next;
		hole = lseek(from, data, SEEK_HOLE);
		if (hole <= data || hole > bytes)
			hole = bytes;
		r = copy_data(from, to, data, hole);
		data = hole;
	}
	return r;
}

int tmem_copy_begin(const char *path, int like, char *ret_name, size_t room)
{
	struct stat st;
	int fd, n;

	n = snprintf(ret_name, room, "%s.XXXXXX", path);
	if (n < 0 || (size_t)n >= room)
		return -ENAMETOOLONG;
	if (fstat(like, &st) < 0)
		return -errno;
	fd = mkstemp(ret_name);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, st.st_mode & 0777) == 0)
		return fd;
	n = -errno;
	close(fd);
	unlink(ret_name);
	return n;
}
