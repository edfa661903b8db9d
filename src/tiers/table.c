/* SPDX-License-Identifier: MIT */
/* The table of tiers, and what needs no particular one. */
#include "tier.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/seal.h"
#include "base/sys.h"

enum {
	PATH_BYTES = 4096,
	NAME_BYTES = 20,
	WAIT_NS = 1000000000
};

const struct tmem_tier_ops *const tmem_tiers[] = {
	&tmem_tier_file,
	&tmem_tier_mapped,
	NULL,
};

int tmem_tier_wait(const struct tmem_tier_ops *ops, void *tier,
		   const struct tmem_tier_request *request)
{
	while (!tmem_tier_is_answered(request))
		ops->poll(tier, request, tmem_sys_now_ns() + WAIT_NS);
	return request->result;
}

/* With a name that nobody guesses, for as long as it takes to remove it. */
static long create_named(const char *dir, int flags)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuv";
	char path[PATH_BYTES];
	size_t length = strnlen(dir, sizeof(path));
	uint8_t name[NAME_BYTES];
	long fd;
	int r;

	if (length + sizeof(name) + 8 > sizeof(path))
		return -ENAMETOOLONG;
	r = tmem_seal_random(name, sizeof(name));
	if (r < 0)
		return r;
	memcpy(path, dir, length);
	memcpy(path + length, "/.tmem-", 7);
	length += 7;
	for (unsigned i = 0; i < sizeof(name); i++)
		path[length++] = digits[name[i] % 32];
	path[length] = 0;
	fd = tmem_sys(SYS_openat, AT_FDCWD, path,
		      flags | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
	if (fd >= 0)
		tmem_sys(SYS_unlinkat, AT_FDCWD, path, 0);
	return fd;
}

int tmem_tier_create(const char *dir)
{
	const int flags = O_RDWR | O_CLOEXEC;
	long fd;

	fd = tmem_sys(SYS_openat, AT_FDCWD, dir, flags | O_TMPFILE | O_DIRECT,
		      0600);
	if (fd == -EINVAL)
		fd = tmem_sys(SYS_openat, AT_FDCWD, dir, flags | O_TMPFILE,
			      0600);
	if (fd != -EOPNOTSUPP && fd != -EISDIR && fd != -EINVAL)
		return (int)fd;
	fd = create_named(dir, flags | O_DIRECT);
	if (fd == -EINVAL)
		fd = create_named(dir, flags);
	return (int)fd;
}
