/* SPDX-License-Identifier: MIT */
/*
 * The file has no name (O_TMPFILE, or a name that is removed at once), so it
 * goes away with its last user, however that ends, and nobody else opens it.
 * It is sparse: `max_pages` is what it may become, not what it takes.
 *
 * A directory in RAM is refused: pages "on disk" there would be outside the
 * budget.
 */
#include "cli/swap.h"

#include "cli/cli.h"
#include "cli/size.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <tmem/tmem.h>
#include <unistd.h>

#ifndef NFS_SUPER_MAGIC
#define NFS_SUPER_MAGIC 0x6969
#endif
#define RAMFS_FS_MAGIC	   0x858458f6
#define HUGETLBFS_FS_MAGIC 0x958458f6
#define MIN_SWAP_BYTES	   (1ull << 20)

/* Not O_DIRECT if the file system will not have it. */
static int open_nameless(const char *dir)
{
	const int flags = O_TMPFILE | O_RDWR | O_CLOEXEC;
	int fd = open(dir, flags | O_DIRECT, 0600);

	if (fd < 0 && errno == EINVAL)
		fd = open(dir, flags, 0600);
	return fd < 0 ? -errno : fd;
}

static int open_and_unlink(const char *dir)
{
	char path[PATH_MAX];
	int fd, r;

	r = snprintf(path, sizeof(path), "%s/tmem-swap-XXXXXX", dir);
	if (r >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC); /* mode 0600 */
	if (fd < 0)
		return -errno;
	unlink(path);
	/* Best effort: without it the page cache is in the way, no more. */
	fcntl(fd, F_SETFL, O_DIRECT);
	return fd;
}

static int open_file(const char *dir)
{
	int fd = open_nameless(dir);

	if (fd == -EOPNOTSUPP || fd == -EISDIR || fd == -EINVAL)
		fd = open_and_unlink(dir);
	return fd;
}

static int check_fs(const char *dir, const struct statfs *fs)
{
	switch ((unsigned long)fs->f_type) {
	case TMPFS_MAGIC:
	case RAMFS_FS_MAGIC:
	case HUGETLBFS_FS_MAGIC:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--swap-dir %s: in memory itself (tmpfs "
				     "or the like); name a directory on a "
				     "disk, or --swap-max 0",
				     dir);
	case NFS_SUPER_MAGIC:
		tmem_cli_warn("--swap-dir %s: a network file system: slow, "
			      "and it may itself need memory to write",
			      dir);
		break;
	case OVERLAYFS_SUPER_MAGIC:
		tmem_cli_warn("--swap-dir %s: an overlay file system: slower "
			      "than a volume on a disk",
			      dir);
		break;
	}
	return 0;
}

/* How large the file may become. */
static int choose_size(const struct tmem_run_options *o, uint64_t free_bytes,
		       uint64_t *ret_bytes)
{
	struct rlimit fsize;
	char have[32];
	uint64_t bytes;

	tmem_size_format(free_bytes, have, sizeof(have));
	if (o->swap_max_given) {
		bytes = o->swap_max_bytes;
		if (bytes > free_bytes)
			return tmem_cli_fail(TMEM_EXIT_FAIL,
					     "--swap-max: only %s free in %s; "
					     "give less, or another --swap-dir",
					     have, o->swap_dir);
	} else {
		bytes = free_bytes / 2;
		if (bytes / 4 > o->limit_bytes)
			bytes = 4 * o->limit_bytes;
	}
	/* Writing beyond this limit would kill the writer: the program. */
	if (getrlimit(RLIMIT_FSIZE, &fsize) == 0 &&
	    fsize.rlim_cur != RLIM_INFINITY && bytes > fsize.rlim_cur)
		bytes = fsize.rlim_cur;
	if (bytes < MIN_SWAP_BYTES)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--swap-dir %s: full (%s free, or ulimit "
				     "-f); free some space, name another "
				     "directory, or --swap-max 0",
				     o->swap_dir, have);
	*ret_bytes = bytes;
	return 0;
}

int tmem_swap_open(const struct tmem_run_options *o, struct tmem_swap *ret_swap)
{
	const char *dir = o->swap_dir;
	uint64_t bytes = 0;
	struct statfs fs;
	int fd, r;

	ret_swap->fd = -1;
	ret_swap->max_pages = 0;
	if (o->swap_max_given && o->swap_max_bytes == 0)
		return 0;
	if (statfs(dir, &fs) < 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--swap-dir %s: %s; name a directory that "
				     "you may write, or --swap-max 0",
				     dir, strerror(errno));
	r = check_fs(dir, &fs);
	if (r == 0)
		r = choose_size(o, fs.f_bavail * (uint64_t)fs.f_frsize, &bytes);
	if (r)
		return r;
	fd = open_file(dir);
	if (fd < 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--swap-dir %s: %s; name a directory that "
				     "you may write, or --swap-max 0",
				     dir, strerror(-fd));
	ret_swap->fd = fd;
	ret_swap->max_pages = bytes / TMEM_PAGE_SIZE;
	return 0;
}
