/* SPDX-License-Identifier: MIT */
/*
 * Ends of programs: each must end as it would have, and leave nothing behind.
 *
 *   exit    exit(0) while threads are faulting
 *   quick   _exit(0) likewise
 *   leader  the first thread ends by pthread_exit, the others go on
 *   kill    SIGKILL of itself in the middle
 *   abort   abort() while threads are faulting
 *   segv    a real crash is a crash
 *   orphan  children outlive the program and end by themselves
 *   atexit  handlers verify evicted memory
 *   killed  children are killed in the middle of their faults
 */
#include "torture.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	NR_THREADS = 3
};

static struct tt_region region;
static _Atomic unsigned nr_running, nr_to_end;

static void *faulting_thread(void *argument)
{
	uint64_t rng = tt_rand_start(10 + (uintptr_t)argument);

	atomic_fetch_add(&nr_running, 1);
	for (;;)
		tt_region_work(&region, &rng, 500, 0);
	return NULL;
}

static void setup(unsigned nr_threads)
{
	tt_region_begin(&region, tt_pages(30));
	for (uintptr_t i = 0; i < nr_threads; i++)
		tt_thread(faulting_thread, tt_argument(i));
	while (atomic_load(&nr_running) < nr_threads)
		sched_yield();
	tt_region_verify_shuffled(&region);
}

static void exiting(void)
{
	setup(NR_THREADS);
	exit(0);
}

static void quick(void)
{
	setup(NR_THREADS);
	_exit(0);
}

static void *last_thread(void *argument)
{
	uint64_t rng = tt_rand_start(20 + (uintptr_t)argument);

	tt_region_work(&region, &rng, region.nr_pages, 0);
	if (atomic_fetch_sub(&nr_to_end, 1) == 1) {
		tt_pressure();
		tt_region_verify(&region);
	}
	return NULL; /* the last one ends the process with status 0 */
}

static void leader(void)
{
	setup(0);
	atomic_store(&nr_to_end, NR_THREADS);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		TT_ZERO(pthread_detach(tt_thread(last_thread, tt_argument(i))));
	pthread_exit(NULL);
}

static void killing(void)
{
	setup(NR_THREADS);
	TT_SYS(kill(getpid(), SIGKILL));
	for (;;)
		pause();
}

static void aborting(void)
{
	setup(NR_THREADS);
	abort();
}

static void segv(void)
{
	volatile unsigned char *hole;

	setup(NR_THREADS);
	hole = mmap(NULL, TT_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	*hole = 1;
}

/* The runner finds an orphan's failure in the output. */
static void orphan(void)
{
	uint64_t rng = tt_rand_start(30);

	setup(0);
	for (unsigned i = 0; i < 3; i++) {
		if (tt_fork())
			continue;
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_region_verify(&region);
		_exit(0);
	}
}

static void verify_at_exit(void)
{
	tt_region_verify_shuffled(&region);
	tt_pressure();
}

static void at_exit(void)
{
	setup(0);
	TT_ASSERT(!atexit(verify_at_exit));
	tt_pressure();
}

static void killed(void)
{
	int ready[2], status;
	char byte;

	setup(0);
	TT_SYS(pipe(ready));
	for (unsigned i = 0; i < 8; i++) {
		pid_t pid = tt_fork();

		if (!pid) {
			uint64_t rng = tt_rand_start(40 + i);

			tt_write_all(ready[1], "r", 1);
			for (;;)
				tt_region_work(&region, &rng, 100, 2);
		}
		tt_read_all(ready[0], &byte, 1);
		tt_region_verify_shuffled(&region);
		TT_SYS(kill(pid, i % 2 ? SIGKILL : SIGTERM));
		TT_SYS(waitpid(pid, &status, 0));
		TT_ASSERT(WIFSIGNALED(status));
		TT_ASSERT(WTERMSIG(status) == (i % 2 ? SIGKILL : SIGTERM));
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "killed", killed },	     { "exit", exiting, true },
		{ "quick", quick, true },    { "leader", leader, true },
		{ "kill", killing, true },   { "abort", aborting, true },
		{ "segv", segv, true },	     { "orphan", orphan, true },
		{ "atexit", at_exit, true }, { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
