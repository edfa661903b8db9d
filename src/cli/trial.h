/* SPDX-License-Identifier: MIT */
/*
 * Trials of `tmem bench`: what it costs to hold given pages in one form.
 *
 * A round of a trial opens a new store, stores all pages in it in order, lets
 * it do its background work, loads those that were accepted in random order,
 * and closes it; its threads share the pages evenly.  The first round also
 * compares every page with what was stored.
 */
#ifndef TMEM_CLI_TRIAL_H
#define TMEM_CLI_TRIAL_H

#include "cli/pages.h"

#include <stdbool.h>
#include <stdint.h>
#include <tmem/stats.h>
#include <tmem/store.h>

enum {
	TMEM_TRIAL_MAX_ROUNDS = 101,
	TMEM_TRIAL_MAX_THREADS = 256
};

/* One line of the table of forms. */
struct tmem_trial_form {
	const char *name;
	const char *text;
	bool copy; /* memcpy to an array and back, instead of a store */
	/* Stored once more, and measured then: with what it has learnt. */
	bool again;
	struct tmem_store_options options; /* but for the limits */
};

struct tmem_trial_input {
	const struct tmem_pages *pages;
	uint32_t *order; /* a random permutation of the pages */
	uint64_t limit_bytes;
	unsigned nr_threads;
};

struct tmem_trial {
	const struct tmem_trial_form *form;
	unsigned nr_rounds;
	/* Of one thread, by the clock; a page offered, a page loaded. */
	double store_ns[TMEM_TRIAL_MAX_ROUNDS];
	double load_ns[TMEM_TRIAL_MAX_ROUNDS];
	/* CPU time of the background work, a page offered. */
	double work_ns[TMEM_TRIAL_MAX_ROUNDS];
	/* Of the first round. */
	uint32_t accepted_pages;
	uint64_t held_bytes;
	uint64_t meta_bytes;	 /* index and headers */
	uint64_t rounding_bytes; /* of slots */
	struct tmem_stats stats;
};

/* One more round.  0, or an exit status after one line. */
int tmem_trial_round(struct tmem_trial *trial,
		     const struct tmem_trial_input *input);

/* Sorts the values. */
double tmem_trial_median(double *values, unsigned nr);

#endif
