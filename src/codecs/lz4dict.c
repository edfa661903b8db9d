/* SPDX-License-Identifier: MIT */
/*
 * LZ4 with a dictionary.  The stream that has it loaded is copied over the
 * scratch, which takes as long as clearing it for plain LZ4 does; and then
 * there is one table to look into, not two.
 */
#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "codec.h"
#include "dict.h"
#include "tmem/tmem.h"

static unsigned compress(void *scratch, const struct tmem_dict *dict,
			 const void *page, void *dst, unsigned capacity)
{
	LZ4_stream_t *stream = scratch;
	int r;

	if (!dict || !dict->lz4)
		return 0;
	memcpy(stream, dict->lz4, sizeof(*stream));
	r = LZ4_compress_fast_continue(stream, page, dst, TMEM_PAGE_SIZE,
				       (int)capacity, 1);
	return r > 0 ? (unsigned)r : 0;
}

static int decompress(void *scratch, const struct tmem_dict *dict,
		      const void *src, unsigned length, void *page)
{
	int r;

	(void)scratch;
	if (!dict)
		return -EIO;
	r = LZ4_decompress_safe_usingDict(src, page, (int)length,
					  TMEM_PAGE_SIZE, dict->content,
					  (int)dict->content_bytes);
	return r == (int)TMEM_PAGE_SIZE ? 0 : -EIO;
}

const struct tmem_codec tmem_codec_lz4_dict = {
	.name = "lz4+dict",
	.form = TMEM_FORM_LZ4_DICT,
	.has_dict = true,
	.compress_bytes = TMEM_LZ4_COMPRESS_BYTES,
	.decompress_bytes = 0,
	.compress = compress,
	.decompress = decompress,
};
