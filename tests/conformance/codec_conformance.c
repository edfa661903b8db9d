/* SPDX-License-Identifier: MIT */
/*
 * What codecs/codec.h asks of every codec, tried on each one of the table.
 *
 *	codec_conformance [ROUNDS] [SEED]
 *
 * Codecs with a dictionary are tried with a few of them.  Bytes to decompress
 * end where memory ends, and so does the page that they go to, in turn before
 * and behind: a step beyond is a fault, in the codecs' libraries too.
 */
#include "codecs/codec.h"

#include "codecs/dict.h"
#include "fstest.h"
#include "testcodec.h"

enum {
	GUARD = 64,
	OUT = 2 * PAGE,
	SCRATCH_MAX = 256 * 1024,
	NR_DICTS = 4
};

static const struct tmem_codec *codec;
static const struct tmem_dict *dict;  /* NULL for a codec without */
static const struct tmem_dict *other; /* another, for the same codec */
static char *compress_scratch, *decompress_scratch;
static char *src_end, *edge_page;
static uint64_t rounds;
static struct rng rng;

/* From one word repeated to noise, or text, or little numbers. */
static void draw_page(void *page)
{
	uint64_t *w = page, word = rng_next(&rng);
	uint64_t random = rng_below(&rng, PAGE / 8 + 1);
	unsigned i, kind = (unsigned)rng_below(&rng, 6);

	if (kind == 0)
		random = 0;
	for (i = 0; i < PAGE / 8; i++) {
		if (kind == 1)
			w[i] = rng_below(&rng, 1000);
		else
			w[i] = i < random ? rng_next(&rng) : word;
	}
	if (kind == 2)
		page_of_records(page, &rng);
	else if (kind == 3)
		memset(page, (int)rng_below(&rng, 256), random);
}

static unsigned pack(const void *page, void *dst, unsigned capacity)
{
	return codec->compress(compress_scratch, dict, page, dst, capacity);
}

/* From bytes that end where memory does. */
static int unpack(const void *src, unsigned length, void *page)
{
	memcpy(src_end - length, src, length);
	return codec->decompress(decompress_scratch, dict, src_end - length,
				 length, page);
}

/* Scratch that may be anything: LZ4's.  zstd's is left alone. */
static void dirty_scratch(void)
{
	if (codec->compress_bytes == TMEM_LZ4_COMPRESS_BYTES)
		memset(compress_scratch, (int)rng_below(&rng, 256),
		       codec->compress_bytes);
}

static void clean_scratch(void)
{
	memset(compress_scratch, 0, SCRATCH_MAX);
	memset(decompress_scratch, 0, SCRATCH_MAX);
}

static void what_goes_in_comes_out(void)
{
	_Alignas(8) char page[PAGE];
	char out[OUT], back[PAGE + 2ul * GUARD];
	unsigned n, accepted = 0;
	uint64_t i;

	for (i = 0; i < rounds; i++) {
		draw_page(page);
		dirty_scratch();
		n = pack(page, out, PAGE);
		CHECK(n <= PAGE);
		if (!n)
			continue;
		accepted++;
		memset(back, 0x5a, sizeof(back));
		CHECK_EQ(unpack(out, n, back + GUARD), 0);
		CHECK(memcmp(back + GUARD, page, PAGE) == 0);
		CHECK_EQ(back[GUARD - 1], 0x5a);
		CHECK_EQ(back[GUARD + PAGE], 0x5a);
	}
	CHECK(accepted > 0);
}

static void the_same_page_gives_the_same_bytes(void)
{
	_Alignas(8) char page[PAGE];
	char a[OUT], b[OUT];
	unsigned n, m;
	uint64_t i;

	for (i = 0; i < rounds / 8; i++) {
		draw_page(page);
		dirty_scratch();
		n = pack(page, a, PAGE);
		dirty_scratch();
		if (i % 16 == 0)
			clean_scratch();
		m = pack(page, b, PAGE);
		CHECK_EQ(n, m);
		CHECK(memcmp(a, b, n) == 0);
	}
}

static void capacity_is_kept(void)
{
	_Alignas(8) char page[PAGE];
	char out[OUT];
	unsigned n, fit, capacity, k;
	uint64_t i;

	for (i = 0; i < rounds; i++) {
		draw_page(page);
		fit = pack(page, out, PAGE);
		capacity = (unsigned)rng_below(&rng, PAGE + 1);
		if (fit && rng_below(&rng, 2))
			capacity = fit - (unsigned)rng_below(&rng, 2);
		memset(out, 0x5a, sizeof(out));
		n = pack(page, out, capacity);
		CHECK(n <= capacity);
		/* It fits, or it does not: not "does not" although it does. */
		if (fit)
			CHECK_EQ(n, fit <= capacity ? fit : 0);
		for (k = capacity; k < sizeof(out); k++)
			CHECK_EQ(out[k], 0x5a);
	}
	CHECK_EQ(pack(page, out, 0), 0);
}

static void every_capacity_is_kept(void)
{
	_Alignas(8) char page[PAGE];
	char out[OUT];
	unsigned n, fit, capacity;

	page_of_records(page, &rng);
	fit = pack(page, out, PAGE);
	for (capacity = 0; capacity <= PAGE; capacity++) {
		memset(out + capacity, 0x5a, GUARD);
		n = pack(page, out, capacity);
		CHECK_EQ(n, fit <= capacity ? fit : 0);
		CHECK_EQ(out[capacity], 0x5a);
		CHECK_EQ(out[capacity + GUARD - 1], 0x5a);
	}
}

/* Bytes that are not what the codec made: noise, cut off, or changed. */
static unsigned draw_hostile(char *out)
{
	_Alignas(8) char page[PAGE];
	unsigned n, at;

	draw_page(page);
	n = pack(page, out, PAGE);
	if (!n || rng_below(&rng, 4) == 0) {
		draw_page(out);
		return (unsigned)rng_below(&rng, PAGE + 1);
	}
	if (rng_below(&rng, 3) == 0)
		return (unsigned)rng_below(&rng, n + 1);
	do {
		at = (unsigned)rng_below(&rng, n);
		out[at] = (char)(out[at] ^ (char)rng_next(&rng));
	} while (rng_below(&rng, 2));
	return n;
}

static void any_bytes_are_safe_to_decompress(void)
{
	_Alignas(8) char out[OUT], page[PAGE], back[PAGE];
	unsigned n;
	uint64_t i;
	int r;

	for (i = 0; i < rounds; i++) {
		n = draw_hostile(out);
		r = unpack(out, n, edge_page);
		CHECK(r == 0 || r == -EIO);
	}
	CHECK_EQ(unpack(out, 0, edge_page), -EIO);
	/* No trace of it is left. */
	memset(page, 0x77, PAGE);
	n = pack(page, out, PAGE);
	CHECK_EQ(unpack(out, n, back), 0);
	CHECK(memcmp(back, page, PAGE) == 0);
}

/* Each length of what was made, and a byte more: one page, or none. */
static void every_length_is_safe_to_decompress(void)
{
	_Alignas(8) char page[PAGE];
	char out[OUT];
	unsigned n, length;

	page_of_records(page, &rng);
	n = pack(page, out, PAGE);
	if (!n)
		return;
	for (length = 0; length <= n + 1 && length <= PAGE; length++) {
		int r = unpack(out, length, edge_page);

		if (length == n)
			CHECK_EQ(r, 0);
		else
			CHECK(r == 0 || r == -EIO);
	}
	CHECK_EQ(unpack(out, PAGE + 1, edge_page), -EIO);
}

static void a_wrong_dictionary_is_safe(void)
{
	const struct tmem_dict *right = dict;
	_Alignas(8) char page[PAGE];
	char out[OUT];
	unsigned n, wrong = 0;
	uint64_t i;
	int r;

	if (!codec->has_dict)
		return;
	for (i = 0; i < rounds; i++) {
		draw_page(page);
		n = pack(page, out, PAGE);
		if (!n)
			continue;
		dict = other;
		r = unpack(out, n, edge_page);
		dict = right;
		CHECK(r == 0 || r == -EIO);
		wrong += r || memcmp(edge_page, page, PAGE) != 0;
	}
	CHECK(wrong > 0);
	CHECK_EQ(codec->compress(compress_scratch, NULL, page, out, PAGE), 0);
	CHECK_EQ(codec->decompress(decompress_scratch, NULL, out, n, page),
		 -EIO);
}

static void no_alignment_is_needed(void)
{
	_Alignas(8) char page[PAGE];
	char moved[PAGE + 8], out[OUT], back[PAGE + 8];
	unsigned offset, n;

	for (offset = 1; offset < 8; offset++) {
		memset(page, 0x77, PAGE);
		memcpy(moved + offset, page, PAGE);
		n = pack(moved + offset, out + offset, PAGE);
		CHECK(n > 0);
		CHECK_EQ(codec->decompress(decompress_scratch, dict,
					   out + offset, n, back + offset),
			 0);
		CHECK(memcmp(back + offset, page, PAGE) == 0);
	}
}

static void members_are_in_order(void)
{
	CHECK(codec->name && codec->name[0]);
	CHECK(codec->form > 0 && codec->form < TMEM_FORM_REF);
	CHECK(codec->compress_bytes <= SCRATCH_MAX);
	CHECK(codec->decompress_bytes <= SCRATCH_MAX);
	CHECK(tmem_codec_of(codec->form) == codec);
}

static void try_codec(void)
{
	clean_scratch();
	RUN(members_are_in_order);
	RUN(what_goes_in_comes_out);
	RUN(the_same_page_gives_the_same_bytes);
	RUN(capacity_is_kept);
	RUN(every_capacity_is_kept);
	edge_page = guarded_alloc(1);
	RUN(any_bytes_are_safe_to_decompress);
	RUN(every_length_is_safe_to_decompress);
	RUN(a_wrong_dictionary_is_safe);
	CHECK_EQ(munmap(edge_page, PAGE), 0);
	RUN(no_alignment_is_needed);
}

static void try_dicts(void)
{
	const struct tmem_dict *dicts[NR_DICTS] = {
		dict_of_records(TMEM_DICT_MIN_BYTES, 1),
		dict_of_records(5001, 2),
		dict_of_records(16 * 1024, 3),
		dict_of_records(TMEM_DICT_MAX_BYTES, 4),
	};
	uint64_t all = rounds;
	unsigned i;

	rounds = all / NR_DICTS;
	for (i = 0; i < NR_DICTS; i++) {
		dict = dicts[i];
		other = dicts[(i + 1) % NR_DICTS];
		fprintf(stderr, "%s of %u bytes\n", codec->name,
			dict->content_bytes);
		try_codec();
	}
	for (i = 0; i < NR_DICTS; i++)
		dict_free(dicts[i]);
	dict = NULL;
	rounds = all;
}

/* Both forms of zstd, and several dictionaries, in one scratch by turns. */
static void one_scratch_serves_both_of_zstd(void)
{
	const struct tmem_dict *dicts[2] = { dict_of_records(4096, 5),
					     dict_of_records(20000, 6) };
	_Alignas(8) char page[PAGE];
	char out[OUT], back[PAGE];
	unsigned n;
	uint64_t i;

	clean_scratch();
	for (i = 0; i < rounds / 4; i++) {
		codec = rng_below(&rng, 2) ? &tmem_codec_zstd
					   : &tmem_codec_zstd_dict;
		dict = codec->has_dict ? dicts[rng_below(&rng, 2)] : NULL;
		draw_page(page);
		n = pack(page, out, PAGE);
		if (!n)
			continue;
		CHECK_EQ(unpack(out, n, back), 0);
		CHECK(memcmp(back, page, PAGE) == 0);
	}
	dict_free(dicts[0]);
	dict_free(dicts[1]);
	dict = NULL;
}

int main(int argc, char **argv)
{
	char *src = guarded_alloc(2);
	unsigned i;

	rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 4000;
	rng.state = seed_from(argc, argv, 2);
	src_end = src + 2 * PAGE;
	compress_scratch = aligned_alloc(64, SCRATCH_MAX);
	decompress_scratch = aligned_alloc(64, SCRATCH_MAX);
	CHECK(compress_scratch && decompress_scratch);
	tmem_codecs_check();
	for (i = 0; tmem_codecs[i]; i++) {
		codec = tmem_codecs[i];
		if (codec->has_dict) {
			try_dicts();
		} else {
			fprintf(stderr, "%s\n", codec->name);
			try_codec();
		}
	}
	CHECK(i >= 6);
	CHECK(!tmem_codec_of(TMEM_FORM_REF) && !tmem_codec_of(0));
	RUN(one_scratch_serves_both_of_zstd);
	free(compress_scratch);
	free(decompress_scratch);
	return 0;
}
