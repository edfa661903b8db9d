/* SPDX-License-Identifier: MIT */
/*
 * Compaction: the pages of sparse spans move into the holes of others, so that
 * whole spans go back to the kernel.
 *
 * Some spans at a time are marked as leaving: no slot of them is handed out
 * any more.  After every shard's lock was held once, whoever was filling a
 * slot there has finished; from then on a slot's header says under which
 * shard's lock it may be moved, and only freeing can happen to it meanwhile.
 * Slots move one by one, each under its shard's lock: nobody waits for more
 * than the copy of one.  A slot that others refer to stays.  The memory of all
 * these spans goes back in one call, if the kernel can: each such call
 * interrupts every CPU that runs a thread of the process.
 *
 * The control lock is held over a batch, so that a fork never finds a span
 * that is leaving.
 */
#include "compact.h"

#include "base/sys.h"
#include "object.h"

static unsigned choose(struct tmem_store *store, uint32_t *spans)
	TMEM_REQUIRES(&store->control)
{
	unsigned tries = TMEM_CLASSES, nr = 0;

	while (tries && nr < TMEM_LEAVING_MAX) {
		uint32_t span = tmem_arena_leave(
			&store->arena,
			1 + store->compact_hand % (TMEM_CLASSES - 1));

		if (span) {
			spans[nr++] = span;
			tries = TMEM_CLASSES;
		} else {
			store->compact_hand++;
			tries--;
		}
	}
	return nr;
}

static void wait_for_writers(struct tmem_store *store)
{
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++) {
		tmem_lock_acquire(&store->shards[i].lock);
		tmem_lock_release(&store->shards[i].lock);
	}
}

static bool move_slot(struct tmem_store *store, uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct tmem_shard *shard;
	bool moved;

	/* Not in use: its memory may be gone, and says nothing. */
	if (!tmem_arena_is_movable(&store->arena, handle))
		return false;
	shard = &store->shards[tmem_slot_shard(slot)];
	tmem_lock_acquire(&shard->lock);
	moved = tmem_arena_is_movable(&store->arena, handle) &&
		tmem_object_relocate(store, shard, handle);
	shard->stats.moved += moved;
	tmem_lock_release(&shard->lock);
	return moved;
}

/* False if there was nothing to move. */
static bool compact_some(struct tmem_store *store)
	TMEM_REQUIRES(&store->control)
{
	uint32_t spans[TMEM_LEAVING_MAX];
	unsigned nr = choose(store, spans), moved = 0, i, slot;

	if (!nr)
		return false;
	wait_for_writers(store);
	for (i = 0; i < nr; i++)
		for (slot = 0; slot < TMEM_SPAN_SLOTS; slot++)
			moved += move_slot(store,
					   spans[i] * TMEM_SPAN_SLOTS + slot);
	tmem_arena_settle(&store->arena, spans, nr);
	return moved != 0;
}

bool tmem_compact(struct tmem_store *store, uint64_t until_ns)
{
	bool more;

	do {
		if (!tmem_lock_acquire_unless_closed(&store->control))
			return false;
		more = compact_some(store);
		tmem_lock_release(&store->control);
	} while (more && tmem_sys_now_ns() < until_ns);
	return more;
}

bool tmem_compact_hard(struct tmem_store *store)
{
	bool more;

	if (!tmem_lock_acquire_unless_closed(&store->control))
		return false;
	store->arena.sparse_part = UINT32_MAX;
	more = compact_some(store);
	store->arena.sparse_part = TMEM_SPARSE_PART;
	tmem_lock_release(&store->control);
	return more;
}
