/* SPDX-License-Identifier: MIT */
/*
 * `tmem bench`: what the store makes of given pages: nanoseconds, memory, and
 * what to choose.
 *
 * Each round measures all forms one after the other, so that a busy machine
 * disturbs all of them alike; the figures are medians of the rounds.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/memory.h"
#include "cli/size.h"
#include "cli/trial.h"

#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The forms that are tried: a line each.  The first is what tmem does. */
static const struct tmem_trial_form forms[] = {
	{ "auto", "as the store chooses: same-filled, LZ4 or raw",
	  .options = { 0 } },
	{ "lz4", "same-filled or LZ4; what does not compress is refused",
	  .options = { .no_raw = 1 } },
	{ "dict",
	  "auto, and LZ4 with a dictionary of these pages where that gains",
	  .again = true, .options = { .dict_every_ns = 1 } },
	{ "cold",
	  "auto, then zstd in the background, as pages that nobody touches",
	  .options = { .cool_after_ns = 1 } },
	{ "coldest",
	  "the same with a dictionary of these pages where that gains",
	  .options = { .cool_after_ns = 1, .dict_every_ns = 1 } },
	{ "copy", "copied to and fro without a store, to compare with",
	  .copy = true },
};

enum {
	NR_FORMS = sizeof(forms) / sizeof(*forms),
	DEFAULT_ROUNDS = 5,
	SIZE_TEXT = 32,
	ADVICE_TEXT = 384
};

enum option_id {
	OPTION_CORPUS = TMEM_ARGS_LONG,
	OPTION_PID,
	OPTION_PAGES,
	OPTION_THREADS,
	OPTION_ROUNDS,
	OPTION_LIMIT,
	OPTION_JSON
};

struct options {
	const char *corpus;
	uint64_t pid;
	uint64_t pages;
	uint64_t threads;
	uint64_t rounds;
	uint64_t limit_bytes;
	bool json;
	bool help;
};

/* What one form came to. */
struct result {
	const struct tmem_trial_form *form;
	const struct tmem_trial *trial;
	uint32_t refused_pages;
	double store_ns, load_ns, work_ns;
	double stores_per_s, loads_per_s; /* of all threads */
	double ratio;
	double gib_bytes; /* what a GiB of accepted pages takes */
	double meta_bytes, rounding_bytes; /* a page */
	double all_bytes; /* with the refused ones as they are */
};

struct bench {
	struct options options;
	char source[64];
	uint64_t source_pages;
	struct tmem_pages pages;
	struct tmem_trial_input input;
	struct tmem_trial trials[NR_FORMS];
	struct result results[NR_FORMS];
};

static void print_help(void)
{
	int i;

	puts("Usage: tmem bench [OPTION...]\n"
	     "\n"
	     "Measures what the page store makes of pages: time to store and "
	     "to load one, and\n"
	     "the memory that they take, in each form.\n"
	     "\n"
	     "Options:\n"
	     "  --corpus FILE\n"
	     "        The pages of a file of any multiple of 4 KiB.\n"
	     "  --pid PID\n"
	     "        Pages of a running process, which is only read.\n"
	     "  --pages N\n"
	     "        At most that many (default: 32768, which is 128 MiB).\n"
	     "  --threads N\n"
	     "        Threads that share the pages (default: 1).\n"
	     "  --rounds N\n"
	     "        Rounds that medians are of (default: 5).\n"
	     "  --limit SIZE\n"
	     "        The store's limit (default: enough for all pages).\n"
	     "  --json\n"
	     "        Print one JSON object.\n"
	     "  -h, --help\n"
	     "        Show this help.\n"
	     "\n"
	     "Forms:");
	for (i = 0; i < NR_FORMS; i++)
		printf("  %-8s %s\n", forms[i].name, forms[i].text);
	puts("\n"
	     "Examples:\n"
	     "  tmem bench\n"
	     "        Pages that tmem makes itself, the same each time.\n"
	     "  tmem bench --pid $(pidof redis-server) --threads 2\n"
	     "\n"
	     "Exit status: 0; 1 if a page came back different; 125 if tmem "
	     "fails.\n"
	     "See tmem-bench(1).");
}

/* Options. */

static int take_limit(struct options *o, const char *arg)
{
	int r = tmem_args_size("--limit", arg, &o->limit_bytes);

	if (!r && o->limit_bytes < TMEM_STORE_MIN_BYTES)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--limit %s: less than 1 MiB, which a "
				     "store needs; give more",
				     arg);
	return r;
}

static int parse_one(void *options, int c, const char *arg)
{
	struct options *o = options;

	switch (c) {
	case OPTION_CORPUS:
		o->corpus = arg;
		break;
	case OPTION_PID:
		return tmem_args_number("--pid", arg, 1, INT32_MAX, &o->pid);
	case OPTION_PAGES:
		return tmem_args_number("--pages", arg, 1, TMEM_PAGES_MAX,
					&o->pages);
	case OPTION_THREADS:
		return tmem_args_number("--threads", arg, 1,
					TMEM_TRIAL_MAX_THREADS, &o->threads);
	case OPTION_ROUNDS:
		return tmem_args_number("--rounds", arg, 1,
					TMEM_TRIAL_MAX_ROUNDS, &o->rounds);
	case OPTION_LIMIT:
		return take_limit(o, arg);
	case OPTION_JSON:
		o->json = true;
		break;
	default:
		o->help = true;
		break;
	}
	return 0;
}

static int check_options(const struct options *o, const char *rest)
{
	if (o->help)
		return 0;
	if (rest)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: not an option; write --corpus FILE "
				     "or --pid PID",
				     rest);
	if (o->corpus && o->pid)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--corpus and --pid: pages come from one "
				     "place; leave one of them out");
	return 0;
}

static int parse(int argc, char **argv, struct options *ret)
{
	static const struct option table[] = {
		{ "corpus", required_argument, NULL, OPTION_CORPUS },
		{ "pid", required_argument, NULL, OPTION_PID },
		{ "pages", required_argument, NULL, OPTION_PAGES },
		{ "threads", required_argument, NULL, OPTION_THREADS },
		{ "rounds", required_argument, NULL, OPTION_ROUNDS },
		{ "limit", required_argument, NULL, OPTION_LIMIT },
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	static const struct tmem_args args = { "bench", "+:h", table,
					       parse_one };
	struct options o = { .pages = TMEM_PAGES_DEFAULT,
			     .threads = 1,
			     .rounds = DEFAULT_ROUNDS };
	int r = tmem_args_take(&args, argc, argv, &o);

	if (!r)
		r = check_options(&o, argv[optind]);
	if (!r)
		*ret = o;
	return r;
}

/* Pages. */

static int take_from_process(struct bench *b)
{
	uint32_t max = (uint32_t)b->options.pages;
	struct tmem_memory memory;
	int r;

	r = tmem_memory_open((pid_t)b->options.pid, &memory);
	if (r)
		return r;
	snprintf(b->source, sizeof(b->source), "process %d (%s)",
		 (int)memory.pid, memory.comm);
	b->source_pages = memory.present_pages;
	r = tmem_memory_sample(&memory, max, &b->pages, NULL);
	tmem_memory_close(&memory);
	return r;
}

static int take_pages(struct bench *b)
{
	const struct options *o = &b->options;

	if (o->pid)
		return take_from_process(b);
	if (o->corpus) {
		snprintf(b->source, sizeof(b->source), "corpus");
		return tmem_pages_from_file(o->corpus, (uint32_t)o->pages,
					    &b->pages, &b->source_pages);
	}
	snprintf(b->source, sizeof(b->source), "built in");
	b->source_pages = o->pages;
	return tmem_pages_built_in((uint32_t)o->pages, &b->pages);
}

static int prepare(struct bench *b)
{
	uint64_t bytes = (uint64_t)b->pages.nr * TMEM_PAGE_SIZE;

	if (b->options.threads > b->pages.nr)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--threads %" PRIu64 ": more than the "
				     "%" PRIu32 " pages that there are; give "
				     "fewer",
				     b->options.threads, b->pages.nr);
	b->input.pages = &b->pages;
	b->input.nr_threads = (unsigned)b->options.threads;
	/* So far from full that the policy for that does not show. */
	b->input.limit_bytes = b->options.limit_bytes ? b->options.limit_bytes
						      : 4 * bytes + (64u << 20);
	b->input.order = malloc(b->pages.nr * sizeof(*b->input.order));
	if (!b->input.order)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no memory for %" PRIu32
				     " pages; take fewer with --pages",
				     b->pages.nr);
	tmem_pages_shuffle(b->input.order, b->pages.nr);
	return 0;
}

/* Measuring. */

static void show_progress(unsigned round, uint64_t rounds, const char *form)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (form)
		fprintf(stderr, "\rround %u of %" PRIu64 ": %-8s", round + 1,
			rounds, form);
	else
		fprintf(stderr, "\r%40s\r", "");
}

static int measure(struct bench *b)
{
	unsigned round, i;
	int r = 0;

	for (i = 0; i < NR_FORMS; i++)
		b->trials[i].form = &forms[i];
	for (round = 0; round < b->options.rounds; round++) {
		for (i = 0; i < NR_FORMS && !r; i++) {
			show_progress(round, b->options.rounds, forms[i].name);
			r = tmem_trial_round(&b->trials[i], &b->input);
		}
	}
	show_progress(0, 0, NULL);
	return r;
}

static struct result conclude(const struct bench *b, struct tmem_trial *t)
{
	double threads = (double)b->options.threads;
	double held = (double)t->held_bytes;
	struct result r = {
		.form = t->form,
		.trial = t,
		.refused_pages = b->pages.nr - t->accepted_pages,
		.store_ns = tmem_trial_median(t->store_ns, t->nr_rounds),
		.load_ns = tmem_trial_median(t->load_ns, t->nr_rounds),
		.work_ns = tmem_trial_median(t->work_ns, t->nr_rounds),
	};

	r.stores_per_s = r.store_ns > 0 ? threads * 1e9 / r.store_ns : 0;
	r.loads_per_s = r.load_ns > 0 ? threads * 1e9 / r.load_ns : 0;
	r.all_bytes = held + (double)r.refused_pages * TMEM_PAGE_SIZE;
	if (!t->accepted_pages)
		return r;
	r.ratio = (double)t->accepted_pages * TMEM_PAGE_SIZE / held;
	r.gib_bytes = (double)(1u << 30) / r.ratio;
	r.meta_bytes = (double)t->meta_bytes / t->accepted_pages;
	r.rounding_bytes = (double)t->rounding_bytes / t->accepted_pages;
	return r;
}

/* What to choose. */

/* What a store takes for itself is much of what few pages take. */
static void say_if_few(const struct bench *b, char *text, size_t bytes)
{
	const struct tmem_stats *s = &b->trials[0].stats;
	double own = 1 - (double)s->data_bytes / (double)s->held_bytes;
	size_t n = strlen(text);

	if (own > 0.25)
		snprintf(text + n, bytes - n,
			 " But %.0f %% of what they took is the store's own: "
			 "they are few.",
			 own * 100);
}

static void advise_memory(const struct bench *b, char *text, size_t bytes)
{
	const struct result *r = &b->results[0];
	double all = (double)b->pages.nr * TMEM_PAGE_SIZE;
	double least = r->all_bytes / all;
	/* The part that must be stored for half of the memory to do. */
	double stored = r->ratio > 1 ? 0.5 / (1 - 1 / r->ratio) : 2;

	if (least > 0.95)
		snprintf(text, bytes,
			 "These pages hardly compress (%.2f:1): storing them "
			 "gains nothing, and what does not fit in memory would "
			 "go to the swap file.",
			 r->ratio);
	else if (stored * b->pages.nr > r->trial->accepted_pages)
		snprintf(text, bytes,
			 "These pages compress %.2f:1, all costs included: "
			 "half of their memory would not hold them all; that "
			 "takes %.0f %% of it, or a swap file.",
			 r->ratio, least * 100);
	else if (stored > 0.95)
		snprintf(text, bytes,
			 "These pages compress %.2f:1, all costs included: "
			 "half of their memory would just hold them all, "
			 "with hardly any left as they are; take more.",
			 r->ratio);
	else
		snprintf(text, bytes,
			 "These pages compress %.2f:1, all costs included: "
			 "half of their memory would hold them all, %.0f %% "
			 "of them as they are and the rest compressed.",
			 r->ratio, 100 - stored * 100);
	say_if_few(b, text, bytes);
}

static void advise_form(const struct bench *b, char *text, size_t bytes)
{
	const struct result *first = &b->results[0], *best = first;
	int i;

	/* Taking less by taking fewer is no gain. */
	for (i = 1; i < NR_FORMS; i++)
		if (!forms[i].copy &&
		    b->results[i].refused_pages <= first->refused_pages &&
		    b->results[i].all_bytes < best->all_bytes * 0.95)
			best = &b->results[i];
	if (best == first)
		snprintf(text, bytes,
			 "Leave the form to the store (%s): no other takes "
			 "less memory for all of them.",
			 first->form->name);
	else
		snprintf(text, bytes,
			 "Form %s takes %.0f %% less memory than %s, loads a "
			 "page in %.1f us instead of %.1f us, and takes %.0f "
			 "us of CPU time a page in the background.",
			 best->form->name,
			 100 - best->all_bytes * 100 / first->all_bytes,
			 first->form->name, best->load_ns / 1000,
			 first->load_ns / 1000, best->work_ns / 1000);
}

/* Output. */

static void print_text(const struct bench *b)
{
	char size[SIZE_TEXT], limit[SIZE_TEXT], advice[ADVICE_TEXT];
	const struct tmem_stats *s = &b->trials[0].stats;
	int i;

	tmem_size_format((uint64_t)b->pages.nr * TMEM_PAGE_SIZE, size,
			 sizeof(size));
	tmem_size_format(b->input.limit_bytes, limit, sizeof(limit));
	printf("%s: %" PRIu32 " of %" PRIu64 " pages, %s; store of %s; "
	       "%" PRIu64 " rounds, threads: %" PRIu64 "\n\n",
	       b->source, b->pages.nr, b->source_pages, size, limit,
	       b->options.rounds, b->options.threads);
	puts("form      store     load     work   ratio  RAM a GiB   metadata"
	     "  refused"
	     "\n          ns/page  ns/page  ns/page               MiB"
	     "  bytes/page    pages");
	for (i = 0; i < NR_FORMS; i++) {
		const struct result *r = &b->results[i];

		printf("%-8s %8.0f %8.0f %8.0f %7.2f %10.1f %11.1f %8" PRIu32
		       "\n",
		       r->form->name, r->store_ns, r->load_ns, r->work_ns,
		       r->ratio, r->gib_bytes / (1 << 20), r->meta_bytes,
		       r->refused_pages);
	}
	printf("\nIn %s: same-filled %" PRIu64 ", LZ4 %" PRIu64 ", raw %" PRIu64
	       " pages.\n",
	       forms[0].name, s->same_pages, s->lz4_pages, s->raw_pages);
	advise_memory(b, advice, sizeof(advice));
	puts(advice);
	advise_form(b, advice, sizeof(advice));
	puts(advice);
}

static json_t *json_result(const struct result *r)
{
	const struct tmem_stats *s = &r->trial->stats;

	return json_pack(
		"{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, "
		"s:f, s:f, s:f, s:I, s:f, s:f, s:f}",
		"form", r->form->name, "accepted_pages",
		(json_int_t)r->trial->accepted_pages, "refused_pages",
		(json_int_t)r->refused_pages, "same_filled_pages",
		(json_int_t)s->same_pages, "lz4_pages",
		(json_int_t)s->lz4_pages, "raw_pages", (json_int_t)s->raw_pages,
		"zstd_pages", (json_int_t)s->zstd_pages, "lz4_dict_pages",
		(json_int_t)s->lz4_dict_pages, "zstd_dict_pages",
		(json_int_t)s->zstd_dict_pages, "store_ns", r->store_ns,
		"load_ns", r->load_ns, "work_ns", r->work_ns,
		"stores_per_second", r->stores_per_s, "loads_per_second",
		r->loads_per_s, "ratio", r->ratio, "held_bytes",
		(json_int_t)r->trial->held_bytes, "bytes_per_gib", r->gib_bytes,
		"metadata_bytes_per_page", r->meta_bytes,
		"rounding_bytes_per_page", r->rounding_bytes);
}

static void print_json(const struct bench *b)
{
	json_t *root = json_object(), *list = json_array();
	char memory[ADVICE_TEXT], form[ADVICE_TEXT], advice[2 * ADVICE_TEXT];
	int i;

	for (i = 0; i < NR_FORMS; i++)
		json_array_append_new(list, json_result(&b->results[i]));
	advise_memory(b, memory, sizeof(memory));
	advise_form(b, form, sizeof(form));
	snprintf(advice, sizeof(advice), "%s %s", memory, form);
	json_object_set_new(root, "version", json_string(TMEM_VERSION));
	/* NULL for a process whose name is not UTF-8. */
	json_object_set_new(root, "source",
			    json_string(b->source) ? json_string(b->source)
						   : json_null());
	json_object_set_new(root, "source_pages",
			    json_integer((json_int_t)b->source_pages));
	json_object_set_new(root, "pages", json_integer(b->pages.nr));
	json_object_set_new(root, "threads",
			    json_integer((json_int_t)b->options.threads));
	json_object_set_new(root, "rounds",
			    json_integer((json_int_t)b->options.rounds));
	json_object_set_new(root, "limit_bytes",
			    json_integer((json_int_t)b->input.limit_bytes));
	json_object_set_new(root, "forms", list);
	json_object_set_new(root, "advice", json_string(advice));
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
}

static int run(struct bench *b)
{
	int r, i;

	r = take_pages(b);
	if (!r)
		r = prepare(b);
	if (!r)
		r = measure(b);
	if (r)
		return r;
	for (i = 0; i < NR_FORMS; i++)
		b->results[i] = conclude(b, &b->trials[i]);
	if (b->options.json)
		print_json(b);
	else
		print_text(b);
	return 0;
}

int tmem_bench_main(int argc, char **argv)
{
	static struct bench bench;
	int r;

	r = parse(argc, argv, &bench.options);
	if (r)
		return r;
	if (bench.options.help) {
		print_help();
		return 0;
	}
	r = run(&bench);
	free(bench.input.order);
	tmem_pages_close(&bench.pages);
	return r;
}
