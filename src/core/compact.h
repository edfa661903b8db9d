/* SPDX-License-Identifier: MIT */
/* Compaction; the model is in compact.c. */
#ifndef TMEM_CORE_COMPACT_H
#define TMEM_CORE_COMPACT_H

#include "core.h"

/* Until that time, or until there is nothing to do: then false. */
bool tmem_compact(struct tmem_store *store, uint64_t until_ns);

#endif
