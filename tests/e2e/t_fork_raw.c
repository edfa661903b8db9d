/* SPDX-License-Identifier: MIT */
/*
 * Forks that go past the C library: SYS_fork, SYS_clone with SIGCHLD,
 * SYS_clone3, from the first thread and from another one.  The child may use
 * only what needs no library state; it verifies all and writes.
 */
#include "torture.h"

#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct tt_region region;
static unsigned fork_kind;

static pid_t raw_fork(unsigned kind)
{
	struct clone_args arguments;

	switch (kind) {
	case 0:
		return (pid_t)TT_SYS(syscall(SYS_fork));
	case 1:
		return (pid_t)TT_SYS(
			syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0));
	default:
		memset(&arguments, 0, sizeof(arguments));
		arguments.exit_signal = SIGCHLD;
		return (pid_t)TT_SYS(
			syscall(SYS_clone3, &arguments, sizeof(arguments)));
	}
}

static void setup(void)
{
	tt_region_begin(&region, tt_pages(30));
}

static void *fork_and_verify(void *argument)
{
	unsigned kind = *(unsigned *)argument;
	uint64_t rng = tt_rand_start(kind);

	for (unsigned round = 0; round < 3; round++) {
		pid_t pid = raw_fork(kind);

		if (!pid) {
			region.bump = 100;
			tt_region_verify_shuffled(&region);
			tt_region_work(&region, &rng, region.nr_pages, 2);
			tt_pressure();
			tt_region_verify(&region);
			_exit(0);
		}
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_wait(pid);
		tt_pressure();
		tt_region_verify(&region);
	}
	return NULL;
}

static void run_kind(unsigned kind)
{
	setup();
	fork_kind = kind;
	fork_and_verify(&fork_kind);
	tt_region_unmap(&region);
}

static void sys_fork(void)
{
	run_kind(0);
}

static void sys_clone(void)
{
	run_kind(1);
}

static void sys_clone3(void)
{
	run_kind(2);
}

static void thread(void)
{
	setup();
	fork_kind = 1;
	tt_join(tt_thread(fork_and_verify, &fork_kind));
	tt_region_unmap(&region);
}

/* The child goes on moving what it has while it is made whole. */
static void moves(void)
{
	setup();
	for (unsigned round = 0; round < 6; round++) {
		pid_t pid = raw_fork(1);

		if (!pid) {
			tt_region_rearrange(&region);
			tt_region_verify(&region);
			_exit(0);
		}
		tt_wait(pid);
		tt_pressure();
	}
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "fork", sys_fork },	  { "clone", sys_clone },
		{ "clone3", sys_clone3 }, { "thread", thread },
		{ "moves", moves },	  { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
