/* SPDX-License-Identifier: MIT */
/* Pages to try the store with: from a file, made here, or read elsewhere. */
#ifndef TMEM_CLI_PAGES_H
#define TMEM_CLI_PAGES_H

#include <stdint.h>
#include <tmem/tmem.h>

/* What is looked at if nobody says how much: 128 MiB. */
#define TMEM_PAGES_DEFAULT 32768u
/* As many as 32-bit indexes and this machine's address space allow: 1 TiB. */
#define TMEM_PAGES_MAX (1u << 28)

struct tmem_pages {
	char *bytes;
	uint32_t nr;
	uint32_t room; /* pages that `bytes` has space for */
};

/*
 * Each returns 0, or an exit status after one line on standard error; the
 * pages are the caller's to close.
 */

/* Room for some, none in it. */
int tmem_pages_open(uint32_t room, struct tmem_pages *ret);
/* NULL bytes are accepted. */
void tmem_pages_close(struct tmem_pages *pages);
/* At most `max`, evenly spaced; *ret_all: how many the file has. */
int tmem_pages_from_file(const char *path, uint32_t max, struct tmem_pages *ret,
			 uint64_t *ret_all);
/* The same `nr` pages each time: text, records, numbers, zeros, noise. */
int tmem_pages_built_in(uint32_t nr, struct tmem_pages *ret);

/* A random permutation of 0 .. nr - 1, always the same. */
void tmem_pages_shuffle(uint32_t *order, uint32_t nr);

static inline char *tmem_pages_at(const struct tmem_pages *pages, uint32_t i)
{
	return pages->bytes + (size_t)i * TMEM_PAGE_SIZE;
}

#endif
