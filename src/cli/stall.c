/* SPDX-License-Identifier: MIT */
/*
 * A bucket is as wide as its floor, so a percentile is off by a factor of two
 * at the most; mostly by much less, as faults are many and of few kinds.
 */
#include "cli/stall.h"

static uint64_t get(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

uint64_t tmem_stall_count(const struct tmem_tree_counters *counters)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < TMEM_STALL_BUCKETS; i++)
		sum += get(&counters->stall_buckets[i]);
	return sum;
}

uint64_t tmem_stall_floor_ns(unsigned bucket)
{
	return bucket ? 1ull << (bucket + TMEM_STALL_FIRST_LOG2 - 1) : 0;
}

uint64_t tmem_stall_percentile_ns(const struct tmem_tree_counters *counters,
				  unsigned per_mille)
{
	uint64_t max = get(&counters->stall_max_ns), floor, width, ns, n;
	double rank = (double)tmem_stall_count(counters) * per_mille / 1000;
	unsigned i;

	for (i = 0; i < TMEM_STALL_BUCKETS; i++) {
		n = get(&counters->stall_buckets[i]);
		if (n && rank <= (double)n) {
			floor = tmem_stall_floor_ns(i);
			width = tmem_stall_floor_ns(i + 1) - floor;
			ns = floor +
			     (uint64_t)((double)width * rank / (double)n);
			return max && ns > max ? max : ns;
		}
		rank -= (double)n;
	}
	return max;
}
