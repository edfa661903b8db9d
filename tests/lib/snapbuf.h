/* SPDX-License-Identifier: MIT */
/*
 * A snapshot's stream in memory: written and read whole or in small pieces,
 * with a fault at the n-th call, and a function called at each write.
 */
#ifndef SNAPBUF_H
#define SNAPBUF_H

#include <tmem/snapshot.h>

#include "fstest.h"

struct snapbuf {
	unsigned char *bytes;
	size_t nr; /* written */
	size_t cap;
	size_t at;	    /* read */
	size_t piece;	    /* at most so many at a time; 0: all */
	unsigned long left; /* calls until one fails; 0: none does */
	int error;	    /* with that; 0: as if at the end */
	unsigned long calls;
	void (*hook)(void *arg); /* at each write */
	void *arg;
};

/* True if this call is to fail. */
static inline bool snapbuf_strikes(struct snapbuf *b)
{
	b->calls++;
	return b->left && --b->left == 0;
}

static inline int64_t snapbuf_write(void *arg, const void *bytes,
				    size_t nr_bytes)
{
	struct snapbuf *b = arg;

	if (snapbuf_strikes(b))
		return b->error;
	if (b->hook)
		b->hook(b->arg);
	if (b->piece && nr_bytes > b->piece)
		nr_bytes = b->piece;
	if (b->nr + nr_bytes > b->cap) {
		b->cap = 2 * (b->nr + nr_bytes);
		b->bytes = realloc(b->bytes, b->cap);
		CHECK(b->bytes != NULL);
	}
	if (nr_bytes)
		memcpy(b->bytes + b->nr, bytes, nr_bytes);
	b->nr += nr_bytes;
	return (int64_t)nr_bytes;
}

static inline int64_t snapbuf_read(void *arg, void *ret_bytes, size_t nr_bytes)
{
	struct snapbuf *b = arg;

	if (snapbuf_strikes(b))
		return b->error;
	if (b->piece && nr_bytes > b->piece)
		nr_bytes = b->piece;
	if (nr_bytes > b->nr - b->at)
		nr_bytes = b->nr - b->at;
	if (nr_bytes)
		memcpy(ret_bytes, b->bytes + b->at, nr_bytes);
	b->at += nr_bytes;
	return (int64_t)nr_bytes;
}

static inline struct tmem_snapshot_sink snapbuf_sink(struct snapbuf *b)
{
	return (struct tmem_snapshot_sink){ snapbuf_write, b };
}

/* From the beginning. */
static inline struct tmem_snapshot_source snapbuf_source(struct snapbuf *b)
{
	b->at = 0;
	return (struct tmem_snapshot_source){ snapbuf_read, b };
}

static inline void snapbuf_free(struct snapbuf *b)
{
	free(b->bytes);
	*b = (struct snapbuf){ 0 };
}

#endif
