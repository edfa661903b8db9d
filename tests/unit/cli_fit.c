/* SPDX-License-Identifier: MIT */
/* Pages with known content, in budgets where the answer is known. */
#include "base/assert.h"
#include "cli/fit.h"

#include <stdlib.h>
#include <string.h>

enum {
	NR = 4096
};

static const uint64_t all = 16ull * NR;
static struct tmem_pages pages;

/* So many of sixteen are noise, the rest zeros. */
static struct tmem_fit_input input_of(unsigned noisy)
{
	uint32_t i;
	size_t at;

	for (i = 0; i < NR; i++) {
		char *page = tmem_pages_at(&pages, i);

		memset(page, 0, TMEM_PAGE_SIZE);
		for (at = 0; i % 16 < noisy && at < TMEM_PAGE_SIZE; at++)
			page[at] = (char)random();
	}
	return (struct tmem_fit_input){ .sample = &pages, .pages = all };
}

static double part_of(const struct tmem_fit_input *input, double part,
		      struct tmem_fit *ret)
{
	uint64_t bytes = input->pages * TMEM_PAGE_SIZE + input->fixed_bytes;

	TMEM_ASSERT(
		!tmem_fit_budget(input, (uint64_t)((double)bytes * part), ret));
	return ret->resident;
}

static void the_sample_is_what_it_is(void)
{
	struct tmem_fit_input input = input_of(8);
	struct tmem_fit_sample s;

	TMEM_ASSERT(!tmem_fit_sample(&input, &s));
	TMEM_ASSERT(s.same_percent > 49.9 && s.same_percent < 50.1);
	TMEM_ASSERT(s.hopeless_percent > 49.9 && s.hopeless_percent < 50.1);
	TMEM_ASSERT(s.ratio > 30);
	input = input_of(16);
	TMEM_ASSERT(!tmem_fit_sample(&input, &s));
	TMEM_ASSERT(s.hopeless_percent == 100 && s.ratio == 0);
}

static void noise_stays_and_zeros_go(void)
{
	struct tmem_fit_input input = input_of(8);
	struct tmem_fit fit;

	/* At 75 % the noise and half of the zeros stay, less what it costs. */
	TMEM_ASSERT(part_of(&input, 0.75, &fit) > 0.6 && fit.resident < 0.75);
	TMEM_ASSERT(fit.fits && !fit.swap_bytes);
	part_of(&input, 0.40, &fit);
	TMEM_ASSERT(!fit.fits);
	TMEM_ASSERT(fit.swap_bytes > all / 20 * TMEM_PAGE_SIZE);
	TMEM_ASSERT(fit.swap_bytes < all / 5 * TMEM_PAGE_SIZE);
	TMEM_ASSERT(fit.resident < 0.4);
}

static void a_sample_speaks_for_many(void)
{
	struct tmem_fit_input input = input_of(4);
	struct tmem_fit one, many;

	part_of(&input, 0.6, &one);
	input.pages = 64 * all;
	part_of(&input, 0.6, &many);
	TMEM_ASSERT(one.fits && many.fits);
	/* Fixed costs weigh less. */
	TMEM_ASSERT(many.resident >= one.resident);
	TMEM_ASSERT(many.resident < one.resident + 0.1);
}

static void what_stays_anyway_leaves_less_room(void)
{
	struct tmem_fit_input input = input_of(4);
	struct tmem_fit fit;

	input.fixed_bytes = input.pages * TMEM_PAGE_SIZE;
	TMEM_ASSERT(part_of(&input, 0.9, &fit) < 0.8);
	TMEM_ASSERT(fit.fits);
	/* Not even the fixed part. */
	TMEM_ASSERT(part_of(&input, 0.4, &fit) == 0);
	TMEM_ASSERT(!fit.fits);
	TMEM_ASSERT(fit.swap_bytes <= input.pages * TMEM_PAGE_SIZE);
}

int main(void)
{
	TMEM_ASSERT(!tmem_pages_open(NR, &pages));
	pages.nr = NR;
	the_sample_is_what_it_is();
	noise_stays_and_zeros_go();
	a_sample_speaks_for_many();
	what_stays_anyway_leaves_less_room();
	tmem_pages_close(&pages);
	return 0;
}
