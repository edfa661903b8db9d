/* SPDX-License-Identifier: MIT */
/* Trials with one thread and many, and the pages they are made with. */
#include "base/assert.h"
#include "cli/trial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	NR = 1600
};

static const struct tmem_trial_form automatic = { .name = "auto" };
static const struct tmem_trial_form refusing = { .name = "lz4",
						 .options = { .no_raw = 1 } };
static const struct tmem_trial_form learning = {
	.name = "dict", .again = true, .options = { .dict_every_ns = 1 }
};
static const struct tmem_trial_form cooling = {
	.name = "cold", .options = { .cool_after_ns = 1 }
};
static const struct tmem_trial_form copying = { .name = "copy", .copy = true };

static void the_built_in_pages_are_always_the_same(void)
{
	struct tmem_pages a, b;

	TMEM_ASSERT(!tmem_pages_built_in(NR, &a));
	TMEM_ASSERT(!tmem_pages_built_in(NR / 2, &b));
	TMEM_ASSERT(a.nr == NR && b.nr == NR / 2);
	TMEM_ASSERT(!memcmp(a.bytes, b.bytes, (size_t)b.nr * TMEM_PAGE_SIZE));
	tmem_pages_close(&a);
	tmem_pages_close(&b);
	tmem_pages_close(&b);
}

static void an_order_has_every_page_once(void)
{
	static uint32_t order[NR];
	static bool seen[NR];
	uint32_t i, moved = 0;

	tmem_pages_shuffle(order, NR);
	for (i = 0; i < NR; i++) {
		TMEM_ASSERT(order[i] < NR && !seen[order[i]]);
		seen[order[i]] = true;
		moved += order[i] != i;
	}
	TMEM_ASSERT(moved > NR / 2);
	tmem_pages_shuffle(order, 1);
	TMEM_ASSERT(order[0] == 0);
}

static void a_file_is_read_evenly(void)
{
	char path[] = "/tmp/tmem-pages-XXXXXX";
	char page[TMEM_PAGE_SIZE];
	struct tmem_pages p;
	uint64_t all;
	int fd = mkstemp(path), i;

	TMEM_ASSERT(fd >= 0);
	for (i = 0; i < 100; i++) {
		memset(page, i, sizeof(page));
		TMEM_ASSERT(write(fd, page, sizeof(page)) == sizeof(page));
	}
	close(fd);
	TMEM_ASSERT(!tmem_pages_from_file(path, 1000, &p, &all));
	TMEM_ASSERT(p.nr == 100 && all == 100);
	TMEM_ASSERT(*tmem_pages_at(&p, 99) == 99);
	tmem_pages_close(&p);
	TMEM_ASSERT(!tmem_pages_from_file(path, 10, &p, &all));
	TMEM_ASSERT(p.nr == 10 && all == 100);
	for (i = 0; i < 10; i++)
		TMEM_ASSERT(*tmem_pages_at(&p, (uint32_t)i) == 10 * i);
	tmem_pages_close(&p);
	unlink(path);
}

static void try(const struct tmem_trial_form *form, unsigned nr_threads,
		uint32_t accepted)
{
	static uint32_t order[NR];
	static struct tmem_trial t;
	struct tmem_pages pages;
	struct tmem_trial_input input = { .pages = &pages,
					  .order = order,
					  .limit_bytes = 64u << 20,
					  .nr_threads = nr_threads };

	memset(&t, 0, sizeof(t));
	t.form = form;
	TMEM_ASSERT(!tmem_pages_built_in(NR, &pages));
	tmem_pages_shuffle(order, NR);
	TMEM_ASSERT(!tmem_trial_round(&t, &input));
	TMEM_ASSERT(!tmem_trial_round(&t, &input));
	TMEM_ASSERT(t.nr_rounds == 2 && t.accepted_pages == accepted);
	TMEM_ASSERT(t.store_ns[1] > 0 && t.load_ns[1] > 0);
	TMEM_ASSERT(t.held_bytes > 0);
	if (!form->copy)
		TMEM_ASSERT(t.meta_bytes >= 24ull * t.accepted_pages &&
			    t.stats.pages == t.accepted_pages);
	tmem_pages_close(&pages);
}

static void medians(void)
{
	double odd[] = { 3, 1, 2 }, even[] = { 4, 1, 3, 2 };

	TMEM_ASSERT(tmem_trial_median(odd, 3) == 2);
	TMEM_ASSERT(tmem_trial_median(even, 4) == 2.5);
	TMEM_ASSERT(tmem_trial_median(odd, 1) == 1);
}

int main(void)
{
	the_built_in_pages_are_always_the_same();
	an_order_has_every_page_once();
	a_file_is_read_evenly();
	try(&automatic, 1, NR);
	try(&automatic, 7, NR);
	try(&refusing, 2, NR - NR / 16);
	try(&learning, 1, NR);
	try(&cooling, 2, NR);
	try(&copying, 3, NR);
	medians();
	return 0;
}
