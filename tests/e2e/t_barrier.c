/* SPDX-License-Identifier: MIT */
/*
 * Garbage collectors' barriers: memory is protected, a SIGSEGV handler notes
 * the page and opens it again, and the instruction is retried.
 *
 *   write    read-only between epochs; the set of pages that the handler saw
 *            must be exactly the set that was written
 *   read     PROT_NONE between epochs, opened at the first touch
 *   threads  several threads run into the barrier at the same time
 */
#include "torture.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	NR_THREADS = 3
};

static struct tt_region region;
static _Atomic uint8_t *seen;
static int opened_as;

static void barrier(int number, siginfo_t *info, void *context)
{
	unsigned char *at = info->si_addr;
	size_t nr = (size_t)(at - region.base) / TT_PAGE;

	(void)context;
	if (number != SIGSEGV || info->si_code != SEGV_ACCERR ||
	    at < region.base || nr >= region.nr_pages)
		tt_fail("not the barrier's: signal %d code %d at %p", number,
			info->si_code, (void *)at);
	atomic_fetch_add(&seen[nr], 1);
	TT_SYS(mprotect(region.base + nr * TT_PAGE, TT_PAGE, opened_as));
}

static void setup(void)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO };

	action.sa_sigaction = barrier;
	TT_SYS(sigaction(SIGSEGV, &action, NULL));
	tt_pressure_init(60);
	tt_region_map(&region, tt_pages(24), 1);
	tt_region_fill(&region);
	seen = tt_map(region.nr_pages);
	opened_as = PROT_READ | PROT_WRITE;
	tt_pressure();
}

static void cleanup(void)
{
	TT_SYS(mprotect(region.base, region.nr_pages * TT_PAGE,
			PROT_READ | PROT_WRITE));
	tt_region_verify_shuffled(&region);
	TT_SYS(munmap((void *)seen, region.nr_pages));
	tt_region_unmap(&region);
	signal(SIGSEGV, SIG_DFL);
}

static void start_epoch(int protection)
{
	TT_SYS(mprotect(region.base, region.nr_pages * TT_PAGE, protection));
	memset((void *)seen, 0, region.nr_pages);
}

static void write_barrier(void)
{
	uint64_t rng = tt_rand_start(1);
	uint8_t *written;

	setup();
	written = tt_map(region.nr_pages);
	for (unsigned epoch = 0; epoch < 4; epoch++) {
		start_epoch(PROT_READ);
		memset(written, 0, region.nr_pages);
		if (epoch % 2)
			tt_pressure();
		for (size_t i = 0; i < region.nr_pages; i++) {
			size_t nr = (tt_rand(&rng) >> 16) % region.nr_pages;

			tt_region_check(&region, nr);
			if (i % 3 == 0) {
				tt_region_write(&region, nr);
				written[nr] = 1;
			}
		}
		tt_same((void *)seen, written, region.nr_pages,
			"pages that the write barrier saw");
		if (epoch < 3)
			tt_pressure();
	}
	TT_SYS(munmap(written, region.nr_pages));
	cleanup();
}

static void read_barrier(void)
{
	uint64_t rng = tt_rand_start(2);

	setup();
	for (unsigned epoch = 0; epoch < 4; epoch++) {
		start_epoch(PROT_NONE);
		if (epoch % 2)
			tt_pressure();
		tt_region_work(&region, &rng, region.nr_pages, 3);
		for (size_t nr = 0; nr < region.nr_pages; nr++)
			if (seen[nr] > 1)
				tt_fail("page %zu ran into the barrier twice",
					nr);
		tt_pressure();
	}
	cleanup();
}

static void *racing_thread(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;

	for (size_t nr = 0; nr < region.nr_pages; nr++) {
		/* The last word of the page is this thread's own. */
		volatile uint64_t *own = (void *)(region.base + nr * TT_PAGE);
		uint64_t found, expected = nr * NR_THREADS + me;

		own += 512 - NR_THREADS + me;
		*own = expected;
		found = *own;
		tt_same(&found, &expected, 8, "racing into the barrier");
	}
	return NULL;
}

static void threads(void)
{
	pthread_t thread[NR_THREADS];

	setup();
	for (unsigned epoch = 0; epoch < 3; epoch++) {
		start_epoch(epoch % 2 ? PROT_NONE : PROT_READ);
		tt_pressure();
		for (uintptr_t i = 0; i < NR_THREADS; i++)
			thread[i] = tt_thread(racing_thread, tt_argument(i));
		for (unsigned i = 0; i < NR_THREADS; i++)
			tt_join(thread[i]);
		for (size_t nr = 0; nr < region.nr_pages; nr++)
			TT_ASSERT(seen[nr] >= 1);
		tt_region_fill(&region);
	}
	cleanup();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "write", write_barrier },
						{ "read", read_barrier },
						{ "threads", threads },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
