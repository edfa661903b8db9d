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

#endif
