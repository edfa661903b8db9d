/* SPDX-License-Identifier: MIT */
/* Hashing of keys: one 64x64 multiply folded, good in every bit. */
#ifndef TMEM_BASE_HASH_H
#define TMEM_BASE_HASH_H

#include <stdint.h>

#define TMEM_HASH_K0 0x9e3779b97f4a7c15ull
#define TMEM_HASH_K1 0xd1b54a32d192ed03ull
#define TMEM_HASH_K2 0x8cb92ba72f3d8dd7ull

static inline uint64_t tmem_hash_mix(uint64_t a, uint64_t b)
{
	unsigned __int128 m = (unsigned __int128)a * b;

	return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Of one word. */
static inline uint64_t tmem_hash_word(uint64_t word)
{
	return tmem_hash_mix(word ^ TMEM_HASH_K0, TMEM_HASH_K1) ^
	       (word * TMEM_HASH_K2);
}

/* Of one word after another: tmem_hash_more(tmem_hash_word(a), b). */
static inline uint64_t tmem_hash_more(uint64_t hash, uint64_t word)
{
	return tmem_hash_word(hash + word * TMEM_HASH_K2 + TMEM_HASH_K1);
}

/*
 * Evenly spread numbers of so many bits (at most 31) become unevenly spread
 * ones: their density doubles, about exponentially, from one end to the other
 * (log2(1 + u) to within one in a hundred).  Where ranges of numbers are halved
 * when they have too many, they then do so one after another and not all at
 * once: at any moment the same part of them has just been halved.
 */
static inline uint32_t tmem_hash_skew(uint32_t number, unsigned bits)
{
	uint64_t u = number;

	/* u + 0.343 * u * (1 - u), where u < 1 */
	return (uint32_t)(u +
			  ((u * ((1ull << bits) - u) >> bits) * 22487 >> 16));
}

#endif
