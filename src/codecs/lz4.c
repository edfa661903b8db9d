/* SPDX-License-Identifier: MIT */
/* LZ4, with the hash table in the caller's scratch. */
#include "codec.h"

#include <errno.h>
#include <lz4.h>

#include "tmem/tmem.h"

_Static_assert(sizeof(LZ4_stream_t) <= TMEM_CODEC_SCRATCH_BYTES,
	       "the scratch must hold LZ4's state");

static unsigned compress(void *scratch, const void *page, void *dst,
			 unsigned capacity)
{
	int r = LZ4_compress_fast_extState(scratch, page, dst, TMEM_PAGE_SIZE,
					   (int)capacity, 1);

	return r > 0 ? (unsigned)r : 0;
}

static int decompress(const void *src, unsigned length, void *page)
{
	int r = LZ4_decompress_safe(src, page, (int)length, TMEM_PAGE_SIZE);

	return r == (int)TMEM_PAGE_SIZE ? 0 : -EIO;
}

const struct tmem_codec tmem_codec_lz4 = {
	.name = "lz4",
	.form = TMEM_FORM_LZ4,
	.scratch_bytes = sizeof(LZ4_stream_t),
	.compress = compress,
	.decompress = decompress,
};
