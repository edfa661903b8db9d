/* SPDX-License-Identifier: MIT */
/*
 * Random operations on the page store, beside an oracle (lib/storemodel.h):
 * vectors of stores, loads and invalidations, objects, pools, clones, limits,
 * the states around a fork, or a store that is closed and opened again.
 *
 *	store_model STEPS [SEED]
 *	store_model tier STEPS [SEED]
 *
 * With a tier, its troubles are drawn too: full, broken, slow, lying.
 *
 * The seed draws the limits of each run; the same seed does the same.
 */
#include "fstest.h"
#include "storemodel.h"
#include "testtier.h"

enum {
	STEPS_PER_RUN = 50000,
	CHECK_EVERY = 997
};

static uint32_t draw(void *arg)
{
	return (uint32_t)(rng_next(arg) >> 32);
}

static void run(uint64_t seed, uint64_t steps, bool with_tier)
{
	struct rng rng = { seed };
	/* Now and then so much that pools can learn. */
	uint64_t span = rng_below(&rng, 2) ? 3u << 20 : 12u << 20;
	uint64_t max = TMEM_STORE_MIN_BYTES + rng_below(&rng, span);
	struct storemodel_options o = {
		.limit_bytes = max,
		.max_limit_bytes = max,
		.no_raw = (int)rng_below(&rng, 2),
		/* A tier's pages would not outlive the process. */
		.restartable = rng_below(&rng, 3) == 0 && !with_tier,
		.draw = draw,
		.arg = &rng,
	};
	struct storemodel *m;
	uint64_t i;

	if (with_tier)
		o.tier = testtier_create(3 + (uint32_t)rng_below(&rng, 40),
					 rng_next(&rng));
	m = storemodel_open(&o);
	CHECK(m != NULL);
	for (i = 0; i < steps; i++) {
		storemodel_step(m);
		if (i % CHECK_EVERY == 0)
			storemodel_check(m);
	}
	storemodel_check(m);
	storemodel_close(m);
}

int main(int argc, char **argv)
{
	bool with_tier = argc > 1 && strcmp(argv[1], "tier") == 0;
	uint64_t steps, seed, n;

	argc -= with_tier;
	argv += with_tier;
	steps = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000;
	seed = seed_from(argc, argv, 2);
	for (; steps; steps -= n, seed++) {
		n = steps < STEPS_PER_RUN ? steps : STEPS_PER_RUN;
		run(seed, n, with_tier);
	}
	return 0;
}
