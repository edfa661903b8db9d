/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes decompression of every form, with and without the right dictionary,
 * and compression before it.
 *
 * Input: a byte that picks the codec (low 3 bits), the dictionary (bit 3) and
 * what follows (bit 7).  0: what follows is decompressed as it is.  1: it is
 * a page, repeated as often as it takes, that must survive; then two bytes of
 * what was made of it are changed, as the first four bytes say.
 */
#include "codecs/codec.h"
#include "fstest.h"
#include "testcodec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	HEAD = 5
};

static const struct tmem_dict *dicts[2];
static char *compress_scratch, *decompress_scratch;
static char *src_end, *page;

static void set_up(void)
{
	size_t bytes = TMEM_ZSTD_COMPRESS_BYTES + TMEM_ZSTD_DECOMPRESS_BYTES;

	if (page)
		return;
	dicts[0] = dict_of_records(8192, 1);
	dicts[1] = dict_of_records(TMEM_DICT_MIN_BYTES, 2);
	src_end = guarded_alloc(2) + 2 * PAGE;
	page = guarded_alloc(1);
	compress_scratch = aligned_alloc(64, bytes);
	CHECK(compress_scratch != NULL);
	memset(compress_scratch, 0, bytes);
	decompress_scratch = compress_scratch + TMEM_ZSTD_COMPRESS_BYTES;
}

/* Of bytes that end where memory does. */
static int decompress(const struct tmem_codec *codec,
		      const struct tmem_dict *dict, const void *src, size_t n)
{
	memcpy(src_end - n, src, n);
	return codec->decompress(decompress_scratch, dict, src_end - n,
				 (unsigned)n, page);
}

static void pack_and_change(const struct tmem_codec *codec,
			    const struct tmem_dict *dict, const uint8_t *data,
			    size_t size)
{
	uint8_t original[PAGE], out[PAGE];
	unsigned n;
	size_t i;

	for (i = 0; i < PAGE; i++)
		original[i] = data[HEAD + i % (size - HEAD)];
	n = codec->compress(compress_scratch, dict, original, out, PAGE);
	if (!n)
		return;
	CHECK_EQ(decompress(codec, dict, out, n), 0);
	CHECK(memcmp(page, original, PAGE) == 0);
	out[(data[1] | data[2] << 8) % n] ^= data[3];
	out[data[1] % n] ^= data[4];
	decompress(codec, dict, out, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct tmem_codec *codec;
	const struct tmem_dict *dict;
	unsigned nr;

	set_up();
	if (size <= HEAD || size > PAGE + HEAD)
		return 0;
	for (nr = 1; tmem_codecs[nr]; nr++)
		;
	codec = tmem_codecs[(data[0] & 7) % nr];
	dict = codec->has_dict ? dicts[data[0] >> 3 & 1] : NULL;
	if (data[0] & 0x80)
		pack_and_change(codec, dict, data, size);
	else
		decompress(codec, dict, data + 1, size - 1);
	return 0;
}
