/* SPDX-License-Identifier: MIT */
/*
 * Daemons: two forks, setsid, all descriptors closed, and life goes on.
 *
 *   watched  the first process waits for the daemon's word in shared memory
 *   left     the first process ends at once; the daemon writes its result
 *            into the file that TT_RESULT names
 */
#include "torture.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct tt_region region;
static _Atomic uint32_t *word; /* in shared memory: 1 when it went well */

static void setup(void)
{
	tt_pressure_init(60);
	tt_region_map(&region, tt_pages(30), 1);
	tt_region_fill(&region);
	word = mmap(NULL, TT_PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TT_SYS(word == MAP_FAILED ? -1 : 0);
	tt_pressure();
}

static void work(void)
{
	uint64_t rng = tt_rand_start(1);

	for (unsigned i = 0; i < 2; i++) {
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_pressure();
		tt_region_verify_shuffled(&region);
	}
}

/* True in the daemon; in the first process, when the second has ended. */
static bool daemonise(void)
{
	pid_t pid = tt_fork();

	if (pid) {
		tt_wait(pid);
		return false;
	}
	TT_SYS(setsid());
	if (tt_fork())
		_exit(0);
	TT_SYS(chdir("/"));
	TT_SYS(close_range(0, ~0u, 0));
	return true;
}

static void watched(void)
{
	pid_t pid;

	setup();
	if (daemonise()) {
		work();
		pid = tt_fork(); /* a daemon has workers */
		if (!pid) {
			work();
			_exit(0);
		}
		tt_wait(pid);
		atomic_store(word, 1);
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
		_exit(0);
	}
	work();
	/* If it fails it never says so: the runner's timeout tells. */
	while (!atomic_load(word))
		syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void left(void)
{
	const char *path = getenv("TT_RESULT");
	int fd;

	if (!path)
		tt_skip("TT_RESULT is not set");
	setup();
	if (!daemonise()) {
		tt_region_verify(&region);
		return;
	}
	/* Orphaned as soon as the first process is gone. */
	work();
	fd = (int)TT_SYS(open(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
	tt_write_all(fd, "ok\n", 3);
	_exit(0);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "watched", watched },
						{ "left", left, true },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
