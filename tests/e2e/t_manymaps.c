/* SPDX-License-Identifier: MIT */
/*
 * 10,000 mappings, which cannot merge because their protections alternate.
 *
 *   alternate  pieces of one reserve, every second one executable
 *   readonly   every second one read-only: those pages have to stay
 *   scattered  single mappings with holes, replaced at random
 *   fork       10,000 mappings and a child
 */
#include "torture.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	NR_MAPS = 10000
};

static struct tt_region region;
static size_t piece_pages;

/* Every second piece gets `protection`. */
static void protect(size_t first, int protection)
{
	for (size_t i = first; i < NR_MAPS; i += 2)
		TT_SYS(mprotect(region.base + i * piece_pages * TT_PAGE,
				piece_pages * TT_PAGE, protection));
}

static void setup(int protection)
{
	piece_pages = tt_pages(90) / NR_MAPS;
	if (!piece_pages)
		piece_pages = 1;
	tt_region_map(&region, piece_pages * NR_MAPS, 1);
	tt_region_fill(&region);
	protect(1, protection);
}

/* Checks all of it; writes a third of what may be written. */
static void work(uint64_t *rng)
{
	for (size_t i = 0; i < region.nr_pages; i++) {
		size_t nr = (tt_rand(rng) >> 16) % region.nr_pages;

		tt_region_check(&region, nr);
		if (i % 3 == 0 && nr / piece_pages % 2 == 0)
			tt_region_write(&region, nr);
	}
	tt_region_verify_shuffled(&region);
}

static void alternate_with(int protection)
{
	uint64_t rng = tt_rand_start(1);

	setup(protection);
	for (unsigned i = 0; i < 2; i++)
		work(&rng);
	protect(1, PROT_READ | PROT_WRITE);
	protect(0, protection);
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
}

static void alternate(void)
{
	alternate_with(PROT_READ | PROT_WRITE | PROT_EXEC);
}

static void readonly(void)
{
	alternate_with(PROT_READ);
}

static void scattered(void)
{
	uint16_t *versions = calloc(NR_MAPS, sizeof(*versions));
	size_t pages = tt_pages(80) / NR_MAPS + 1;
	uint64_t rng = tt_rand_start(2);
	unsigned char *reserve;

	TT_ASSERT(versions);
	/* A page stays unreadable after each, so that they can't merge. */
	reserve = mmap(NULL, NR_MAPS * (pages + 1) * TT_PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	TT_SYS(reserve == MAP_FAILED ? -1 : 0);
	for (size_t i = 0; i < NR_MAPS * 3ul; i++) {
		size_t k = i < NR_MAPS ? i : (tt_rand(&rng) >> 16) % NR_MAPS;
		unsigned char *at = reserve + k * (pages + 1) * TT_PAGE;

		for (size_t p = 0; versions[k] && p < pages; p++)
			tt_check(at + p * TT_PAGE, k, p, versions[k]);
		if (versions[k] && i % 2)
			continue;
		TT_ASSERT(mmap(at, pages * TT_PAGE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			       0) == at);
		tt_check_zero(at, TT_PAGE, "mapped anew");
		versions[k]++;
		for (size_t p = 0; p < pages; p++)
			tt_fill(at + p * TT_PAGE, k, p, versions[k]);
	}
	for (size_t k = 0; k < NR_MAPS; k++)
		for (size_t p = 0; p < pages; p++)
			tt_check(reserve + (k * (pages + 1) + p) * TT_PAGE, k,
				 p, versions[k]);
	TT_SYS(munmap(reserve, NR_MAPS * (pages + 1) * TT_PAGE));
	free(versions);
}

static void forked(void)
{
	uint64_t rng = tt_rand_start(3);
	pid_t pid;

	setup(PROT_READ | PROT_WRITE | PROT_EXEC);
	pid = tt_fork();
	region.bump = pid ? 1 : 100;
	work(&rng);
	if (!pid)
		_exit(0);
	tt_wait(pid);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "alternate", alternate },
						{ "readonly", readonly },
						{ "scattered", scattered },
						{ "fork", forked },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
