/* SPDX-License-Identifier: MIT */
/*
 * threads_bench [--pages N] [--rounds N] [--json]
 *
 * One store used by 1, 2, 4, 8 and 16 threads, more than there are CPUs: does
 * throughput collapse, and who waits for which lock?  Each thread loads two
 * random pages for each that it stores over an old one, for a tenth of a
 * second.  Each round runs every number of threads; medians.  Waits are those
 * of all rounds, per million operations.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tmem/store.h>

#include "base/lock.h"
#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	KINDS = 64,
	MAX_THREADS = 16,
	NR_COUNTS = 5,
	MAX_ROUNDS = 101,
	SLICE_US = 100000
};

static const unsigned counts[NR_COUNTS] = { 1, 2, 4, 8, 16 };
static const char *const rank_names[TMEM_NR_RANKS] = {
	[TMEM_RANK_STORE] = "control",	 [TMEM_RANK_SCRATCH] = "scratch",
	[TMEM_RANK_SHARD] = "shard",	 [TMEM_RANK_CLASS] = "class",
	[TMEM_RANK_RECORDS] = "records", [TMEM_RANK_META] = "meta",
	[TMEM_RANK_PAGES] = "pages",
};

struct options {
	uint32_t pages;
	unsigned rounds;
	bool json;
};

static char kinds[KINDS][PAGE];
static struct tmem_backend backend;
static tmem_pool_id pool;
static uint32_t nr_pages;
static _Atomic bool done;
static _Atomic uint64_t nr_ops;

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){ .object = { { key >> 16 } },
				 .index = key & 0xffff,
				 .page = page };
}

static void load(uint32_t key)
{
	char page[PAGE];
	struct tmem_io io = io_of(key, page);

	backend.ops->load(backend.self, pool, &io, 1);
	if (io.result != 0 || memcmp(page + 40, &key, sizeof(key)) != 0)
		bench_die("load");
}

static void store(uint32_t key, uint64_t *rng)
{
	char page[PAGE];
	struct tmem_io io = io_of(key, page);

	memcpy(page, kinds[next(rng) % KINDS], PAGE);
	memcpy(page + 40, &key, sizeof(key));
	backend.ops->store(backend.self, pool, &io, 1);
	if (io.result != 0)
		bench_die("store");
}

static void *work(void *arg)
{
	uint64_t rng = *(uint64_t *)arg * 0x9e3779b97f4a7c15ull, ops = 0;

	for (; !atomic_load_explicit(&done, memory_order_relaxed); ops += 3) {
		load((uint32_t)(next(&rng) % nr_pages));
		load((uint32_t)(next(&rng) % nr_pages));
		store((uint32_t)(next(&rng) % nr_pages), &rng);
	}
	atomic_fetch_add(&nr_ops, ops);
	return NULL;
}

/* Operations a second, by the clock; *ret_cpu_ns: CPU time of one. */
static double measure(unsigned nr_threads, double *ret_cpu_ns)
{
	double start = bench_now(CLOCK_MONOTONIC);
	double cpu = bench_now(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t seeds[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	unsigned i;

	atomic_store(&done, false);
	atomic_store(&nr_ops, 0);
	for (i = 0; i < nr_threads; i++) {
		seeds[i] = i + 1;
		if (pthread_create(&threads[i], NULL, work, &seeds[i]))
			bench_die("pthread_create");
	}
	usleep(SLICE_US);
	atomic_store(&done, true);
	for (i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	cpu = bench_now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	*ret_cpu_ns = cpu * 1e9 / (double)atomic_load(&nr_ops);
	return (double)atomic_load(&nr_ops) /
	       (bench_now(CLOCK_MONOTONIC) - start);
}

/* What locks of that rank were waited for since the last time. */
static struct tmem_lock_waits waits_of(unsigned rank)
{
	static struct tmem_lock_waits before[TMEM_NR_RANKS];
	struct tmem_lock_waits now, diff;

	tmem_lock_waits_of(rank, &now);
	diff = (struct tmem_lock_waits){
		.contended = now.contended - before[rank].contended,
		.sleeps = now.sleeps - before[rank].sleeps,
		.slept_ns = now.slept_ns - before[rank].slept_ns,
	};
	before[rank] = now;
	return diff;
}

struct row {
	double per_second[MAX_ROUNDS];
	double cpu_ns[MAX_ROUNDS];
	double of_two[MAX_ROUNDS]; /* of what two threads did this round */
	double millions;	   /* of operations, all rounds */
	struct tmem_lock_waits waits[TMEM_NR_RANKS];
};

static struct row rows[NR_COUNTS];

static void one_round(unsigned r)
{
	unsigned i, rank;

	for (i = 0; i < NR_COUNTS; i++) {
		struct row *row = &rows[i];

		row->per_second[r] = measure(counts[i], &row->cpu_ns[r]);
		row->millions += (double)atomic_load(&nr_ops) * 1e-6;
		for (rank = 1; rank < TMEM_NR_RANKS; rank++) {
			struct tmem_lock_waits w = waits_of(rank);

			row->waits[rank].contended += w.contended;
			row->waits[rank].sleeps += w.sleeps;
			row->waits[rank].slept_ns += w.slept_ns;
		}
	}
	for (i = 0; i < NR_COUNTS; i++)
		rows[i].of_two[r] =
			rows[i].per_second[r] / rows[1].per_second[r];
}

static void print_waits(const struct row *row)
{
	unsigned rank;

	for (rank = 1; rank < TMEM_NR_RANKS; rank++) {
		const struct tmem_lock_waits *w = &row->waits[rank];

		if (w->contended && rank_names[rank])
			printf("     %-8s %8.1f waits, %6.1f sleeps of %.0f us"
			       " in 1 M operations\n",
			       rank_names[rank],
			       (double)w->contended / row->millions,
			       (double)w->sleeps / row->millions,
			       w->sleeps ? (double)w->slept_ns * 1e-3 /
						   (double)w->sleeps
					 : 0.0);
	}
}

static void print(const struct options *o)
{
	unsigned i;

	if (o->json)
		printf("{\"bench\": \"threads\", \"pages\": %u", o->pages);
	for (i = 0; i < NR_COUNTS; i++) {
		struct row *row = &rows[i];
		double per_second = bench_median(row->per_second, o->rounds);
		double cpu_ns = bench_median(row->cpu_ns, o->rounds);
		double of_two = bench_median(row->of_two, o->rounds);

		if (o->json) {
			printf(", \"ops_%u\": %.0f, \"cpu_%u_ns\": %.1f, "
			       "\"of_two_%u\": %.3f",
			       counts[i], per_second, counts[i], cpu_ns,
			       counts[i], of_two);
			continue;
		}
		printf("%2u threads: %8.0f operations a second, %.2f of two "
		       "threads'; %.0f ns of CPU each\n",
		       counts[i], per_second, of_two, cpu_ns);
		print_waits(row);
	}
	if (o->json)
		printf("}\n");
}

static void parse(int argc, char **argv, struct options *o)
{
	const struct bench_option options[] = {
		{ "--pages N", .number = &o->pages, .min = 1000 },
		{ "--rounds N", .number = &o->rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--json", .flag = &o->json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
}

int main(int argc, char **argv)
{
	struct tmem_store_options options = { .limit_bytes = 8ull << 30 };
	struct tmem_store *opened;
	struct options o = { .pages = 100000, .rounds = 11 };
	uint64_t rng = 1;
	unsigned r;

	parse(argc, argv, &o);
	bench_heap_pages(kinds[0], KINDS);
	if (tmem_store_open(&options, &opened) < 0)
		bench_die("tmem_store_open");
	backend = tmem_store_backend(opened);
	backend.ops->pool_create(backend.self, NULL, &pool);
	for (nr_pages = 0; nr_pages < o.pages; nr_pages++)
		store(nr_pages, &rng);
	for (r = 0; r < o.rounds; r++)
		one_round(r);
	print(&o);
	tmem_store_close(opened);
	return 0;
}
