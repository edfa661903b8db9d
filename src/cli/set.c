/* SPDX-License-Identifier: MIT */
/*
 * `tmem set`: asks every tree whether the process is one of its, and the one
 * that it is of to change its budget.
 *
 * An answer counts if it comes from root, from ourselves, or, if we are root,
 * from the user whose process it is: anybody may bind a socket and say that
 * all is done.
 */
#include "cli/amount.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/size.h"
#include "cli/trees.h"

#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct request {
	uint64_t pid;
	const char *text; /* of -m */
	struct tmem_amount memory;
	bool help;
};

struct outcome {
	uid_t owner; /* of the process */
	int result;  /* -ESRCH: nobody knows it */
	struct tmem_control_status status;
};

static void print_help(void)
{
	puts("Usage: tmem set PID -m SIZE|PERCENT|auto\n"
	     "\n"
	     "Changes the memory of a program that `tmem run' runs. PID is that "
	     "of tmem run, or\n"
	     "of any process of the program's tree; the budget is the tree's.\n"
	     "\n"
	     "Options:\n"
	     "  -m, --memory SIZE|PERCENT|auto\n"
	     "        As for tmem run.\n"
	     "  -h, --help\n"
	     "        Show this help.\n"
	     "\n"
	     "Examples:\n"
	     "  tmem set 4711 -m 3G\n"
	     "  tmem set $(pidof redis-server) -m auto\n"
	     "\n"
	     "Exit status: 0; 125 if nothing was changed. See tmem-set(1).");
}

static int parse_one(void *options, int c, const char *arg)
{
	struct request *r = options;

	if (c == 'h') {
		r->help = true;
		return 0;
	}
	r->text = arg;
	return tmem_amount_parse(arg, &r->memory);
}

static int parse(int argc, char **argv, struct request *r)
{
	static const struct option table[] = {
		{ "memory", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	static const struct tmem_args args = { "set", ":m:h", table,
					       parse_one };
	int status = tmem_args_take(&args, argc, argv, r);

	if (status || r->help)
		return status;
	if (optind + 1 != argc || !r->memory.kind)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "one process and its memory are needed; "
				     "write for example `tmem set 4711 -m 3G'");
	return tmem_args_number("PID", argv[optind], 1, INT32_MAX, &r->pid);
}

static bool is_trusted(const struct outcome *o, uid_t uid)
{
	return uid == 0 || uid == geteuid() ||
	       (geteuid() == 0 && uid == o->owner);
}

static void take(void *arg, const struct tmem_trees_answer *a)
{
	struct outcome *o = arg;
	int result = a->status.result;

	if (result == -ESRCH || o->result == 0)
		return;
	if (!is_trusted(o, a->uid)) {
		/* Whose it is, at the most. */
		if (o->result == -ESRCH)
			o->result = -EPERM;
		return;
	}
	o->result = result;
	o->status = a->status;
}

static int explain(const struct request *r, int error)
{
	int pid = (int)r->pid;

	switch (error) {
	case ENOENT:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: no such process; `tmem top' "
				     "lists those that can be set",
				     pid);
	case ESRCH:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: not run by tmem run, or in "
				     "another network namespace; `tmem top' "
				     "lists those that can be set",
				     pid);
	case EPERM:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: run by another user's tmem "
				     "run; do it as that user, or as root",
				     pid);
	case ERANGE:
		return tmem_amount_check(r->text, 0);
	}
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "process %d: cannot be set: %s; try again", pid,
			     strerror(error));
}

static int set(const struct request *r)
{
	struct tmem_control_request request = {
		.type = TMEM_CONTROL_SET,
		.version = TMEM_CONTROL_VERSION,
		.pid = (int32_t)r->pid,
		.kind = r->memory.kind,
		.value = r->memory.value,
	};
	struct outcome o = { .result = -ESRCH };
	char path[32], now[32], old[32];
	struct stat st;
	int n;

	snprintf(path, sizeof(path), "/proc/%d", (int)r->pid);
	if (stat(path, &st) < 0)
		return explain(r, ENOENT);
	o.owner = st.st_uid;
	n = tmem_trees_ask(&request, take, &o);
	if (n < 0)
		return explain(r, -n);
	if (o.result < 0)
		return explain(r, -o.result);
	tmem_size_format(o.status.limit_bytes, now, sizeof(now));
	tmem_size_format(o.status.old_bytes, old, sizeof(old));
	printf("%s: %s, was %s\n", o.status.name, now, old);
	return 0;
}

int tmem_set_main(int argc, char **argv)
{
	struct request r = { 0 };
	int status = parse(argc, argv, &r);

	if (status)
		return status;
	if (r.help) {
		print_help();
		return 0;
	}
	return set(&r);
}
