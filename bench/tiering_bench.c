/* SPDX-License-Identifier: MIT */
/*
 * tiering_bench [--dir DIR] [--pages N] [--rounds N] [--json]
 *
 * A store that may hold about half of its working set, with a file tier below
 * it: N pages of 4 KiB (about 2 KiB compressed, made up), a limit of half of
 * what they need, and background work whenever a part of the operations is
 * done.  Each round opens a store, fills it, and measures fill      N stores in
 * order, moving down included (MiB/s of pages); zipf      N loads, skew 0.99
 * over the pages in random order, one in ten a store; scan      N loads in
 * order. For each: pages moved down, read back, come back, found in a cluster;
 * write amplification; and the latency of loads by where the page was (us, p50,
 * p99). The figures are medians of the rounds.  The tier is encrypted.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tmem/stats.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	PER_OBJECT = 4096,
	MAINTAIN_EVERY = 256,
	MAINTAIN_NS = 2000000,
	MAX_ROUNDS = 15,
	NR_PHASES = 3
};

enum {
	FROM_RAM = 0,
	FROM_CLUSTER,
	FROM_TIER,
	NR_PLACES
};

struct figures {
	double mib_s;
	double moved;
	double reads;
	double promoted;
	double cluster_hits;
	double amplification;
	double p50[NR_PLACES];
	double p99[NR_PLACES];
};

static const char *const phases[NR_PHASES] = { "fill", "zipf", "scan" };
static unsigned nr_pages = 65536;
static struct tmem_store *store;
static struct tmem_backend be;
static tmem_pool_id pool;
static unsigned *order;
static double *cdf;
static double *latencies[NR_PLACES];
static unsigned nr_latencies[NR_PLACES];
static uint64_t state = 1;

static uint64_t next_random(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Three words in eight say nothing. */
static void fill(uint64_t *page, unsigned key)
{
	uint64_t z = key;

	for (unsigned i = 0; i < PAGE / 8; i++) {
		z = z * 6364136223846793005ull + 1442695040888963407ull;
		page[i] = i % 8 < 3 ? z ^ z >> 29 : key;
	}
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { 1 + key / PER_OBJECT } },
				 .index = key % PER_OBJECT,
				 .page = page };
}

static struct tmem_stats stats(void)
{
	struct tmem_stats s;

	be.ops->stats(be.self, &s);
	return s;
}

static void maintain(unsigned i)
{
	if (i % MAINTAIN_EVERY == 0)
		tmem_store_maintain(store, MAINTAIN_NS);
}

static void put(unsigned key)
{
	_Alignas(64) uint64_t page[PAGE / 8];
	struct tmem_io io = io_of(key, page);
	unsigned tries = 0;

	fill(page, key);
	/* Whoever stores faster than the disk writes has to wait. */
	do {
		be.ops->store(be.self, pool, &io, 1);
		if (io.result)
			tmem_store_maintain(store, 10ull * MAINTAIN_NS);
	} while (io.result && ++tries < 1000);
	if (io.result) {
		errno = ENOMEM;
		bench_die("store");
	}
}

static void get(unsigned key)
{
	_Alignas(64) uint64_t page[PAGE / 8];
	struct tmem_io io = io_of(key, page);
	struct tmem_stats before = stats(), after;
	double start = bench_now(CLOCK_MONOTONIC), us;
	unsigned place = FROM_RAM;

	be.ops->load(be.self, pool, &io, 1);
	us = (bench_now(CLOCK_MONOTONIC) - start) * 1e6;
	if (io.result || page[3] != key) {
		errno = io.result == -EIO ? EIO : ENOENT;
		bench_die("load");
	}
	after = stats();
	if (after.tier_cluster_hits != before.tier_cluster_hits)
		place = FROM_CLUSTER;
	else if (after.tier_reads != before.tier_reads)
		place = FROM_TIER;
	latencies[place][nr_latencies[place]++] = us;
}

static unsigned zipf(void)
{
	double at = (double)(next_random() >> 11) * 0x1p-53 * cdf[nr_pages - 1];
	unsigned low = 0, high = nr_pages - 1;

	while (low < high) {
		unsigned mid = (low + high) / 2;

		if (cdf[mid] < at)
			low = mid + 1;
		else
			high = mid;
	}
	return order[low];
}

static void run_phase(unsigned phase)
{
	for (unsigned i = 0; i < nr_pages; i++) {
		if (phase == 0)
			put(i);
		else if (phase == 2)
			get(i);
		else if (i % 10 == 9)
			put(zipf());
		else
			get(zipf());
		maintain(i);
	}
}

static double percentile(double *values, unsigned nr, double part)
{
	if (nr == 0)
		return 0;
	bench_median(values, nr);
	return values[(unsigned)((nr - 1) * part)];
}

static void measure(unsigned phase, struct figures *ret)
{
	struct tmem_stats a = stats(), b;
	double start = bench_now(CLOCK_MONOTONIC), seconds;

	memset(nr_latencies, 0, sizeof(nr_latencies));
	run_phase(phase);
	seconds = bench_now(CLOCK_MONOTONIC) - start;
	b = stats();
	ret->mib_s = nr_pages * (double)PAGE / 1048576 / seconds;
	ret->moved = (double)(b.tier_moved - a.tier_moved);
	ret->reads = (double)(b.tier_reads - a.tier_reads);
	ret->promoted = (double)(b.tier_promoted - a.tier_promoted);
	ret->cluster_hits = (double)(b.tier_cluster_hits - a.tier_cluster_hits);
	ret->amplification = b.tier_moved_bytes == a.tier_moved_bytes
				     ? 0
				     : (double)(b.tier_written_bytes -
						a.tier_written_bytes) /
					       (double)(b.tier_moved_bytes -
							a.tier_moved_bytes);
	for (unsigned i = 0; i < NR_PLACES; i++) {
		ret->p50[i] = percentile(latencies[i], nr_latencies[i], 0.5);
		ret->p99[i] = percentile(latencies[i], nr_latencies[i], 0.99);
	}
}

static void run_round(const char *dir, struct figures *ret)
{
	/* 1.8 KiB of slot a page, and the half of them. */
	struct tmem_store_options o = { .limit_bytes =
						(uint64_t)nr_pages * 1800 / 2 };
	struct tmem_tier_setup setup = {
		.fd = tmem_tier_create(dir),
		.max_bytes = (uint64_t)nr_pages * PAGE,
	};

	if (setup.fd < 0 || tmem_store_open(&o, &store) < 0 ||
	    tmem_store_add_tier(store, &setup) < 0)
		bench_die("tier");
	be = tmem_store_backend(store);
	be.ops->pool_create(be.self, NULL, &pool);
	for (unsigned i = 0; i < NR_PHASES; i++)
		measure(i, &ret[i]);
	tmem_store_close(store);
	close(setup.fd);
}

static void prepare(void)
{
	double sum = 0;

	order = calloc(nr_pages, sizeof(*order));
	cdf = malloc(nr_pages * sizeof(*cdf));
	for (unsigned i = 0; i < NR_PLACES; i++)
		latencies[i] = malloc(nr_pages * sizeof(double));
	if (!order || !cdf || !latencies[0] || !latencies[1] || !latencies[2])
		bench_die("malloc");
	for (unsigned i = 0; i < nr_pages; i++) {
		unsigned j = (unsigned)(next_random() % (i + 1));

		order[i] = order[j];
		order[j] = i;
		sum += 1 / pow(i + 1, 0.99);
		cdf[i] = sum;
	}
}

static double median_of(struct figures (*f)[NR_PHASES], unsigned rounds,
			unsigned phase, size_t offset)
{
	double values[MAX_ROUNDS];

	for (unsigned i = 0; i < rounds; i++)
		memcpy(&values[i], (const char *)&f[i][phase] + offset,
		       sizeof(double));
	return bench_median(values, rounds);
}

#define MEDIAN(member) \
	median_of(f, rounds, phase, offsetof(struct figures, member))

static void print(struct figures (*f)[NR_PHASES], unsigned rounds,
		  unsigned phase, bool json)
{
	printf(json ? "%s\"%s\": {\"mib_s\": %.0f, \"moved\": %.0f, "
		      "\"reads\": %.0f, \"cluster_hits\": %.0f, "
		      "\"promoted\": %.0f, \"write_amplification\": %.2f, "
		    : "%s%-5s %6.0f MiB/s, %7.0f down, %6.0f read (%6.0f of "
		      "them in a cluster), %6.0f back, amplification %.2f\n",
	       json && phase ? ", " : "", phases[phase], MEDIAN(mib_s),
	       MEDIAN(moved), MEDIAN(reads), MEDIAN(cluster_hits),
	       MEDIAN(promoted), MEDIAN(amplification));
	printf(json ? "\"ram_us\": [%.1f, %.1f], \"cluster_us\": [%.1f, "
		      "%.1f], \"tier_us\": [%.1f, %.1f]}"
		    : "      load from RAM %.1f us (p99 %.1f), a cluster %.1f "
		      "(%.1f), the tier %.1f (%.1f)\n",
	       MEDIAN(p50[FROM_RAM]), MEDIAN(p99[FROM_RAM]),
	       MEDIAN(p50[FROM_CLUSTER]), MEDIAN(p99[FROM_CLUSTER]),
	       MEDIAN(p50[FROM_TIER]), MEDIAN(p99[FROM_TIER]));
}

int main(int argc, char **argv)
{
	static struct figures f[MAX_ROUNDS][NR_PHASES];
	const char *dir = "/var/tmp";
	unsigned rounds = 3;
	bool json = false;
	const struct bench_option options[] = {
		{ "--dir DIR", .text = &dir },
		{ "--pages N", .number = &nr_pages, .min = 16384 },
		{ "--rounds N", .number = &rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--json", .flag = &json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
	prepare();
	for (unsigned i = 0; i < rounds; i++)
		run_round(dir, f[i]);
	if (json)
		printf("{");
	for (unsigned i = 0; i < NR_PHASES; i++)
		print(f, rounds, i, json);
	if (json)
		printf("}\n");
	return 0;
}
