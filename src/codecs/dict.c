/* SPDX-License-Identifier: MIT */
/*
 * Building a dictionary: its parts follow each other in the caller's memory,
 * each from a multiple of 64 bytes on.
 *
 *	struct tmem_dict, content, LZ4's stream, zstd's tables to compress
 *
 * All look into the one copy of the content.  To decompress neither needs
 * more than that.
 */
#include "dict.h"

#include <errno.h>
#include <lz4.h>
#include <stdbool.h>
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
	size_t content, lz4, cdict, end;
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

static struct layout layout_of(unsigned content_bytes, unsigned uses)
{
	bool lz4 = uses & TMEM_DICT_LZ4, zstd = uses & TMEM_DICT_ZSTD;
	struct layout l;

	l.content = after(0, sizeof(struct tmem_dict));
	l.lz4 = after(l.content, content_bytes);
	l.cdict = after(l.lz4, lz4 ? sizeof(LZ4_stream_t) : 0);
	l.end = after(l.cdict, zstd ? cdict_bytes(content_bytes) : 0);
	return l;
}

size_t tmem_dict_bytes(unsigned content_bytes, unsigned uses)
{
	return layout_of(content_bytes, uses).end;
}

/* A dictionary of zstd's own begins like this. */
static bool is_zstds(const void *content)
{
	uint32_t magic;

	memcpy(&magic, content, sizeof(magic));
	return magic == ZSTD_MAGIC_DICTIONARY;
}

static void load_lz4(char *memory, const char *content, unsigned bytes)
{
	LZ4_stream_t *stream = LZ4_initStream(memory, sizeof(LZ4_stream_t));

	TMEM_ASSERT(stream);
	LZ4_loadDict(stream, content, (int)bytes);
}

static void load_zstd(struct tmem_dict *dict, char *memory, size_t bytes)
{
	dict->cdict = ZSTD_initStaticCDict(
		memory, bytes, dict->content, dict->content_bytes,
		ZSTD_dlm_byRef, ZSTD_dct_rawContent,
		tmem_zstd_params(dict->content_bytes));
	/* The size was zstd's own, and raw content is never wrong. */
	TMEM_ASSERT(dict->cdict);
}

int tmem_dict_build(void *memory, const void *content, unsigned content_bytes,
		    unsigned uses, const struct tmem_dict **ret_dict)
{
	struct layout l = layout_of(content_bytes, uses);
	struct tmem_dict *dict = memory;
	char *base = memory;

	if (content_bytes < TMEM_DICT_MIN_BYTES ||
	    content_bytes > TMEM_DICT_MAX_BYTES || is_zstds(content))
		return -EINVAL;
	*dict = (struct tmem_dict){ .content_bytes = content_bytes,
				    .uses = uses,
				    .content = base + l.content };
	memcpy(base + l.content, content, content_bytes);
	if (uses & TMEM_DICT_LZ4) {
		load_lz4(base + l.lz4, dict->content, content_bytes);
		dict->lz4 = (const LZ4_stream_t *)(base + l.lz4);
	}
	if (uses & TMEM_DICT_ZSTD)
		load_zstd(dict, base + l.cdict, l.end - l.cdict);
	*ret_dict = dict;
	return 0;
}
