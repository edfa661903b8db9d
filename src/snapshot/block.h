/* SPDX-License-Identifier: MIT */
/*
 * Blocks of a snapshot's stream, written and read: sums, encryption, partial
 * reads and writes.  What the records in them mean is not known here.
 */
#ifndef TMEM_SNAPSHOT_BLOCK_H
#define TMEM_SNAPSHOT_BLOCK_H

#include <stdbool.h>

#include <tmem/snapshot.h>

#include "format.h"

struct tmem_seal;

/* As it is in the stream, and 8 bytes more for whoever reads beyond records. */
struct tmem_snap_frame {
	struct tmem_snap_block head;
	unsigned char text[TMEM_SNAP_TEXT_BYTES + TMEM_SNAP_SUM_BYTES];
};

struct tmem_snap_writer {
	const struct tmem_snapshot_sink *sink;
	struct tmem_seal *seal;
	uint64_t bytes; /* written */
	int error;	/* the first; nothing is written after it */
	struct tmem_snap_header header;
	struct tmem_snap_frame frame;
};

/* What is random in a stream: tests have it their way. */
struct tmem_snap_chance {
	uint64_t id[2];
	uint8_t salt[16];
};

/* Writes the header.  0 or -errno. */
int tmem_snap_begin(struct tmem_snap_writer *w,
		    const struct tmem_snapshot_sink *sink, const void *key,
		    const struct tmem_snap_chance *chance);
/*
 * Where a record of that size goes, in this block or the next; the writer's
 * error stays with the writer.
 */
void *tmem_snap_room(struct tmem_snap_writer *w, unsigned bytes);
/* Would it go in this block? */
static inline bool tmem_snap_fits(const struct tmem_snap_writer *w,
				  unsigned bytes)
{
	return w->frame.head.length + bytes <= TMEM_SNAP_TEXT_BYTES;
}
/* Writes the last block.  0 or the first error. */
int tmem_snap_finish(struct tmem_snap_writer *w);
/* At the end, in any case. */
void tmem_snap_writer_fini(struct tmem_snap_writer *w);

struct tmem_snap_reader {
	const struct tmem_snapshot_source *source;
	struct tmem_seal *seal;
	uint64_t offset; /* of the block at hand */
	uint64_t next_offset;
	uint64_t next_number;
	const char *why; /* it was refused */
	bool last;	 /* the block at hand is the last one */
	struct tmem_snap_header header;
	struct tmem_snap_frame frame;
};

/* Reads the header.  0 or -errno. */
int tmem_snap_open(struct tmem_snap_reader *r,
		   const struct tmem_snapshot_source *source, const void *key);
/* The next block, verified, in r->frame. */
int tmem_snap_next(struct tmem_snap_reader *r);
void tmem_snap_reader_fini(struct tmem_snap_reader *r);

#endif
