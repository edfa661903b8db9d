/* SPDX-License-Identifier: MIT */
/* The policy for poorly compressible pages: core/policy.h says what it is. */
#include "core/policy.h"

#include "fstest.h"

static void thresholds_fall_as_the_store_fills(void)
{
	uint64_t limit = 1000000007, held;
	unsigned max = TMEM_POLICY_MAX_LENGTH, now;

	CHECK_EQ(tmem_policy_max_length(0, limit), PAGE * 7 / 8);
	CHECK_EQ(tmem_policy_max_length(limit / 2, limit), PAGE * 7 / 8);
	CHECK_EQ(tmem_policy_max_length(limit, limit), PAGE * 5 / 8);
	CHECK_EQ(tmem_policy_max_length(2 * limit, limit), PAGE * 5 / 8);
	for (held = 0; held < limit; held += limit / 97) {
		now = tmem_policy_max_length(held, limit);
		CHECK(now <= max && now >= PAGE * 5 / 8);
		CHECK_EQ(tmem_policy_takes_raw(held, limit), held <= limit / 2);
		max = now;
	}
	CHECK(max < PAGE * 5 / 8 + 32);
	/* No overflow with limits that nobody has. */
	CHECK_EQ(tmem_policy_max_length(1ull << 50, 1ull << 50), PAGE * 5 / 8);
}

static void a_hopeless_page_is_known_again_with_its_length(void)
{
	static struct tmem_policy policy;
	_Alignas(8) char page[PAGE], other[PAGE];
	uint64_t sample;

	page_fill(page, 2);
	page_fill(other, 5);
	sample = tmem_policy_sample(page);
	CHECK_EQ(sample, tmem_policy_sample(page));
	CHECK(!tmem_policy_is_hopeless(&policy, sample, 2560));
	tmem_policy_remember(&policy, sample, 3000);
	CHECK(tmem_policy_is_hopeless(&policy, sample, 2560));
	CHECK(tmem_policy_is_hopeless(&policy, sample, 2992));
	/* A store that takes more is worth another try. */
	CHECK(!tmem_policy_is_hopeless(&policy, sample, 3584));
	CHECK(!tmem_policy_is_hopeless(&policy, tmem_policy_sample(other),
				       2560));
}

static void old_entries_make_room_for_new_ones(void)
{
	static struct tmem_policy policy;
	struct rng rng = { 1 };
	uint64_t first = rng_next(&rng);
	unsigned i;

	tmem_policy_remember(&policy, first, 3000);
	for (i = 0; i < TMEM_POLICY_ENTRIES * 20; i++)
		tmem_policy_remember(&policy, rng_next(&rng), 3000);
	CHECK(!tmem_policy_is_hopeless(&policy, first, 2560));
}

int main(void)
{
	RUN(thresholds_fall_as_the_store_fills);
	RUN(a_hopeless_page_is_known_again_with_its_length);
	RUN(old_entries_make_room_for_new_ones);
	return 0;
}
