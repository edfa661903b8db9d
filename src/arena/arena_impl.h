/* SPDX-License-Identifier: MIT */
/* What the arena's own files share: arena.c and sharing.c. */
#ifndef TMEM_ARENA_ARENA_IMPL_H
#define TMEM_ARENA_ARENA_IMPL_H

#include "arena.h"

static inline struct tmem_class *tmem_arena_class_of(struct tmem_arena *arena,
						     uint32_t handle)
{
	return &arena->classes[tmem_arena_span(arena, handle)->class];
}

static inline struct tmem_shares *
tmem_arena_shares_nr(const struct tmem_arena *arena, uint32_t nr)
{
	return tmem_records_get(&arena->shares, nr, sizeof(struct tmem_shares));
}

/* Nobody uses the slot any more. */
void tmem_arena_free_locked(struct tmem_arena *arena, struct tmem_class *class,
			    uint32_t handle) TMEM_REQUIRES(&class->lock);
/* Afterwards, without that lock: keeps the idle pages within bounds. */
void tmem_arena_balance(struct tmem_arena *arena);

#endif
