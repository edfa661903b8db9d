/* SPDX-License-Identifier: MIT */
/*
 * What a restartable store costs beside a private one, and how long recovery
 * takes.
 *
 *	recover_bench [PAGES] [ROUNDS]
 *
 * In each round a private store and one on a memfd are filled, read, filled
 * again with other pages, and emptied; the figures are medians over the
 * rounds, in nanoseconds of CPU time a page.  Before it is emptied the memfd's
 * is closed and opened again.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <tmem/client.h>
#include <tmem/store.h>

enum {
	MAX_ROUNDS = 32,
	KINDS = 64,
	PER_OBJECT = 4096
};

enum figure {
	STORE,
	LOAD,
	REPLACE,
	INVALIDATE,
	RECOVER,
	NR_FIGURES
};

static const char *const names[] = { "store", "load", "replace", "invalidate",
				     "recover" };
static char pages[KINDS][TMEM_PAGE_SIZE] __attribute__((aligned(4096)));
static double figures[2][NR_FIGURES][MAX_ROUNDS];

static void fail(const char *what)
{
	fprintf(stderr, "recover_bench: %s failed\n", what);
	exit(1);
}

/* CPU time: what else runs here does not count. */
static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* About half of each page can be compressed. */
static void make_pages(void)
{
	uint64_t x = 1;
	unsigned k, i;

	for (k = 0; k < KINDS; k++)
		for (i = 0; i < TMEM_PAGE_SIZE; i++) {
			x = x * 6364136223846793005ull + 1442695040888963407ull;
			pages[k][i] =
				(char)(i % 512 < 128 + k * 3 ? x >> 56 : k);
		}
}

static struct tmem_store *open_store(const int *fd, unsigned nr)
{
	struct tmem_store_options options = {
		.limit_bytes = (uint64_t)nr * 6000 + (64 << 20),
		.arena_fd = fd,
	};
	struct tmem_store *store;

	if (tmem_store_open(&options, &store) < 0)
		fail("tmem_store_open");
	return store;
}

static double pass(struct tmem_backend b, tmem_pool_id pool, unsigned nr,
		   enum figure what)
{
	static char page[TMEM_PAGE_SIZE];
	uint64_t start = now_ns();
	unsigned i;

	for (i = 0; i < nr; i++) {
		struct tmem_io io = { .object = { { i / PER_OBJECT } },
				      .index = i % PER_OBJECT,
				      .page = page };

		if (what == LOAD) {
			b.ops->load(b.self, pool, &io, 1);
		} else if (what == INVALIDATE) {
			b.ops->invalidate(b.self, pool, &io, 1);
		} else {
			io.page = pages[(i + what) % KINDS];
			b.ops->store(b.self, pool, &io, 1);
		}
		if (io.result)
			fail(names[what]);
	}
	return (double)(now_ns() - start) / nr;
}

static void run(unsigned round, unsigned nr, bool lasts)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	struct tmem_store *store = open_store(lasts ? &fd : NULL, nr);
	struct tmem_backend b = tmem_store_backend(store);
	tmem_pool_id pool = 0;
	uint64_t start;
	int what;

	b.ops->pool_create(b.self, NULL, &pool);
	for (what = STORE; what < RECOVER; what++) {
		if (what == INVALIDATE && lasts) {
			tmem_store_close(store);
			start = now_ns();
			store = open_store(&fd, nr);
			figures[1][RECOVER][round] =
				(double)(now_ns() - start) / nr;
			b = tmem_store_backend(store);
		}
		figures[lasts][what][round] = pass(b, pool, nr, what);
	}
	tmem_store_close(store);
	close(fd);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned nr)
{
	qsort(values, nr, sizeof(*values), compare);
	return values[nr / 2];
}

int main(int argc, char **argv)
{
	unsigned nr = argc > 1 ? (unsigned)atoi(argv[1]) : 100000;
	unsigned rounds = argc > 2 ? (unsigned)atoi(argv[2]) : 5, i;
	int what;

	if (!nr || !rounds || rounds > MAX_ROUNDS)
		fail("reading the arguments");
	make_pages();
	for (i = 0; i < rounds; i++) {
		run(i, nr, false);
		run(i, nr, true);
	}
	printf("%u pages, medians of %u rounds, ns/page\n", nr, rounds);
	for (what = 0; what < NR_FIGURES; what++) {
		double plain = median(figures[0][what], rounds);
		double lasting = median(figures[1][what], rounds);

		printf("%-10s  private %7.0f  memfd %7.0f  %.2f\n", names[what],
		       plain, lasting, plain > 0 ? lasting / plain : 0);
	}
	return 0;
}
