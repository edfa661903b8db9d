/* SPDX-License-Identifier: MIT */
/*
 * A core dump of a program that never was: the pager's structures are made in
 * this process, over a real store, and written as the kernel would; so whoever
 * reads them can be tested without one, damage included.
 *
 * Page i of the program has content page_fill(i + 1), and is out or not as
 * testcore_kind() says.
 */
#ifndef TESTCORE_H
#define TESTCORE_H

#include "crash/deadpager.h"
#include "fstest.h"
#include "pager/event.h"
#include "pager/pager.h"
#include "wire/anchor.h"

enum {
	TESTCORE_PAGES = 288,
	TESTCORE_PID = 4711,
	TESTCORE_MAX_DATA = 1024
};

#define TESTCORE_PROGRAM 0x7f1234560000ull

enum testcore_kind {
	TESTCORE_STORED = 0,
	TESTCORE_SWAPPED,
	TESTCORE_LOADING,
	TESTCORE_LEAVING,
	TESTCORE_RESIDENT,
	TESTCORE_KEPT,
	TESTCORE_LOST,
	TESTCORE_NEWER, /* stored, but present with other content */
	TESTCORE_LOOSE, /* stored, but present with zeros */
	TESTCORE_NONE
};

struct testcore {
	struct tmem_pager *pager;
	struct tmem_store *store;
	struct tmem_anchor *anchor;
	struct tmem_deferred *deferred;
	uint8_t *program;
	uint32_t offset[TESTCORE_PAGES];
	/* Where in the file there is anything but zeros. */
	uint64_t data[TESTCORE_MAX_DATA];
	unsigned nr_data;
	uint64_t bytes;
};

void testcore_make(struct testcore *tc);
enum testcore_kind testcore_kind(unsigned page);
/* What happens to the pages of that kind in a core that is whole. */
enum tmem_page_fate testcore_fate(enum testcore_kind kind);
uint32_t testcore_handle(const struct testcore *tc, unsigned page);

/* Writes the core into an empty file. */
void testcore_write(struct testcore *tc, int fd);
/* The same as a new memfd. */
int testcore_memfd(struct testcore *tc);
/* Where in the file an address of this process is; it must be there. */
uint64_t testcore_place(int fd, const void *addr);
void testcore_free(struct testcore *tc);

#endif
