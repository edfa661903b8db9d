/* SPDX-License-Identifier: MIT */
/*
 * codec_bench [CORPUS] [--parts FILE] [--pages N] [--every N] [--json]
 *
 * What each form of a page takes: memory in slots, time to compress and to
 * decompress.  CORPUS is a file of 4 KiB pages (bench/make-corpus), --parts
 * what it wrote of the programs that they are from; without a corpus one is
 * made on the spot, of N pages.
 *
 * Each program's pages are one pool.  Every N-th of them is a sample, that
 * the pool's dictionary is trained with; the forms are measured on the others.
 * Same-filled pages are left out.  For each page all forms follow each other,
 * so that a busy machine disturbs all alike; times are medians of the pages.
 *
 * Beside the forms that the store has, it measures what they were chosen
 * from: dictionaries of other sizes and of zstd's own trainer, zstd's levels,
 * and LZ4-HC.
 */
#include <lz4.h>
#include <lz4hc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define ZSTD_STATIC_LINKING_ONLY
#define ZDICT_STATIC_LINKING_ONLY
#include <zdict.h>
#include <zstd.h>

#include "bench.h"
#include "codecs/train.h"
#include "tmem/tmem.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	MAX_POOLS = 8,
	MAX_FORMS = 32,
	DEFAULT_DICT = 16 * 1024,
	HC_LEVEL = 9,
	RAM_PERCENT = 97, /* the targets, of plain LZ4's */
	COLD_PERCENT = 70
};

struct pool {
	char name[32];
	unsigned nr_samples;
	unsigned nr; /* pages to measure */
	char *samples;
	char *pages;
};

struct form {
	char name[32];
	const struct tmem_codec *codec; /* or else */
	int level;			/* of zstd; 0: LZ4-HC */
	unsigned dict_bytes;
	bool zdict; /* by zstd's own trainer */
	const struct tmem_dict *dict;
	ZSTD_CCtx *context; /* level */
	double bytes;	    /* all pools */
	double pool_bytes[MAX_POOLS];
	double train_ms;
	double *compress_ns, *decompress_ns; /* of each page */
	unsigned nr;
};

struct bench {
	struct pool pools[MAX_POOLS];
	unsigned nr_pools;
	struct form forms[MAX_FORMS];
	unsigned nr_forms;
	char *lz4_scratch, *zstd_scratch, *decompress_scratch;
	unsigned nr_pages; /* of the corpus */
	unsigned every;
	bool json;
};

static void *allocate(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	if (!p)
		bench_die("memory");
	memset(p, 0, bytes);
	return p;
}

static double now_ns(void)
{
	return bench_now(CLOCK_MONOTONIC) * 1e9;
}

/* The forms. */

static struct form *add_form(struct bench *b, const char *name,
			     const struct tmem_codec *codec)
{
	struct form *f = &b->forms[b->nr_forms++];

	snprintf(f->name, sizeof(f->name), "%s", name);
	f->codec = codec;
	f->compress_ns = allocate(b->nr_pages * sizeof(double));
	f->decompress_ns = allocate(b->nr_pages * sizeof(double));
	return f;
}

static void add_dicts(struct bench *b, const struct tmem_codec *codec)
{
	static const unsigned sizes[] = { 8192, 16384, 32768,
					  TMEM_DICT_MAX_BYTES };
	char name[32];
	unsigned i;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snprintf(name, sizeof(name), "%s %uK", codec->name,
			 sizes[i] >> 10);
		add_form(b, name, codec)->dict_bytes = sizes[i];
	}
	snprintf(name, sizeof(name), "%s ZDICT", codec->name);
	add_form(b, name, codec)->dict_bytes = DEFAULT_DICT;
	b->forms[b->nr_forms - 1].zdict = true;
}

static ZSTD_CCtx *context_of_level(int level)
{
	ZSTD_CCtx *c = ZSTD_createCCtx();

	if (!c)
		bench_die("ZSTD_createCCtx");
	ZSTD_CCtx_setParameter(c, ZSTD_c_format, ZSTD_f_zstd1_magicless);
	ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
	ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, level);
	return c;
}

static void add_forms(struct bench *b)
{
	char name[32];
	int level;

	add_form(b, "lz4", &tmem_codec_lz4);
	add_form(b, "zstd", &tmem_codec_zstd);
	add_dicts(b, &tmem_codec_lz4_dict);
	add_dicts(b, &tmem_codec_zstd_dict);
	for (level = 1; level <= 6; level++) {
		snprintf(name, sizeof(name), "zstd level %d", level);
		add_form(b, name, NULL)->level = level;
		b->forms[b->nr_forms - 1].context = context_of_level(level);
	}
	add_form(b, "lz4hc", NULL);
}

/* As the store's: what a page takes, and its bytes at `out`. */
static unsigned pack(const struct bench *b, const struct form *f,
		     const char *page, char *out)
{
	enum {
		FRAME = 5 /* that the store's form does without */
	};
	size_t n;
	int r;

	if (f->codec)
		return f->codec->compress(f->codec->decompress_bytes
						  ? b->zstd_scratch
						  : b->lz4_scratch,
					  f->dict, page, out, PAGE);
	if (!f->level) {
		r = LZ4_compress_HC_extStateHC(b->lz4_scratch, page, out, PAGE,
					       PAGE, HC_LEVEL);
		return r > 0 ? (unsigned)r : 0;
	}
	n = ZSTD_compress2(f->context, out, 2ul * PAGE, page, PAGE);
	return n > FRAME && n < PAGE + FRAME ? (unsigned)n - FRAME : 0;
}

static void unpack(const struct bench *b, const struct form *f,
		   const char *page, const char *out, unsigned n)
{
	char back[PAGE];

	if (f->codec->decompress(b->decompress_scratch, f->dict, out, n,
				 back) ||
	    memcmp(back, page, PAGE) != 0) {
		fprintf(stderr, "codec_bench: %s: wrong page\n", f->name);
		exit(1);
	}
}

static void measure_page(const struct bench *b, struct form *f,
			 const char *page, double *ret_bytes)
{
	char out[2ul * PAGE];
	double start = now_ns();
	unsigned n = pack(b, f, page, out);

	f->compress_ns[f->nr] = now_ns() - start;
	if (n && f->codec) {
		start = now_ns();
		unpack(b, f, page, out, n);
		f->decompress_ns[f->nr] = now_ns() - start;
	}
	f->nr++;
	*ret_bytes += tmem_slot_bytes(n ? n : PAGE);
}

/* Training. */

/* zstd's own, with the same length of segments; its header left out. */
static int train_zdict(const struct pool *pool, char *content, unsigned bytes)
{
	ZDICT_fastCover_params_t p = { .k = 96, .d = 8, .f = 18, .accel = 1 };
	size_t *sizes = allocate(pool->nr_samples * sizeof(size_t)), n, head;
	unsigned i;

	for (i = 0; i < pool->nr_samples; i++)
		sizes[i] = PAGE;
	n = ZDICT_trainFromBuffer_fastCover(content, bytes, pool->samples,
					    sizes, pool->nr_samples, p);
	free(sizes);
	if (ZDICT_isError(n))
		return 0;
	head = ZDICT_getDictHeaderSize(content, n);
	memmove(content, content + head, n - head);
	return (int)(n - head);
}

static void train(struct form *f, const struct pool *pool)
{
	char *content = allocate(TMEM_DICT_MAX_BYTES);
	char *work = allocate(TMEM_TRAIN_WORK_BYTES);
	unsigned uses = f->codec->form == TMEM_FORM_LZ4_DICT ? TMEM_DICT_LZ4
							     : TMEM_DICT_ZSTD;
	double start = now_ns();
	int n;

	if (f->zdict)
		n = train_zdict(pool, content, f->dict_bytes);
	else
		n = tmem_train(pool->samples, pool->nr_samples, work, content,
			       f->dict_bytes);
	f->train_ms += (now_ns() - start) / 1e6;
	f->dict = NULL;
	if (n >= TMEM_DICT_MIN_BYTES &&
	    tmem_dict_build(allocate(tmem_dict_bytes((unsigned)n, uses)),
			    content, (unsigned)n, uses, &f->dict))
		bench_die("dictionary");
	free(content);
	free(work);
}

static void measure_pool(struct bench *b, unsigned nr)
{
	const struct pool *pool = &b->pools[nr];
	unsigned i, k;

	for (k = 0; k < b->nr_forms; k++)
		if (b->forms[k].dict_bytes)
			train(&b->forms[k], pool);
	for (i = 0; i < pool->nr; i++)
		for (k = 0; k < b->nr_forms; k++)
			measure_page(b, &b->forms[k],
				     pool->pages + (size_t)i * PAGE,
				     &b->forms[k].pool_bytes[nr]);
	for (k = 0; k < b->nr_forms; k++) {
		b->forms[k].bytes += b->forms[k].pool_bytes[nr];
		/* It lies at the start of its memory. */
		free((void *)b->forms[k].dict);
		b->forms[k].dict = NULL;
	}
}

/* The corpus. */

static void add_pool(struct bench *b, FILE *f, const char *name, unsigned nr)
{
	struct pool *pool = &b->pools[b->nr_pools++];
	char page[PAGE], out[PAGE];
	unsigned i;

	snprintf(pool->name, sizeof(pool->name), "%s", name);
	pool->samples = allocate((size_t)(nr / b->every + 1) * PAGE);
	pool->pages = allocate((size_t)nr * PAGE);
	for (i = 0; i < nr; i++) {
		if (fread(page, PAGE, 1, f) != 1)
			bench_die("corpus");
		if (tmem_codec_same.compress(NULL, NULL, page, out, PAGE))
			continue;
		if (i % b->every == 0)
			memcpy(pool->samples +
				       (size_t)pool->nr_samples++ * PAGE,
			       page, PAGE);
		else
			memcpy(pool->pages + (size_t)pool->nr++ * PAGE, page,
			       PAGE);
	}
}

static void read_corpus(struct bench *b, const char *path, const char *parts)
{
	FILE *f = fopen(path, "rb"), *p = parts ? fopen(parts, "r") : NULL;
	char name[32];
	unsigned nr;

	if (!f || (parts && !p))
		bench_die(f ? parts : path);
	fseek(f, 0, SEEK_END);
	b->nr_pages = (unsigned)((size_t)ftell(f) / PAGE);
	rewind(f);
	if (!p)
		add_pool(b, f, "all", b->nr_pages);
	while (p && b->nr_pools < MAX_POOLS &&
	       fscanf(p, "%31s %u", name, &nr) == 2)
		add_pool(b, f, name, nr);
	if (p)
		fclose(p);
	fclose(f);
}

static void make_corpus(struct bench *b, unsigned nr_pages)
{
	char path[BENCH_PATH_BYTES], parts[BENCH_PATH_BYTES];

	bench_make_corpus(path, parts, nr_pages);
	read_corpus(b, path, parts);
	unlink(path);
	unlink(parts);
}

/* The report. */

static double median(double *values, unsigned nr)
{
	return nr ? bench_median(values, nr) : 0;
}

static void print_text(struct bench *b)
{
	double base = b->forms[0].bytes;
	unsigned i, k;

	printf("%-16s %6s %8s %8s %6s", "form", "bytes", "compr ns", "decom ns",
	       "of lz4");
	for (k = 0; k < b->nr_pools; k++)
		printf(" %7s", b->pools[k].name);
	printf("  train ms\n");
	for (i = 0; i < b->nr_forms; i++) {
		struct form *f = &b->forms[i];

		printf("%-16s %6.0f %8.0f %8.0f %5.3fx", f->name,
		       f->bytes / f->nr, median(f->compress_ns, f->nr),
		       median(f->decompress_ns, f->nr), f->bytes / base);
		for (k = 0; k < b->nr_pools; k++)
			printf(" %6.3fx",
			       f->pool_bytes[k] / b->forms[0].pool_bytes[k]);
		printf("  %.0f\n", f->train_ms);
	}
}

static void print_json(struct bench *b)
{
	unsigned i;

	printf("{\"bench\": \"codec\", \"pages\": %u, \"forms\": [",
	       b->forms[0].nr);
	for (i = 0; i < b->nr_forms; i++) {
		struct form *f = &b->forms[i];

		printf("%s{\"form\": \"%s\", \"bytes_per_page\": %.1f, "
		       "\"of_lz4\": %.4f, \"compress_ns\": %.0f, "
		       "\"decompress_ns\": %.0f, \"train_ms\": %.1f}",
		       i ? ", " : "", f->name, f->bytes / f->nr,
		       f->bytes / b->forms[0].bytes,
		       median(f->compress_ns, f->nr),
		       median(f->decompress_ns, f->nr), f->train_ms);
	}
	printf("]}\n");
}

static const struct form *form_of(const struct bench *b,
				  const struct tmem_codec *codec)
{
	unsigned i;

	for (i = 0; i < b->nr_forms; i++)
		if (b->forms[i].codec == codec &&
		    (!codec->has_dict ||
		     b->forms[i].dict_bytes == DEFAULT_DICT))
			return &b->forms[i];
	abort();
}

static bool meets(const struct bench *b, const struct tmem_codec *codec,
		  unsigned percent)
{
	const struct form *f = form_of(b, codec);
	double part = f->bytes * 100 / b->forms[0].bytes;

	fprintf(stderr, "%s: %.1f %% of lz4's memory (target %u): %s\n",
		f->name, part, percent, part <= percent ? "met" : "MISSED");
	return part <= percent;
}

struct options {
	const char *path;
	const char *parts;
	unsigned pages;
};

static void parse(int argc, char **argv, struct options *o, struct bench *b)
{
	const struct bench_option options[] = {
		{ "CORPUS", .text = &o->path },
		{ "--parts FILE", .text = &o->parts },
		{ "--pages N", .number = &o->pages },
		{ "--every N", .number = &b->every, .min = 2 },
		{ "--json", .flag = &b->json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
}

int main(int argc, char **argv)
{
	static struct bench b = { .every = 20 };
	struct options o = { .pages = 20000 };
	unsigned i;
	bool good;

	parse(argc, argv, &o, &b);
	if (o.path)
		read_corpus(&b, o.path, o.parts);
	else
		make_corpus(&b, o.pages);
	if (!b.nr_pages)
		return 1;
	b.lz4_scratch = allocate(sizeof(LZ4_streamHC_t));
	b.zstd_scratch = allocate(TMEM_ZSTD_COMPRESS_BYTES);
	b.decompress_scratch = allocate(TMEM_ZSTD_DECOMPRESS_BYTES);
	add_forms(&b);
	for (i = 0; i < b.nr_pools; i++)
		measure_pool(&b, i);
	if (b.json)
		print_json(&b);
	else
		print_text(&b);
	good = meets(&b, &tmem_codec_lz4_dict, RAM_PERCENT);
	good = meets(&b, &tmem_codec_zstd, COLD_PERCENT) && good;
	return !(meets(&b, &tmem_codec_zstd_dict, COLD_PERCENT) && good);
}
