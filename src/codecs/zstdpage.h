/* SPDX-License-Identifier: MIT */
/*
 * One page by zstd, with or without a dictionary.
 *
 * What is stored is the content of one compressed block.  The frame around
 * it, 5 bytes, is the same for all pages but for the length, so it is cut
 * off, and put on again before decompression:
 *
 *	0x00		no content size, no checksum, no dictionary id
 *	0x10		window of 4 KiB
 *	3 bytes		last block | compressed << 1 | length << 3
 */
#ifndef TMEM_CODECS_ZSTDPAGE_H
#define TMEM_CODECS_ZSTDPAGE_H

#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "dict.h"

enum {
	TMEM_ZSTD_FRAME_BYTES = 5
};

/* The parameters for pages; for a dictionary of so many bytes, or 0. */
ZSTD_compressionParameters tmem_zstd_params(unsigned dict_bytes);

/* As a codec's; NULL: no dictionary. */
unsigned tmem_zstd_compress(void *scratch, const ZSTD_CDict *cdict,
			    const void *page, void *dst, unsigned capacity);
int tmem_zstd_decompress(void *scratch, const struct tmem_dict *dict,
			 const void *src, unsigned length, void *page);

/* Asserts that the scratch suffices. */
void tmem_zstd_check(void);

#endif
