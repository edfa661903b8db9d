/* SPDX-License-Identifier: MIT */
/*
 * What a store needs to keep a corpus, all of it, by what it may do for that:
 * the same pages in stores of their own, until these have nothing left to do.
 */
#ifndef DENSITY_H
#define DENSITY_H

#include <tmem/stats.h>

#include "bench.h"

enum density_way {
	DENSITY_LZ4,	   /* as stored */
	DENSITY_DICT,	   /* pools with LZ4 dictionaries of their own */
	DENSITY_DICT_ONE,  /* the same, all pages in one pool */
	DENSITY_COLD,	   /* all pages cold, without dictionaries */
	DENSITY_COLD_DICT, /* and with */
	DENSITY_WAYS
};

struct density {
	const char *name;
	const char *text;
	double target; /* of zram-lz4's memory; 0: none */
	struct tmem_stats stats;
	double wall_s; /* of maintenance */
};

/*
 * Fills in all ways.  `parts`, or NULL: a file of bench/make-corpus that says
 * whose the pages are; each program has a pool.  Every page is read back.
 */
void density_measure(const struct bench_corpus *corpus, const char *parts,
		     struct density ret[DENSITY_WAYS]);

#endif
