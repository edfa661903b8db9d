/* SPDX-License-Identifier: MIT */
/*
 * Random operations on frontswap over the store and swap devices, beside an
 * oracle (tests/lib/fsmodel.h).
 *
 *	frontswap_model STEPS [SEED]
 *
 * Every setting that a seed draws is printed; the same seed does the same.
 */
#include "fsmodel.h"
#include "fstest.h"

enum {
	STEPS_PER_RUN = 20000
};

static void run(uint64_t seed, uint64_t steps)
{
	struct rng rng = { seed };
	struct fsmodel_options o = {
		.store_limit_bytes = (1u << 20) + rng_below(&rng, 2u << 20),
		.swap_pages = 64 + rng_below(&rng, 1000),
		.nr_offsets = 32u << rng_below(&rng, 6),
		.on_disk = rng_below(&rng, 8) == 0,
		.no_uring = rng_below(&rng, 3) == 0,
		.writethrough = rng_below(&rng, 5) == 0,
		.exclusive = rng_below(&rng, 5) == 0,
		.faults = rng_below(&rng, 2),
		.forks = rng_below(&rng, 3) == 0,
		.check_every = 256,
	};
	struct fsmodel *m;

	printf("run seed %llu: %llu steps, %u offsets, %llu swap pages"
	       "%s%s%s%s%s%s\n",
	       (unsigned long long)seed, (unsigned long long)steps,
	       o.nr_offsets, (unsigned long long)o.swap_pages,
	       o.on_disk ? ", disk" : "", o.no_uring ? ", pwrite" : "",
	       o.writethrough ? ", writethrough" : "",
	       o.exclusive ? ", exclusive" : "", o.faults ? ", faults" : "",
	       o.forks ? ", forks" : "");
	fflush(stdout);
	m = fsmodel_open(&o);
	for (uint64_t i = 0; i < steps; i++) {
		uint64_t r = rng_next(&rng);
		struct fsmodel_op op = { (uint8_t)r, (uint8_t)(r >> 8),
					 (uint16_t)(r >> 16),
					 (uint32_t)(r >> 32) };

		fsmodel_step(m, &op);
	}
	fsmodel_close(m);
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
	}
	return 0;
}
