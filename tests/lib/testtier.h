/* SPDX-License-Identifier: MIT */
/*
 * A tier in RAM that fails on demand: the third implementation of
 * tmem_tier_ops, to test what stands on the contract.
 *
 * Requests are answered at a poll, in an order drawn from the seed; a write's
 * bytes are taken at that time, so whoever changes them too early is found out.
 * Dropped segments are overwritten with garbage.
 */
#ifndef TESTTIER_H
#define TESTTIER_H

#include "tiers/tier.h"

struct testtier;

/* In 1024ths: how often each comes out. */
struct testtier_mood {
	unsigned write_error;	/* -EIO */
	unsigned write_full;	/* -ENOSPC */
	unsigned write_timeout; /* -ETIMEDOUT, and HELD for some polls */
	unsigned read_error;	/* -EIO */
	unsigned read_garbage;	/* 0, and a bit is wrong */
	unsigned busy;		/* not taken */
	unsigned slow;		/* not answered by a poll */
	bool hold;		/* nothing is answered */
};

extern const struct tmem_tier_ops testtier_ops;

struct testtier *testtier_create(uint32_t nr_segments, uint64_t seed);
void testtier_set(struct testtier *tier, const struct testtier_mood *mood);
/* Those that an -EIO or a wrong bit was given for, so far. */
unsigned long testtier_nr_bad_reads(struct testtier *tier);

#endif
