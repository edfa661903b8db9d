/* SPDX-License-Identifier: MIT */
/* A copy of a file that is worked on before it takes its name. */
#ifndef TMEM_CLI_COPY_H
#define TMEM_CLI_COPY_H

#include <stddef.h>

/*
 * All of a regular file into an empty one; its holes stay holes, and where the
 * file system can, it shares the blocks.  0 or -errno.
 */
int tmem_copy_sparse(int from, int to);

/*
 * A new file beside `path`, with the permissions of `like`; its name is in
 * ret_name.  A descriptor or -errno.
 */
int tmem_copy_begin(const char *path, int like, char *ret_name, size_t room);

#endif
