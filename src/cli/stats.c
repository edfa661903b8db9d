/* SPDX-License-Identifier: MIT */
/*
 * --stats: the tree's figures, a JSON object a line, while it runs.
 *
 * Each line is built and written by a child of the keeper's (K4: whoever reads
 * it may wait for memory that we have to divide).  Until that child has ended
 * no other line is written: a slow reader gets fewer lines, each of which says
 * how long an interval it is about.
 *
 * When the program has ended and others of its tree live on, the caller may
 * wait for its pipe to close: only a regular file is kept then.
 */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <tmem/tmem.h>
#include <unistd.h>

enum {
	LAST_NAPS = 1000 /* of a millisecond: no reader is waited for longer */
};

static int fail(const char *text, int error)
{
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "--stats %s: %s; name a file or an open "
			     "descriptor that you may write",
			     text, strerror(error));
}

/* Not the program's any more; but the first three are. */
static int take_descriptor(const char *text, int *ret_fd)
{
	int fd = strlen(text) < 8 ? atoi(text) : -1, flags, copy;

	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
		return fail(text, EBADF);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (copy < 0)
		return fail(text, errno);
	if (fd > STDERR_FILENO)
		close(fd);
	*ret_fd = copy;
	return 0;
}

int tmem_stats_open(const struct tmem_run_options *o, int *ret_fd)
{
	int fd;

	*ret_fd = -1;
	if (!o->stats)
		return 0;
	if (*o->stats && !o->stats[strspn(o->stats, "0123456789")])
		return take_descriptor(o->stats, ret_fd);
	fd = open(o->stats, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC,
		  0666);
	if (fd < 0)
		return fail(o->stats, errno);
	*ret_fd = fd;
	return 0;
}

static json_t *make_line(const struct tmem_control_status *now,
			 const struct tmem_control_status *before)
{
	uint64_t held = now->held_bytes, usage = now->usage_bytes;
	struct timespec ts;
	json_t *o = json_object();

	clock_gettime(CLOCK_REALTIME, &ts);
	json_object_set_new(
		o, "time",
		json_real((double)ts.tv_sec + (double)ts.tv_nsec / 1e9));
	json_object_set_new(o, "age_seconds",
			    json_real((double)now->age_ns / 1e9));
	json_object_set_new(
		o, "interval_seconds",
		json_real((double)(now->age_ns - before->age_ns) / 1e9));
	tmem_json_set(o, "budget_bytes", now->limit_bytes);
	tmem_json_set(o, "usage_bytes", usage);
	tmem_json_set(o, "resident_bytes", usage > held ? usage - held : 0);
	tmem_json_set(o, "held_bytes", held);
	tmem_json_set(o, "stored_bytes", now->stored_bytes);
	tmem_json_set(o, "stored_pages", now->stored_pages);
	tmem_json_set(o, "swapped_pages", now->swapped_pages);
	tmem_json_set(o, "processes", now->nr_programs);
	json_object_set_new(
		o, "differences",
		tmem_json_differences(&now->counters, &before->counters));
	json_object_set_new(o, "totals", tmem_json_counters(&now->counters));
	return o;
}

/* In the child.  In one piece if it can be. */
static void write_line(const struct tmem_keeper *k,
		       const struct tmem_control_status *now)
{
	json_t *o = make_line(now, &k->stats);
	char *text = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(13));
	size_t left, done = 0;
	ssize_t n;

	if (!text)
		return;
	left = strlen(text) + 1;
	text[left - 1] = '\n';
	while (left) {
		n = write(STDOUT_FILENO, text + done, left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		done += (size_t)n;
		left -= (size_t)n;
	}
}

static void start_line(struct tmem_keeper *k)
{
	struct tmem_control_status now;

	if (k->stats_pid > 0)
		return;
	tmem_control_fill(k, &now);
	k->stats_pid = tmem_keeper_fork_writer(k->stats_fd);
	if (k->stats_pid == 0) {
		write_line(k, &now);
		_exit(0);
	}
	if (k->stats_pid > 0)
		k->stats = now;
	else
		k->stats_pid = 0;
}

void tmem_stats_tick(struct tmem_keeper *k, uint64_t now_ns)
{
	if (k->stats_fd < 0 || now_ns < k->next_stats_ns)
		return;
	start_line(k);
	k->next_stats_ns += k->options->stats_ns;
	if (k->next_stats_ns <= now_ns)
		k->next_stats_ns = now_ns + k->options->stats_ns;
}

static void wait_for_writer(struct tmem_keeper *k)
{
	const struct timespec nap = { 0, 1000000 };
	int i;

	for (i = 0; i < LAST_NAPS && k->stats_pid > 0; i++) {
		if (waitpid(k->stats_pid, NULL, WNOHANG) != 0)
			k->stats_pid = 0;
		else
			nanosleep(&nap, NULL);
	}
	/* As our child it would keep us here. */
	if (k->stats_pid > 0 && kill(k->stats_pid, SIGKILL) == 0)
		waitpid(k->stats_pid, NULL, 0);
	k->stats_pid = 0;
}

void tmem_stats_last(struct tmem_keeper *k, bool others_live)
{
	struct stat st;

	if (k->stats_fd < 0)
		return;
	wait_for_writer(k);
	start_line(k);
	wait_for_writer(k);
	if (others_live && fstat(k->stats_fd, &st) == 0 && S_ISREG(st.st_mode))
		return;
	close(k->stats_fd);
	k->stats_fd = -1;
}
