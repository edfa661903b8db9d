/* SPDX-License-Identifier: MIT */
/*
 * mremap() of evicted memory: what moved keeps its content, what is new reads
 * zero, what was left behind is gone or reads zero.
 *
 *   grow      again and again, in place or moved
 *   move      MREMAP_FIXED to and fro, over other mappings too
 *   shrink    and grow again: the tail is zeros
 *   shorten   MREMAP_FIXED and shrink in one: what follows the new place stays
 *   dontunmap MREMAP_DONTUNMAP leaves an empty mapping behind
 *   pieces    swaps pieces of a region through a third place
 *   random    any of it, with pressure in between
 *   realloc   the way programs get there: realloc() of large blocks
 */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static struct tt_region region;

static void setup(unsigned percent)
{
	tt_region_begin(&region, tt_pages(percent));
}

/* The region's mapping becomes `pages` long; versions follow. */
static void resize(size_t pages, int flags, void *to)
{
	uint16_t *version = tt_map(pages * sizeof(*version));
	size_t kept = pages < region.nr_pages ? pages : region.nr_pages;
	void *at;

	memcpy(version, region.version, kept * sizeof(*version));
	at = mremap(region.base, region.nr_pages * TT_PAGE, pages * TT_PAGE,
		    flags, to);
	TT_SYS(at == MAP_FAILED ? -1 : 0);
	TT_SYS(munmap(region.version,
		      region.nr_pages * sizeof(*region.version)));
	region.version = version;
	region.nr_pages = pages;
	region.base = at;
}

static void grow(void)
{
	setup(10);
	for (unsigned i = 0; i < 8; i++) {
		size_t old = region.nr_pages, target = old + tt_pages(3) + i;
		void *blocker =
			mmap(region.base + old * TT_PAGE, TT_PAGE, PROT_READ,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		resize(target, MREMAP_MAYMOVE, NULL);
		if (i % 2)
			tt_region_verify_shuffled(&region);
		for (size_t nr = old; nr < target; nr += 2)
			tt_region_write(&region, nr);
		if (i % 3 == 2)
			tt_pressure();
		if (blocker != MAP_FAILED)
			munmap(blocker, TT_PAGE);
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void *reserve(size_t pages)
{
	void *at = mmap(NULL, pages * TT_PAGE, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	TT_SYS(at == MAP_FAILED ? -1 : 0);
	return at;
}

static void move(void)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	struct tt_region victim;

	setup(25);
	for (unsigned i = 0; i < 6; i++) {
		size_t n = region.nr_pages;
		void *from = region.base;

		if (i % 2) { /* over memory that is paged itself */
			tt_region_map(&victim, n, 50 + i);
			tt_region_fill(&victim);
			resize(n, flags, victim.base);
			TT_SYS(munmap(victim.version,
				      n * sizeof(*victim.version)));
		} else {
			resize(n, flags, reserve(n));
		}
		/* What is mapped where it was reads zero. */
		TT_SYS(mmap(from, n * TT_PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			    0) == MAP_FAILED
			       ? -1
			       : 0);
		tt_check_zero(from, n * TT_PAGE, "mapped where it was");
		TT_SYS(munmap(from, n * TT_PAGE));
		tt_region_verify_shuffled(&region);
		for (size_t nr = i; nr < n; nr += 3)
			tt_region_write(&region, nr);
		tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void shrink(void)
{
	size_t full;

	setup(25);
	full = region.nr_pages;
	for (unsigned i = 0; i < 4; i++) {
		resize(full / (i + 2), 0, NULL);
		tt_region_verify_shuffled(&region);
		resize(full, MREMAP_MAYMOVE, NULL);
		tt_region_verify(&region); /* the tail has version 0 */
		tt_region_fill(&region);
		tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void shorten(void)
{
	struct tt_region neighbour;
	size_t n = tt_pages(25), kept;

	tt_pressure_init(60);
	for (unsigned i = 0; i < 4; i++) {
		tt_region_map(&region, n, 1);
		kept = n / (i + 2);
		tt_region_fill(&region);
		tt_region_map(&neighbour, n, 60 + i);
		tt_region_fill(&neighbour);
		tt_pressure();
		/* The neighbour's front gives way, the rest is next to it. */
		resize(kept, MREMAP_MAYMOVE | MREMAP_FIXED, neighbour.base);
		for (size_t nr = kept; nr < n; nr++)
			tt_check(neighbour.base + nr * TT_PAGE, neighbour.id,
				 nr, 1);
		tt_region_verify(&region);
		TT_SYS(munmap(neighbour.base + kept * TT_PAGE,
			      (n - kept) * TT_PAGE));
		TT_SYS(munmap(neighbour.version,
			      n * sizeof(*neighbour.version)));
		tt_region_unmap(&region);
	}
}

static void dontunmap(void)
{
	setup(15);
	for (unsigned i = 0; i < 4; i++) {
		size_t bytes = region.nr_pages * TT_PAGE;
		unsigned char *old = region.base;
		void *at = mremap(old, bytes, bytes,
				  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

		TT_SYS(at == MAP_FAILED ? -1 : 0);
		region.base = at;
		tt_region_verify_shuffled(&region);
		tt_check_zero(old, bytes, "left by MREMAP_DONTUNMAP");
		memset(old, 0x5a, bytes);
		tt_pressure();
		tt_region_verify(&region);
		TT_SYS(munmap(old, bytes));
		tt_region_fill(&region);
	}
	tt_region_unmap(&region);
}

/* Swaps the content of two pieces by moving mappings, as some GCs do. */
static void swap_pieces(size_t a, size_t b, size_t n, void *spare)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
	unsigned char *at_a = region.base + a * TT_PAGE;
	unsigned char *at_b = region.base + b * TT_PAGE;
	size_t bytes = n * TT_PAGE;

	TT_ASSERT(mremap(at_a, bytes, bytes, flags, spare) == spare);
	TT_ASSERT(mremap(at_b, bytes, bytes, flags, at_a) == at_a);
	TT_ASSERT(mremap(spare, bytes, bytes, flags, at_b) == at_b);
	/* Keeps others out of it until the next time. */
	TT_ASSERT(mmap(spare, bytes, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
			       MAP_FIXED_NOREPLACE,
		       -1, 0) == spare);
}

static void pieces(void)
{
	enum {
		PIECE = 32
	};
	uint64_t rng = tt_rand_start(5);
	void *spare = reserve(PIECE);
	size_t *content, n;

	setup(30);
	n = region.nr_pages / PIECE;
	TT_ASSERT(n > 1);
	content = tt_map(n * sizeof(*content)); /* which piece is where */
	for (size_t i = 0; i < n; i++)
		content[i] = i;
	for (unsigned i = 0; i < 400; i++) {
		size_t a = (tt_rand(&rng) >> 16) % n, b = (a + 1 + i) % n;
		size_t kept = content[a];

		if (a == b)
			continue;
		swap_pieces(a * PIECE, b * PIECE, PIECE, spare);
		content[a] = content[b];
		content[b] = kept;
		for (unsigned p = 0; p < PIECE; p += 7) {
			size_t nr = content[a] * PIECE + p;

			tt_check(region.base + (a * PIECE + p) * TT_PAGE,
				 region.id, nr, region.version[nr]);
		}
		if (i % 100 == 99)
			tt_pressure();
	}
	for (size_t i = 0; i < n * PIECE; i++) {
		size_t nr = content[i / PIECE] * PIECE + i % PIECE;

		tt_check(region.base + i * TT_PAGE, region.id, nr,
			 region.version[nr]);
	}
	TT_SYS(munmap(content, n * sizeof(*content)));
	tt_region_unmap(&region);
}

static void random_mix(void)
{
	uint64_t rng = tt_rand_start(6);

	setup(10);
	for (unsigned i = 0; i < 60; i++) {
		size_t most = tt_pages(30);
		size_t n = 16 + (tt_rand(&rng) >> 16) % (most - 16);

		if (i % 3)
			resize(n, MREMAP_MAYMOVE, NULL);
		else
			resize(n, MREMAP_MAYMOVE | MREMAP_FIXED, reserve(n));
		tt_region_work(&region, &rng, region.nr_pages / 4, 2);
		if (i % 15 == 14)
			tt_pressure();
		if (i % 5 == 4)
			tt_region_verify_shuffled(&region);
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void realloc_blocks(void)
{
	enum {
		NR = 6
	};
	unsigned char *block[NR] = { 0 };
	size_t pages[NR] = { 0 };
	uint64_t rng = tt_rand_start(7);

	tt_pressure_init(60);
	for (unsigned i = 0; i < 80; i++) {
		unsigned k = (unsigned)(tt_rand(&rng) >> 16) % NR;
		size_t n = 1 + (tt_rand(&rng) >> 16) % (tt_pages(30) / NR);
		size_t kept = n < pages[k] ? n : pages[k];

		block[k] = realloc(block[k], n * TT_PAGE);
		TT_ASSERT(block[k]);
		for (size_t nr = 0; nr < kept; nr++)
			tt_check(block[k] + nr * TT_PAGE, 70 + k, nr, 1);
		for (size_t nr = kept; nr < n; nr++)
			tt_fill(block[k] + nr * TT_PAGE, 70 + k, nr, 1);
		pages[k] = n;
		if (i % 20 == 19)
			tt_pressure();
	}
	for (unsigned k = 0; k < NR; k++)
		free(block[k]);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "grow", grow },
						{ "move", move },
						{ "shrink", shrink },
						{ "shorten", shorten },
						{ "dontunmap", dontunmap },
						{ "pieces", pieces },
						{ "random", random_mix },
						{ "realloc", realloc_blocks },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
