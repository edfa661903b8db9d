/* SPDX-License-Identifier: MIT */
/* One page: store, load, invalidate; and an object's pages. */
#ifndef TMEM_CORE_PAGE_H
#define TMEM_CORE_PAGE_H

#include "client.h"

/* Gives a scratch its memory; false: none.  Its lock is held. */
bool tmem_scratch_make(struct tmem_store *store, struct tmem_scratch *scratch);
/* The calling thread's scratch; held over a vector of stores. */
struct tmem_scratch *tmem_scratch_acquire(struct tmem_store *store);
void tmem_scratch_release(struct tmem_scratch *scratch);

/*
 * Results as in tmem/backend.h; the pool is live and the client's.  `hash` is
 * dedup's of the content, or 0: it is not known yet.
 */
int tmem_page_store(const struct tmem_client *client, tmem_pool_id id,
		    const struct tmem_io *io, uint64_t hash,
		    struct tmem_scratch *scratch);
int tmem_page_load(const struct tmem_client *client, tmem_pool_id id,
		   const struct tmem_io *io);
int tmem_page_invalidate(const struct tmem_client *client, tmem_pool_id id,
			 const struct tmem_io *io);
uint64_t tmem_page_invalidate_object(const struct tmem_client *client,
				     tmem_pool_id id,
				     const struct tmem_object_id *object);

#endif
