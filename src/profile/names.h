/* SPDX-License-Identifier: MIT */
/*
 * The names of places, by the symbols and the debugging information of their
 * files (libdw).
 *
 * A frame is a function's name, or "file+0xaddress" where no symbol covers it;
 * the innermost frame of a stack of which the line is known also says
 * "(source:line)"; functions that were inlined are frames of their own.
 */
#ifndef TMEM_PROFILE_NAMES_H
#define TMEM_PROFILE_NAMES_H

#include <stdio.h>

#include "profile/places.h"

struct tmem_names;

/* Of all places that there are; takes its time.  NULL: no memory. */
struct tmem_names *tmem_names_find(const struct tmem_places *places);
void tmem_names_free(struct tmem_names *names);

/* ";outermost;...;innermost" for places from the outermost to the innermost. */
void tmem_names_write(const struct tmem_names *names, const uint32_t *places,
		      unsigned nr, FILE *out);

#endif
