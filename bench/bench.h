/* SPDX-License-Identifier: MIT */
/*
 * What the benches share: the corpus, clocks, medians.  Each ends the program,
 * with a line that says why, if it can't do its work.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

/* 4 KiB pages of the memory of real programs (bench/make-corpus). */
struct bench_corpus {
	char *pages;
	unsigned nr;
	unsigned *order; /* a random permutation, always the same */
};

/* From a file; path NULL: made on the spot, of nr_pages. */
void bench_read_corpus(struct bench_corpus *corpus, const char *path,
		       unsigned nr_pages);
/*
 * Makes a corpus file and, if parts is not NULL, one of what it is made of:
 * "name pages" lines, in order.  The caller unlinks them.
 */
void bench_make_corpus(char *path, char *parts, unsigned nr_pages);
enum {
	BENCH_PATH_BYTES = 256
};
/*
 * Pages made up: 32 records of 128 bytes each, pointers that agree and small
 * numbers that differ.  LZ4 makes 300 to 700 bytes of one.  Bytes 40 to 47 are
 * for the caller.
 */
void bench_heap_pages(char *pages, unsigned nr);
/* Seconds. */
double bench_now(clockid_t clock);
/* Sorts the values. */
double bench_median(double *values, unsigned nr);
/* Of each of nr_fields, all of them doubles, over so many structs. */
void bench_medians(const void *structs, unsigned nr, unsigned nr_fields,
		   void *ret_struct);
/* Zeroed anonymous memory without huge pages. */
void *bench_map(size_t bytes);
/* Prints what failed, and errno. */
_Noreturn void bench_die(const char *what);

/*
 * One option, and where it goes.  Names are as in the line on how to use it:
 * "--pages N", "--json", or "CORPUS" for an argument.
 */
struct bench_option {
	const char *name;
	bool *flag;
	const char **text;
	unsigned *number;
	unsigned min, max; /* of a number; max 0: none */
};
/* What is not given stays as it is; what is wrong ends the program. */
void bench_take_options(int argc, char **argv,
			const struct bench_option *options, unsigned nr);
#define BENCH_TAKE_OPTIONS(argc, argv, options)       \
	bench_take_options((argc), (argv), (options), \
			   sizeof(options) / sizeof((options)[0]))

#endif
