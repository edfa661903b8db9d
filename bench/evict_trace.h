/* SPDX-License-Identifier: MIT */
/*
 * Traces for evict_bench: deterministic streams of page numbers, shaped like
 * those that papers on eviction publish.
 *
 * A page is a number below nr_keys; neighbouring numbers are neighbouring
 * indexes of a file.  The same trace comes out on every run.
 */
#ifndef EVICT_TRACE_H
#define EVICT_TRACE_H

#include <stdint.h>

struct evict_trace {
	const char *name;
	uint32_t *keys;
	uint32_t nr;	      /* requests */
	uint32_t nr_keys;     /* every key is below */
	uint32_t second_pool; /* its first key, of two pools */
	uint32_t footprint;   /* distinct keys requested */
	uint32_t once;	      /* of these, requested once only */
};

struct evict_random {
	uint64_t state;
};

static inline uint64_t evict_mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline uint32_t evict_below(struct evict_random *r, uint32_t n)
{
	r->state += 0x9e3779b97f4a7c15ull;
	return (uint32_t)((evict_mix(r->state) >> 32) * n >> 32);
}

/* How many there are. */
unsigned evict_nr_traces(void);
/* The i-th; ends the program if there is no memory. */
void evict_trace_make(unsigned i, struct evict_trace *ret_trace);
void evict_trace_fini(struct evict_trace *trace);

/* Zeroed memory, or the end of the program. */
void *evict_alloc(uint64_t nr, uint64_t bytes);

#endif
