/* SPDX-License-Identifier: MIT */
/*
 * Who gives back how much when memory is short: examples, then random trees
 * whose pagers obey at once.  SHARE_SEED=n repeats.
 */
#include "base/assert.h"
#include "cli/keeper.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB ((uint64_t)1 << 20)

static struct tmem_keeper k;
static struct tmem_tree tree;

static void begin(uint64_t limit_bytes)
{
	memset(&k, 0, sizeof(k));
	memset(&tree, 0, sizeof(tree));
	k.tree = &tree;
	k.swap_map_fd = -1;
	tree.limit_bytes = limit_bytes;
	tree.avail_bytes = (int64_t)limit_bytes;
	tmem_slots_init(&k);
	tmem_slots_check(&k);
}

static struct tmem_tree_slot *add(uint64_t grant, uint64_t want)
{
	struct tmem_tree_slot *t = &tree.slots[tmem_slots_claim(&k)];

	t->state = TMEM_SLOT_LIVE;
	t->grant_bytes = grant;
	t->want_bytes = want;
	tree.avail_bytes -= (int64_t)grant;
	return t;
}

static void enough_for_all_means_no_targets(void)
{
	struct tmem_tree_slot *a, *b;

	begin(100 * MIB);
	a = add(60 * MIB, 0);
	b = add(10 * MIB, 20 * MIB);
	TMEM_ASSERT(tmem_share_update(&k, TMEM_S));
	TMEM_ASSERT(a->target_bytes == UINT64_MAX);
	TMEM_ASSERT(b->target_bytes == UINT64_MAX);
	b->want_bytes = 0;
	TMEM_ASSERT(!tmem_share_update(&k, TMEM_S));
}

static void equals_share_equally(void)
{
	struct tmem_tree_slot *a, *b;

	begin(100 * MIB);
	a = add(100 * MIB, 0);
	b = add(0, 100 * MIB);
	tmem_share_update(&k, TMEM_S);
	TMEM_ASSERT(a->target_bytes >= 49 * MIB);
	TMEM_ASSERT(a->target_bytes <= 51 * MIB);
	TMEM_ASSERT(b->target_bytes == UINT64_MAX);
}

static void no_more_is_taken_than_is_wanted(void)
{
	struct tmem_tree_slot *a;

	begin(100 * MIB);
	a = add(100 * MIB, 0);
	add(0, 1 * MIB);
	tmem_share_update(&k, TMEM_S);
	TMEM_ASSERT(a->target_bytes == 99 * MIB);
}

static void who_faults_more_gets_more_but_nobody_starves(void)
{
	struct tmem_tree_slot *a, *b;

	begin(100 * MIB);
	a = add(50 * MIB, 0);
	b = add(50 * MIB, 50 * MIB);
	b->counters.faults_store = 100000;
	tmem_share_update(&k, TMEM_S);
	TMEM_ASSERT(a->target_bytes < 10 * MIB);
	TMEM_ASSERT(a->target_bytes >= 8 * MIB);
	/* The other way round a second later. */
	a->want_bytes = 50 * MIB;
	a->counters.faults_swap = 100000;
	tmem_share_update(&k, TMEM_S);
	TMEM_ASSERT(b->target_bytes < 10 * MIB);
	TMEM_ASSERT(a->target_bytes == UINT64_MAX);
	/* When nobody wants, nobody is told. */
	a->want_bytes = b->want_bytes = 0;
	tmem_share_update(&k, TMEM_S);
	TMEM_ASSERT(b->target_bytes == UINT64_MAX);
}

static void more_processes_than_floors(void)
{
	int i;

	begin(16 * MIB);
	for (i = 0; i < TMEM_TREE_SLOTS - 1; i++)
		add(16 * MIB / TMEM_TREE_SLOTS, 0);
	add(0, 16 * MIB);
	tmem_share_update(&k, TMEM_S);
	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		TMEM_ASSERT(tree.slots[i].target_bytes > 0);
}

/* Everybody obeys, then those who want take what there is. */
static void obey_and_take(unsigned n)
{
	struct tmem_tree_slot *t;
	uint64_t take, give;
	unsigned i;

	for (i = 0; i < n; i++) {
		t = &tree.slots[i];
		if (t->target_bytes >= t->grant_bytes)
			continue;
		give = t->grant_bytes - t->target_bytes;
		t->grant_bytes -= give;
		tree.avail_bytes += (int64_t)give;
	}
	for (i = 0; i < n; i++) {
		t = &tree.slots[i];
		take = (uint64_t)tree.avail_bytes;
		if (take > t->want_bytes)
			take = t->want_bytes;
		t->grant_bytes += take;
		t->want_bytes -= take;
		tree.avail_bytes -= (int64_t)take;
	}
}

static void random_trees(unsigned seed)
{
	unsigned round, n, i, step;
	uint64_t sum;

	srandom(seed);
	for (round = 0; round < 200; round++) {
		begin((uint64_t)(16 + random() % 4000) * MIB);
		n = 1 + (unsigned)random() % 40;
		TMEM_ASSERT(n > 0);
		for (i = 0; i < n; i++)
			add(tree.limit_bytes / n, 0);
		for (step = 0; step < 50; step++) {
			i = (unsigned)random() % n;
			tree.slots[i].want_bytes =
				(uint64_t)random() % tree.limit_bytes;
			i = (unsigned)random() % n;
			tree.slots[i].counters.faults_store +=
				(uint64_t)random() % 100000;
			tmem_share_update(&k, TMEM_S / 10);
			obey_and_take(n);
			for (i = 0, sum = 0; i < n; i++)
				sum += tree.slots[i].grant_bytes;
			TMEM_ASSERT(tree.avail_bytes >= 0);
			TMEM_ASSERT(sum + (uint64_t)tree.avail_bytes ==
				    tree.limit_bytes);
		}
	}
}

int main(void)
{
	const char *text = getenv("SHARE_SEED");
	unsigned seed =
		text ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);

	printf("SHARE_SEED=%u\n", seed);
	enough_for_all_means_no_targets();
	equals_share_equally();
	no_more_is_taken_than_is_wanted();
	who_faults_more_gets_more_but_nobody_starves();
	more_processes_than_floors();
	random_trees(seed);
	return 0;
}
