/* SPDX-License-Identifier: MIT */
/* A dictionary for a pool, without waiting until one is learned. */
#ifndef GIVEDICT_H
#define GIVEDICT_H

#include "core/dicts.h"
#include "fstest.h"

/* The pool goes on with it; its name, or 0 if there was no room for it. */
static inline uint32_t give_dict(struct tmem_store *store, tmem_pool_id pool,
				 const void *content,
				 unsigned bytes) TMEM_UNANALYSED
{
	struct tmem_dict_spec spec = {
		.pool = pool % TMEM_MAX_POOLS,
		.uses = TMEM_DICT_LZ4 | TMEM_DICT_ZSTD,
		.content_bytes = bytes,
		.content = content,
	};
	uint32_t name = 0;
	int r;

	tmem_lock_acquire(&store->control);
	r = tmem_dicts_add(store, &spec, &name);
	CHECK(r == 0 || r == -ENOSPC || r == -ENOMEM);
	if (r == 0)
		tmem_dicts_make_current(store, name);
	store->cool_again = 1;
	tmem_lock_release(&store->control);
	return r == 0 ? name : 0;
}

#endif
