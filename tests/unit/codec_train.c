/* SPDX-License-Identifier: MIT */
/*
 * Dictionaries and their training: what they are made of, what they refuse,
 * that the same samples give the same, and that they are worth something.
 */
#include "codecs/train.h"

#include "fstest.h"
#include "testcodec.h"

enum {
	NR = 256,
	CONTENT = 16 * 1024,
	BOTH = TMEM_DICT_LZ4 | TMEM_DICT_ZSTD
};

static char *samples, *others, *work, *scratch;
static char content[TMEM_DICT_MAX_BYTES + 1];
static struct rng rng;

static void fill(char *pages, void (*draw)(void *page, struct rng *rng))
{
	unsigned i;

	for (i = 0; i < NR; i++)
		draw(pages + i * PAGE, &rng);
}

static void draw_noise(void *page, struct rng *r)
{
	uint64_t *w = page;
	unsigned i;

	for (i = 0; i < PAGE / 8; i++)
		w[i] = rng_next(r);
}

static void draw_same(void *page, struct rng *r)
{
	(void)r;
	memset(page, 0x41, PAGE);
}

static int train(const char *pages, unsigned nr, unsigned capacity)
{
	return tmem_train(pages, nr, work, content, capacity);
}

/* Bytes in slots, without a dictionary and with one of the content. */
static uint64_t bytes_by(const struct tmem_codec *codec, const void *memory)
{
	struct tmem_train_sum sum;

	memset(scratch, 0, TMEM_TRAIN_SCRATCH_BYTES(codec->compress_bytes));
	sum = tmem_train_sum(codec, memory, scratch, others, NR);
	CHECK_EQ(sum.nr_pages, NR);
	CHECK_EQ(sum.bytes % TMEM_SLOT_GRAIN, 0);
	return sum.bytes;
}

static void it_helps_pages_it_has_not_seen(void)
{
	const struct tmem_dict *dict;
	void *memory;
	int n;

	fill(samples, page_of_records);
	fill(others, page_of_records);
	n = train(samples, NR, CONTENT);
	CHECK(n >= TMEM_DICT_MIN_BYTES && n <= CONTENT);
	memory = aligned_alloc(64, tmem_dict_bytes((unsigned)n, BOTH));
	CHECK(memory != NULL);
	CHECK_EQ(tmem_dict_build(memory, content, (unsigned)n, BOTH, &dict), 0);
	CHECK_EQ(dict->uses, BOTH);
	CHECK_EQ(dict->content_bytes, n);
	CHECK(memcmp(dict->content, content, (size_t)n) == 0);
	CHECK(bytes_by(&tmem_codec_lz4_dict, dict) * 100 <
	      bytes_by(&tmem_codec_lz4, NULL) * 99);
	CHECK(bytes_by(&tmem_codec_zstd_dict, dict) * 100 <
	      bytes_by(&tmem_codec_zstd, NULL) * 99);
	CHECK(bytes_by(&tmem_codec_zstd, NULL) <
	      bytes_by(&tmem_codec_lz4, NULL));
	free(memory);
}

static void the_same_samples_give_the_same(void)
{
	static char again[CONTENT];
	int n, m;

	fill(samples, page_of_records);
	memset(work, 0x11, TMEM_TRAIN_WORK_BYTES);
	n = train(samples, NR, CONTENT);
	CHECK(n > 0);
	memcpy(again, content, (size_t)n);
	memset(work, 0xee, TMEM_TRAIN_WORK_BYTES);
	memset(content, 0, sizeof(content));
	m = train(samples, NR, CONTENT);
	CHECK_EQ(n, m);
	CHECK(memcmp(content, again, (size_t)n) == 0);
}

static void nothing_in_common_gives_none(void)
{
	fill(samples, draw_noise);
	CHECK_EQ(train(samples, NR, CONTENT), 0);
	fill(samples, draw_same);
	CHECK_EQ(train(samples, NR, CONTENT), 0);
}

static void too_few_or_too_many_are_refused(void)
{
	fill(samples, page_of_records);
	CHECK_EQ(train(samples, 0, CONTENT), -EINVAL);
	CHECK_EQ(train(samples, TMEM_TRAIN_MIN_PAGES - 1, CONTENT), -EINVAL);
	CHECK_EQ(train(samples, TMEM_TRAIN_MAX_PAGES + 1, CONTENT), -EINVAL);
	CHECK_EQ(train(samples, NR, TMEM_DICT_MIN_BYTES - 1), -EINVAL);
	CHECK_EQ(train(samples, NR, TMEM_DICT_MAX_BYTES + 1), -EINVAL);
	CHECK(train(samples, TMEM_TRAIN_MIN_PAGES, CONTENT) > 0);
}

/* Any mixture, any capacity: nothing beyond it is written. */
static void capacity_is_kept(void)
{
	unsigned i, k;
	int n;

	for (i = 0; i < 60; i++) {
		unsigned capacity = TMEM_DICT_MIN_BYTES, nr;

		capacity += (unsigned)rng_below(&rng, TMEM_DICT_MAX_BYTES -
							      capacity + 1);
		if (i % 4 == 0)
			capacity = TMEM_DICT_MIN_BYTES + i;
		nr = (unsigned)rng_below(&rng, NR - TMEM_TRAIN_MIN_PAGES);
		for (k = 0; k < 8; k++)
			draw_noise(samples + rng_below(&rng, NR) * PAGE, &rng);
		for (k = 0; k < 8; k++)
			draw_same(samples + rng_below(&rng, NR) * PAGE, &rng);
		memset(content, 0x5a, sizeof(content));
		n = train(samples, nr + TMEM_TRAIN_MIN_PAGES, capacity);
		CHECK(n >= 0 && (unsigned)n <= capacity);
		CHECK(n == 0 || n >= TMEM_DICT_MIN_BYTES);
		for (k = (unsigned)n; k < sizeof(content); k++)
			CHECK_EQ(content[k], 0x5a);
	}
}

static void a_dictionary_of_a_wrong_size_is_refused(void)
{
	const struct tmem_dict *dict = NULL;
	void *memory =
		aligned_alloc(64, tmem_dict_bytes(TMEM_DICT_MAX_BYTES, BOTH));

	CHECK(memory != NULL);
	CHECK_EQ(tmem_dict_build(memory, content, 0, BOTH, &dict), -EINVAL);
	CHECK_EQ(tmem_dict_build(memory, content, TMEM_DICT_MIN_BYTES - 1, BOTH,
				 &dict),
		 -EINVAL);
	CHECK_EQ(tmem_dict_build(memory, content, TMEM_DICT_MAX_BYTES + 1, BOTH,
				 &dict),
		 -EINVAL);
	CHECK(!dict);
	free(memory);
}

/* Each size: in memory of just what it asks for. */
static void a_dictionary_stays_in_its_memory(void)
{
	_Alignas(8) char page[PAGE];
	char back[PAGE], out[2 * PAGE];
	unsigned bytes, n;

	for (bytes = TMEM_DICT_MIN_BYTES; bytes <= TMEM_DICT_MAX_BYTES;
	     bytes += 1 + (unsigned)rng_below(&rng, 2000)) {
		const struct tmem_dict *dict = dict_of_records(bytes, bytes);

		page_of_records(page, &rng);
		n = tmem_codec_lz4_dict.compress(scratch, dict, page, out,
						 PAGE);
		CHECK(n > 0);
		CHECK_EQ(tmem_codec_lz4_dict.decompress(NULL, dict, out, n,
							back),
			 0);
		CHECK(memcmp(page, back, PAGE) == 0);
		dict_free(dict);
	}
}

static void same_filled_pages_count_for_nothing(void)
{
	struct tmem_train_sum sum;

	fill(others, draw_same);
	sum = tmem_train_sum(&tmem_codec_lz4, NULL, scratch, others, NR);
	CHECK_EQ(sum.nr_pages, 0);
	CHECK_EQ(sum.bytes, 0);
	fill(others, draw_noise);
	sum = tmem_train_sum(&tmem_codec_lz4, NULL, scratch, others, NR);
	CHECK_EQ(sum.nr_pages, NR);
	CHECK_EQ(sum.bytes, NR * (PAGE + TMEM_SLOT_GRAIN));
}

int main(int argc, char **argv)
{
	rng.state = seed_from(argc, argv, 1);
	samples = pages_alloc(NR);
	others = pages_alloc(NR);
	work = aligned_alloc(64, TMEM_TRAIN_WORK_BYTES);
	scratch = aligned_alloc(
		64, TMEM_TRAIN_SCRATCH_BYTES(TMEM_ZSTD_COMPRESS_BYTES));
	CHECK(work && scratch);
	RUN(it_helps_pages_it_has_not_seen);
	RUN(the_same_samples_give_the_same);
	RUN(nothing_in_common_gives_none);
	RUN(too_few_or_too_many_are_refused);
	RUN(capacity_is_kept);
	RUN(a_dictionary_of_a_wrong_size_is_refused);
	RUN(a_dictionary_stays_in_its_memory);
	RUN(same_filled_pages_count_for_nothing);
	free(scratch);
	free(work);
	pages_free(samples, NR);
	pages_free(others, NR);
	return 0;
}
