/* SPDX-License-Identifier: MIT */
/*
 * The page store when memory is denied: the n-th mapping fails, for n = 1, 2,
 * 3 ... until the scenario needs no more of them, once and from then on; and
 * the limit strikes, page by page higher, so that every kind of allocation is
 * the one that is denied.  All that twice, the second time with a tier.  After
 *each: the oracle (lib/storemodel.h), the invariants, and nothing left mapped.
 *
 *	store_faults [LIMITS]
 */
#include "fstest.h"
#include "storemodel.h"
#include "testtier.h"

enum {
	STEPS = 1500,
	MAX_MAPS = 1000,
	LIMITS = 200
};

static uint32_t draw(void *arg)
{
	return (uint32_t)(rng_next(arg) >> 32);
}

/* False if the store could not even be opened. */
static bool scenario(uint64_t limit_bytes, uint64_t max_limit_bytes,
		     bool with_tier)
{
	struct rng rng = { 7 };
	struct storemodel_options o = {
		.limit_bytes = limit_bytes,
		.max_limit_bytes = max_limit_bytes,
		.draw = draw,
		.arg = &rng,
	};
	struct storemodel *m;
	unsigned i;

	if (with_tier)
		o.tier = testtier_create(12, 7);
	m = storemodel_open(&o);
	for (i = 0; m && i < STEPS; i++) {
		storemodel_step(m);
		if (i % 100 == 0)
			storemodel_check(m);
	}
	if (m) {
		storemodel_check(m);
		storemodel_close(m);
	}
	CHECK_EQ(storemodel_maps_bytes(), 0);
	return m != NULL;
}

static void the_nth_mapping_fails(bool with_tier)
{
	unsigned long n, opened = 0;
	int sticky;

	for (sticky = 0; sticky < 2; sticky++) {
		for (n = 1; n < MAX_MAPS; n++) {
			storemodel_maps_arm(n, sticky);
			opened += scenario(8u << 20, 8u << 20, with_tier);
			if (!storemodel_maps_struck())
				break;
		}
		/* Chunks of data and metadata beyond what opening needs. */
		CHECK(n > 5 && n < MAX_MAPS);
	}
	CHECK(opened > 4);
}

static void the_limit_strikes_everywhere(uint64_t nr, bool with_tier)
{
	uint64_t n;

	storemodel_maps_arm(0, 0);
	for (n = 0; n < nr; n++)
		CHECK(scenario(TMEM_STORE_MIN_BYTES + n * 4096,
			       TMEM_STORE_MIN_BYTES + n * 4096, with_tier));
}

int main(int argc, char **argv)
{
	uint64_t limits = argc > 1 ? strtoull(argv[1], NULL, 0) : LIMITS;
	int with_tier;

	for (with_tier = 0; with_tier < 2; with_tier++) {
		the_nth_mapping_fails(with_tier);
		the_limit_strikes_everywhere(limits, with_tier);
	}
	return 0;
}
