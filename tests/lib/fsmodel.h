/* SPDX-License-Identifier: MIT */
/*
 * frontswap over a real store and real and faulty devices, beside an oracle
 * that remembers for each page what it must hold.  Driven by random numbers
 * (tests/model) and by fuzzed bytes (tests/fuzz).
 *
 * Type 0 has a swap file, type 1 a device that fails on demand, type 2 none.
 * The oracle of a page is the tag of what was swapped out last, or 0 where
 * nothing may be found.  A load that succeeds must yield exactly that; one
 * that fails is right where the oracle has 0, or while a read fault is armed.
 */
#ifndef FSMODEL_H
#define FSMODEL_H

#include <stdbool.h>
#include <stdint.h>

struct fsmodel;

struct fsmodel_options {
	uint64_t store_limit_bytes;
	uint64_t swap_pages; /* the swap file's, and the faulty device's */
	unsigned nr_offsets; /* of each type */
	bool on_disk;	     /* swap file on disk, else on tmpfs */
	bool no_uring;
	bool writethrough;
	bool exclusive;
	bool faults;	      /* arm faults in backend and device */
	bool forks;	      /* real forks; children are killed or go on */
	unsigned check_every; /* steps between walks of the invariants */
};

/* One operation; any value of any member is valid. */
struct fsmodel_op {
	uint8_t kind;
	uint8_t type;
	uint16_t offset;
	uint32_t arg;
};

struct fsmodel *fsmodel_open(const struct fsmodel_options *options);
void fsmodel_step(struct fsmodel *m, const struct fsmodel_op *op);
/* Ends what is in flight, looks at every page, closes, looks for leaks. */
void fsmodel_close(struct fsmodel *m);

#endif
