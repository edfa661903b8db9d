/* SPDX-License-Identifier: MIT */
/*
 * What the tests of frontswap and its devices share: checks that say where
 * they failed, pages whose content names them, random numbers, aligned
 * memory.
 *
 * A page's content is a function of (tag): an older page, another's page and
 * zeros all differ from what is expected.
 */
#ifndef FSTEST_H
#define FSTEST_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tmem/frontswap.h"

#define PAGE ((size_t)TMEM_PAGE_SIZE)

/* Expressions that end the program where the compiler and analyzer see it. */
#define CHECK(cond) \
	((cond) ? (void)0 : check_failed(#cond, __FILE__, __LINE__, __func__))
#define CHECK_EQ(a, b)                                                      \
	check_equal((long long)(a), (long long)(b), #a, __FILE__, __LINE__, \
		    __func__)

static inline _Noreturn void check_failed(const char *what, const char *file,
					  int line, const char *func)
{
	fprintf(stderr, "%s:%d: %s: failed: %s\n", file, line, func, what);
	abort();
}

static inline void check_equal(long long got, long long expected,
			       const char *what, const char *file, int line,
			       const char *func)
{
	if (got == expected)
		return;
	fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", file, line, func,
		what, got, expected);
	abort();
}

#define RUN(test) (fprintf(stderr, "  %s\n", #test), test())

struct rng {
	uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
	return rng_next(rng) % n;
}

/* One of three kinds by tag: repeated word, compressible, random. */
static inline void page_fill(void *page, uint64_t tag)
{
	uint64_t *w = page;
	struct rng rng = { tag };
	unsigned kind = (unsigned)(tag % 3);

	for (unsigned i = 0; i < PAGE / 8; i++) {
		if (kind == 0)
			w[i] = tag;
		else if (kind == 1)
			w[i] = i % 8 ? tag ^ i : rng_next(&rng);
		else
			w[i] = rng_next(&rng);
	}
	w[0] = kind == 0 ? tag : ~tag;
}

static inline bool page_is(const void *page, uint64_t tag)
{
	_Alignas(8) char expected[PAGE];

	page_fill(expected, tag);
	return memcmp(page, expected, PAGE) == 0;
}

static inline void *pages_alloc(unsigned nr)
{
	void *p = mmap(NULL, (size_t)nr * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

static inline void pages_free(void *pages, unsigned nr)
{
	CHECK_EQ(munmap(pages, (size_t)nr * PAGE), 0);
}

/* The seed: argument, else TMEM_SEED, else the clock; it is printed. */
static inline uint64_t seed_from(int argc, char **argv, int arg)
{
	const char *text = argc > arg ? argv[arg] : getenv("TMEM_SEED");
	uint64_t seed;

	if (text) {
		seed = strtoull(text, NULL, 0);
	} else {
		FILE *f = fopen("/dev/urandom", "rb");

		CHECK(f && fread(&seed, sizeof(seed), 1, f) == 1);
		fclose(f);
		seed &= 0xffffffff;
	}
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	return seed;
}

#endif
