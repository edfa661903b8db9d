/* SPDX-License-Identifier: MIT */
/*
 * The front process: `tmem run` as its caller sees it.  It holds nothing of
 * the tree, so it may stop, be killed and go home early without harm.
 *
 *  - Signals sent to it go to the program, by way of the keeper (which holds
 *    the program unreaped, so that the pid cannot be somebody else's).  What
 *    the terminal sends has reached the program already: they share a
 *    process group.  A fault of our own kills us though its signal is blocked;
 *    SIGPIPE may be of our own making, and is not passed on.
 *  - When the program stops, it stops itself by the same signal, so that the
 *    shell's job control sees one job.
 *  - It exits as the program did.
 */
#include "cli/front.h"

#include "cli/cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

void tmem_front_signals(sigset_t *ret_set)
{
	static const int passed[] = { SIGHUP,  SIGINT,	SIGQUIT,   SIGTERM,
				      SIGUSR1, SIGUSR2, SIGALRM,   SIGWINCH,
				      SIGCONT, SIGPWR,	SIGVTALRM, SIGPROF,
				      SIGIO,   SIGTSTP, SIGTTIN,   SIGTTOU,
				      SIGABRT, SIGTRAP, SIGILL,	   SIGBUS,
				      SIGFPE,  SIGSEGV, SIGSYS,	   SIGSTKFLT,
				      SIGXCPU, SIGXFSZ, SIGURG };
	size_t i;
	int sig;

	sigemptyset(ret_set);
	for (i = 0; i < sizeof(passed) / sizeof(*passed); i++)
		sigaddset(ret_set, passed[i]);
	for (sig = SIGRTMIN; sig <= SIGRTMAX; sig++)
		sigaddset(ret_set, sig);
}

void tmem_front_let_go(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	struct dirent *entry;
	int fd, flags;

	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
	}
	while (dir && (entry = readdir(dir))) {
		fd = atoi(entry->d_name);
		flags = fd > STDERR_FILENO ? fcntl(fd, F_GETFD) : -1;
		if (flags >= 0 && !(flags & FD_CLOEXEC))
			close(fd);
	}
	if (dir)
		closedir(dir);
	if (null >= 0)
		close(null);
}

static void pass_on(int keeper_fd, const struct signalfd_siginfo *info)
{
	struct tmem_front_message m = { .type = TMEM_FRONT_SIGNAL };

	/* From the terminal: the program has it already. */
	if (info->ssi_code == SI_KERNEL)
		return;
	m.value = (int32_t)info->ssi_signo;
	m.sender = info->ssi_code <= 0 ? (int32_t)info->ssi_pid : 0;
	/* A keeper that is gone is noticed by its socket. */
	send(keeper_fd, &m, sizeof(m), MSG_NOSIGNAL);
}

/* Default action, not blocked: the signal does to us what it does. */
static void take_signal(int sig)
{
	sigset_t set;

	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	raise(sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void stop_with_program(int sig)
{
	sigset_t set, pending;

	/* Resumed already?  Stopping would discard the news. */
	if (sigpending(&pending) == 0 && sigismember(&pending, SIGCONT))
		return;
	take_signal(sig);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static int exit_like(int status)
{
	const struct rlimit no_core = { 0, 0 };

	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	/* The core, if any, is the program's; ours would overwrite it. */
	setrlimit(RLIMIT_CORE, &no_core);
	take_signal(WTERMSIG(status));
	/* As PID 1 nothing kills us. */
	return 128 + WTERMSIG(status);
}

/* True when there is an exit status. */
static bool read_keeper(int keeper_fd, int *ret_status)
{
	struct tmem_front_message m;
	ssize_t n = recv(keeper_fd, &m, sizeof(m), 0);

	/*
	 * ECONNRESET: it ended without reading all that we sent.  What it said
	 * before comes after that.
	 */
	if (n < 0 && (errno == EINTR || errno == ECONNRESET))
		return false;
	if (n != sizeof(m)) {
		*ret_status = tmem_cli_fail(
			TMEM_EXIT_FAIL,
			"the keeper of this tree is gone (killed?); the "
			"program's status is unknown");
		return true;
	}
	if (m.type == TMEM_FRONT_STOPPED)
		stop_with_program(m.value);
	if (m.type != TMEM_FRONT_EXIT)
		return false;
	*ret_status = exit_like(m.value);
	return true;
}

int tmem_front_main(int keeper_fd, const sigset_t *original_mask)
{
	struct signalfd_siginfo info;
	struct pollfd fds[2];
	sigset_t set;
	int status;

	tmem_front_let_go();
	tmem_front_signals(&set);
	sigaddset(&set, SIGCHLD);
	fds[0].fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	fds[1].fd = keeper_fd;
	fds[0].events = fds[1].events = POLLIN;
	if (fds[0].fd < 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL, "signalfd failed; this "
						     "kernel is too old");
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		while (read(fds[0].fd, &info, sizeof(info)) == sizeof(info)) {
			if (info.ssi_signo != SIGCHLD)
				pass_on(keeper_fd, &info);
		}
		/* As PID 1 whatever comes to us is ours to reap. */
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (fds[1].revents && read_keeper(keeper_fd, &status))
			break;
	}
	sigprocmask(SIG_SETMASK, original_mask, NULL);
	return status;
}
