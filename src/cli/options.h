/* SPDX-License-Identifier: MIT */
/* The command line of `tmem run`, as typed and validated values. */
#ifndef TMEM_CLI_OPTIONS_H
#define TMEM_CLI_OPTIONS_H

#include "cli/amount.h"
#include "wire/tree.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum tmem_report_form {
	TMEM_REPORT_AUTO = 0, /* text on a terminal, else none */
	TMEM_REPORT_TEXT,
	TMEM_REPORT_JSON,
	TMEM_REPORT_NONE
};

struct tmem_run_options {
	struct tmem_amount memory;
	uint64_t limit_bytes; /* what `memory` is at the start */
	const char *swap_dir;
	uint64_t swap_max_bytes;
	bool swap_max_given;
	enum tmem_on_full on_full;
	unsigned stall_percent; /* 0: off */
	unsigned stall_seconds;
	uint32_t without; /* bits of 1 << enum tmem_switch */
	enum tmem_report_form report;
	const char *report_file; /* NULL: standard error */
	const char *profile;	 /* NULL: none */
	const char *stats;	 /* FILE or FD; NULL: none */
	uint64_t stats_ns;	 /* from one line to the next */
	bool exec;
	bool help;
	char **program; /* NULL-ended, at least one */
};

/*
 * Stops at the program's name.  0, or an exit status after one line on
 * standard error.
 */
int tmem_options_parse(int argc, char **argv, struct tmem_run_options *ret);
/* The option table as --help shows it. */
void tmem_options_print(FILE *out);

#endif
