/* SPDX-License-Identifier: MIT */
/*
 * Moving down: which pages, when, and how.  The model is in tiering.h.
 *
 * WHEN.  A *goal* is set when more is held than the high water, or when stores
 * were refused and more than the low water is held: as many bytes of slots as
 * are held above the low water.  Slots that went do not give their memory back
 * at once, compaction does; so the next goal is set only once that is done (or
 * the store is nearly full).  Without a goal nothing is written.
 *
 * WHICH.  A hand goes over the index and marks slots as cold, as cool.c does;
 * loads take the mark off.  In peace (more than half of the limit in use) a
 * round marks, every ten seconds or as often as pages are cooled.  With a goal
 * rounds follow each other: the first takes pages that have the mark and a form
 * that does not shrink any more (so they were cold before, for longer), the
 * next two any that are marked, and the last, if the store is full, all that is
 * left. What is not marked is, in passing: who is loaded between two rounds
 * stays.
 *
 * With each page go its cold neighbours, up to sixteen of an object in a row:
 * they are in the same shard, and whoever loads one may want the next.
 */
#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "dicts.h"
#include "object.h"
#include "tiering.h"

enum {
	/* Less than that is hardly more than what stays in memory. */
	SMALLEST_BYTES = 4 * TMEM_SLOT_GRAIN,
	NEIGHBOURS = TMEM_BLOCK_PAGES,
	/* What begins a segment and what alignment wastes, at most. */
	SLACK_BYTES = 640
};

#define MARK_NS	  10000000000ull
#define WRITE_NS  30000000000ull
#define FINISH_NS 1000000000ull

enum turn {
	TURN_NONE = 0,
	TURN_MARK,
	TURN_SMALL,
	TURN_COLD,
	TURN_COLD_AGAIN,
	TURN_ALL
};

/* cool.c has nothing more to gain from it. */
static bool is_small(const struct tmem_slot *slot)
{
	return tmem_slot_form(slot) == TMEM_FORM_ZSTD ||
	       tmem_slot_form(slot) == TMEM_FORM_ZSTD_DICT ||
	       (slot->form_generation & TMEM_SLOT_TRIED);
}

/* Neither form nor pool nor the turn say that it stays. */
static bool may_go(const struct tmem_store *store, const struct tmem_slot *slot,
		   unsigned turn)
{
	if (!tmem_form_has_page(tmem_slot_form(slot)) ||
	    tmem_slot_bytes(slot->length) <= SMALLEST_BYTES ||
	    tmem_pool_has(store, tmem_slot_pool(slot), TMEM_POOL_EPHEMERAL))
		return false;
	/* Marks of those that may yet be cooled are cool.c's. */
	return turn > TURN_SMALL || is_small(slot) || !store->cool_after_ns;
}

static uint64_t generation_of(const struct tmem_slot *slot)
{
	return slot->form_generation & ~TMEM_SLOT_MARKS;
}

static void look_at(void *arg, uint32_t ref)
{
	struct tmem_store *store = arg;
	struct tmem_tiering *t = store->tiering;
	struct tmem_slot *slot;

	if (ref & TMEM_REF_OBJECT)
		return;
	slot = tmem_arena_slot(&store->arena, ref);
	/* Loaded once since the last round: promote.c. */
	if (tmem_slot_form(slot) == TMEM_FORM_TIER &&
	    (slot->form_generation & TMEM_SLOT_TRIED) &&
	    tmem_arena_is_movable(&store->arena, ref))
		slot->form_generation &= ~TMEM_SLOT_TRIED;
	if (!may_go(store, slot, t->turn))
		return;
	if (!(slot->form_generation & TMEM_SLOT_COLD)) {
		/* Clones read what they refer to without this shard's lock. */
		if (!tmem_arena_is_movable(&store->arena, ref))
			return;
		slot->form_generation |= TMEM_SLOT_COLD;
		if (t->turn != TURN_ALL)
			return;
	}
	if (t->turn == TURN_MARK || (t->turn == TURN_SMALL && !is_small(slot)))
		return;
	t->candidates[t->nr_candidates++] = (struct tmem_candidate){
		.hash = tmem_slot_hash(store, slot),
		.slot_generation = generation_of(slot),
	};
}

struct wanted {
	const struct tmem_store *store;
	uint64_t slot_generation;
};

static bool is_wanted(void *arg, uint32_t ref)
{
	const struct wanted *w = arg;

	return !(ref & TMEM_REF_OBJECT) &&
	       generation_of(tmem_arena_slot(&w->store->arena, ref)) ==
		       w->slot_generation;
}

/* Generations are a shard's own: this one has no other slot. */
static uint32_t *find_locked(struct tmem_store *store, struct tmem_shard *shard,
			     uint64_t hash, uint64_t slot_generation)
	TMEM_REQUIRES(&shard->lock)
{
	struct wanted w = { store, slot_generation };

	return tmem_index_find(&shard->index, hash, is_wanted, &w);
}

/* Gathering */

static uint32_t room_of(const struct tmem_tiering *t)
{
	uint32_t used = t->batch.writer.at + SLACK_BYTES;

	if (t->batch.nr_moves == t->max_moves || used > t->segment_bytes)
		return 0;
	return t->segment_bytes - used;
}

uint32_t tmem_demote_add(struct tmem_tiering *t,
			 const struct tmem_record_info *info, const void *data,
			 const struct tmem_move *move)
{
	struct tmem_batch *b = &t->batch;
	struct tmem_move *m = &b->moves[b->nr_moves];
	uint32_t at;

	if (tmem_record_bytes(info->length) > room_of(t))
		return 0;
	at = tmem_segment_add(&b->writer, info, data);
	if (!at)
		return 0;
	*m = *move;
	m->offset = at;
	m->length = info->length;
	m->form = info->form;
	m->generation = info->generation;
	b->nr_moves++;
	return at;
}

/* Copies a slot that goes too; what it takes of the batch, 0: it stays. */
static uint32_t stage_locked(struct tmem_store *store,
			     const struct tmem_key *key, uint32_t room)
	TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_staged *s = &t->staged[t->nr_staged];
	const uint32_t *entry = tmem_object_find_page(store, key);
	struct tmem_slot *slot;
	uint32_t bytes;

	if (!entry)
		return 0;
	slot = tmem_arena_slot(&store->arena, *entry);
	if (!(slot->form_generation & TMEM_SLOT_COLD) ||
	    !may_go(store, slot, t->candidate_turn) ||
	    (t->candidate_turn == TURN_SMALL && !is_small(slot)) ||
	    !tmem_arena_is_movable(&store->arena, *entry))
		return 0;
	s->size = tmem_arena_size_of(&store->arena, *entry);
	bytes = tmem_record_bytes(slot->length) + TMEM_RECORD_ALIGN;
	if (sizeof(*slot) + slot->length > s->size || bytes > room)
		return 0;
	slot->form_generation &= ~TMEM_SLOT_COLD;
	memcpy(s->slot, slot, sizeof(*slot) + slot->length);
	s->hash = key->hash;
	t->nr_staged++;
	return bytes;
}

/* The candidate, if it is still what it was, and its neighbours. */
static void stage_block(struct tmem_store *store, struct tmem_shard *shard,
			const struct tmem_candidate *c) TMEM_UNANALYSED
{
	struct tmem_tiering *t = store->tiering;
	const struct tmem_object *object;
	const struct tmem_slot *slot;
	uint32_t i, room = room_of(t);
	const uint32_t *entry;

	t->nr_staged = 0;
	tmem_lock_acquire(&shard->lock);
	entry = find_locked(store, shard, c->hash, c->slot_generation);
	if (entry) {
		slot = tmem_arena_slot(&store->arena, *entry);
		object = tmem_object_nr(store, slot->object);
		t->staged_object = object->id;
		for (i = 0; i < NEIGHBOURS; i++) {
			struct tmem_key key = tmem_key_of(
				store, object->pool, &object->id,
				(slot->index & ~(NEIGHBOURS - 1u)) + i);

			key.shard = shard;
			room -= stage_locked(store, &key, room);
		}
	}
	tmem_lock_release(&shard->lock);
}

static void add_staged(struct tmem_store *store, struct tmem_shard *shard)
{
	struct tmem_tiering *t = store->tiering;
	unsigned i;

	for (i = 0; i < t->nr_staged; i++) {
		const struct tmem_staged *s = &t->staged[i];
		const struct tmem_slot *slot =
			(const struct tmem_slot *)s->slot;
		struct tmem_record_info info = {
			.object = t->staged_object,
			.generation =
				slot->form_generation & TMEM_GENERATION_MASK,
			.index = slot->index,
			.pool = (uint16_t)tmem_slot_pool(slot),
			.length = slot->length,
			.form = (uint8_t)tmem_slot_form(slot),
		};
		struct tmem_move move = {
			.hash = s->hash,
			.slot_generation = generation_of(slot),
			.shard = (uint8_t)(shard - store->shards),
		};

		/* A damaged one must not get a seal: its load will say so. */
		if (tmem_slot_is_whole(slot, s->size))
			tmem_demote_add(t, &info, slot->data, &move);
	}
}

static unsigned turn_after(struct tmem_store *store, unsigned turn)
{
	bool full = tmem_account_held(&store->account) >
		    tmem_tiering_water(store, TMEM_WATER_FULL);

	if (turn == TURN_MARK || turn == TURN_ALL ||
	    (turn == TURN_COLD_AGAIN && !full))
		return TURN_NONE;
	return turn + 1;
}

/* The next segment of the index; a new turn at its end. */
static void look_further(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_shard *shard = &store->shards[t->shard];
	bool more;

	t->nr_candidates = 0;
	t->candidate_turn = t->turn;
	t->candidate_shard = t->shard;
	tmem_lock_acquire(&shard->lock);
	more = tmem_index_visit(&shard->index, &t->pos, look_at, store);
	tmem_lock_release(&shard->lock);
	if (more)
		return;
	t->pos = 0;
	if (++t->shard < store->nr_shards)
		return;
	t->shard = 0;
	t->turn = turn_after(store, t->turn);
}

/* Ending a batch */

/* The page is below now: its slot, if it is still the same, says where. */
static void end_move(struct tmem_store *store, const struct tmem_move *m,
		     struct tmem_place *place)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_shard *shard = &store->shards[m->shard];
	const struct tmem_object_form below = { TMEM_FORM_TIER, sizeof(*place),
						place };
	const struct tmem_slot *slot;
	unsigned size;
	uint32_t *entry;
	bool was_below;

	place->offset = m->offset;
	place->length = m->length;
	place->form = m->form;
	place->generation = m->generation;
	tmem_lock_acquire(&shard->lock);
	entry = find_locked(store, shard, m->hash, m->slot_generation);
	if (entry && tmem_arena_is_movable(&store->arena, *entry)) {
		size = tmem_arena_size_of(&store->arena, *entry);
		slot = tmem_arena_slot(&store->arena, *entry);
		was_below = tmem_slot_form(slot) == TMEM_FORM_TIER;
		place->dict = (uint16_t)tmem_dicts_of_slot(slot);
		if (tmem_object_change_form(store, shard, entry, &below)) {
			shard->stats.tier_cleaned += was_below;
			shard->stats.tier_moved += !was_below;
			if (!was_below)
				shard->stats.tier_moved_bytes +=
					tmem_record_bytes(m->length);
			t->moved_bytes += size - tmem_arena_size_of(
							 &store->arena, *entry);
		}
	}
	tmem_lock_release(&shard->lock);
}

static void end_well(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_batch *b = &t->batch;
	struct tmem_below *tier = &t->tiers[b->tier];
	struct tmem_lot *lot = tmem_tiering_lot(tier, b->number);
	struct tmem_place place = {
		.segment = b->number,
		.segment_generation = b->segment.generation,
		.tier = (uint8_t)b->tier,
	};
	uint32_t i;

	memcpy(place.salt, b->segment.salt, sizeof(place.salt));
	lot->segment = b->segment;
	lot->stuck_bytes = 0;
	lot->state = TMEM_LOT_LIVE;
	tier->backoff_ns = 0;
	t->counts.written_bytes += b->segment.bytes;
	tmem_tiering_open_reserve(store);
	for (i = 0; i < b->nr_moves; i++)
		end_move(store, &b->moves[i], &place);
	tmem_tiering_close_reserve(store);
	if (!atomic_load(&lot->live_bytes))
		atomic_store(&tier->emptied, 1);
	b->state = TMEM_BATCH_NONE;
}

/* No such segment: what was to go down stays. */
static void end_badly(struct tmem_tiering *t)
{
	struct tmem_below *tier = &t->tiers[t->batch.tier];

	tmem_tiering_lot(tier, t->batch.number)->state = TMEM_LOT_FREE;
	tier->nr_held--;
	t->counts.segments--;
	t->batch.state = TMEM_BATCH_NONE;
}

/* The write's answer, if it is there by then.  True: the batch is free. */
static bool await_write(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_batch *b = &t->batch;
	struct tmem_below *tier = &t->tiers[b->tier];

	if (b->state == TMEM_BATCH_SEALED &&
	    tier->ops->write(tier->self, &b->request) == 1)
		b->state = TMEM_BATCH_WRITING;
	if (b->state == TMEM_BATCH_NONE || b->state == TMEM_BATCH_OPEN)
		return true;
	if (!tmem_tier_is_answered(&b->request))
		tier->ops->poll(tier->self, &b->request, until_ns);
	if (b->state == TMEM_BATCH_SEALED ||
	    !tmem_tier_is_answered(&b->request))
		return false;
	if (b->state == TMEM_BATCH_WRITING && b->request.result != 0)
		tmem_tiering_failed(t, tier, b->request.result);
	if (b->request.state == TMEM_TIER_HELD) {
		b->state = TMEM_BATCH_HELD;
		/* Nobody waits for it but polls. */
		tier->ops->poll(tier->self, NULL, until_ns);
		return false;
	}
	if (b->state == TMEM_BATCH_WRITING && b->request.result == 0)
		end_well(store);
	else
		end_badly(t);
	return true;
}

static void seal_batch(struct tmem_tiering *t)
{
	struct tmem_batch *b = &t->batch;

	tmem_segment_end(&b->writer, &b->segment);
	b->request = (struct tmem_tier_request){
		.segment = b->number,
		.bytes = b->segment.bytes,
		.buffer = b->buffer,
		.deadline_ns = tmem_sys_now_ns() + WRITE_NS,
	};
	b->state = TMEM_BATCH_SEALED;
}

/* Not worth a write: what is left of a lone victim, moved, saves nothing. */
static bool is_idle(const struct tmem_batch *b)
{
	return b->nr_moves == b->nr_cleaned && b->nr_victims < 2;
}

void tmem_demote_finish(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;

	if (t->batch.state == TMEM_BATCH_OPEN)
		end_badly(t);
	while (!await_write(store, tmem_sys_now_ns() + FINISH_NS))
		if (t->batch.state == TMEM_BATCH_HELD)
			tmem_sys_pause();
}

/* The goal */

static uint64_t count_refused(struct tmem_store *store)
{
	uint64_t nr = 0;
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++) {
		struct tmem_shard *shard = &store->shards[i];

		tmem_lock_acquire(&shard->lock);
		nr += shard->stats.refused_full + shard->stats.refused_limit;
		tmem_lock_release(&shard->lock);
	}
	return nr;
}

static void begin_turns(struct tmem_tiering *t, unsigned turn)
{
	t->turn = turn;
	t->shard = t->pos = t->nr_candidates = 0;
}

static bool needs_goal(struct tmem_store *store, uint64_t held, uint64_t now)
{
	struct tmem_tiering *t = store->tiering;
	uint64_t refused = count_refused(store);
	bool lately = refused != t->refused;

	if (now < t->rest_ns)
		return false;
	t->refused = refused;
	return held > tmem_tiering_water(store, TMEM_WATER_HIGH) ||
	       (lately && held > tmem_tiering_water(store, TMEM_WATER_LOW));
}

/* A goal, if there is need of one and none is set; else a round of marking. */
static void set_goal(struct tmem_store *store, bool settled)
{
	struct tmem_tiering *t = store->tiering;
	uint64_t held = tmem_account_held(&store->account);
	uint64_t now = tmem_sys_now_ns(), mark_ns = MARK_NS;

	if (t->goal_bytes)
		return;
	if (store->cool_after_ns > mark_ns)
		mark_ns = store->cool_after_ns;
	if (settled && needs_goal(store, held, now)) {
		t->goal_bytes =
			held - tmem_tiering_water(store, TMEM_WATER_LOW);
		t->moved_bytes = 0;
		begin_turns(t, store->cool_after_ns ? TURN_SMALL : TURN_COLD);
	} else if (t->turn == TURN_NONE && now - t->mark_ns >= mark_ns &&
		   held > tmem_account_limit(&store->account) / 2) {
		t->mark_ns = now;
		begin_turns(t, TURN_MARK);
	}
}

/* Nothing more to take, or enough was taken. */
static void end_goal(struct tmem_tiering *t)
{
	if (t->moved_bytes < t->goal_bytes / 8)
		t->rest_ns = tmem_sys_now_ns() + t->rest_step_ns;
	t->goal_bytes = 0;
	begin_turns(t, TURN_NONE);
}

/* Fills the batch; false: its time is over. */
static bool fill_batch(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_shard *shard;

	if (tmem_clean_some(store, until_ns))
		return false;
	while (room_of(t) > TMEM_SLOT_MAX_BYTES + TMEM_RECORD_HEADER_BYTES) {
		if (t->nr_candidates) {
			shard = &store->shards[t->candidate_shard];
			stage_block(store, shard,
				    &t->candidates[--t->nr_candidates]);
			add_staged(store, shard);
		} else if (t->turn == TURN_NONE) {
			break;
		} else {
			look_further(store);
		}
		if (tmem_sys_now_ns() >= until_ns)
			return false;
	}
	return true;
}

static bool mark_some(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_tiering *t = store->tiering;

	while (t->turn == TURN_MARK) {
		look_further(store);
		if (tmem_sys_now_ns() >= until_ns)
			break;
	}
	return t->turn == TURN_MARK;
}

/* One batch, from where it is.  False: no more of them now. */
static bool batch_some(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_tiering *t = store->tiering;

	if (t->batch.state == TMEM_BATCH_NONE && !tmem_tiering_begin(store)) {
		end_goal(t);
		return false;
	}
	if (!fill_batch(store, until_ns))
		return true;
	if (is_idle(&t->batch))
		end_badly(t);
	else
		seal_batch(t);
	if (t->turn == TURN_NONE && t->batch.state == TMEM_BATCH_NONE) {
		end_goal(t);
		return false;
	}
	return true;
}

bool tmem_demote_some(struct tmem_store *store, uint64_t until_ns, bool settled)
{
	struct tmem_tiering *t = store->tiering;
	bool more = true;

	do {
		if (!await_write(store, until_ns))
			return t->batch.state != TMEM_BATCH_HELD;
		if (t->batch.state == TMEM_BATCH_NONE && t->goal_bytes &&
		    t->moved_bytes >= t->goal_bytes)
			end_goal(t);
		set_goal(store, settled);
		settled =
			false; /* what goes now, compaction first gives back */
		more = t->goal_bytes ? batch_some(store, until_ns)
				     : mark_some(store, until_ns);
	} while (more && tmem_sys_now_ns() < until_ns);
	return more;
}
