/* SPDX-License-Identifier: MIT */
/*
 * What snapshots cost: how fast a pool is saved and restored, from and to
 * memory, plain and sealed, whole and when one page in a hundred has changed;
 * and how long who stores and loads meanwhile has to wait.
 *
 *	snapshot_bench [CORPUS] [--pages N] [--rounds N] [--dict] [--json]
 *
 * With --dict the pages are recompressed before, with a dictionary of the pool,
 * as maintenance would in time.
 *
 * A thread loads a page and overwrites another, over and over, and notes how
 * long each took: while nothing else goes on, while another thread only copies
 * memory (what a busy CPU and its caches cost alone), during saves, and during
 * clones of the pool, which hold every lock of the store.  Rates are of pages,
 * 4 KiB each, in CPU time, so that others' load does not count; medians.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tmem/snapshot.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "bench.h"

enum {
	PAGE = 4096,
	MAX_ROUNDS = 101,
	MAX_TIMES = 1 << 21,
	LEARN_SECONDS = 30
};

enum meanwhile {
	NOTHING = 0,
	COPYING,
	SAVING,
	CLONING,
	NR_MEANWHILE
};

struct memory {
	char *bytes;
	size_t nr;
	size_t at;
	size_t cap;
};

struct times {
	double p50[MAX_ROUNDS];
	double p999[MAX_ROUNDS];
	double longest[MAX_ROUNDS];
};

static const char *const names[NR_MEANWHILE] = { "nothing else", "copying",
						 "saving", "cloning" };
static struct bench_corpus corpus;
static unsigned nr_pages = 60000, nr_rounds = 5;
static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;
static struct memory memory;
static _Atomic int done;
static double *times;
static unsigned nr_times;
static struct times rows[NR_MEANWHILE];

static void check(int r, const char *what)
{
	if (r != 0) {
		fprintf(stderr, "%d: ", r);
		bench_die(what);
	}
}

static int64_t write_memory(void *arg, const void *bytes, size_t nr_bytes)
{
	struct memory *m = arg;

	if (nr_bytes > m->cap - m->nr)
		return -28;
	memcpy(m->bytes + m->nr, bytes, nr_bytes);
	m->nr += nr_bytes;
	return (int64_t)nr_bytes;
}

static int64_t read_memory(void *arg, void *ret_bytes, size_t nr_bytes)
{
	struct memory *m = arg;

	if (nr_bytes > m->nr - m->at)
		nr_bytes = m->nr - m->at;
	memcpy(ret_bytes, m->bytes + m->at, nr_bytes);
	m->at += nr_bytes;
	return (int64_t)nr_bytes;
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key >> 12 } },
				 .index = key & 4095,
				 .page = page };
}

/* Until most pages have a dictionary; then it stays so. */
static void learn(void)
{
	struct tmem_stats s;
	double end = bench_now(CLOCK_MONOTONIC) + LEARN_SECONDS;

	do {
		tmem_store_maintain(store, 100000000);
		check(backend.ops->stats(backend.self, &s), "stats");
	} while (s.lz4_dict_pages < nr_pages / 2 &&
		 bench_now(CLOCK_MONOTONIC) < end);
	fprintf(stderr, "with a dictionary: %.0f %%\n",
		100.0 * (double)s.lz4_dict_pages / nr_pages);
}

static void put(unsigned key, unsigned content)
{
	struct tmem_io io =
		io_of(key, corpus.pages + (size_t)(content % corpus.nr) * PAGE);

	check(backend.ops->store(backend.self, pool, &io, 1), "store");
	check(io.result, "store");
}

static struct tmem_store *open_store(bool dict)
{
	struct tmem_store_options o = {
		.dict_every_ns = dict,
		.limit_bytes = (uint64_t)nr_pages * 2 * PAGE + (64u << 20),
	};
	struct tmem_store *s;

	check(tmem_store_open(&o, &s), "tmem_store_open");
	return s;
}

static void save(const void *key, const struct tmem_snapshot *since,
		 struct tmem_snapshot *ret)
{
	struct tmem_snapshot_options o = { .pool = pool,
					   .key = key,
					   .since = since };
	struct tmem_snapshot_sink sink = { write_memory, &memory };

	memory.nr = 0;
	check(tmem_snapshot_save(tmem_client_default(store), &o, &sink, ret),
	      "tmem_snapshot_save");
}

static void restore(struct tmem_store *to, const void *key,
		    const struct tmem_snapshot *since,
		    struct tmem_snapshot *ret)
{
	struct tmem_snapshot_options o = { .key = key, .since = since };
	struct tmem_snapshot_source source = { read_memory, &memory };

	memory.at = 0;
	check(tmem_snapshot_restore(tmem_client_default(to), &o, &source, ret,
				    NULL),
	      "tmem_snapshot_restore");
}

/* MiB of pages a second since then. */
static double rate(double start)
{
	return nr_pages / 256.0 / (bench_now(CLOCK_THREAD_CPUTIME_ID) - start);
}

/* [plain, sealed]: save, restore; then what an increment takes. */
struct rates {
	double save[2][MAX_ROUNDS];
	double restore[2][MAX_ROUNDS];
	double save_more[MAX_ROUNDS];
	double restore_more[MAX_ROUNDS];
	uint64_t bytes[2]; /* full, increment */
};

static void measure_rates(struct rates *rates, unsigned round)
{
	static const char key[TMEM_SNAPSHOT_KEY_BYTES] = "bench";
	static struct tmem_snapshot here, there, more;
	struct tmem_store *to = NULL;
	double start;

	for (unsigned sealed = 2; sealed-- > 0;) {
		const void *k = sealed ? key : NULL;

		start = bench_now(CLOCK_THREAD_CPUTIME_ID);
		save(k, NULL, &here);
		rates->save[sealed][round] = rate(start);
		tmem_store_close(to);
		to = open_store(false);
		start = bench_now(CLOCK_THREAD_CPUTIME_ID);
		restore(to, k, NULL, &there);
		rates->restore[sealed][round] = rate(start);
	}
	rates->bytes[0] = here.stream_bytes;
	for (unsigned i = round; i < nr_pages; i += 100)
		put(i, i + 1);
	start = bench_now(CLOCK_THREAD_CPUTIME_ID);
	save(NULL, &here, &more);
	rates->save_more[round] = rate(start);
	start = bench_now(CLOCK_THREAD_CPUTIME_ID);
	restore(to, NULL, &there, &more);
	rates->restore_more[round] = rate(start);
	rates->bytes[1] = more.stream_bytes;
	tmem_store_close(to);
}

static void *load_and_store(void *arg)
{
	char page[PAGE];
	uint64_t x = *(const unsigned *)arg;

	while (!atomic_load(&done)) {
		double start = bench_now(CLOCK_MONOTONIC), middle, end;
		struct tmem_io io;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		io = io_of((unsigned)(x >> 33) % nr_pages, page);
		check(backend.ops->load(backend.self, pool, &io, 1), "load");
		middle = bench_now(CLOCK_MONOTONIC);
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		put((unsigned)(x >> 33) % nr_pages, (unsigned)(x >> 40));
		end = bench_now(CLOCK_MONOTONIC);
		if (nr_times < MAX_TIMES) {
			times[nr_times++] = middle - start;
			times[nr_times++] = end - middle;
		}
	}
	return NULL;
}

static void do_meanwhile(enum meanwhile what)
{
	static struct tmem_snapshot s;
	struct timespec pause = { 0, 50000000 };
	tmem_pool_id clone;

	switch (what) {
	case NOTHING:
		nanosleep(&pause, NULL);
		break;
	case COPYING:
		for (unsigned i = 0; i < 8; i++)
			memcpy(memory.bytes + (memory.cap >> 1), memory.bytes,
			       memory.cap >> 4);
		break;
	case SAVING:
		save(NULL, NULL, &s);
		break;
	default:
		check(backend.ops->pool_clone(backend.self, pool, &clone),
		      "pool_clone");
		check(backend.ops->pool_destroy(backend.self, clone),
		      "pool_destroy");
		break;
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure_waits(enum meanwhile what, unsigned round)
{
	double end = bench_now(CLOCK_MONOTONIC) + 1;
	pthread_t thread;

	nr_times = 0;
	atomic_store(&done, 0);
	if (pthread_create(&thread, NULL, load_and_store, &round) != 0)
		bench_die("pthread_create");
	while (bench_now(CLOCK_MONOTONIC) < end)
		do_meanwhile(what);
	atomic_store(&done, 1);
	pthread_join(thread, NULL);
	qsort(times, nr_times, sizeof(*times), compare);
	rows[what].p50[round] = times[nr_times / 2] * 1e6;
	rows[what].p999[round] = times[nr_times - 1 - nr_times / 1000] * 1e6;
	rows[what].longest[round] = times[nr_times - 1] * 1e6;
}

static void print_rates(struct rates *r, bool json)
{
	double full = (double)r->bytes[0] / nr_pages;
	double more = (double)r->bytes[1] / nr_pages;

	printf(json ? "{\"bench\": \"snapshot\", \"save_mib_s\": %.0f, "
		      "\"restore_mib_s\": %.0f, \"sealed_save_mib_s\": %.0f, "
		      "\"sealed_restore_mib_s\": %.0f, "
		      "\"increment_save_mib_s\": %.0f, "
		      "\"increment_restore_mib_s\": %.0f, "
		      "\"bytes_a_page\": %.1f, \"increment_bytes_a_page\": "
		      "%.1f"
		    : "MiB of pages a second: save %.0f, restore %.0f; sealed "
		      "%.0f, %.0f; 1 %% changed %.0f, %.0f\n"
		      "bytes of stream a page: %.1f; 1 %% changed %.1f\n",
	       bench_median(r->save[0], nr_rounds),
	       bench_median(r->restore[0], nr_rounds),
	       bench_median(r->save[1], nr_rounds),
	       bench_median(r->restore[1], nr_rounds),
	       bench_median(r->save_more, nr_rounds),
	       bench_median(r->restore_more, nr_rounds), full, more);
}

static void print_waits(bool json)
{
	for (unsigned i = 0; i < NR_MEANWHILE; i++)
		printf(json ? ", \"%s\": {\"p50_us\": %.2f, \"p999_us\": %.1f, "
			      "\"longest_us\": %.0f}"
			    : "a load or store, %-12s: p50 %6.2f us, p99.9 "
			      "%8.1f, longest %8.0f\n",
		       names[i], bench_median(rows[i].p50, nr_rounds),
		       bench_median(rows[i].p999, nr_rounds),
		       bench_median(rows[i].longest, nr_rounds));
	if (json)
		printf("}\n");
}

int main(int argc, char **argv)
{
	static struct rates rates;
	const char *path = NULL;
	bool json = false, dict = false;
	const struct bench_option options[] = {
		{ "CORPUS", .text = &path },
		{ "--pages N", .number = &nr_pages, .min = 1000 },
		{ "--rounds N", .number = &nr_rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--dict", .flag = &dict },
		{ "--json", .flag = &json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
	bench_read_corpus(&corpus, path, nr_pages < 20000 ? nr_pages : 20000);
	memory.cap = (size_t)nr_pages * (PAGE + 64);
	memory.bytes = bench_map(memory.cap);
	times = bench_map(MAX_TIMES * sizeof(*times));
	store = open_store(dict);
	backend = tmem_store_backend(store);
	check(backend.ops->pool_create(backend.self, NULL, &pool),
	      "pool_create");
	for (unsigned i = 0; i < nr_pages; i++)
		put(i, i);
	if (dict)
		learn();
	for (unsigned round = 0; round < nr_rounds; round++) {
		measure_rates(&rates, round);
		for (unsigned i = 0; i < NR_MEANWHILE; i++)
			measure_waits(i, round);
	}
	print_rates(&rates, json);
	print_waits(json);
	return 0;
}
