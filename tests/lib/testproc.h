/* SPDX-License-Identifier: MIT */
/* What this process has, to see that nothing is left behind. */
#ifndef TESTPROC_H
#define TESTPROC_H

#include <dirent.h>

#include "fstest.h"

/* In pages. */
static inline unsigned long address_space(void)
{
	unsigned long pages;
	FILE *f = fopen("/proc/self/statm", "r");

	CHECK(f && fscanf(f, "%lu", &pages) == 1);
	fclose(f);
	return pages;
}

static inline unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(d != NULL);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

#endif
