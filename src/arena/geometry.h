/* SPDX-License-Identifier: MIT */
/*
 * Which slots lie on which pages of a span of class c: slot i covers the
 * bytes [64 c i, 64 c (i + 1)), page p the bytes [4096 p, 4096 (p + 1)).
 */
#ifndef TMEM_ARENA_GEOMETRY_H
#define TMEM_ARENA_GEOMETRY_H

#include "arena.h"

/* Bits lo..hi, both included. */
static inline uint64_t tmem_bits(unsigned lo, unsigned hi)
{
	return ~0ull >> (63 - (hi - lo)) << lo;
}

/* Class 65 has 63 slots, so that no span has more than 64 pages. */
static inline unsigned tmem_span_slots(unsigned c)
{
	return c > 64 ? 63 : TMEM_SPAN_SLOTS;
}

static inline unsigned tmem_span_pages(unsigned c)
{
	return c > 64 ? 64 : c;
}

static inline uint64_t tmem_span_all(unsigned c)
{
	return tmem_bits(0, tmem_span_slots(c) - 1);
}

static inline uint64_t tmem_pages_of_slot(unsigned c, unsigned i)
{
	return tmem_bits(i * c / 64, ((i + 1) * c - 1) / 64);
}

/* The slots that touch any of these pages. */
static inline uint64_t tmem_slots_on_pages(unsigned c, uint64_t pages)
{
	uint64_t slots = 0;

	for (; pages; pages &= pages - 1) {
		unsigned p = (unsigned)__builtin_ctzll(pages);
		unsigned first = p * 64 / c, last = (p * 64 + 63) / c;

		if (last >= tmem_span_slots(c))
			last = tmem_span_slots(c) - 1;
		slots |= tmem_bits(first, last);
	}
	return slots;
}

#endif
