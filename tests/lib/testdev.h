/* SPDX-License-Identifier: MIT */
/*
 * A swap device in RAM that fails on demand: the second implementation of
 * tmem_swapdev_ops, to test the contract and what stands on it.
 *
 * A write completes only at a reap, in an order drawn from the seed; the
 * page is taken from the request at that time, so whoever changes it too
 * early is found out.
 */
#ifndef TESTDEV_H
#define TESTDEV_H

#include "tmem/frontswap.h"

struct testdev;

/* For a result: how many calls go well before one fails; < 0: all do. */
struct testdev_faults {
	long write_result_in; /* done() gets write_result */
	int write_result;
	long write_full_in; /* write() returns -ENOSPC */
	long read_in;	    /* read() returns -EIO */
	bool sticky;	    /* and so do all that follow */
};

struct testdev *testdev_create(uint64_t nr_offsets, uint64_t capacity,
			       unsigned depth, uint64_t seed);
struct tmem_swapdev testdev_device(struct testdev *dev);
void testdev_set_faults(struct testdev *dev,
			const struct testdev_faults *faults);
/* Writes that wait for a reap. */
unsigned testdev_in_flight(struct testdev *dev);

#endif
