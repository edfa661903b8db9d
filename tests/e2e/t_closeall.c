/* SPDX-License-Identifier: MIT */
/*
 * Programs that close descriptors they did not open.
 *
 *   range    close_range(0, ~0): all of them
 *   from     closefrom(3), as daemons and sudo do
 *   loop     close() of each number, as old daemons do
 *   reuse    dup2() over every number up to 256
 *   child    a forked child closes all, then forks again
 *   exec     the child of a fork closes all but 0-2 and execs
 *            (subprocess of Python does)
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct tt_region region;

static void setup(void)
{
	tt_region_begin(&region, tt_pages(30));
}

static void go_on(void)
{
	uint64_t rng = tt_rand_start(2);

	for (unsigned i = 0; i < 2; i++) {
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_pressure();
	}
	tt_region_verify_shuffled(&region);
}

/* The program itself must be able to say how it went: a child is damaged. */
static void in_child(void (*damage)(void), bool fork_again)
{
	pid_t pid;

	setup();
	pid = tt_fork();
	if (!pid) {
		damage();
		go_on();
		if (fork_again) {
			pid = tt_fork();
			if (!pid) {
				go_on();
				_exit(0);
			}
			go_on();
			tt_wait(pid);
		}
		_exit(0);
	}
	go_on();
	tt_wait(pid);
	tt_region_unmap(&region);
}

static void close_all(void)
{
	TT_SYS(close_range(0, ~0u, 0));
}

static void close_from(void)
{
	closefrom(3);
}

static void close_loop(void)
{
	for (int i = 0; i < 4096; i++)
		close(i);
}

static void dup_over(void)
{
	int fd = (int)TT_SYS(open("/dev/null", O_RDWR));

	for (int i = 0; i < 256; i++)
		if (i != fd && i != STDERR_FILENO)
			TT_SYS(dup2(fd, i));
}

/* Not in a child: the program itself. */
static void from(void)
{
	setup();
	close_from();
	go_on();
	tt_region_unmap(&region);
}

static void range(void)
{
	int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 1000);
	int err = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 1000);

	/* All but the two copies that will say how it went. */
	setup();
	TT_SYS(close_range(0, 999, 0));
	TT_SYS(close_range((unsigned)err + 1, ~0u, 0));
	go_on();
	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	tt_region_unmap(&region);
}

static void loop(void)
{
	in_child(close_loop, false);
}

static void reuse(void)
{
	in_child(dup_over, true);
}

static void child(void)
{
	in_child(close_all, true);
}

static void leaf(void)
{
	setup();
	go_on();
	tt_region_unmap(&region);
}

static void exec(void)
{
	char mib[24], seed[24];
	pid_t pid;

	setup();
	snprintf(mib, sizeof(mib), "%zu", tt_mib);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)tt_seed);
	pid = tt_fork();
	if (!pid) {
		close_from();
		execl(tt_self, tt_self, mib, seed, "leaf", NULL);
		tt_fail("exec: %s", strerror(errno));
	}
	go_on();
	tt_wait(pid);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "from", from },	{ "range", range },
		{ "loop", loop },	{ "reuse", reuse },
		{ "child", child },	{ "exec", exec },
		{ "leaf", leaf, true }, { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
