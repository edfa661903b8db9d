/* SPDX-License-Identifier: MIT */
/* Walks the store's invariants C1-C9, D1-D4 and U1, and those of its parts. */
#include <string.h>

#include <tmem/store.h>

#include "dedup.h"
#include "dicts.h"
#include "durable.h"
#include "learn.h"
#include "object.h"
#include "queue.h"
#include "tiering.h"
#include "unzip.h"

struct walk {
	struct tmem_store *store;
	struct tmem_shard *shard;
	uint64_t pages;			 /* index entries of slots */
	uint64_t objects;		 /* index entries of objects */
	uint64_t bytes[TMEM_MAX_POOLS];	 /* slots of a pool */
	uint64_t queued[TMEM_MAX_POOLS]; /* pages of an ephemeral pool */
	uint32_t dicts[TMEM_MAX_DICTS];	 /* slots that name one */
	struct tmem_stats count;
};

/* C4: a reference names a slot in use that has data. */
static void check_reference(struct walk *w, const struct tmem_slot *slot)
{
	const struct tmem_slot *data;
	uint32_t target;

	memcpy(&target, slot->data, sizeof(target));
	data = tmem_arena_slot(&w->store->arena, target);
	TMEM_INVARIANT("C4",
		       !(tmem_arena_span(&w->store->arena, target)->free >>
				 target % TMEM_SPAN_SLOTS &
			 1));
	TMEM_INVARIANT("C4", tmem_arena_is_whole(&w->store->arena, target));
	TMEM_INVARIANT("C4", tmem_slot_form(data) == TMEM_FORM_LZ4 ||
				     tmem_slot_form(data) == TMEM_FORM_RAW ||
				     tmem_slot_form(data) == TMEM_FORM_ZSTD ||
				     tmem_slot_form(data) == TMEM_FORM_TIER ||
				     tmem_form_has_dict(tmem_slot_form(data)));
}

static uint64_t check_page(struct walk *w, uint32_t handle) TMEM_UNANALYSED
{
	struct tmem_store *store = w->store;
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	const struct tmem_object *object;
	struct tmem_key key;
	uint32_t *entry;

	TMEM_INVARIANT("C1", tmem_arena_is_whole(&store->arena, handle));
	object = tmem_object_nr(store, slot->object);
	TMEM_INVARIANT("C1", tmem_slot_pool(slot) == object->pool);
	key = tmem_key_of(store, object->pool, &object->id, slot->index);
	TMEM_INVARIANT("C1", key.shard == w->shard);
	TMEM_INVARIANT("C1", &store->shards[tmem_slot_shard(slot)] == w->shard);
	TMEM_INVARIANT("C1", key.object_hash == object->hash);
	entry = tmem_object_find_page(store, &key);
	TMEM_INVARIANT("C1", entry && *entry == handle);
	w->pages++;
	w->bytes[tmem_slot_pool(slot)] +=
		tmem_arena_size_of(&store->arena, handle);
	w->queued[tmem_slot_pool(slot)] +=
		tmem_pool_has(store, tmem_slot_pool(slot), TMEM_POOL_EPHEMERAL);
	w->count.same_pages += tmem_slot_form(slot) == TMEM_FORM_SAME;
	w->count.lz4_pages += tmem_slot_form(slot) == TMEM_FORM_LZ4;
	w->count.raw_pages += tmem_slot_form(slot) == TMEM_FORM_RAW;
	w->count.zstd_pages += tmem_slot_form(slot) == TMEM_FORM_ZSTD;
	w->count.tier_pages += tmem_slot_form(slot) == TMEM_FORM_TIER;
	w->count.lz4_dict_pages += tmem_slot_form(slot) == TMEM_FORM_LZ4_DICT;
	w->count.zstd_dict_pages += tmem_slot_form(slot) == TMEM_FORM_ZSTD_DICT;
	if (tmem_slot_form(slot) == TMEM_FORM_REF) {
		w->count.ref_pages++;
		check_reference(w, slot);
	}
	return key.hash;
}

static uint64_t check_entry(void *arg, uint32_t ref) TMEM_UNANALYSED
{
	struct walk *w = arg;
	const struct tmem_object *object;
	uint32_t nr = ref & ~TMEM_REF_OBJECT;

	if (!(ref & TMEM_REF_OBJECT))
		return check_page(w, ref);
	object = tmem_object_nr(w->store, nr);
	TMEM_INVARIANT("C2", tmem_object_find(w->store, w->shard, object->pool,
					      &object->id) == nr);
	TMEM_INVARIANT("C7", atomic_load(&w->store->pools[object->pool].id));
	w->objects++;
	return tmem_hash_word(object->hash);
}

static void check_object(struct walk *w, uint32_t nr)
{
	const struct tmem_object *object = tmem_object_nr(w->store, nr);
	const struct tmem_arena *arena = &w->store->arena;
	uint32_t handle = object->head, pages = 0;

	TMEM_INVARIANT("C2", handle);
	do {
		const struct tmem_link *link = tmem_arena_link(arena, handle);

		TMEM_INVARIANT("C2",
			       tmem_arena_slot(arena, handle)->object == nr);
		TMEM_INVARIANT("C2", tmem_arena_link(arena, link->next)->prev ==
					     handle);
		TMEM_INVARIANT("C2", ++pages <= object->nr_pages);
		handle = link->next;
	} while (handle != object->head);
	TMEM_INVARIANT("C2", pages == object->nr_pages);
	w->count.pages += pages;
	w->count.objects++;
}

static uint64_t check_list(struct walk *w, const struct tmem_shard *shard,
			   unsigned list)
{
	uint32_t nr, prev = 0;
	uint64_t n = 0;

	for (nr = shard->objects[list]; nr;
	     nr = tmem_object_nr(w->store, nr)->next) {
		const struct tmem_object *object = tmem_object_nr(w->store, nr);

		TMEM_INVARIANT("C2", object->prev == prev);
		TMEM_INVARIANT("C2", object->pool % TMEM_OBJECT_LISTS == list);
		check_object(w, nr);
		n++;
		prev = nr;
	}
	return n;
}

static void check_shard(struct walk *w, struct tmem_shard *shard)
{
	uint64_t objects = w->objects;
	unsigned i;

	w->shard = shard;
	tmem_index_check(&shard->index, check_entry, w);
	for (i = 0; i < TMEM_OBJECT_LISTS; i++)
		objects += check_list(w, shard, i);
	TMEM_INVARIANT("C2", objects == w->objects);
}

/* D1: what a slot names is there. */
static void count_dict(struct walk *w, const struct tmem_slot *slot)
{
	uint32_t name = tmem_dicts_of_slot(slot);

	if (!name)
		return;
	TMEM_INVARIANT("D1", tmem_dicts_get(w->store, name));
	w->dicts[tmem_dict_place(name)]++;
}

/* Bytes of slots in use, orphans too. */
static void count_span(void *arg, uint32_t nr, void *record)
{
	struct walk *w = arg;
	const struct tmem_span *span = record;
	unsigned i;

	for (i = 0; i < (span->class > 64 ? 63u : 64u); i++) {
		const struct tmem_slot *slot;

		if (span->free >> i & 1)
			continue;
		slot = tmem_arena_slot(&w->store->arena,
				       nr * TMEM_SPAN_SLOTS + i);
		if (tmem_durable_is(slot))
			continue;
		w->count.slot_bytes += span->class * (uint64_t)TMEM_SLOT_GRAIN;
		if (tmem_slot_form(slot) != TMEM_FORM_REF)
			w->count.stored_bytes += slot->length;
		if (tmem_slot_form(slot) == TMEM_FORM_TIER)
			w->count.tier_bytes +=
				tmem_tiering_walk(w->store, slot->data);
		count_dict(w, slot);
	}
}

static void check_sums(struct walk *w)
{
	struct tmem_store *store = w->store;
	uint64_t slots, orphans, shares;
	struct tmem_stats sum = { 0 };
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++) {
		const struct tmem_stats *s = &store->shards[i].stats;

		sum.pages += s->pages;
		sum.same_pages += s->same_pages;
		sum.lz4_pages += s->lz4_pages;
		sum.raw_pages += s->raw_pages;
		sum.zstd_pages += s->zstd_pages;
		sum.tier_pages += s->tier_pages;
		sum.tier_bytes += s->tier_bytes;
		sum.lz4_dict_pages += s->lz4_dict_pages;
		sum.zstd_dict_pages += s->zstd_dict_pages;
		sum.ref_pages += s->ref_pages;
		sum.objects += s->objects;
		sum.slot_bytes += s->slot_bytes;
		sum.stored_bytes += s->stored_bytes;
	}
	tmem_arena_check(&store->arena, &slots, &orphans, &shares);
	TMEM_INVARIANT("C3",
		       slots == w->pages + orphans + tmem_durable_check(store));
	TMEM_INVARIANT("C4", shares == w->count.ref_pages +
					       atomic_load(&store->nr_pinned));
	tmem_records_for_each(&store->arena.spans, count_span, w);
	tmem_dicts_check(store, w->dicts);
	TMEM_INVARIANT("C6", w->pages == w->count.pages);
	TMEM_INVARIANT("C6", !memcmp(&sum, &w->count, sizeof(sum)));
}

/* Q1, Q2: what a queue holds is the pool's, in that shard, marked so. */
static uint64_t check_queue(struct tmem_store *store, uint32_t pool,
			    const struct tmem_shard *shard, unsigned kind)
{
	const struct tmem_queue *q = tmem_queue_of(store, pool, shard);
	uint32_t handle = q->head[kind], nr = 0;

	if (!handle)
		return 0;
	do {
		const struct tmem_ages *ages =
			tmem_arena_ages(&store->arena, handle);
		const struct tmem_slot *slot =
			tmem_arena_slot(&store->arena, handle);
		unsigned i = handle % TMEM_SPAN_SLOTS;

		TMEM_INVARIANT("Q1", tmem_slot_pool(slot) == pool);
		TMEM_INVARIANT("Q1", (atomic_load(&ages->main) >> i & 1) ==
					     (kind == TMEM_QUEUE_MAIN));
		TMEM_INVARIANT(
			"Q1",
			tmem_arena_ages(&store->arena, ages->links[i].next)
					->links[ages->links[i].next %
						TMEM_SPAN_SLOTS]
					.prev == handle);
		TMEM_INVARIANT("Q2", ++nr <= tmem_queue_nr(q, kind));
		handle = ages->links[i].next;
	} while (handle != q->head[kind]);
	TMEM_INVARIANT("Q2", nr == tmem_queue_nr(q, kind));
	return nr;
}

static void check_pools(const struct walk *w)
{
	struct tmem_store *store = w->store;
	uint64_t all = 0;
	uint32_t pool, i;
	unsigned kind;

	for (pool = 0; pool < TMEM_MAX_POOLS; pool++) {
		uint64_t nr = 0;

		if (!tmem_pool_has(store, pool, TMEM_POOL_EPHEMERAL))
			continue;
		for (kind = 0; kind < TMEM_NR_QUEUES; kind++) {
			uint64_t sum = 0;

			for (i = 0; i < store->nr_shards; i++)
				sum += check_queue(store, pool,
						   &store->shards[i], kind);
			TMEM_INVARIANT(
				"Q2", sum == tmem_queues_nr(&store->pools[pool],
							    kind));
			nr += sum;
		}
		TMEM_INVARIANT("C8", nr == w->queued[pool]);
		TMEM_INVARIANT("C8",
			       w->bytes[pool] ==
				       atomic_load(&store->pools[pool].bytes));
		all += nr;
	}
	TMEM_INVARIANT("C8", all == atomic_load(&store->ephemeral_pages));
}

static void add_bytes(void *arg, void *start, size_t bytes)
{
	(void)start;
	*(uint64_t *)arg += bytes;
}

static void check_held(struct tmem_store *store)
{
	uint64_t bytes = store->fixed_bytes;

	tmem_meta_check(&store->meta);
	bytes += tmem_meta_bytes(&store->meta);
	bytes += atomic_load(&store->arena.nr_touched) * 4096;
	bytes += store->arena.pages.nr_chunks *
		 tmem_pages_head_bytes(&store->arena.pages);
	tmem_unzip_for_each(store, add_bytes, &bytes);
	bytes += tmem_tiering_bytes(store);
	tmem_learn_for_each(store, add_bytes, &bytes);
	TMEM_INVARIANT("C5", bytes == tmem_account_held(&store->account));
}

void tmem_store_check(struct tmem_store *store) TMEM_UNANALYSED
{
	struct walk w = { .store = store };
	uint32_t i;

	tmem_lock_acquire(&store->control);
	/* Scratches too: one may be in the making. */
	tmem_lock_acquire(&store->scratches[0].lock);
	for (i = 1; i < TMEM_MAX_SCRATCHES; i++)
		tmem_lock_acquire_also(&store->scratches[i].lock);
	tmem_shards_acquire(store);

	for (i = 0; i < store->nr_shards; i++)
		check_shard(&w, &store->shards[i]);
	tmem_records_check(&store->objects);
	check_sums(&w);
	tmem_tiering_check(store);
	check_pools(&w);
	check_held(store);
	tmem_dedup_check(store);

	tmem_shards_release(store);
	for (i = TMEM_MAX_SCRATCHES; i-- > 1;)
		tmem_lock_release_also(&store->scratches[i].lock);
	tmem_lock_release(&store->scratches[0].lock);
	tmem_lock_release(&store->control);
}
