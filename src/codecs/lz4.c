/* SPDX-License-Identifier: MIT */
/* LZ4, with the hash table in the caller's scratch. */
#include "codec.h"

#include <errno.h>
#include <lz4.h>

#include "tmem/tmem.h"

_Static_assert(sizeof(LZ4_stream_t) <= TMEM_LZ4_COMPRESS_BYTES,
	       "the scratch must hold LZ4's state");

static unsigned compress(void *scratch, const struct tmem_dict *dict,
			 const void *page, void *dst, unsigned capacity)
{
	int r;

	(void)dict;
	r = LZ4_compress_fast_extState(scratch, page, dst, TMEM_PAGE_SIZE,
				       (int)capacity, 1);
	return r > 0 ? (unsigned)r : 0;
}

static int decompress(void *scratch, const struct tmem_dict *dict,
		      const void *src, unsigned length, void *page)
{
	int r;

	(void)scratch;
	(void)dict;
	r = LZ4_decompress_safe(src, page, (int)length, TMEM_PAGE_SIZE);
	return r == (int)TMEM_PAGE_SIZE ? 0 : -EIO;
}

const struct tmem_codec tmem_codec_lz4 = {
	.name = "lz4",
	.form = TMEM_FORM_LZ4,
	.has_dict = false,
	.compress_bytes = TMEM_LZ4_COMPRESS_BYTES,
	.decompress_bytes = 0,
	.compress = compress,
	.decompress = decompress,
};
