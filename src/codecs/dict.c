/* SPDX-License-Identifier: MIT */
/*
 * Building a dictionary: its parts follow each other in the caller's memory,
 * each from a multiple of 64 bytes on.
 *
 *	struct tmem_dict, content, LZ4's stream, zstd's tables to compress,
 *	zstd's tables to decompress
 *
 * All three look into the one copy of the content.
 */
#include "dict.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "base/assert.h"
#include "tmem/tmem.h"
#include "zstdpage.h"

_Static_assert(TMEM_DICT_MAX_BYTES + TMEM_PAGE_SIZE <= 65536,
	       "LZ4 reaches all of it from everywhere in a page");

enum {
	ALIGN = 64
};

struct layout {
	size_t content, lz4, cdict, ddict, end;
};

static size_t after(size_t offset, size_t bytes)
{
	return (offset + bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static size_t cdict_bytes(unsigned content_bytes)
{
	return ZSTD_estimateCDictSize_advanced(
		content_bytes, tmem_zstd_params(content_bytes), ZSTD_dlm_byRef);
}

static size_t ddict_bytes(unsigned content_bytes)
{
	return ZSTD_estimateDDictSize(content_bytes, ZSTD_dlm_byRef);
}

static struct layout layout_of(unsigned content_bytes)
{
	struct layout l;

	l.content = after(0, sizeof(struct tmem_dict));
	l.lz4 = after(l.content, content_bytes);
	l.cdict = after(l.lz4, sizeof(LZ4_stream_t));
	l.ddict = after(l.cdict, cdict_bytes(content_bytes));
	l.end = after(l.ddict, ddict_bytes(content_bytes));
	return l;
}

size_t tmem_dict_bytes(unsigned content_bytes)
{
	return layout_of(content_bytes).end;
}

static void load_lz4(char *memory, const char *content, unsigned bytes)
{
	LZ4_stream_t *stream = LZ4_initStream(memory, sizeof(LZ4_stream_t));

	TMEM_ASSERT(stream);
	LZ4_loadDict(stream, content, (int)bytes);
}

int tmem_dict_build(void *memory, const void *content, unsigned content_bytes,
		    uint32_t version, const struct tmem_dict **ret_dict)
{
	struct layout l = layout_of(content_bytes);
	struct tmem_dict *dict = memory;
	char *base = memory;

	if (content_bytes < TMEM_DICT_MIN_BYTES ||
	    content_bytes > TMEM_DICT_MAX_BYTES)
		return -EINVAL;
	dict->version = version;
	dict->content_bytes = content_bytes;
	dict->content = base + l.content;
	memcpy(base + l.content, content, content_bytes);
	load_lz4(base + l.lz4, dict->content, content_bytes);
	dict->lz4 = (const LZ4_stream_t *)(base + l.lz4);
	dict->cdict = ZSTD_initStaticCDict(base + l.cdict, l.ddict - l.cdict,
					   dict->content, content_bytes,
					   ZSTD_dlm_byRef, ZSTD_dct_rawContent,
					   tmem_zstd_params(content_bytes));
	dict->ddict = ZSTD_initStaticDDict(base + l.ddict, l.end - l.ddict,
					   dict->content, content_bytes,
					   ZSTD_dlm_byRef, ZSTD_dct_rawContent);
	/* The sizes were zstd's own, and raw content is never wrong. */
	TMEM_ASSERT(dict->cdict && dict->ddict);
	*ret_dict = dict;
	return 0;
}
