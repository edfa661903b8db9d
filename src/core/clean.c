/* SPDX-License-Identifier: MIT */
/*
 * The cleaner: where few numbers of a tier are free, segments with little live
 * data (less than three quarters) are read whole, and what lives becomes part
 * of the batch, beside pages that go down for the first time.  Their places
 * change when that is written; then nothing lives in the old segment, and it is
 * dropped.
 *
 * A record says whose page it is: it lives if the page's slot still names it.
 * Slots that clones refer to stay, and their segment with them: it is not tried
 * again before something else has died in it.
 *
 * It runs only when there are pages to go down, so a store that is at rest has
 * a disk that is at rest.
 */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "object.h"
#include "tiering.h"

enum {
	FREE_PART = 8, /* of a tier's numbers: with fewer free ones it cleans */
	TRIES = 1024,  /* segments looked at to choose one */
	LIVE_QUARTERS = 3,
	MOST_VICTIMS = 8 /* for one batch */
};

#define READ_NS	  10000000000ull
#define FINISH_NS 1000000000ull

/* The segment with least live bytes that is worth it and fits; or NULL. */
static struct tmem_lot *choose(struct tmem_tiering *t, struct tmem_below *tier)
{
	uint32_t room = t->segment_bytes - t->batch.writer.at;
	uint32_t tries = tier->nr_lots < TRIES ? tier->nr_lots : TRIES;
	struct tmem_lot *best = NULL;
	uint32_t least = UINT32_MAX;

	while (tries-- > 0) {
		struct tmem_lot *lot;
		uint32_t live;

		tier->clean_hand = (tier->clean_hand + 1) % tier->nr_lots;
		lot = tmem_tiering_lot(tier, tier->clean_hand);
		/* It may be from a time when the limit was higher. */
		if (!lot || lot->state != TMEM_LOT_LIVE ||
		    lot->segment.bytes > t->segment_bytes)
			continue;
		live = lot->live_bytes;
		if (!live || live >= least || live > room ||
		    (lot->stuck_bytes && live >= lot->stuck_bytes) ||
		    live >= lot->segment.bytes / 4 * LIVE_QUARTERS)
			continue;
		least = live;
		best = lot;
	}
	return best;
}

static bool begin(struct tmem_tiering *t)
{
	struct tmem_below *tier = &t->tiers[t->batch.tier];
	struct tmem_victim *v = &t->victim;
	struct tmem_tier_request *one = &v->request;
	struct tmem_lot *lot;

	if (v->is_reading || t->batch.nr_victims == MOST_VICTIMS ||
	    tier->nr_lots - tier->nr_held >= 1 + tier->nr_lots / FREE_PART)
		return false;
	lot = choose(t, tier);
	if (!lot)
		return false;
	v->tier = t->batch.tier;
	v->segment = lot->segment;
	/* Until something more has died in it, once is enough. */
	lot->stuck_bytes = lot->live_bytes;
	v->request = (struct tmem_tier_request){
		.segment = lot->segment.number,
		.bytes = lot->segment.bytes,
		.buffer = v->buffer,
		.deadline_ns = tmem_sys_now_ns() + READ_NS,
	};
	v->is_reading = tier->ops->read(tier->self, &one, 1) == 1;
	return v->is_reading;
}

static bool is_record(const struct tmem_place *place,
		      const struct tmem_victim *v, uint32_t at,
		      const struct tmem_record_info *info)
{
	return place->tier == v->tier && place->segment == v->segment.number &&
	       place->segment_generation == v->segment.generation &&
	       place->offset == at && place->length == info->length &&
	       place->form == info->form &&
	       place->generation == info->generation;
}

/* The page's slot still names the record, and nobody else's does. */
static bool lives(struct tmem_store *store, const struct tmem_record_info *info,
		  uint32_t at, struct tmem_move *ret_move) TMEM_UNANALYSED
{
	struct tmem_key key =
		tmem_key_of(store, info->pool, &info->object, info->index);
	const struct tmem_slot *slot = NULL;
	struct tmem_place place;
	const uint32_t *entry;
	bool found = false;

	tmem_lock_acquire(&key.shard->lock);
	entry = tmem_object_find_page(store, &key);
	if (entry)
		slot = tmem_arena_slot(&store->arena, *entry);
	if (slot && tmem_slot_form(slot) == TMEM_FORM_TIER &&
	    tmem_arena_is_movable(&store->arena, *entry)) {
		memcpy(&place, slot->data, sizeof(place));
		found = is_record(&place, &store->tiering->victim, at, info);
		*ret_move = (struct tmem_move){
			.hash = key.hash,
			.slot_generation =
				slot->form_generation & ~TMEM_SLOT_MARKS,
			.shard = (uint8_t)(key.shard - store->shards),
		};
	}
	tmem_lock_release(&key.shard->lock);
	return found;
}

static void take_record(struct tmem_store *store, uint32_t at)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_victim *v = &t->victim;
	struct tmem_segment_range range = { v->buffer + at, at,
					    v->segment.end - at };
	struct tmem_record record;
	struct tmem_move move;

	if (tmem_segment_read(&v->segment, t->tiers[v->tier].seal, &range,
			      &record) < 0) {
		t->counts.read_errors++;
		return;
	}
	if (lives(store, &record.info, at, &move) &&
	    tmem_demote_add(t, &record.info, record.data, &move))
		t->batch.nr_cleaned++;
}

/* The victim is here, or can't be read. */
static void end(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_victim *v = &t->victim;
	uint32_t at = 0;

	if (v->request.result != 0) {
		/* What lives in it stays there; its loads will tell. */
		t->counts.read_errors += v->request.result != -ENODATA;
		return;
	}
	t->batch.nr_victims++;
	while ((at = tmem_segment_next(&v->segment, v->buffer, at)) != 0)
		take_record(store, at);
}

bool tmem_clean_some(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_victim *v = &t->victim;

	while (v->is_reading || begin(t)) {
		struct tmem_below *tier = &t->tiers[v->tier];
		bool mine = v->request.state != TMEM_TIER_HELD;

		if (!tmem_tier_is_answered(&v->request))
			tier->ops->poll(tier->self, &v->request, until_ns);
		if (!tmem_tier_is_answered(&v->request))
			return true;
		if (v->request.state == TMEM_TIER_HELD) {
			t->counts.read_errors += mine;
			tier->ops->poll(tier->self, NULL, 0);
			return false; /* the batch goes on without it */
		}
		v->is_reading = false;
		if (mine && v->tier == t->batch.tier)
			end(store);
	}
	return false;
}

void tmem_clean_finish(struct tmem_store *store)
{
	struct tmem_victim *v = &store->tiering->victim;

	while (v->is_reading && v->request.state != TMEM_TIER_DONE) {
		struct tmem_below *tier = &store->tiering->tiers[v->tier];

		tier->ops->poll(tier->self, NULL,
				tmem_sys_now_ns() + FINISH_NS);
	}
	v->is_reading = false;
}
