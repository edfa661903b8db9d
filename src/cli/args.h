/* SPDX-License-Identifier: MIT */
/*
 * What all subcommands do with their arguments.  Each function returns 0, or
 * an exit status after one line on standard error.
 */
#ifndef TMEM_CLI_ARGS_H
#define TMEM_CLI_ARGS_H

#include <stdint.h>

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
/*
 * After getopt_long returned '?' or ':' for "tmem <command>"; opterr must be
 * 0 and the letters begin with a colon (after a plus).
 */
int tmem_args_fail(const char *command, int c, char **argv);

#endif
