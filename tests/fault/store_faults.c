/* SPDX-License-Identifier: MIT */
/*
 * The page store when memory is denied: the n-th mapping fails, for n = 1, 2,
 * 3 ... until the scenario needs no more of them, once and from then on; and
 * the limit strikes, page by page higher, so that every kind of allocation is
 * the one that is denied.  All that twice, the second time with a tier.  After
 * each: the oracle (lib/storemodel.h), the invariants, and nothing left mapped.
 *
 * The same for a store whose pools learn: its trials need more memory at once
 * than anything else; and when it is restartable and opened again.
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
struct learner {
	struct tmem_store_options options;
	struct tmem_store *store;
	struct tmem_backend be;
	tmem_pool_id pool;
	bool there[LEARN_PAGES];
	bool denied; /* its second opening, at first */
};

static void learn(struct learner *l)
{
	uint64_t page[PAGE / 8];
	struct tmem_io io = { .page = page };

	CHECK_EQ(l->be.ops->pool_create(l->be.self, NULL, &l->pool), 0);
	for (io.index = 0; io.index < LEARN_PAGES; io.index++) {
		fill_alike(page, io.index);
		l->be.ops->store(l->be.self, l->pool, &io, 1);
		l->there[io.index] = io.result == 0;
		if (io.index % 100 < 98)
			continue;
		while (tmem_store_maintain(l->store, 1000000000))
			;
		tmem_store_check(l->store);
	}
}

static void load_what_was_learned(struct learner *l)
{
	uint64_t page[PAGE / 8], want[PAGE / 8];
	struct tmem_io io = { .page = page };

	for (io.index = 0; io.index < LEARN_PAGES; io.index++) {
		l->be.ops->load(l->be.self, l->pool, &io, 1);
		CHECK_EQ(io.result, l->there[io.index] ? 0 : TMEM_MISS);
		fill_alike(want, io.index);
		if (l->there[io.index])
			CHECK(memcmp(page, want, PAGE) == 0);
	}
}

/* Opening may be denied its memory, too; then it is as if not tried. */
static void open_again(struct learner *l)
{
	int r;

	tmem_store_close(l->store);
	r = tmem_store_open(&l->options, &l->store);
	if (r < 0) {
		CHECK_EQ(r, -ENOMEM);
		l->denied = true;
		storemodel_maps_arm(0, 0);
		CHECK_EQ(tmem_store_open(&l->options, &l->store), 0);
	}
	l->be = tmem_store_backend(l->store);
	tmem_store_check(l->store);
}

/* Dictionaries that were adopted; *ret_denied: mappings failed. */
static uint64_t try_to_learn(uint64_t limit_bytes, bool restartable,
			     bool *ret_denied)
{
	int fd = restartable ? memfd_create("learn", MFD_CLOEXEC) : -1;
	struct learner l = { .options = { .limit_bytes = limit_bytes,
					  .cool_after_ns = 1,
					  .dict_every_ns = 1,
					  .arena_fd =
						  restartable ? &fd : NULL } };
	struct tmem_stats s = { 0 };

	if (tmem_store_open(&l.options, &l.store) == 0) {
		l.be = tmem_store_backend(l.store);
		learn(&l);
		load_what_was_learned(&l);
		CHECK_EQ(l.be.ops->stats(l.be.self, &s), 0);
		if (restartable) {
			open_again(&l);
			load_what_was_learned(&l);
		}
		tmem_store_close(l.store);
	}
	if (fd >= 0)
		close(fd);
	CHECK_EQ(storemodel_maps_bytes(), 0);
	*ret_denied = l.denied || storemodel_maps_struck();
	return s.dicts_adopted;
}

static void a_store_that_learns_is_denied_memory(uint64_t nr, bool restartable)
{
	uint64_t n, step = (4ull << 20) / nr / 4096 * 4096, adopted = 0;
	bool denied;
	int sticky;

	for (sticky = 0; sticky < 2; sticky++) {
		for (n = 1; n < MAX_MAPS; n++) {
			storemodel_maps_arm(n, sticky);
			adopted += try_to_learn(8u << 20, restartable, &denied);
			if (!denied)
				break;
		}
		CHECK(n > 5 && n < MAX_MAPS);
	}
	CHECK(adopted > 2);
	storemodel_maps_arm(0, 0);
	for (n = 0; n < nr; n++)
		try_to_learn(TMEM_STORE_MIN_BYTES + n * step, restartable,
			     &denied);
}

int main(int argc, char **argv)
{
	uint64_t limits = argc > 1 ? strtoull(argv[1], NULL, 0) : LIMITS;
	int with_tier;

	for (with_tier = 0; with_tier < 2; with_tier++) {
		the_nth_mapping_fails(with_tier);
		the_limit_strikes_everywhere(limits, with_tier);
	}
	limits = limits > 60 ? limits / 4 : 15;
	a_store_that_learns_is_denied_memory(limits, false);
	a_store_that_learns_is_denied_memory(limits, true);
	return 0;
}
