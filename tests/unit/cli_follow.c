/* SPDX-License-Identifier: MIT */
/*
 * A budget that changes: -m auto with a memory cgroup made up here, in a tree
 * whose pagers are made up too, and what tmem set may ask for.
 */
#include "base/assert.h"
#include "cli/keeper.h"
#include "testroot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

static struct tmem_keeper k;
static struct tmem_tree tree;
static struct tmem_tree_slot *slot;

static void put_mib(const char *path, uint64_t mib)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64 "\n", mib * MIB);
	put(path, text);
}

static void set_group(uint64_t limit_mib, uint64_t used_mib)
{
	put_mib("/sys/fs/cgroup/box/memory.max", limit_mib);
	put_mib("/sys/fs/cgroup/box/memory.current", used_mib);
}

/* A tree of one process that uses so much. */
static void begin(struct tmem_amount memory, uint64_t usage_mib)
{
	memset(&k, 0, sizeof(k));
	memset(&tree, 0, sizeof(tree));
	k.tree = &tree;
	k.root = root;
	k.swap_map_fd = -1;
	k.main_pid = 7;
	k.memory = memory;
	k.asked_bytes = 1024 * MIB;
	tree.limit_bytes = k.asked_bytes;
	tree.avail_bytes = (int64_t)k.asked_bytes;
	tmem_slots_init(&k);
	slot = &tree.slots[tmem_slots_claim(&k)];
	slot->state = TMEM_SLOT_LIVE;
	slot->grant_bytes = slot->usage_bytes = usage_mib * MIB;
	tree.avail_bytes -= (int64_t)(usage_mib * MIB);
}

static void check_budget(void)
{
	TMEM_ASSERT((int64_t)tree.limit_bytes ==
		    tree.avail_bytes + (int64_t)slot->grant_bytes);
}

static void auto_follows_the_group(void)
{
	const struct tmem_amount follow = { TMEM_AMOUNT_AUTO, 0 };
	uint64_t now = TMEM_S;

	begin(follow, 100);
	set_group(1000, 150); /* 50 are others' */
	tmem_follow_tick(&k, now);
	TMEM_ASSERT(tree.limit_bytes == 850 * MIB);
	check_budget();
	/* 750 MiB away: not looked at before others could use them up. */
	TMEM_ASSERT(k.next_follow_ns > now + 150 * TMEM_MS);
	set_group(500, 150);
	tmem_follow_tick(&k, now + TMEM_MS);
	TMEM_ASSERT(tree.limit_bytes == 850 * MIB);
	now = k.next_follow_ns;
	tmem_follow_tick(&k, now);
	TMEM_ASSERT(tree.limit_bytes == 400 * MIB);
	check_budget();
	/* Its own growth changes nothing. */
	slot->usage_bytes = slot->grant_bytes = 300 * MIB;
	tree.avail_bytes -= (int64_t)(200 * MIB);
	set_group(500, 350);
	now = k.next_follow_ns;
	tmem_follow_tick(&k, now);
	TMEM_ASSERT(tree.limit_bytes == 400 * MIB);
	/* Nor does what is less than worth a step. */
	put_mib("/sys/fs/cgroup/box/memory.current", 351);
	now = k.next_follow_ns;
	tmem_follow_tick(&k, now);
	TMEM_ASSERT(tree.limit_bytes == 400 * MIB);
	/* Near it: soon again. */
	TMEM_ASSERT(k.next_follow_ns == now + 50 * TMEM_MS);
}

static void less_than_in_use_is_collected(void)
{
	const struct tmem_amount follow = { TMEM_AMOUNT_AUTO, 0 };

	begin(follow, 600);
	set_group(500, 600);
	tmem_follow_tick(&k, TMEM_S);
	TMEM_ASSERT(tree.limit_bytes == 450 * MIB);
	TMEM_ASSERT(tree.avail_bytes == -(int64_t)(150 * MIB));
	check_budget();
	TMEM_ASSERT(tmem_share_update(&k, TMEM_S));
	TMEM_ASSERT(slot->target_bytes == 450 * MIB);
	/* It obeys. */
	slot->grant_bytes = slot->target_bytes;
	tree.avail_bytes += (int64_t)(150 * MIB);
	TMEM_ASSERT(!tmem_share_update(&k, TMEM_S));
	TMEM_ASSERT(slot->target_bytes == UINT64_MAX);
}

static void neighbours_leave_the_least(void)
{
	const struct tmem_amount follow = { TMEM_AMOUNT_AUTO, 0 };

	begin(follow, 20);
	set_group(500, 490);
	tmem_follow_tick(&k, TMEM_S);
	TMEM_ASSERT(tree.limit_bytes == TMEM_MIN_LIMIT_BYTES);
}

static void a_tree_that_may_grow_is_left_alone(void)
{
	const struct tmem_amount follow = { TMEM_AMOUNT_AUTO, 0 };

	begin(follow, 600);
	set_group(500, 600);
	tree.growing = 1;
	tmem_follow_tick(&k, TMEM_S);
	TMEM_ASSERT(tree.limit_bytes == 1024 * MIB);
	tree.growing = 0;
	tmem_follow_tick(&k, k.next_follow_ns);
	TMEM_ASSERT(tree.limit_bytes == 450 * MIB);
}

static void set_changes_size_and_way(void)
{
	const struct tmem_amount size = { TMEM_AMOUNT_BYTES, 200 * MIB };
	const struct tmem_amount half = { TMEM_AMOUNT_PERCENT, 50 };
	const struct tmem_amount tiny = { TMEM_AMOUNT_PERCENT, 1 };
	const struct tmem_amount follow = { TMEM_AMOUNT_AUTO, 0 };
	uint64_t old = 0;

	begin(size, 100);
	set_group(500, 150);
	TMEM_ASSERT(tmem_follow_set(&k, size, &old) == 0);
	TMEM_ASSERT(old == 1024 * MIB && tree.limit_bytes == 200 * MIB);
	check_budget();
	TMEM_ASSERT(tmem_follow_set(&k, half, &old) == 0);
	TMEM_ASSERT(old == 200 * MIB);
	TMEM_ASSERT(tree.limit_bytes / MIB == 249 ||
		    tree.limit_bytes == 250 * MIB);
	/* 1 % of 500 MiB. */
	TMEM_ASSERT(tmem_follow_set(&k, tiny, &old) == -ERANGE);
	TMEM_ASSERT(k.memory.value == 50);
	/* A size does not follow, auto does. */
	set_group(300, 150);
	tmem_follow_tick(&k, TMEM_S);
	TMEM_ASSERT(tree.limit_bytes > 240 * MIB);
	TMEM_ASSERT(tmem_follow_set(&k, follow, &old) == 0);
	TMEM_ASSERT(tree.limit_bytes == 220 * MIB);
	set_group(400, 150);
	tmem_follow_tick(&k, TMEM_S);
	TMEM_ASSERT(tree.limit_bytes == 310 * MIB);
	check_budget();
}

static void without_a_group_the_machine_is_the_limit(void)
{
	const struct tmem_amount follow = { TMEM_AMOUNT_AUTO, 0 };
	const struct tmem_amount part = { TMEM_AMOUNT_PERCENT, 60 };

	put("/proc/meminfo", "MemTotal:        1024000 kB\nMemFree: 1 kB\n");
	TMEM_ASSERT(tmem_amount_bytes(&follow, root, 99, 0) ==
		    1024000ull * 1024 / 10 * 9);
	TMEM_ASSERT(tmem_amount_bytes(&part, root, 99, 0) ==
		    1024000ull * 1024 / 10 * 6);
}

int main(void)
{
	make_root();
	put("/proc/7/cgroup", "0::/box\n");
	auto_follows_the_group();
	less_than_in_use_is_collected();
	neighbours_leave_the_least();
	a_tree_that_may_grow_is_left_alone();
	set_changes_size_and_way();
	without_a_group_the_machine_is_the_limit();
	return remove_root();
}
