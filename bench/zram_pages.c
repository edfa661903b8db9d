/* SPDX-License-Identifier: MIT */
/*
 * zram_pages /dev/zramN [CORPUS] [--pages N] [--rounds N] [--json]
 *	[--parts FILE]
 *
 * The page store beside a zram device that bench/zram_pages has set up: the
 * same pages of the memory of real programs, written and read.
 *
 *   zram   pwrite and pread with O_DIRECT, 4096 bytes each; and its best case,
 *          io_uring, 8 at a time, file and buffers registered
 *   store  vectors of 1, beside pwrite and pread, and of 8, beside io_uring
 *
 * Writes overwrite all pages in order with pages drawn from all of the corpus;
 * reads are in random order.  Every round measures each way with one and with
 * two threads, one right after the other; figures are medians of the rounds,
 * ratios medians of the rounds' ratios.  Time is by the clock, with one thread
 * also CPU time, which others' load does not change.
 *
 * Memory is compared when all pages have been written once, and at the end:
 * all that the store holds, to zram's mem_used_total, which leaves out zram's
 * table (16 bytes a page of the device).  And that of stores of their own that
 * may learn and cool (density.h): each program's pages, as --parts has them,
 * are a pool.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "bench.h"
#include "density.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	DEPTH = 8,
	STEP = 7919,
	MAX_ROUNDS = 101,
	MAX_THREADS = 2
};

enum way {
	ZRAM,
	RING,
	STORE_1,
	STORE_8,
	NR_WAYS
};

static const char *const way_names[NR_WAYS] = { "zram", "zram_uring", "store_1",
						"store_8" };

struct bench {
	struct bench_corpus corpus;
	int fd;
	struct io_uring rings[MAX_THREADS];
	char *buffers; /* DEPTH pages for each thread */
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pool;
	unsigned shift[2]; /* of zram's and of the store's pages */
	enum way way;
	bool reading;
	unsigned nr_threads;
	pthread_barrier_t barrier;
	double cpu; /* ns a page of what was measured last */
};

struct worker {
	struct bench *bench;
	unsigned nr;
};

static char *source(const struct bench *b, unsigned i)
{
	unsigned page = (i + b->shift[b->way >= STORE_1]) % b->corpus.nr;

	return b->corpus.pages + (size_t)b->corpus.order[page] * PAGE;
}

static void name(struct tmem_io *io, unsigned key)
{
	io->object = (struct tmem_object_id){ { key & 15, 7, 0 } };
	io->index = key >> 4;
}

/* nr pages from the i-th in order; `buffer` is for what is read. */
static void do_store(const struct bench *b, unsigned i, unsigned nr,
		     char *buffer)
{
	struct tmem_io io[DEPTH];
	unsigned j;

	for (j = 0; j < nr; j++) {
		name(&io[j], b->reading ? b->corpus.order[i + j] : i + j);
		io[j].page = b->reading ? buffer + (size_t)j * PAGE
					: source(b, i + j);
	}
	if (b->reading)
		b->backend.ops->load(b->backend.self, b->pool, io, nr);
	else
		b->backend.ops->store(b->backend.self, b->pool, io, nr);
	for (j = 0; j < nr; j++) {
		if (io[j].result == 0)
			continue;
		fprintf(stderr, "zram_pages: page refused or lost\n");
		exit(1);
	}
}

static void do_zram(const struct bench *b, unsigned i, char *buffer)
{
	ssize_t n;

	if (b->reading)
		n = pread(b->fd, buffer, PAGE,
			  (off_t)b->corpus.order[i] * PAGE);
	else
		n = pwrite(b->fd, source(b, i), PAGE, (off_t)i * PAGE);
	if (n != PAGE)
		bench_die("zram");
}

static void do_ring(struct bench *b, unsigned i, unsigned nr, struct worker *w)
{
	struct io_uring *ring = &b->rings[w->nr];
	struct io_uring_cqe *cqe;
	unsigned j;

	for (j = 0; j < nr; j++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
		size_t slot = (size_t)w->nr * DEPTH + j;

		if (b->reading)
			io_uring_prep_read_fixed(
				sqe, 0, b->buffers + slot * PAGE, PAGE,
				(uint64_t)b->corpus.order[i + j] * PAGE, 1);
		else
			io_uring_prep_write_fixed(sqe, 0, source(b, i + j),
						  PAGE,
						  (uint64_t)(i + j) * PAGE, 0);
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	if (io_uring_submit_and_wait(ring, nr) != (int)nr)
		bench_die("io_uring");
	for (j = 0; j < nr; j++) {
		if (io_uring_wait_cqe(ring, &cqe) || cqe->res != PAGE)
			bench_die("io_uring: zram");
		io_uring_cqe_seen(ring, cqe);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct bench *b = w->bench;
	unsigned share = b->corpus.nr / b->nr_threads, i = w->nr * share;
	unsigned end = w->nr + 1 == b->nr_threads ? b->corpus.nr : i + share;
	char *buffer = b->buffers + (size_t)w->nr * DEPTH * PAGE;
	unsigned step = b->way == ZRAM || b->way == STORE_1 ? 1 : DEPTH, n;

	pthread_barrier_wait(&b->barrier);
	for (; i < end; i += n) {
		n = end - i < step ? end - i : step;
		if (b->way == ZRAM)
			do_zram(b, i, buffer);
		else if (b->way == RING)
			do_ring(b, i, n, w);
		else
			do_store(b, i, n, buffer);
	}
	pthread_barrier_wait(&b->barrier);
	return NULL;
}

/* Nanoseconds a page, by the clock. */
static double measure(struct bench *b, enum way way, bool reading,
		      unsigned nr_threads)
{
	struct worker workers[MAX_THREADS];
	pthread_t threads[MAX_THREADS] = { 0 };
	double start, cpu;
	unsigned i;

	b->way = way;
	b->reading = reading;
	b->nr_threads = nr_threads;
	if (!reading)
		b->shift[way >= STORE_1] += STEP;
	pthread_barrier_init(&b->barrier, NULL, nr_threads + 1);
	for (i = 0; i < nr_threads; i++) {
		workers[i] = (struct worker){ b, i };
		if (pthread_create(&threads[i], NULL, work, &workers[i]))
			bench_die("pthread_create");
	}
	pthread_barrier_wait(&b->barrier);
	cpu = bench_now(CLOCK_PROCESS_CPUTIME_ID);
	start = bench_now(CLOCK_MONOTONIC);
	pthread_barrier_wait(&b->barrier);
	start = bench_now(CLOCK_MONOTONIC) - start;
	cpu = bench_now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	for (i = 0; i < nr_threads; i++)
		pthread_join(threads[i], NULL);
	pthread_barrier_destroy(&b->barrier);
	b->cpu = cpu * 1e9 / b->corpus.nr;
	return start * 1e9 / b->corpus.nr;
}

static void verify(struct bench *b)
{
	struct worker w = { b, 0 };
	char *page = b->buffers;
	unsigned i;

	b->reading = true;
	for (i = 0; i < b->corpus.nr; i++) {
		unsigned key = b->corpus.order[i];

		for (b->way = ZRAM; b->way < NR_WAYS; b->way++) {
			memset(page, 0x5a, PAGE);
			if (b->way == ZRAM)
				do_zram(b, i, page);
			else if (b->way == RING)
				do_ring(b, i, 1, &w);
			else
				do_store(b, i, 1, page);
			if (!memcmp(page, source(b, key), PAGE))
				continue;
			fprintf(stderr, "zram_pages: page %u is wrong\n", key);
			exit(1);
		}
	}
}

/* Memory. */

struct memory {
	double zram, store; /* bytes */
};

static struct memory memory(const struct bench *b, const char *device)
{
	unsigned long long used = 0;
	struct tmem_stats stats;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/%s/mm_stat",
		 strrchr(device, '/') + 1);
	f = fopen(path, "re");
	if (!f || fscanf(f, "%*u %*u %llu", &used) != 1)
		bench_die(path);
	fclose(f);
	b->backend.ops->stats(b->backend.self, &stats);
	return (struct memory){ (double)used, (double)stats.held_bytes };
}

/* Rounds. */

/* [0]: writes, [1]: reads; then threads - 1; ns a page by the clock. */
struct round {
	double ns[2][MAX_THREADS][NR_WAYS];
	double cpu[2][NR_WAYS]; /* one thread */
};

static void one_round(struct bench *b, struct round *r)
{
	unsigned reading, threads, way;

	for (reading = 0; reading < 2; reading++) {
		for (threads = MAX_THREADS; threads > 0; threads--) {
			for (way = 0; way < NR_WAYS; way++)
				r->ns[reading][threads - 1][way] = measure(
					b, (enum way)way, reading, threads);
		}
	}
	/* The same again with one thread, for its CPU time. */
	for (reading = 0; reading < 2; reading++) {
		for (way = 0; way < NR_WAYS; way++) {
			measure(b, (enum way)way, reading, 1);
			r->cpu[reading][way] = b->cpu;
		}
	}
}

/* The median over the rounds of values, `bytes` into a round; or of ratios. */
static double median(const struct round *rounds, unsigned nr, size_t bytes,
		     size_t divisor)
{
	double values[MAX_ROUNDS], by;
	unsigned i;

	for (i = 0; i < nr; i++) {
		const char *round = (const char *)&rounds[i];

		memcpy(&values[i], round + bytes, sizeof(double));
		if (divisor == SIZE_MAX)
			continue;
		memcpy(&by, round + divisor, sizeof(double));
		values[i] /= by;
	}
	return bench_median(values, nr);
}

static size_t at_ns(unsigned reading, unsigned threads, enum way way)
{
	return offsetof(struct round, ns) +
	       ((reading * MAX_THREADS + threads - 1) * NR_WAYS + way) *
		       sizeof(double);
}

static size_t at_cpu(unsigned reading, enum way way)
{
	return offsetof(struct round, cpu) +
	       (reading * NR_WAYS + way) * sizeof(double);
}

static void print_line(const struct round *rounds, unsigned nr,
		       unsigned reading, unsigned threads, bool json)
{
	const char *what = reading ? "read" : "write";
	double figures[NR_WAYS], one, eight;
	unsigned way;

	for (way = 0; way < NR_WAYS; way++)
		figures[way] = median(rounds, nr,
				      threads ? at_ns(reading, threads, way)
					      : at_cpu(reading, way),
				      SIZE_MAX);
	one = median(rounds, nr,
		     threads ? at_ns(reading, threads, ZRAM)
			     : at_cpu(reading, ZRAM),
		     threads ? at_ns(reading, threads, STORE_1)
			     : at_cpu(reading, STORE_1));
	eight = median(rounds, nr,
		       threads ? at_ns(reading, threads, RING)
			       : at_cpu(reading, RING),
		       threads ? at_ns(reading, threads, STORE_8)
			       : at_cpu(reading, STORE_8));
	if (json) {
		for (way = 0; way < NR_WAYS; way++)
			printf(", \"%s_%s_ns_%u\": %.1f", way_names[way], what,
			       threads, figures[way]);
		printf(", \"%s_ratio_1_%u\": %.3f, \"%s_ratio_8_%u\": %.3f",
		       what, threads, one, what, threads, eight);
		return;
	}
	printf("%-5s %-9s %8.0f %8.0f %6.2fx %8.0f %8.0f %6.2fx\n", what,
	       threads == 0   ? "CPU"
	       : threads == 1 ? "1 thread"
			      : "2 threads",
	       figures[ZRAM], figures[STORE_1], one, figures[RING],
	       figures[STORE_8], eight);
}

static void print(const struct bench *b, const struct round *rounds,
		  unsigned nr, const struct memory m[2], bool json)
{
	double gib = (double)b->corpus.nr * PAGE / (1 << 30);
	unsigned reading, threads, i;

	if (json)
		printf("{\"bench\": \"zram_pages\", \"pages\": %u, "
		       "\"rounds\": %u",
		       b->corpus.nr, nr);
	else
		printf("%u pages, %u rounds; ns a page, medians; by the clock, "
		       "and CPU time of one thread\n"
		       "                    zram  store 1          uring 8"
		       "  store 8\n",
		       b->corpus.nr, nr);
	for (reading = 0; reading < 2; reading++) {
		for (threads = 0; threads <= MAX_THREADS; threads++)
			print_line(rounds, nr, reading, threads, json);
	}
	for (i = 0; i < 2; i++) {
		const char *when = i ? "rewritten" : "fresh";

		if (json)
			printf(", \"zram_%s_bytes\": %.0f, "
			       "\"store_%s_bytes\": %.0f",
			       when, m[i].zram, when, m[i].store);
		else
			printf("RAM per GiB stored, %s: zram %.1f MiB, store "
			       "%.1f MiB: %.3fx\n",
			       when, m[i].zram / gib / (1 << 20),
			       m[i].store / gib / (1 << 20),
			       m[i].store / m[i].zram);
	}
}

/* Of zram's memory for the same pages, written once. */
static void print_density(const struct bench *b, const struct density *d,
			  double zram, bool json)
{
	double gib = (double)b->corpus.nr * PAGE / (1 << 30);
	double held = (double)d->stats.held_bytes;

	if (json) {
		printf(", \"store_%s_bytes\": %.0f, \"store_%s_cpu_s\": %.2f",
		       d->name, held, d->name,
		       (double)d->stats.recompress_ns / 1e9);
		return;
	}
	printf("%-34s %6.1f MiB, of zram's %.3f (target, lz4: %.2f); "
	       "%llu dictionaries of %llu KiB, %.1f us of CPU a page\n",
	       d->text, held / gib / (1 << 20), held / zram, d->target,
	       (unsigned long long)d->stats.dicts,
	       (unsigned long long)d->stats.dict_bytes / 1024,
	       (double)d->stats.recompress_ns / 1e3 / b->corpus.nr);
}

/* Setting up. */

static void open_all(struct bench *b, const char *device)
{
	struct tmem_store_options options = { 0 };
	struct iovec iov[2];
	unsigned i;

	b->buffers = bench_map((size_t)MAX_THREADS * DEPTH * PAGE);
	b->fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (b->fd < 0)
		bench_die(device);
	iov[0].iov_base = b->corpus.pages;
	iov[0].iov_len = (size_t)b->corpus.nr * PAGE;
	iov[1].iov_base = b->buffers;
	iov[1].iov_len = (size_t)MAX_THREADS * DEPTH * PAGE;
	for (i = 0; i < MAX_THREADS; i++) {
		int r = io_uring_queue_init(DEPTH, &b->rings[i], 0);

		if (!r)
			r = io_uring_register_buffers(&b->rings[i], iov, 2);
		if (!r)
			r = io_uring_register_files(&b->rings[i], &b->fd, 1);
		errno = -r;
		if (r)
			bench_die("io_uring");
	}
	/*
	 * Never near full: the policy for that is not what is measured.  Nor is
	 * it how fast a page is that is there already.
	 */
	options.limit_bytes = (uint64_t)b->corpus.nr * PAGE * 4 + (64u << 20);
	options.no_dedup = 1;
	if (tmem_store_open(&options, &b->store) < 0)
		bench_die("tmem_store_open");
	b->backend = tmem_store_backend(b->store);
	b->backend.ops->pool_create(b->backend.self, NULL, &b->pool);
}

/* The rings first: a process that just ends leaves the device busy. */
static void close_all(struct bench *b)
{
	unsigned i;

	for (i = 0; i < MAX_THREADS; i++) {
		io_uring_unregister_files(&b->rings[i]);
		io_uring_unregister_buffers(&b->rings[i]);
		io_uring_queue_exit(&b->rings[i]);
	}
	close(b->fd);
	tmem_store_close(b->store);
}

struct options {
	const char *device;
	const char *corpus;
	const char *parts;
	unsigned pages, rounds;
	bool json;
};

static void parse(int argc, char **argv, struct options *o)
{
	const struct bench_option options[] = {
		{ "/dev/zramN", .text = &o->device },
		{ "CORPUS", .text = &o->corpus },
		{ "--pages N", .number = &o->pages },
		{ "--rounds N", .number = &o->rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--json", .flag = &o->json },
		{ "--parts FILE", .text = &o->parts },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
	if (!o->device) {
		fputs("zram_pages: which device?\n", stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static struct round rounds[MAX_ROUNDS];
	static struct density densities[DENSITY_WAYS];
	static struct bench b;
	struct options o = { .pages = 20000, .rounds = 7 };
	struct memory m[2];
	unsigned i;

	parse(argc, argv, &o);
	bench_read_corpus(&b.corpus, o.corpus, o.pages);
	open_all(&b, o.device);
	measure(&b, ZRAM, false, 1);
	measure(&b, STORE_8, false, 1);
	m[0] = memory(&b, o.device);
	for (i = 0; i < o.rounds; i++)
		one_round(&b, &rounds[i]);
	verify(&b);
	m[1] = memory(&b, o.device);
	print(&b, rounds, o.rounds, m, o.json);
	density_measure(&b.corpus, o.parts, densities);
	for (i = 0; i < DENSITY_WAYS; i++)
		print_density(&b, &densities[i], m[0].zram, o.json);
	if (o.json)
		printf("}\n");
	close_all(&b);
	return 0;
}
