/* SPDX-License-Identifier: MIT */
/*
 * Threads racing on the same evicted pages.
 *
 *   words    each thread owns every 8th word of all pages
 *   atomics  all threads add to the same words; no addition may get lost
 *   readers  all threads fault the same pages in the same order
 *   first    all threads touch new pages at the same moment
 *   regions  each thread has memory of its own
 */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	NR_THREADS = 8,
	WORDS = TT_PAGE / 8,
	FIRST_PAGES = 64
};

static uint64_t *shared;
static size_t shared_pages;
static pthread_barrier_t barrier;
static struct tt_region common;

/* Words of one page have as many significant bits, for mixed ratios. */
static uint64_t word_value(size_t page, unsigned word, unsigned generation)
{
	static const uint64_t mask[] = { 0xff, 0xffff, 0xffffffff, ~0ull };

	if (!generation)
		return 0;
	return tt_mix(page * WORDS + word + ((uint64_t)generation << 40)) &
	       mask[page % 4];
}

static void check_word(size_t page, unsigned word, unsigned generation)
{
	uint64_t expected = word_value(page, word, generation);

	tt_same(&shared[page * WORDS + word], &expected, 8, "owned word");
}

static void *words_thread(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;
	uint8_t *generation = tt_map(shared_pages);
	uint64_t rng = tt_rand_start(100 + me);

	for (size_t i = 0; i < shared_pages; i++) {
		size_t page = (tt_rand(&rng) >> 16) % shared_pages;
		unsigned g = generation[page];

		for (unsigned w = me; w < WORDS; w += NR_THREADS) {
			check_word(page, w, g);
			shared[page * WORDS + w] = word_value(page, w, g + 1);
		}
		generation[page]++;
	}
	pthread_barrier_wait(&barrier);
	for (size_t page = 0; page < shared_pages; page++)
		for (unsigned w = me; w < WORDS; w += NR_THREADS)
			check_word(page, w, generation[page]);
	return NULL;
}

static void run_threads(void *(*run)(void *))
{
	pthread_t thread[NR_THREADS];

	TT_ZERO(pthread_barrier_init(&barrier, NULL, NR_THREADS));
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		thread[i] = tt_thread(run, tt_argument(i));
	for (unsigned i = 0; i < NR_THREADS; i++)
		tt_join(thread[i]);
	TT_ZERO(pthread_barrier_destroy(&barrier));
}

static void words(void)
{
	shared_pages = tt_pages(90);
	shared = tt_map(shared_pages * TT_PAGE);
	run_threads(words_thread);
	TT_SYS(munmap(shared, shared_pages * TT_PAGE));
}

static uint32_t *added[NR_THREADS];

static void *atomics_thread(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;
	uint64_t rng = tt_rand_start(200 + me);

	added[me] = tt_map(shared_pages * sizeof(uint32_t));
	for (size_t i = 0; i < shared_pages * 2; i++) {
		uint64_t dice = tt_rand(&rng) >> 8;
		size_t page = dice % shared_pages;
		size_t word = (dice >> 40) % 3 * 100;

		__atomic_fetch_add(&shared[page * WORDS + word], 1,
				   __ATOMIC_RELAXED);
		added[me][page]++;
	}
	return NULL;
}

static void atomics(void)
{
	shared_pages = tt_pages(90);
	shared = tt_map(shared_pages * TT_PAGE);
	run_threads(atomics_thread);
	for (size_t page = 0; page < shared_pages; page++) {
		uint64_t *at = &shared[page * WORDS], sum = 0;
		uint64_t found = at[0] + at[100] + at[200];

		for (unsigned i = 0; i < NR_THREADS; i++)
			sum += added[i][page];
		tt_same(&found, &sum, 8, "sum of atomic additions");
	}
	for (unsigned i = 0; i < NR_THREADS; i++)
		TT_SYS(munmap(added[i], shared_pages * sizeof(uint32_t)));
	TT_SYS(munmap(shared, shared_pages * TT_PAGE));
}

static void *readers_thread(void *argument)
{
	uint64_t rng = tt_rand_start(300); /* the same for all of them */

	(void)argument;
	for (size_t i = 0; i < common.nr_pages; i++) {
		if (i % 256 == 0)
			pthread_barrier_wait(&barrier);
		tt_region_check(&common,
				(tt_rand(&rng) >> 16) % common.nr_pages);
	}
	return NULL;
}

static void readers(void)
{
	tt_region_map(&common, tt_pages(90), 3);
	tt_region_fill(&common);
	run_threads(readers_thread);
	tt_region_unmap(&common);
}

/* Each thread finds zero in its word, or its own tag from before. */
static void *first_thread(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;

	for (size_t page = 0; page < shared_pages; page++) {
		uint64_t *at = &shared[page * WORDS + me];

		if (page % FIRST_PAGES == 0)
			pthread_barrier_wait(&barrier);
		tt_check_zero(at, 8, "first touch");
		*at = page * NR_THREADS + me + 1;
	}
	return NULL;
}

static void first(void)
{
	uint64_t expected[WORDS];

	shared_pages = tt_pages(45);
	for (unsigned round = 0; round < 3; round++) {
		shared = tt_map(shared_pages * TT_PAGE);
		run_threads(first_thread);
		memset(expected, 0, sizeof(expected));
		for (size_t page = 0; page < shared_pages; page++) {
			for (unsigned i = 0; i < NR_THREADS; i++)
				expected[i] = page * NR_THREADS + i + 1;
			tt_same(&shared[page * WORDS], expected, TT_PAGE,
				"tags of all threads");
		}
		TT_SYS(munmap(shared, shared_pages * TT_PAGE));
	}
}

static void *regions_thread(void *argument)
{
	uint64_t me = (uintptr_t)argument, rng = tt_rand_start(400 + me);
	struct tt_region mine;

	tt_region_map(&mine, tt_pages(90) / NR_THREADS, 400 + me);
	tt_region_fill(&mine);
	pthread_barrier_wait(&barrier); /* all of them at the same time */
	tt_region_work(&mine, &rng, mine.nr_pages, 3);
	tt_region_verify(&mine);
	tt_region_unmap(&mine);
	return NULL;
}

static void regions(void)
{
	run_threads(regions_thread);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "words", words },	{ "atomics", atomics },
		{ "readers", readers }, { "first", first },
		{ "regions", regions }, { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
