/* SPDX-License-Identifier: MIT */
/* Text to descriptors. */
#ifndef TMEM_CLI_OUTPUT_H
#define TMEM_CLI_OUTPUT_H

/* All of it: 0, or errno. */
int tmem_output_write(int fd, const char *text);

/*
 * Over what a file has, but never through an empty one: somebody may read it
 * now.  A pipe or a terminal just gets it.  0, or errno.
 */
int tmem_output_write_over(int fd, const char *text);

#endif
