/* SPDX-License-Identifier: MIT */
/*
 * The codec contract: one form of a stored page.
 *
 *  - form: its number in a slot's header (enum tmem_form); never changes.
 *  - scratch_bytes: what compress needs beside its arguments; 0 if nothing.
 *  - compress: a page into at most `capacity` bytes.  Returns the length, or
 *    0 if it does not fit or the form is not for this page.  Writes nothing
 *    beyond dst[capacity]; `scratch` need not be initialised and keeps
 *    nothing from call to call.
 *  - decompress: exactly one page from src, or -EIO.  Takes any bytes without
 *    reading beyond src[length] or writing beyond the page.
 *  - No malloc, no errno, no state: any thread, any number at a time.
 *  - Every member is required.  page and src need no alignment; scratch is
 *    aligned to 64 bytes.
 */
#ifndef TMEM_CODECS_CODEC_H
#define TMEM_CODECS_CODEC_H

#include <stddef.h>

#include "arena/slot.h"

struct tmem_codec {
	const char *name;
	enum tmem_form form;
	size_t scratch_bytes;
	unsigned (*compress)(void *scratch, const void *page, void *dst,
			     unsigned capacity);
	int (*decompress)(const void *src, unsigned length, void *page);
};

extern const struct tmem_codec tmem_codec_same;
extern const struct tmem_codec tmem_codec_lz4;
extern const struct tmem_codec tmem_codec_raw;

/* All of them; NULL ends the table. */
extern const struct tmem_codec *const tmem_codecs[];

enum {
	TMEM_CODEC_SCRATCH_BYTES = 17 * 1024
}; /* the largest of them */

/* The codec of a form, or NULL. */
const struct tmem_codec *tmem_codec_of(unsigned form);

#endif
