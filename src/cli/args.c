/* SPDX-License-Identifier: MIT */
/* One line for each thing that can be wrong with an argument. */
#include "cli/args.h"

#include "cli/cli.h"
#include "cli/size.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

int tmem_args_size(const char *option, const char *text, uint64_t *ret_bytes)
{
	int r = tmem_size_parse(text, ret_bytes);

	if (r == -ERANGE)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s %s: larger than any memory; write "
				     "for example 512M or 1.5G",
				     option, text);
	if (r < 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s %s: not a size; write for example "
				     "512M, 1.5G or a number of bytes",
				     option, text);
	return 0;
}

int tmem_args_number(const char *option, const char *text, uint64_t min,
		     uint64_t max, uint64_t *ret_value)
{
	if (tmem_number_parse(text, min, max, ret_value) == 0)
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "%s %s: not a number that can be; write one "
			     "from %" PRIu64 " to %" PRIu64,
			     option, text, min, max);
}

int tmem_args_interval(const char *option, const char *text, uint64_t *ret_ns)
{
	if (tmem_interval_parse(text, ret_ns) == 0)
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "%s %s: not a time that can be; write for "
			     "example 1s or 500ms (0.1 s to 3600 s)",
			     option, text);
}

/* What getopt_long returned '?' or ':' for. */
static int fail(const char *command, int c, char **argv)
{
	const char *where = argv[optind - 1];
	const char *what = c == ':' ? "needs an argument" : "unknown option";
	char letter[3] = { '-', (char)optopt, '\0' };

	if (c == '?' && optopt >= TMEM_ARGS_LONG)
		what = "takes no argument";
	/* In a cluster of letters only getopt knows which one it was. */
	if (strncmp(where, "--", 2) != 0 && optopt > 0 &&
	    optopt < TMEM_ARGS_LONG)
		where = letter;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "%s: %s; `tmem %s --help' lists the options",
			     where, what, command);
}

int tmem_args_take(const struct tmem_args *args, int argc, char **argv,
		   void *options)
{
	int c, r;

	opterr = 0;
	optind = 1;
	for (;;) {
		c = getopt_long(argc, argv, args->letters, args->table, NULL);
		if (c == -1)
			return 0;
		if (c == '?' || c == ':')
			return fail(args->command, c, argv);
		r = args->take(options, c, optarg);
		if (r)
			return r;
	}
}
