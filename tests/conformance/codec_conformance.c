/* SPDX-License-Identifier: MIT */
/*
 * What codecs/codec.h asks of every codec, tried on each one of the table.
 *
 *	codec_conformance [ROUNDS] [SEED]
 */
#include "codecs/codec.h"

#include "fstest.h"

enum {
	GUARD = 64,
	OUT = 2 * PAGE
};

static const struct tmem_codec *codec;
static char *scratch;
static uint64_t rounds;
static struct rng rng;

/* From one word repeated to noise. */
static void draw_page(void *page)
{
	uint64_t *w = page, word = rng_next(&rng);
	uint64_t random = rng_below(&rng, PAGE / 8 + 1);
	unsigned i;

	if (rng_below(&rng, 3) == 0)
		random = 0;
	for (i = 0; i < PAGE / 8; i++)
		w[i] = i < random ? rng_next(&rng) : word;
}

static void dirty_scratch(void)
{
	memset(scratch, (int)rng_below(&rng, 256), TMEM_CODEC_SCRATCH_BYTES);
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
		n = codec->compress(scratch, page, out, PAGE);
		CHECK(n <= PAGE);
		if (!n)
			continue;
		accepted++;
		memset(back, 0x5a, sizeof(back));
		CHECK_EQ(codec->decompress(out, n, back + GUARD), 0);
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
		n = codec->compress(scratch, page, a, PAGE);
		dirty_scratch();
		m = codec->compress(scratch, page, b, PAGE);
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
		fit = codec->compress(scratch, page, out, PAGE);
		capacity = (unsigned)rng_below(&rng, PAGE + 1);
		memset(out, 0x5a, sizeof(out));
		n = codec->compress(scratch, page, out, capacity);
		CHECK(n <= capacity);
		/* It fits, or it does not: not "does not" although it does. */
		if (fit && fit <= capacity)
			CHECK_EQ(n, fit);
		for (k = capacity; k < sizeof(out); k++)
			CHECK_EQ(out[k], 0x5a);
	}
	CHECK_EQ(codec->compress(scratch, page, out, 0), 0);
}

/* In a buffer of just that size, so that a sanitizer sees every overstep. */
static void any_bytes_are_safe_to_decompress(void)
{
	_Alignas(8) char page[PAGE];
	char out[OUT];
	char *exact, *back = malloc(PAGE);
	unsigned n;
	uint64_t i;
	int r;

	CHECK(back != NULL);
	for (i = 0; i < rounds; i++) {
		draw_page(page);
		n = codec->compress(scratch, page, out, PAGE);
		if (!n || rng_below(&rng, 4) == 0) {
			draw_page(out);
			n = (unsigned)rng_below(&rng, PAGE + 1);
		} else if (rng_below(&rng, 2)) {
			n = (unsigned)rng_below(&rng, n + 1);
		} else {
			unsigned at = (unsigned)rng_below(&rng, n);

			out[at] = (char)(out[at] ^ (char)rng_next(&rng));
		}
		exact = malloc(n ? n : 1);
		CHECK(exact != NULL);
		memcpy(exact, out, n);
		r = codec->decompress(exact, n, back);
		CHECK(r == 0 || r == -EIO);
		free(exact);
	}
	CHECK_EQ(codec->decompress(out, 0, back), -EIO);
	free(back);
}

static void no_alignment_is_needed(void)
{
	_Alignas(8) char page[PAGE];
	char moved[PAGE + 8], out[OUT], back[PAGE + 8];
	unsigned offset, n;

	for (offset = 1; offset < 8; offset++) {
		memset(page, 0x77, PAGE);
		memcpy(moved + offset, page, PAGE);
		n = codec->compress(scratch, moved + offset, out + offset,
				    PAGE);
		CHECK(n > 0);
		CHECK_EQ(codec->decompress(out + offset, n, back + offset), 0);
		CHECK(memcmp(back + offset, page, PAGE) == 0);
	}
}

static void members_are_in_order(void)
{
	CHECK(codec->name && codec->name[0]);
	CHECK(codec->form > 0 && codec->form < TMEM_FORM_REF);
	CHECK(codec->scratch_bytes <= TMEM_CODEC_SCRATCH_BYTES);
	CHECK(tmem_codec_of(codec->form) == codec);
}

int main(int argc, char **argv)
{
	unsigned i;

	rounds = argc > 1 ? strtoull(argv[1], NULL, 0) : 4000;
	rng.state = seed_from(argc, argv, 2);
	scratch = aligned_alloc(64, TMEM_CODEC_SCRATCH_BYTES);
	CHECK(scratch != NULL);
	for (i = 0; tmem_codecs[i]; i++) {
		codec = tmem_codecs[i];
		fprintf(stderr, "%s\n", codec->name);
		RUN(members_are_in_order);
		RUN(what_goes_in_comes_out);
		RUN(the_same_page_gives_the_same_bytes);
		RUN(capacity_is_kept);
		RUN(any_bytes_are_safe_to_decompress);
		RUN(no_alignment_is_needed);
	}
	CHECK(i >= 3);
	CHECK(!tmem_codec_of(TMEM_FORM_REF) && !tmem_codec_of(0));
	free(scratch);
	return 0;
}
