/* SPDX-License-Identifier: MIT */
/*
 * cleancache_bench [CORPUS] [--pages N] [--rounds N] [--json]
 *
 * What cleancache costs above its backend: pages are stored, 64 to a file, and
 * loaded in random order, by the front end and by calling the backend's pool
 * the same way.  The backend that refuses and misses everything shows what the
 * hooks alone cost; the store, what part of the work that is.  One page at a
 * time and 16, by one thread and by two with a half of the pages each.
 *
 * Each round measures all of them one right after the other, by the CPU time
 * of all threads; figures are medians.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tmem/cleancache.h>
#include <tmem/store.h>

#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	MAX_VECTOR = 16,
	FILE_PAGES = 64,
	MAX_THREADS = 2,
	MAX_ROUNDS = 101,
	HOOK_PASSES = 20, /* over all pages, where nothing is copied */
	NR_ROWS = 8
};

struct row {
	bool refusing;
	unsigned vector;
	unsigned nr_threads;
	/* Nanoseconds a page, by round: [direct or not][store or load]. */
	double ns[2][2][MAX_ROUNDS];
};

static struct row rows[NR_ROWS] = {
	{ true, 1, 1 },	 { true, 16, 1 },  { true, 1, 2 },  { true, 16, 2 },
	{ false, 1, 1 }, { false, 16, 1 }, { false, 1, 2 }, { false, 16, 2 },
};
static struct bench_corpus corpus;
static unsigned nr_pages = 16384, nr_rounds = 11;
static char *buffer; /* MAX_VECTOR pages for each thread's loads */

/* One thread's part of one measurement. */
struct worker {
	const struct row *row;
	bool direct, load;
	unsigned first, last; /* pages */
	struct tmem_backend backend;
	tmem_pool_id pool;
	struct tmem_cleancache *cc;
	tmem_cleancache_fs fs;
	char *buffer; /* MAX_VECTOR pages, for loads */
};

static void *page_of(const struct worker *w, unsigned key, unsigned slot)
{
	if (w->load)
		return w->buffer + (size_t)slot * PAGE;
	return corpus.pages + (size_t)corpus.order[key % corpus.nr] * PAGE;
}

static unsigned key_of(const struct worker *w, unsigned i)
{
	return w->load ? corpus.order[i] : i;
}

static void run_direct(const struct worker *w, unsigned at, unsigned nr)
{
	struct tmem_io io[MAX_VECTOR];

	for (unsigned i = 0; i < nr; i++) {
		unsigned key = key_of(w, at + i);

		io[i] = (struct tmem_io){
			.object =
				tmem_cleancache_inode(key / FILE_PAGES).object,
			.index = key % FILE_PAGES,
			.page = page_of(w, key, i),
		};
	}
	if (w->load)
		w->backend.ops->load(w->backend.self, w->pool, io, nr);
	else
		w->backend.ops->store(w->backend.self, w->pool, io, nr);
}

static void run_cleancache(const struct worker *w, unsigned at, unsigned nr)
{
	struct tmem_cleancache_io io[MAX_VECTOR];

	for (unsigned i = 0; i < nr; i++) {
		unsigned key = key_of(w, at + i);

		io[i] = (struct tmem_cleancache_io){
			.file = tmem_cleancache_inode(key / FILE_PAGES),
			.index = key % FILE_PAGES,
			.page = page_of(w, key, i),
		};
	}
	if (w->load)
		tmem_cleancache_load(w->cc, w->fs, io, nr);
	else
		tmem_cleancache_store(w->cc, w->fs, io, nr);
}

static void *work(void *arg)
{
	const struct worker *w = arg;
	unsigned passes = w->row->refusing ? HOOK_PASSES : 1;

	while (passes-- > 0) {
		for (unsigned i = w->first; i < w->last; i += w->row->vector) {
			if (w->direct)
				run_direct(w, i, w->row->vector);
			else
				run_cleancache(w, i, w->row->vector);
		}
	}
	return NULL;
}

/* Nanoseconds a page. */
static double measure(const struct worker *model)
{
	struct worker workers[MAX_THREADS];
	pthread_t threads[MAX_THREADS];
	unsigned nr = model->row->nr_threads, part = nr_pages / nr;
	double start = bench_now(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t pages = nr_pages;

	for (unsigned i = 0; i < nr; i++) {
		workers[i] = *model;
		workers[i].first = i * part;
		workers[i].last = (i + 1) * part;
		workers[i].buffer += (size_t)i * MAX_VECTOR * PAGE;
		if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0)
			bench_die("pthread_create");
	}
	for (unsigned i = 0; i < nr; i++)
		pthread_join(threads[i], NULL);
	if (model->row->refusing)
		pages *= HOOK_PASSES;
	return (bench_now(CLOCK_PROCESS_CPUTIME_ID) - start) * 1e9 /
	       (double)pages;
}

static void run_row(struct row *row, unsigned round)
{
	struct tmem_store_options o = {
		.limit_bytes = (uint64_t)nr_pages * PAGE + (64u << 20),
	};
	struct tmem_pool_options ephemeral = { .flags = TMEM_POOL_EPHEMERAL };
	struct worker w = { .row = row, .buffer = buffer };
	struct tmem_store *store;

	if (tmem_store_open(&o, &store) != 0)
		bench_die("tmem_store_open");
	w.backend = row->refusing ? tmem_backend_refusing()
				  : tmem_store_backend(store);
	if (tmem_cleancache_open(w.backend, &w.cc) != 0 ||
	    tmem_cleancache_init_fs(w.cc, PAGE, &w.fs) != 0 ||
	    w.backend.ops->pool_create(w.backend.self, &ephemeral, &w.pool) !=
		    0)
		bench_die("cannot begin a file system");
	/* The first pass over a new store touches its memory: not measured. */
	for (unsigned pass = row->refusing; pass < 2; pass++) {
		for (unsigned i = 0; i < 4; i++) {
			/* Who is first takes turns. */
			w.direct = (i / 2 + round) % 2;
			w.load = i % 2;
			row->ns[w.direct][w.load][round] = measure(&w);
		}
	}
	tmem_cleancache_close(w.cc);
	tmem_store_close(store);
}

static void print_row(struct row *row, bool json)
{
	double ns[2][2], more[2][MAX_ROUNDS];

	for (unsigned load = 0; load < 2; load++) {
		for (unsigned i = 0; i < nr_rounds; i++)
			more[load][i] =
				row->ns[0][load][i] - row->ns[1][load][i];
		for (unsigned direct = 0; direct < 2; direct++)
			ns[direct][load] =
				bench_median(row->ns[direct][load], nr_rounds);
	}
	if (json)
		printf("{\"bench\": \"cleancache\", \"backend\": \"%s\", "
		       "\"vector\": %u, \"threads\": %u, "
		       "\"store_ns\": %.1f, \"store_direct_ns\": %.1f, "
		       "\"load_ns\": %.1f, \"load_direct_ns\": %.1f}\n",
		       row->refusing ? "refusing" : "store", row->vector,
		       row->nr_threads, ns[0][0], ns[1][0], ns[0][1], ns[1][1]);
	else
		printf("%-8s %6u %7u %9.1f %9.1f %+8.1f %9.1f %9.1f %+8.1f\n",
		       row->refusing ? "refusing" : "store", row->vector,
		       row->nr_threads, ns[0][0], ns[1][0],
		       bench_median(more[0], nr_rounds), ns[0][1], ns[1][1],
		       bench_median(more[1], nr_rounds));
}

int main(int argc, char **argv)
{
	const char *path = NULL;
	bool json = false;
	const struct bench_option options[] = {
		{ "CORPUS", .text = &path },
		{ "--pages N", .number = &nr_pages },
		{ "--rounds N", .number = &nr_rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--json", .flag = &json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
	bench_read_corpus(&corpus, path, nr_pages);
	nr_pages = corpus.nr / (MAX_VECTOR * MAX_THREADS) *
		   (MAX_VECTOR * MAX_THREADS);
	if (nr_pages == 0)
		bench_die("too few pages");
	buffer = bench_map((size_t)MAX_THREADS * MAX_VECTOR * PAGE);
	for (unsigned round = 0; round < nr_rounds; round++)
		for (unsigned i = 0; i < NR_ROWS; i++)
			run_row(&rows[i], round);
	if (!json)
		printf("ns a page  vector threads     store    direct     more"
		       "      load    direct     more\n");
	for (unsigned i = 0; i < NR_ROWS; i++)
		print_row(&rows[i], json);
	return 0;
}
