/* SPDX-License-Identifier: MIT */
/*
 * Memory from a window of addresses: never outside of it, never over
 * somebody's mapping, and none when there is no place.
 */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "base/sys.h"
#include "fstest.h"

/* Where sanitizers, too, let a program have memory. */
#define START 0x7ea000000000ul
#define END   (START + (8ul << 30))
#define BIG   (3ul << 30)

static char *map(size_t bytes)
{
	return tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);
}

static bool is_inside(const char *p, size_t bytes)
{
	return (uintptr_t)p >= START && (uintptr_t)p + bytes <= END;
}

static void upwards_and_inside(void)
{
	char *one = map(5000), *two = map(4096);

	CHECK(one && is_inside(one, 8192));
	CHECK(two && is_inside(two, 4096));
	CHECK(two == one + 8192);
	memset(one, 1, 5000);
}

static void over_nobody(void)
{
	char *before = map(4096), *other, *after;

	other = mmap(before + 4096, 4096, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(other == before + 4096);
	*other = 7;
	after = map(4096);
	CHECK(after && after != other && is_inside(after, 4096));
	*after = 1;
	CHECK_EQ(*other, 7);
}

static void none_when_it_is_full(void)
{
	char *one = map(BIG), *two = map(BIG), *three = map(BIG);

	CHECK(one && is_inside(one, BIG));
	CHECK(!two || is_inside(two, BIG));
	CHECK(!two || !three); /* 9 GiB do not fit into 8 */
	tmem_sys_unmap(one, BIG);
	CHECK(map(1ul << 20)); /* it is found again from the start */
}

int main(void)
{
	tmem_sys_map_within(START, END);
	RUN(upwards_and_inside);
	RUN(over_nobody);
	RUN(none_when_it_is_full);
	return 0;
}
