/* SPDX-License-Identifier: MIT */
/*
 * exec, and what comes before and after it.
 *
 *   failed   execs that fail: the program goes on
 *   again    the program execs itself several times and verifies each time
 *   spawn    posix_spawn and system() of itself
 *   vfork    vfork and exec, from evicted arguments
 *   thread   exec from a thread while others fault
 *   forked   fork, then exec, while the parent works
 *   (leaf, again2: what the others start)
 */
#include "torture.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static struct tt_region region;

static void setup(void)
{
	tt_region_begin(&region, tt_pages(30));
}

static void finish(void)
{
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
}

/* Arguments that live in memory which may be evicted. */
static char **make_arguments(const char *name)
{
	char *text = tt_map(TT_PAGE);
	char **arguments = tt_map(TT_PAGE);

	snprintf(text, 1000, "%s", tt_self);
	snprintf(text + 1000, 50, "%zu", tt_mib);
	snprintf(text + 1100, 50, "%llu", (unsigned long long)tt_seed);
	snprintf(text + 1200, 50, "%s", name);
	arguments[0] = text;
	arguments[1] = text + 1000;
	arguments[2] = text + 1100;
	arguments[3] = text + 1200;
	return arguments;
}

static void leaf(void)
{
	uint64_t rng = tt_rand_start(9);

	setup();
	tt_region_work(&region, &rng, region.nr_pages, 2);
	finish();
}

static void failed(void)
{
	char **arguments = make_arguments("leaf");
	uint64_t rng = tt_rand_start(1);
	static const char *const bad[] = { "/nonexistent/program",
					   "/etc/passwd", "/" };

	setup();
	for (unsigned i = 0; i < 12; i++) {
		execv(bad[i % TT_ARRAY(bad)], arguments);
		TT_ASSERT(errno == ENOENT || errno == EACCES);
		tt_region_work(&region, &rng, region.nr_pages / 2, 2);
		if (i % 4 == 3)
			tt_pressure();
	}
	/* A too large argument list fails late, with the new stack made. */
	arguments[1] = tt_map(8 * TT_MIB);
	memset(arguments[1], 'x', 8 * TT_MIB - 1);
	TT_ASSERT(execv(tt_self, arguments) == -1 && errno == E2BIG);
	TT_SYS(munmap(arguments[1], 8 * TT_MIB));
	finish();
}

static void exec_self(const char *name)
{
	char **arguments = make_arguments(name);

	tt_pressure();
	execv(tt_self, arguments);
	tt_fail("exec: %s", strerror(errno));
}

static void again(void)
{
	setup();
	tt_region_verify(&region);
	exec_self("again2");
}

static void again2(void)
{
	setup();
	tt_region_verify(&region);
	exec_self("leaf");
}

static void spawn(void)
{
	char **arguments = make_arguments("leaf");
	uint64_t rng = tt_rand_start(2);
	pid_t pid;

	setup();
	for (unsigned i = 0; i < 2; i++) {
		tt_pressure();
		TT_ZERO(posix_spawn(&pid, tt_self, NULL, NULL, arguments,
				    environ));
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_wait(pid);
	}
	TT_ASSERT(system("exit 3") == 3 << 8);
	TT_ASSERT(posix_spawn(&pid, "/nonexistent", NULL, NULL, arguments,
			      environ) == ENOENT);
	finish();
}

static void vforked(void)
{
	char **arguments = make_arguments("leaf");
	uint64_t rng = tt_rand_start(3);

	setup();
	for (unsigned i = 0; i < 2; i++) {
		pid_t pid;

		tt_pressure();
		/* NOLINTNEXTLINE(*insecureAPI.vfork): what is tested */
		pid = vfork();
		if (!pid) {
			execv(tt_self, arguments);
			_exit(99);
		}
		TT_SYS(pid);
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_wait(pid);
	}
	finish();
}

static void *faulting_thread(void *argument)
{
	uint64_t rng = tt_rand_start(60 + (uintptr_t)argument);

	for (;;)
		tt_region_work(&region, &rng, 1000, 0);
	return NULL;
}

static void *exec_thread(void *argument)
{
	(void)argument;
	exec_self("leaf");
	return NULL;
}

static void thread(void)
{
	setup();
	for (uintptr_t i = 0; i < 3; i++)
		tt_thread(faulting_thread, tt_argument(i));
	tt_join(tt_thread(exec_thread, NULL));
}

static void forked(void)
{
	uint64_t rng = tt_rand_start(5);

	setup();
	for (unsigned i = 0; i < 2; i++) {
		pid_t pid = tt_fork();

		if (!pid)
			exec_self(i ? "again2" : "leaf");
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_wait(pid);
	}
	finish();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "failed", failed },
						{ "again", again, true },
						{ "again2", again2, true },
						{ "spawn", spawn },
						{ "vfork", vforked },
						{ "thread", thread, true },
						{ "forked", forked },
						{ "leaf", leaf, true },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
