/* SPDX-License-Identifier: MIT */
/*
 * Memory that becomes present without anybody being asked: by one call for
 * all of it, or by reading, so that what is written afterwards is not seen.
 * What is written can't be compressed, so that it goes to the swap file, more
 * slowly than a program writes.
 *
 *   mmap    MAP_POPULATE
 *   write   MADV_POPULATE_WRITE
 *   read    MADV_POPULATE_READ, then filled
 *   touch   read byte by byte, then filled by two threads
 *   sparse  read all over, over and over, and never filled
 */
#include "torture.h"

#include <stdlib.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

enum {
	NOISE_PAGES = 64
};

static unsigned char noise[NOISE_PAGES * TT_PAGE];
static unsigned char *block;
static size_t nr_pages;

static void prepare(int flags)
{
	uint64_t rng = tt_rand_start(1);

	for (size_t i = 0; i < sizeof(noise); i += sizeof(rng)) {
		uint64_t word = tt_rand(&rng);

		memcpy(noise + i, &word, sizeof(word));
	}
	nr_pages = tt_pages(95);
	block = mmap(NULL, nr_pages * TT_PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	TT_ASSERT(block != MAP_FAILED);
}

/* The number in front makes each page another. */
static void fill(size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		unsigned char *page = block + i * TT_PAGE;

		memcpy(page, noise + i % NOISE_PAGES * TT_PAGE, TT_PAGE);
		memcpy(page, &i, sizeof(i));
	}
}

static void verify(void)
{
	unsigned char expected[TT_PAGE];

	for (size_t i = 0; i < nr_pages; i++) {
		memcpy(expected, noise + i % NOISE_PAGES * TT_PAGE, TT_PAGE);
		memcpy(expected, &i, sizeof(i));
		tt_same(block + i * TT_PAGE, expected, TT_PAGE, "filled page");
	}
}

static void fill_and_verify(void)
{
	fill(0, nr_pages);
	verify();
	TT_SYS(munmap(block, nr_pages * TT_PAGE));
}

static void mapped(void)
{
	prepare(MAP_POPULATE);
	fill_and_verify();
}

static void advised(int advice)
{
	prepare(0);
	if (madvise(block, nr_pages * TT_PAGE, advice) < 0)
		tt_skip("this kernel does not populate");
	fill_and_verify();
	/* A hole ends it, as without us; what was before it is there. */
	prepare(0);
	TT_SYS(munmap(block + 8 * TT_MIB, TT_PAGE));
	TT_ASSERT(madvise(block, nr_pages * TT_PAGE, advice) == -1 &&
		  errno == ENOMEM);
	tt_check_zero(block, 8 * TT_MIB, "before the hole");
	TT_ASSERT(madvise(block + 1, TT_PAGE, advice) == -1 && errno == EINVAL);
	TT_SYS(munmap(block, nr_pages * TT_PAGE));
}

static void populate_write(void)
{
	advised(MADV_POPULATE_WRITE);
}

static void populate_read(void)
{
	advised(MADV_POPULATE_READ);
}

static void *fill_half(void *argument)
{
	size_t half = (uintptr_t)argument, middle = nr_pages / 2;

	fill(half * middle, half ? nr_pages : middle);
	return NULL;
}

static void touch(void)
{
	pthread_t threads[2];

	prepare(0);
	tt_check_zero(block, nr_pages * TT_PAGE, "untouched");
	for (uintptr_t i = 0; i < TT_ARRAY(threads); i++)
		threads[i] = tt_thread(fill_half, tt_argument(i));
	for (size_t i = 0; i < TT_ARRAY(threads); i++)
		tt_join(threads[i]);
	verify();
	TT_SYS(munmap(block, nr_pages * TT_PAGE));
}

/* One page in eight holds something. */
static void sparse(void)
{
	uint64_t rng = tt_rand_start(2);

	prepare(0);
	for (size_t i = 0; i < nr_pages; i += 8)
		fill(i, i + 1);
	for (size_t n = 0; n < nr_pages * 4; n++) {
		size_t i = tt_rand(&rng) % nr_pages;
		unsigned char zero = 0;

		tt_same(block + i * TT_PAGE + 8,
			i % 8 ? &zero : noise + i % NOISE_PAGES * TT_PAGE + 8,
			1, "sparse page");
	}
	TT_SYS(munmap(block, nr_pages * TT_PAGE));
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "mmap", mapped },	   { "write", populate_write },
		{ "read", populate_read }, { "touch", touch },
		{ "sparse", sparse },	   { NULL }
	};

	tt_main(argc, argv, 256, cases);
}
