/* SPDX-License-Identifier: MIT */
/*
 * The page store when memory is denied: the n-th mapping fails, for n = 1, 2,
 * 3 ... until the scenario needs no more of them, once and from then on; and
 * the limit strikes, page by page higher, so that every kind of allocation is
 * the one that is denied.  All that twice, the second time with a tier.  After
 *each: the oracle (lib/storemodel.h), the invariants, and nothing left mapped.
 *
 * The same for a store whose pools learn: its trials need more memory at once
 * than anything else.
 *
 *	store_faults [LIMITS]
 */
#include <tmem/stats.h>

#include "fstest.h"
#include "storemodel.h"
#include "testtier.h"

enum {
	STEPS = 1500,
	MAX_MAPS = 1000,
	LIMITS = 200,
	LEARN_PAGES = 500
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

/* Words that all pages draw from the same few hundred. */
static void fill_alike(uint64_t *page, unsigned key)
{
	struct rng rng = { key };
	unsigned i, k;

	for (i = 0; i < PAGE / 64; i++) {
		struct rng phrase = { 1 + rng_below(&rng, 200) };

		for (k = 0; k < 8; k++)
			page[i * 8 + k] = rng_next(k ? &phrase : &rng);
	}
}

/* A store that learns, cools and compacts; what it accepts it has. */
static struct tmem_stats learn(uint64_t limit_bytes)
{
	struct tmem_store_options o = { .limit_bytes = limit_bytes,
					.cool_after_ns = 1,
					.dict_every_ns = 1 };
	uint64_t page[PAGE / 8], want[PAGE / 8];
	struct tmem_io io = { .page = page };
	struct tmem_stats s = { 0 };
	bool there[LEARN_PAGES];
	struct tmem_backend be;
	struct tmem_store *store;
	tmem_pool_id pool;

	if (tmem_store_open(&o, &store) < 0)
		return s;
	be = tmem_store_backend(store);
	CHECK_EQ(be.ops->pool_create(be.self, NULL, &pool), 0);
	for (io.index = 0; io.index < LEARN_PAGES; io.index++) {
		fill_alike(page, io.index);
		be.ops->store(be.self, pool, &io, 1);
		there[io.index] = io.result == 0;
		if (io.index % 100 < 98)
			continue;
		while (tmem_store_maintain(store, 1000000000))
			;
		tmem_store_check(store);
	}
	for (io.index = 0; io.index < LEARN_PAGES; io.index++) {
		be.ops->load(be.self, pool, &io, 1);
		CHECK_EQ(io.result, there[io.index] ? 0 : TMEM_MISS);
		fill_alike(want, io.index);
		if (there[io.index])
			CHECK(memcmp(page, want, PAGE) == 0);
	}
	CHECK_EQ(be.ops->stats(be.self, &s), 0);
	tmem_store_close(store);
	CHECK_EQ(storemodel_maps_bytes(), 0);
	return s;
}

static void a_store_that_learns_is_denied_memory(uint64_t nr)
{
	uint64_t n, step = (4ull << 20) / nr / 4096 * 4096, adopted = 0;
	int sticky;

	for (sticky = 0; sticky < 2; sticky++) {
		for (n = 1; n < MAX_MAPS; n++) {
			storemodel_maps_arm(n, sticky);
			adopted += learn(8u << 20).dicts_adopted;
			if (!storemodel_maps_struck())
				break;
		}
		CHECK(n > 5 && n < MAX_MAPS);
	}
	CHECK(adopted > 2);
	storemodel_maps_arm(0, 0);
	for (n = 0; n < nr; n++)
		learn(TMEM_STORE_MIN_BYTES + n * step);
}

int main(int argc, char **argv)
{
	uint64_t limits = argc > 1 ? strtoull(argv[1], NULL, 0) : LIMITS;
	int with_tier;

	for (with_tier = 0; with_tier < 2; with_tier++) {
		the_nth_mapping_fails(with_tier);
		the_limit_strikes_everywhere(limits, with_tier);
	}
	a_store_that_learns_is_denied_memory(limits > 60 ? limits / 4 : 15);
	return 0;
}
