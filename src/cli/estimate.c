/* SPDX-License-Identifier: MIT */
/*
 * `tmem estimate`: would a running process fit in less memory, and how often
 * would it come back for what is not there?  From samples of its own pages
 * (fit.h), and from how it uses them in a short time (track.h, curve.h).
 */
#include "base/assert.h"
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/curve.h"
#include "cli/fit.h"
#include "cli/memory.h"
#include "cli/options.h"
#include "cli/size.h"
#include "cli/track.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	DEFAULT_PAGES = 16384,
	DEFAULT_SECONDS = 5,
	MAX_SECONDS = 3600,
	SIZE_TEXT = 32,
	MAX_ROWS = 8
};

/* Refaults that a program hardly notices. */
#define FEW_PERCENT 10.0

enum option_id {
	OPTION_CORPUS = TMEM_ARGS_LONG,
	OPTION_PAGES,
	OPTION_SECONDS,
	OPTION_TRACK,
	OPTION_JSON
};

struct options {
	const char *corpus;
	uint64_t pid;
	uint64_t limit_bytes; /* 0: none asked for */
	uint64_t pages;
	uint64_t seconds;
	bool track;
	bool json;
	bool help;
};

/* One line of the table. */
struct row {
	uint64_t limit_bytes;
	double percent; /* of the present need */
	bool too_small; /* for tmem run */
	struct tmem_fit fit;
	double refault_percent;
	double refaults_per_s; /* of CPU time; measured only */
};

struct estimate {
	struct options options;
	char source[64];
	struct tmem_memory memory;
	struct tmem_pages sample;
	uint64_t *addresses; /* of the sample, in the process */
	uint64_t need_bytes;
	uint64_t swapped_pages;
	struct tmem_fit_input input;
	struct tmem_fit_sample whole;
	enum tmem_track_way way;
	struct tmem_curve curve;
	struct row rows[MAX_ROWS];
	unsigned nr_rows;
};

static void print_help(void)
{
	puts("Usage: tmem estimate [OPTION...] PID\n"
	     "       tmem estimate [OPTION...] --corpus FILE\n"
	     "\n"
	     "Says in how little memory a running process would fit under "
	     "tmem run, and how\n"
	     "often it would have to bring pages back. The process is only "
	     "read.\n"
	     "\n"
	     "Options:\n"
	     "  --corpus FILE\n"
	     "        The pages of a file of any multiple of 4 KiB instead.\n"
	     "  -m, --memory SIZE\n"
	     "        Say it for this size too.\n"
	     "  --pages N\n"
	     "        Look at so many pages at most (default: 16384).\n"
	     "  --track\n"
	     "        Watch which pages it uses, by clearing the kernel's "
	     "referenced bits of\n"
	     "        them; not needed where the kernel has idle page "
	     "tracking.\n"
	     "  --seconds N\n"
	     "        How long to watch (default: 5).\n"
	     "  --json\n"
	     "        Print one JSON object.\n"
	     "  -h, --help\n"
	     "        Show this help.\n"
	     "\n"
	     "Examples:\n"
	     "  tmem estimate $(pidof redis-server)\n"
	     "  tmem estimate --track --seconds 30 -m 2G 4711\n"
	     "\n"
	     "Exit status: 0; 125 if tmem fails. See tmem-estimate(1).");
}

/* Options. */

static int take_memory(struct options *o, const char *arg)
{
	int r = tmem_args_size("-m", arg, &o->limit_bytes);

	if (!r && !o->limit_bytes)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "-m 0: nothing runs in no memory; write "
				     "for example 512M");
	return r;
}

static int parse_one(void *options, int c, const char *arg)
{
	struct options *o = options;

	switch (c) {
	case OPTION_CORPUS:
		o->corpus = arg;
		break;
	case 'm':
		return take_memory(o, arg);
	case OPTION_PAGES:
		return tmem_args_number("--pages", arg, 1, TMEM_PAGES_MAX,
					&o->pages);
	case OPTION_SECONDS:
		return tmem_args_number("--seconds", arg, 1, MAX_SECONDS,
					&o->seconds);
	case OPTION_TRACK:
		o->track = true;
		break;
	case OPTION_JSON:
		o->json = true;
		break;
	default:
		o->help = true;
		break;
	}
	return 0;
}

static int check_options(struct options *o, char **rest)
{
	if (o->help)
		return 0;
	if (o->corpus && *rest)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--corpus and a process: pages come from "
				     "one place; leave one of them out");
	if (o->corpus && o->track)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--track: a file is not used by anybody; "
				     "leave it out, or name a process");
	if (!o->corpus && !*rest)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no process; write `tmem estimate PID' or "
				     "`tmem estimate --corpus FILE'");
	if (*rest && rest[1])
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: one process at a time; leave it out",
				     rest[1]);
	if (*rest)
		return tmem_args_number("process", *rest, 1, INT32_MAX,
					&o->pid);
	return 0;
}

static int parse(int argc, char **argv, struct options *ret)
{
	static const struct option table[] = {
		{ "corpus", required_argument, NULL, OPTION_CORPUS },
		{ "memory", required_argument, NULL, 'm' },
		{ "pages", required_argument, NULL, OPTION_PAGES },
		{ "track", no_argument, NULL, OPTION_TRACK },
		{ "seconds", required_argument, NULL, OPTION_SECONDS },
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	static const struct tmem_args args = { "estimate", ":m:h", table,
					       parse_one };
	struct options o = { .pages = DEFAULT_PAGES,
			     .seconds = DEFAULT_SECONDS };
	int r = tmem_args_take(&args, argc, argv, &o);

	if (!r)
		r = check_options(&o, argv + optind);
	if (!r)
		*ret = o;
	return r;
}

/* Looking. */

static int fail_memory(void)
{
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "no memory for the sample; take a smaller one "
			     "with --pages");
}

static int take_from_process(struct estimate *e)
{
	uint32_t max = (uint32_t)e->options.pages;
	const struct tmem_memory *m = &e->memory;
	int r;

	r = tmem_memory_open((pid_t)e->options.pid, &e->memory);
	if (r)
		return r;
	if (m->paged_by_tmem)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: tmem pages it already, and "
				     "what it evicted cannot be seen; look at "
				     "a run without tmem",
				     (int)m->pid);
	if (m->present_pages < max)
		max = (uint32_t)m->present_pages;
	TMEM_ASSERT(max > 0);
	e->addresses = calloc(max, sizeof(*e->addresses));
	if (!e->addresses)
		return fail_memory();
	snprintf(e->source, sizeof(e->source), "process %d (%s)", (int)m->pid,
		 m->comm);
	e->swapped_pages = m->swapped_pages;
	e->need_bytes = m->need_bytes;
	e->input.pages = m->present_pages + m->swapped_pages;
	e->input.fixed_bytes = e->need_bytes - e->input.pages * TMEM_PAGE_SIZE;
	return tmem_memory_sample(m, max, &e->sample, e->addresses);
}

static int take_pages(struct estimate *e)
{
	int r;

	if (e->options.corpus) {
		snprintf(e->source, sizeof(e->source), "corpus");
		r = tmem_pages_from_file(e->options.corpus,
					 (uint32_t)e->options.pages, &e->sample,
					 &e->input.pages);
		e->need_bytes = e->input.pages * TMEM_PAGE_SIZE;
	} else {
		r = take_from_process(e);
	}
	if (r)
		return r;
	e->input.sample = &e->sample;
	return 0;
}

static void show_progress(const struct estimate *e, const char *what)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (what)
		fprintf(stderr, "\r%s for %" PRIu64 " s", what,
			e->options.seconds);
	else
		fprintf(stderr, "\r%60s\r", "");
}

/* Idle page tracking if there is, else referenced bits if they were asked for.
 */
static int track(struct estimate *e)
{
	struct tmem_track_sample sample = { e->addresses, e->sample.nr };
	double seconds = (double)e->options.seconds;
	int r = -EOPNOTSUPP;

	if (e->options.corpus)
		return 0;
	if (!access(TMEM_TRACK_BITMAP, R_OK | W_OK)) {
		show_progress(e, "watching its pages");
		r = tmem_track_idle(&e->memory, &sample, TMEM_TRACK_BITMAP,
				    seconds, &e->curve);
		e->way = TMEM_TRACK_IDLE;
	}
	if (r == -EOPNOTSUPP && e->options.track) {
		show_progress(e, "watching its pages");
		r = tmem_track_refs(&e->memory, seconds, &e->curve);
		e->way = TMEM_TRACK_REFS;
	}
	show_progress(e, NULL);
	if (r == 0)
		return 0;
	e->way = TMEM_TRACK_NONE;
	if (r == -EOPNOTSUPP && !e->options.track)
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "process %d: cannot be watched: %s; leave out "
			     "--track, or choose one that lives on",
			     (int)e->memory.pid, strerror(-r));
}

/* The table. */

static int add_row(struct estimate *e, uint64_t limit_bytes)
{
	struct row *row = &e->rows[e->nr_rows++];
	double resident_pages, touched;
	int r;

	row->limit_bytes = limit_bytes;
	row->percent = 100.0 * (double)limit_bytes / (double)e->need_bytes;
	row->too_small = limit_bytes < TMEM_MIN_LIMIT_BYTES;
	if (limit_bytes >= e->need_bytes) {
		row->fit = (struct tmem_fit){ .fits = true, .resident = 1 };
		return 0;
	}
	r = tmem_fit_budget(&e->input, limit_bytes, &row->fit);
	if (r < 0)
		return fail_memory();
	row->refault_percent = 100 * (1 - row->fit.resident);
	if (!e->way)
		return 0;
	resident_pages = row->fit.resident * (double)e->input.pages;
	row->refaults_per_s = tmem_curve_fault_rate(&e->curve, resident_pages);
	touched = tmem_curve_touch_rate(&e->curve);
	row->refault_percent =
		touched > 0 ? 100 * row->refaults_per_s / touched : 0;
	return 0;
}

static int make_rows(struct estimate *e)
{
	static const unsigned percents[] = { 90, 75, 60, 50, 40, 30 };
	size_t i;
	int r = 0;

	if (tmem_fit_sample(&e->input, &e->whole) < 0)
		return fail_memory();
	for (i = 0; i < sizeof(percents) / sizeof(*percents) && !r; i++)
		r = add_row(e, e->need_bytes / 100 * percents[i]);
	if (!r && e->options.limit_bytes)
		r = add_row(e, e->options.limit_bytes);
	return r;
}

/* Conclusions. */

/* The smallest budget that fits with so few refaults; NULL: there is none. */
static const struct row *smallest(const struct estimate *e, double percent)
{
	const struct row *best = NULL, *row;

	for (row = e->rows; row < e->rows + e->nr_rows; row++)
		if (row->fit.fits && !row->too_small &&
		    row->refault_percent <= percent &&
		    (!best || row->limit_bytes < best->limit_bytes))
			best = row;
	return best;
}

static void advise(const struct estimate *e, char *text, size_t bytes)
{
	const struct row *least = smallest(e, 100), *few;
	char a[SIZE_TEXT], b[SIZE_TEXT];

	few = smallest(e, FEW_PERCENT);
	if (!least) {
		snprintf(text, bytes,
			 "Without a swap file it would fit in none of these: "
			 "what is over would go there.");
		return;
	}
	tmem_size_format(least->limit_bytes, a, sizeof(a));
	if (few && few != least) {
		tmem_size_format(few->limit_bytes, b, sizeof(b));
		snprintf(text, bytes,
			 "It would fit in %s at about %.0f %% of refaults, in "
			 "%s at about %.0f %%.",
			 a, least->refault_percent, b, few->refault_percent);
		return;
	}
	snprintf(text, bytes,
		 "It would fit in %s at about %.0f %% of refaults.", a,
		 least->refault_percent);
}

static const char *way_name(enum tmem_track_way way)
{
	switch (way) {
	case TMEM_TRACK_IDLE:
		return "page_idle";
	case TMEM_TRACK_REFS:
		return "clear_refs";
	default:
		return "uniform";
	}
}

static void explain(const struct estimate *e, char *text, size_t bytes)
{
	if (e->way)
		snprintf(text, bytes,
			 "Refaults are a part of the touches of pages, as "
			 "watched for %" PRIu64 " s (%s; uses of a page within "
			 "%.0f ms are one touch), if it goes on like that, "
			 "uses pages independently of each other, and none "
			 "is kept longer than others.",
			 e->options.seconds, way_name(e->way),
			 e->curve.nr ? e->curve.seconds[0] * 1000 + 0.5 : 0);
	else
		snprintf(text, bytes,
			 "Refaults are a part of the touches of pages, if all "
			 "pages are used alike, which was not watched%s.",
			 e->options.corpus ? ""
					   : ": --track does (it clears their "
					     "referenced bits, which is "
					     "harmless)");
}

/* Output. */

static void print_row(const struct row *row)
{
	char limit[SIZE_TEXT], swap[SIZE_TEXT];

	tmem_size_format(row->limit_bytes, limit, sizeof(limit));
	tmem_size_format(row->fit.swap_bytes, swap, sizeof(swap));
	printf("%-12s %5.0f %%  %9.0f %%  %7.1f %%", limit, row->percent,
	       100 * row->fit.resident, row->refault_percent);
	if (row->refaults_per_s > 0)
		printf(" %10.0f", row->refaults_per_s);
	else
		printf(" %10s", "-");
	if (row->too_small)
		printf("  no: tmem run takes 16 MiB at least\n");
	else if (row->fit.fits)
		printf("  yes\n");
	else
		printf("  no: %s to the swap file\n", swap);
}

static void print_head(const struct estimate *e)
{
	const struct tmem_curve *curve = &e->curve;
	char all[SIZE_TEXT], pageable[SIZE_TEXT], fixed[SIZE_TEXT];
	char swapped[SIZE_TEXT], touched[SIZE_TEXT];

	tmem_size_format(e->need_bytes, all, sizeof(all));
	tmem_size_format(e->input.pages * TMEM_PAGE_SIZE, pageable,
			 sizeof(pageable));
	tmem_size_format(e->input.fixed_bytes, fixed, sizeof(fixed));
	tmem_size_format(e->swapped_pages * TMEM_PAGE_SIZE, swapped,
			 sizeof(swapped));
	printf("%s: needs %s: %s that can be paged (%s of it swapped), %s "
	       "that stays\n",
	       e->source, all, pageable, swapped, fixed);
	printf("%" PRIu32 " pages looked at: they compress %.2f:1; "
	       "same-filled %.1f %%, hopeless %.1f %%\n",
	       e->sample.nr, e->whole.ratio, e->whole.same_percent,
	       e->whole.hopeless_percent);
	if (e->way) {
		tmem_size_format((uint64_t)tmem_curve_used_pages(curve) *
					 TMEM_PAGE_SIZE,
				 touched, sizeof(touched));
		printf("In %" PRIu64 " s it used %s, and touched about %.0f "
		       "pages a CPU second\n",
		       e->options.seconds, touched,
		       tmem_curve_touch_rate(curve));
	}
}

static void print_text(const struct estimate *e)
{
	char text[512];
	unsigned i;

	print_head(e);
	puts("\n-m         of its need   resident  refaults  a CPU s.  fits"
	     " without a swap file");
	for (i = 0; i < e->nr_rows; i++)
		print_row(&e->rows[i]);
	putchar('\n');
	advise(e, text, sizeof(text));
	puts(text);
	explain(e, text, sizeof(text));
	puts(text);
}

static json_t *json_rows(const struct estimate *e)
{
	json_t *list = json_array();
	const struct row *row;

	for (row = e->rows; row < e->rows + e->nr_rows; row++)
		json_array_append_new(
			list,
			json_pack("{s:I, s:f, s:b, s:b, s:f, s:I, s:f, s:o}",
				  "limit_bytes", (json_int_t)row->limit_bytes,
				  "percent_of_need", row->percent, "fits",
				  row->fit.fits && !row->too_small, "too_small",
				  row->too_small, "resident_percent",
				  100 * row->fit.resident, "swap_file_bytes",
				  (json_int_t)row->fit.swap_bytes,
				  "refault_percent", row->refault_percent,
				  "refaults_per_cpu_second",
				  e->way ? json_real(row->refaults_per_s)
					 : json_null()));
	return list;
}

/* NULL if it was not watched. */
static json_t *json_access(const struct estimate *e)
{
	const struct tmem_curve *c = &e->curve;
	json_t *points = json_array();
	unsigned i;

	for (i = 0; i < c->nr; i++)
		json_array_append_new(points, json_pack("[f, f]", c->seconds[i],
							c->pages[i]));
	return json_pack("{s:s, s:I, s:f, s:o}", "way", way_name(e->way),
			 "seconds",
			 (json_int_t)(e->way ? e->options.seconds : 0),
			 "touches_per_cpu_second",
			 e->way ? tmem_curve_touch_rate(c) : 0.0,
			 "pages_by_cpu_seconds", points);
}

static void print_json(const struct estimate *e)
{
	json_t *source = json_string(e->source);
	char advice[512], assumption[512];
	json_t *root;

	advise(e, advice, sizeof(advice));
	explain(e, assumption, sizeof(assumption));
	root = json_pack(
		"{s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:o, s:o, "
		"s:s, s:s}",
		"version", TMEM_VERSION, "source",
		source ? source : json_null(), /* not UTF-8 */
		"need_bytes", (json_int_t)e->need_bytes, "pageable_bytes",
		(json_int_t)e->input.pages * TMEM_PAGE_SIZE, "swapped_bytes",
		(json_int_t)e->swapped_pages * TMEM_PAGE_SIZE, "fixed_bytes",
		(json_int_t)e->input.fixed_bytes, "sample_pages",
		(json_int_t)e->sample.nr, "ratio", e->whole.ratio,
		"same_filled_percent", e->whole.same_percent,
		"hopeless_percent", e->whole.hopeless_percent, "access",
		json_access(e), "budgets", json_rows(e), "advice", advice,
		"assumption", assumption);
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

static int run(struct estimate *e)
{
	int r;

	r = take_pages(e);
	if (!r)
		r = track(e);
	if (!r)
		r = make_rows(e);
	if (r)
		return r;
	if (e->options.json)
		print_json(e);
	else
		print_text(e);
	return 0;
}

int tmem_estimate_main(int argc, char **argv)
{
	static struct estimate e = { .memory = { .mem_fd = -1,
						 .pagemap_fd = -1 } };
	int r;

	r = parse(argc, argv, &e.options);
	if (r)
		return r;
	if (e.options.help) {
		print_help();
		return 0;
	}
	r = run(&e);
	free(e.addresses);
	tmem_pages_close(&e.sample);
	tmem_memory_close(&e.memory);
	return r;
}
