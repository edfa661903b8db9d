/* SPDX-License-Identifier: MIT */
/*
 * Same-filled pages: one 8-byte word, repeated.  The word is all we store.
 * Most pages are told apart by their first words, so the walk is short.
 */
#include "codec.h"

#include <errno.h>
#include <string.h>

#include "tmem/tmem.h"

enum {
	WORD = 8,
	STEP = 64
};

static unsigned compress(void *scratch, const struct tmem_dict *dict,
			 const void *page, void *dst, unsigned capacity)
{
	const char *p = page;
	unsigned i;

	(void)scratch;
	(void)dict;
	if (capacity < WORD || memcmp(p, p + WORD, STEP - WORD) != 0)
		return 0;
	for (i = STEP; i < TMEM_PAGE_SIZE; i += STEP)
		if (memcmp(p, p + i, STEP) != 0)
			return 0;
	memcpy(dst, p, WORD);
	return WORD;
}

static int decompress(void *scratch, const struct tmem_dict *dict,
		      const void *src, unsigned length, void *page)
{
	char *p = page;
	unsigned done;

	(void)scratch;
	(void)dict;
	if (length != WORD)
		return -EIO;
	memcpy(p, src, WORD);
	for (done = WORD; done < TMEM_PAGE_SIZE; done *= 2)
		memcpy(p + done, p, done);
	return 0;
}

const struct tmem_codec tmem_codec_same = {
	.name = "same",
	.form = TMEM_FORM_SAME,
	.has_dict = false,
	.compress_bytes = 0,
	.decompress_bytes = 0,
	.compress = compress,
	.decompress = decompress,
};
