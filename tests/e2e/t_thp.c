/* SPDX-License-Identifier: MIT */
/*
 * Huge pages: memory that asked for them is paged, split, dropped and forked.
 *
 *   madvise   MADV_HUGEPAGE over an aligned region
 *   collapse  MADV_COLLAPSE of memory that was partly evicted
 *   split     pieces of huge pages dropped, protected and unmapped
 *   fork      huge pages shared with a child
 */
#include "torture.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

enum {
	HUGE_PAGES = 512
};

static struct tt_region region;

/* Aligned to huge pages; the slack before and after stays mapped. */
static void setup(void)
{
	size_t nr = tt_pages(30) / HUGE_PAGES * HUGE_PAGES;
	unsigned char *at;

	if (nr < HUGE_PAGES)
		nr = HUGE_PAGES;
	tt_pressure_init(60);
	at = tt_map((nr + HUGE_PAGES) * TT_PAGE);
	at += -(uintptr_t)at % (HUGE_PAGES * TT_PAGE);
	if (madvise(at, nr * TT_PAGE, MADV_HUGEPAGE))
		tt_skip("MADV_HUGEPAGE: %s", strerror(errno));
	tt_region_over(&region, at, nr, 1);
	tt_region_fill(&region);
	tt_region_verify(&region);
	tt_pressure();
}

static void advise(void)
{
	uint64_t rng = tt_rand_start(1);

	setup();
	for (unsigned i = 0; i < 3; i++) {
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_pressure();
		tt_region_verify_shuffled(&region);
	}
	/* Dropped, and faulted in anew as huge pages if the kernel likes. */
	TT_SYS(madvise(region.base, region.nr_pages * TT_PAGE, MADV_DONTNEED));
	tt_region_dropped(&region, 0, region.nr_pages);
	for (size_t nr = 0; nr < region.nr_pages; nr += 7)
		tt_region_write(&region, nr);
	tt_pressure();
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void collapse(void)
{
	uint64_t rng = tt_rand_start(2);

	setup();
	for (unsigned i = 0; i < 3; i++) {
		for (size_t nr = 0; nr < region.nr_pages; nr += HUGE_PAGES) {
			unsigned char *at = region.base + nr * TT_PAGE;
			int r = madvise(at, HUGE_PAGES * TT_PAGE,
					MADV_COLLAPSE);

			/* It may refuse; it may not change a byte. */
			if (r && errno == ENOSYS)
				tt_skip("no MADV_COLLAPSE");
			tt_region_work(&region, &rng, HUGE_PAGES, 3);
		}
		tt_region_verify_shuffled(&region);
		tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void split(void)
{
	uint64_t rng = tt_rand_start(3);

	setup();
	for (unsigned i = 0; i < 300; i++) {
		size_t n = 1 + (tt_rand(&rng) >> 16) % 100;
		size_t first = (tt_rand(&rng) >> 16) % (region.nr_pages - n);
		void *at = region.base + first * TT_PAGE;

		if (i % 3 == 0) {
			TT_SYS(madvise(at, n * TT_PAGE, MADV_DONTNEED));
			tt_region_dropped(&region, first, n);
		} else if (i % 3 == 1) {
			TT_SYS(mprotect(at, n * TT_PAGE, PROT_READ));
			tt_region_check(&region, first);
			TT_SYS(mprotect(at, n * TT_PAGE,
					PROT_READ | PROT_WRITE));
		} else {
			TT_ASSERT(mmap(at, n * TT_PAGE, PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				       -1, 0) == at);
			tt_region_dropped(&region, first, n);
		}
		tt_region_work(&region, &rng, 300, 2);
		if (i % 100 == 99)
			tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void forked(void)
{
	setup();
	for (unsigned i = 0; i < 2; i++) {
		uint64_t rng = tt_rand_start(4 + i);
		pid_t pid = tt_fork();

		region.bump = pid ? 1 : 100;
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_region_verify_shuffled(&region);
		if (!pid)
			_exit(0);
		tt_wait(pid);
		tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "madvise", advise },
						{ "collapse", collapse },
						{ "split", split },
						{ "fork", forked },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
