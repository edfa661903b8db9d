/* SPDX-License-Identifier: MIT */
/*
 * compact_bench [--pages N] [--rounds N] [--duplicates PERCENT] [--realtime]
 *               [--json]
 *
 * What loads notice of compaction.  A store is filled with N pages (1 M), of
 * which 70 %, drawn at random, are invalidated; one thread loads random ones
 * of the rest all the time.  Meanwhile tmem_store_maintain() runs in another
 * thread for 10 ms, rests for 10 ms, and so on until it has nothing left to
 * do: so both states are measured over the same time, and a busy machine
 * disturbs both alike.  With --realtime (root) both threads have real-time
 * priority, so that it hardly disturbs them.  Each round stores what is
 * missing and thins it out anew.  With --duplicates that part of the pages,
 * spread over all, equals another, drawn from all that came before; else all
 * differ.  What the rest needs is what another store takes that gets it alone.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	KINDS = 64,
	KEEP_PERCENT = 30,
	SLICE_US = 10000,
	/* A histogram: 32 steps to each power of two. */
	STEP_BITS = 5,
	BUCKETS = 64 << STEP_BITS
};

enum state {
	IDLE,
	COMPACTING,
	OTHER,
	NR_STATES
};

static const char *const state_names[] = { "idle", "compacting" };

struct options {
	uint32_t pages;
	unsigned rounds;
	unsigned duplicates;
	bool realtime;
	bool json;
};

static char kinds[KINDS][PAGE];
static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;
static bool *there;
static uint32_t *content; /* of a key */
static uint32_t *kept;	  /* keys */
static uint32_t nr_kept;
static _Atomic unsigned state;
static _Atomic bool done;
static uint64_t histogram[NR_STATES][BUCKETS];
static uint64_t max_ns[NR_STATES];

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){ .object = { { key >> 16 } },
				 .index = key & 0xffff,
				 .page = page };
}

static unsigned bucket_of(uint64_t ns)
{
	unsigned exp;

	if (ns < 1 << STEP_BITS)
		return (unsigned)ns;
	exp = 63 - (unsigned)__builtin_clzll(ns) - STEP_BITS;
	return (exp + 1) << STEP_BITS |
	       (unsigned)(ns >> exp & ((1 << STEP_BITS) - 1));
}

static double ns_of(unsigned bucket)
{
	unsigned exp = bucket >> STEP_BITS;
	uint64_t step = bucket & ((1 << STEP_BITS) - 1);

	if (!exp)
		return (double)bucket;
	return (double)((step | 1 << STEP_BITS) << (exp - 1));
}

static double percentile(const uint64_t *counts, double part)
{
	uint64_t all = 0, seen = 0;
	unsigned b;

	for (b = 0; b < BUCKETS; b++)
		all += counts[b];
	for (b = 0; b < BUCKETS; b++) {
		seen += counts[b];
		if ((double)seen >= part * (double)all)
			break;
	}
	return ns_of(b);
}

static void put(uint32_t key)
{
	char page[PAGE];
	struct tmem_io io = io_of(key, page);
	uint64_t hash = content[key] * 0x9e3779b97f4a7c15ull;

	memcpy(page, kinds[(hash >> 32) % KINDS], PAGE);
	memcpy(page + 40, &content[key], sizeof(content[key]));
	backend.ops->store(backend.self, pool, &io, 1);
	if (io.result != 0)
		bench_die("store");
}

static void fill(uint64_t *rng, const struct options *o)
{
	static uint32_t next_content;
	uint32_t key;

	for (key = 0; key < o->pages; key++) {
		if (there[key])
			continue;
		content[key] = ++next_content;
		if (key && next(rng) % 100 < o->duplicates)
			content[key] = content[next(rng) % key];
		put(key);
		there[key] = true;
	}
}

static void thin_out(uint64_t *rng, uint32_t nr_pages)
{
	uint32_t key;

	nr_kept = 0;
	for (key = 0; key < nr_pages; key++) {
		struct tmem_io io = io_of(key, NULL);

		if (next(rng) % 100 < KEEP_PERCENT) {
			kept[nr_kept++] = key;
			continue;
		}
		backend.ops->invalidate(backend.self, pool, &io, 1);
		there[key] = false;
	}
}

static void *load_all_the_time(void *arg)
{
	uint64_t rng = 123456789, before, took;
	char page[PAGE];

	(void)arg;
	while (!atomic_load(&done)) {
		uint32_t key = kept[next(&rng) % nr_kept];
		struct tmem_io io = io_of(key, page);
		unsigned s = atomic_load(&state);

		before = now_ns();
		backend.ops->load(backend.self, pool, &io, 1);
		took = now_ns() - before;
		if (io.result != 0 ||
		    memcmp(page + 40, &content[key], sizeof(key)) != 0) {
			fprintf(stderr, "compact_bench: page %u\n", key);
			exit(1);
		}
		if (s != atomic_load(&state))
			continue; /* partly this, partly that */
		histogram[s][bucket_of(took)]++;
		if (took > max_ns[s])
			max_ns[s] = took;
	}
	return NULL;
}

/* This thread and those that it starts. */
static void set_realtime(bool on)
{
	struct sched_param param = { .sched_priority = on };

	if (sched_setscheduler(0, on ? SCHED_RR : SCHED_OTHER, &param) < 0)
		bench_die("sched_setscheduler");
}

/* Returns how long compaction took, in seconds. */
static double compact(void)
{
	double took = 0, start;
	pthread_t loader;
	bool more;

	atomic_store(&done, false);
	if (pthread_create(&loader, NULL, load_all_the_time, NULL))
		bench_die("pthread_create");
	do {
		atomic_store(&state, IDLE);
		usleep(SLICE_US);
		atomic_store(&state, COMPACTING);
		start = bench_now(CLOCK_MONOTONIC);
		more = tmem_store_maintain(store, SLICE_US * 1000ull);
		took += bench_now(CLOCK_MONOTONIC) - start;
		atomic_store(&state, OTHER);
	} while (more);
	atomic_store(&done, true);
	pthread_join(loader, NULL);
	return took;
}

static void open_store(void)
{
	struct tmem_store_options options = { .limit_bytes = 16ull << 30 };

	if (tmem_store_open(&options, &store) < 0)
		bench_die("tmem_store_open");
	backend = tmem_store_backend(store);
	backend.ops->pool_create(backend.self, NULL, &pool);
}

/* Of a store that has never had any other pages. */
static uint64_t needed_mib(void)
{
	uint64_t held;
	uint32_t i;

	open_store();
	for (i = 0; i < nr_kept; i++)
		put(kept[i]);
	held = tmem_store_held_bytes(store) >> 20;
	tmem_store_close(store);
	return held;
}

static void print(const struct options *o, double seconds,
		  const uint64_t *held_mib)
{
	static const double parts[] = { 0.5, 0.99, 0.999 };
	static const char *const names[] = { "p50", "p99", "p99_9" };
	double ratio = percentile(histogram[COMPACTING], 0.99) /
		       percentile(histogram[IDLE], 0.99);
	unsigned s, i;

	if (o->json)
		printf("{\"bench\": \"compact\", \"pages\": %u, "
		       "\"duplicates\": %u, \"before_ratio\": %.3f, "
		       "\"after_ratio\": %.3f",
		       o->pages, o->duplicates,
		       (double)held_mib[0] / (double)held_mib[2],
		       (double)held_mib[1] / (double)held_mib[2]);
	for (s = IDLE; s <= COMPACTING; s++) {
		if (!o->json)
			printf("%-10s", state_names[s]);
		for (i = 0; i < 3; i++)
			printf(o->json ? ", \"%s_%s_ns\": %.0f" : " %s%s %6.0f",
			       o->json ? state_names[s] : "", names[i],
			       percentile(histogram[s], parts[i]));
		printf(o->json ? ", \"%s_max_ns\": %lu" : "%s max %lu ns\n",
		       o->json ? state_names[s] : "", max_ns[s]);
	}
	if (o->json)
		printf(", \"p99_ratio\": %.3f, \"seconds\": %.3f}\n", ratio,
		       seconds / o->rounds);
	else
		printf("p99 %.2f x; %.2f s of compaction a round, %lu MiB held "
		       "before and %lu after: %.2f and %.2f x of what the rest "
		       "needs\n",
		       ratio, seconds / o->rounds, held_mib[0], held_mib[1],
		       (double)held_mib[0] / (double)held_mib[2],
		       (double)held_mib[1] / (double)held_mib[2]);
}

static void parse(int argc, char **argv, struct options *o)
{
	const struct bench_option options[] = {
		{ "--pages N", .number = &o->pages, .min = 1000 },
		{ "--rounds N", .number = &o->rounds, .min = 1 },
		{ "--duplicates PERCENT", .number = &o->duplicates, .max = 99 },
		{ "--realtime", .flag = &o->realtime },
		{ "--json", .flag = &o->json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
}

int main(int argc, char **argv)
{
	struct options o = { .pages = 1000000, .rounds = 5 };
	uint64_t rng = 987654321, held_mib[3] = { 0 };
	double seconds = 0;
	unsigned r;

	parse(argc, argv, &o);
	bench_heap_pages(kinds[0], KINDS);
	there = bench_map(o.pages * sizeof(*there));
	kept = bench_map(o.pages * sizeof(*kept));
	content = bench_map(o.pages * sizeof(*content));
	open_store();
	for (r = 0; r < o.rounds; r++) {
		fill(&rng, &o);
		thin_out(&rng, o.pages);
		held_mib[0] = tmem_store_held_bytes(store) >> 20;
		if (o.realtime)
			set_realtime(true);
		seconds += compact();
		if (o.realtime)
			set_realtime(false);
		held_mib[1] = tmem_store_held_bytes(store) >> 20;
	}
	tmem_store_close(store);
	held_mib[2] = needed_mib();
	print(&o, seconds, held_mib);
	return 0;
}
