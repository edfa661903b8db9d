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
 *
 * DICTIONARIES.  If the pool has one for zstd (dicts.h) cold pages get that
 * form.  When a pool's dictionary has changed, a round of another kind goes
 * over the index first: pages in a form with a dictionary that is not their
 * pool's current one get the new form, whatever its size, so that the old one
 * can go; and the others get the pool's if that needs a smaller slot.  This
 * round neither marks pages nor asks whether they are cold.
 */
#include "cool.h"

#include <string.h>

#include "base/sys.h"
#include "dicts.h"
#include "object.h"
#include "unzip.h"

enum {
	MAX_CANDIDATES = TMEM_SEGMENT_BUCKETS * TMEM_BUCKET_ENTRIES,
	GAIN_SAMPLES = 32,
	GAIN_LEAST = 10, /* a tenth */
	RARELY = 16,
	KEEP_PART = 32,			     /* of the limit, at the most */
	SMALLEST_BYTES = 4 * TMEM_SLOT_GRAIN /* not worth the time below */
};

struct candidate {
	uint64_t hash;
	uint64_t form_generation;
	uint32_t handle;
	bool must; /* its dictionary is to go */
};

/* What recompression gained in a pool, of late. */
struct gain {
	uint32_t before;
	uint32_t after;
	uint32_t nr;
	uint32_t skipped;
};

/* While a round is on. */
struct room {
	unsigned form; /* of what is in `out` */
	unsigned nr_candidates;
	struct candidate candidates[MAX_CANDIDATES];
	_Alignas(64) char slot[TMEM_SLOT_MAX_BYTES];
	char page[TMEM_PAGE_SIZE];
	char out[TMEM_PAGE_SIZE];
	_Alignas(64) char zip[TMEM_ZSTD_COMPRESS_BYTES];
	_Alignas(64) char lz4[TMEM_LZ4_COMPRESS_BYTES];
};

struct tmem_cool {
	uint64_t round_ns; /* when it began */
	uint32_t shard;
	uint32_t pos;
	bool on;	/* in the middle of a round */
	bool migrating; /* it is for the dictionaries */
	struct room *room;
	struct gain gains[TMEM_MAX_POOLS];
};

#define COOL_PAGES ((unsigned)((sizeof(struct tmem_cool) + 4095) / 4096))
#define ROOM_PAGES ((unsigned)((sizeof(struct room) + 4095) / 4096))
_Static_assert(sizeof(struct room) <= TMEM_RUN_MAX_PAGES * 4096ul, "one run");

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

static void add_candidate(const struct visit *v, uint32_t ref,
			  const struct tmem_slot *slot, bool must)
{
	struct room *room = v->cool->room;

	room->candidates[room->nr_candidates++] = (struct candidate){
		.hash = tmem_slot_hash(v->store, slot),
		.form_generation = slot->form_generation,
		.handle = ref,
		.must = must,
	};
}

/* Marks a slot as cold, or finds that it has been since the last round. */
static void look_at_cold(const struct visit *v, uint32_t ref,
			 struct tmem_slot *slot)
{
	unsigned form = tmem_slot_form(slot);

	if ((form != TMEM_FORM_LZ4 && form != TMEM_FORM_RAW &&
	     form != TMEM_FORM_LZ4_DICT) ||
	    tmem_slot_bytes(slot->length) <= SMALLEST_BYTES ||
	    (slot->form_generation & TMEM_SLOT_TRIED))
		return;
	if (!(slot->form_generation & TMEM_SLOT_COLD))
		slot->form_generation |= TMEM_SLOT_COLD;
	else if (is_worth_trying(v->cool, tmem_slot_pool(slot)))
		add_candidate(v, ref, slot, false);
}

/* The use that makes a form what it is now, or could make it smaller. */
static unsigned use_of(unsigned form)
{
	return form == TMEM_FORM_ZSTD || form == TMEM_FORM_ZSTD_DICT
		       ? TMEM_DICT_ZSTD
		       : TMEM_DICT_LZ4;
}

/* Whether the pool's dictionary is not what the slot has. */
static void look_at_dict(const struct visit *v, uint32_t ref,
			 const struct tmem_slot *slot)
{
	uint32_t word =
		atomic_load(&v->store->pools[tmem_slot_pool(slot)].dict);
	uint32_t name = tmem_dicts_of_slot(slot);

	if (name && name != (word & 0xffff))
		add_candidate(v, ref, slot, true);
	else if (!name &&
		 (word >> TMEM_DICT_USES_SHIFT &
		  use_of(tmem_slot_form(slot))) &&
		 tmem_slot_bytes(slot->length) > SMALLEST_BYTES)
		add_candidate(v, ref, slot, false);
}

static void look_at(void *arg, uint32_t ref)
{
	const struct visit *v = arg;
	struct tmem_slot *slot;

	if (ref & TMEM_REF_OBJECT)
		return;
	slot = tmem_arena_slot(&v->store->arena, ref);
	if (!tmem_form_has_page(tmem_slot_form(slot)) ||
	    !tmem_arena_is_movable(&v->store->arena, ref))
		return;
	if (v->cool->migrating)
		look_at_dict(v, ref, slot);
	else
		look_at_cold(v, ref, slot);
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

/* Copies the candidate's slot; false if it is gone, in use or damaged. */
static bool copy(struct tmem_store *store, struct tmem_shard *shard,
		 struct candidate *c)
{
	const struct tmem_slot *slot;
	size_t bytes;
	bool found;

	tmem_lock_acquire(&shard->lock);
	found = find_locked(store, shard, c) &&
		tmem_arena_is_movable(&store->arena, c->handle);
	if (found) {
		slot = tmem_arena_slot(&store->arena, c->handle);
		bytes = sizeof(*slot) + slot->length;
		found = bytes <= tmem_arena_size_of(&store->arena, c->handle);
		if (found)
			memcpy(store->cool->room->slot, slot, bytes);
	}
	tmem_lock_release(&shard->lock);
	return found;
}

/* The page by that use's codec, with that dictionary if there is one. */
static unsigned compress_with(struct tmem_store *store, uint32_t name,
			      enum tmem_dict_uses use, unsigned capacity)
{
	const struct tmem_dict *dict = tmem_dicts_get(store, name);
	struct room *room = store->cool->room;
	const struct tmem_codec *codec;
	uint16_t prefix = (uint16_t)name;
	unsigned skip, n;

	if (dict && !(dict->uses & use))
		dict = NULL;
	skip = dict ? TMEM_DICT_NAME_BYTES : 0;
	if (use == TMEM_DICT_LZ4)
		codec = dict ? &tmem_codec_lz4_dict : &tmem_codec_lz4;
	else
		codec = dict ? &tmem_codec_zstd_dict : &tmem_codec_zstd;
	memcpy(room->out, &prefix, skip);
	n = codec->compress(use == TMEM_DICT_LZ4 ? room->lz4 : room->zip, dict,
			    room->page, room->out + skip, capacity - skip);
	room->form = codec->form;
	return n ? n + skip : 0;
}

/*
 * The new form's length; 0 if its slot is not smaller.  If the old one must go
 * it may be larger, and the page as it is.  Nobody but us frees dictionaries,
 * so none need be held.
 */
static unsigned compress(struct tmem_store *store, const struct candidate *c)
{
	struct tmem_cool *cool = store->cool;
	struct room *room = cool->room;
	const struct tmem_slot *slot = (const struct tmem_slot *)room->slot;
	uint32_t pool = tmem_slot_pool(slot), name;
	unsigned size = tmem_slot_bytes(slot->length), use;
	unsigned capacity = size - TMEM_SLOT_GRAIN - sizeof(*slot), n;

	if (tmem_unzip_slot(store, slot, size, room->page) < 0)
		return 0; /* damaged: the next load will say so */
	name = atomic_load(&store->pools[pool].dict) & 0xffff;
	use = cool->migrating ? use_of(tmem_slot_form(slot)) : TMEM_DICT_ZSTD;
	if (c->must)
		capacity = TMEM_PAGE_SIZE;
	n = compress_with(store, name, use, capacity);
	if (n || !c->must)
		return n;
	room->form = TMEM_FORM_RAW;
	return tmem_codec_raw.compress(NULL, NULL, room->page, room->out,
				       TMEM_PAGE_SIZE);
}

static void replace(struct tmem_store *store, struct tmem_shard *shard,
		    struct candidate *c, unsigned length)
{
	struct tmem_cool *cool = store->cool;
	const struct tmem_object_form new = { cool->room->form, length,
					      cool->room->out };
	uint32_t *entry;

	tmem_lock_acquire(&shard->lock);
	entry = find_locked(store, shard, c);
	if (entry && !tmem_arena_is_movable(&store->arena, c->handle))
		entry = NULL;
	if (entry && !length && !cool->migrating) {
		tmem_arena_slot(&store->arena, c->handle)->form_generation |=
			TMEM_SLOT_TRIED;
	} else if (entry && length &&
		   tmem_object_change_form(store, shard, entry, &new)) {
		shard->stats.cooled += !cool->migrating;
		shard->stats.reformed += cool->migrating;
	}
	tmem_lock_release(&shard->lock);
}

static void cool_down(struct tmem_store *store, struct tmem_shard *shard,
		      struct candidate *c)
{
	struct tmem_cool *cool = store->cool;
	const struct tmem_slot *slot =
		(const struct tmem_slot *)cool->room->slot;
	unsigned length;

	if (!copy(store, shard, c))
		return;
	length = compress(store, c);
	if (!cool->migrating)
		note_gain(cool, tmem_slot_pool(slot), slot->length,
			  length ? length : slot->length);
	replace(store, shard, c, length);
}

/* One segment.  False at the end of the round. */
static bool cool_segment(struct tmem_store *store)
{
	struct tmem_cool *cool = store->cool;
	struct tmem_shard *shard = &store->shards[cool->shard];
	struct room *room = cool->room;
	struct visit v = { store, cool };
	bool more, frozen;

	room->nr_candidates = 0;
	tmem_lock_acquire(&shard->lock);
	/* What a fork's child shares is not written to. */
	frozen = store->arena.frozen_before != 0;
	more = !frozen &&
	       tmem_index_visit(&shard->index, &cool->pos, look_at, &v);
	tmem_lock_release(&shard->lock);
	if (frozen) {
		store->cool_again |= cool->migrating; /* afterwards */
		return false;
	}
	while (room->nr_candidates)
		cool_down(store, shard,
			  &room->candidates[--room->nr_candidates]);
	if (more)
		return true;
	cool->pos = 0;
	return ++cool->shard < store->nr_shards;
}

/* What lasts.  (None is made while a fork is on.) */
static bool is_ready(struct tmem_store *store)
{
	if ((!store->cool_after_ns && !store->cool_again && !store->cool) ||
	    !tmem_lock_acquire_unless_closed(&store->control))
		return false;
	if (!store->cool)
		store->cool = tmem_meta_alloc(&store->meta, COOL_PAGES);
	tmem_lock_release(&store->control);
	return store->cool != NULL;
}

/* Memory for a round, a reader's too; not while a fork's child shares all. */
static bool make_room(struct tmem_store *store)
{
	struct tmem_cool *cool = store->cool;
	bool ready;

	if (!tmem_lock_acquire_unless_closed(&store->control))
		return false;
	ready = !store->arena.frozen_before;
	if (ready && !cool->room)
		cool->room = tmem_meta_alloc(&store->meta, ROOM_PAGES);
	/* Without cooling nothing becomes zstd. */
	ready = ready && cool->room &&
		(!store->cool_after_ns || tmem_unzip_make(store));
	tmem_lock_release(&store->control);
	return ready;
}

/* Near the limit, where rounds matter most, it would not be had again. */
static bool keeps_room(const struct tmem_store *store)
{
	return store->cool_after_ns &&
	       tmem_account_limit(&store->account) >=
		       (uint64_t)KEEP_PART * ROOM_PAGES * 4096;
}

/* A round is over: what it left half used goes back to the kernel. */
static void give_back(struct tmem_store *store)
{
	struct room *room = store->cool->room;

	if (!tmem_lock_acquire_unless_closed(&store->control))
		return; /* the next round will find it */
	if (!keeps_room(store)) {
		store->cool->room = NULL;
		tmem_meta_free(&store->meta, room, ROOM_PAGES);
	}
	tmem_arena_trim(&store->arena);
	tmem_meta_trim(&store->meta);
	tmem_lock_release(&store->control);
}

/* The child of a fork has what was in the making when it was copied. */
static void after_fork(struct tmem_store *store)
{
	struct tmem_cool *cool = store->cool;

	if (atomic_exchange(&store->quiet->cooling, 1))
		return;
	if (cool->room)
		memset(cool->room->zip, 0, sizeof(cool->room->zip));
	store->cool_again |= cool->on && cool->migrating;
	cool->on = false;
}

/* False if it is not yet time for one, or there is no memory. */
static bool begin_round(struct tmem_store *store)
{
	struct tmem_cool *cool = store->cool;
	uint64_t now = tmem_sys_now_ns();
	bool migrating = store->cool_again != 0;

	if (!migrating &&
	    (!store->cool_after_ns ||
	     (cool->round_ns && now - cool->round_ns < store->cool_after_ns)))
		return false;
	if (!make_room(store))
		return false;
	if (migrating) /* what was gained before says nothing any more */
		memset(cool->gains, 0, sizeof(cool->gains));
	else
		cool->round_ns = now;
	cool->migrating = migrating;
	if (migrating)
		store->cool_again = 0;
	cool->shard = cool->pos = 0;
	cool->on = true;
	return true;
}

bool tmem_cool_some(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_cool *cool;

	if (!is_ready(store))
		return false;
	cool = store->cool;
	after_fork(store);
	if (!cool->on && !begin_round(store))
		return false;
	do
		cool->on = cool_segment(store);
	while (cool->on && tmem_sys_now_ns() < until_ns);
	if (!cool->on)
		give_back(store);
	return cool->on;
}
