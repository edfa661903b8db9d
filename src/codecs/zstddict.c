/* SPDX-License-Identifier: MIT */
/* zstd with a dictionary: for the cold pages of a pool that has one. */
#include <errno.h>

#include "codec.h"
#include "dict.h"
#include "zstdpage.h"

static unsigned compress(void *scratch, const struct tmem_dict *dict,
			 const void *page, void *dst, unsigned capacity)
{
	if (!dict || !dict->cdict)
		return 0;
	return tmem_zstd_compress(scratch, dict->cdict, page, dst, capacity);
}

static int decompress(void *scratch, const struct tmem_dict *dict,
		      const void *src, unsigned length, void *page)
{
	if (!dict)
		return -EIO;
	return tmem_zstd_decompress(scratch, dict, src, length, page);
}

const struct tmem_codec tmem_codec_zstd_dict = {
	.name = "zstd+dict",
	.form = TMEM_FORM_ZSTD_DICT,
	.has_dict = true,
	.compress_bytes = TMEM_ZSTD_COMPRESS_BYTES,
	.decompress_bytes = TMEM_ZSTD_DECOMPRESS_BYTES,
	.compress = compress,
	.decompress = decompress,
};
