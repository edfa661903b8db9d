/* SPDX-License-Identifier: MIT */
/*
 * Compaction of spans with shared slots: clones' and equal pages'.
 *
 * A slot does not know who refers to it.  But a reference may name any slot
 * that has the data, so nothing needs to change at once:
 *
 *   1. GATHER.  Many sparse spans leave, batch by batch.  Slots that nobody
 *      refers to move as ever.  Of a shared one a copy is made in a ready slot;
 *      its owner, if it has one, has the copy from then on, and the slot
 *      itself, now an orphan, is noted as moved (arena/sharing.c).  A pin keeps
 *      the copy.
 *   2. FOLLOW.  One walk over the index turns each reference to such a slot to
 *      the copy.  What loses its last reference is free.  References that are
 *      made meanwhile, in parts already walked too, get the copy at once.
 *   3. FORGET.  The pins go, and the copies that nobody wanted with them.
 *   4. SETTLE.  The spans go.  Those with slots that somebody had in hand all
 *      the time (a snapshot) are listed again.
 *
 * So loads know nothing of it: what they find is whole and stays so for as
 * long as somebody refers to it.  A page that is not shared costs the walk its
 * index entry and its span's class, as references are small.
 *
 * The walk is for all spans together, and begins only where what it is for is
 * 1/32 of all data pages.  Meanwhile copies take the room of ready slots, so
 * that only as many are made as half of what is left of the limit, or 1/64 of
 * the data.  If most of the copies were in vain there is no other sweep until
 * there are so many more holes.
 *
 * During a fork (spans are frozen then) a sweep rests; parent and child both
 * go on with it afterwards.
 */
#include "compact.h"

#include <string.h>

#include "object.h"

enum {
	COPY_PART = 64,
	/* Data pages for which there is room for one span's number. */
	PAGES_PER_SPAN = 8,
	/* Above these a slot that has no room in its class is not put. */
	REF_CLASS_MAX = 1 + TMEM_CLASSES_UP,
	MOST_FOUND = TMEM_SEGMENT_BUCKETS * TMEM_BUCKET_ENTRIES,
	/* More than a part has, but for chance; only a stack's worth. */
	MOST_PLACES = 256
};

#define WALKED UINT32_MAX

/* What is read of the pages in a part of the index. */
enum depth {
	ENTRIES = 0, /* their handles */
	CLASSES,     /* those of their spans */
	SLOTS,	     /* of small ones */
	TARGETS	     /* of references */
};

/* Pages of a part of the index. */
struct found {
	unsigned nr;
	unsigned nr_places;
	uint32_t handles[MOST_FOUND];
	uint64_t hashes[MOST_FOUND];
	const void *places[MOST_PLACES]; /* what the next look reads */
};

static uint64_t touched_pages(const struct tmem_store *store)
{
	return atomic_load_explicit(&store->arena.nr_touched,
				    memory_order_relaxed);
}

static uint32_t room_of(const struct tmem_sweep *sweep)
{
	return sweep->nr_pages ? sweep->nr_pages * (4096 / sizeof(uint32_t))
			       : TMEM_SWEEP_FEW;
}

static void begin(struct tmem_store *store)
{
	struct tmem_sweep *sweep = &store->sweep;
	uint64_t held = tmem_account_held(&store->account);
	uint64_t limit = tmem_account_limit(&store->account);
	uint64_t pages = touched_pages(store);
	uint64_t bytes = pages / PAGES_PER_SPAN * sizeof(uint32_t);
	uint32_t nr_pages = (uint32_t)(bytes / 4096) + 1;

	if (nr_pages > TMEM_RUN_MAX_PAGES)
		nr_pages = TMEM_RUN_MAX_PAGES;
	sweep->spans = tmem_meta_alloc(&store->meta, nr_pages);
	sweep->nr_pages = sweep->spans ? nr_pages : 0;
	if (!sweep->spans)
		sweep->spans = sweep->few;
	sweep->nr = sweep->at = 0;
	memset(sweep->pos, 0, sizeof(sweep->pos));
	sweep->copied_bytes = 0;
	sweep->freed_bytes = 0;
	sweep->may_copy_bytes = pages * 4096 / COPY_PART;
	if (limit > held && (limit - held) / 2 > sweep->may_copy_bytes)
		sweep->may_copy_bytes = (limit - held) / 2;
	sweep->stage = TMEM_SWEEP_GATHER;
}

static void end(struct tmem_store *store)
{
	struct tmem_sweep *sweep = &store->sweep;
	bool in_vain = !sweep->copied_bytes ||
		       sweep->freed_bytes < sweep->copied_bytes / 2;

	if (sweep->nr_pages)
		tmem_meta_free(&store->meta, sweep->spans, sweep->nr_pages);
	sweep->spans = NULL;
	sweep->nr_pages = 0;
	sweep->left_bytes =
		in_vain ? tmem_arena_excess_bytes(&store->arena) : 0;
	sweep->stage = TMEM_SWEEP_NONE;
}

static bool is_worth_it(struct tmem_store *store)
{
	struct tmem_sweep *sweep = &store->sweep;
	uint64_t excess = tmem_arena_excess_bytes(&store->arena);

	if (sweep->left_bytes > excess)
		sweep->left_bytes = excess;
	return excess > sweep->left_bytes +
				touched_pages(store) * 4096 / sweep->worth_part;
}

/* A batch of spans; false: that was all. */
static bool gather(struct tmem_store *store) TMEM_REQUIRES(&store->control)
{
	struct tmem_sweep *sweep = &store->sweep;
	uint32_t *spans = sweep->spans + sweep->nr;
	unsigned nr, moved;

	if (room_of(sweep) - sweep->nr < TMEM_LEAVING_MAX ||
	    sweep->copied_bytes >= sweep->may_copy_bytes)
		return false;
	nr = tmem_compact_choose(store, spans, true);
	if (!nr)
		return false;
	moved = tmem_compact_move(store, spans, nr, &sweep->copied_bytes);
	sweep->nr += tmem_arena_settle(&store->arena, spans, nr);
	return moved != 0;
}

static void note_entry(void *arg, uint32_t ref)
{
	struct found *found = arg;

	if (!(ref & TMEM_REF_OBJECT))
		found->handles[found->nr++] = ref;
}

static void note(struct found *found, const void *p)
{
	if (found->nr_places < MOST_PLACES)
		found->places[found->nr_places++] = p;
}

static void note_classes(const struct tmem_arena *arena, struct found *found)
{
	unsigned i;

	for (i = 0; i < found->nr; i++)
		note(found, &tmem_arena_span(arena, found->handles[i])->class);
}

/* Of all pages found, those in slots that a reference may have. */
static void keep_small(const struct tmem_arena *arena, struct found *found)
{
	unsigned i, nr = 0;

	for (i = 0; i < found->nr; i++) {
		uint32_t handle = found->handles[i];

		if (tmem_arena_span(arena, handle)->class <= REF_CLASS_MAX)
			found->handles[nr++] = handle;
	}
	found->nr = nr;
}

static void note_slots(const struct tmem_arena *arena, struct found *found)
{
	unsigned i;

	for (i = 0; i < found->nr; i++)
		note(found, tmem_arena_slot(arena, found->handles[i]));
}

static uint32_t target_of(const struct tmem_arena *arena, uint32_t handle)
{
	uint32_t target;

	memcpy(&target, tmem_arena_slot(arena, handle)->data, sizeof(target));
	return target;
}

/* Of these, the references; damaged ones lead anywhere, and are left alone. */
static void keep_references(const struct tmem_arena *arena, struct found *found)
{
	unsigned i, nr = 0;

	for (i = 0; i < found->nr; i++) {
		uint32_t handle = found->handles[i];

		if (tmem_slot_form(tmem_arena_slot(arena, handle)) ==
			    TMEM_FORM_REF &&
		    tmem_arena_is_whole(arena, handle))
			found->handles[nr++] = handle;
	}
	found->nr = nr;
}

static void note_targets(const struct tmem_arena *arena, struct found *found)
{
	unsigned i;

	for (i = 0; i < found->nr; i++) {
		uint32_t target = target_of(arena, found->handles[i]);
		const struct tmem_span *span = tmem_arena_span(arena, target);

		note(found, &span->moved);
		note(found, &span->list);
		note(found, &span->links[target % TMEM_SPAN_SLOTS]);
	}
}

/* And of these, those whose data has moved, and where the index has them. */
static void keep_moved(struct tmem_store *store, struct found *found)
{
	struct tmem_arena *arena = &store->arena;
	unsigned i, nr = 0;

	for (i = 0; i < found->nr; i++) {
		uint32_t handle = found->handles[i];

		if (!tmem_arena_has_moved(arena, target_of(arena, handle)))
			continue;
		found->hashes[nr] =
			tmem_slot_hash(store, tmem_arena_slot(arena, handle));
		found->handles[nr++] = handle;
	}
	found->nr = nr;
}

/*
 * Looks at a part of one shard's index, `depth` steps deep, and asks for the
 * memory that the next look reads: not before the lock is released, as that
 * would wait for it.
 */
static bool look(struct tmem_store *store, struct tmem_shard *shard,
		 uint32_t *pos, enum depth depth, struct found *found)
{
	const struct tmem_arena *arena = &store->arena;
	unsigned i;
	bool more;

	found->nr = found->nr_places = 0;
	tmem_lock_acquire(&shard->lock);
	more = tmem_index_visit_part(&shard->index, pos, TMEM_SEGMENT_PARTS_MAX,
				     note_entry, found);
	if (depth == ENTRIES)
		note_classes(arena, found);
	if (depth >= CLASSES)
		keep_small(arena, found);
	if (depth == CLASSES)
		note_slots(arena, found);
	if (depth >= SLOTS)
		keep_references(arena, found);
	if (depth == SLOTS)
		note_targets(arena, found);
	if (depth == TARGETS)
		keep_moved(store, found);
	tmem_lock_release(&shard->lock);
	for (i = 0; i < found->nr_places; i++)
		__builtin_prefetch(found->places[i]);
	return more;
}

/*
 * A part of one shard's index; false: that was the last.  In a large store all
 * that is read is a miss, so the same is looked at again and again, deeper each
 * time, and the memory comes while nobody waits for the shard: who does waits
 * for hits, or for one reference.
 */
static bool follow_part(struct tmem_store *store, struct tmem_shard *shard,
			uint32_t *pos)
{
	uint32_t start = *pos;
	struct found found;
	enum depth depth;
	bool more = false;
	unsigned i;

	for (depth = ENTRIES; depth <= TARGETS; depth++) {
		*pos = start;
		more = look(store, shard, pos, depth, &found);
	}
	for (i = 0; i < found.nr; i++) {
		tmem_lock_acquire(&shard->lock);
		shard->stats.redirected += tmem_object_redirect(
			store, shard, found.hashes[i], found.handles[i]);
		tmem_lock_release(&shard->lock);
	}
	return more;
}

/* The spans of the next batch; how many. */
static unsigned next_batch(struct tmem_sweep *sweep, uint32_t **ret_spans)
{
	unsigned nr = sweep->nr - sweep->at;

	if (nr > TMEM_LEAVING_MAX)
		nr = TMEM_LEAVING_MAX;
	*ret_spans = sweep->spans + sweep->at;
	sweep->at += nr;
	return nr;
}

/*
 * Gives idle pages of some spans back, in one call, before there are so many
 * that whoever frees a slot would have to, run by run.
 */
static void give_back(struct tmem_store *store)
{
	struct tmem_sweep *sweep = &store->sweep;
	uint64_t idle = atomic_load_explicit(&store->arena.nr_idle,
					     memory_order_relaxed);
	uint32_t *spans;
	unsigned nr;

	if (idle <=
	    TMEM_IDLE_PAGES / 2 + touched_pages(store) / TMEM_IDLE_FRACTION / 2)
		return;
	if (sweep->at == sweep->nr)
		sweep->at = 0;
	nr = next_batch(sweep, &spans);
	/* All have slots that moved, and go on leaving. */
	tmem_arena_settle(&store->arena, spans, nr);
}

/*
 * A part of each shard's index, in turn: who waits for a shard gets it before
 * it is locked again.  False: those were the last.
 */
static bool follow(struct tmem_store *store)
{
	struct tmem_sweep *sweep = &store->sweep;
	bool more = false;
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++) {
		if (sweep->pos[i] == WALKED)
			continue;
		if (follow_part(store, &store->shards[i], &sweep->pos[i]))
			more = true;
		else
			sweep->pos[i] = WALKED;
	}
	give_back(store);
	return more;
}

static void forget_span(struct tmem_store *store, uint32_t span)
{
	struct tmem_shard *shard =
		&store->shards[span & (store->nr_shards - 1)];
	unsigned i;

	for (i = 0; i < TMEM_SPAN_SLOTS; i++) {
		uint32_t handle = span * TMEM_SPAN_SLOTS + i, to;
		bool freed;

		to = tmem_arena_forget_moved(&store->arena, handle, &freed);
		if (!to)
			continue;
		if (freed)
			store->sweep.freed_bytes +=
				tmem_arena_size_of(&store->arena, handle);
		tmem_lock_acquire(&shard->lock);
		tmem_object_unshare_moved(store, shard, to);
		tmem_lock_release(&shard->lock);
		atomic_fetch_sub_explicit(&store->nr_pinned, 1,
					  memory_order_relaxed);
	}
}

/* False: all is forgotten. */
static bool forget(struct tmem_store *store)
{
	uint32_t *spans;
	unsigned nr = next_batch(&store->sweep, &spans), i;

	for (i = 0; i < nr; i++)
		forget_span(store, spans[i]);
	return store->sweep.at < store->sweep.nr;
}

/* False: all spans are settled. */
static bool settle(struct tmem_store *store)
{
	struct tmem_sweep *sweep = &store->sweep;
	uint32_t *spans;
	unsigned nr = next_batch(sweep, &spans);

	tmem_arena_settle(&store->arena, spans, nr);
	return sweep->at < sweep->nr;
}

static void step(struct tmem_store *store) TMEM_REQUIRES(&store->control)
{
	struct tmem_sweep *sweep = &store->sweep;

	switch (sweep->stage) {
	case TMEM_SWEEP_GATHER:
		if (!gather(store))
			sweep->stage = sweep->nr ? TMEM_SWEEP_FOLLOW
						 : TMEM_SWEEP_SETTLE;
		break;
	case TMEM_SWEEP_FOLLOW:
		if (!follow(store)) {
			sweep->at = 0;
			sweep->stage = TMEM_SWEEP_FORGET;
		}
		break;
	case TMEM_SWEEP_FORGET:
		if (!forget(store)) {
			sweep->at = 0;
			sweep->stage = TMEM_SWEEP_SETTLE;
		}
		break;
	default:
		if (!settle(store))
			end(store);
		break;
	}
}

bool tmem_sweep_some(struct tmem_store *store)
{
	/* What a fork's child shares is not written to. */
	if (store->arena.frozen_before)
		return false;
	if (!tmem_sweep_is_on(store)) {
		if (!is_worth_it(store))
			return false;
		begin(store);
	}
	step(store);
	return true;
}

void tmem_sweep_fini(struct tmem_store *store)
{
	struct tmem_sweep *sweep = &store->sweep;

	if (!tmem_sweep_is_on(store) || sweep->stage == TMEM_SWEEP_SETTLE)
		return;
	if (sweep->stage != TMEM_SWEEP_FORGET)
		sweep->at = 0;
	while (forget(store))
		;
}
