/* SPDX-License-Identifier: MIT */
/*
 * paging_job CORPUS MIB SECONDS THREADS WRITES PATTERN...
 *
 * Fills MIB of memory with pages of the corpus, then touches them for SECONDS
 * in each pattern, WRITES percent of the touches being writes.  Each touch is
 * timed by itself, and the page's number and version are checked.  Prints a
 * line of JSON for each pattern: touches a second, and of those touches that
 * took longer than a resident page can take (faults) how many there were and
 * their median, 99th percentile and maximum; and the CPU time of a touch, the
 * pager's included, which the load of the machine changes less.
 *
 *   seq        upwards, over and over        back     downwards
 *   stride     every 5th page, then the next 5th
 *   two        two sequences by turns, one upwards and one downwards
 *   blocks     8 pages in a row at a random place
 *   random     uniform
 *   zipf       exponent 0.99, the popular pages spread over the memory
 *   scan+zipf  three of zipf, then one of a sequence
 *
 * Every thread has its own part of the memory.
 */
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#include "bench.h"

enum {
	PAGE = 4096,
	WORDS = PAGE / 8,
	MAX_THREADS = 64,
	STRIDE = 5,
	BLOCK = 8,
	SUB = 32, /* buckets for each doubling */
	BUCKETS = 40 * SUB,
	CHECK_TIME = 64
};

/* Between a touch of a resident page and a fault, in ns. */
#define FAULT_NS 1500.0
#define THETA	 0.99

struct job {
	uint64_t *pages;
	uint16_t *version;
	uint64_t nr_pages;
	double seconds;
	unsigned writes; /* percent */
	double ticks_a_ns;
	double zeta;
	clockid_t pager; /* its CPU time; 0: none */
	const char *pattern;
	pthread_barrier_t barrier;
};

struct worker {
	struct job *job;
	pthread_t thread;
	uint64_t first, nr; /* its part */
	uint64_t rng;
	uint64_t step, scan;
	uint64_t touches;
	uint64_t all_touches; /* with those before it is measured */
	double max_ns;
	uint64_t faults;
	uint64_t bucket[BUCKETS];
};

static uint64_t next_random(uint64_t *rng)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return *rng;
}

/* As YCSB has it; then spread by a step that has no factor in common. */
static uint64_t zipf(struct worker *w)
{
	double n = (double)w->nr, alpha = 1 / (1 - THETA);
	double zeta2 = 1 + pow(0.5, THETA);
	double eta = (1 - pow(2 / n, 1 - THETA)) / (1 - zeta2 / w->job->zeta);
	double u = (double)(next_random(&w->rng) >> 11) / 9007199254740992.0;
	double uz = u * w->job->zeta;
	uint64_t rank;

	if (uz < 1)
		rank = 0;
	else if (uz < zeta2)
		rank = 1;
	else
		rank = (uint64_t)(n * pow(eta * u - eta + 1, alpha));
	return rank % w->nr * 2654435761u % w->nr;
}

static uint64_t scan(struct worker *w)
{
	return w->scan++ % w->nr;
}

static uint64_t next_page(struct worker *w)
{
	const char *p = w->job->pattern;
	uint64_t i = w->step++;

	switch (p[0] + p[1]) {
	case 's' + 'e':
		return i % w->nr;
	case 'b' + 'a':
		return w->nr - 1 - i % w->nr;
	case 's' + 't':
		i %= w->nr / STRIDE * STRIDE;
		return i * STRIDE % (w->nr / STRIDE * STRIDE) +
		       i / (w->nr / STRIDE);
	case 't' + 'w':
		return i % 2 ? w->nr - 1 - i / 2 % w->nr : i / 2 % w->nr;
	case 'b' + 'l':
		if (i % BLOCK == 0)
			w->scan = next_random(&w->rng) % w->nr;
		return scan(w);
	case 'z' + 'i':
		return zipf(w);
	case 's' + 'c':
		return i % 4 ? zipf(w) : scan(w);
	default:
		return next_random(&w->rng) % w->nr;
	}
}

static void note(struct worker *w, double ns)
{
	int b;

	w->touches++;
	w->all_touches++;
	if (ns < FAULT_NS)
		return;
	w->faults++;
	if (ns > w->max_ns)
		w->max_ns = ns;
	b = (int)(log2(ns) * SUB);
	w->bucket[b < BUCKETS ? b : BUCKETS - 1]++;
}

static uint64_t mark_of(uint64_t page, uint16_t version)
{
	return (page + 1) * 0x9e3779b97f4a7c15ull + version;
}

static void touch(struct worker *w)
{
	struct job *job = w->job;
	uint64_t page = w->first + next_page(w), r = next_random(&w->rng);
	volatile uint64_t *at = job->pages + page * WORDS;
	bool writes = r % 100 < job->writes;
	uint64_t start = __rdtsc(), found;

	found = at[0];
	(void)at[1 + (r >> 32) % (WORDS - 1)];
	if (writes)
		at[0] = mark_of(page, ++job->version[page]);
	note(w, (double)(__rdtsc() - start) / job->ticks_a_ns);
	if (found != mark_of(page, (uint16_t)(job->version[page] - writes))) {
		fprintf(stderr, "page %" PRIu64 " is wrong\n", page);
		exit(1);
	}
}

static void touch_for(struct worker *w, double seconds)
{
	double end = bench_now(CLOCK_MONOTONIC) + seconds;
	unsigned i;

	do {
		for (i = 0; i < CHECK_TIME; i++)
			touch(w);
	} while (bench_now(CLOCK_MONOTONIC) < end);
}

static void *work(void *arg)
{
	struct worker *w = arg;

	touch_for(w, w->job->seconds / 3);
	w->touches = w->faults = 0;
	w->max_ns = 0;
	memset(w->bucket, 0, sizeof(w->bucket));
	pthread_barrier_wait(&w->job->barrier);
	touch_for(w, w->job->seconds);
	return NULL;
}

static double percentile(const uint64_t *bucket, uint64_t nr, double part)
{
	uint64_t want = (uint64_t)((double)nr * part), sum = 0;
	int i;

	for (i = 0; i < BUCKETS - 1 && sum + bucket[i] <= want; i++)
		sum += bucket[i];
	return nr ? exp2((i + 0.5) / SUB) / 1000 : 0;
}

/* The CPU clock of the process that shares our memory, if there is one. */
static clockid_t find_pager(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	clockid_t clock = 0;
	pid_t pid;

	if (!proc)
		return 0;
	while ((e = readdir(proc))) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		pid = (pid_t)strtol(e->d_name, NULL, 10);
		if (pid != getpid() &&
		    syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0) == 0)
			clock_getcpuclockid(pid, &clock);
	}
	closedir(proc);
	return clock;
}

static double cpu_seconds(const struct job *job)
{
	return bench_now(CLOCK_PROCESS_CPUTIME_ID) +
	       (job->pager ? bench_now(job->pager) : 0);
}

static void run(struct job *job, unsigned nr_threads, const char *pattern)
{
	static struct worker worker[MAX_THREADS];
	struct worker *all = &worker[0];
	unsigned i, k;
	double cpu;

	job->pattern = pattern;
	pthread_barrier_init(&job->barrier, NULL, nr_threads);
	memset(worker, 0, sizeof(worker));
	for (i = 0; i < nr_threads; i++) {
		struct worker *w = &worker[i];

		w->job = job;
		w->nr = job->nr_pages / nr_threads;
		w->first = i * w->nr;
		w->rng = 88172645463325252ull + i;
	}
	/* The first runs here: one thread is a program without threads. */
	for (i = 1; i < nr_threads; i++)
		if (pthread_create(&worker[i].thread, NULL, work, &worker[i]))
			bench_die("pthread_create");
	cpu = cpu_seconds(job);
	work(&worker[0]);
	for (i = 1; i < nr_threads; i++) {
		pthread_join(worker[i].thread, NULL);
		all->touches += worker[i].touches;
		all->faults += worker[i].faults;
		all->max_ns = fmax(all->max_ns, worker[i].max_ns);
		all->all_touches += worker[i].all_touches;
		for (k = 0; k < BUCKETS; k++)
			all->bucket[k] += worker[i].bucket[k];
	}
	cpu = cpu_seconds(job) - cpu;
	printf("{\"pattern\": \"%s\", \"rate\": %.0f, \"faults\": %" PRIu64
	       ", \"fault_rate\": %.0f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
	       "\"max_us\": %.0f, \"cpu_us\": %.3f}\n",
	       pattern, (double)all->touches / job->seconds, all->faults,
	       (double)all->faults / job->seconds,
	       percentile(all->bucket, all->faults, 0.5),
	       percentile(all->bucket, all->faults, 0.99), all->max_ns / 1000,
	       cpu / (double)all->all_touches * 1e6);
	fflush(stdout);
}

static void fill(struct job *job, const char *corpus_path)
{
	struct bench_corpus corpus;
	uint64_t i;

	bench_read_corpus(&corpus, corpus_path, 0);
	job->pages = bench_map(job->nr_pages * PAGE);
	job->version = bench_map(job->nr_pages * sizeof(*job->version));
	for (i = 0; i < job->nr_pages; i++) {
		uint64_t *page = job->pages + i * WORDS;

		memcpy(page,
		       corpus.pages +
			       (size_t)corpus.order[i % corpus.nr] * PAGE,
		       PAGE);
		page[0] = mark_of(i, 0);
	}
	munmap(corpus.pages, (size_t)corpus.nr * PAGE);
	free(corpus.order);
}

static double measure_clock(void)
{
	double start = bench_now(CLOCK_MONOTONIC);
	uint64_t ticks = __rdtsc();

	while (bench_now(CLOCK_MONOTONIC) < start + 0.05)
		;
	return (double)(__rdtsc() - ticks) / 1e9 /
	       (bench_now(CLOCK_MONOTONIC) - start);
}

int main(int argc, char **argv)
{
	static struct job job;
	unsigned nr_threads;
	uint64_t i;
	int k;

	if (argc < 7) {
		fprintf(stderr, "usage: paging_job CORPUS MIB SECONDS THREADS "
				"WRITES PATTERN...\n");
		return 2;
	}
	job.nr_pages = strtoull(argv[2], NULL, 10) << 8;
	job.seconds = strtod(argv[3], NULL);
	nr_threads = (unsigned)strtoul(argv[4], NULL, 10);
	job.writes = (unsigned)strtoul(argv[5], NULL, 10);
	if (!job.nr_pages || !nr_threads || nr_threads > MAX_THREADS)
		bench_die("arguments");
	for (i = 1; i <= job.nr_pages / nr_threads; i++)
		job.zeta += pow(1 / (double)i, THETA);
	job.ticks_a_ns = measure_clock();
	fill(&job, argv[1]);
	job.pager = find_pager();
	for (k = 6; k < argc; k++)
		run(&job, nr_threads, argv[k]);
	return 0;
}
