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
#include <unistd.h>

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
	if (i > 2)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s %s: not a choice; write %s, %s or %s",
				     option, text, choices[0], choices[1],
				     choices[2]);
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "%s %s: not a choice; write %s or %s", option,
			     text, choices[0], choices[1]);
}

static int parse_stall(const char *arg, struct tmem_run_options *o)
{
	if (tmem_stall_parse(arg, &o->stall_percent, &o->stall_seconds) == 0)
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "--max-stall %s: not PCT/SECONDS; write for "
			     "example 60/30 (1 to 100, 1 to 3600)",
			     arg);
}

static int parse_switch(int id, const char *arg, struct tmem_run_options *o)
{
	static const struct {
		const char *name;
		int id;
		enum tmem_switch what;
	} switches[] = {
		{ "--read-ahead", OPTION_READ_AHEAD, TMEM_READ_AHEAD },
		{ "--heat", OPTION_HEAT, TMEM_HEAT },
		{ "--keep-poor", OPTION_KEEP_POOR, TMEM_KEEP_POOR },
		{ "--meter", OPTION_METER, TMEM_METER },
		{ "--cool", OPTION_COOL, TMEM_COOL },
	};
	static const char *const on_off[] = { "on", "off", NULL };
	int off = 0, r;
	size_t i = 0;

	while (switches[i].id != id)
		i++;
	r = parse_choice(switches[i].name, arg, on_off, &off);
	o->without &= ~(1u << switches[i].what);
	o->without |= (uint32_t)off << switches[i].what;
	return r;
}

static int parse_one(int id, const char *arg, struct tmem_run_options *o)
{
	static const char *const full[] = { "grow", "pause", "term", NULL };
	static const char *const form[] = { "text", "json", "none", NULL };
	int choice = 0, r = 0;

	switch (id) {
	case OPTION_MEMORY:
		return tmem_amount_parse(arg, &o->memory);
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
		return parse_stall(arg, o);
	case OPTION_READ_AHEAD:
	case OPTION_HEAT:
	case OPTION_KEEP_POOR:
	case OPTION_METER:
	case OPTION_COOL:
		return parse_switch(id, arg, o);
	case OPTION_REPORT:
		r = parse_choice("--report", arg, form, &choice);
		o->report = (enum tmem_report_form)(choice + TMEM_REPORT_TEXT);
		break;
	case OPTION_REPORT_FILE:
		o->report_file = arg;
		break;
	case OPTION_PROFILE:
		o->profile = arg;
		break;
	case OPTION_STATS:
		o->stats = arg;
		break;
	case OPTION_INTERVAL:
		return tmem_args_interval("--interval", arg, &o->stats_ns);
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

static int parse_letter(void *options, int c, const char *arg)
{
	return parse_one(from_letter(c), arg, options);
}

/* What can be asked for only once all is known. */
static int finish(struct tmem_run_options *o)
{
	char text[8];

	if (!o->memory.kind)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no memory limit; write `tmem run -m SIZE "
				     "-- PROGRAM', for example -m 512M");
	if (!*o->program)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no program; write `tmem run -m SIZE -- "
				     "PROGRAM ARGUMENTS'");
	if (o->stats_ns && !o->stats)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--interval: without --stats; name a file "
				     "or descriptor by --stats");
	if (!o->stats_ns)
		o->stats_ns = 1000000000;
	if (o->report_file && o->report == TMEM_REPORT_AUTO)
		o->report = TMEM_REPORT_TEXT;
	o->limit_bytes = tmem_amount_bytes(&o->memory, "", getpid(), 0);
	/* A size was looked at already. */
	snprintf(text, sizeof(text), "%u%%", (unsigned)o->memory.value % 1000);
	return tmem_amount_check(text, o->limit_bytes);
}

int tmem_options_parse(int argc, char **argv, struct tmem_run_options *ret)
{
	static const struct tmem_args args = { "run", "+:m:h", long_options,
					       parse_letter };
	struct tmem_run_options o = { .swap_dir = "/var/tmp" };
	int r = tmem_args_take(&args, argc, argv, &o);

	o.program = argv + optind;
	if (!r && !o.help)
		r = finish(&o);
	if (!r)
		*ret = o;
	return r;
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
