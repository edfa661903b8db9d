/* SPDX-License-Identifier: MIT */
/*
 * The traces, each of a million requests or more over 100,000 pages or more.
 *
 *   zipf-0.8, -0.99, -1.1  independent draws from 200,000 pages
 *   scan+zipf   zipf 0.99 over 100,000; every 60,000 requests a scan of the
 *               next 15,000 of 120,000 pages that nothing else looks at
 *   loop        five loops, one after the other, over pages of their own:
 *               each is a tenth larger than one of the cache sizes, which are
 *               1, 5, 10, 25 and 50 % of all
 *   shift       80 % of requests go to 12,000 hot pages of 150,000, a half of
 *               which is replaced every 100,000 requests; 20 % to any page
 *   files       reads of whole files: popular ones (zipf 0.9), new ones read
 *               once (60 % of all pages), and new ones read a few times in a
 *               short while and never again
 *
 * With two pools the second has what is scanned, or the files that are new; in
 * the other traces a half of the pages.
 */
#include "evict_trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	REQUESTS = 1 << 20,
	ZIPF_KEYS = 200000,
	SCAN_ZIPF_KEYS = 100000,
	SCAN_COLD_KEYS = 120000,
	SCAN_EVERY = 60000,
	SCAN_PAGES = 15000,
	LOOP_KEYS = 131072,
	LOOP_REQUESTS = 2 * REQUESTS,
	SHIFT_KEYS = 150000,
	SHIFT_HOT = 12000,
	SHIFT_EVERY = 100000,
	FILES_POPULAR = 3500,
	FILES_PAGES_MAX = 31, /* of a file */
	BURSTS = 8	      /* files that are in a burst at a time */
};

struct zipf {
	double *sum;   /* of the weights up to this rank */
	uint32_t *key; /* of this rank */
	uint32_t nr;
};

void *evict_alloc(uint64_t nr, uint64_t bytes)
{
	void *p = calloc(nr, bytes);

	if (!p) {
		perror("calloc");
		exit(1);
	}
	return p;
}

static void shuffle(uint32_t *array, uint32_t nr, struct evict_random *r)
{
	uint32_t i, j, tmp;

	for (i = nr; i-- > 1;) {
		j = evict_below(r, i + 1);
		tmp = array[i];
		array[i] = array[j];
		array[j] = tmp;
	}
}

static void zipf_init(struct zipf *z, uint32_t nr, double alpha,
		      struct evict_random *r)
{
	double sum = 0;
	uint32_t i;

	z->nr = nr;
	z->sum = evict_alloc(nr, sizeof(*z->sum));
	z->key = evict_alloc(nr, sizeof(*z->key));
	for (i = 0; i < nr; i++) {
		sum += pow(i + 1, -alpha);
		z->sum[i] = sum;
		z->key[i] = i;
	}
	shuffle(z->key, nr, r);
}

static void zipf_fini(struct zipf *z)
{
	free(z->sum);
	free(z->key);
}

static uint32_t zipf_draw(const struct zipf *z, struct evict_random *r)
{
	double at = z->sum[z->nr - 1] * evict_below(r, UINT32_MAX) / UINT32_MAX;
	uint32_t low = 0, high = z->nr - 1, middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (z->sum[middle] < at)
			low = middle + 1;
		else
			high = middle;
	}
	return z->key[low];
}

static void add(struct evict_trace *t, uint32_t key)
{
	t->keys[t->nr++] = key;
}

static void make_zipf(struct evict_trace *t, double alpha)
{
	struct evict_random r = { 1 };
	struct zipf z;

	t->nr_keys = ZIPF_KEYS;
	zipf_init(&z, ZIPF_KEYS, alpha, &r);
	while (t->nr < REQUESTS)
		add(t, zipf_draw(&z, &r));
	zipf_fini(&z);
}

static void make_scan(struct evict_trace *t, double alpha)
{
	struct evict_random r = { 2 };
	uint32_t cold = 0, i;
	struct zipf z;

	t->nr_keys = SCAN_ZIPF_KEYS + SCAN_COLD_KEYS;
	t->second_pool = SCAN_ZIPF_KEYS;
	zipf_init(&z, SCAN_ZIPF_KEYS, alpha, &r);
	while (t->nr < REQUESTS) {
		for (i = 0; i < SCAN_EVERY; i++)
			add(t, zipf_draw(&z, &r));
		for (i = 0; i < SCAN_PAGES; i++)
			add(t, SCAN_ZIPF_KEYS + cold++ % SCAN_COLD_KEYS);
	}
	zipf_fini(&z);
}

static void make_loop(struct evict_trace *t, double larger)
{
	static const unsigned percent[] = { 1, 5, 10, 25, 50 };
	uint32_t base = 0, length, i;
	unsigned k;

	for (k = 0; k < 5; k++) {
		length = (uint32_t)(LOOP_KEYS / 100.0 * percent[k] * larger);
		for (i = 0; i < LOOP_REQUESTS / 5; i++)
			add(t, base + i % length);
		base += length;
	}
	t->nr_keys = base;
}

static void make_shift(struct evict_trace *t, double hot_share)
{
	struct evict_random r = { 3 };
	uint32_t *all = evict_alloc(SHIFT_KEYS, sizeof(*all));
	uint32_t share = (uint32_t)(hot_share * 100);
	uint32_t i;

	for (i = 0; i < SHIFT_KEYS; i++)
		all[i] = i;
	shuffle(all, SHIFT_KEYS, &r);
	t->nr_keys = SHIFT_KEYS;
	/* all[0] to all[SHIFT_HOT - 1] are hot. */
	while (t->nr < REQUESTS) {
		if (t->nr % SHIFT_EVERY == 0) {
			for (i = 0; i < SHIFT_HOT / 2; i++) {
				uint32_t j = evict_below(&r, SHIFT_KEYS);
				uint32_t tmp = all[i];

				all[i] = all[j];
				all[j] = tmp;
			}
			shuffle(all, SHIFT_HOT, &r);
		}
		add(t, evict_below(&r, 100) < share
			       ? all[evict_below(&r, SHIFT_HOT)]
			       : evict_below(&r, SHIFT_KEYS));
	}
	free(all);
}

struct file {
	uint32_t first;
	uint32_t nr_pages;
	uint32_t again; /* reads to come */
};

static struct file file_new(uint32_t *end, struct evict_random *r)
{
	struct file f = { *end, 1 + evict_below(r, FILES_PAGES_MAX), 0 };

	*end += f.nr_pages;
	return f;
}

static void file_read(struct evict_trace *t, const struct file *f)
{
	uint32_t i;

	for (i = 0; i < f->nr_pages; i++)
		add(t, f->first + i);
}

static void make_files(struct evict_trace *t, double alpha)
{
	struct file *popular = evict_alloc(FILES_POPULAR, sizeof(*popular));
	struct file burst[BURSTS] = { { 0 } };
	struct evict_random r = { 4 };
	uint32_t end = 0, i, kind;
	struct zipf z;

	zipf_init(&z, FILES_POPULAR, alpha, &r);
	for (i = 0; i < FILES_POPULAR; i++)
		popular[i] = file_new(&end, &r);
	t->second_pool = end;
	while (t->nr < REQUESTS) {
		kind = evict_below(&r, 1000);
		if (kind < 780) {
			file_read(t, &popular[zipf_draw(&z, &r)]);
		} else if (kind < 920) {
			struct file f = file_new(&end, &r);

			file_read(t, &f);
		} else {
			struct file *b = &burst[evict_below(&r, BURSTS)];

			if (!b->again) {
				*b = file_new(&end, &r);
				b->again = 2 + evict_below(&r, 5);
			}
			b->again--;
			file_read(t, b);
		}
	}
	t->nr_keys = end;
	free(popular);
	zipf_fini(&z);
}

static const struct {
	const char *name;
	void (*make)(struct evict_trace *t, double argument);
	double argument;
} table[] = {
	{ "zipf-0.8", make_zipf, 0.8 }, { "zipf-0.99", make_zipf, 0.99 },
	{ "zipf-1.1", make_zipf, 1.1 }, { "scan+zipf", make_scan, 0.99 },
	{ "loop", make_loop, 1.1 },	{ "shift", make_shift, 0.8 },
	{ "files", make_files, 0.9 },
};

unsigned evict_nr_traces(void)
{
	return sizeof(table) / sizeof(table[0]);
}

void evict_trace_make(unsigned i, struct evict_trace *ret_trace)
{
	struct evict_trace t = { .name = table[i].name };
	uint8_t *seen;
	uint32_t k;

	/* Some end with the round or file during which they get long enough. */
	t.keys = evict_alloc(LOOP_REQUESTS + 2 * SCAN_EVERY, sizeof(*t.keys));
	table[i].make(&t, table[i].argument);
	if (!t.second_pool)
		t.second_pool = t.nr_keys / 2;
	seen = evict_alloc(t.nr_keys, 1);
	for (k = 0; k < t.nr; k++) {
		if (seen[t.keys[k]] == 0)
			t.footprint++;
		if (seen[t.keys[k]] < 2)
			seen[t.keys[k]]++;
	}
	for (k = 0; k < t.nr_keys; k++)
		t.once += seen[k] == 1;
	free(seen);
	*ret_trace = t;
}

void evict_trace_fini(struct evict_trace *trace)
{
	free(trace->keys);
	trace->keys = NULL;
}
