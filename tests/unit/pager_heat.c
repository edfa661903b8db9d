/* SPDX-License-Identifier: MIT */
/*
 * Heat, on a table and a clock of the test's own: pages leave and come back at
 * random and as they are wanted; invariants after every step, and in the end
 * those that are wanted often must be passed by more often than the others.
 *
 * Usage: pager_heat [STEPS [SEED]]
 */
#include "pager/heat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fstest.h"

enum {
	NR = 64 * LEAF_PAGES,
	ROOM = NR / 2,
	HOT = NR / 8 /* wanted by every second touch */
};

static struct tmem_pager pager;
static struct tmem_tree tree;
static uint32_t handles[NR];
static struct rng rng;

static void fail(const char *what, unsigned i)
{
	fprintf(stderr, "FAILED: %s at page %u\n", what, i);
	exit(1);
}

static bool is_resident(unsigned i)
{
	return tmem_entry_state(tmem_table_entry(&pager.table, handles[i])) ==
	       PAGE_RESIDENT;
}

static struct tmem_leaf *leaf_of(unsigned i)
{
	return tmem_table_leaf(&pager.table, handles[i] >> LEAF_SHIFT);
}

/* How often page i is still to be passed by. */
static unsigned rounds_of(unsigned i)
{
	unsigned place = handles[i] % LEAF_PAGES;

	return leaf_of(i)->young[0] >> place & 1
		       ? leaf_of(i)->age[place] & HEAT_AGE_MASK
		       : 0;
}

/* A visit: who may go is who was not to be passed by; the others count down. */
static void visit(unsigned first) TMEM_REQUIRES(&pager.lock)
{
	unsigned before[LEAF_PAGES], k;
	uint64_t may;

	for (k = 0; k < LEAF_PAGES; k++)
		before[k] = rounds_of(first + k);
	may = tmem_heat_visit(leaf_of(first));
	for (k = 0; k < LEAF_PAGES; k++) {
		if ((may >> k & 1) != (before[k] == 0))
			fail("taken too early or too late", first + k);
		if (before[k] && rounds_of(first + k) != before[k] - 1)
			fail("not passed by", first + k);
		if (is_resident(first + k) && (may >> k & 1)) {
			tmem_heat_left_locked(&pager, handles[first + k]);
			tmem_table_set(&pager.table, handles[first + k],
				       PAGE_STORED, 1);
		}
	}
}

static void touch(unsigned i) TMEM_REQUIRES(&pager.lock)
{
	unsigned most = (1u << HEAT_MAX) - 1;

	if (is_resident(i))
		return;
	tmem_table_set(&pager.table, handles[i], PAGE_RESIDENT, 0);
	if (rng_next(&rng) % 8 == 0) {
		tmem_heat_arrived_locked(&pager, handles[i]);
		if (rounds_of(i))
			fail("read ahead, and hot", i);
	} else {
		tmem_heat_came_locked(&pager, handles[i]);
		if (rounds_of(i) > most)
			fail("too hot", i);
	}
	if (!tmem_heat_is_fresh(&pager, leaf_of(i)))
		fail("just come, and not fresh", i);
	while (pager.table.nr_resident > ROOM)
		visit((unsigned)(rng_next(&rng) % (NR / LEAF_PAGES)) *
		      LEAF_PAGES);
}

/* How many of the touches were misses, in the second half. */
static unsigned long run(unsigned long steps) TMEM_REQUIRES(&pager.lock)
{
	unsigned long k, misses = 0;

	for (k = 0; k < steps; k++) {
		unsigned i =
			(unsigned)(rng_next(&rng) % 2 ? rng_next(&rng) % HOT
						      : rng_next(&rng) % NR);

		misses += k > steps / 2 && !is_resident(i);
		touch(i);
		if (k % 1024 == 0)
			tmem_table_check(&pager.table);
	}
	return misses;
}

int main(int argc, char **argv)
{
	unsigned long steps = argc > 1 ? strtoul(argv[1], NULL, 10) : 400000;
	unsigned long with, without;
	unsigned i;

	rng.state = seed_from(argc, argv, 2);
	pager.tree = &tree;
	tmem_lock_init(&pager.lock, TMEM_RANK_PAGER);
	tmem_heat_init(&pager);
	if (tmem_table_init(&pager.table) != 0)
		return 1;
	tmem_lock_acquire(&pager.lock);
	for (i = 0; i < NR; i++) {
		handles[i] = tmem_table_make(&pager.table, 0x1000 + i);
		tmem_table_set(&pager.table, handles[i], PAGE_STORED, 1);
	}
	tree.without = 1u << TMEM_HEAT;
	without = run(steps);
	tree.without = 0;
	with = run(steps);
	printf("misses: %lu, at random %lu\n", with, without);
	if (with > without / 100 * 95)
		fail("hot pages are not kept", 0);
	/* What comes there next is another page. */
	tmem_table_set(&pager.table, handles[0], PAGE_NONE, 0);
	if (leaf_of(0)->age[handles[0] % LEAF_PAGES])
		fail("heat outlives its page", 0);
	tmem_lock_release(&pager.lock);
	return 0;
}
