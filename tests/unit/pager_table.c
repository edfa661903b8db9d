/* SPDX-License-Identifier: MIT */
/*
 * The pager's page table against a plain array: random sets, pins, walks and
 * unpins in a few leaves far apart, invariants after every step.
 *
 * Usage: pager_table [STEPS [SEED]]
 */
#include "pager/table.h"

#include <stdio.h>
#include <stdlib.h>

#include "fstest.h"

enum {
	NR_PLACES = 5,
	PAGES = 3 * LEAF_PAGES,
	NR = NR_PLACES * PAGES
};

static const uint64_t place[NR_PLACES] = { 0x10, 0x7f0000000ull, 0x7fffff000ull,
					   0x300000000ull, 0x55d5c0123ull };
static uint32_t want[NR];
static bool loose[NR];
static struct rng rng;

static uint64_t vpn_of(unsigned i)
{
	return place[i / PAGES] + i % PAGES;
}

static void fail(const char *what, unsigned i)
{
	fprintf(stderr, "FAILED: %s at page %u\n", what, i);
	exit(1);
}

static void count(void *arg, uint32_t handle, uint32_t entry)
{
	(void)handle;
	(void)entry;
	++*(unsigned *)arg;
}

static void drop(void *arg, uint32_t handle, uint32_t entry)
{
	(void)entry;
	tmem_table_set(arg, handle, PAGE_NONE, 0);
}

static void set_one(struct tmem_table *table, unsigned i)
{
	uint32_t state = (uint32_t)(rng_next(&rng) % 7);
	uint32_t value =
		state ? (uint32_t)rng_next(&rng) & TABLE_VALUE_MASK : 0;
	uint32_t handle = tmem_table_make(table, vpn_of(i));

	if (handle == TABLE_NO_HANDLE)
		fail("no memory", i);
	if (tmem_table_vpn(table, handle) != vpn_of(i))
		fail("handle of another page", i);
	tmem_table_set(table, handle, (enum tmem_page_state)state, value);
	want[i] = state << TABLE_VALUE_BITS | value;
	loose[i] = state >= PAGE_STORED && rng_next(&rng) % 2;
	if (loose[i])
		tmem_table_set_loose(table, handle);
	if (rng_next(&rng) % 8 == 0) {
		handle = tmem_table_make(table, vpn_of(i));
		tmem_table_pin(table, handle);
	}
}

/* A range is walked, counted against the array, and sometimes emptied. */
static void walk_some(struct tmem_table *table, unsigned i)
{
	unsigned end = i + (unsigned)(rng_next(&rng) % (PAGES - i % PAGES)) + 1;
	unsigned found = 0, expected = 0, k;

	for (k = i; k < end; k++)
		expected += want[k] != 0;
	tmem_table_walk(table, vpn_of(i), vpn_of(end - 1) + 1, count, &found);
	if (found != expected)
		fail("walk", i);
	if (rng_next(&rng) % 4)
		return;
	tmem_table_unpin(table, vpn_of(i), vpn_of(end - 1) + 1);
	tmem_table_walk(table, vpn_of(i), vpn_of(end - 1) + 1, drop, table);
	for (k = i; k < end; k++)
		want[k] = 0;
}

int main(int argc, char **argv)
{
	unsigned long steps = argc > 1 ? strtoul(argv[1], NULL, 0) : 60000;
	struct tmem_table table;
	unsigned i;

	rng.state = seed_from(argc, argv, 2);
	if (tmem_table_init(&table) != 0)
		fail("init", 0);
	while (steps--) {
		i = (unsigned)(rng_next(&rng) % NR);
		if (rng_next(&rng) % 64)
			set_one(&table, i);
		else
			walk_some(&table, i);
		i = (unsigned)(rng_next(&rng) % NR);
		if (tmem_table_get(&table, vpn_of(i)) != want[i])
			fail("get", i);
		if (want[i] &&
		    tmem_table_is_loose(&table,
					tmem_table_find(&table, vpn_of(i))) !=
			    loose[i])
			fail("loose", i);
		if (steps % 64 == 0)
			tmem_table_check(&table);
	}
	printf("ok: %u leaves, %llu resident\n", table.nr_leaves,
	       (unsigned long long)table.nr_resident);
	return 0;
}
