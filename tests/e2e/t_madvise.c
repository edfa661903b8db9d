/* SPDX-License-Identifier: MIT */
/*
 * madvise() on evicted memory.
 *
 *   dontneed  reads zero afterwards, and keeps what is written then
 *   free      MADV_FREE: each page is old or zero until written
 *   remove    MADV_REMOVE and punched holes of shared memory read zero
 *   wipefork  MADV_WIPEONFORK: zeros in the child, unchanged in the parent
 *   dontfork  MADV_DONTFORK: absent in the child
 *   guard     MADV_GUARD_INSTALL drops the pages and faults until removed
 *   hints     advice that must change nothing that a program can read
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef MADV_COLD
#define MADV_COLD    20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

static struct tt_region region;

static void setup(void)
{
	tt_region_begin(&region, tt_pages(30));
}

/* A random run of pages. */
static void *pick(uint64_t *rng, size_t most, size_t *ret_first, size_t *ret_nr)
{
	size_t nr = 1 + (tt_rand(rng) >> 16) % most;
	size_t first = (tt_rand(rng) >> 16) % (region.nr_pages - nr);

	*ret_first = first;
	*ret_nr = nr;
	return region.base + first * TT_PAGE;
}

static void dontneed(void)
{
	uint64_t rng = tt_rand_start(2);
	size_t first, nr;

	setup();
	for (unsigned i = 0; i < 3000; i++) {
		void *at = pick(&rng, 48, &first, &nr);

		TT_SYS(madvise(at, nr * TT_PAGE,
			       i % 8 ? MADV_DONTNEED : MADV_DONTNEED_LOCKED));
		tt_region_dropped(&region, first, nr);
		if (i % 3 == 0)
			for (size_t p = first; p < first + nr; p++)
				tt_region_check(&region, p);
		for (size_t p = first; p < first + nr; p += 1 + i % 5)
			tt_region_write(&region, p);
		tt_region_work(&region, &rng, 10, 3);
		if (i % 750 == 749)
			tt_pressure();
	}
	tt_region_verify(&region);
	TT_SYS(madvise(region.base, region.nr_pages * TT_PAGE, MADV_DONTNEED));
	tt_check_zero(region.base, region.nr_pages * TT_PAGE, "all dropped");
	tt_region_unmap(&region);
}

/* Old or zero; which of them is settled by a write. */
static void settle(size_t nr)
{
	unsigned char *page = region.base + nr * TT_PAGE;
	unsigned char old[TT_PAGE], found[TT_PAGE];

	/* Dirties the page: from here on it may not change any more. */
	page[7] = page[7];
	memcpy(found, page, TT_PAGE);
	tt_fill(old, region.id, nr, region.version[nr]);
	if (memcmp(found, old, TT_PAGE) != 0) {
		tt_check_zero(page, TT_PAGE, "freed page, neither old");
		region.version[nr] = 0;
	}
	tt_region_check(&region, nr);
}

static void lazy_free(void)
{
	uint64_t rng = tt_rand_start(3);
	size_t first, nr;

	setup();
	for (unsigned i = 0; i < 400; i++) {
		void *at = pick(&rng, 64, &first, &nr);

		TT_SYS(madvise(at, nr * TT_PAGE, MADV_FREE));
		if (i % 2) /* written right away: this must stay */
			for (size_t p = first; p < first + nr; p += 2)
				tt_region_write(&region, p);
		if (i % 40 == 39)
			tt_pressure();
		for (size_t p = first; p < first + nr; p++)
			if (i % 2 && (p - first) % 2 == 0)
				tt_region_check(&region, p);
			else
				settle(p);
	}
	tt_pressure();
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void remove_shared(struct tt_region *r, int fd)
{
	uint64_t rng = tt_rand_start(4);

	tt_region_fill(r);
	for (unsigned i = 0; i < 300; i++) {
		size_t nr = 1 + (tt_rand(&rng) >> 16) % 32;
		size_t first = (tt_rand(&rng) >> 16) % (r->nr_pages - nr);

		if (fd >= 0 && i % 2)
			TT_SYS(fallocate(
				fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)(first * TT_PAGE),
				(off_t)(nr * TT_PAGE)));
		else
			TT_SYS(madvise(r->base + first * TT_PAGE, nr * TT_PAGE,
				       MADV_REMOVE));
		tt_region_dropped(r, first, nr);
		tt_region_work(r, &rng, 50, 3);
		if (i % 100 == 99)
			tt_pressure();
	}
	tt_region_verify(r);
}

static void removal(void)
{
	size_t pages = tt_pages(10);
	struct tt_region shared;
	int fd = (int)TT_SYS(memfd_create("torture", MFD_CLOEXEC));

	setup();
	TT_SYS(ftruncate(fd, (off_t)(pages * TT_PAGE)));
	tt_region_over(&shared,
		       mmap(NULL, pages * TT_PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED, fd, 0),
		       pages, 40);
	remove_shared(&shared, fd);
	tt_region_unmap(&shared);
	close(fd);
	tt_region_over(&shared,
		       mmap(NULL, pages * TT_PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		       pages, 41);
	remove_shared(&shared, -1);
	tt_region_unmap(&shared);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void wipefork(void)
{
	size_t third, wiped;

	setup();
	third = region.nr_pages / 3;
	wiped = third * TT_PAGE;
	TT_SYS(madvise(region.base + wiped, wiped, MADV_WIPEONFORK));
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid = tt_fork();

		if (!pid) {
			tt_check_zero(region.base + wiped, wiped,
				      "wiped on fork");
			tt_region_dropped(&region, third, third);
			tt_region_verify_shuffled(&region);
			tt_region_fill(&region);
			tt_region_verify(&region);
			_exit(0);
		}
		tt_region_verify_shuffled(&region);
		tt_wait(pid);
		tt_pressure();
	}
	TT_SYS(madvise(region.base + wiped, wiped, MADV_KEEPONFORK));
	pid_t pid = tt_fork();

	if (!pid) {
		tt_region_verify(&region);
		_exit(0);
	}
	tt_wait(pid);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void dontfork(void)
{
	unsigned char resident[1];
	size_t third;
	pid_t pid;

	setup();
	third = region.nr_pages / 3;
	TT_SYS(madvise(region.base + third * TT_PAGE, third * TT_PAGE,
		       MADV_DONTFORK));
	pid = tt_fork();
	if (!pid) {
		for (size_t nr = 0; nr < region.nr_pages; nr++) {
			if (nr < third || nr >= 2 * third)
				tt_region_check(&region, nr);
			else if (mincore(region.base + nr * TT_PAGE, TT_PAGE,
					 resident) != -1 ||
				 errno != ENOMEM)
				tt_fail("page %zu is there after "
					"MADV_DONTFORK",
					nr);
		}
		_exit(0);
	}
	tt_wait(pid);
	TT_SYS(madvise(region.base + third * TT_PAGE, third * TT_PAGE,
		       MADV_DOFORK));
	pid = tt_fork();
	if (!pid) {
		tt_region_verify_shuffled(&region);
		_exit(0);
	}
	tt_region_verify(&region);
	tt_wait(pid);
	tt_region_unmap(&region);
}

/* True if the kernel can't read that byte either. */
static bool unreadable(const void *at)
{
	char byte;
	struct iovec to = { &byte, 1 }, from = { (void *)at, 1 };

	return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == -1 &&
	       errno == EFAULT;
}

static void guard(void)
{
	uint64_t rng = tt_rand_start(6);
	size_t first, nr;

	setup();
	if (madvise(region.base, TT_PAGE, MADV_GUARD_INSTALL) < 0)
		tt_skip("MADV_GUARD_INSTALL: %s", strerror(errno));
	tt_region_dropped(&region, 0, 1);
	TT_SYS(madvise(region.base, TT_PAGE, MADV_GUARD_REMOVE));
	for (unsigned i = 0; i < 200; i++) {
		void *at = pick(&rng, 32, &first, &nr);

		TT_SYS(madvise(at, nr * TT_PAGE, MADV_GUARD_INSTALL));
		tt_region_dropped(&region, first, nr);
		if (i % 20 == 19)
			tt_pressure();
		if (!unreadable(at))
			tt_fail("guard page %p can be read", at);
		TT_SYS(madvise(at, nr * TT_PAGE, MADV_GUARD_REMOVE));
		tt_region_work(&region, &rng, 20, 2);
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void hints(void)
{
	static const int advice[] = {
		MADV_NORMAL,	    MADV_RANDOM,	 MADV_SEQUENTIAL,
		MADV_WILLNEED,	    MADV_COLD,		 MADV_PAGEOUT,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE,    MADV_MERGEABLE,	 MADV_UNMERGEABLE,
		MADV_DONTDUMP,	    MADV_DODUMP,
	};
	uint64_t rng = tt_rand_start(7);
	size_t first, nr;

	setup();
	for (unsigned i = 0; i < TT_ARRAY(advice) * 20; i++) {
		void *at = pick(&rng, 64, &first, &nr);
		int what = advice[i % TT_ARRAY(advice)];

		if (madvise(at, nr * TT_PAGE, what) < 0 && errno != EINVAL)
			tt_fail("madvise %d: %s", what, strerror(errno));
		for (size_t p = first; p < first + nr; p++)
			tt_region_check(&region, p);
		tt_region_work(&region, &rng, 100, 3);
		if (i % 70 == 69)
			tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "dontneed", dontneed }, { "free", lazy_free },
		{ "remove", removal },	  { "wipefork", wipefork },
		{ "dontfork", dontfork }, { "guard", guard },
		{ "hints", hints },	  { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
