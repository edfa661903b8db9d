/* SPDX-License-Identifier: MIT */
/*
 * `tmem run`: checks everything that can be checked, then starts the keeper
 * (keeper.c), which starts the program, and waits with it (front.c).
 *
 * With --exec this very process becomes the program, once the keeper, an
 * orphan in the background, says that it serves.
 */
#include "cli/cli.h"
#include "cli/front.h"
#include "cli/keeper.h"
#include "cli/probe.h"
#include "cli/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void print_help(void)
{
	puts("Usage: tmem run -m SIZE [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
	     "\n"
	     "Runs an unmodified program in less memory than it needs. What "
	     "does not fit is\n"
	     "compressed in memory; what does not fit even so goes to a swap "
	     "file.\n"
	     "\n"
	     "Options:");
	tmem_options_print(stdout);
	puts("\n"
	     "Examples:\n"
	     "  tmem run -m 512M -- python3 job.py\n"
	     "        A job that needs 1 GiB, in half of it.\n"
	     "  tmem run -m 2G --report json --report-file out.json -- make\n"
	     "        A whole tree of processes in 2 GiB, with figures.\n"
	     "  tmem run -m 256M --max-stall 80/60 --on-full term -- ./batch\n"
	     "        Rather end it than let it crawl.\n"
	     "\n"
	     "Exit status: that of the program; 125 if tmem fails, 126 if the "
	     "program cannot\n"
	     "be executed, 127 if it is not found. See tmem-run(1).");
}

static int check_machine(void)
{
	struct tmem_probe probes[TMEM_PROBE_COUNT];
	const struct tmem_probe *missing;

	tmem_probe_all(probes);
	missing = tmem_probe_missing(probes);
	if (missing)
		return tmem_cli_fail(TMEM_EXIT_FAIL, "%s; %s", missing->detail,
				     missing->remedy);
	if (getenv(TMEM_TREE_ENV))
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "already in a tree of tmem run (%s is "
				     "set); unset it to start a budget of its "
				     "own",
				     TMEM_TREE_ENV);
	return 0;
}

static int open_report(struct tmem_run_options *o, int *ret_fd)
{
	*ret_fd = -1;
	if (o->report == TMEM_REPORT_AUTO)
		o->report = isatty(STDERR_FILENO) ? TMEM_REPORT_TEXT
						  : TMEM_REPORT_NONE;
	if (!o->report_file)
		return 0;
	*ret_fd = open(o->report_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (*ret_fd < 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--report-file %s: %s; name a file that "
				     "you may write",
				     o->report_file, strerror(errno));
	return 0;
}

/* Everything that may refuse, the cheap first. */
static int prepare(struct tmem_run_options *o, struct tmem_keeper *k,
		   char *pager_path)
{
	int r;

	k->options = o;
	k->pager_path = pager_path;
	r = tmem_program_check(o->program[0]);
	if (!r)
		r = tmem_program_find_pager(pager_path);
	if (!r)
		r = check_machine();
	if (!r)
		r = tmem_swap_open(o, &k->swap);
	if (!r)
		r = open_report(o, &k->report_fd);
	if (!r)
		r = tmem_stats_open(o, &k->stats_fd);
	if (!r)
		r = tmem_profile_open(o, &k->profile);
	if (!r)
		r = tmem_keeper_open(k);
	return r;
}

static int fail_fork(void)
{
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "cannot start a process: %s; raise ulimit -u or "
			     "end some",
			     strerror(errno));
}

static int run_in_front(struct tmem_keeper *k, int fds[2],
			const sigset_t *original_mask)
{
	pid_t pid;

	k->front_pid = getpid();
	pid = fork();
	if (pid < 0)
		return fail_fork();
	if (pid == 0) {
		close(fds[0]);
		tmem_keeper_main(k, fds[1], 0, original_mask);
	}
	close(fds[1]);
	return tmem_front_main(fds[0], original_mask);
}

/* Becomes the program, or returns an exit status. */
static int run_as_program(struct tmem_keeper *k, int fds[2],
			  const sigset_t *original_mask)
{
	char *const *argv = k->options->program;
	struct tmem_front_message m;
	pid_t self = getpid(), pid;
	int error;

	pid = fork();
	if (pid < 0)
		return fail_fork();
	if (pid == 0) {
		/* An orphan: the program must not find a child it never had. */
		pid = fork();
		if (pid)
			_exit(pid < 0);
		close(fds[0]);
		tmem_keeper_main(k, fds[1], self, original_mask);
	}
	close(fds[1]);
	waitpid(pid, NULL, 0);
	if (recv(fds[0], &m, sizeof(m), 0) != sizeof(m))
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "the keeper did not start; try without "
				     "--exec");
	error = tmem_keeper_exec_program(k, original_mask);
	m.type = TMEM_FRONT_EXIT;
	send(fds[0], &m, sizeof(m), MSG_NOSIGNAL);
	return tmem_cli_fail(error == ENOENT ? TMEM_EXIT_NOTFOUND
					     : TMEM_EXIT_NOEXEC,
			     "%s: cannot be started: %s; check it by running "
			     "it without tmem",
			     argv[0], strerror(error));
}

int tmem_run_main(int argc, char **argv)
{
	/* Large, and the keeper's child processes need none of it. */
	static struct tmem_keeper keeper;
	static struct tmem_run_options options;
	static char pager_path[PATH_MAX];
	sigset_t passed, original_mask;
	int fds[2], r;

	r = tmem_options_parse(argc, argv, &options);
	if (r)
		return r;
	if (options.help) {
		print_help();
		return 0;
	}
	r = prepare(&options, &keeper, pager_path);
	if (r)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return fail_fork();
	/* Ignored, it would cost us the program's status. */
	keeper.sigchld_ignored = signal(SIGCHLD, SIG_DFL) == SIG_IGN;
	/* Nothing may be lost between here and the loop that passes it on. */
	tmem_front_signals(&passed);
	sigaddset(&passed, SIGCHLD);
	sigprocmask(SIG_BLOCK, &passed, &original_mask);
	if (options.exec)
		return run_as_program(&keeper, fds, &original_mask);
	return run_in_front(&keeper, fds, &original_mask);
}
