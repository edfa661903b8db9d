/* SPDX-License-Identifier: MIT */
/*
 * Places in programs: a file and an address in it, as the file has it; or what
 * is no file's and has a fixed name.  The same place has the same number in all
 * processes.
 *
 * Their names are looked for when all is over: debugging information is large,
 * and so long the program needs memory and time itself.  Files are kept open
 * until then, as they may be deleted, or be of a process with another root.
 */
#ifndef TMEM_PROFILE_PLACES_H
#define TMEM_PROFILE_PLACES_H

#include <stdint.h>

#include "profile/intern.h"

enum tmem_place_kind {
	PLACE_ANON = 0, /* in memory of no file */
	PLACE_CUT,	/* the way to the start of the stack was lost */
	PLACE_UNKNOWN,	/* nothing is known of the process */
	PLACE_SYSCALL,
	PLACE_KINDS
};

struct tmem_places {
	struct tmem_intern files;  /* by path, device and inode */
	struct tmem_intern places; /* by struct tmem_place */
};

struct tmem_place {
	uint32_t file; /* TMEM_INTERN_NONE: address is an enum */
	uint32_t reserved;
	uint64_t address;
};

/* 0 or -ENOMEM. */
int tmem_places_init(struct tmem_places *places);
void tmem_places_fini(struct tmem_places *places);

/*
 * A file by the path that it is called by, and a descriptor, -1: none, which is
 * not kept, but may be copied.
 */
uint32_t tmem_places_file(struct tmem_places *places, const char *path, int fd);
/* -1: it could not be opened. */
int tmem_places_file_fd(const struct tmem_places *places, uint32_t file);
const char *tmem_places_file_path(const struct tmem_places *places,
				  uint32_t file);

/* Numbers of places; TMEM_INTERN_NONE: no memory.  PLACE_* are their own. */
uint32_t tmem_places_add(struct tmem_places *places, uint32_t file,
			 uint64_t address);

static inline const struct tmem_place *
tmem_places_get(const struct tmem_places *places, uint32_t place)
{
	return places->places.keys[place].key;
}

#endif
