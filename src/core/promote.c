/* SPDX-License-Identifier: MIT */
/*
 * Loads of pages that are in a tier.
 *
 * CLUSTERS.  One read brings up to 32 KiB, the range around the record at a
 * multiple of 24: its neighbours in the segment were neighbours in their
 * object, and the next load may find them in memory.  Segments are written
 * once, so what was read stays true for as long as the segment's generation is
 * the same.  Where that gains nothing (ranges that serve one load only) records
 * are read alone, and one in sixteen with its range, to notice when that
 * changes.
 *
 * BACK.  Below the low water a page that was loaded comes back at once; between
 * low and high at its second load within a round of the hand (the first leaves
 * a mark in its slot), so that what reads everything once turns nothing over.
 * Above, nothing comes back: the hand has to make room first.
 */
#include "promote.h"

#include <errno.h>
#include <string.h>

#include "dicts.h"
#include "object.h"
#include "pool.h"
#include "tiering.h"

enum {
	TAIL_BYTES = 8 << 10, /* of a cluster: for a record that juts out */
	GAIN_MAX = 8,
	RARELY = 16
};

/* A load on its way. */
struct trip {
	struct tmem_tier_segment segment;
	struct tmem_place place;
	uint64_t slot_generation; /* of the slot with the place */
	struct tmem_slot *slot;	  /* the answer, and */
	uint32_t *dict;		  /* what is held for it */
	_Alignas(8) char bytes[TMEM_RECORD_HEADER_BYTES + TMEM_PAGE_SIZE];
	struct tmem_record record;
};

/* The slot with the page's data, its own or the one it refers to. */
static const struct tmem_slot *data_locked(struct tmem_store *store,
					   const uint32_t *entry)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, *entry);
	uint32_t target;

	if (tmem_slot_form(slot) != TMEM_FORM_REF)
		return slot;
	if (!tmem_arena_is_whole(&store->arena, *entry))
		return NULL;
	memcpy(&target, slot->data, sizeof(target));
	return tmem_arena_slot(&store->arena, target);
}

/* The dictionary of what was copied, instead of the one held before. */
static void hold_locked(struct tmem_store *store, const struct trip *trip)
{
	uint32_t name = tmem_dicts_of_slot(trip->slot);

	if (name == *trip->dict)
		return;
	if (name)
		tmem_dicts_hold(store, name);
	if (*trip->dict)
		tmem_dicts_release(store, *trip->dict);
	*trip->dict = name;
}

/*
 * Where it is now: 0 with the trip filled in, or 1 with the slot (it has come
 * back), TMEM_MISS as -ENOENT, -EIO.
 */
static int look_locked(const struct tmem_client *client, tmem_pool_id id,
		       const struct tmem_key *key, struct trip *trip)
	TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = client->store;
	const struct tmem_tier_segment *segment;
	const struct tmem_slot *slot;
	const uint32_t *entry = NULL;
	size_t bytes;

	if (tmem_pool_of(client, id))
		entry = tmem_object_find_page(store, key);
	if (!entry)
		return -ENOENT;
	slot = data_locked(store, entry);
	if (!slot)
		return -EIO;
	bytes = sizeof(*slot) + slot->length;
	if (bytes > TMEM_SLOT_MAX_BYTES)
		return -EIO;
	memcpy(trip->slot, slot, bytes);
	hold_locked(store, trip);
	if (tmem_slot_form(slot) != TMEM_FORM_TIER)
		return 1;
	/* What it says leads to other memory. */
	if (!tmem_slot_is_whole(trip->slot, TMEM_SLOT_MAX_BYTES))
		return -EIO;
	trip->slot_generation = slot->form_generation & ~TMEM_SLOT_MARKS;
	memcpy(&trip->place, slot->data, sizeof(trip->place));
	segment = tmem_tiering_segment(store, &trip->place);
	if (!segment)
		return -EIO;
	trip->segment = *segment;
	return 0;
}

/* Reading */

static int read_alone(struct tmem_below *tier, struct trip *trip)
{
	struct tmem_tier_request q = {
		.segment = trip->place.segment,
		.offset = trip->place.offset,
		.bytes = tmem_record_bytes(trip->place.length),
		.buffer = trip->bytes,
	};

	return tmem_tiering_read(tier, &q);
}

static bool has_range(const struct tmem_cluster *c, const struct trip *trip)
{
	uint32_t end =
		trip->place.offset + tmem_record_bytes(trip->place.length);

	return c->generation && c->tier == trip->place.tier &&
	       c->segment == trip->place.segment &&
	       c->generation == trip->place.segment_generation &&
	       trip->place.offset >= c->offset && end <= c->offset + c->bytes;
}

/* What the cluster had served, before it is another. */
static void note_gain(struct tmem_tiering *t, const struct tmem_cluster *c)
{
	int32_t gain = t->cluster_gain;

	if (!c->generation)
		return;
	if (c->hits && gain < GAIN_MAX)
		t->cluster_gain = gain + 1;
	else if (!c->hits && gain > -GAIN_MAX)
		t->cluster_gain = gain - 1;
}

static int fill_cluster(struct tmem_store *store, struct tmem_cluster *c,
			const struct trip *trip, uint32_t offset)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_tier_request q = {
		.segment = trip->place.segment,
		.offset = offset,
		.bytes = t->cluster_bytes,
		.buffer = c->data,
	};
	int r;

	note_gain(t, c);
	c->generation = 0;
	if (q.bytes > trip->segment.bytes - offset)
		q.bytes = trip->segment.bytes - offset;
	r = tmem_tiering_read(&t->tiers[trip->place.tier], &q);
	if (r < 0)
		return r;
	c->tier = trip->place.tier;
	c->segment = trip->place.segment;
	c->generation = trip->place.segment_generation;
	c->offset = offset;
	c->bytes = q.bytes;
	c->hits = 0;
	return 0;
}

/* Copies the record out of a cluster that has it; -EAGAIN: it is not for it. */
static int read_in_cluster(struct tmem_store *store, struct trip *trip)
{
	struct tmem_tiering *t = store->tiering;
	uint32_t window = t->cluster_bytes - TAIL_BYTES;
	uint32_t nr = trip->place.offset / window;
	struct tmem_cluster *c;
	int r = 0;

	c = &t->clusters[tmem_hash_word((uint64_t)trip->place.segment << 32 |
					nr) %
			 TMEM_MAX_CLUSTERS];
	/* Nobody waits for another's I/O. */
	if (!tmem_lock_try_acquire(&c->lock))
		return -EAGAIN;
	if (has_range(c, trip)) {
		c->hits++;
		t->counts.cluster_hits++;
	} else if (t->cluster_gain < 0 && ++t->cluster_turn % RARELY) {
		r = -EAGAIN;
	} else {
		r = fill_cluster(store, c, trip, nr * window);
	}
	if (r == 0 && !has_range(c, trip))
		r = -EAGAIN;
	if (r == 0)
		memcpy(trip->bytes, c->data + (trip->place.offset - c->offset),
		       tmem_record_bytes(trip->place.length));
	tmem_lock_release(&c->lock);
	return r;
}

/* What is in trip->bytes is the record that the place names. */
static int open_record(const struct tmem_below *tier, struct trip *trip)
{
	const struct tmem_record_info *info = &trip->record.info;
	struct tmem_segment_range range = { trip->bytes, trip->place.offset,
					    tmem_record_bytes(
						    trip->place.length) };
	int r = tmem_segment_read(&trip->segment, tier->seal, &range,
				  &trip->record);

	if (r == 0 && (info->generation != trip->place.generation ||
		       info->form != trip->place.form ||
		       info->length != trip->place.length))
		r = -EIO;
	return r;
}

/* A bad block in a neighbour, or a bad copy, is not this page's affair. */
static int read_record(struct tmem_store *store, struct trip *trip)
{
	struct tmem_below *tier = &store->tiering->tiers[trip->place.tier];
	int r = read_in_cluster(store, trip);

	if (r == 0)
		r = open_record(tier, trip);
	if (r == 0)
		return 0;
	r = read_alone(tier, trip);
	return r == 0 ? open_record(tier, trip) : r;
}

/* The slot as it was before: its header is what the place's slot has. */
static void make_slot(const struct trip *trip)
{
	struct tmem_slot *slot = trip->slot;

	slot->length = trip->place.length;
	slot->form_generation = (uint64_t)trip->place.form
					<< TMEM_SLOT_FORM_SHIFT |
				trip->place.generation;
	memcpy(slot->data, trip->record.data, trip->place.length);
	tmem_slot_seal(slot);
}

/* Back */

/* True if it is to come back now; else the first load leaves a mark. */
static bool wants_back(struct tmem_store *store, uint32_t handle,
		       unsigned length)
{
	uint64_t held =
		tmem_account_held(&store->account) + tmem_slot_bytes(length);
	struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);

	if (held <= tmem_tiering_water(store, TMEM_WATER_LOW))
		return true;
	if (slot->form_generation & TMEM_SLOT_TRIED)
		return held <= tmem_tiering_water(store, TMEM_WATER_HIGH);
	if (tmem_arena_is_movable(&store->arena, handle))
		slot->form_generation |= TMEM_SLOT_TRIED;
	return false;
}

/* Still the same slot; a clone's refers to it still. */
static bool is_same_locked(const struct tmem_client *client, tmem_pool_id id,
			   const struct tmem_key *key, const struct trip *trip)
	TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = client->store;
	const struct tmem_slot *slot = NULL;
	const uint32_t *entry = NULL;
	struct tmem_place place;

	if (tmem_pool_of(client, id))
		entry = tmem_object_find_page(store, key);
	if (entry)
		slot = data_locked(store, entry);
	if (!slot ||
	    (slot->form_generation & ~TMEM_SLOT_MARKS) != trip->slot_generation)
		return false;
	memcpy(&place, slot->data, sizeof(place));
	return memcmp(&place, &trip->place, sizeof(place)) == 0;
}

static void bring_back(const struct tmem_client *client, tmem_pool_id id,
		       const struct tmem_key *key, const struct trip *trip)
{
	struct tmem_store *store = client->store;
	struct tmem_shard *shard = key->shard;
	unsigned length = trip->place.length;
	const struct tmem_object_form above = { trip->place.form, length,
						trip->record.data };
	uint32_t *entry;

	tmem_lock_acquire(&key->shard->lock);
	/* What a fork's child shares is not written to. */
	if (!store->arena.frozen_before &&
	    is_same_locked(client, id, key, trip)) {
		entry = tmem_object_find_page(store, key);
		if (wants_back(store, *entry, length) &&
		    tmem_object_change_form(store, key->shard, entry, &above))
			shard->stats.tier_promoted++;
	}
	tmem_lock_release(&key->shard->lock);
}

static int promote_once(const struct tmem_client *client, tmem_pool_id id,
			const struct tmem_key *key, struct trip *trip)
{
	struct tmem_tiering_counts *counts = &client->store->tiering->counts;
	bool same;
	int r;

	tmem_lock_acquire(&key->shard->lock);
	r = look_locked(client, id, key, trip);
	key->shard->stats.load_damaged += r == -EIO;
	tmem_lock_release(&key->shard->lock);
	if (r != 0)
		return r == 1 ? 0 : r;
	r = read_record(client->store, trip);
	if (r == 0) {
		counts->reads++;
		make_slot(trip);
		bring_back(client, id, key, trip);
		return 0;
	}
	tmem_lock_acquire(&key->shard->lock);
	same = is_same_locked(client, id, key, trip);
	tmem_lock_release(&key->shard->lock);
	if (!same)
		return -EAGAIN; /* the segment was dropped under us */
	counts->read_errors++;
	return -EIO;
}

int tmem_promote(const struct tmem_client *client, tmem_pool_id id,
		 const struct tmem_key *key, struct tmem_slot *ret_slot,
		 uint32_t *dict)
{
	struct tmem_tiering *t = client->store->tiering;
	struct trip trip;
	int r;

	if (!t) { /* recovered without a tier */
		tmem_lock_acquire(&key->shard->lock);
		key->shard->stats.load_damaged++;
		tmem_lock_release(&key->shard->lock);
		return -EIO;
	}
	trip.slot = ret_slot;
	trip.dict = dict;
	do {
		tmem_tiering_enter(t);
		r = promote_once(client, id, key, &trip);
		tmem_tiering_leave(t);
	} while (r == -EAGAIN);
	return r == -ENOENT ? TMEM_MISS : r;
}

int tmem_promote_pinned(struct tmem_store *store, const struct tmem_slot *slot,
			struct tmem_slot *ret_slot)
{
	struct tmem_tiering *t = store->tiering;
	const struct tmem_tier_segment *segment;
	struct trip trip;
	int r;

	memcpy(ret_slot, slot, sizeof(*slot));
	memcpy(&trip.place, slot->data, sizeof(trip.place));
	/* It lives as long as a slot says that a page is there. */
	segment = tmem_tiering_segment(store, &trip.place);
	if (!segment)
		return -EIO;
	trip.slot = ret_slot;
	trip.segment = *segment;
	tmem_tiering_enter(t);
	r = read_record(store, &trip);
	if (r == 0)
		make_slot(&trip);
	tmem_tiering_leave(t);
	return r == 0 ? 0 : -EIO;
}
