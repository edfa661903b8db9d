/* SPDX-License-Identifier: MIT */
/*
 * getopt_long over the table in options.def.  (Not argp: it prints two lines
 * on an error, and a wrong command line gets exactly one here.)
 */
#include "cli/options.h"

#include "cli/args.h"
#include "cli/cli.h"
#include "cli/size.h"

#include <getopt.h>
#include <string.h>

enum option_id {
	OPTION_NONE = TMEM_ARGS_LONG,
#define OPTION(name, letter, long_name, argument, text) OPTION_##name,
#include "options.def"
#undef OPTION
};

static const struct option long_options[] = {
#define OPTION(name, letter, long_name, argument, text)                  \
	{ long_name, (argument) ? required_argument : no_argument, NULL, \
	  OPTION_##name },
#include "options.def"
#undef OPTION
	{ NULL, 0, NULL, 0 }
};

static const struct {
	int letter;
	const char *name;
	const char *argument;
	const char *text;
} descriptions[] = {
#define OPTION(name, letter, long_name, argument, text) \
	{ letter, long_name, argument, text },
#include "options.def"
#undef OPTION
};

static int parse_memory(const char *text, struct tmem_run_options *o)
{
	int r = tmem_args_size("-m", text, &o->limit_bytes);

	if (r)
		return r;
	if (o->limit_bytes < TMEM_MIN_LIMIT_BYTES)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "-m %s: less than 16 MiB, which tmem "
				     "needs to work in; give more",
				     text);
	if (o->limit_bytes > INT64_MAX)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "-m %s: larger than any memory; write "
				     "for example 512M or 1.5G",
				     text);
	return 0;
}

static int parse_choice(const char *option, const char *text,
			const char *const *choices, int *ret_choice)
{
	int i;

	for (i = 0; choices[i]; i++) {
		if (strcmp(choices[i], text) != 0)
			continue;
		*ret_choice = i;
		return 0;
	}
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "%s %s: not a choice; write %s, %s or %s", option,
			     text, choices[0], choices[1], choices[2]);
}

static int parse_one(int id, const char *arg, struct tmem_run_options *o)
{
	static const char *const full[] = { "grow", "pause", "term", NULL };
	static const char *const form[] = { "text", "json", "none", NULL };
	int choice = 0, r = 0;

	switch (id) {
	case OPTION_MEMORY:
		return parse_memory(arg, o);
	case OPTION_SWAP_DIR:
		o->swap_dir = arg;
		break;
	case OPTION_SWAP_MAX:
		o->swap_max_given = true;
		return tmem_args_size("--swap-max", arg, &o->swap_max_bytes);
	case OPTION_ON_FULL:
		r = parse_choice("--on-full", arg, full, &choice);
		o->on_full = (enum tmem_on_full)choice;
		break;
	case OPTION_MAX_STALL:
		if (tmem_stall_parse(arg, &o->stall_percent,
				     &o->stall_seconds) < 0)
			return tmem_cli_fail(
				TMEM_EXIT_FAIL,
				"--max-stall %s: not PCT/SECONDS; write for "
				"example 60/30 (1 to 100, 1 to 3600)",
				arg);
		break;
	case OPTION_REPORT:
		r = parse_choice("--report", arg, form, &choice);
		o->report = (enum tmem_report_form)(choice + TMEM_REPORT_TEXT);
		break;
	case OPTION_REPORT_FILE:
		o->report_file = arg;
		break;
	case OPTION_EXEC:
		o->exec = true;
		break;
	case OPTION_HELP:
		o->help = true;
		break;
	}
	return r;
}

static int from_letter(int c)
{
	size_t i;

	for (i = 0; i < sizeof(descriptions) / sizeof(*descriptions); i++)
		if (c == descriptions[i].letter)
			return long_options[i].val;
	return c;
}

int tmem_options_parse(int argc, char **argv, struct tmem_run_options *ret)
{
	struct tmem_run_options o = { .swap_dir = "/var/tmp" };
	int c, r;

	opterr = 0;
	optind = 1;
	for (;;) {
		c = getopt_long(argc, argv, "+:m:h", long_options, NULL);
		if (c == -1)
			break;
		if (c == '?' || c == ':')
			return tmem_args_fail("run", c, argv);
		r = parse_one(from_letter(c), optarg, &o);
		if (r)
			return r;
	}
	o.program = argv + optind;
	if (!o.help && !o.limit_bytes)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no memory limit; write `tmem run -m SIZE "
				     "-- PROGRAM', for example -m 512M");
	if (!o.help && !*o.program)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no program; write `tmem run -m SIZE -- "
				     "PROGRAM ARGUMENTS'");
	if (o.report_file && o.report == TMEM_REPORT_AUTO)
		o.report = TMEM_REPORT_TEXT;
	*ret = o;
	return 0;
}

static void print_text(FILE *out, const char *text)
{
	for (; *text; text++) {
		putc(*text, out);
		if (*text == '\n')
			fputs("        ", out);
	}
	putc('\n', out);
}

void tmem_options_print(FILE *out)
{
	size_t i;

	for (i = 0; i < sizeof(descriptions) / sizeof(*descriptions); i++) {
		fputs("  ", out);
		if (descriptions[i].letter)
			fprintf(out, "-%c, ", descriptions[i].letter);
		fprintf(out, "--%s", descriptions[i].name);
		if (descriptions[i].argument)
			fprintf(out, " %s", descriptions[i].argument);
		fputs("\n        ", out);
		print_text(out, descriptions[i].text);
	}
}
