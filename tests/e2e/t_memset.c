/* SPDX-License-Identifier: MIT */
/*
 * One large block written from end to end, faster than any scan can see it.
 *
 *   once   memset of all of it, then every byte verified
 *   twice  half of it again with another byte, backwards
 *   mixed  the same amount in pages of mixed content, each verified
 *   calloc read before it was ever written
 */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static unsigned char *block;
static size_t block_bytes;

static void verify(size_t from, size_t to, int byte)
{
	unsigned char expected[TT_PAGE];

	memset(expected, byte, TT_PAGE);
	for (size_t at = from; at < to; at += TT_PAGE)
		tt_same(block + at, expected, TT_PAGE, "memset block");
}

static void once(void)
{
	block_bytes = tt_pages(100) * TT_PAGE;
	block = tt_map(block_bytes);
	memset(block, 0xa5, block_bytes);
	verify(0, block_bytes, 0xa5);
	TT_SYS(munmap(block, block_bytes));
}

static void twice(void)
{
	size_t half;

	block_bytes = tt_pages(100) * TT_PAGE;
	half = block_bytes / 2 / TT_PAGE * TT_PAGE;
	block = tt_map(block_bytes);
	memset(block, 0xa5, block_bytes);
	for (size_t at = block_bytes; at > half; at -= TT_PAGE)
		memset(block + at - TT_PAGE, 0x5b, TT_PAGE);
	verify(0, half, 0xa5);
	verify(half, block_bytes, 0x5b);
	TT_SYS(munmap(block, block_bytes));
}

static void mixed(void)
{
	struct tt_region region;

	tt_region_map(&region, tt_pages(95), 1);
	tt_region_fill(&region);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void zeroed(void)
{
	block_bytes = tt_pages(100) * TT_PAGE;
	block = calloc(1, block_bytes);
	TT_ASSERT(block);
	tt_check_zero(block, block_bytes, "calloc");
	memset(block, 1, block_bytes);
	verify(0, block_bytes, 1); /* or the compiler drops the memset */
	free(block);
	block = calloc(1, block_bytes);
	TT_ASSERT(block);
	tt_check_zero(block, block_bytes, "calloc after free");
	free(block);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "once", once },
						{ "twice", twice },
						{ "mixed", mixed },
						{ "calloc", zeroed },
						{ NULL } };

	tt_main(argc, argv, 256, cases);
}
