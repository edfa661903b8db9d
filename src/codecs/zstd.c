/* SPDX-License-Identifier: MIT */
/*
 * zstd, for pages that stay cold: a third less memory than LZ4, for four to
 * six times its time.  zstdpage.h says what is stored.
 *
 * The parameters are given one by one, not as a level: levels change with the
 * dictionary's size and the library's version.  A faster strategy takes half
 * of the time and 2 to 3 % more memory; a slower one takes twice the time for
 * 1 to 2 % less (docs/decisions/0009-forms.md).
 *
 * A context lies in the caller's scratch (ZSTD_initStatic*), so zstd has
 * nothing to allocate.  It holds its own address: a scratch that is zeroed,
 * or a copy of another, is set up first.  After an error too.
 */
#include "zstdpage.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "base/assert.h"
#include "codec.h"
#include "tmem/tmem.h"

enum {
	WINDOW_LOG = 12,
	SEARCH_LOG = 2,
	MIN_MATCH = 4,
	TARGET_LENGTH = 4,
	MIN_DICT_LOG = 8,
	WINDOW_BYTE = (WINDOW_LOG - 10) << 3,
	LAST_COMPRESSED = 1 | 2 << 1, /* in a block's header */
	OUT_BYTES = 5 * 1024
};
_Static_assert(1u << WINDOW_LOG == TMEM_PAGE_SIZE, "a page is one block");
_Static_assert(ZSTD_COMPRESSBOUND(TMEM_PAGE_SIZE) + 64 <= OUT_BYTES,
	       "whether it fits is for us to say");

struct compressor {
	const struct compressor *self;
	ZSTD_CCtx *context;
	unsigned char out[OUT_BYTES];
	_Alignas(64) unsigned char memory[];
};

struct decompressor {
	const struct decompressor *self;
	ZSTD_DCtx *context;
	unsigned char in[TMEM_ZSTD_FRAME_BYTES + TMEM_PAGE_SIZE];
	_Alignas(64) unsigned char memory[];
};

enum {
	COMPRESSOR_BYTES = TMEM_ZSTD_COMPRESS_BYTES - sizeof(struct compressor),
	DECOMPRESSOR_BYTES =
		TMEM_ZSTD_DECOMPRESS_BYTES - sizeof(struct decompressor)
};

/*
 * Of a dictionary every byte has its place in the chains.  Its window is that
 * of a page too, which keeps zstd from its other way to search, by rows: that
 * takes more memory and finds less.
 */
ZSTD_compressionParameters tmem_zstd_params(unsigned dict_bytes)
{
	unsigned dict_log = MIN_DICT_LOG;

	while (1u << dict_log < dict_bytes)
		dict_log++;
	return (ZSTD_compressionParameters){
		.windowLog = WINDOW_LOG,
		.chainLog = dict_bytes ? dict_log - 1 : WINDOW_LOG,
		.hashLog = dict_bytes ? dict_log : WINDOW_LOG,
		.searchLog = SEARCH_LOG,
		.minMatch = MIN_MATCH,
		.targetLength = TARGET_LENGTH,
		.strategy = ZSTD_lazy,
	};
}

/* What a context comes to at most: zstd cuts a dictionary's to the page. */
static ZSTD_compressionParameters largest(void)
{
	ZSTD_compressionParameters p = tmem_zstd_params(0);

	p.hashLog = WINDOW_LOG + 1;
	p.chainLog = WINDOW_LOG + 1;
	return p;
}

static void set(ZSTD_CCtx *context, ZSTD_cParameter parameter, int value)
{
	size_t r = ZSTD_CCtx_setParameter(context, parameter, value);

	TMEM_ASSERT(!ZSTD_isError(r));
}

static void set_up_compressor(struct compressor *c)
{
	ZSTD_compressionParameters p = tmem_zstd_params(0);

	c->context = ZSTD_initStaticCCtx(c->memory, COMPRESSOR_BYTES);
	TMEM_ASSERT(c->context);
	set(c->context, ZSTD_c_format, ZSTD_f_zstd1_magicless);
	set(c->context, ZSTD_c_contentSizeFlag, 0);
	set(c->context, ZSTD_c_checksumFlag, 0);
	set(c->context, ZSTD_c_dictIDFlag, 0);
	set(c->context, ZSTD_c_windowLog, (int)p.windowLog);
	set(c->context, ZSTD_c_chainLog, (int)p.chainLog);
	set(c->context, ZSTD_c_hashLog, (int)p.hashLog);
	set(c->context, ZSTD_c_searchLog, (int)p.searchLog);
	set(c->context, ZSTD_c_minMatch, (int)p.minMatch);
	set(c->context, ZSTD_c_targetLength, (int)p.targetLength);
	set(c->context, ZSTD_c_strategy, (int)p.strategy);
	c->self = c;
}

static void set_up_decompressor(struct decompressor *d)
{
	size_t r;

	d->context = ZSTD_initStaticDCtx(d->memory, DECOMPRESSOR_BYTES);
	TMEM_ASSERT(d->context);
	r = ZSTD_DCtx_setParameter(d->context, ZSTD_d_format,
				   ZSTD_f_zstd1_magicless);
	TMEM_ASSERT(!ZSTD_isError(r));
	d->self = d;
}

/* The frame's bytes around a block of so many. */
static void make_frame(unsigned char *frame, unsigned length)
{
	unsigned header = LAST_COMPRESSED | length << 3;

	frame[0] = 0;
	frame[1] = WINDOW_BYTE;
	frame[2] = (unsigned char)header;
	frame[3] = (unsigned char)(header >> 8);
	frame[4] = (unsigned char)(header >> 16);
}

unsigned tmem_zstd_compress(void *scratch, const ZSTD_CDict *cdict,
			    const void *page, void *dst, unsigned capacity)
{
	unsigned char frame[TMEM_ZSTD_FRAME_BYTES];
	struct compressor *c = scratch;
	unsigned length;
	size_t n;

	if (c->self != c)
		set_up_compressor(c);
	n = ZSTD_CCtx_refCDict(c->context, cdict);
	if (!ZSTD_isError(n))
		n = ZSTD_compress2(c->context, c->out, sizeof(c->out), page,
				   TMEM_PAGE_SIZE);
	if (ZSTD_isError(n)) {
		c->self = NULL;
		return 0;
	}
	if (n <= sizeof(frame) || n - sizeof(frame) > capacity)
		return 0;
	/* A block that is not compressed, or a second one: not for us. */
	length = (unsigned)(n - sizeof(frame));
	make_frame(frame, length);
	if (memcmp(c->out, frame, sizeof(frame)) != 0)
		return 0;
	memcpy(dst, c->out + sizeof(frame), length);
	return length;
}

int tmem_zstd_decompress(void *scratch, const struct tmem_dict *dict,
			 const void *src, unsigned length, void *page)
{
	struct decompressor *d = scratch;
	size_t n;

	if (length > TMEM_PAGE_SIZE)
		return -EIO;
	if (d->self != d)
		set_up_decompressor(d);
	make_frame(d->in, length);
	memcpy(d->in + TMEM_ZSTD_FRAME_BYTES, src, length);
	/* Raw content is read where it lies: there is nothing to prepare. */
	n = ZSTD_decompress_usingDict(d->context, page, TMEM_PAGE_SIZE, d->in,
				      TMEM_ZSTD_FRAME_BYTES + length,
				      dict ? dict->content : NULL,
				      dict ? dict->content_bytes : 0);
	if (ZSTD_isError(n))
		d->self = NULL;
	return n == TMEM_PAGE_SIZE ? 0 : -EIO;
}

void tmem_zstd_check(void)
{
	TMEM_ASSERT(ZSTD_estimateCCtxSize_usingCParams(largest()) <=
		    COMPRESSOR_BYTES);
	TMEM_ASSERT(ZSTD_estimateDCtxSize() <= DECOMPRESSOR_BYTES);
}

static unsigned compress(void *scratch, const struct tmem_dict *dict,
			 const void *page, void *dst, unsigned capacity)
{
	(void)dict;
	return tmem_zstd_compress(scratch, NULL, page, dst, capacity);
}

static int decompress(void *scratch, const struct tmem_dict *dict,
		      const void *src, unsigned length, void *page)
{
	(void)dict;
	return tmem_zstd_decompress(scratch, NULL, src, length, page);
}

const struct tmem_codec tmem_codec_zstd = {
	.name = "zstd",
	.form = TMEM_FORM_ZSTD,
	.has_dict = false,
	.compress_bytes = TMEM_ZSTD_COMPRESS_BYTES,
	.decompress_bytes = TMEM_ZSTD_DECOMPRESS_BYTES,
	.compress = compress,
	.decompress = decompress,
};
