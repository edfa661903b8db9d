/* SPDX-License-Identifier: MIT */
/* The tightest memory cgroup, v1 and v2, in a file system made up here. */
#include "base/assert.h"
#include "cli/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[] = "/var/tmp/tmem-cgroup-XXXXXX";

static void put(const char *path, const char *text)
{
	char command[512], full[256];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	snprintf(command, sizeof(command), "mkdir -p \"$(dirname %s)\"", full);
	TMEM_ASSERT(system(command) == 0);
	f = fopen(full, "w");
	TMEM_ASSERT(f);
	fputs(text, f);
	fclose(f);
}

static void no_limit(void)
{
	TMEM_ASSERT(tmem_cgroup_headroom(root, 1) == UINT64_MAX);
	put("/proc/1/cgroup", "0::/a/b\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 1) == UINT64_MAX);
	put("/sys/fs/cgroup/a/b/memory.max", "max\n");
	put("/sys/fs/cgroup/a/b/memory.current", "1000\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 1) == UINT64_MAX);
}

static void the_tightest_of_nested_v2_groups(void)
{
	put("/sys/fs/cgroup/a/memory.max", "5000\n");
	put("/sys/fs/cgroup/a/memory.current", "4000\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 1) == 1000);
	/* Page cache can be dropped. */
	put("/sys/fs/cgroup/a/memory.stat",
	    "anon 3000\ninactive_file 500\nactive_file 500\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 1) == 1500);
	put("/sys/fs/cgroup/a/b/memory.max", "1200\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 1) == 200);
	put("/sys/fs/cgroup/a/b/memory.current", "1300\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 1) == 0);
}

static void v1_among_other_controllers(void)
{
	put("/proc/2/cgroup", "9:name=systemd:/x\n"
			      "4:cpu,memory,foo:/job\n"
			      "3:memoryless:/y\n0::/\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes",
	    "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "123456\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 2) == UINT64_MAX);
	put("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1000\n");
	put("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "700\n");
	put("/sys/fs/cgroup/memory/job/memory.stat",
	    "inactive_file 1\ntotal_inactive_file 100\n");
	TMEM_ASSERT(tmem_cgroup_headroom(root, 2) == 400);
}

int main(void)
{
	char command[128];

	TMEM_ASSERT(mkdtemp(root));
	no_limit();
	the_tightest_of_nested_v2_groups();
	v1_among_other_controllers();
	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}
