/* SPDX-License-Identifier: MIT */
/* Sizes and stall bounds: what is taken, what is refused, no overflow. */
#include "base/assert.h"
#include "cli/size.h"

#include <errno.h>
#include <string.h>

static void sizes_that_people_write(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "0", 0 },
		{ "1", 1 },
		{ "1B", 1 },
		{ "4096", 4096 },
		{ "512M", 512ull << 20 },
		{ "512m", 512ull << 20 },
		{ "512MiB", 512ull << 20 },
		{ "512mib", 512ull << 20 },
		{ "1.5G", 3ull << 29 },
		{ "0.25KiB", 256 },
		{ "2T", 2ull << 40 },
		{ "1.9999999999999999999K", 2047 },
		{ "007M", 7ull << 20 },
		{ "18446744073709551615", UINT64_MAX },
		{ "16777215.999999T", 0xfffffffffff00000ull | 0xef391 },
	};
	uint64_t bytes;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(*good) - 1; i++) {
		TMEM_ASSERT(tmem_size_parse(good[i].text, &bytes) == 0);
		TMEM_ASSERT(bytes == good[i].bytes);
	}
	/* The last one: only that it fits. */
	TMEM_ASSERT(tmem_size_parse(good[i].text, &bytes) == 0);
}

static void sizes_that_mean_nothing(void)
{
	static const char *const bad[] = { "",	  " 1",	 "1 ",	  "M",
					   "-1",  "+1",	 "1.",	  ".5",
					   "1.M", "1MB", "1Q",	  "1KK",
					   "1Ki", "0x1", "1e3",	  "1,5G",
					   "inf", "nan", "1.2.3", "1MiBx" };
	uint64_t bytes = 77;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		TMEM_ASSERT(tmem_size_parse(bad[i], &bytes) == -EINVAL);
		TMEM_ASSERT(bytes == 77);
	}
}

static void sizes_beyond_64_bits(void)
{
	static const char *const big[] = { "18446744073709551616",
					   "99999999999999999999999",
					   "16777216T", "17179869184G" };
	uint64_t bytes;
	size_t i;

	for (i = 0; i < sizeof(big) / sizeof(*big); i++)
		TMEM_ASSERT(tmem_size_parse(big[i], &bytes) == -ERANGE);
}

static void sizes_as_shown(void)
{
	char buf[32];

	tmem_size_format(0, buf, sizeof(buf));
	TMEM_ASSERT(!strcmp(buf, "0 bytes"));
	tmem_size_format(512ull << 20, buf, sizeof(buf));
	TMEM_ASSERT(!strcmp(buf, "512.0 MiB"));
	tmem_size_format(1023ull << 20, buf, sizeof(buf));
	TMEM_ASSERT(!strcmp(buf, "1.0 GiB"));
	tmem_size_format(UINT64_MAX, buf, sizeof(buf));
	TMEM_ASSERT(strstr(buf, "PiB"));
}

static void stall_bounds(void)
{
	static const char *const bad[] = { "",	  "50",	  "/",	     "50/",
					   "/10", "0/10", "101/10",  "50/0",
					   "5/x", "x/5",  "50/3601", "50/10 ",
					   "-1/5" };
	unsigned percent = 0, secs = 0;
	size_t i;

	TMEM_ASSERT(tmem_stall_parse("60/30", &percent, &secs) == 0);
	TMEM_ASSERT(percent == 60 && secs == 30);
	TMEM_ASSERT(tmem_stall_parse("100%/3600s", &percent, &secs) == 0);
	TMEM_ASSERT(percent == 100 && secs == 3600);
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		TMEM_ASSERT(tmem_stall_parse(bad[i], &percent, &secs) ==
			    -EINVAL);
}

static void numbers_within_bounds(void)
{
	static const char *const bad[] = { "",	 " 1", "1 ", "-1",
					   "+1", "1k", "0x1" };
	static const char *const out[] = { "0", "2", "11", "100000",
					   "18446744073709551616" };
	uint64_t value = 77;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		TMEM_ASSERT(tmem_number_parse(bad[i], 0, 10, &value) ==
			    -EINVAL);
	for (i = 0; i < sizeof(out) / sizeof(*out); i++)
		TMEM_ASSERT(tmem_number_parse(out[i], 3, 10, &value) ==
			    -ERANGE);
	TMEM_ASSERT(value == 77);
	TMEM_ASSERT(!tmem_number_parse("010", 3, 10, &value) && value == 10);
	TMEM_ASSERT(!tmem_number_parse("3", 3, 10, &value) && value == 3);
}

static void intervals(void)
{
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
		{ "1", 1000000000 },	  { "1s", 1000000000 },
		{ "0.25s", 250000000 },	  { "100ms", 100000000 },
		{ "1500ms", 1500000000 }, { "3600", 3600000000000 },
		{ "0.1", 100000000 },
	};
	static const char *const bad[] = { "",	    "s",    "0",    "99ms",
					   "0.09",  "1m",   "3601", "-1",
					   "12345", "1.s.", "1e3",  "ms" };
	uint64_t ns = 0;
	size_t i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++) {
		TMEM_ASSERT(tmem_interval_parse(good[i].text, &ns) == 0);
		TMEM_ASSERT(ns == good[i].ns);
	}
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		TMEM_ASSERT(tmem_interval_parse(bad[i], &ns) == -EINVAL);
}

int main(void)
{
	numbers_within_bounds();
	sizes_that_people_write();
	sizes_that_mean_nothing();
	sizes_beyond_64_bits();
	sizes_as_shown();
	stall_bounds();
	intervals();
	return 0;
}
