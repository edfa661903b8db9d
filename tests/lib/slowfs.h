/* SPDX-License-Identifier: MIT */
/*
 * A file system of one file that is slow, full or broken on demand: FUSE,
 * spoken by a thread of the test, the file's content in memory.  Mounting
 * needs root and /dev/fuse.
 */
#ifndef SLOWFS_H
#define SLOWFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slowfs;

/* What reads and writes of the file do from now on. */
struct slowfs_mood {
	bool hold;	     /* no answer until that is false again */
	int read_error;	     /* 0 or a positive errno */
	int write_error;     /* likewise */
	uint64_t full_above; /* writes beyond this byte are ENOSPC; 0: none */
	unsigned shorten;    /* reads and writes move at most this; 0: all */
	bool no_punch;	     /* fallocate is EOPNOTSUPP */
};

/* NULL if it can't be mounted here. */
struct slowfs *slowfs_create(uint64_t bytes);
void slowfs_destroy(struct slowfs *fs);
/* The file, read-write; the caller closes it, before slowfs_destroy(). */
int slowfs_file(struct slowfs *fs);
void slowfs_set(struct slowfs *fs, const struct slowfs_mood *mood);
/* Reads and writes that wait for an answer. */
unsigned slowfs_nr_held(struct slowfs *fs);
/* Holes punched so far. */
unsigned slowfs_nr_punched(struct slowfs *fs);
/* Copies some of its content. */
void slowfs_get(struct slowfs *fs, uint64_t offset, void *to, size_t nr_bytes);

#endif
