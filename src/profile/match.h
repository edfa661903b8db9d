/* SPDX-License-Identifier: MIT */
/*
 * Sampled faults that wait for their stall: the sample is taken when a fault
 * begins, how long it took is known when it was answered.  They find each other
 * by process and page; the older sample first.
 *
 * A sample of a fault that is no pager's waits in vain, and is forgotten when
 * the room is needed.
 *
 * Where memory is short, a page may be gone again before the thread that waited
 * for it has run: it waits once more, but to the kernel it is the same fault.
 * So a stall of a page that has just come back, and that has no sample, belongs
 * to the one before.
 */
#ifndef TMEM_PROFILE_MATCH_H
#define TMEM_PROFILE_MATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "profile/intern.h"
#include "wire/stalls.h"

enum {
	MATCH_WAITING = 4096,
	MATCH_ANSWERED = 4096
};

struct tmem_match_sample {
	uint64_t vpn;
	uint64_t time_ns;
	int slot;
	uint32_t stack;
	bool taken;
};

/* The last stall of a page, and the stack of its sample. */
struct tmem_match_answered {
	uint64_t vpn;
	uint64_t end_ns;
	int slot;
	uint32_t stack;
};

/* What a stall is. */
struct tmem_match_found {
	uint32_t stack; /* of its sample; TMEM_INTERN_NONE: it has none */
	bool again;	/* it belongs to the one before */
};

struct tmem_match {
	uint64_t nr;		       /* samples so far */
	uint32_t heads[MATCH_WAITING]; /* place + 1, by hash; the newest */
	uint32_t nexts[MATCH_WAITING]; /* to older ones */
	struct tmem_match_sample samples[MATCH_WAITING];
	struct tmem_match_answered answered[MATCH_ANSWERED];
};

void tmem_match_put(struct tmem_match *match,
		    const struct tmem_match_sample *sample);

/* Whose sample does not wait any more. */
struct tmem_match_found tmem_match_stall(struct tmem_match *match,
					 const struct tmem_stall *stall);

#endif
