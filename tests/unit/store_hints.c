/* SPDX-License-Identifier: MIT */
/* The table of hints: what it finds, at any size, and what it costs. */
#include "core/hints.h"

#include "fstest.h"

enum {
	MANY = 100000,
	MASK = (1 << TMEM_HINT_BITS) - 1
};

static struct tmem_account account;
static struct tmem_meta meta;
static struct tmem_hints table;

static void open_table(uint64_t limit_bytes)
{
	memset(&account, 0, sizeof(account));
	memset(&table, 0, sizeof(table));
	account.limit_bytes = limit_bytes;
	tmem_meta_init(&meta, &account);
	tmem_hints_init(&table);
}

static void close_table(void)
{
	tmem_meta_fini(&meta);
}

static void count_hint(void *arg, uint32_t hint)
{
	CHECK(hint <= MASK);
	++*(uint64_t *)arg;
}

static uint64_t check(void)
{
	uint64_t nr = 0;

	tmem_hints_check(&table, count_hint, &nr);
	tmem_meta_check(&meta);
	return nr;
}

static uint32_t r_of_nr(uint32_t nr)
{
	struct rng rng = { nr };

	return (uint32_t)(rng_next(&rng) >> 33);
}

/* Nobody's but `nr`'s own hint, or what was found. */
static uint32_t look(uint32_t nr)
{
	uint32_t found[TMEM_HINTS_FOUND] = { 0 };

	return tmem_hints_look(&table, r_of_nr(nr), nr & MASK, found) ? found[0]
								      : 0;
}

/* Of so many, in percent; they are in the table afterwards. */
static double found_of(uint32_t nr)
{
	uint32_t i, found = 0;

	for (i = 1; i <= nr; i++)
		found += look(i) == i;
	return found * 100.0 / nr;
}

static void fill(uint32_t nr)
{
	uint32_t i;

	for (i = 1; i <= nr; i++) {
		if (i % 16 == 1)
			tmem_hints_fit(&table, &meta, i);
		look(i);
	}
}

/* Where all differ it is as full as it gets, and still finds nearly all. */
static void it_finds_nearly_all_at_any_size(void)
{
	static const uint32_t sizes[] = { 10,	 100,	500,   1000,
					  3000,	 7000,	10000, 14000,
					  20000, 50000, MANY };
	unsigned i;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t nr = sizes[i];
		double found;

		open_table(64u << 20);
		fill(nr);
		CHECK(check() <= nr);
		CHECK(tmem_meta_bytes(&meta) <= nr * 8.5 + 5 * 4096);
		found = found_of(nr);
		fprintf(stderr, "    %u: %.1f %%, %.2f bytes each\n", nr, found,
			(double)tmem_meta_bytes(&meta) / nr);
		CHECK(found >= 90);
		CHECK(nr > 100 || found == 100);
		close_table();
	}
}

static void it_shrinks_and_keeps_what_has_room(void)
{
	uint64_t before;
	uint32_t nr;

	open_table(64u << 20);
	fill(MANY);
	for (nr = MANY; nr > 100; nr -= nr / 3) {
		while (tmem_hints_fit(&table, &meta, nr))
			if (nr % 7 == 0)
				check();
		before = check();
		CHECK(before > nr * 0.7 && before < nr * 1.6 + 1200);
	}
	while (tmem_hints_fit(&table, &meta, 0))
		;
	CHECK_EQ(check(), 0);
	CHECK(!tmem_hints_are_there(&table));
	tmem_meta_trim(&meta);
	/* The chunk's header. */
	CHECK_EQ(tmem_meta_bytes(&meta), 4096);
	CHECK_EQ(look(1), 0);
	close_table();
}

/* Up, down, and looks in between: what is found is what was said. */
static void it_goes_up_and_down(void)
{
	uint32_t pages = 1000, hits = 0, looks = 0, i;
	struct rng rng = { 5 };

	open_table(64u << 20);
	for (i = 0; i < 300000; i++) {
		uint32_t nr = 1 + (uint32_t)rng_below(&rng, 2000);
		uint32_t found = look(nr);

		CHECK(!found || found == nr);
		hits += found != 0;
		looks++;
		if (rng_below(&rng, 16) == 0)
			tmem_hints_fit(&table, &meta, pages);
		if (rng_below(&rng, 2000) == 0)
			pages = (uint32_t)rng_below(&rng, 60000);
		if (i % 10000 == 0)
			check();
	}
	CHECK(hits > looks / 10 * 8);
	close_table();
}

static void fit(uint32_t pages_of_table)
{
	uint32_t nr = (pages_of_table - 2) * TMEM_HINTS_PER_PAGE;

	while (tmem_hints_fit(&table, &meta, nr))
		;
	CHECK_EQ(table.size, pages_of_table);
}

/* The directory that it had while it was small is what it was then. */
static void what_it_gave_up_is_not_its_own(void)
{
	static const char zeros[4096];
	char *others[8];
	unsigned i;

	open_table(1u << 20);
	fit(TMEM_HINTS_INLINE);
	fit(TMEM_HINTS_INLINE + 4);
	fit(TMEM_HINTS_INLINE - 6);
	for (i = 0; i < 8; i++)
		CHECK(others[i] = tmem_meta_alloc(&meta, 1));
	fit(TMEM_HINTS_INLINE - 2);
	for (i = 1; i < 20000; i++)
		look(i);
	for (i = 0; i < 8; i++)
		CHECK(memcmp(others[i], zeros, sizeof(zeros)) == 0);
	check();
	close_table();
}

/* From a directory of three pages to one of two, of one, and to none. */
static void it_shrinks_without_memory(void)
{
	static const uint32_t sizes[] = { 700, 100, 3 };
	unsigned i;

	open_table(64u << 20);
	fit(1300);
	CHECK_EQ(table.dir_pages, 3);
	for (i = 1; i < 20000; i++)
		look(i);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		tmem_meta_trim(&meta);
		account.limit_bytes = 1;
		fit(sizes[i]);
		check();
		account.limit_bytes = 64u << 20;
	}
	CHECK_EQ(table.dir_pages, 0);
	/* And grows again. */
	fit(1300);
	check();
	close_table();
}

static void a_hint_is_corrected(void)
{
	open_table(1u << 20);
	tmem_hints_fit(&table, &meta, 1);
	CHECK_EQ(look(7), 0);
	CHECK_EQ(look(7), 7);
	tmem_hints_correct(&table, r_of_nr(7), 7, 9);
	CHECK_EQ(look(7), 9);
	/* What is not there is not corrected. */
	tmem_hints_correct(&table, r_of_nr(7), 7, 11);
	tmem_hints_correct(&table, r_of_nr(8), 9, 11);
	CHECK_EQ(look(7), 9);
	CHECK_EQ(check(), 1);
	close_table();
}

/* Equal hashes have eight buckets; then the oldest gives way. */
static void the_oldest_gives_way(void)
{
	uint32_t found[TMEM_HINTS_FOUND], i;

	open_table(1u << 20);
	tmem_hints_fit(&table, &meta, 1);
	for (i = 0; i < 1000; i++)
		/* One home, one bit after the other. */
		tmem_hints_look(&table, i, i + 1, found);
	CHECK_EQ(check(), 72);
	CHECK_EQ(tmem_hints_look(&table, 999, 1, found), 1);
	CHECK_EQ(found[0], 1000);
	CHECK_EQ(tmem_hints_look(&table, 0, 1, found), 0);
	close_table();
}

static void without_memory_it_finds_less(void)
{
	open_table(80u << 10);
	fill(MANY);
	CHECK(check() <= 80ull / 4 * 576);
	CHECK(tmem_meta_bytes(&meta) <= 80u << 10);
	CHECK_EQ(look(MANY), MANY);
	close_table();
}

int main(void)
{
	RUN(it_finds_nearly_all_at_any_size);
	RUN(it_shrinks_and_keeps_what_has_room);
	RUN(it_goes_up_and_down);
	RUN(what_it_gave_up_is_not_its_own);
	RUN(it_shrinks_without_memory);
	RUN(a_hint_is_corrected);
	RUN(the_oldest_gives_way);
	RUN(without_memory_it_finds_less);
	return 0;
}
