/* SPDX-License-Identifier: MIT */
/* Recompression of cold pages; the model is in cool.c. */
#ifndef TMEM_CORE_COOL_H
#define TMEM_CORE_COOL_H

#include "core.h"

/*
 * Goes on where it was, until that time or to the end of a round.  False:
 * there is nothing to do for now.  One thread at a time.
 */
bool tmem_cool_some(struct tmem_store *store, uint64_t until_ns);

/* A page was found: it is not cold.  The shard's lock is held. */
static inline void tmem_cool_touch(struct tmem_slot *slot)
{
	if (slot->form_generation & TMEM_SLOT_COLD)
		slot->form_generation &= ~TMEM_SLOT_COLD;
}

#endif
