/* SPDX-License-Identifier: MIT */
/* Waits into buckets, and percentiles out of them against sorted ones. */
#include "base/assert.h"
#include "base/hash.h"
#include "cli/stall.h"

#include <stdlib.h>
#include <string.h>

enum {
	NR_WAITS = 5000
};

static struct tmem_tree_counters c;
static uint64_t waits[NR_WAITS];

static void note(uint64_t ns)
{
	atomic_fetch_add(&c.stall_buckets[tmem_stall_bucket(ns)], 1);
	if (ns > c.stall_max_ns)
		c.stall_max_ns = ns;
}

static void each_bucket_holds_what_it_says(void)
{
	unsigned i;

	TMEM_ASSERT(tmem_stall_bucket(0) == 0);
	TMEM_ASSERT(tmem_stall_bucket(127) == 0);
	TMEM_ASSERT(tmem_stall_bucket(128) == 1);
	TMEM_ASSERT(tmem_stall_bucket(UINT64_MAX) == TMEM_STALL_BUCKETS - 1);
	for (i = 1; i < TMEM_STALL_BUCKETS; i++) {
		TMEM_ASSERT(tmem_stall_bucket(tmem_stall_floor_ns(i)) == i);
		TMEM_ASSERT(tmem_stall_bucket(tmem_stall_floor_ns(i) - 1) ==
			    i - 1);
	}
}

static void no_fault_has_no_percentile(void)
{
	memset(&c, 0, sizeof(c));
	TMEM_ASSERT(tmem_stall_count(&c) == 0);
	TMEM_ASSERT(tmem_stall_percentile_ns(&c, 999) == 0);
}

static void never_longer_than_the_longest(void)
{
	memset(&c, 0, sizeof(c));
	note(1025);
	TMEM_ASSERT(tmem_stall_percentile_ns(&c, 1000) == 1025);
	TMEM_ASSERT(tmem_stall_percentile_ns(&c, 500) <= 1025);
	/* A pager notes the bucket and the longest one after the other. */
	c.stall_max_ns = 0;
	TMEM_ASSERT(tmem_stall_percentile_ns(&c, 1000) >= 1024);
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void percentiles_are_right_within_their_bucket(void)
{
	static const unsigned per_mille[] = { 1, 500, 990, 999, 1000 };
	uint64_t got, want;
	unsigned i;

	memset(&c, 0, sizeof(c));
	for (i = 0; i < NR_WAITS; i++) {
		waits[i] = tmem_hash_word(i) >> (30 + i % 30);
		note(waits[i]);
	}
	TMEM_ASSERT(tmem_stall_count(&c) == NR_WAITS);
	qsort(waits, NR_WAITS, sizeof(*waits), compare);
	for (i = 0; i < sizeof(per_mille) / sizeof(*per_mille); i++) {
		got = tmem_stall_percentile_ns(&c, per_mille[i]);
		want = waits[NR_WAITS * per_mille[i] / 1000 - 1];
		TMEM_ASSERT(tmem_stall_bucket(got) == tmem_stall_bucket(want) ||
			    tmem_stall_bucket(got - 1) ==
				    tmem_stall_bucket(want));
	}
}

int main(void)
{
	each_bucket_holds_what_it_says();
	no_fault_has_no_percentile();
	never_longer_than_the_longest();
	percentiles_are_right_within_their_bucket();
	return 0;
}
