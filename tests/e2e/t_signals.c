/* SPDX-License-Identifier: MIT */
/*
 * Signals that arrive in the middle of faults.
 *
 *   timer    SIGALRM at 1 kHz on an evicted alternate stack; its handler
 *            verifies pages too
 *   threads  threads that signal each other
 *   restart  system calls into evicted memory, interrupted and restarted
 *   stop     a child is stopped and continued in the middle of faults
 */
#include "torture.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	NR_THREADS = 3,
	STACK = 64 << 10
};

static struct tt_region region, seen_by_handler;
static _Atomic unsigned nr_signals;
static _Atomic bool stop;
static pthread_t threads_of[NR_THREADS];

static void handler(int number)
{
	unsigned n = atomic_fetch_add(&nr_signals, 1);
	int saved = errno;

	(void)number;
	tt_region_check(&seen_by_handler, n * 17ul % seen_by_handler.nr_pages);
	errno = saved;
}

static void install(int number)
{
	struct sigaction action = { .sa_flags = SA_ONSTACK | SA_RESTART };
	stack_t stack = { .ss_size = STACK };

	stack.ss_sp = malloc(STACK);
	TT_ASSERT(stack.ss_sp);
	memset(stack.ss_sp, 0x66, STACK);
	TT_SYS(sigaltstack(&stack, NULL));
	action.sa_handler = handler;
	sigemptyset(&action.sa_mask);
	TT_SYS(sigaction(number, &action, NULL));
}

static void setup(void)
{
	tt_pressure_init(60);
	tt_region_map(&region, tt_pages(20), 1);
	tt_region_fill(&region);
	tt_region_map(&seen_by_handler, tt_pages(10), 2);
	tt_region_fill(&seen_by_handler);
	atomic_store(&nr_signals, 0);
	tt_pressure();
}

static void cleanup(void)
{
	TT_ASSERT(atomic_load(&nr_signals) > 0);
	tt_region_verify(&region);
	tt_region_verify(&seen_by_handler);
	tt_region_unmap(&region);
	tt_region_unmap(&seen_by_handler);
}

static void set_timer(long interval_us)
{
	struct itimerval timer = { { 0, interval_us }, { 0, interval_us } };

	TT_SYS(setitimer(ITIMER_REAL, &timer, NULL));
}

static void timer(void)
{
	uint64_t rng = tt_rand_start(1);

	setup();
	install(SIGALRM);
	set_timer(1000);
	for (unsigned i = 0; i < 4 || atomic_load(&nr_signals) < 100; i++) {
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_pressure();
	}
	set_timer(0);
	signal(SIGALRM, SIG_DFL);
	cleanup();
}

static void *signalled_thread(void *argument)
{
	uint64_t me = (uintptr_t)argument, rng = tt_rand_start(30 + me);
	struct tt_region mine;

	install(SIGUSR1);
	tt_region_map(&mine, tt_pages(8), 30 + me);
	tt_region_fill(&mine);
	while (!atomic_load(&stop))
		tt_region_work(&mine, &rng, 100, 3);
	tt_region_verify(&mine);
	tt_region_unmap(&mine);
	return NULL;
}

static void threads(void)
{
	setup();
	install(SIGUSR1);
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		threads_of[i] = tt_thread(signalled_thread, tt_argument(i));
	for (unsigned i = 0; i < 3000; i++) {
		TT_ZERO(pthread_kill(threads_of[i % NR_THREADS], SIGUSR1));
		tt_region_check(&region, i * 13ul % region.nr_pages);
	}
	tt_pressure();
	atomic_store(&stop, true);
	for (unsigned i = 0; i < NR_THREADS; i++)
		tt_join(threads_of[i]);
	signal(SIGUSR1, SIG_DFL);
	cleanup();
}

static int ends[2];

static void *slow_writer(void *argument)
{
	(void)argument;
	for (size_t nr = 0; nr < region.nr_pages; nr++)
		tt_write_all(ends[1], region.base + nr * TT_PAGE, TT_PAGE);
	return NULL;
}

static void restart(void)
{
	unsigned char *copy;
	pthread_t thread;

	setup();
	install(SIGALRM);
	copy = tt_map(region.nr_pages * TT_PAGE);
	memset(copy, 0x99, region.nr_pages * TT_PAGE);
	tt_pressure();
	TT_SYS(pipe(ends));
	set_timer(1000);
	do {
		thread = tt_thread(slow_writer, NULL);
		tt_read_all(ends[0], copy, region.nr_pages * TT_PAGE);
		tt_join(thread);
		for (size_t nr = 0; nr < region.nr_pages; nr++)
			tt_check(copy + nr * TT_PAGE, region.id, nr,
				 region.version[nr]);
		tt_pressure();
	} while (atomic_load(&nr_signals) < 50);
	set_timer(0);
	signal(SIGALRM, SIG_DFL);
	close(ends[0]);
	close(ends[1]);
	TT_SYS(munmap(copy, region.nr_pages * TT_PAGE));
	cleanup();
}

static void stopping(void)
{
	int status;
	pid_t pid;

	setup();
	pid = tt_fork();
	if (!pid) {
		uint64_t rng = tt_rand_start(50);

		for (unsigned i = 0; i < 4; i++)
			tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_region_verify(&region);
		_exit(0);
	}
	for (unsigned i = 0; i < 20; i++) {
		TT_SYS(kill(pid, SIGSTOP));
		TT_SYS(waitpid(pid, &status, WUNTRACED));
		if (!WIFSTOPPED(status)) {
			TT_ASSERT(WIFEXITED(status) && !WEXITSTATUS(status));
			pid = 0;
			break;
		}
		for (size_t nr = i; nr < region.nr_pages; nr += 20)
			tt_region_check(&region, nr);
		TT_SYS(kill(pid, SIGCONT));
		tt_region_check(&region, i);
	}
	atomic_store(&nr_signals, 1);
	if (pid)
		tt_wait(pid);
	cleanup();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "timer", timer },
						{ "threads", threads },
						{ "restart", restart },
						{ "stop", stopping },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
