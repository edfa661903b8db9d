/* SPDX-License-Identifier: MIT */
/*
 * The backend contract: where pools live.
 *
 * A front end (frontswap, a cache, a pager) runs on any backend: the local
 * store, one that refuses everything (what the hooks alone cost), later a
 * daemon's client.
 *
 * Contract, for every implementation:
 *  - Every member is required.  All may be called from any thread.
 *  - Operations on different keys are independent.  Of concurrent ones on the
 *    same key each is atomic; the order is the caller's business.
 *  - Vector operations write io[i].result for each i and return 0, or a
 *    negative errno (-ENOENT: no such pool; every result then holds it too).
 *    Elements are processed in order: the same key twice in a vector is
 *    allowed, the later wins.
 *  - store: 0 or TMEM_REFUSED.  A refused store leaves a miss, whatever was
 *    there before.
 *  - load: 0 or TMEM_MISS or -EIO.  A page is written only with result 0.
 *    A page loaded from a persistent pool stays stored until it is
 *    invalidated; one from an ephemeral pool is gone with its load if the
 *    pool is private, and stays if it is shared.  A load from an ephemeral
 *    pool may miss at any time, and then misses until the next store.
 *  - pool_create: options NULL: persistent.  A shared pool that exists is
 *    joined, each join to be ended by its own pool_destroy.  Where the caller
 *    may not share that UUID, or it is all ones, the pool is made private and
 *    the answer is TMEM_PRIVATE.  -EINVAL: flags unknown, or shared but not
 *    ephemeral; -ENOSPC: no pool number is free; -ENOMEM.
 *  - pool_destroy: of a shared pool that others still use the caller leaves,
 *    and the objects that it was the last to store to or load from go.
 *  - invalidate: 0 if a page was there, TMEM_MISS if none.
 *  - A negative result of store or invalidate leaves it open what is stored
 *    there: only an invalidate that succeeds makes that known again.
 *  - invalidate_object: the number of pages dropped in *ret_pages.
 *  - pool_clone: a new pool with the same pages, copy-on-write; of a
 *    persistent pool only (-EINVAL).  Succeeds whole or changes nothing.
 *  - store, load and invalidate never call malloc.  store and invalidate never
 *    block on I/O; a load does, with a deadline, where the page is in a tier.
 */
#ifndef TMEM_BACKEND_H
#define TMEM_BACKEND_H

#include <tmem/tmem.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_stats;

struct tmem_backend_ops {
	const char *name;
	int (*pool_create)(void *backend,
			   const struct tmem_pool_options *options,
			   tmem_pool_id *ret_pool);
	int (*pool_destroy)(void *backend, tmem_pool_id pool);
	int (*pool_clone)(void *backend, tmem_pool_id pool,
			  tmem_pool_id *ret_pool);
	int (*store)(void *backend, tmem_pool_id pool, struct tmem_io *io,
		     unsigned nr);
	int (*load)(void *backend, tmem_pool_id pool, struct tmem_io *io,
		    unsigned nr);
	int (*invalidate)(void *backend, tmem_pool_id pool, struct tmem_io *io,
			  unsigned nr);
	int (*invalidate_object)(void *backend, tmem_pool_id pool,
				 struct tmem_object_id object,
				 uint64_t *ret_pages);
	/* The figures of the whole backend; units in tmem/stats.h. */
	int (*stats)(void *backend, struct tmem_stats *ret_stats);
};

struct tmem_backend {
	const struct tmem_backend_ops *ops;
	void *self;
};

/* Refuses every store, misses every load: measures the hooks alone. */
TMEM_API struct tmem_backend tmem_backend_refusing(void);

#ifdef __cplusplus
}
#endif
#endif
