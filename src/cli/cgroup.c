/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/cgroup names the group in each hierarchy; the limit that counts
 * is the tightest from there up to the root.  Controllers are looked for
 * where systems mount them; what is not there does not limit.
 */
#include "cli/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct flavour {
	const char *mount;
	const char *limit;
	const char *usage;
	const char *cache; /* in memory.stat */
};

static const struct flavour v1 = { "/sys/fs/cgroup/memory",
				   "memory.limit_in_bytes",
				   "memory.usage_in_bytes",
				   "total_inactive_file" };
static const struct flavour v2 = { "/sys/fs/cgroup", "memory.max",
				   "memory.current", "inactive_file" };
static const struct flavour v2_hybrid = { "/sys/fs/cgroup/unified",
					  "memory.max", "memory.current",
					  "inactive_file" };

/* UINT64_MAX if there is none, or it says "max". */
static uint64_t read_value(const char *dir, const char *file)
{
	char path[PATH_MAX + 64], line[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "re");
	if (!f)
		return UINT64_MAX;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	if (line[0] < '0' || line[0] > '9')
		return UINT64_MAX;
	return strtoull(line, NULL, 10);
}

static uint64_t read_cache(const char *dir, const char *field)
{
	char path[PATH_MAX + 64], line[128];
	size_t len = strlen(field);
	uint64_t value = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, field, len) && line[len] == ' ')
			value = strtoull(line + len, NULL, 10);
	fclose(f);
	return value;
}

static uint64_t headroom_of(const char *dir, const struct flavour *f)
{
	uint64_t limit = read_value(dir, f->limit);
	uint64_t used = read_value(dir, f->usage);
	uint64_t cache;

	/* v1 says "no limit" by a number near 2^63. */
	if (limit >= INT64_MAX / 2 || used == UINT64_MAX)
		return UINT64_MAX;
	cache = read_cache(dir, f->cache);
	used -= cache < used ? cache : used;
	return used < limit ? limit - used : 0;
}

static uint64_t walk_up(const char *root, const struct flavour *f,
			const char *group)
{
	char dir[PATH_MAX], *slash;
	uint64_t least = UINT64_MAX, here;
	size_t base;
	int n;

	base = strlen(root) + strlen(f->mount);
	n = snprintf(dir, sizeof(dir), "%s%s%s", root, f->mount, group);
	if (n >= (int)sizeof(dir))
		return UINT64_MAX;
	for (;;) {
		here = headroom_of(dir, f);
		if (here < least)
			least = here;
		slash = strrchr(dir, '/');
		if (!slash || (size_t)(slash - dir) < base)
			return least;
		*slash = '\0';
	}
}

static bool has_controller(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (; list; list = strchr(list, ',')) {
		list += *list == ',';
		if (!strncmp(list, name, len) &&
		    (list[len] == ',' || list[len] == '\0'))
			return true;
	}
	return false;
}

static uint64_t headroom_of_line(const char *root, char *line)
{
	char *controllers = strchr(line, ':'), *group;
	uint64_t a, b;

	group = controllers ? strchr(controllers + 1, ':') : NULL;
	if (!group)
		return UINT64_MAX;
	*controllers++ = '\0';
	*group++ = '\0';
	if (has_controller(controllers, "memory"))
		return walk_up(root, &v1, group);
	if (*controllers)
		return UINT64_MAX;
	a = walk_up(root, &v2, group);
	b = walk_up(root, &v2_hybrid, group);
	return a < b ? a : b;
}

uint64_t tmem_cgroup_headroom(const char *root, pid_t pid)
{
	char path[PATH_MAX], line[PATH_MAX];
	uint64_t least = UINT64_MAX, here;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/%d/cgroup", root, (int)pid);
	f = fopen(path, "re");
	if (!f)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		here = headroom_of_line(root, line);
		if (here < least)
			least = here;
	}
	fclose(f);
	return least;
}
