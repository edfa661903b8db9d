/* SPDX-License-Identifier: MIT */
/* The swap file of a tree: where it may be, how large, and making it. */
#ifndef TMEM_CLI_SWAP_H
#define TMEM_CLI_SWAP_H

#include "cli/options.h"

struct tmem_swap {
	int fd;		    /* -1: no swap file */
	uint64_t max_pages; /* 0 likewise */
};

/*
 * Checks the directory, decides the size, makes a nameless file.  0, or an
 * exit status after one line on standard error.
 */
int tmem_swap_open(const struct tmem_run_options *options,
		   struct tmem_swap *ret_swap);

#endif
