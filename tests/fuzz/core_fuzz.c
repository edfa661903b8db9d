/* SPDX-License-Identifier: MIT */
/*
 * Core dumps as an enemy would have them.  The first byte of the input says
 * how:
 *
 *	even	the rest is the file;
 *	odd	a core is made, then patched: five bytes each say where among
 *		what is not zeros (which page, where in it), and what.
 *
 * A core with one patch gives no wrong page but where no checksum is (frames,
 * and what says that a page was present with zeros).
 */
#include "testcore.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	PATCH = 5,
	MAX_PATCHES = 64
};

static struct testcore tc;
static bool exact; /* what is rebuilt must be right */
static uint64_t file_bytes;

static int look(void *arg, const struct tmem_fate *fate)
{
	uint64_t i = (fate->addr - TESTCORE_PROGRAM) / PAGE;
	uint8_t content[PAGE];
	enum testcore_kind kind;

	(void)arg;
	if (fate->fate != TMEM_FATE_REBUILT)
		return 0;
	CHECK(file_bytes >= PAGE && fate->file_offset <= file_bytes - PAGE);
	if (!exact || i >= TESTCORE_PAGES)
		return 0;
	kind = testcore_kind((unsigned)i);
	page_fill(content, i + 1);
	CHECK(kind == TESTCORE_LEAVING || kind == TESTCORE_LOOSE ||
	      memcmp(content, fate->content, PAGE) == 0);
	return 0;
}

static void examine(int fd)
{
	struct tmem_deadpager_info info;
	struct tmem_corefile core;
	struct tmem_deadpager *dp;

	if (tmem_corefile_open(&core, fd) != 0)
		return;
	if (tmem_deadpager_open(&core, &dp, &info) == 0) {
		CHECK_EQ(tmem_deadpager_walk(dp, look, NULL), 0);
		tmem_deadpager_close(dp);
	}
	tmem_corefile_close(&core);
}

static void read_raw(const uint8_t *data, size_t size)
{
	int fd = memfd_create("raw", MFD_CLOEXEC);

	CHECK(fd >= 0);
	CHECK_EQ(pwrite(fd, data, size, 0), (long long)size);
	file_bytes = size;
	exact = false;
	examine(fd);
	close(fd);
}

/* Undone afterwards, in reverse: the core is made once. */
static void read_patched(int fd, const uint8_t *data, size_t size)
{
	unsigned nr = (unsigned)(size / PATCH), i;
	uint64_t at[MAX_PATCHES];
	uint8_t old[MAX_PATCHES];

	if (nr > MAX_PATCHES)
		nr = MAX_PATCHES;
	for (i = 0; i < nr; i++, data += PATCH) {
		at[i] = tc.data[(data[0] | data[1] << 8) % tc.nr_data] +
			(data[2] | data[3] << 8) % PAGE;
		CHECK_EQ(pread(fd, &old[i], 1, (off_t)at[i]), 1);
		CHECK_EQ(pwrite(fd, &data[4], 1, (off_t)at[i]), 1);
	}
	file_bytes = tc.bytes;
	exact = nr <= 1;
	examine(fd);
	while (i-- > 0)
		CHECK_EQ(pwrite(fd, &old[i], 1, (off_t)at[i]), 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;

	if (fd < 0) {
		testcore_make(&tc);
		fd = testcore_memfd(&tc);
	}
	if (size == 0)
		return 0;
	if (data[0] % 2)
		read_patched(fd, data + 1, size - 1);
	else
		read_raw(data + 1, size - 1);
	return 0;
}
