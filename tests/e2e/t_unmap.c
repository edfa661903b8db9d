/* SPDX-License-Identifier: MIT */
/*
 * munmap() of evicted memory: what is mapped at the same address afterwards
 * reads zero, and stays what the program writes to it (a stale eviction could
 * rob the new mapping; a stale stored page could come back).
 *
 *   whole    unmap all, map at the same address
 *   partial  random pieces of one mapping, unmapped and mapped again
 *   over     MAP_FIXED over evicted memory, without unmapping first
 *   churn    many short-lived mappings, as free() of large blocks makes them
 *   holes    holes stay holes: mincore says so
 */
#include "torture.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
	SLOT = 16
}; /* pages of a piece */

static struct tt_region region;

static void setup(unsigned percent)
{
	tt_region_begin(&region, tt_pages(percent) / SLOT * SLOT);
}

/* `how`: MAP_FIXED over what is there, MAP_FIXED_NOREPLACE into a hole. */
static void map_as(size_t first, size_t nr, int how)
{
	void *want = region.base + first * TT_PAGE;
	void *got = mmap(want, nr * TT_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | how, -1, 0);

	if (got == MAP_FAILED && errno == EEXIST)
		tt_fail("somebody mapped memory into the hole at %p", want);
	TT_ASSERT(got == want);
	tt_region_dropped(&region, first, nr);
}

static void map_again(size_t first, size_t nr)
{
	map_as(first, nr, MAP_FIXED_NOREPLACE);
}

static void whole(void)
{
	setup(30);
	for (unsigned i = 0; i < 4; i++) {
		TT_SYS(munmap(region.base, region.nr_pages * TT_PAGE));
		map_again(0, region.nr_pages);
		if (i % 2)
			tt_region_verify_shuffled(&region);
		region.bump = (uint16_t)(i + 2);
		tt_region_fill(&region);
		tt_region_verify(&region);
		tt_pressure();
		tt_region_verify_shuffled(&region);
	}
	tt_region_unmap(&region);
}

static void check_slot(size_t slot)
{
	for (size_t nr = slot * SLOT; nr < (slot + 1) * SLOT; nr++)
		tt_region_check(&region, nr);
}

static void partial(void)
{
	uint64_t rng = tt_rand_start(2);
	size_t nr_slots, mapped = 0;
	bool *gone;

	setup(30);
	nr_slots = region.nr_pages / SLOT;
	gone = calloc(nr_slots, sizeof(*gone));
	TT_ASSERT(gone);
	for (size_t i = 0; i < nr_slots * 8; i++) {
		size_t slot = (tt_rand(&rng) >> 16) % nr_slots;

		if (i % (nr_slots * 2) == nr_slots)
			tt_pressure();
		if (gone[slot]) {
			map_again(slot * SLOT, SLOT);
			if (i % 2)
				check_slot(slot);
			for (size_t p = i % 3; p < SLOT; p += 2)
				tt_region_write(&region, slot * SLOT + p);
			check_slot(slot);
			gone[slot] = false;
			mapped++;
		} else {
			check_slot(slot);
			if (i % 4 == 0)
				continue;
			TT_SYS(munmap(region.base + slot * SLOT * TT_PAGE,
				      SLOT * TT_PAGE));
			gone[slot] = true;
		}
	}
	for (size_t slot = 0; slot < nr_slots; slot++)
		if (gone[slot])
			map_again(slot * SLOT, SLOT);
		else
			check_slot(slot);
	TT_ASSERT(mapped > 0);
	free(gone);
	tt_region_unmap(&region);
}

static void over(void)
{
	uint64_t rng = tt_rand_start(3);

	setup(30);
	for (unsigned i = 0; i < 2000; i++) {
		size_t n = 1 + (tt_rand(&rng) >> 16) % 40;
		size_t first = (tt_rand(&rng) >> 16) % (region.nr_pages - n);

		map_as(first, n, MAP_FIXED);
		tt_region_work(&region, &rng, 20, 2);
		for (size_t nr = first; nr < first + n; nr += 3)
			tt_region_write(&region, nr);
		if (i % 500 == 499)
			tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void churn(void)
{
	enum {
		NR = 24
	};
	struct tt_region live[NR] = { 0 };
	uint64_t rng = tt_rand_start(4);

	for (unsigned i = 0; i < 600; i++) {
		struct tt_region *r =
			&live[(unsigned)(tt_rand(&rng) >> 16) % NR];

		if (r->base) {
			tt_region_verify_shuffled(r);
			tt_region_unmap(r);
		}
		tt_region_map(r,
			      2 + (tt_rand(&rng) >> 16) %
					      (tt_pages(90) * 2 / NR - 2),
			      4000 + i);
		if (i % 5 == 0) /* new mappings read zero */
			tt_region_verify(r);
		tt_region_fill(r);
	}
	for (unsigned i = 0; i < NR; i++) {
		if (!live[i].base)
			continue;
		tt_region_verify(&live[i]);
		tt_region_unmap(&live[i]);
	}
}

static void holes(void)
{
	unsigned char resident[1];

	setup(30);
	for (size_t nr = 0; nr < region.nr_pages; nr += 5)
		TT_SYS(munmap(region.base + nr * TT_PAGE, TT_PAGE));
	tt_pressure();
	for (size_t nr = 0; nr < region.nr_pages; nr++) {
		int r = mincore(region.base + nr * TT_PAGE, TT_PAGE, resident);

		if (nr % 5) {
			TT_SYS(r);
			tt_region_check(&region, nr);
		} else if (r != -1 || errno != ENOMEM) {
			tt_fail("page %zu is mapped again", nr);
		}
	}
	for (size_t nr = 0; nr < region.nr_pages; nr += 5)
		map_again(nr, 1);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "whole", whole }, { "partial", partial }, { "over", over },
		{ "churn", churn }, { "holes", holes },	    { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
