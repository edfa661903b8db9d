/* SPDX-License-Identifier: MIT */
/*
 * The codec contract: one form of a stored page.
 *
 *  - form: its number in a slot's header (enum tmem_form); never changes.
 *  - has_dict: its pages are read with the dictionary that they were made
 *    with (dict.h).  The others get NULL.  Without one, a form that has one
 *    compresses nothing and reads nothing.
 *  - compress_bytes, decompress_bytes: the scratch that each of the two needs
 *    beside its arguments; 0 if none.
 *  - compress: a page into at most `capacity` bytes.  Returns the length, or
 *    0 if it does not fit or the form is not for this page.  Writes nothing
 *    beyond dst[capacity].  The length and the bytes depend on the page, the
 *    dictionary and the library's version only.
 *  - decompress: exactly one page from src, or -EIO.  Takes any bytes without
 *    reading beyond src[length] or writing beyond the page.  Bytes made with
 *    another dictionary give -EIO or a wrong page.
 *  - No malloc, no errno, no state but in the scratch: any thread, any number
 *    at a time, each with a scratch of its own.
 *  - Every member is required.  page and src need no alignment.
 *
 * SCRATCH is aligned to 64 bytes.  LZ4's may hold anything at each call.
 * zstd's contexts are dear to set up (they ask the CPU what it can do, which
 * takes 27 us where a hypervisor answers), so they stay: such a scratch is
 * zeroed before its first use and then left alone between calls; both forms
 * of zstd can use the same one.  One that was moved sets itself up anew.
 */
#ifndef TMEM_CODECS_CODEC_H
#define TMEM_CODECS_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "arena/slot.h"

struct tmem_dict;

struct tmem_codec {
	const char *name;
	enum tmem_form form;
	bool has_dict;
	size_t compress_bytes;
	size_t decompress_bytes;
	unsigned (*compress)(void *scratch, const struct tmem_dict *dict,
			     const void *page, void *dst, unsigned capacity);
	int (*decompress)(void *scratch, const struct tmem_dict *dict,
			  const void *src, unsigned length, void *page);
};

extern const struct tmem_codec tmem_codec_same;
extern const struct tmem_codec tmem_codec_lz4;
extern const struct tmem_codec tmem_codec_raw;
extern const struct tmem_codec tmem_codec_zstd;
extern const struct tmem_codec tmem_codec_lz4_dict;
extern const struct tmem_codec tmem_codec_zstd_dict;

/* All of them; NULL ends the table. */
extern const struct tmem_codec *const tmem_codecs[];

/* Scratch by form; the two of zstd share theirs. */
enum {
	TMEM_LZ4_COMPRESS_BYTES = 17 * 1024, /* lz4, lz4 with dictionary */
	TMEM_ZSTD_COMPRESS_BYTES = 120 * 1024,
	TMEM_ZSTD_DECOMPRESS_BYTES = 104 * 1024
};

/* The codec of a form, or NULL. */
const struct tmem_codec *tmem_codec_of(unsigned form);

/* Asserts that the library at hand gets along with the scratch above. */
void tmem_codecs_check(void);

#endif
