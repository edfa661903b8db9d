/* SPDX-License-Identifier: MIT */
/*
 * Writing a snapshot.  The instant, and what keeps pages for us that change
 * after it, are in core/saving.h.
 *
 * A shard's index is walked an eighth of a segment at a time: under the lock
 * the names of the pages there are noted.  After eight of them these are sorted
 * by object, so that each is named once, and the pages are copied, some at a
 * time, again under the lock, and checked and written without it.  Then the
 * logs of pages that were kept for us are emptied.
 *
 * What is in a tier is read from there, in the form that it has.  The slot of
 * a page with a dictionary is pinned until that was written, before the first
 * page that has it; then the dictionary is held to the end, so that its name
 * remains its own.
 *
 * Everything that it works with is in one mapping of its own.
 */
#include <errno.h>
#include <string.h>

#include "arena/map.h"
#include "base/seal.h"
#include "codecs/codec.h"
#include "core/client.h"
#include "core/dicts.h"
#include "core/object.h"
#include "core/pool.h"
#include "core/promote.h"
#include "snapshot.h"

enum {
	BATCH = 8 /* pages copied under one hold of a lock */
};

/* A slot, copied. */
struct copied {
	_Alignas(64) char bytes[TMEM_SLOT_MAX_BYTES];
	unsigned size;	 /* of the slot */
	uint32_t pinned; /* 0: it says all by itself */
	const struct tmem_saving_name *name;
};

struct saver {
	struct tmem_store *store;
	struct tmem_client *client;
	const struct tmem_snapshot_options *options;
	struct tmem_saving saving;
	struct tmem_shard *shard; /* where the walk is */
	uint32_t pos;
	uint16_t order[TMEM_SAVING_NAMES];
	struct copied copies[BATCH];
	_Alignas(64) char read[TMEM_SLOT_MAX_BYTES]; /* from a tier */
	struct tmem_snapshot snapshot;
	uint64_t bases[TMEM_SNAPSHOT_POOLS][2];
	struct tmem_snap_emit emit;
};

static int error_of(const struct saver *s)
{
	int error = atomic_load(&s->saving.error);

	return error < 0 ? error : s->emit.writer.error;
}

static void fail(struct saver *s, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&s->saving.error, &none, error);
}

/* The instant. */

/* The pool in an earlier snapshot, or NULL. */
static const struct tmem_snapshot_pool *
find_since(const struct tmem_snapshot *since, tmem_pool_id pool)
{
	uint32_t i;

	for (i = 0; since && i < since->nr_pools; i++)
		if (since->pools[i].pool == pool && since->pools[i].epoch)
			return &since->pools[i];
	return NULL;
}

static void add_pool(struct saver *s, const struct tmem_pool *pool)
{
	struct tmem_saving *saving = &s->saving;
	uint32_t nr = (uint32_t)(pool - s->store->pools);
	uint32_t i = s->snapshot.nr_pools++;
	struct tmem_snapshot_pool *to = &s->snapshot.pools[i];
	const struct tmem_snapshot_pool *since;

	to->pool = to->source = atomic_load(&pool->id);
	to->flags = atomic_load(&pool->flags);
	s->emit.numbers[nr] = (uint16_t)i;
	if (to->flags & TMEM_POOL_SHARED) {
		memcpy(to->uuid, pool->uuid, sizeof(to->uuid));
		return;
	}
	saving->pools[nr / 64] |= 1ull << nr % 64;
	if (!(to->flags & TMEM_POOL_EPHEMERAL))
		saving->pinning[nr / 64] |= 1ull << nr % 64;
	since = find_since(s->options->since, to->pool);
	if (since) {
		saving->since[nr] = since->epoch;
		memcpy(s->bases[i], since->id, sizeof(s->bases[i]));
	}
}

static int choose_locked(struct saver *s) TMEM_REQUIRES(&s->store->control)
{
	const struct tmem_snapshot *since = s->options->since;
	struct tmem_store *store = s->store;
	const struct tmem_pool *pool;
	uint32_t i;

	if (since && (!since->store || since->store != store->identity ||
		      since->nr_pools > TMEM_SNAPSHOT_POOLS))
		return -ESTALE;
	if (s->options->pool) {
		pool = tmem_pool_of(s->client, s->options->pool);
		if (!pool)
			return -ENOENT;
		if (atomic_load(&pool->flags) & TMEM_POOL_SHARED)
			return -EINVAL;
		add_pool(s, pool);
		return 0;
	}
	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		pool = tmem_pool_of(s->client,
				    atomic_load(&store->pools[i].id));
		if (pool)
			add_pool(s, pool);
	}
	s->snapshot.weight = atomic_load(&store->weights[s->client->nr]);
	return 0;
}

int tmem_snap_raise_epoch_locked(struct tmem_store *store,
				 struct tmem_saving *saving,
				 uint32_t *ret_epoch) TMEM_UNANALYSED
{
	uint64_t epoch = 0;
	uint32_t i;

	tmem_shards_acquire(store);
	for (i = 0; i < store->nr_shards; i++) {
		uint64_t e =
			store->shards[i].generation >> TMEM_SLOT_EPOCH_SHIFT;

		if (epoch < e)
			epoch = e;
	}
	epoch++;
	/* What is left is for counters that carry. */
	if (epoch < TMEM_SLOT_EPOCHS / 2) {
		for (i = 0; i < store->nr_shards; i++) {
			uint64_t *g = &store->shards[i].generation;

			*g = epoch << TMEM_SLOT_EPOCH_SHIFT | (uint32_t)*g;
			if (saving)
				store->shards[i].saving = saving;
		}
		if (saving)
			saving->epoch = (uint32_t)epoch;
		*ret_epoch = (uint32_t)epoch;
	}
	tmem_shards_release(store);
	return epoch < TMEM_SLOT_EPOCHS / 2 ? 0 : -EOVERFLOW;
}

int tmem_snap_identify_locked(struct tmem_store *store)
{
	int r = 0;

	while (r == 0 && !store->identity)
		r = tmem_seal_random(&store->identity, sizeof(store->identity));
	return r;
}

static int begin_locked(struct saver *s) TMEM_REQUIRES(&s->store->control)
{
	uint32_t epoch = 0, i;
	int r;

	if (s->store->saving)
		return -EBUSY;
	r = choose_locked(s);
	if (r == 0)
		r = tmem_snap_identify_locked(s->store);
	if (r == 0)
		r = tmem_snap_raise_epoch_locked(s->store, &s->saving, &epoch);
	if (r < 0)
		return r;
	s->store->saving = &s->saving;
	s->snapshot.store = s->store->identity;
	for (i = 0; i < s->snapshot.nr_pools; i++)
		if (!(s->snapshot.pools[i].flags & TMEM_POOL_SHARED))
			s->snapshot.pools[i].epoch = epoch;
	return 0;
}

/* What was kept for us. */

/* Can the page be read from its slot alone? */
static bool is_plain(const struct tmem_slot *slot)
{
	const struct tmem_codec *codec = tmem_codec_of(tmem_slot_form(slot));

	return codec && !codec->has_dict;
}

/* The dictionary of a page that is about to be written. */
static int emit_dict(struct saver *s, const struct tmem_saving_name *page,
		     uint32_t name)
{
	const struct tmem_dict *dict = tmem_dicts_get(s->store, name);
	uint32_t place = tmem_dict_place(name);
	struct tmem_snap_dict rec = { .type = TMEM_SNAP_DICT,
				      .number = (uint16_t)place,
				      .pool = s->emit.numbers[page->pool] };
	uint32_t pool;

	if (!dict)
		return -EIO;
	tmem_dicts_hold(s->store, name);
	s->emit.dicts[place] = name;
	rec.uses = (uint8_t)dict->uses;
	rec.content_bytes = dict->content_bytes;
	pool = tmem_dicts_pool(s->store, name);
	if (tmem_saving_has(s->saving.pools, pool) &&
	    tmem_dicts_is_current(s->store, name)) {
		rec.pool = s->emit.numbers[pool];
		rec.current = 1;
	}
	tmem_snap_emit_dict(&s->emit, &rec, dict->content);
	return 0;
}

static int emit_dict_of(struct saver *s, const struct tmem_saving_name *page,
			const struct tmem_slot *slot)
{
	uint32_t name;

	if (!tmem_form_has_dict(tmem_slot_form(slot)))
		return 0;
	if (slot->length <= TMEM_DICT_NAME_BYTES)
		return -EIO;
	name = tmem_dicts_of_slot(slot);
	/* A place has one name as long as somebody holds it. */
	if (s->emit.dicts[tmem_dict_place(name)] == name)
		return 0;
	return emit_dict(s, page, name);
}

static void emit_slot(struct saver *s, const struct tmem_saving_name *name,
		      const struct tmem_slot *slot, unsigned size)
{
	struct tmem_slot *read = (struct tmem_slot *)s->read;
	int r = 0;

	if (!tmem_slot_is_whole(slot, size))
		r = -EIO;
	else if (tmem_slot_form(slot) == TMEM_FORM_TIER)
		r = tmem_promote_pinned(s->store, slot, read);
	if (r == 0 && tmem_slot_form(slot) == TMEM_FORM_TIER)
		slot = read;
	if (r == 0)
		r = emit_dict_of(s, name, slot);
	if (r < 0)
		fail(s, r);
	else
		tmem_snap_emit_page(&s->emit, name, slot);
}

static void let_dicts_go(struct saver *s)
{
	unsigned i;

	for (i = 0; i < TMEM_SNAP_DICTS; i++)
		if (s->emit.dicts[i])
			tmem_dicts_release(s->store, s->emit.dicts[i]);
}

static void emit_entry(struct saver *s, const struct tmem_saving_entry *entry)
{
	const struct tmem_arena *arena = &s->store->arena;

	if (entry->handle)
		emit_slot(s, &entry->name,
			  tmem_arena_slot(arena, entry->handle),
			  tmem_arena_size_of(arena, entry->handle));
	else
		tmem_snap_emit_keep(&s->emit, &entry->name);
}

/* Under the lock: metadata only changes where a check would wait for it. */
static void end_log(struct saver *s, struct tmem_shard *shard,
		    struct tmem_saving_log *log)
{
	uint64_t i;

	tmem_lock_acquire(&shard->lock);
	for (i = 0; i < log->nr; i++)
		if (log->entries[i].handle)
			tmem_saving_unpin(s->store, shard,
					  log->entries[i].handle);
	tmem_meta_free(&s->store->meta, log, 1);
	tmem_lock_release(&shard->lock);
}

static void empty_log(struct saver *s, uint32_t nr)
{
	struct tmem_shard *shard = &s->store->shards[nr];
	struct tmem_saving_log *log, *next;
	uint64_t i;

	if (!atomic_load(&s->saving.parts[nr].log))
		return;
	tmem_lock_acquire(&shard->lock);
	log = atomic_exchange(&s->saving.parts[nr].log, NULL);
	tmem_lock_release(&shard->lock);
	for (; log; log = next) {
		for (i = 0; i < log->nr && error_of(s) == 0; i++)
			emit_entry(s, &log->entries[i]);
		next = log->next;
		end_log(s, shard, log);
	}
}

static void empty_logs(struct saver *s)
{
	uint32_t i;

	for (i = 0; i < s->store->nr_shards; i++)
		empty_log(s, i);
}

/* Some of a shard. */

static void note_name(void *arg, uint32_t ref)
{
	struct saver *s = arg;
	struct tmem_saving *saving = &s->saving;
	const struct tmem_slot *slot;
	uint32_t pool;
	bool changed;

	if (ref & TMEM_REF_OBJECT)
		return;
	slot = tmem_arena_slot(&s->store->arena, ref);
	pool = tmem_slot_pool(slot);
	if (!tmem_saving_has(saving->pools, pool) ||
	    tmem_slot_epoch(slot) >= saving->epoch)
		return;
	changed = tmem_slot_epoch(slot) >= saving->since[pool];
	s->order[saving->nr_names] = (uint16_t)saving->nr_names;
	saving->names[saving->nr_names++] = (struct tmem_saving_name){
		.object = tmem_object_nr(s->store, slot->object)->id,
		.index = slot->index,
		.pool = (uint16_t)pool,
		.changed = changed,
		.sent = !changed,
	};
}

/* False: the shard has no more. */
static bool note_names(struct saver *s)
{
	struct tmem_shard *shard = s->shard;
	struct tmem_saving_part *part =
		&s->saving.parts[shard - s->store->shards];
	bool more = true;
	unsigned i;

	for (i = 0; more && i < TMEM_SEGMENT_PARTS &&
		    (i == 0 || s->saving.nr_names <= TMEM_SEGMENT_ENTRIES);
	     i++) {
		tmem_lock_acquire(&shard->lock);
		if (i == 0) {
			s->saving.nr_names = 0;
			part->begin = part->end;
		}
		more = tmem_index_visit_part(&shard->index, &s->pos,
					     TMEM_SEGMENT_PARTS, note_name, s);
		part->end = more ? s->pos : 1u << TMEM_INDEX_TAG_BITS;
		tmem_lock_release(&shard->lock);
	}
	return more;
}

static bool is_before(const struct tmem_saving_name *a,
		      const struct tmem_saving_name *b)
{
	unsigned i;

	if (a->pool != b->pool)
		return a->pool < b->pool;
	for (i = 0; i < 3; i++)
		if (a->object.word[i] != b->object.word[i])
			return a->object.word[i] < b->object.word[i];
	return a->index < b->index;
}

/* By pool, object, index; Shell's way, as there is no malloc for qsort. */
static void sort_names(struct saver *s)
{
	static const uint16_t gaps[] = { 701, 301, 132, 57, 23, 10, 4, 1 };
	const struct tmem_saving_name *names = s->saving.names;
	unsigned g, i, k;

	for (g = 0; g < sizeof(gaps) / sizeof(gaps[0]); g++)
		for (i = gaps[g]; i < s->saving.nr_names; i++) {
			uint16_t nr = s->order[i];

			for (k = i; k >= gaps[g] &&
				    is_before(&names[nr],
					      &names[s->order[k - gaps[g]]]);
			     k -= gaps[g])
				s->order[k] = s->order[k - gaps[g]];
			s->order[k] = nr;
		}
}

static bool copy_slot(struct saver *s, uint32_t handle, struct copied *to)
{
	const struct tmem_arena *arena = &s->store->arena;
	const struct tmem_slot *slot = tmem_arena_slot(arena, handle);
	size_t bytes = sizeof(*slot) + slot->length;

	to->size = tmem_arena_size_of(arena, handle);
	if (bytes > to->size)
		return false;
	memcpy(to->bytes, slot, bytes);
	return true;
}

/* The page as it was at the instant; false if it has changed since. */
static bool copy_locked(struct saver *s, struct tmem_saving_name *name,
			struct copied *to) TMEM_UNANALYSED
{
	struct tmem_store *store = s->store;
	struct tmem_key key =
		tmem_key_of(store, name->pool, &name->object, name->index);
	const struct tmem_slot *slot = (const struct tmem_slot *)to->bytes;
	const uint32_t *entry = tmem_object_find_page(store, &key);
	uint32_t target;
	bool copied;

	if (!entry || tmem_slot_epoch(tmem_arena_slot(&store->arena, *entry)) >=
			      s->saving.epoch)
		return false;
	copied = copy_slot(s, *entry, to);
	if (copied && tmem_slot_form(slot) == TMEM_FORM_REF) {
		copied = tmem_slot_is_whole(slot, to->size);
		memcpy(&target, slot->data, sizeof(target));
		copied = copied && copy_slot(s, target, to);
	}
	to->pinned = 0;
	if (!copied) { /* a damaged length */
		fail(s, -EIO);
	} else if (!is_plain(slot)) {
		to->pinned = tmem_saving_pin(store, s->shard, *entry);
		if (!to->pinned) {
			fail(s, -ENOMEM);
			copied = false;
		}
	}
	to->name = name;
	name->sent = 1;
	return copied;
}

/* From *at on; how many were copied. */
static unsigned copy_some(struct saver *s, uint32_t *at)
{
	unsigned nr = 0;

	tmem_lock_acquire(&s->shard->lock);
	while (nr < BATCH && *at < s->saving.nr_names) {
		struct tmem_saving_name *name =
			&s->saving.names[s->order[(*at)++]];

		if (name->changed)
			nr += copy_locked(s, name, &s->copies[nr]);
	}
	tmem_lock_release(&s->shard->lock);
	return nr;
}

static void unpin_copies(struct saver *s, unsigned nr)
{
	unsigned i;

	tmem_lock_acquire(&s->shard->lock);
	for (i = 0; i < nr; i++)
		if (s->copies[i].pinned)
			tmem_saving_unpin(s->store, s->shard,
					  s->copies[i].pinned);
	tmem_lock_release(&s->shard->lock);
}

static void emit_copies(struct saver *s, unsigned nr)
{
	bool any_pinned = false;
	unsigned i;

	for (i = 0; i < nr; i++) {
		emit_slot(s, s->copies[i].name,
			  (const struct tmem_slot *)s->copies[i].bytes,
			  s->copies[i].size);
		any_pinned |= s->copies[i].pinned != 0;
	}
	if (any_pinned)
		unpin_copies(s, nr);
}

static void emit_names(struct saver *s)
{
	uint32_t at;

	sort_names(s);
	for (at = 0; at < s->saving.nr_names; at++) {
		const struct tmem_saving_name *name =
			&s->saving.names[s->order[at]];

		if (!name->changed)
			tmem_snap_emit_keep(&s->emit, name);
	}
	for (at = 0; at < s->saving.nr_names && error_of(s) == 0;)
		emit_copies(s, copy_some(s, &at));
}

/* The whole. */

static void leave_shard(struct tmem_shard *shard)
{
	tmem_lock_acquire(&shard->lock);
	shard->saving = NULL;
	tmem_lock_release(&shard->lock);
}

static void walk(struct saver *s)
{
	uint32_t i;
	bool more;

	for (i = 0; i < s->store->nr_shards; i++) {
		s->shard = &s->store->shards[i];
		s->pos = 0;
		more = true;
		while (more && error_of(s) == 0) {
			more = note_names(s);
			emit_names(s);
			empty_logs(s);
		}
		leave_shard(s->shard);
	}
	empty_logs(s);
}

static void emit_head(struct saver *s)
{
	uint32_t i;

	if (!s->options->pool)
		tmem_snap_emit_client(&s->emit, s->snapshot.weight);
	for (i = 0; i < s->snapshot.nr_pools; i++) {
		const struct tmem_snapshot_pool *pool = &s->snapshot.pools[i];
		struct tmem_snap_pool rec = {
			.type = TMEM_SNAP_POOL,
			.number = (uint16_t)i,
			.flags = pool->flags,
			.source = pool->source,
			.uuid = { pool->uuid[0], pool->uuid[1] },
			.base = { s->bases[i][0], s->bases[i][1] },
		};

		tmem_snap_emit_pool(&s->emit, &rec);
	}
}

/* The snapshot as the caller gets it. */
static void sum_up(struct saver *s, struct tmem_snapshot *ret_snapshot)
{
	struct tmem_snapshot *snapshot = &s->snapshot;

	snapshot->pages = s->emit.pages;
	snapshot->kept_pages = s->emit.kept_pages;
	snapshot->data_bytes = s->emit.data_bytes;
	snapshot->stream_bytes = s->emit.writer.bytes;
	tmem_lock_acquire(&s->store->shards[0].lock);
	s->store->shards[0].stats.saved += snapshot->pages;
	tmem_lock_release(&s->store->shards[0].lock);
	*ret_snapshot = *snapshot;
}

static int save(struct saver *s, const struct tmem_snapshot_sink *sink,
		const struct tmem_snap_chance *chance,
		struct tmem_snapshot *ret_snapshot)
{
	uint32_t i;
	int r;

	tmem_lock_acquire(&s->store->control);
	r = begin_locked(s);
	tmem_lock_release(&s->store->control);
	if (r < 0)
		return r;
	for (i = 0; i < s->snapshot.nr_pools; i++) {
		s->snapshot.pools[i].id[0] = chance->id[0];
		s->snapshot.pools[i].id[1] = chance->id[1] + i;
	}
	r = tmem_snap_begin(&s->emit.writer, sink, s->options->key, chance);
	if (r == 0)
		emit_head(s);
	else
		fail(s, r);
	walk(s);
	tmem_lock_acquire(&s->store->control);
	s->store->saving = NULL;
	tmem_lock_release(&s->store->control);
	r = error_of(s);
	if (r == 0)
		r = tmem_snap_emit_end(&s->emit);
	if (r == 0)
		sum_up(s, ret_snapshot);
	return r;
}

int tmem_snap_save(struct tmem_client *client,
		   const struct tmem_snapshot_options *options,
		   const struct tmem_snapshot_sink *sink,
		   const struct tmem_snap_chance *chance,
		   struct tmem_snapshot *ret_snapshot)
{
	struct saver *s;
	int r;

	s = tmem_map->map(TMEM_SNAP_ROUND(sizeof(*s)), 4096);
	if (!s)
		return -ENOMEM;
	s->client = client;
	s->store = client->store;
	s->options = options;
	r = save(s, sink, chance, ret_snapshot);
	let_dicts_go(s);
	tmem_snap_writer_fini(&s->emit.writer);
	tmem_map->unmap(s, TMEM_SNAP_ROUND(sizeof(*s)));
	return r;
}

int tmem_snapshot_save(struct tmem_client *client,
		       const struct tmem_snapshot_options *options,
		       const struct tmem_snapshot_sink *sink,
		       struct tmem_snapshot *ret_snapshot)
{
	static const struct tmem_snapshot_options none;
	struct tmem_snap_chance chance;
	int r = tmem_seal_random(&chance, sizeof(chance));

	if (r < 0)
		return r;
	return tmem_snap_save(tmem_client_of(client), options ? options : &none,
			      sink, &chance, ret_snapshot);
}
