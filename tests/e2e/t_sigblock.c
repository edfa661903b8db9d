/* SPDX-License-Identifier: MIT */
/*
 * Threads that block every signal while their memory comes and goes.
 *
 *   blocked  all threads block all signals, also with the raw system call
 *   pending  with signals pending that nobody may take yet
 *   fork     the child inherits the mask
 *   ignored  SIGCHLD ignored: children vanish without being waited for
 */
#include "torture.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	NR_THREADS = 3,
	NR_CHILDREN = 8
};

static struct tt_region region;
static volatile sig_atomic_t nr_taken;

static void block_all(int how)
{
	uint64_t all = ~0ull;

	TT_SYS(syscall(SYS_rt_sigprocmask, how, &all, NULL, sizeof(all)));
}

static void setup(void)
{
	tt_region_begin(&region, tt_pages(30));
}

static void *blocked_thread(void *argument)
{
	uint64_t me = (uintptr_t)argument, rng = tt_rand_start(me);
	struct tt_region mine;

	block_all(SIG_BLOCK);
	tt_region_map(&mine, tt_pages(10) / NR_THREADS, 10 + me);
	tt_region_fill(&mine);
	tt_region_work(&mine, &rng, mine.nr_pages * 2, 2);
	tt_region_verify(&mine);
	tt_region_unmap(&mine);
	return NULL;
}

static void finish(void)
{
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
	block_all(SIG_UNBLOCK);
}

static void blocked(void)
{
	pthread_t thread[NR_THREADS];

	setup();
	block_all(SIG_BLOCK);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		thread[i] = tt_thread(blocked_thread, tt_argument(i));
	tt_pressure();
	tt_region_verify(&region);
	for (unsigned i = 0; i < NR_THREADS; i++)
		tt_join(thread[i]);
	finish();
}

static void taken(int signal_number)
{
	(void)signal_number;
	nr_taken++;
}

static void pending(void)
{
	static const int which[] = { SIGUSR1, SIGUSR2, SIGTERM, SIGALRM,
				     SIGBUS,  SIGSEGV, SIGCHLD };

	setup();
	nr_taken = 0;
	block_all(SIG_BLOCK);
	for (unsigned i = 0; i < TT_ARRAY(which); i++) {
		signal(which[i], taken);
		TT_SYS(kill(getpid(), which[i]));
	}
	tt_pressure();
	tt_region_verify_shuffled(&region);
	TT_ASSERT(nr_taken == 0);
	block_all(SIG_UNBLOCK);
	TT_ASSERT(nr_taken == (int)TT_ARRAY(which));
	for (unsigned i = 0; i < TT_ARRAY(which); i++)
		signal(which[i], SIG_DFL);
	finish();
}

static void forked(void)
{
	uint64_t rng = tt_rand_start(4);

	setup();
	block_all(SIG_BLOCK);
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid = tt_fork();

		if (!pid) {
			tt_region_work(&region, &rng, region.nr_pages, 2);
			tt_pressure();
			tt_region_verify_shuffled(&region);
			_exit(0);
		}
		tt_pressure();
		tt_wait(pid);
	}
	finish();
}

static void ignored(void)
{
	struct tt_region shared;
	pid_t pid;

	setup();
	tt_region_over(&shared,
		       mmap(NULL, NR_CHILDREN * TT_PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0),
		       NR_CHILDREN, 5);
	signal(SIGCHLD, SIG_IGN);
	for (unsigned i = 0; i < NR_CHILDREN; i++) {
		pid = tt_fork();
		if (!pid) {
			tt_region_verify_shuffled(&region);
			tt_region_write(&shared, i);
			_exit(0);
		}
		tt_region_check(&region, i);
	}
	while (waitpid(-1, NULL, 0) >= 0 || errno == EINTR)
		;
	TT_ASSERT(errno == ECHILD);
	signal(SIGCHLD, SIG_DFL);
	/* Each child has written its page. */
	for (unsigned i = 0; i < NR_CHILDREN; i++)
		shared.version[i] = 1;
	tt_region_verify(&shared);
	tt_region_unmap(&shared);
	finish();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "blocked", blocked },
						{ "pending", pending },
						{ "fork", forked },
						{ "ignored", ignored },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
