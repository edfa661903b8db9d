/* SPDX-License-Identifier: MIT */
/*
 * Would it fit?  A sample of a program's pages, stored as the pager does it,
 * in a store that is smaller than the real one by as much as the sample is
 * smaller than all pages.
 *
 * What the pager itself takes besides its store is counted too: a part at once
 * and a part for each page that it knows.
 */
#ifndef TMEM_CLI_FIT_H
#define TMEM_CLI_FIT_H

#include "cli/pages.h"

#include <stdbool.h>
#include <stdint.h>

struct tmem_fit_input {
	const struct tmem_pages *sample;
	uint64_t pages;	      /* that can be paged, all of them */
	uint64_t fixed_bytes; /* what stays resident whatever is done */
};

/* The sample as a whole. */
struct tmem_fit_sample {
	double ratio; /* of what is accepted; the store's fixed part apart */
	double same_percent;
	double hopeless_percent;
};

/* One budget. */
struct tmem_fit {
	bool fits;	     /* without a swap file */
	double resident;     /* part of the pages, 0 to 1 */
	uint64_t swap_bytes; /* what the swap file would take; 0: it fits */
};

/* 0, or -errno (no memory). */
int tmem_fit_sample(const struct tmem_fit_input *input,
		    struct tmem_fit_sample *ret);
int tmem_fit_budget(const struct tmem_fit_input *input, uint64_t limit_bytes,
		    struct tmem_fit *ret);

#endif
