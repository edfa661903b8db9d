/* SPDX-License-Identifier: MIT */
/*
 * Scratch memory for compressing.  A thread (told by where its stack is)
 * takes the scratch that it had before, still warm in its CPU's cache, else
 * any that is free.  If all are busy one more is made, up to a number and
 * under the limit; else it waits.  Scratch 0 is there from the start.
 */
#include "page.h"

static bool is_ready(const struct tmem_scratch *scratch)
{
	return atomic_load_explicit(&scratch->ready, memory_order_acquire);
}

static uint64_t this_user(void)
{
	return (uintptr_t)__builtin_frame_address(0) >> 14;
}

static uint64_t user_of(const struct tmem_scratch *scratch)
{
	return atomic_load_explicit(&scratch->user, memory_order_relaxed);
}

static struct tmem_scratch *try_own(struct tmem_store *store) TMEM_UNANALYSED
{
	uint64_t user = this_user();
	unsigned i;

	for (i = 0; i < TMEM_MAX_SCRATCHES; i++) {
		struct tmem_scratch *scratch = &store->scratches[i];

		if (user_of(scratch) == user &&
		    tmem_lock_try_acquire(&scratch->lock))
			return scratch;
	}
	return NULL;
}

static struct tmem_scratch *try_any(struct tmem_store *store) TMEM_UNANALYSED
{
	unsigned i;

	for (i = 0; i < TMEM_MAX_SCRATCHES; i++) {
		struct tmem_scratch *scratch = &store->scratches[i];

		if (is_ready(scratch) && tmem_lock_try_acquire(&scratch->lock))
			return scratch;
	}
	return NULL;
}

/* The first that is not there yet, made. */
static struct tmem_scratch *try_new(struct tmem_store *store) TMEM_UNANALYSED
{
	unsigned i;

	for (i = 0; i < TMEM_MAX_SCRATCHES; i++) {
		struct tmem_scratch *scratch = &store->scratches[i];

		if (is_ready(scratch) || !tmem_lock_try_acquire(&scratch->lock))
			continue;
		if (is_ready(scratch) || tmem_scratch_make(store, scratch))
			return scratch;
		tmem_lock_release(&scratch->lock);
		return NULL;
	}
	return NULL;
}

bool tmem_scratch_make(struct tmem_store *store, struct tmem_scratch *scratch)
{
	TMEM_ASSERT(scratch && !scratch->memory);
	scratch->memory = tmem_meta_alloc(&store->meta, TMEM_SCRATCH_PAGES);
	if (!scratch->memory)
		return false;
	atomic_store_explicit(&scratch->ready, 1, memory_order_release);
	return true;
}

struct tmem_scratch *
tmem_scratch_acquire(struct tmem_store *store) TMEM_UNANALYSED
{
	struct tmem_scratch *scratch = try_own(store);

	if (scratch)
		return scratch;
	scratch = try_any(store);
	if (!scratch)
		scratch = try_new(store);
	if (!scratch) {
		scratch = &store->scratches[this_user() % TMEM_MAX_SCRATCHES];
		if (!is_ready(scratch))
			scratch = &store->scratches[0];
		tmem_lock_acquire(&scratch->lock);
	}
	atomic_store_explicit(&scratch->user, this_user(),
			      memory_order_relaxed);
	return scratch;
}

void tmem_scratch_release(struct tmem_scratch *scratch) TMEM_UNANALYSED
{
	tmem_lock_release(&scratch->lock);
}
