/* SPDX-License-Identifier: MIT */
/* A page as it is: for what does not compress while there is room. */
#include "codec.h"

#include <errno.h>
#include <string.h>

#include "tmem/tmem.h"

static unsigned compress(void *scratch, const struct tmem_dict *dict,
			 const void *page, void *dst, unsigned capacity)
{
	(void)scratch;
	(void)dict;
	if (capacity < TMEM_PAGE_SIZE)
		return 0;
	memcpy(dst, page, TMEM_PAGE_SIZE);
	return TMEM_PAGE_SIZE;
}

static int decompress(void *scratch, const struct tmem_dict *dict,
		      const void *src, unsigned length, void *page)
{
	(void)scratch;
	(void)dict;
	if (length != TMEM_PAGE_SIZE)
		return -EIO;
	memcpy(page, src, TMEM_PAGE_SIZE);
	return 0;
}

const struct tmem_codec tmem_codec_raw = {
	.name = "raw",
	.form = TMEM_FORM_RAW,
	.has_dict = false,
	.compress_bytes = 0,
	.decompress_bytes = 0,
	.compress = compress,
	.decompress = decompress,
};
