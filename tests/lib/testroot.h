/* SPDX-License-Identifier: MIT */
/* A tree of files made up in a folder of its own: /proc, /sys and the like. */
#ifndef TESTROOT_H
#define TESTROOT_H

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

static char root[] = "/var/tmp/tmem-root-XXXXXX";

static inline void make_root(void)
{
	TMEM_ASSERT(mkdtemp(root));
}

static inline int remove_root(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", root);
	return system(command);
}

static inline void put(const char *path, const char *text)
{
	char command[512], full[256];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	snprintf(command, sizeof(command), "mkdir -p \"$(dirname %s)\"", full);
	TMEM_ASSERT(system(command) == 0);
	f = fopen(full, "w");
	TMEM_ASSERT(f);
	fputs(text, f);
	fclose(f);
}

#endif
