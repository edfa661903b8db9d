/* SPDX-License-Identifier: MIT */
/*
 * process_vm_readv() and process_vm_writev() between parent and child, into
 * and out of memory that is evicted on both sides.
 *
 *   child   the child reads its running parent
 *   parent  the parent reads its running child
 *   write   the child writes the parent's pages
 */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	BATCH = 32
};

static struct tt_region region;

static void setup(void)
{
	tt_region_begin(&region, tt_pages(15));
}

static void cleanup(void)
{
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

/* Copies all of the region of `pid` and compares. */
static void read_other(pid_t pid)
{
	unsigned char *copy = tt_map(region.nr_pages * TT_PAGE);

	memset(copy, 0xab, region.nr_pages * TT_PAGE);
	for (size_t nr = 0; nr < region.nr_pages; nr += BATCH) {
		size_t n = region.nr_pages - nr;
		struct iovec to = { copy + nr * TT_PAGE, TT_PAGE };
		struct iovec from = { region.base + nr * TT_PAGE, TT_PAGE };

		if (n > BATCH)
			n = BATCH;
		to.iov_len = from.iov_len = n * TT_PAGE;
		TT_ASSERT(process_vm_readv(pid, &to, 1, &from, 1, 0) ==
			  (ssize_t)(n * TT_PAGE));
	}
	for (size_t nr = 0; nr < region.nr_pages; nr++)
		tt_check(copy + nr * TT_PAGE, region.id, nr,
			 region.version[nr]);
	TT_SYS(munmap(copy, region.nr_pages * TT_PAGE));
}

static void child(void)
{
	pid_t parent = getpid(), pid;

	setup();
	pid = tt_fork();
	if (!pid) {
		for (unsigned i = 0; i < 3; i++)
			read_other(parent);
		_exit(0);
	}
	tt_pressure(); /* meanwhile */
	tt_wait(pid);
	cleanup();
}

static void parent(void)
{
	int ready[2], done[2];
	char byte = 0;
	pid_t pid;

	setup();
	TT_SYS(pipe(ready));
	TT_SYS(pipe(done));
	pid = tt_fork();
	if (!pid) {
		for (size_t nr = 0; nr < region.nr_pages; nr += 2)
			tt_region_write(&region, nr);
		tt_pressure();
		tt_write_all(ready[1], &byte, 1);
		tt_read_all(done[0], &byte, 1);
		tt_region_verify(&region);
		_exit(0);
	}
	tt_read_all(ready[0], &byte, 1);
	tt_region_verify(&region);
	for (size_t nr = 0; nr < region.nr_pages; nr += 2)
		tt_region_write(&region, nr); /* as the child did */
	read_other(pid);
	tt_write_all(done[1], &byte, 1);
	tt_wait(pid);
	for (unsigned i = 0; i < 2; i++) {
		close(ready[i]);
		close(done[i]);
	}
	cleanup();
}

static void write_parent(void)
{
	pid_t parent_pid = getpid(), pid;

	setup();
	for (unsigned round = 0; round < 3; round++) {
		pid = tt_fork();
		if (!pid) {
			for (size_t nr = round; nr < region.nr_pages; nr += 3) {
				struct iovec to, from;

				to.iov_base = region.base + nr * TT_PAGE;
				from.iov_base = to.iov_base;
				to.iov_len = from.iov_len = TT_PAGE;
				tt_region_write(&region, nr);
				TT_ASSERT(process_vm_writev(parent_pid, &from,
							    1, &to, 1,
							    0) == TT_PAGE);
			}
			_exit(0);
		}
		tt_pressure();
		tt_wait(pid);
		for (size_t nr = round; nr < region.nr_pages; nr += 3)
			region.version[nr]++; /* written by the child */
		tt_region_verify_shuffled(&region);
		tt_pressure();
	}
	cleanup();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "child", child },
						{ "parent", parent },
						{ "write", write_parent },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
