/* SPDX-License-Identifier: MIT */
/* Compaction; the model is in compact.c. */
#ifndef TMEM_CORE_COMPACT_H
#define TMEM_CORE_COMPACT_H

#include "core.h"

/* Until that time, or until there is nothing to do: then false. */
bool tmem_compact(struct tmem_store *store, uint64_t until_ns);

/*
 * Some spans at once, where others have room for their slots at all: dear, for
 * when pages are wanted.  False: there are none.
 */
bool tmem_compact_hard(struct tmem_store *store);

#endif
