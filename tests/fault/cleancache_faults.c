/* SPDX-License-Identifier: MIT */
/*
 * cleancache when what it stands on fails: the n-th call of the backend, for
 * n = 1, 2, 3 ... until the scenario needs no more of them, in every way and
 * with every error, once and from then on; the n-th mapping of the store
 * below; the mapping of the front end itself.  After each: the oracle
 * (lib/ccmodel.h), the invariants, nothing left mapped.
 *
 *	cleancache_faults [STEP]
 *
 * STEP: every so many n only.
 */
#include "ccmodel.h"
#include "faultbackend.h"
#include "faultsys.h"
#include "fstest.h"
#include "storemodel.h"
#include "tmem/cleancache.h"

enum {
	STEPS = 250,
	MAX_CALLS = 10000,
	MAX_MAPS = 1000
};

struct totals {
	uint64_t errors, disabled;
};

static uint32_t draw(void *arg)
{
	return (uint32_t)(rng_next(arg) >> 32);
}

static struct ccmodel *open_model(struct rng *rng, bool faults)
{
	struct ccmodel_options o = {
		.limit_bytes = 1u << 20,
		.faults = faults,
		.draw = draw,
		.arg = rng,
	};

	*rng = (struct rng){ 7 };
	return ccmodel_open(&o);
}

/* Everything once over: false if the n-th call was never made. */
static bool call_fails(unsigned long n, int error, unsigned how, bool sticky,
		       struct totals *totals)
{
	struct rng rng;
	struct ccmodel *m = open_model(&rng, true);
	struct ccmodel_seen seen;
	bool struck;

	CHECK(m != NULL);
	ccmodel_set_error(m, error, how, sticky);
	ccmodel_arm(m, 0, n, FAULT_ALL);
	for (unsigned i = 0; i < STEPS; i++)
		ccmodel_step(m);
	struck = ccmodel_struck(m, 0) != 0;
	ccmodel_check(m);
	seen = ccmodel_seen(m);
	totals->errors += seen.errors;
	totals->disabled += seen.disabled;
	ccmodel_close(m);
	return struck;
}

static void the_nth_call_fails(unsigned long step)
{
	static const int errors[] = { -EIO, -ENOENT, -ENOMEM, -EPIPE };
	struct totals totals = { 0 };

	for (unsigned i = 0; i < FAULT_HOWS * 2; i++) {
		unsigned long n = 1;

		while (n < MAX_CALLS && call_fails(n, errors[n / step % 4],
						   i / 2, i % 2, &totals))
			n += step;
		CHECK(n > STEPS / 4 && n < MAX_CALLS);
	}
	printf("%llu errors, %llu file systems disabled\n",
	       (unsigned long long)totals.errors,
	       (unsigned long long)totals.disabled);
	CHECK(totals.errors > 100 && totals.disabled > 20);
}

/* False if not even the store could be opened. */
static bool maps_fail(void)
{
	struct rng rng;
	struct ccmodel *m = open_model(&rng, false);

	if (!m)
		return false;
	for (unsigned i = 0; i < STEPS; i++)
		ccmodel_step(m);
	ccmodel_check(m);
	ccmodel_close(m);
	return true;
}

static void the_nth_mapping_of_the_store_fails(void)
{
	unsigned opened = 0;

	for (int sticky = 0; sticky < 2; sticky++) {
		unsigned long n;

		for (n = 1; n < MAX_MAPS; n++) {
			storemodel_maps_arm(n, sticky);
			opened += maps_fail();
			CHECK_EQ(storemodel_maps_bytes(), 0);
			if (!storemodel_maps_struck())
				break;
		}
		CHECK(n > 3 && n < MAX_MAPS);
	}
	CHECK(opened > 2);
	storemodel_maps_arm(0, 0);
}

static void no_memory_for_the_front_end(void)
{
	struct tmem_cleancache *cc = NULL;

	faultsys_arm(1, -ENOMEM, 0);
	CHECK_EQ(tmem_cleancache_open(tmem_backend_refusing(), &cc), -ENOMEM);
	CHECK_EQ(faultsys_struck(), 1);
	CHECK(!cc);
	faultsys_arm(0, 0, 0);
	CHECK_EQ(tmem_cleancache_open(tmem_backend_refusing(), &cc), 0);
	tmem_cleancache_close(cc);
}

int main(int argc, char **argv)
{
	unsigned long step = argc > 1 ? strtoul(argv[1], NULL, 0) : 1;

	the_nth_call_fails(step);
	the_nth_mapping_of_the_store_fails();
	no_memory_for_the_front_end();
	return 0;
}
