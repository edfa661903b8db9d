/* SPDX-License-Identifier: MIT */
/*
 * A dictionary: what the pages of a pool have in common, ready for use by the
 * forms LZ4_DICT and ZSTD_DICT.
 *
 * Its content is any bytes; train.h makes good ones.  Pages are read with the
 * same content that they were made with, to the byte: nothing else of it is a
 * format, the prepared tables are made again from the content.
 *
 * It lies in memory of the caller's, tmem_dict_bytes() of it, aligned to 64
 * bytes, which it fills nearly: account for all of it.  Once built nothing in
 * it changes, so any threads may use it at a time; there is nothing to undo
 * before the memory goes.  It can't be moved, only be built elsewhere.
 */
#ifndef TMEM_CODECS_DICT_H
#define TMEM_CODECS_DICT_H

#include <stddef.h>
#include <stdint.h>

enum {
	TMEM_DICT_MIN_BYTES = 256,
	/* LZ4 looks 64 KiB back: from a page's end over all of it. */
	TMEM_DICT_MAX_BYTES = 60 * 1024
};

/* Which forms compress with it: zstd's tables are the most of its memory. */
enum tmem_dict_uses {
	TMEM_DICT_LZ4 = 1,
	TMEM_DICT_ZSTD = 2
};

struct tmem_dict {
	uint32_t content_bytes;
	uint32_t uses;
	const char *content;
	const union LZ4_stream_u *lz4;	  /* NULL: not to compress with */
	const struct ZSTD_CDict_s *cdict; /* the same */
};

/* Memory for a dictionary with so many bytes of content. */
size_t tmem_dict_bytes(unsigned content_bytes, unsigned uses);

/*
 * Builds one; the content is copied.  Both forms read with it, those of `uses`
 * compress.  0, or -EINVAL if there is too little or too much of it (or if
 * zstd would take it for one of its own making).
 */
int tmem_dict_build(void *memory, const void *content, unsigned content_bytes,
		    unsigned uses, const struct tmem_dict **ret_dict);

#endif
