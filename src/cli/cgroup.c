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
	const char *throttle; /* NULL: there is none */
	const char *usage;
	const char *prefix; /* of memory.stat's sums */
};

static const struct flavour v1 = { "/sys/fs/cgroup/memory",
				   "memory.limit_in_bytes", NULL,
				   "memory.usage_in_bytes", "total_" };
static const struct flavour v2 = { "/sys/fs/cgroup", "memory.max",
				   "memory.high", "memory.current", "" };
static const struct flavour v2_hybrid = { "/sys/fs/cgroup/unified",
					  "memory.max", "memory.high",
					  "memory.current", "" };

/* What is asked of each group, and the least answer. */
struct question {
	uint64_t (*ask)(const struct question *q, const char *dir,
			const struct flavour *f);
	uint64_t tree_bytes;
	uint64_t least;
};

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

/* The number after "<prefix><name> ", else 0. */
static uint64_t read_field(const char *line, const char *prefix,
			   const char *name)
{
	size_t start = strlen(prefix), len = strlen(name);

	if (strncmp(line, prefix, start) != 0 ||
	    strncmp(line + start, name, len) != 0 || line[start + len] != ' ')
		return 0;
	return strtoull(line + start + len, NULL, 10);
}

/* Page cache on the kernel's inactive list, and on the active one if asked. */
static uint64_t read_cache(const char *dir, const struct flavour *f,
			   bool active_too)
{
	char path[PATH_MAX + 64], line[128];
	uint64_t sum = 0;
	FILE *in;

	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	in = fopen(path, "re");
	if (!in)
		return 0;
	while (fgets(line, sizeof(line), in)) {
		sum += read_field(line, f->prefix, "inactive_file");
		if (active_too)
			sum += read_field(line, f->prefix, "active_file");
	}
	fclose(in);
	return sum;
}

static uint64_t read_limit(const char *dir, const struct flavour *f)
{
	uint64_t limit = read_value(dir, f->limit);

	/* v1 says "no limit" by a number near 2^63. */
	return limit >= INT64_MAX / 2 ? UINT64_MAX : limit;
}

static uint64_t ask_headroom(const struct question *q, const char *dir,
			     const struct flavour *f)
{
	uint64_t limit = read_limit(dir, f), used = read_value(dir, f->usage);
	uint64_t cache;

	(void)q;
	if (limit == UINT64_MAX || used == UINT64_MAX)
		return UINT64_MAX;
	cache = read_cache(dir, f, false);
	used -= cache < used ? cache : used;
	return used < limit ? limit - used : 0;
}

static uint64_t ask_limit(const struct question *q, const char *dir,
			  const struct flavour *f)
{
	uint64_t limit = read_limit(dir, f), high = UINT64_MAX;

	(void)q;
	if (f->throttle)
		high = read_value(dir, f->throttle);
	return high < limit ? high : limit;
}

static uint64_t ask_allowance(const struct question *q, const char *dir,
			      const struct flavour *f)
{
	uint64_t limit = ask_limit(q, dir, f), used, rest;

	if (limit == UINT64_MAX)
		return UINT64_MAX;
	limit -= limit / TMEM_CGROUP_SPARE;
	used = read_value(dir, f->usage);
	if (used == UINT64_MAX)
		return limit;
	rest = q->tree_bytes + read_cache(dir, f, true);
	used -= rest < used ? rest : used;
	return used < limit ? limit - used : 0;
}

/* From the group up to the root. */
static void walk_up(struct question *q, const char *root,
		    const struct flavour *f, const char *group)
{
	char dir[PATH_MAX], *slash;
	uint64_t here;
	size_t base;
	int n;

	base = strlen(root) + strlen(f->mount);
	n = snprintf(dir, sizeof(dir), "%s%s%s", root, f->mount, group);
	if (n >= (int)sizeof(dir))
		return;
	for (;;) {
		here = q->ask(q, dir, f);
		if (here < q->least)
			q->least = here;
		slash = strrchr(dir, '/');
		if (!slash || (size_t)(slash - dir) < base)
			return;
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

static void ask_line(struct question *q, const char *root, char *line)
{
	char *controllers = strchr(line, ':'), *group;

	group = controllers ? strchr(controllers + 1, ':') : NULL;
	if (!group)
		return;
	*controllers++ = '\0';
	*group++ = '\0';
	if (has_controller(controllers, "memory")) {
		walk_up(q, root, &v1, group);
	} else if (!*controllers) {
		walk_up(q, root, &v2, group);
		walk_up(q, root, &v2_hybrid, group);
	}
}

static uint64_t ask_all(struct question *q, const char *root, pid_t pid)
{
	char path[PATH_MAX], line[PATH_MAX];
	FILE *f;

	q->least = UINT64_MAX;
	snprintf(path, sizeof(path), "%s/proc/%d/cgroup", root, (int)pid);
	f = fopen(path, "re");
	if (!f)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		ask_line(q, root, line);
	}
	fclose(f);
	return q->least;
}

uint64_t tmem_cgroup_headroom(const char *root, pid_t pid)
{
	struct question q = { .ask = ask_headroom };

	return ask_all(&q, root, pid);
}

uint64_t tmem_cgroup_limit(const char *root, pid_t pid)
{
	struct question q = { .ask = ask_limit };

	return ask_all(&q, root, pid);
}

uint64_t tmem_cgroup_allowance(const char *root, pid_t pid, uint64_t tree_bytes)
{
	struct question q = { .ask = ask_allowance, .tree_bytes = tree_bytes };

	return ask_all(&q, root, pid);
}
