/* SPDX-License-Identifier: MIT */
/*
 * cleancache over a small store, beside an oracle that remembers for each page
 * what may be found.  Driven by random numbers (tests/model), by fuzzed bytes
 * (tests/fuzz) and by a fixed sequence while calls fail (tests/fault).
 *
 * Two front ends, each a client of its own of one store, and *volumes*, what a
 * file system is of: some private to a front end, one shared by both, one
 * shared that the same front end has begun twice.  File systems end and begin
 * at any time; numbers of ended ones go on being used.
 *
 * The oracle of a page is the tag of what was stored last and not invalidated
 * or taken since, or 0.  A load that finds a page must find exactly that; a
 * miss is right at any time (the store evicts), and from then on the oracle
 * says 0: what has missed must miss until the next store.
 */
#ifndef CCMODEL_H
#define CCMODEL_H

#include <stdbool.h>
#include <stdint.h>

struct ccmodel;

/* The next number; at the end of a fuzzer's bytes, zeroes. */
typedef uint32_t ccmodel_draw(void *arg);

struct ccmodel_options {
	uint64_t limit_bytes;
	bool faults;  /* calls of the backend may fail */
	bool strikes; /* and now and then a step sees to that */
	ccmodel_draw *draw;
	void *arg;
};

/* NULL if there was no memory for it. */
struct ccmodel *ccmodel_open(const struct ccmodel_options *options);
/* One operation, compared with the oracle. */
void ccmodel_step(struct ccmodel *m);
/* The invariants, and that the counters are what was done. */
void ccmodel_check(struct ccmodel *m);
/* Looks at all pages a last time. */
void ccmodel_close(struct ccmodel *m);

/* From now on: see faultbackend.h; of the front end with this number. */
void ccmodel_arm(struct ccmodel *m, unsigned front, unsigned long n,
		 unsigned kinds);
void ccmodel_set_error(struct ccmodel *m, int error, unsigned how, bool sticky);
unsigned long ccmodel_struck(struct ccmodel *m, unsigned front);

/* What it came across, for whoever wants to see that it tried anything. */
struct ccmodel_seen {
	uint64_t hits, misses, evicted, errors, disabled, ignored;
};
struct ccmodel_seen ccmodel_seen(struct ccmodel *m);

#endif
