/* SPDX-License-Identifier: MIT */
/*
 * Slots that several refer to: their counts, and where they went.
 *
 * Who refers to a shared slot is not known, so compaction can't turn all
 * references at once.  It makes a copy in another span, pins that with a count
 * of its own, and notes it in the old slot's link, which nobody else uses any
 * more, as the old slot is an orphan then.  Both are whole, and equal, for as
 * long as each has users; new references get the copy.  The model is in
 * core/sweep.c.
 */
#include "arena_impl.h"

/* Where the slot went, and that one, if it did; else the slot itself. */
static uint32_t follow_locked(const struct tmem_arena *arena, uint32_t handle)
{
	const struct tmem_span *span = tmem_arena_span(arena, handle);

	while (span->list == TMEM_SPAN_LEAVING &&
	       span->moved >> handle % TMEM_SPAN_SLOTS & 1) {
		handle = span->links[handle % TMEM_SPAN_SLOTS].next;
		span = tmem_arena_span(arena, handle);
	}
	return handle;
}

static bool share_locked(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_span *span = tmem_arena_span(arena, handle);
	struct tmem_shares *shares;
	uint32_t nr;

	nr = atomic_load_explicit(&span->shares, memory_order_relaxed);
	if (!nr)
		nr = tmem_records_alloc(&arena->shares);
	if (!nr)
		return false;
	shares = tmem_arena_shares_nr(arena, nr);
	if (!shares->nr[handle % TMEM_SPAN_SLOTS]++)
		shares->nr_shared++;
	atomic_store_explicit(&span->shares, nr, memory_order_relaxed);
	return true;
}

uint32_t tmem_arena_share(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_class *class = tmem_arena_class_of(arena, handle);

	tmem_lock_acquire(&class->lock);
	handle = follow_locked(arena, handle);
	if (!share_locked(arena, handle))
		handle = 0;
	tmem_lock_release(&class->lock);
	return handle;
}

bool tmem_arena_unshare_moved(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_span *span = tmem_arena_span(arena, handle);
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	uint32_t i = handle % TMEM_SPAN_SLOTS, nr;
	struct tmem_shares *shares;
	bool orphan = false;

	tmem_lock_acquire(&class->lock);
	nr = atomic_load_explicit(&span->shares, memory_order_relaxed);
	TMEM_ASSERT(nr && tmem_arena_shares_nr(arena, nr)->nr[i]);
	shares = tmem_arena_shares_nr(arena, nr);
	if (!--shares->nr[i]) {
		orphan = shares->orphans >> i & 1;
		shares->orphans &= ~(1ull << i);
		if (!--shares->nr_shared) {
			/* Who rewrites the slot comes after who read it. */
			atomic_store_explicit(&span->shares, 0,
					      memory_order_release);
			tmem_records_free(&arena->shares, nr);
		}
	}
	if (orphan)
		tmem_arena_free_locked(arena, class, handle);
	tmem_lock_release(&class->lock);
	return orphan;
}

bool tmem_arena_unshare(struct tmem_arena *arena, uint32_t handle)
{
	bool freed = tmem_arena_unshare_moved(arena, handle);

	tmem_arena_balance(arena);
	return freed;
}

/* The counts of a slot's span if others refer to the slot; else NULL. */
static struct tmem_shares *shares_locked(const struct tmem_arena *arena,
					 uint32_t handle)
{
	uint32_t nr = atomic_load_explicit(
		&tmem_arena_span(arena, handle)->shares, memory_order_relaxed);
	struct tmem_shares *shares;

	if (!nr)
		return NULL;
	shares = tmem_arena_shares_nr(arena, nr);
	return shares->nr[handle % TMEM_SPAN_SLOTS] ? shares : NULL;
}

bool tmem_arena_hold(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	struct tmem_shares *shares;

	tmem_lock_acquire(&class->lock);
	shares = shares_locked(arena, handle);
	if (shares)
		shares->nr[handle % TMEM_SPAN_SLOTS]++;
	tmem_lock_release(&class->lock);
	return shares != NULL;
}

bool tmem_arena_is_orphan(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	const struct tmem_shares *shares;
	bool orphan;

	tmem_lock_acquire(&class->lock);
	shares = shares_locked(arena, handle);
	orphan = shares && shares->orphans >> handle % TMEM_SPAN_SLOTS & 1;
	tmem_lock_release(&class->lock);
	return orphan;
}

void tmem_arena_set_moved(struct tmem_arena *arena, uint32_t from, uint32_t to)
{
	struct tmem_span *span = tmem_arena_span(arena, from);
	struct tmem_class *class = tmem_arena_class_of(arena, from);
	unsigned i = from % TMEM_SPAN_SLOTS;

	tmem_lock_acquire(&class->lock);
	TMEM_ASSERT(span->list == TMEM_SPAN_LEAVING && !(span->moved >> i & 1));
	span->links[i].next = to;
	span->moved |= 1ull << i;
	tmem_lock_release(&class->lock);
}

bool tmem_arena_has_moved(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	bool moved;

	tmem_lock_acquire(&class->lock);
	moved = follow_locked(arena, handle) != handle;
	tmem_lock_release(&class->lock);
	return moved;
}

uint32_t tmem_arena_forget_moved(struct tmem_arena *arena, uint32_t handle,
				 bool *ret_freed)
{
	struct tmem_span *span = tmem_arena_span(arena, handle);
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	unsigned i = handle % TMEM_SPAN_SLOTS;
	uint32_t to = 0;

	tmem_lock_acquire(&class->lock);
	TMEM_ASSERT(span->list == TMEM_SPAN_LEAVING);
	if (span->moved >> i & 1)
		to = span->links[i].next;
	span->moved &= ~(1ull << i);
	*ret_freed = span->free >> i & 1;
	tmem_lock_release(&class->lock);
	return to;
}
