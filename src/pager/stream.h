/* SPDX-License-Identifier: MIT */
/*
 * Streams: which page a thread will want next, from the pages it wanted.
 *
 * Of each thread the last faults are remembered that belong to no stream.  A
 * fault at v starts a stream of stride d if v - d and v - 2d are among them:
 * three in a row, whatever came between.  (A majority of the last differences
 * would need the stream to be most of what the thread does: a loop over two
 * arrays has no majority.  bench/ahead_patterns shows both on the same
 * traces.)  Of several d the smallest counts.
 *
 * A stream's *window* are the pages from `from` to `next` by stride: they were
 * to be read ahead, and nobody has touched one that was not there yet.  The
 * kernel tells of missing pages only, so use shows at the window's end: a
 * fault at `next` or just behind proves that all of it was used; one inside,
 * that it was used up to there, unless pages on the way were not there: a
 * thread that passes over them has another stride, and the stream ends.  The
 * window doubles each time it is proven.
 * A stream that gives way to another before anything was proven halves what
 * the thread's next stream starts with, down to nothing: then streams are only
 * watched, and one that would have been right four times reads again.  What
 * was read and thrown away unused halves the window of all (settle).
 *
 * No I/O, no lock of its own, no memory but the struct: the caller's lock.
 */
#ifndef TMEM_PAGER_STREAM_H
#define TMEM_PAGER_STREAM_H

#include <stdint.h>

enum {
	STREAM_THREADS = 32,
	STREAM_PER_THREAD = 4,
	STREAM_RECENT = 16,
	STREAM_STRIDE_MAX = 2048, /* pages */
	STREAM_WINDOW_MAX = 64,
	STREAM_WINDOW_FIRST = 4
};

struct tmem_stream {
	uint64_t from; /* vpns */
	uint64_t next;
	int64_t stride; /* pages; 0: free */
	uint32_t window;
	uint32_t right; /* how often it was, in a row */
	uint64_t clock; /* of its last fault */
};

struct tmem_stream_thread {
	uint32_t first; /* the window of its next stream */
	uint32_t nr_recent;
	uint64_t clock; /* of its last fault */
	uint64_t recent[STREAM_RECENT];
	struct tmem_stream stream[STREAM_PER_THREAD];
};

struct tmem_streams {
	uint64_t clock;	     /* faults so far */
	uint32_t window_max; /* now */
	uint32_t nr_used;    /* since it was last looked at */
	uint32_t nr_wasted;
	uint32_t id[STREAM_THREADS]; /* + 1; 0: free */
	struct tmem_stream_thread thread[STREAM_THREADS];
};

/* What a fault says: pages by stride, the first and how many. */
struct tmem_stream_plan {
	int64_t stride;
	uint64_t used; /* these were used if they were read ahead */
	uint32_t nr_used;
	uint32_t nr_gap; /* then these, up to the fault: there already? */
	uint32_t nr_read;
	uint64_t read; /* these should be read now */
	struct tmem_stream *stream;
};

void tmem_streams_init(struct tmem_streams *s);

/* A fault of thread `id` at page `vpn`. */
struct tmem_stream_plan tmem_streams_fault(struct tmem_streams *s, uint32_t id,
					   uint64_t vpn);

/*
 * Of the pages used and the gap this many were not there: the thread passes
 * over them.  If they are too many the stream is another one than it seemed,
 * and the plan comes to nothing.
 */
void tmem_streams_skipped(struct tmem_stream_plan *plan, uint32_t nr);

/* What became of pages that were read ahead, as far as it is known. */
void tmem_streams_settle(struct tmem_streams *s, uint32_t nr_used,
			 uint32_t nr_wasted);

#endif
