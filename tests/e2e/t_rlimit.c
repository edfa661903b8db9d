/* SPDX-License-Identifier: MIT */
/*
 * Resource limits that a pager inherits or lives under.
 *
 *   late   RLIMIT_AS set in the running program: need + 25 %
 *   as     RLIMIT_AS set, then exec: the pager's own mappings count too
 *   fsize  RLIMIT_FSIZE 0, then exec and fork: swap files can't be grown
 *   nofile RLIMIT_NOFILE 4, then exec and fork
 *   nproc  RLIMIT_NPROC 1 without root, then a fork that fails
 *   (limited, forking: what they exec)
 */
#include "torture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static struct tt_region region;

static void set_limit(int which, rlim_t value)
{
	struct rlimit limit;

	TT_SYS(getrlimit(which, &limit));
	limit.rlim_cur = value;
	TT_SYS(setrlimit(which, &limit));
}

/* Bytes of address space in use. */
static size_t address_space(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	size_t pages = 0;

	TT_ASSERT(f && fscanf(f, "%zu", &pages) == 1);
	fclose(f);
	return pages * TT_PAGE;
}

static void fill_and_verify(void)
{
	uint64_t rng = tt_rand_start(1);

	tt_region_map(&region, tt_pages(90), 1);
	tt_region_fill(&region);
	tt_region_work(&region, &rng, region.nr_pages, 2);
	tt_region_verify_shuffled(&region);
}

static void late(void)
{
	set_limit(RLIMIT_AS, address_space() + tt_mib * TT_MIB * 5 / 4);
	fill_and_verify();
	tt_region_unmap(&region);
	set_limit(RLIMIT_AS, RLIM_INFINITY);
}

static void exec_self(const char *name)
{
	char mib[24], seed[24];

	snprintf(mib, sizeof(mib), "%zu", tt_mib);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)tt_seed);
	execl(tt_self, tt_self, mib, seed, name, NULL);
	tt_fail("exec: %s", strerror(errno));
}

static void limited(void)
{
	fill_and_verify();
	tt_region_unmap(&region);
}

static void forking(void)
{
	pid_t pid;

	fill_and_verify();
	pid = tt_fork();
	if (!pid) {
		tt_region_verify_shuffled(&region);
		tt_region_fill(&region);
		tt_region_verify(&region);
		_exit(0);
	}
	tt_wait(pid);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void as(void)
{
	/* 16 MiB for the program and its libraries, as they are natively. */
	set_limit(RLIMIT_AS, (tt_mib + 16) * TT_MIB * 5 / 4);
	exec_self("limited");
}

static void fsize(void)
{
	set_limit(RLIMIT_FSIZE, 0);
	/* Its only output would be a write to a file: a pipe is none. */
	int ends[2];

	TT_SYS(pipe(ends));
	TT_SYS(dup2(ends[1], STDOUT_FILENO));
	exec_self("forking");
}

static void nofile(void)
{
	set_limit(RLIMIT_NOFILE, 4);
	exec_self("forking");
}

static void nproc(void)
{
	pid_t pid;

	if (geteuid() != 0)
		tt_skip("not root");
	fill_and_verify();
	pid = tt_fork();
	if (!pid) {
		set_limit(RLIMIT_NPROC, 1);
		TT_SYS(setresuid(65533, 65533, 65533));
		tt_region_verify_shuffled(&region);
		pid = fork();
		TT_ASSERT(pid == -1 && errno == EAGAIN);
		tt_region_fill(&region);
		tt_region_verify(&region);
		_exit(0);
	}
	tt_wait(pid);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "late", late },
						{ "as", as, true },
						{ "fsize", fsize, true },
						{ "nofile", nofile, true },
						{ "nproc", nproc, true },
						{ "limited", limited, true },
						{ "forking", forking, true },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
