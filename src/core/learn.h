/* SPDX-License-Identifier: MIT */
/* Pools learn what their pages have in common; the model is in learn.c. */
#ifndef TMEM_CORE_LEARN_H
#define TMEM_CORE_LEARN_H

#include "core.h"

/*
 * Goes on where it was, until that time or until there is nothing to do for
 * now: then false.  Frees dictionaries that nobody needs any more.  One thread
 * at a time.
 */
bool tmem_learn_some(struct tmem_store *store, uint64_t until_ns);

void tmem_learn_for_each(struct tmem_store *store,
			 void (*fn)(void *arg, void *start, size_t bytes),
			 void *arg);
void tmem_learn_fini(struct tmem_store *store);

#endif
