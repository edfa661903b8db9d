/* SPDX-License-Identifier: MIT */
/*
 * Locked memory must stay where it is, and the rest go on being paged.
 *
 *   part     mlock of pieces, locked before and after they were evicted
 *   all      mlockall(MCL_CURRENT | MCL_FUTURE), then growth, then none of it
 *   onfault  mlock2(MLOCK_ONFAULT)
 *   fork     a child inherits no locks
 */
#include "torture.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	PIECE = 16
};

static struct tt_region region;

/* Needs the limit, or the right to lock beyond it. */
static void allow_locks(size_t bytes)
{
	struct rlimit limit;
	void *trial = tt_map(bytes);

	TT_SYS(getrlimit(RLIMIT_MEMLOCK, &limit));
	limit.rlim_cur = limit.rlim_max;
	TT_SYS(setrlimit(RLIMIT_MEMLOCK, &limit));
	if (mlock(trial, bytes))
		tt_skip("mlock of %zu bytes: %s", bytes, strerror(errno));
	TT_SYS(munmap(trial, bytes));
}

static void setup(void)
{
	allow_locks(tt_pages(8) * TT_PAGE);
	tt_region_begin(&region, tt_pages(24) / PIECE * PIECE);
}

static bool is_locked_piece(size_t nr)
{
	return nr / PIECE % 4 == 1;
}

/* What is locked must be resident at any time. */
static void check_resident(bool (*locked)(size_t nr))
{
	unsigned char *resident = malloc(region.nr_pages);

	TT_ASSERT(resident);
	TT_SYS(mincore(region.base, region.nr_pages * TT_PAGE, resident));
	for (size_t nr = 0; nr < region.nr_pages; nr++)
		if (locked(nr) && !(resident[nr] & 1))
			tt_fail("locked page %zu is not resident", nr);
	free(resident);
}

static void lock_pieces(unsigned flags)
{
	for (size_t nr = 0; nr < region.nr_pages; nr += PIECE)
		if (is_locked_piece(nr))
			TT_SYS(mlock2(region.base + nr * TT_PAGE,
				      PIECE * TT_PAGE, flags));
}

static void part(void)
{
	uint64_t rng = tt_rand_start(1);

	setup();
	for (unsigned i = 0; i < 2; i++) {
		lock_pieces(0);
		check_resident(is_locked_piece);
		tt_pressure();
		check_resident(is_locked_piece);
		tt_region_verify_shuffled(&region);
		tt_region_work(&region, &rng, region.nr_pages, 2);
		TT_SYS(munlock(region.base, region.nr_pages * TT_PAGE));
		tt_pressure();
		tt_region_verify_shuffled(&region);
	}
	tt_region_unmap(&region);
}

static void onfault(void)
{
	setup();
	lock_pieces(MLOCK_ONFAULT);
	tt_region_verify_shuffled(&region);
	check_resident(is_locked_piece);
	tt_pressure();
	check_resident(is_locked_piece);
	TT_SYS(munlock(region.base, region.nr_pages * TT_PAGE));
	tt_pressure();
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static bool any_page(size_t nr)
{
	(void)nr;
	return true;
}

/* Alone, and before there is pressure: all of it has to fit. */
static void all(void)
{
	uint64_t rng = tt_rand_start(2);

	allow_locks(tt_pages(25) * TT_PAGE);
	TT_SYS(mlockall(MCL_CURRENT | MCL_FUTURE));
	for (unsigned i = 0; i < 3; i++) {
		tt_region_map(&region, tt_pages(10), 1);
		check_resident(any_page);
		tt_region_fill(&region);
		tt_region_work(&region, &rng, region.nr_pages, 2);
		check_resident(any_page);
		tt_region_verify(&region);
		if (i < 2)
			tt_region_unmap(&region);
	}
	TT_SYS(munlockall());
	tt_pressure_init(85);
	tt_pressure();
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
}

static void forked(void)
{
	pid_t pid;

	setup();
	lock_pieces(0);
	pid = tt_fork();
	if (!pid) {
		tt_pressure();
		tt_region_verify_shuffled(&region);
		lock_pieces(0);
		tt_region_fill(&region);
		check_resident(is_locked_piece);
		tt_region_verify(&region);
		_exit(0);
	}
	tt_pressure();
	check_resident(is_locked_piece);
	tt_wait(pid);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "part", part },
						{ "onfault", onfault },
						{ "fork", forked },
						{ "all", all, true },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
