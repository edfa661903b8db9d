/* SPDX-License-Identifier: MIT */
/*
 * What every tier in a file shares: which segments are there, which requests
 * make sense, and the file's size and holes.
 *
 * A byte per segment, changed by compare-and-swap only:
 *
 *	FREE -> WRITING (claim) -> THERE, or -> FREE when the write failed
 *	THERE -> DROPPING (drop) -> FREE
 *
 * The space of a segment is given back before its byte becomes FREE, so that
 * a hole is never punched over the next one of that number.
 */
#ifndef TMEM_TIERS_SPACE_H
#define TMEM_TIERS_SPACE_H

#include "tier.h"

enum tmem_space_state {
	TMEM_SPACE_FREE = 0,
	TMEM_SPACE_WRITING,
	TMEM_SPACE_THERE,
	TMEM_SPACE_DROPPING
};

/* One sentence each in tier.h. */
struct tmem_space_counters {
	_Atomic uint64_t held_segments;
	_Atomic uint64_t writes;
	_Atomic uint64_t written_bytes;
	_Atomic uint64_t reads;
	_Atomic uint64_t read_bytes;
	_Atomic uint64_t read_ios;
	_Atomic uint64_t read_io_bytes;
	_Atomic uint64_t drops;
	_Atomic uint64_t kept_space;
	_Atomic uint64_t full;
	_Atomic uint64_t timeouts;
	_Atomic uint64_t errors;
};

struct tmem_space {
	int fd;
	bool is_device;
	uint64_t nr_segments;
	_Atomic uint8_t *state;
	_Atomic bool no_punch; /* the file system can't */
	struct tmem_space_counters counters;
};

/* Makes the file as long as it must be.  0 or -errno. */
int tmem_space_open(struct tmem_space *space,
		    const struct tmem_tier_options *options);
void tmem_space_close(struct tmem_space *space);
size_t tmem_space_bytes(const struct tmem_space *space);

/* 0, or the result that the request gets at once. */
int tmem_space_check_read(struct tmem_space *space,
			  const struct tmem_tier_request *q);
/* Claims the number; each claim is ended by one of the two below. */
int tmem_space_claim(struct tmem_space *space,
		     const struct tmem_tier_request *q);
void tmem_space_written(struct tmem_space *space, uint32_t segment,
			uint32_t bytes);
void tmem_space_unwritten(struct tmem_space *space, uint32_t segment);
int tmem_space_drop(struct tmem_space *space, uint32_t segment);

/* What to the caller is all the same: no room. */
int tmem_space_error(long r);

/* Counts the result, and publishes it. */
void tmem_space_answer(struct tmem_space *space,
		       struct tmem_tier_request *request, int result,
		       enum tmem_tier_state state);

void tmem_space_get_stats(struct tmem_space *space,
			  struct tmem_tier_stats *ret_stats);

static inline uint64_t tmem_space_at(uint32_t segment)
{
	return (uint64_t)segment * TMEM_SEGMENT_BYTES;
}

#endif
