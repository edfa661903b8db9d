/* SPDX-License-Identifier: MIT */
/* How long faults waited, from the buckets of wire/tree.h. */
#ifndef TMEM_CLI_STALL_H
#define TMEM_CLI_STALL_H

#include "wire/tree.h"

/* Faults in all buckets. */
uint64_t tmem_stall_count(const struct tmem_tree_counters *counters);
/* The shortest wait, in ns, that a bucket is for. */
uint64_t tmem_stall_floor_ns(unsigned bucket);
/*
 * The time in ns that `per_mille` of all faults did not wait longer than,
 * taken to be spread evenly over its bucket, but never longer than the longest
 * that was met; 0 if there was no fault.
 */
uint64_t tmem_stall_percentile_ns(const struct tmem_tree_counters *counters,
				  unsigned per_mille);

#endif
