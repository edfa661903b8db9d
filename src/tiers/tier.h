/* SPDX-License-Identifier: MIT */
/*
 * The tier contract: a place below RAM where the store moves accepted pages.
 *
 * A tier keeps *segments*: up to 1 MiB, written once, whole, and later
 * dropped, each under a number below nr_segments that its owner gives.  What
 * is in one is segment.h's affair, encryption included; a tier moves bytes.
 *
 *  - open: over options->fd, which stays the caller's and must outlive the
 *    tier.  With `keep` everything that the file holds is taken for segments
 *    (recovery: read their headers, drop what is none); else all numbers are
 *    free, whatever the file holds.  0 or -errno.
 *  - write: a whole segment: offset 0, a multiple of 4 KiB, out of a buffer
 *    that is 4 KiB aligned and unchanged until the request is answered (and
 *    not HELD).  -EEXIST if that number is there, -EBUSY if it is being
 *    written or dropped.  Any result but 0 leaves no such segment: what was
 *    written of it is given back.
 *  - read: ranges of segments, a vector of them: neighbours in it that touch
 *    are read as one.  A range of more than TMEM_TIER_SMALL bytes must be
 *    whole blocks into a 4 KiB aligned buffer; a small one may lie anywhere.
 *    -ENODATA if there is no such segment.  A drop that comes before the
 *    answer makes the bytes worthless: whoever reads them checks the record.
 *  - drop: the segment is there no more, and its space goes back to the file
 *    system, if it can: meanwhile the caller waits.  0, -ENODATA, or -EBUSY
 *    while it is being written.
 *  - poll: answers what has ended and what is over its deadline; returns how
 *    many.  If that is none it sleeps until that time (0: not at all) for the
 *    answer of `request`, or of any if it is NULL, as long as something is in
 *    flight.  One thread's poll answers every thread's requests, so it may
 *    return 0 with all of them answered.
 *  - Both write and read return how many requests they took: 0 when the tier
 *    is full (poll, then come again: nothing was changed).  What can be
 *    answered at once, is.
 *  - Deadlines (monotonic time; 0: none): a request that has not ended by
 *    then is answered -ETIMEDOUT, and what becomes of it nobody sees: a
 *    segment so written is not there, and its number -EBUSY, until the write
 *    has really ended.  The state is DONE, or HELD while the kernel has the
 *    buffer: then record and buffer are the tier's until it becomes DONE.
 *    Small ranges are never HELD.  Where I/O can't be called off because it
 *    is synchronous, the deadline is looked at before it begins.
 *  - ENOSPC (also for quotas and limits of file size) and EIO are answers as
 *    any other.  Short I/O is tried on; what then fails is that error.
 *  - fork: nothing may be in flight, and the child calls reopen before
 *    anything else.  Both read what was there; the two together never write
 *    or drop the same number.
 *  - close: waits for what is in flight, for as long as the device takes.
 *    What the file holds is left as it is.
 *  - Any thread may call any of them; close, alone.  No malloc, no errno, no
 *    thread-local storage but the lock's; memory by mmap.
 *  - Every member is required.
 */
#ifndef TMEM_TIERS_TIER_H
#define TMEM_TIERS_TIER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tmem/tiers.h>

enum {
	TMEM_SEGMENT_BYTES = 1 << 20,
	TMEM_TIER_BLOCK = 4096,
	TMEM_TIER_SMALL = 60 << 10
};

enum tmem_tier_state {
	TMEM_TIER_IDLE = 0,
	TMEM_TIER_PENDING, /* record and buffer are the tier's */
	TMEM_TIER_HELD,	   /* answered, -ETIMEDOUT; they are still the tier's */
	TMEM_TIER_DONE	   /* answered; they are the caller's */
};

/* One completion record.  The caller's, where it likes; zero at first. */
struct tmem_tier_request {
	uint32_t segment;
	uint32_t offset; /* into the segment */
	uint32_t bytes;
	int32_t result; /* valid once state is HELD or DONE: 0 or -errno */
	void *buffer;
	uint64_t deadline_ns;
	_Atomic uint32_t state;
	struct tmem_tier_request *next; /* the tier's */
};

struct tmem_tier_options {
	int fd;
	uint64_t max_bytes; /* of the file; whole segments are used */
	unsigned depth;	    /* I/Os at a time at the most; 0: 32 */
	bool keep;
	bool no_uring;	/* pread and pwrite even where io_uring is there */
	bool no_direct; /* leave O_DIRECT as it is */
};

struct tmem_tier_stats {
	uint64_t nr_segments;	/* numbers that there are */
	uint64_t held_segments; /* there now, or being written */
	uint64_t writes;	/* segments written */
	uint64_t written_bytes; /* of these */
	uint64_t reads;		/* ranges read */
	uint64_t read_bytes;	/* asked for by these */
	uint64_t read_ios;	/* I/Os that they took */
	uint64_t read_io_bytes; /* bytes that these moved */
	uint64_t drops;		/* segments dropped */
	uint64_t kept_space;	/* drops whose space the system kept */
	uint64_t full;		/* writes answered -ENOSPC */
	uint64_t timeouts;	/* requests answered -ETIMEDOUT */
	uint64_t errors;	/* requests answered any other errno */
	uint64_t memory_bytes;	/* address space of its own, touched as used */
};

struct tmem_tier_ops {
	const char *name;
	int (*open)(const struct tmem_tier_options *options, void **ret_tier);
	int (*write)(void *tier, struct tmem_tier_request *request);
	int (*read)(void *tier, struct tmem_tier_request *const *requests,
		    unsigned nr);
	int (*drop)(void *tier, uint32_t segment);
	int (*poll)(void *tier, const struct tmem_tier_request *request,
		    uint64_t until_ns);
	int (*reopen)(void *tier);
	void (*stats)(void *tier, struct tmem_tier_stats *ret_stats);
	void (*close)(void *tier);
};

extern const struct tmem_tier_ops tmem_tier_file;
extern const struct tmem_tier_ops tmem_tier_mapped;

/* All of them; NULL ends the table. */
extern const struct tmem_tier_ops *const tmem_tiers[];

static inline bool tmem_tier_is_answered(const struct tmem_tier_request *r)
{
	return r->state >= TMEM_TIER_HELD;
}

/* Polls until the request is answered; its result. */
int tmem_tier_wait(const struct tmem_tier_ops *ops, void *tier,
		   const struct tmem_tier_request *request);

#endif
