/* SPDX-License-Identifier: MIT */
/*
 * Prefetching in steps; the model is in near.h.
 *
 * A step notes its places under the locks and prefetches them when all locks
 * are released: an atomic operation waits for what is before it.
 */
#include "near.h"

#include "object.h"

enum {
	LINE = 64,
	/* Of a slot; the CPU itself goes on from there. */
	LOAD_LINES = 12,
	STORE_LINES = 4,
	MAX_PLACES = TMEM_BUCKET_ENTRIES * LOAD_LINES
};

struct places {
	const void *at[MAX_PLACES];
	unsigned nr;
};

uint64_t tmem_near_from_bytes = 8 << 20;

static void note(struct places *places, const void *p)
{
	places->at[places->nr++] = p;
}

/* Forgets them. */
static void prefetch(struct places *places)
{
	unsigned i;

	for (i = 0; i < places->nr; i++)
		__builtin_prefetch(places->at[i]);
	places->nr = 0;
}

static void note_span(struct places *places, const struct tmem_arena *arena,
		      uint32_t handle)
{
	const struct tmem_span *span = tmem_arena_span(arena, handle);

	note(places, span);
	note(places, &span->class);
	note(places, &span->links[handle % TMEM_SPAN_SLOTS]);
}

/* The lines at the start of a slot: all of it, if it is short. */
static void note_slot(struct places *places, const struct tmem_arena *arena,
		      uint32_t handle, unsigned lines)
{
	const char *slot = (const char *)tmem_arena_slot(arena, handle);
	unsigned size = tmem_arena_size_of(arena, handle), i;

	for (i = 0; i < lines && i * LINE < size; i++)
		note(places, slot + (size_t)i * LINE);
}

/* The page's neighbours on its object's list: it leaves from between them. */
static void note_links(struct places *places, const struct tmem_arena *arena,
		       uint32_t handle)
{
	const struct tmem_link *link = tmem_arena_link(arena, handle);

	note(places, tmem_arena_link(arena, link->next));
	note(places, tmem_arena_link(arena, link->prev));
}

/* A slot that may be the page's, as far as the index can tell; or 0. */
static uint32_t guess_locked(const struct tmem_key *key)
	TMEM_REQUIRES(&key->shard->lock)
{
	uint32_t ref = tmem_index_guess(&key->shard->index, key->hash);

	return ref & TMEM_REF_OBJECT ? 0 : ref;
}

static void note_bucket(struct places *places, const struct tmem_key *key)
{
	if (!tmem_lock_try_acquire(&key->shard->lock))
		return;
	note(places, tmem_index_home(&key->shard->index, key->hash));
	tmem_lock_release(&key->shard->lock);
}

static void note_guessed_span(struct places *places,
			      const struct tmem_arena *arena,
			      const struct tmem_key *key)
{
	uint32_t handle;

	if (!tmem_lock_try_acquire(&key->shard->lock))
		return;
	handle = guess_locked(key);
	if (handle)
		note_span(places, arena, handle);
	tmem_lock_release(&key->shard->lock);
}

static void note_guessed_slot(struct places *places,
			      const struct tmem_arena *arena,
			      const struct tmem_key *key,
			      enum tmem_near_for what)
{
	uint32_t handle;

	if (!tmem_lock_try_acquire(&key->shard->lock))
		return;
	handle = guess_locked(key);
	if (handle && what == TMEM_NEAR_LOAD)
		note_slot(places, arena, handle, LOAD_LINES);
	else if (handle && what == TMEM_NEAR_STORE)
		note_slot(places, arena, handle, STORE_LINES);
	else if (handle)
		note_slot(places, arena, handle, 1);
	if (handle && what != TMEM_NEAR_LOAD)
		note_links(places, arena, handle);
	tmem_lock_release(&key->shard->lock);
}

void tmem_near_pages(struct tmem_store *store, uint32_t pool,
		     const struct tmem_io *io, unsigned nr,
		     enum tmem_near_for what)
{
	struct tmem_key keys[TMEM_NEAR_GROUP];
	struct places places;
	unsigned i;

	places.nr = 0;
	for (i = 0; i < nr; i++)
		keys[i] = tmem_key_of(store, pool, &io[i].object, io[i].index);
	for (i = 0; i < nr; i++)
		note_bucket(&places, &keys[i]);
	prefetch(&places);
	for (i = 0; i < nr; i++)
		note_guessed_span(&places, &store->arena, &keys[i]);
	prefetch(&places);
	for (i = 0; i < nr; i++)
		note_guessed_slot(&places, &store->arena, &keys[i], what);
	prefetch(&places);
}

void tmem_near_hashes(void *store, const uint32_t *refs, unsigned nr,
		      uint64_t *ret_hashes)
{
	const struct tmem_arena *arena = &((struct tmem_store *)store)->arena;
	struct places places;
	unsigned i;

	places.nr = 0;
	for (i = 0; i < nr; i++)
		if (!(refs[i] & TMEM_REF_OBJECT))
			note_span(&places, arena, refs[i]);
	prefetch(&places);
	for (i = 0; i < nr; i++)
		if (!(refs[i] & TMEM_REF_OBJECT))
			note_slot(&places, arena, refs[i], 1);
	prefetch(&places);
	for (i = 0; i < nr; i++)
		ret_hashes[i] = tmem_object_ref_hash(store, refs[i]);
}
