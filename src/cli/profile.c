/* SPDX-License-Identifier: MIT */
/*
 * --profile: the process that profiles (profile/profiler.h), and the keeper's
 * side of it.
 *
 * It is a process of its own: it reads files of all kinds, and should it come
 * to grief over one, the tree lives on, without a profile.  It is no child of
 * the keeper's, which stays until it has none, and in no terminal's reach.
 *
 * A socket pair binds it to the keeper: a byte asks for the file to be written,
 * the answer is struct tmem_profile_result; when the keeper's end closes, it
 * ends.
 *
 * The events are opened by `tmem run` itself, so that it can refuse; whom they
 * are for, the profiler learns from the budget page, as pagers come and go.
 */
#include "cli/profile.h"

#include "cli/cli.h"
#include "cli/keeper.h"
#include "cli/output.h"
#include "cli/proc.h"
#include "profile/profiler.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	BUSY_MS = 20,
	IDLE_MS = 50, /* a new process is noticed no later */
	RINGS = 255,  /* that are polled; others are looked at on time */
	RINGS_MAX = 8192,
	ANSWER_MS = 60000 /* debugging information may be large */
};

struct profiler {
	int link_fd;
	int out_fd;
	struct tmem_perf *perf;
	struct tmem_profiler *profiler;
	bool written;
};

static int fail(const char *what, int error, const char *remedy)
{
	return tmem_cli_fail(TMEM_EXIT_FAIL, "--profile %s: %s; %s", what,
			     strerror(error), remedy);
}

static int open_events(struct tmem_profile *p, const char *name)
{
	int r = tmem_perf_open(TMEM_PROFILER_PART, &p->perf);

	if (r == 0)
		return 0;
	if (r == -EACCES || r == -EPERM)
		return fail(name, -r,
			    "sampling page faults is not allowed; be root, "
			    "outside of containers that forbid "
			    "perf_event_open or bpf");
	if (r == -ENOSYS || r == -ENOENT || r == -EINVAL)
		return fail(name, -r,
			    "this kernel cannot sample page faults "
			    "(CONFIG_PERF_EVENTS, CONFIG_BPF_SYSCALL)");
	return fail(name, -r,
		    "cannot sample page faults; free memory or "
		    "descriptors (ulimit -n)");
}

int tmem_profile_open(const struct tmem_run_options *o, struct tmem_profile *p)
{
	memset(p, 0, sizeof(*p));
	p->out_fd = p->link_fd = -1;
	if (!o->profile)
		return 0;
	p->out_fd = open(o->profile, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (p->out_fd < 0)
		return fail(o->profile, errno,
			    "name a file that you may write");
	return open_events(p, o->profile);
}

static void answer(struct profiler *me)
{
	struct tmem_profile_result result = { 0 };
	struct tmem_profiler_sums sums = { 0 };
	char *text;

	tmem_profiler_step(me->profiler);
	text = tmem_profiler_text(me->profiler, &sums);
	result.error = text ? tmem_output_write_over(me->out_fd, text) : ENOMEM;
	result.samples = sums.fold.samples;
	result.stacks = sums.fold.stacks;
	result.stall_us = sums.fold.stall_us;
	result.lost = sums.lost;
	result.unreadable = sums.unreadable;
	free(text);
	me->written = true;
	send(me->link_fd, &result, sizeof(result), MSG_NOSIGNAL);
}

/* False: the keeper has gone. */
static bool hear(struct profiler *me)
{
	char byte;
	ssize_t n = recv(me->link_fd, &byte, sizeof(byte), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	/* A keeper that was killed did not ask: better than nothing. */
	if (n > 0 || !me->written)
		answer(me);
	return n > 0;
}

static void profile_until_the_end(struct profiler *me)
{
	struct pollfd fds[1 + RINGS] = { { .fd = me->link_fd,
					   .events = POLLIN } };
	int rings[RINGS], timeout = BUSY_MS;
	unsigned nr = tmem_perf_fds(me->perf, rings, RINGS), i;

	for (i = 0; i < nr; i++)
		fds[1 + i] =
			(struct pollfd){ .fd = rings[i], .events = POLLIN };
	for (;;) {
		poll(fds, 1 + nr, timeout);
		timeout = tmem_profiler_step(me->profiler) ? BUSY_MS : IDLE_MS;
		if (fds[0].revents && !hear(me))
			return;
		/* Of a CPU that is switched off. */
		for (i = 1; i <= nr; i++)
			if (fds[i].revents & ~POLLIN)
				fds[i].fd = -1;
	}
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* Somebody may wait for the other end of what was inherited to close. */
static void keep_only(int *fds, unsigned nr)
{
	int null = open("/dev/null", O_RDWR), from = STDERR_FILENO + 1;
	unsigned i;

	for (i = 0; i < (unsigned)from && null >= 0; i++)
		dup2(null, (int)i);
	qsort(fds, nr, sizeof(*fds), compare);
	for (i = 0; i < nr; i++) {
		if (fds[i] > from)
			close_range((unsigned)from, (unsigned)fds[i] - 1, 0);
		from = fds[i] + 1;
	}
	close_range((unsigned)from, ~0u, 0);
}

static void become_profiler(struct tmem_keeper *k, int link_fd)
{
	struct profiler me = { .link_fd = link_fd,
			       .out_fd = k->profile.out_fd,
			       .perf = k->profile.perf };
	static int fds[4 + RINGS_MAX];
	unsigned nr = 2;
	sigset_t all;

	fds[0] = link_fd;
	fds[1] = me.out_fd;
	nr += tmem_perf_other_fds(me.perf, fds + nr);
	nr += tmem_perf_fds(me.perf, fds + nr, RINGS_MAX);
	keep_only(fds, nr);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "tmem-profiler");
	/* It would ask servers for debugging information. */
	unsetenv("DEBUGINFOD_URLS");
	me.profiler = tmem_profiler_create(k->tree, me.perf);
	if (me.profiler && chdir("/") == 0 && tmem_perf_map(me.perf) == 0)
		profile_until_the_end(&me);
}

void tmem_profile_start(struct tmem_keeper *k)
{
	struct tmem_profile *p = &k->profile;
	int fds[2] = { -1, -1 };
	pid_t pid;

	if (!p->perf)
		return;
	/* One in between, so that it is no child of ours. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0) {
		pid = fork();
		if (pid == 0) {
			p->pid = fork();
			if (p->pid == 0)
				become_profiler(k, fds[1]);
			else
				send(fds[1], &p->pid, sizeof(p->pid), 0);
			_exit(0);
		}
		if (pid > 0)
			waitpid(pid, NULL, 0);
		if (pid < 0 || recv(fds[0], &p->pid, sizeof(p->pid),
				    MSG_DONTWAIT) != sizeof(p->pid))
			p->pid = 0;
		close(fds[1]);
		p->link_fd = fds[0];
	}
	close(p->out_fd);
	tmem_perf_close(p->perf);
	p->perf = NULL;
}

uint64_t tmem_profile_memory_bytes(const struct tmem_profile *p)
{
	return p->pid > 0 && p->link_fd >= 0 ? tmem_proc_memory_bytes(p->pid)
					     : 0;
}

static void say_result(struct tmem_keeper *k)
{
	const struct tmem_profile_result *r = &k->profile.result;

	if (!k->profile.known)
		tmem_keeper_say(k,
				"--profile %s: the profiler did not answer; "
				"the profile is lost",
				k->options->profile);
	else if (r->error)
		tmem_keeper_say(k,
				"--profile %s: %s; the profile is lost, or a "
				"part of it",
				k->options->profile, strerror(r->error));
	if (k->profile.known && r->unreadable)
		tmem_keeper_say(k,
				"--profile %s: the memory maps of %llu "
				"processes are not for us to read, so their "
				"stacks are unknown",
				k->options->profile,
				(unsigned long long)r->unreadable);
}

void tmem_profile_write(struct tmem_keeper *k)
{
	struct tmem_profile *p = &k->profile;
	struct pollfd fds = { .fd = p->link_fd, .events = POLLIN };

	if (!k->options->profile)
		return;
	p->known = p->link_fd >= 0 &&
		   send(p->link_fd, "w", 1, MSG_NOSIGNAL) == 1 &&
		   poll(&fds, 1, ANSWER_MS) == 1 &&
		   recv(p->link_fd, &p->result, sizeof(p->result), 0) ==
			   sizeof(p->result);
	say_result(k);
	/* It ends by that. */
	if (p->link_fd >= 0)
		close(p->link_fd);
	p->link_fd = -1;
}
