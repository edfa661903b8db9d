/* SPDX-License-Identifier: MIT */
/* Images of restartable stores, for tests: made, copied, damaged. */
#ifndef TESTIMAGE_H
#define TESTIMAGE_H

#include "fstest.h"

/* An empty memfd; an empty file, on a disk if there is one. */
int image_memfd(void);
int image_file(void);
bool image_in_memory(int fd);

/* The data of `from`, and its holes, become those of `to`. */
void image_copy(int from, int to);

/* Flips bits, and overwrites some words, all beyond the superblock. */
void image_damage(int fd, struct rng *rng, unsigned nr);

/* As if it had been written before the machine was started. */
void image_other_boot(int fd);

#endif
