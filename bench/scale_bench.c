/* SPDX-License-Identifier: MIT */
/*
 * scale_bench [--max PAGES] [--rounds N] [--ops N] [--only OP] [--json]
 *
 * How the cost of an operation grows with the number of pages: stores of
 * 10,000 (the base), 100,000, 1,000,000 and 10,000,000 pages, as far as --max
 * says.  Pages are bench_heap_pages(): 10 M of them need 5.7 GiB.
 *
 * Each round measures each operation on the base store and, right after it, on
 * the large one; the growth is the median of the rounds' ratios, so a busy
 * machine disturbs both alike.  Time is the thread's CPU time.  Pages are
 * drawn at random.
 *
 *   load, store (over an old page), renew (invalidate, then store);
 *   singly and in vectors of 8.
 *   floor: what cache and TLB misses alone cost, over the very memory that
 *   the store has mapped: three touches a page of which each needs the one
 *   before (index, span, slot) and the seven lines after the last; one page
 *   after the other, or eight side by side.  A load that did nothing but
 *   miss more would grow as its column "floor" says.
 */
#include <lz4.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	BASE_PAGES = 10000,
	KINDS = 64,
	VECTOR = 8,
	SLOT_LINES = 8,
	/* of a chunk: it has a head, and lines where a touch can begin */
	CHUNK = 4 << 20,
	CHUNK_HEAD = 3 * 4096,
	LINES = (CHUNK - CHUNK_HEAD) / 64 - SLOT_LINES,
	MAX_ROUNDS = 101,
	MAX_CHUNKS = 1 << 16
};

enum op {
	LOAD,
	STORE,
	RENEW,
	FLOOR,
	NR_OPS
};

static const char *const op_names[] = { "load", "store", "renew", "floor" };

struct subject {
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pool;
	uint64_t nr_pages;
	char *chunks[MAX_CHUNKS]; /* that the store has mapped */
	unsigned nr_chunks;
	uint64_t rng;
};

struct options {
	unsigned max_pages;
	unsigned rounds;
	unsigned ops;
	unsigned only; /* NR_OPS: all */
	bool json;
};

static char kinds[KINDS][PAGE]; /* what pages look like */
static char ***touches;		/* floor: the places, made before */
static volatile unsigned sink, zero;

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void name(struct tmem_io *io, uint64_t key)
{
	/* Objects of 2^20 pages, as a swap device's clusters are. */
	io->object = (struct tmem_object_id){ { key >> 20, 7, 0 } };
	io->index = (uint32_t)(key & 0xfffff);
}

/* The page of a key, in a buffer of the caller's. */
static void fill(char *page, uint64_t key, uint64_t *rng)
{
	memcpy(page, kinds[next(rng) % KINDS], PAGE);
	memcpy(page + 40, &key, 8);
}

static void failed(const char *what, uint64_t key)
{
	fprintf(stderr, "scale_bench: %s of page %lu\n", what, key);
	exit(1);
}

/* Operations on nr <= VECTOR random pages; pages are there and stay. */

static void do_load(struct subject *s, const uint64_t *keys, unsigned nr)
{
	static char pages[VECTOR][PAGE];
	struct tmem_io io[VECTOR];
	unsigned i;

	for (i = 0; i < nr; i++) {
		name(&io[i], keys[i]);
		io[i].page = pages[i];
	}
	s->backend.ops->load(s->backend.self, s->pool, io, nr);
	for (i = 0; i < nr; i++)
		if (io[i].result != 0 ||
		    memcmp(pages[i] + 40, &keys[i], 8) != 0)
			failed("load", keys[i]);
}

static void do_store(struct subject *s, const uint64_t *keys, unsigned nr)
{
	static char pages[VECTOR][PAGE];
	struct tmem_io io[VECTOR];
	unsigned i;

	for (i = 0; i < nr; i++) {
		name(&io[i], keys[i]);
		io[i].page = pages[i];
		fill(pages[i], keys[i], &s->rng);
	}
	s->backend.ops->store(s->backend.self, s->pool, io, nr);
	for (i = 0; i < nr; i++)
		if (io[i].result != 0)
			failed("store", keys[i]);
}

static void do_renew(struct subject *s, const uint64_t *keys, unsigned nr)
{
	struct tmem_io io[VECTOR];
	unsigned i;

	for (i = 0; i < nr; i++)
		name(&io[i], keys[i]);
	s->backend.ops->invalidate(s->backend.self, s->pool, io, nr);
	do_store(s, keys, nr);
}

static void note_chunk(void *arg, void *start, size_t bytes)
{
	struct subject *s = arg;

	if (bytes == CHUNK && s->nr_chunks < MAX_CHUNKS)
		s->chunks[s->nr_chunks++] = start;
}

static void make_touches(struct subject *s, unsigned nr)
{
	unsigned i, j;

	s->nr_chunks = 0;
	tmem_store_for_each_mapping(s->store, note_chunk, s);
	if (!s->nr_chunks) {
		fputs("the store's chunks are not what they were\n", stderr);
		exit(1);
	}
	for (i = 0; i < nr; i++)
		for (j = 0; j < 3; j++) {
			uint64_t r = next(&s->rng);

			touches[i][j] = s->chunks[(r >> 32) % s->nr_chunks] +
					CHUNK_HEAD + (r % LINES) * 64;
		}
}

static unsigned touch(const char *p)
{
	return *(const volatile unsigned char *)p;
}

/* The lines after the first are read in any order. */
static unsigned slot_lines(const char *p)
{
	unsigned sum = 0, i;

	for (i = 1; i < SLOT_LINES; i++)
		sum += touch(p + (size_t)i * 64);
	return sum;
}

/* `zero`: what the compiler can't know, so that one touch needs another. */
static void floor_singly(unsigned nr, unsigned zero)
{
	unsigned i, j, sum = 0;

	for (i = 0; i < nr; i++) {
		for (j = 0; j < 3; j++)
			sum = touch(touches[i][j] + (sum & zero));
		sum += slot_lines(touches[i][2] + (sum & zero));
	}
	sink = sum;
}

static void floor_in_vectors(unsigned nr, unsigned zero)
{
	unsigned i, j, k, sum[VECTOR] = { 0 };

	for (i = 0; i + VECTOR <= nr; i += VECTOR) {
		for (j = 0; j < 3; j++)
			for (k = 0; k < VECTOR; k++)
				sum[k] = touch(touches[i + k][j] +
					       (sum[k] & zero));
		for (k = 0; k < VECTOR; k++)
			sum[k] +=
				slot_lines(touches[i + k][2] + (sum[k] & zero));
	}
	sink = sum[0];
}

/* Nanoseconds a page. */
static double measure(struct subject *s, enum op op, unsigned vector,
		      unsigned ops)
{
	static void (*const fns[])(struct subject *, const uint64_t *,
				   unsigned) = { do_load, do_store, do_renew };
	uint64_t keys[VECTOR];
	unsigned i, j;
	double start;

	if (op == FLOOR)
		make_touches(s, ops);
	start = bench_now(CLOCK_THREAD_CPUTIME_ID);
	if (op == FLOOR && vector == 1)
		floor_singly(ops, zero);
	else if (op == FLOOR)
		floor_in_vectors(ops, zero);
	for (i = 0; op != FLOOR && i < ops; i += vector) {
		for (j = 0; j < vector; j++)
			keys[j] = next(&s->rng) % s->nr_pages;
		fns[op](s, keys, vector);
	}
	return (bench_now(CLOCK_THREAD_CPUTIME_ID) - start) * 1e9 / ops;
}

static struct subject *fill_store(uint64_t nr_pages)
{
	/* As many shards as a large one has, and never near full. */
	struct tmem_store_options options = { .limit_bytes = 64ull << 30 };
	struct subject *s = bench_map(sizeof(*s));
	uint64_t key, keys[VECTOR];
	unsigned i;

	*s = (struct subject){ .nr_pages = nr_pages, .rng = nr_pages | 1 };
	if (tmem_store_open(&options, &s->store) < 0)
		bench_die("tmem_store_open");
	s->backend = tmem_store_backend(s->store);
	s->backend.ops->pool_create(s->backend.self, NULL, &s->pool);
	for (key = 0; key < nr_pages; key += VECTOR) {
		for (i = 0; i < VECTOR; i++)
			keys[i] = key + i;
		do_store(s, keys, VECTOR);
	}
	return s;
}

/* Codec alone, everything in the CPU's caches. */
static void codec(double *ret_compress, double *ret_decompress,
		  double *ret_bytes)
{
	static char state[1 << 15], out[PAGE + 64], page[PAGE];
	unsigned i, n = 0, rounds = 64;
	double start, bytes = 0, pages = (double)rounds * KINDS;

	start = bench_now(CLOCK_THREAD_CPUTIME_ID);
	for (i = 0; i < rounds * KINDS; i++)
		bytes += LZ4_compress_fast_extState(state, kinds[i % KINDS],
						    out, PAGE, sizeof(out), 1);
	*ret_compress =
		(bench_now(CLOCK_THREAD_CPUTIME_ID) - start) * 1e9 / pages;
	*ret_bytes = bytes / pages;
	*ret_decompress = 0;
	for (i = 0; i < KINDS; i++) {
		n = (unsigned)LZ4_compress_fast_extState(state, kinds[i], out,
							 PAGE, sizeof(out), 1);
		start = bench_now(CLOCK_THREAD_CPUTIME_ID);
		for (unsigned k = 0; k < rounds; k++)
			LZ4_decompress_safe(out, page, (int)n, PAGE);
		*ret_decompress +=
			(bench_now(CLOCK_THREAD_CPUTIME_ID) - start) * 1e9 /
			pages;
	}
}

/* One size against the base: ns and growth by op and vector (0: 1, 1: 8). */
struct row {
	double ns[NR_OPS][2], base_ns[NR_OPS][2], growth[NR_OPS][2];
	double held_gib;
};

static void compare(struct subject *base, struct subject *s,
		    const struct options *o, struct row *row)
{
	static double ns[NR_OPS][2][MAX_ROUNDS], base_ns[NR_OPS][2][MAX_ROUNDS];
	static double ratio[NR_OPS][2][MAX_ROUNDS];
	unsigned r, op, v;

	for (r = 0; r < o->rounds; r++)
		for (op = 0; op < NR_OPS; op++)
			for (v = 0; v < 2; v++) {
				unsigned vector = v ? VECTOR : 1;
				double b, n;

				if (o->only != NR_OPS && op != o->only)
					continue;
				b = measure(base, op, vector, o->ops);
				n = measure(s, op, vector, o->ops);
				base_ns[op][v][r] = b;
				ns[op][v][r] = n;
				ratio[op][v][r] = n / b;
			}
	for (op = 0; op < NR_OPS; op++)
		for (v = 0; v < 2; v++) {
			row->ns[op][v] = bench_median(ns[op][v], o->rounds);
			row->base_ns[op][v] =
				bench_median(base_ns[op][v], o->rounds);
			row->growth[op][v] =
				bench_median(ratio[op][v], o->rounds);
		}
	row->held_gib = (double)tmem_store_held_bytes(s->store) / (1u << 30);
}

/* What a load's growth would be if it were the floor's and nothing else. */
static double floor_growth(const struct row *row, unsigned op, unsigned v)
{
	return 1 + (row->ns[FLOOR][v] - row->base_ns[FLOOR][v]) /
			   row->base_ns[op][v];
}

static void print_row(const struct row *row, uint64_t nr_pages, bool json)
{
	unsigned op, v;

	if (!json)
		printf("%lu pages, %.2f GiB\n", nr_pages, row->held_gib);
	for (op = 0; op < NR_OPS; op++)
		for (v = 0; v < 2 && row->ns[op][v] > 0; v++) {
			if (json)
				printf(", \"%s_%u_%lu_ns\": %.1f, "
				       "\"%s_%u_%lu_growth\": %.3f",
				       op_names[op], v ? VECTOR : 1, nr_pages,
				       row->ns[op][v], op_names[op],
				       v ? VECTOR : 1, nr_pages,
				       row->growth[op][v]);
			else
				printf("  %-6s %s %8.0f ns, base %6.0f: "
				       "%.2f x   (floor %.2f x)\n",
				       op_names[op], v ? "by 8  " : "singly",
				       row->ns[op][v], row->base_ns[op][v],
				       row->growth[op][v],
				       floor_growth(row, op, v));
		}
	fflush(stdout);
}

static unsigned op_of(const char *text)
{
	unsigned op;

	for (op = 0; op < NR_OPS; op++)
		if (!strcmp(text, op_names[op]))
			break;
	return op;
}

static void parse(int argc, char **argv, struct options *o)
{
	const char *only = NULL;
	const struct bench_option options[] = {
		{ "--max PAGES", .number = &o->max_pages },
		{ "--rounds N", .number = &o->rounds, .min = 1,
		  .max = MAX_ROUNDS },
		{ "--ops N", .number = &o->ops, .min = VECTOR,
		  .max = 10000000 },
		{ "--only OP", .text = &only },
		{ "--json", .flag = &o->json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
	if (only)
		o->only = op_of(only);
	o->ops -= o->ops % VECTOR;
}

static bool has_memory(uint64_t nr_pages)
{
	char line[128];
	uint64_t kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "MemAvailable:", 13))
			kib = strtoull(line + 13, NULL, 10);
	if (f)
		fclose(f);
	if (kib * 1024 > nr_pages * 800 + (1ull << 30))
		return true;
	fprintf(stderr, "scale_bench: no memory for %lu pages\n", nr_pages);
	return false;
}

int main(int argc, char **argv)
{
	struct options o = {
		.max_pages = 1000000, .rounds = 15, .ops = 20000, .only = NR_OPS
	};
	struct subject *base, *s;
	double compress, decompress, bytes;
	uint64_t nr_pages;
	unsigned i;

	parse(argc, argv, &o);
	bench_heap_pages(kinds[0], KINDS);
	touches = calloc(o.ops, sizeof(*touches));
	for (i = 0; touches && i < o.ops; i++)
		touches[i] = calloc(3, sizeof(**touches));
	codec(&compress, &decompress, &bytes);
	if (o.json)
		printf("{\"bench\": \"scale\", \"compress_ns\": %.1f, "
		       "\"decompress_ns\": %.1f, \"lz4_bytes\": %.1f",
		       compress, decompress, bytes);
	else
		printf("LZ4 alone: %.0f ns to compress, %.0f to decompress, "
		       "to %.0f bytes\n",
		       compress, decompress, bytes);
	base = fill_store(BASE_PAGES);
	for (nr_pages = 10ull * BASE_PAGES; nr_pages <= o.max_pages;
	     nr_pages *= 10) {
		struct row row;

		if (!has_memory(nr_pages))
			break;
		s = fill_store(nr_pages);
		compare(base, s, &o, &row);
		print_row(&row, nr_pages, o.json);
		tmem_store_close(s->store);
	}
	tmem_store_close(base->store);
	if (o.json)
		printf("}\n");
	return 0;
}
