/* SPDX-License-Identifier: MIT */
/*
 * Cold pages get a smaller form.
 *
 * A round goes over the index, segment by segment, under the shard's lock, and
 * marks each slot as cold; whoever loads a page takes the mark off, a new page
 * has none.  Rounds are `cool_after_ns` apart: a page that still has its mark
 * in the next round was not touched in between, and is a candidate.
 *
 * A candidate is copied under the lock, decompressed and compressed with zstd
 * without it, and put in the place of the old one if it is still the same
 * (the generation tells) and needs a smaller slot.  It keeps its place in its
 * object's list and in the queues.  What gains nothing is marked as tried.
 * A slot that others refer to has no mark, as they read it without its lock.
 *
 * Where a pool gains little (less than a tenth over its last pages) only one
 * in sixteen of its pages is tried, to notice when that changes.
 */
#include "cool.h"

#include <string.h>

#include "base/sys.h"
#include "object.h"
#include "unzip.h"

enum {
	MAX_CANDIDATES = TMEM_SEGMENT_BUCKETS * TMEM_BUCKET_ENTRIES,
	GAIN_SAMPLES = 32,
	GAIN_LEAST = 10, /* a tenth */
	RARELY = 16,
	SMALLEST_BYTES = 4 * TMEM_SLOT_GRAIN /* not worth the time below */
};

struct candidate {
	uint64_t hash;
	uint64_t form_generation;
	uint32_t handle;
};

/* What recompression gained in a pool, of late. */
struct gain {
	uint32_t before;
	uint32_t after;
	uint32_t nr;
	uint32_t skipped;
};

struct tmem_cool {
	uint64_t round_ns; /* when it began */
	uint32_t shard;
	uint32_t pos;
	bool on; /* in the middle of a round */
	struct gain gains[TMEM_MAX_POOLS];
	unsigned nr_candidates;
	struct candidate candidates[MAX_CANDIDATES];
	_Alignas(64) char slot[TMEM_SLOT_MAX_BYTES];
	char page[TMEM_PAGE_SIZE];
	char out[TMEM_PAGE_SIZE];
	_Alignas(64) char zip[TMEM_ZSTD_COMPRESS_BYTES];
};

#define COOL_PAGES ((unsigned)((sizeof(struct tmem_cool) + 4095) / 4096))
_Static_assert(sizeof(struct tmem_cool) <= TMEM_RUN_MAX_PAGES * 4096ul,
	       "one run");

static bool is_worth_trying(struct tmem_cool *cool, uint32_t pool)
{
	struct gain *gain = &cool->gains[pool];

	if (gain->nr < GAIN_SAMPLES ||
	    (gain->before - gain->after) * GAIN_LEAST >= gain->before)
		return true;
	return ++gain->skipped % RARELY == 0;
}

static void note_gain(struct tmem_cool *cool, uint32_t pool, unsigned before,
		      unsigned after)
{
	struct gain *gain = &cool->gains[pool];

	gain->before += before;
	gain->after += after;
	if (++gain->nr < 2 * GAIN_SAMPLES)
		return;
	gain->before /= 2;
	gain->after /= 2;
	gain->nr /= 2;
}

struct visit {
	struct tmem_store *store;
	struct tmem_cool *cool;
};

/* Marks a slot as cold, or finds that it has been since the last round. */
static void look_at(void *arg, uint32_t ref)
{
	const struct visit *v = arg;
	struct tmem_cool *cool = v->cool;
	struct tmem_slot *slot;
	unsigned form;

	if (ref & TMEM_REF_OBJECT)
		return;
	slot = tmem_arena_slot(&v->store->arena, ref);
	form = tmem_slot_form(slot);
	if ((form != TMEM_FORM_LZ4 && form != TMEM_FORM_RAW) ||
	    tmem_slot_bytes(slot->length) <= SMALLEST_BYTES ||
	    (slot->form_generation & TMEM_SLOT_TRIED) ||
	    !tmem_arena_is_movable(&v->store->arena, ref))
		return;
	if (!(slot->form_generation & TMEM_SLOT_COLD)) {
		slot->form_generation |= TMEM_SLOT_COLD;
		return;
	}
	if (is_worth_trying(cool, tmem_slot_pool(slot)))
		cool->candidates[cool->nr_candidates++] = (struct candidate){
			.hash = tmem_slot_hash(v->store, slot),
			.form_generation = slot->form_generation,
			.handle = ref,
		};
}

static bool is_ref(void *arg, uint32_t ref)
{
	return ref == *(const uint32_t *)arg;
}

/* The candidate's index entry, if it is still what it was. */
static uint32_t *find_locked(struct tmem_store *store, struct tmem_shard *shard,
			     struct candidate *c) TMEM_REQUIRES(&shard->lock)
{
	uint32_t *entry =
		tmem_index_find(&shard->index, c->hash, is_ref, &c->handle);

	if (entry &&
	    tmem_arena_slot(&store->arena, c->handle)->form_generation !=
		    c->form_generation)
		entry = NULL;
	return entry;
}

/* Copies the candidate's slot; false if it is gone or in use by others. */
static bool copy(struct tmem_store *store, struct tmem_shard *shard,
		 struct candidate *c)
{
	const struct tmem_slot *slot;
	bool found;

	tmem_lock_acquire(&shard->lock);
	found = find_locked(store, shard, c) &&
		tmem_arena_is_movable(&store->arena, c->handle);
	if (found) {
		slot = tmem_arena_slot(&store->arena, c->handle);
		memcpy(store->cool->slot, slot, sizeof(*slot) + slot->length);
	}
	tmem_lock_release(&shard->lock);
	return found;
}

/* The new form's length, if its slot is smaller; else 0. */
static unsigned compress(struct tmem_cool *cool)
{
	const struct tmem_slot *slot = (const struct tmem_slot *)cool->slot;
	unsigned size = tmem_slot_bytes(slot->length);
	unsigned capacity = size - TMEM_SLOT_GRAIN - sizeof(*slot);

	if (!tmem_slot_is_whole(slot, size) ||
	    tmem_codec_of(tmem_slot_form(slot))
			    ->decompress(NULL, NULL, slot->data, slot->length,
					 cool->page) < 0)
		return 0; /* damaged: the next load will say so */
	return tmem_codec_zstd.compress(cool->zip, NULL, cool->page, cool->out,
					capacity);
}

static void replace(struct tmem_store *store, struct tmem_shard *shard,
		    struct candidate *c, unsigned length)
{
	struct tmem_object_form new = { TMEM_FORM_ZSTD, length,
					store->cool->out };
	uint32_t *entry;

	tmem_lock_acquire(&shard->lock);
	entry = find_locked(store, shard, c);
	if (entry && !tmem_arena_is_movable(&store->arena, c->handle))
		entry = NULL;
	if (entry && !length) {
		tmem_arena_slot(&store->arena, c->handle)->form_generation |=
			TMEM_SLOT_TRIED;
	} else if (entry &&
		   tmem_object_change_form(store, shard, entry, &new)) {
		shard->stats.cooled++;
	}
	tmem_lock_release(&shard->lock);
}

static void cool_down(struct tmem_store *store, struct tmem_shard *shard,
		      struct candidate *c)
{
	struct tmem_cool *cool = store->cool;
	const struct tmem_slot *slot = (const struct tmem_slot *)cool->slot;
	unsigned length;

	if (!copy(store, shard, c))
		return;
	length = compress(cool);
	note_gain(cool, tmem_slot_pool(slot), slot->length,
		  length ? length : slot->length);
	replace(store, shard, c, length);
}

/* One segment.  False at the end of the round. */
static bool cool_segment(struct tmem_store *store)
{
	struct tmem_cool *cool = store->cool;
	struct tmem_shard *shard = &store->shards[cool->shard];
	struct visit v = { store, cool };
	bool more, frozen;

	cool->nr_candidates = 0;
	tmem_lock_acquire(&shard->lock);
	/* What a fork's child shares is not written to. */
	frozen = store->arena.frozen_before != 0;
	more = !frozen &&
	       tmem_index_visit(&shard->index, &cool->pos, look_at, &v);
	tmem_lock_release(&shard->lock);
	if (frozen)
		return false;
	while (cool->nr_candidates)
		cool_down(store, shard,
			  &cool->candidates[--cool->nr_candidates]);
	if (more)
		return true;
	cool->pos = 0;
	return ++cool->shard < store->nr_shards;
}

/* Memory for it, a reader's too.  (None is made while a fork is on.) */
static bool is_ready(struct tmem_store *store)
{
	bool ready;

	if (!store->cool_after_ns ||
	    !tmem_lock_acquire_unless_closed(&store->control))
		return false;
	if (!store->cool)
		store->cool = tmem_meta_alloc(&store->meta, COOL_PAGES);
	ready = store->cool && tmem_unzip_make(store);
	tmem_lock_release(&store->control);
	return ready;
}

bool tmem_cool_some(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_cool *cool;
	uint64_t now = tmem_sys_now_ns();

	if (!is_ready(store))
		return false;
	cool = store->cool;
	if (!cool->on) {
		if (cool->round_ns &&
		    now - cool->round_ns < store->cool_after_ns)
			return false;
		cool->round_ns = now;
		cool->shard = cool->pos = 0;
		cool->on = true;
	}
	do
		cool->on = cool_segment(store);
	while (cool->on && tmem_sys_now_ns() < until_ns);
	return cool->on;
}
