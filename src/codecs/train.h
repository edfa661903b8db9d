/* SPDX-License-Identifier: MIT */
/*
 * Makes a dictionary's content of sample pages, and tells what it is worth.
 *
 * Off the page path: about 30 ms of CPU time a MiB of samples, no malloc.
 * The same samples give the same content, so there is no seed.  Which pages
 * are samples is the caller's choice: some hundred to a few thousand, from
 * all over one pool, and others than those that the gain is estimated on.
 *
 * A dictionary holds pieces of the samples as they are: it is as secret as
 * they are, and must not be used across trust scopes.
 */
#ifndef TMEM_CODECS_TRAIN_H
#define TMEM_CODECS_TRAIN_H

#include <stdint.h>

#include "codec.h"
#include "dict.h"
#include "tmem/tmem.h"

enum {
	TMEM_TRAIN_MIN_PAGES = 32,
	TMEM_TRAIN_MAX_PAGES = 32 * 1024,
	TMEM_TRAIN_WORK_BYTES = 656 * 1024
};

/*
 * Writes up to `capacity` bytes of content, TMEM_DICT_MIN_BYTES at least, and
 * returns how many; 0 if the pages have too little in common; -EINVAL if they
 * are too few or too many, or `capacity` is no dictionary's.  `pages` are one
 * after another; `work` is TMEM_TRAIN_WORK_BYTES, aligned to 64, of any
 * content.
 */
int tmem_train(const void *pages, unsigned nr_pages, void *work, void *content,
	       unsigned capacity);

/*
 * The same in steps of about a millisecond, for who has other things to do:
 * start (0 or -EINVAL), step until it is false, finish (as tmem_train). In
 * between pages and work stay as they are.
 */
int tmem_train_start(const void *pages, unsigned nr_pages, void *work,
		     unsigned capacity);
bool tmem_train_step(void *work);
int tmem_train_finish(void *work, void *content);

/* What pages take in slots, by one form or raw; same-filled ones left out. */
struct tmem_train_sum {
	uint64_t bytes;
	unsigned nr_pages;
};

/* The codec's scratch, and room for a page behind it. */
#define TMEM_TRAIN_SCRATCH_BYTES(codec_bytes) \
	((codec_bytes) + (size_t)TMEM_PAGE_SIZE)

/*
 * Adds up what the pages would take by a codec.  The gain of a dictionary is
 * the quotient of two such sums over the same pages, with it and without.
 * `scratch` is TMEM_TRAIN_SCRATCH_BYTES(codec->compress_bytes), as the codec
 * wants it.
 */
struct tmem_train_sum tmem_train_sum(const struct tmem_codec *codec,
				     const struct tmem_dict *dict,
				     void *scratch, const void *pages,
				     unsigned nr_pages);

#endif
