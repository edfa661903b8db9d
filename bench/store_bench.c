/* SPDX-License-Identifier: MIT */
/*
 * store_bench [CORPUS] [--pages N] [--json] [--rounds N] [--density]
 *
 * What the page store costs beside raw LZ4 and memcpy of the same pages.
 * CORPUS is a file of 4 KiB pages (bench/make-corpus); without one it is made
 * on the spot, of N pages.
 *
 * Every round measures each of these over the whole corpus, one right after
 * the other, so that a busy machine disturbs all of them alike; the figures
 * are medians of the rounds' ratios.  One thread is measured by its CPU time,
 * so that others' load does not count; what two threads gain, by the clock.
 *   store   keys are overwritten with pages drawn from all of the corpus
 *           ("warm") or filled in a new store ("fresh"), vectors of 16;
 *   raw     LZ4 into a scratch, memcpy into an array, warm or fresh alike;
 *   load    in random order, vectors of 16;
 *   raw     LZ4 out of the array into a scratch, memcpy to the caller's page.
 * With two threads each takes half of the pages.
 *
 * --density only fills stores: one with the corpus, as any store is opened, and
 * one with eight times the corpus, without deduplication.  It fails if metadata
 * is above 64 bytes a page in the first or above 48 in the second, or metadata
 * and fragmentation above 12 % of the stored bytes.
 */
#include <lz4.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	VECTOR = 16,
	STEP = 7919,
	SCRATCH = 8 * TMEM_PAGE_SIZE,
	MAX_ROUNDS = 101,
	MAX_THREADS = 2,
	META_BYTES_MAX = 64,
	DENSE_BYTES_MAX = 48,
	DENSE_COPIES = 8,
	OVERHEAD_PERCENT_MAX = 12
};

struct worker;

/* One measured run: threads share the pages evenly. */
struct run {
	void (*fn)(const struct worker *w);
	const struct bench_corpus *corpus;
	struct tmem_backend backend;
	tmem_pool_id pool;
	char *array;	 /* raw: PAGE + 64 bytes a page, filled up densely */
	size_t *offsets; /* raw */
	int *lengths;	 /* raw */
	unsigned shift;	 /* key i gets the i + shift-th of a random order */
	unsigned copy;	 /* part of the keys */
	unsigned nr_threads;
	double cpu;    /* seconds, of all threads */
	unsigned done; /* pages that were accepted or found */
	pthread_barrier_t start;
	pthread_barrier_t stop;
};

/* One of its threads, with its part of the pages. */
struct worker {
	struct run *run;
	unsigned nr;
	unsigned first;
	unsigned end;
	char *scratch;
	double cpu; /* seconds */
};

static char *source(const struct run *run, unsigned i)
{
	unsigned page = (i + run->shift) % run->corpus->nr;

	return run->corpus->pages + (size_t)run->corpus->order[page] * PAGE;
}

/* scratch: LZ4's state, then its output. */
static void raw_store(const struct worker *w)
{
	struct run *run = w->run;
	char *out = w->scratch + sizeof(LZ4_stream_t);
	size_t at = (size_t)w->first * (PAGE + 64);
	unsigned i;

	for (i = w->first; i < w->end; i++) {
		int n = LZ4_compress_fast_extState(w->scratch, source(run, i),
						   out, PAGE, PAGE + 64, 1);

		memcpy(run->array + at, out, (size_t)n);
		run->offsets[i] = at;
		run->lengths[i] = n;
		at += (size_t)n;
	}
}

static void raw_load(const struct worker *w)
{
	struct run *run = w->run;
	char *out = w->scratch + PAGE;
	unsigned i;

	for (i = w->first; i < w->end; i++) {
		unsigned n = run->corpus->order[i];

		if (LZ4_decompress_safe(run->array + run->offsets[n],
					w->scratch, run->lengths[n],
					PAGE) != PAGE)
			bench_die("LZ4");
		memcpy(out, w->scratch, PAGE);
	}
}

static void name(const struct run *run, struct tmem_io *io, unsigned key)
{
	io->object = (struct tmem_object_id){ { key & 15, 7, 0 } };
	io->index = run->copy << 24 | key >> 4;
}

static void tmem_store_run(const struct worker *w)
{
	struct run *run = w->run;
	struct tmem_io io[VECTOR];
	unsigned i, j, n, done = 0;

	for (i = w->first; i < w->end; i += n) {
		n = w->end - i < VECTOR ? w->end - i : VECTOR;
		for (j = 0; j < n; j++) {
			name(run, &io[j], i + j);
			io[j].page = source(run, i + j);
		}
		run->backend.ops->store(run->backend.self, run->pool, io, n);
		for (j = 0; j < n; j++)
			done += io[j].result == 0;
	}
	__atomic_fetch_add(&run->done, done, __ATOMIC_RELAXED);
}

static void tmem_load_run(const struct worker *w)
{
	struct run *run = w->run;
	struct tmem_io io[VECTOR];
	unsigned i, j, n, done = 0;

	for (i = w->first; i < w->end; i += n) {
		n = w->end - i < VECTOR ? w->end - i : VECTOR;
		for (j = 0; j < n; j++) {
			name(run, &io[j], run->corpus->order[i + j]);
			io[j].page = w->scratch + PAGE;
		}
		run->backend.ops->load(run->backend.self, run->pool, io, n);
		for (j = 0; j < n; j++)
			done += io[j].result == 0;
	}
	__atomic_fetch_add(&run->done, done, __ATOMIC_RELAXED);
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct run *run = w->run;
	unsigned share = run->corpus->nr / run->nr_threads;

	w->first = w->nr * share;
	w->end = w->first + share;
	if (w->nr + 1 == run->nr_threads)
		w->end = run->corpus->nr;
	w->scratch = aligned_alloc(64, SCRATCH);
	if (!w->scratch)
		bench_die("scratch");
	memset(w->scratch, 0, SCRATCH);
	pthread_barrier_wait(&run->start);
	w->cpu = bench_now(CLOCK_THREAD_CPUTIME_ID);
	run->fn(w);
	w->cpu = bench_now(CLOCK_THREAD_CPUTIME_ID) - w->cpu;
	pthread_barrier_wait(&run->stop);
	free(w->scratch);
	return NULL;
}

/* Nanoseconds a page, by the clock; run->cpu: by CPU time. */
static double measure(struct run *run, void (*fn)(const struct worker *))
{
	pthread_t threads[MAX_THREADS] = { 0 };
	struct worker workers[MAX_THREADS] = { 0 };
	double start, took;
	unsigned i;

	run->fn = fn;
	run->done = 0;
	pthread_barrier_init(&run->start, NULL, run->nr_threads + 1);
	pthread_barrier_init(&run->stop, NULL, run->nr_threads + 1);
	for (i = 0; i < run->nr_threads; i++) {
		workers[i] = (struct worker){ .run = run, .nr = i };
		if (pthread_create(&threads[i], NULL, work, &workers[i]))
			bench_die("pthread_create");
	}
	pthread_barrier_wait(&run->start);
	start = bench_now(CLOCK_MONOTONIC);
	pthread_barrier_wait(&run->stop);
	took = bench_now(CLOCK_MONOTONIC) - start;
	run->cpu = 0;
	for (i = 0; i < run->nr_threads; i++) {
		pthread_join(threads[i], NULL);
		run->cpu += workers[i].cpu;
	}
	run->cpu *= 1e9 / run->corpus->nr;
	pthread_barrier_destroy(&run->start);
	pthread_barrier_destroy(&run->stop);
	return took * 1e9 / run->corpus->nr;
}

/* Stores to measure. */

static struct tmem_store *open_store(struct run *run, unsigned copies,
				     int no_dedup)
{
	/* Never near full: the policy for that is not what is measured. */
	struct tmem_store_options options = {
		.limit_bytes = (uint64_t)run->corpus->nr * PAGE * 4 * copies +
			       (64u << 20),
		.no_dedup = no_dedup,
	};
	struct tmem_backend backend;
	struct tmem_store *store;

	if (tmem_store_open(&options, &store) < 0)
		bench_die("tmem_store_open");
	backend = tmem_store_backend(store);
	backend.ops->pool_create(backend.self, NULL, &run->pool);
	run->backend = backend;
	return store;
}

static void verify(struct run *run)
{
	struct tmem_io io;
	char page[PAGE];
	unsigned i;

	for (i = 0; i < run->corpus->nr; i++) {
		name(run, &io, i);
		io.page = page;
		run->backend.ops->load(run->backend.self, run->pool, &io, 1);
		if (io.result != 0 || memcmp(page, source(run, i), PAGE) != 0) {
			fprintf(stderr, "store_bench: page %u is wrong\n", i);
			exit(1);
		}
	}
}

/* What one round measured; only doubles, so that medians are a loop. */
struct round {
	/* ns a page, CPU time of one thread */
	double raw_store, store, raw_load, load, raw_fresh, fresh, refused;
	double store_ratio, load_ratio, fresh_ratio;
	/* one thread's time by two threads', by the clock */
	double store_scaling, load_scaling, raw_scaling, raw_load_scaling;
};

struct density {
	double meta_bytes, fragmentation_percent, overhead_percent, ratio;
};

static void all_done(const struct run *run)
{
	if (run->done == run->corpus->nr)
		return;
	fprintf(stderr, "store_bench: %u pages of %u\n", run->done,
		run->corpus->nr);
	exit(1);
}

static void fresh_pass(struct run *run, struct round *r)
{
	size_t bytes = (size_t)run->corpus->nr * (PAGE + 64);
	struct run other = *run;
	struct tmem_store *store;

	other.nr_threads = 1;
	other.array = bench_map(bytes);
	measure(&other, raw_store);
	r->raw_fresh = other.cpu;
	munmap(other.array, bytes);
	store = open_store(&other, 1, 1);
	measure(&other, tmem_store_run);
	r->fresh = other.cpu;
	tmem_store_close(store);
	other.backend = tmem_backend_refusing();
	other.backend.ops->pool_create(other.backend.self, NULL, &other.pool);
	measure(&other, tmem_store_run);
	r->refused = other.cpu;
}

/*
 * Two threads, then one: returns what two gain, and one's CPU time.  `step`:
 * how far the pages move on among the keys before each.
 */
static double scaling(struct run *run, void (*fn)(const struct worker *),
		      unsigned step, double *ret_cpu)
{
	double two;

	run->nr_threads = 2;
	run->shift += step;
	two = measure(run, fn);
	run->nr_threads = 1;
	run->shift += step;
	two = measure(run, fn) / two;
	*ret_cpu = run->cpu;
	return two;
}

static void one_round(struct run *run, struct round *r)
{
	r->raw_scaling = scaling(run, raw_store, STEP, &r->raw_store);
	r->store_scaling = scaling(run, tmem_store_run, STEP, &r->store);
	all_done(run);
	r->raw_load_scaling = scaling(run, raw_load, 0, &r->raw_load);
	r->load_scaling = scaling(run, tmem_load_run, 0, &r->load);
	all_done(run);
	fresh_pass(run, r);
	r->store_ratio = r->store / r->raw_store;
	r->load_ratio = r->load / r->raw_load;
	r->fresh_ratio = r->fresh / r->raw_fresh;
}

static struct round summarize(const struct round *rounds, unsigned nr)
{
	struct round result;

	bench_medians(rounds, nr, sizeof(result) / sizeof(double), &result);
	return result;
}

/* Fills the store and tells what it holds beside the stored bytes. */
static void density(struct run *run, unsigned copies, struct density *f)
{
	struct tmem_stats s;
	double stored, headers, meta, held;

	for (run->copy = copies; run->copy-- > 0;)
		measure(run, tmem_store_run);
	run->copy = 0;
	run->backend.ops->stats(run->backend.self, &s);
	stored = (double)s.stored_bytes;
	headers = 24.0 * (double)s.pages;
	held = (double)(s.held_bytes - s.scratch_bytes - s.fixed_bytes);
	meta = (double)s.meta_bytes + headers;
	f->meta_bytes = meta / (double)s.pages;
	f->fragmentation_percent =
		((double)s.data_bytes - stored - headers) * 100 / stored;
	f->overhead_percent = (held - stored) * 100 / stored;
	f->ratio = (double)s.pages * PAGE / held;
}

static void density_pass(const struct run *run, unsigned copies, int no_dedup,
			 struct density *f)
{
	struct run other = *run;
	struct tmem_store *store = open_store(&other, copies, no_dedup);

	density(&other, copies, f);
	tmem_store_check(store);
	tmem_store_close(store);
}

static void print_text(const struct round *f, unsigned nr, unsigned rounds)
{
	printf("%u pages, %u rounds; ns a page, medians\n", nr, rounds);
	printf("            raw LZ4    tmem   ratio  2 threads\n");
	printf("store       %7.0f %7.0f  %5.2fx  %5.2fx (raw %.2fx)\n",
	       f->raw_store, f->store, f->store_ratio, f->store_scaling,
	       f->raw_scaling);
	printf("store fresh %7.0f %7.0f  %5.2fx\n", f->raw_fresh, f->fresh,
	       f->fresh_ratio);
	printf("load        %7.0f %7.0f  %5.2fx  %5.2fx (raw %.2fx)\n",
	       f->raw_load, f->load, f->load_ratio, f->load_scaling,
	       f->raw_load_scaling);
	printf("refusing backend: %.1f ns a store\n", f->refused);
}

static void print_density(const char *what, const struct density *f)
{
	printf("%s: metadata %.1f bytes a page, fragmentation %.1f %%, both %.1f %%"
	       " of the stored bytes; pages to memory held %.2f\n",
	       what, f->meta_bytes, f->fragmentation_percent,
	       f->overhead_percent, f->ratio);
}

static void print_json(const struct round *f, const struct density *d,
		       const struct density *dense, unsigned nr,
		       unsigned rounds)
{
	printf("{\"bench\": \"store\", \"pages\": %u, \"rounds\": %u, ", nr,
	       rounds);
	printf("\"raw_store_ns\": %.1f, \"store_ns\": %.1f, "
	       "\"store_ratio\": %.3f, \"store_scaling_2\": %.3f, ",
	       f->raw_store, f->store, f->store_ratio, f->store_scaling);
	printf("\"raw_fresh_ns\": %.1f, \"fresh_ns\": %.1f, "
	       "\"fresh_ratio\": %.3f, ",
	       f->raw_fresh, f->fresh, f->fresh_ratio);
	printf("\"raw_load_ns\": %.1f, \"load_ns\": %.1f, "
	       "\"load_ratio\": %.3f, \"load_scaling_2\": %.3f, ",
	       f->raw_load, f->load, f->load_ratio, f->load_scaling);
	printf("\"raw_scaling_2\": %.3f, \"raw_load_scaling_2\": %.3f, "
	       "\"refused_ns\": %.2f, ",
	       f->raw_scaling, f->raw_load_scaling, f->refused);
	printf("\"meta_bytes_per_page\": %.2f, "
	       "\"fragmentation_percent\": %.2f, "
	       "\"overhead_percent\": %.2f, \"held_ratio\": %.3f, "
	       "\"dense_meta_bytes_per_page\": %.2f}\n",
	       d->meta_bytes, d->fragmentation_percent, d->overhead_percent,
	       d->ratio, dense->meta_bytes);
}

struct options {
	const char *path;
	bool json;
	bool density;
	unsigned rounds;
	unsigned pages;
};

static void parse(int argc, char **argv, struct options *o)
{
	const struct bench_option options[] = {
		{ "CORPUS", .text = &o->path },
		{ "--pages N", .number = &o->pages, .min = 1000 },
		{ "--json", .flag = &o->json },
		{ "--rounds N", .number = &o->rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--density", .flag = &o->density },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
}

static bool dense_enough(const struct density *f, double most)
{
	return f->meta_bytes <= most &&
	       f->overhead_percent <= OVERHEAD_PERCENT_MAX;
}

int main(int argc, char **argv)
{
	static struct round rounds[MAX_ROUNDS];
	struct options o = { .pages = 20000, .rounds = 9 };
	struct bench_corpus corpus = { 0 };
	struct density usual = { 0 }, dense = { 0 };
	struct round median_round = { 0 };
	struct tmem_store *store;
	struct run run = { .corpus = &corpus, .nr_threads = 1 };
	unsigned i;

	parse(argc, argv, &o);
	bench_read_corpus(&corpus, o.path, o.pages);
	run.array = bench_map((size_t)corpus.nr * (PAGE + 64));
	run.offsets = bench_map(corpus.nr * sizeof(size_t));
	run.lengths = bench_map(corpus.nr * sizeof(int));
	density_pass(&run, 1, 0, &usual);
	density_pass(&run, DENSE_COPIES, 1, &dense);
	/* What is raced here is the form of a page, not its being there. */
	store = open_store(&run, 1, 1);
	measure(&run, tmem_store_run);
	verify(&run);
	for (i = 0; i < (o.density ? 0 : o.rounds); i++)
		one_round(&run, &rounds[i]);
	if (!o.density) {
		median_round = summarize(rounds, o.rounds);
		verify(&run);
	}
	tmem_store_check(store);
	tmem_store_close(store);
	if (o.json) {
		print_json(&median_round, &usual, &dense, corpus.nr, o.rounds);
	} else {
		if (!o.density)
			print_text(&median_round, corpus.nr, o.rounds);
		print_density("with deduplication", &usual);
		print_density("without, eight times as many", &dense);
	}
	return o.density && !(dense_enough(&usual, META_BYTES_MAX) &&
			      dense_enough(&dense, DENSE_BYTES_MAX));
}
