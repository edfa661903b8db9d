/* SPDX-License-Identifier: MIT */
/*
 * Threads that leave the pager little room on a CPU.
 *
 *   pinned  every thread pinned to one CPU
 *   process the whole program pinned to one CPU before it starts threads
 *   fifo    SCHED_FIFO threads fault
 *   busy    a busy SCHED_FIFO thread and a faulting one on the same CPU
 *   idle    SCHED_IDLE threads fault beside busy ones
 */
#include "torture.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

enum {
	NR_THREADS = 4
};

static _Atomic bool stop;
static pthread_barrier_t all_filled;

static int first_cpu(void)
{
	cpu_set_t set;
	int cpu = 0;

	TT_SYS(sched_getaffinity(0, sizeof(set), &set));
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	return cpu;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	TT_SYS(sched_setaffinity(0, sizeof(set), &set));
}

static void set_policy(int policy, int priority)
{
	struct sched_param parameter = { .sched_priority = priority };

	if (sched_setscheduler(0, policy, &parameter) == 0)
		return;
	if (errno == EPERM)
		tt_skip("no right to real-time scheduling");
	tt_fail("sched_setscheduler: %s", strerror(errno));
}

/* `together`: waits until all threads have filled their memory. */
static void work(uint64_t id, unsigned percent, bool together)
{
	uint64_t rng = tt_rand_start(id);
	struct tt_region mine;

	tt_region_map(&mine, tt_pages(percent), id);
	tt_region_fill(&mine);
	if (together)
		pthread_barrier_wait(&all_filled);
	tt_region_work(&mine, &rng, mine.nr_pages * 2, 3);
	tt_region_verify(&mine);
	tt_region_unmap(&mine);
}

static void *pinned_thread(void *argument)
{
	pin(first_cpu());
	work((uintptr_t)argument, 90 / NR_THREADS, true);
	return NULL;
}

static void *plain_thread(void *argument)
{
	work((uintptr_t)argument, 90 / NR_THREADS, true);
	return NULL;
}

static void *fifo_thread(void *argument)
{
	set_policy(SCHED_FIFO, 10 + (int)(uintptr_t)argument);
	work((uintptr_t)argument, 90 / NR_THREADS, true);
	return NULL;
}

static void run_threads(void *(*run)(void *))
{
	pthread_t thread[NR_THREADS];

	TT_ZERO(pthread_barrier_init(&all_filled, NULL, NR_THREADS));
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		thread[i] = tt_thread(run, tt_argument(i));
	for (unsigned i = 0; i < NR_THREADS; i++)
		tt_join(thread[i]);
	TT_ZERO(pthread_barrier_destroy(&all_filled));
}

static void pinned(void)
{
	run_threads(pinned_thread);
}

static void process(void)
{
	cpu_set_t before;

	TT_SYS(sched_getaffinity(0, sizeof(before), &before));
	pin(first_cpu());
	run_threads(plain_thread);
	TT_SYS(sched_setaffinity(0, sizeof(before), &before));
}

static void fifo(void)
{
	run_threads(fifo_thread);
}

static void *busy_thread(void *argument)
{
	(void)argument;
	pin(first_cpu());
	set_policy(SCHED_FIFO, 5);
	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		;
	return NULL;
}

static void *urgent_thread(void *argument)
{
	(void)argument;
	pin(first_cpu());
	set_policy(SCHED_FIFO, 10);
	work(7, 90, false);
	return NULL;
}

static void busy(void)
{
	pthread_t spinner, urgent;

	atomic_store(&stop, false);
	urgent = tt_thread(urgent_thread, NULL);
	spinner = tt_thread(busy_thread, NULL);
	tt_join(urgent);
	atomic_store(&stop, true);
	tt_join(spinner);
}

static void *idle_thread(void *argument)
{
	pin(first_cpu());
	set_policy(SCHED_IDLE, 0);
	work((uintptr_t)argument, 40, false);
	return NULL;
}

static void *loaded_thread(void *argument)
{
	pin(first_cpu());
	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		work((uintptr_t)argument, 20, false);
	return NULL;
}

static void idle(void)
{
	pthread_t lazy, loaded;

	atomic_store(&stop, false);
	lazy = tt_thread(idle_thread, (void *)20);
	loaded = tt_thread(loaded_thread, (void *)21);
	work(22, 30, false);
	atomic_store(&stop, true);
	tt_join(loaded);
	tt_join(lazy);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "pinned", pinned }, { "process", process }, { "fifo", fifo },
		{ "busy", busy },     { "idle", idle },	      { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
