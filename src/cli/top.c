/* SPDX-License-Identifier: MIT */
/*
 * `tmem top`: asks all trees for their figures, again and again, and shows
 * them and what changed in between.
 *
 * Whose figures they are, the kernel says (trees.h).  We see our own; root
 * sees all, but what another user's keeper says of itself may be made up.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/size.h"
#include "cli/trees.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <tmem/tmem.h>
#include <unistd.h>

enum {
	MAX_SHOWN = 1024,
	NAME_BYTES = 64,
	LINE_BYTES = 256,
	SIZE_TEXT = 32,
	USER_TEXT = 9
};

enum option_id {
	OPTION_ONCE = TMEM_ARGS_LONG,
	OPTION_JSON,
	OPTION_INTERVAL
};

struct options {
	uint64_t interval_ns;
	bool once;
	bool json;
	bool help;
};

/* A tree, as it said twice. */
struct shown {
	char name[NAME_BYTES]; /* of its socket */
	uid_t uid;
	pid_t pid;
	bool seen_before;
	struct tmem_control_status now;
	struct tmem_control_status before;
};

struct top {
	struct options options;
	struct shown *list;
	size_t nr;
	struct shown *last; /* of the round before */
	size_t nr_last;
	size_t nr_silent;  /* asked, but of another version, or hung */
	int columns, rows; /* of the terminal; 0: none */
};

static void print_help(void)
{
	puts("Usage: tmem top [OPTION...]\n"
	     "\n"
	     "Shows the programs that `tmem run' runs: yours, or as root "
	     "everybody's.\n"
	     "\n"
	     "Options:\n"
	     "  --once\n"
	     "        Show one interval and end.\n"
	     "  --interval TIME\n"
	     "        How long an interval is (default: 1s).\n"
	     "  --json\n"
	     "        One JSON object a line, for each interval.\n"
	     "  -h, --help\n"
	     "        Show this help.\n"
	     "\n"
	     "Examples:\n"
	     "  tmem top\n"
	     "  tmem top --once --json | jq '.programs[].stall_percent'\n"
	     "\n"
	     "See tmem-top(1).");
}

static int parse_one(void *options, int c, const char *arg)
{
	struct options *o = options;

	switch (c) {
	case OPTION_ONCE:
		o->once = true;
		break;
	case OPTION_JSON:
		o->json = true;
		break;
	case OPTION_INTERVAL:
		return tmem_args_interval("--interval", arg, &o->interval_ns);
	default:
		o->help = true;
		break;
	}
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option table[] = {
		{ "once", no_argument, NULL, OPTION_ONCE },
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "interval", required_argument, NULL, OPTION_INTERVAL },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	static const struct tmem_args args = { "top", ":h", table, parse_one };
	int r = tmem_args_take(&args, argc, argv, o);

	if (!r && !o->help && optind < argc)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: tmem top takes no argument; `tmem "
				     "top --help' lists the options",
				     argv[optind]);
	return r;
}

/* One round of questions. */

static void take(void *arg, const struct tmem_trees_answer *a)
{
	struct top *top = arg;
	struct shown *s = &top->list[top->nr];
	size_t i;

	top->nr_silent--;
	if (a->status.result < 0 || top->nr == MAX_SHOWN ||
	    (geteuid() != 0 && a->uid != geteuid()))
		return;
	*s = (struct shown){ .uid = a->uid, .pid = a->pid, .now = a->status };
	snprintf(s->name, sizeof(s->name), "%s", a->name);
	for (i = 0; i < top->nr_last && !s->seen_before; i++) {
		if (strcmp(top->last[i].name, s->name) != 0)
			continue;
		s->before = top->last[i].now;
		s->seen_before = s->before.age_ns < s->now.age_ns;
	}
	if (!s->seen_before)
		memset(&s->before, 0, sizeof(s->before));
	top->nr++;
}

static int compare(const void *a, const void *b)
{
	const struct shown *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

static int look(struct top *top)
{
	const struct tmem_control_request request = {
		.type = TMEM_CONTROL_SHOW, .version = TMEM_CONTROL_VERSION
	};
	struct shown *list = top->last;
	int n;

	top->last = top->list;
	top->nr_last = top->nr;
	top->list = list;
	top->nr = 0;
	top->nr_silent = 0;
	n = tmem_trees_ask(&request, take, top);
	if (n < 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "/proc/net/unix: %s; mount /proc, for it "
				     "lists what runs",
				     strerror(-n));
	top->nr_silent += (size_t)n;
	qsort(top->list, top->nr, sizeof(*top->list), compare);
	return 0;
}

/* What it says. */

static double seconds_of(const struct shown *s)
{
	uint64_t ns = s->now.age_ns - s->before.age_ns;

	return (double)(ns ? ns : 1) / 1e9;
}

static double rate(const struct shown *s, const _Atomic uint64_t *now,
		   const _Atomic uint64_t *before)
{
	uint64_t a = atomic_load(now), b = atomic_load(before);

	return a > b ? (double)(a - b) / seconds_of(s) : 0;
}

#define RATE(s, name) \
	rate(s, &(s)->now.counters.name, &(s)->before.counters.name)

static double ratio_of(const struct tmem_control_status *s)
{
	return s->held_bytes ? (double)s->stored_pages * TMEM_PAGE_SIZE /
				       (double)s->held_bytes
			     : 0;
}

static uint64_t resident_bytes(const struct tmem_control_status *s)
{
	return s->usage_bytes > s->held_bytes ? s->usage_bytes - s->held_bytes
					      : 0;
}

/* Of wall time: several threads that wait may make it more than 100. */
static double stall_percent(const struct shown *s)
{
	return RATE(s, stall_ns) / 1e9 * 100;
}

/* A neighbour may say what it likes: not all of it is a number of bytes. */
static uint64_t paged_bytes(double pages_per_s)
{
	double bytes = pages_per_s * TMEM_PAGE_SIZE;

	return bytes < (double)INT64_MAX ? (uint64_t)bytes : INT64_MAX;
}

static const char *kind_name(uint32_t kind)
{
	switch (kind) {
	case TMEM_AMOUNT_BYTES:
		return "size";
	case TMEM_AMOUNT_PERCENT:
		return "percent";
	case TMEM_AMOUNT_AUTO:
		return "auto";
	}
	return "unknown";
}

/* As text. */

static void print_line(const struct top *top, const char *format, ...)
{
	char line[LINE_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (top->columns > 0 && top->columns < LINE_BYTES)
		line[top->columns] = '\0';
	puts(line);
}

static const char *size(uint64_t bytes, char *buf)
{
	tmem_size_format(bytes, buf, SIZE_TEXT);
	return buf;
}

static void user_name(uid_t uid, char *buf)
{
	const struct passwd *pw = getpwuid(uid);

	if (pw)
		snprintf(buf, USER_TEXT, "%s", pw->pw_name);
	else
		snprintf(buf, USER_TEXT, "%u", (unsigned)uid);
}

static void print_program(const struct top *top, const struct shown *s)
{
	const struct tmem_control_status *n = &s->now;
	char user[USER_TEXT], budget[SIZE_TEXT], resident[SIZE_TEXT];
	char stored[SIZE_TEXT], in[SIZE_TEXT], out[SIZE_TEXT];

	user_name(s->uid, user);
	print_line(top,
		   "%7d %-8s %-15.15s %10s %10s %10s %6.2f %8.0f %8.0f %8.0f "
		   "%7.0f %6.1f %10s %10s",
		   (int)s->pid, user, n->name, size(n->limit_bytes, budget),
		   size(resident_bytes(n), resident),
		   size(n->stored_pages * TMEM_PAGE_SIZE, stored), ratio_of(n),
		   RATE(s, faults_zero), RATE(s, faults_store),
		   RATE(s, faults_swap),
		   RATE(s, faults_frame) + RATE(s, faults_raced) +
			   RATE(s, faults_lost),
		   stall_percent(s),
		   size(paged_bytes(RATE(s, faults_swap)), in),
		   size(paged_bytes(RATE(s, evicted_swap)), out));
}

/* How many programs a terminal has lines for, the cursor's left free. */
static size_t nr_fitting(const struct top *top)
{
	int lines = top->rows - 2 - (top->nr_silent > 0);

	if (!top->rows || (lines >= 0 && top->nr <= (size_t)lines))
		return top->nr;
	return lines > 0 ? (size_t)lines - 1 : 0;
}

static void print_text(struct top *top)
{
	size_t i, fitting = nr_fitting(top);

	if (top->rows)
		fputs("\033[H\033[J", stdout);
	print_line(top,
		   "%7s %-8s %-15s %10s %10s %10s %6s %8s %8s %8s %7s %6s %10s "
		   "%10s",
		   "PID", "USER", "PROGRAM", "BUDGET", "RESIDENT", "STORED",
		   "RATIO", "ZERO/s", "STORE/s", "SWAP/s", "OTHER/s", "STALL%",
		   "READ/s", "WRITE/s");
	for (i = 0; i < fitting; i++)
		print_program(top, &top->list[i]);
	if (fitting < top->nr)
		print_line(top, "... and %zu more", top->nr - fitting);
	if (!top->nr)
		print_line(top, "Nothing of yours is run by tmem run here.");
	if (top->nr_silent)
		print_line(top,
			   "(%zu did not answer: hung, or of another version)",
			   top->nr_silent);
	if (!top->rows && !top->options.once)
		putchar('\n');
}

/* As JSON. */

static json_t *json_rates(const struct shown *s)
{
	json_t *o = json_object();

#define COUNTER(name, unit, text) \
	json_object_set_new(o, #name, json_real(RATE(s, name)));
#include "wire/counters.def"
#undef COUNTER
	/* A longest one has no rate. */
	json_object_del(o, "stall_max_ns");
	return o;
}

static json_t *json_program(const struct shown *s)
{
	const struct tmem_control_status *n = &s->now;

	return json_pack(
		"{s:i, s:i, s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, "
		"s:I, s:I, s:f, s:f, s:f, s:o, s:o}",
		"pid", (int)s->pid, "program_pid", (int)n->main_pid, "uid",
		(int)s->uid, "program", n->name, "memory", kind_name(n->kind),
		"budget_bytes", (json_int_t)n->limit_bytes, "usage_bytes",
		(json_int_t)n->usage_bytes, "resident_bytes",
		(json_int_t)resident_bytes(n), "held_bytes",
		(json_int_t)n->held_bytes, "stored_bytes",
		(json_int_t)n->stored_bytes, "stored_pages",
		(json_int_t)n->stored_pages, "ratio", ratio_of(n),
		"swapped_pages", (json_int_t)n->swapped_pages, "processes",
		(json_int_t)n->nr_programs, "age_seconds",
		(double)n->age_ns / 1e9, "interval_seconds", seconds_of(s),
		"stall_percent", stall_percent(s), "per_second", json_rates(s),
		"counters", tmem_json_counters(&n->counters));
}

static void print_json(const struct top *top)
{
	json_t *list = json_array(), *root;
	struct timespec ts;
	size_t i;

	for (i = 0; i < top->nr; i++)
		json_array_append_new(list, json_program(&top->list[i]));
	clock_gettime(CLOCK_REALTIME, &ts);
	root = json_pack("{s:f, s:o, s:I}", "time",
			 (double)ts.tv_sec + (double)ts.tv_nsec / 1e9,
			 "programs", list, "silent",
			 (json_int_t)top->nr_silent);
	json_dumpf(root, stdout, JSON_COMPACT | JSON_REAL_PRECISION(13));
	putchar('\n');
	json_decref(root);
}

/* Again and again. */

static void measure_terminal(struct top *top)
{
	struct winsize w;

	top->columns = top->rows = 0;
	if (top->options.json || top->options.once ||
	    ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0)
		return;
	top->columns = w.ws_col ? w.ws_col : 80;
	top->rows = w.ws_row ? w.ws_row : 24;
}

static int show(struct top *top)
{
	measure_terminal(top);
	if (top->options.json)
		print_json(top);
	else
		print_text(top);
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "standard output: %s; give it one that can be "
			     "written",
			     strerror(errno));
}

static int run(struct top *top)
{
	const struct timespec interval = {
		(time_t)(top->options.interval_ns / 1000000000u),
		(long)(top->options.interval_ns % 1000000000u)
	};
	bool first;
	int r;

	for (first = true;; first = false) {
		r = look(top);
		/* The first look is since each one's start. */
		if (!r && !(first && top->options.once))
			r = show(top);
		if (r || (!first && top->options.once))
			return r;
		nanosleep(&interval, NULL);
	}
}

int tmem_top_main(int argc, char **argv)
{
	struct top top = { .options.interval_ns = 1000000000u };
	int r = parse(argc, argv, &top.options);

	if (r)
		return r;
	if (top.options.help) {
		print_help();
		return 0;
	}
	top.list = calloc(MAX_SHOWN, sizeof(*top.list));
	top.last = calloc(MAX_SHOWN, sizeof(*top.last));
	r = top.list && top.last
		    ? run(&top)
		    : tmem_cli_fail(TMEM_EXIT_FAIL,
				    "out of memory; end something");
	free(top.list);
	free(top.last);
	return r;
}
