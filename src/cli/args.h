/* SPDX-License-Identifier: MIT */
/*
 * What all subcommands do with their arguments.  Each function returns 0, or
 * an exit status after one line on standard error.
 */
#ifndef TMEM_CLI_ARGS_H
#define TMEM_CLI_ARGS_H

#include <stdint.h>

struct option;

enum {
	/* Long options without a letter have values above every letter. */
	TMEM_ARGS_LONG = 0x1000
};

int tmem_args_size(const char *option, const char *text, uint64_t *ret_bytes);
/* From min to max. */
int tmem_args_number(const char *option, const char *text, uint64_t min,
		     uint64_t max, uint64_t *ret_value);
/* See tmem_interval_parse(). */
int tmem_args_interval(const char *option, const char *text, uint64_t *ret_ns);

struct tmem_args {
	const char *command; /* "tmem <command>" */
	/* As for getopt_long(); a colon first, after a plus if there is one. */
	const char *letters;
	const struct option *table;
	/* One option.  Not 0: no more are looked at. */
	int (*take)(void *options, int c, const char *arg);
};

/* Takes all options; what is left then begins at argv[optind]. */
int tmem_args_take(const struct tmem_args *args, int argc, char **argv,
		   void *options);

#endif
