/* SPDX-License-Identifier: MIT */
/*
 * Random operations on cleancache over a store that is too small, beside an
 * oracle (tests/lib/ccmodel.h).
 *
 *	cleancache_model STEPS [SEED]
 *
 * Every setting that a seed draws is printed; the same seed does the same.
 */
#include "ccmodel.h"
#include "fstest.h"

enum {
	STEPS_PER_RUN = 20000,
	CHECK_EVERY = 256
};

static uint32_t draw(void *arg)
{
	return (uint32_t)(rng_next(arg) >> 32);
}

static uint64_t nr_evicted, nr_runs;

static void run(uint64_t seed, uint64_t steps)
{
	struct rng rng = { seed };
	struct ccmodel_options o = {
		.limit_bytes = (1u << 20) + rng_below(&rng, 3u << 20),
		.faults = rng_below(&rng, 2),
		.draw = draw,
		.arg = &rng,
	};
	struct ccmodel *m;
	struct ccmodel_seen seen;

	o.strikes = o.faults;
	m = ccmodel_open(&o);
	CHECK(m != NULL);
	for (uint64_t i = 1; i <= steps; i++) {
		ccmodel_step(m);
		if (i % CHECK_EVERY == 0)
			ccmodel_check(m);
	}
	seen = ccmodel_seen(m);
	printf("run seed %llu: %llu steps, %llu KiB%s: %llu hits, %llu misses, "
	       "%llu evicted, %llu ignored, %llu errors, %llu disabled\n",
	       (unsigned long long)seed, (unsigned long long)steps,
	       (unsigned long long)o.limit_bytes / 1024,
	       o.faults ? ", faults" : "", (unsigned long long)seen.hits,
	       (unsigned long long)seen.misses,
	       (unsigned long long)seen.evicted,
	       (unsigned long long)seen.ignored,
	       (unsigned long long)seen.errors,
	       (unsigned long long)seen.disabled);
	fflush(stdout);
	ccmodel_close(m);
	nr_evicted += seen.evicted;
	/* It tried what it is for. */
	if (steps == STEPS_PER_RUN) {
		CHECK(seen.hits > 1000 && seen.misses > 1000);
		CHECK(seen.ignored > 100);
		CHECK(!o.faults || (seen.errors > 10 && seen.disabled > 3));
	}
}

int main(int argc, char **argv)
{
	uint64_t steps = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000;
	uint64_t seed = seed_from(argc, argv, 2);

	/* The seed of the first run is the one that was given. */
	for (; steps != 0; seed++) {
		uint64_t n = steps < STEPS_PER_RUN ? steps : STEPS_PER_RUN;

		run(seed, n);
		steps -= n;
		nr_runs++;
	}
	/* How many in a run depends on its limit. */
	CHECK(nr_runs < 5 || nr_evicted > 100);
	return 0;
}
