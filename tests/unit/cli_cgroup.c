/* SPDX-License-Identifier: MIT */
/* The tightest memory cgroup, v1 and v2, in a file system made up here. */
#include "base/assert.h"
#include "cli/cgroup.h"
#include "testroot.h"

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

static void all_page_cache_makes_room_for_auto(void)
{
	/* Group a: 5000, of which 4000 used, 1000 of that cache. */
	put("/proc/3/cgroup", "0::/a\n");
	TMEM_ASSERT(tmem_cgroup_limit(root, 3) == 5000);
	TMEM_ASSERT(tmem_cgroup_allowance(root, 3, 0) == 1500);
	/* What the tree uses is nobody else's. */
	TMEM_ASSERT(tmem_cgroup_allowance(root, 3, 2500) == 4000);
	TMEM_ASSERT(tmem_cgroup_allowance(root, 3, 9000) == 4500);
	/* Others have it all. */
	put("/sys/fs/cgroup/a/memory.current", "6000\n");
	TMEM_ASSERT(tmem_cgroup_allowance(root, 3, 0) == 0);
	put("/sys/fs/cgroup/a/memory.current", "4000\n");
}

static void the_tightest_group_counts_for_auto_too(void)
{
	/* Group a/b: 1200, of which 1300 used. */
	TMEM_ASSERT(tmem_cgroup_limit(root, 1) == 1200);
	TMEM_ASSERT(tmem_cgroup_allowance(root, 1, 1300) == 1080);
	/* a: 4500 less 4000 - 1000 - 500; b: all 1300 but 500. */
	TMEM_ASSERT(tmem_cgroup_allowance(root, 1, 500) == 280);
	/* A group that is slowed down beyond it. */
	put("/sys/fs/cgroup/a/memory.high", "1000\n");
	TMEM_ASSERT(tmem_cgroup_limit(root, 1) == 1000);
	TMEM_ASSERT(tmem_cgroup_allowance(root, 1, 3000) == 900);
	put("/sys/fs/cgroup/a/memory.high", "max\n");
	TMEM_ASSERT(tmem_cgroup_limit(root, 1) == 1200);
	/* v1 */
	TMEM_ASSERT(tmem_cgroup_limit(root, 2) == 1000);
	TMEM_ASSERT(tmem_cgroup_allowance(root, 2, 300) == 600);
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "900\n");
	TMEM_ASSERT(tmem_cgroup_limit(root, 2) == 900);
}

int main(void)
{
	make_root();
	no_limit();
	the_tightest_of_nested_v2_groups();
	v1_among_other_controllers();
	all_page_cache_makes_room_for_auto();
	the_tightest_group_counts_for_auto_too();
	return remove_root();
}
