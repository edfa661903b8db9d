/* SPDX-License-Identifier: MIT */
/*
 * What the store does around fork(2).  The model is in core.h, what closed
 * locks are in base/lock.h.
 */
#include <tmem/store.h>

#include "base/sys.h"
#include "tiering.h"

/*
 * fn on every lock that an operation begins with.  Class, records, meta and
 * page locks are held only by whoever holds one of these.
 */
static void for_each_lock(struct tmem_store *store,
			  void (*fn)(struct tmem_lock *lock))
{
	uint32_t i;

	fn(&store->control);
	for (i = 0; i < TMEM_MAX_SCRATCHES; i++)
		fn(&store->scratches[i].lock);
	for (i = 0; i < store->nr_shards; i++)
		fn(&store->shards[i].lock);
}

static void wait_for_readers(struct tmem_store *store)
{
	_Atomic uint32_t *nr_readers = &store->quiet->nr_readers;
	uint32_t nr;

	while ((nr = atomic_load(nr_readers)))
		tmem_sys_futex_wait(nr_readers, nr, NULL);
}

void tmem_store_before_fork(struct tmem_store *store) TMEM_UNANALYSED
{
	uint32_t i;

	/* Two processes would write to one image. */
	TMEM_ASSERT(!store->image);
	tmem_tiering_rest(store);
	tmem_lock_acquire(&store->control);
	tmem_lock_acquire(&store->scratches[0].lock);
	for (i = 1; i < TMEM_MAX_SCRATCHES; i++)
		tmem_lock_acquire_also(&store->scratches[i].lock);
	tmem_shards_acquire(store);

	for_each_lock(store, tmem_lock_close);
	tmem_lock_pop_rank(&store->control);
	tmem_lock_pop_rank(&store->scratches[0].lock);
	tmem_lock_pop_rank(&store->shards[0].lock);
}

void tmem_store_after_fork(struct tmem_store *store, int freeze) TMEM_UNANALYSED
{
	for_each_lock(store, tmem_lock_reopen);
	wait_for_readers(store);
	if (freeze)
		tmem_arena_freeze(&store->arena);
	for_each_lock(store, tmem_lock_release_also);
	tmem_tiering_wake(store, !atomic_load(&store->quiet->parent));
}

void tmem_store_thaw(struct tmem_store *store) TMEM_UNANALYSED
{
	tmem_lock_acquire(&store->control);
	tmem_shards_acquire(store);
	tmem_arena_thaw(&store->arena);
	tmem_shards_release(store);
	tmem_lock_release(&store->control);
}
