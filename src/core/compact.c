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
 * than the copy of one.  The memory of all these spans goes back in one call,
 * if the kernel can: each such call interrupts every CPU that runs a thread of
 * the process.
 *
 * Spans with slots that others refer to come last, and then many together:
 * sweep.c.
 *
 * The control lock is held over a batch, so that a fork finds a span leaving
 * only if it is one of a sweep.
 */
#include "compact.h"

#include "base/sys.h"
#include "object.h"

unsigned tmem_compact_choose(struct tmem_store *store, uint32_t *spans,
			     bool shared_too)
{
	unsigned tries = TMEM_CLASSES, nr = 0;

	while (tries && nr < TMEM_LEAVING_MAX) {
		uint32_t span = tmem_arena_leave(
			&store->arena,
			1 + store->compact_hand % (TMEM_CLASSES - 1),
			shared_too);

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

static bool move_shared(struct tmem_store *store, uint32_t handle)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct tmem_shard *shard;
	bool moved;

	/* Held, it stays, whoever lets go of it, and can be read. */
	if (!tmem_arena_hold(&store->arena, handle))
		return false;
	/* (What was recovered without an owner may say anything.) */
	shard = &store->shards[tmem_slot_shard(slot) & (store->nr_shards - 1)];
	tmem_lock_acquire(&shard->lock);
	moved = tmem_object_relocate_shared(store, shard, handle);
	shard->stats.moved += moved;
	tmem_object_unshare_moved(store, shard, handle);
	tmem_lock_release(&shard->lock);
	return moved;
}

unsigned tmem_compact_move(struct tmem_store *store, const uint32_t *spans,
			   unsigned nr, uint64_t *copied_bytes)
{
	unsigned moved = 0, i, n;

	wait_for_writers(store);
	for (i = 0; i < nr; i++)
		for (n = 0; n < TMEM_SPAN_SLOTS; n++) {
			uint32_t handle = spans[i] * TMEM_SPAN_SLOTS + n;

			if (move_slot(store, handle)) {
				moved++;
			} else if (copied_bytes && move_shared(store, handle)) {
				moved++;
				*copied_bytes += tmem_arena_size_of(
					&store->arena, handle);
			}
		}
	return moved;
}

/* False if there was nothing to move. */
static bool compact_some(struct tmem_store *store)
	TMEM_REQUIRES(&store->control)
{
	uint32_t spans[TMEM_LEAVING_MAX];
	unsigned nr = tmem_compact_choose(store, spans, false), moved;

	if (!nr)
		return false;
	moved = tmem_compact_move(store, spans, nr, NULL);
	tmem_arena_settle(&store->arena, spans, nr);
	return moved != 0;
}

bool tmem_compact(struct tmem_store *store, uint64_t until_ns)
{
	bool more;

	do {
		if (!tmem_lock_acquire_unless_closed(&store->control))
			return false;
		more = (!tmem_sweep_is_on(store) && compact_some(store)) ||
		       tmem_sweep_some(store);
		tmem_lock_release(&store->control);
	} while (more && tmem_sys_now_ns() < until_ns);
	return more;
}

bool tmem_compact_hard(struct tmem_store *store)
{
	uint32_t part;
	bool more;

	if (!tmem_lock_acquire_unless_closed(&store->control))
		return false;
	part = store->arena.sparse_part;
	store->arena.sparse_part = UINT32_MAX;
	more = compact_some(store);
	store->arena.sparse_part = part;
	tmem_lock_release(&store->control);
	return more;
}
