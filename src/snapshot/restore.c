/* SPDX-License-Identifier: MIT */
/*
 * Reading a snapshot.  Each block is verified as it comes; its pages are
 * decompressed, to see that they can be, and stored in new pools that nobody
 * else can see yet (core/pool.h).  If all went well to the end these are the
 * caller's, all at once, if not they are taken back.
 *
 * A page that did not change since the earlier snapshot is taken from the pool
 * which that was restored to: its data is shared, as a clone's is.  It must be
 * there, and of an epoch before the end of that restore: else somebody changed
 * the pool, and it can't be the base.
 *
 * Shared pools are joined last, before the new ones are shown: to leave one is
 * not as if one had never been in it.
 *
 * Pages that were compressed with a dictionary come after it, and are stored
 * as they are, if the store takes that as well (known.h).
 *
 * Without a store the same code verifies.
 */
#include <errno.h>
#include <string.h>

#include "arena/map.h"
#include "codecs/codec.h"
#include "core/client.h"
#include "core/evict.h"
#include "core/object.h"
#include "core/pool.h"
#include "core/unzip.h"
#include "known.h"
#include "snapshot.h"

enum {
	EVICT_BATCH = 16,
	EVICT_TRIES = 6,
	STEP_BITS = 7,
	STEP_MORE = 1 << STEP_BITS
};

enum stage {
	AT_START = 0,
	AT_POOLS,
	AT_PAGES,
	AT_END
};

struct base {
	tmem_pool_id pool; /* 0: the stream names none */
	uint32_t epoch;
};

struct restorer {
	_Alignas(64) char unzip[TMEM_ZSTD_DECOMPRESS_BYTES];
	char slot[TMEM_SLOT_MAX_BYTES]; /* a copy */
	char page[TMEM_PAGE_SIZE];
	_Alignas(64) char zip[TMEM_LZ4_COMPRESS_BYTES];
	struct tmem_client *client; /* NULL: verifies only */
	struct tmem_store *store;
	const struct tmem_snapshot_options *options;
	enum stage stage;
	bool may_unzip; /* the store can read zstd's forms */
	bool has_object;
	uint16_t pool; /* the object's, by number in the stream */
	struct tmem_object_id object;
	struct tmem_snapshot snapshot;
	bool is_staged[TMEM_SNAPSHOT_POOLS]; /* else joined, or not yet */
	bool has_base[TMEM_SNAPSHOT_POOLS];
	struct base bases[TMEM_SNAPSHOT_POOLS];
	struct tmem_snap_known known;
	struct tmem_snap_reader reader;
};

static int refuse(struct restorer *r, int error, const char *why)
{
	r->reader.why = why;
	return error;
}

static int wrong(struct restorer *r)
{
	return refuse(r, -EBADMSG, "a record is wrong");
}

/* Storing. */

/* A form 0 page has none: `data` is a pinned slot's handle. */
struct data {
	unsigned form;
	unsigned length;
	const void *bytes;
};

static int put_locked(struct restorer *r, const struct tmem_key *key,
		      const struct data *data) TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = r->store;
	uint32_t handle;

	if (tmem_object_find_page(store, key))
		return refuse(r, -EBADMSG, "a page is there twice");
	if (tmem_account_held(&store->account) >
	    tmem_account_limit(&store->account))
		return -ENOMEM;
	handle = tmem_object_add_page(store, key, data->length);
	if (!handle)
		return -ENOMEM;
	tmem_object_fill(store, key->shard, handle, data->form, data->bytes,
			 data->length);
	/* The pin is the slot's from now on. */
	if (data->form == TMEM_FORM_REF)
		atomic_fetch_sub_explicit(&store->nr_pinned, 1,
					  memory_order_relaxed);
	return 0;
}

static bool is_ephemeral(const struct restorer *r)
{
	return r->snapshot.pools[r->pool].flags & TMEM_POOL_EPHEMERAL;
}

/* Under the object at hand.  An ephemeral page that finds no room is none. */
static int put(struct restorer *r, uint32_t index, const struct data *data)
{
	struct tmem_store *store = r->store;
	tmem_pool_id pool = r->snapshot.pools[r->pool].pool;
	struct tmem_key key =
		tmem_key_of(store, tmem_pool_number(pool), &r->object, index);
	unsigned tries = 0;
	int error;

	for (;;) {
		tmem_lock_acquire(&key.shard->lock);
		if (tries > 2) /* it may be metadata that it lacks */
			tmem_arena_trim(&store->arena);
		error = put_locked(r, &key, data);
		tmem_lock_release(&key.shard->lock);
		if (error != -ENOMEM || tries++ == EVICT_TRIES)
			break;
		if (!tmem_evict(store, EVICT_BATCH) && tries > 3)
			break;
	}
	return error == -ENOMEM && is_ephemeral(r) ? 0 : error;
}

/* The store can read what it gets. */
static int prepare_form(struct restorer *r, const struct tmem_codec *codec)
{
	if (!r->store || !codec->decompress_bytes || r->may_unzip)
		return 0;
	tmem_codecs_check();
	tmem_lock_acquire(&r->store->control);
	r->may_unzip = tmem_unzip_make(r->store);
	tmem_lock_release(&r->store->control);
	return r->may_unzip ? 0 : -ENOMEM;
}

/* Pages that are as they were. */

static int stale(struct restorer *r)
{
	return refuse(r, -ESTALE, "not based on the snapshot given");
}

/*
 * The page in the base: pinned, or of same-filled and ephemeral ones a copy in
 * r->slot, whose dictionary is held.  TMEM_MISS: it was ephemeral, and is gone.
 */
static int take_locked(struct restorer *r, const struct tmem_key *key,
		       uint32_t *ret_pinned) TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = r->store;
	const uint32_t *entry = tmem_object_find_page(store, key);
	const struct tmem_slot *slot;
	unsigned size;

	*ret_pinned = 0;
	if (!entry)
		return is_ephemeral(r) ? TMEM_MISS : stale(r);
	slot = tmem_arena_slot(&store->arena, *entry);
	size = tmem_arena_size_of(&store->arena, *entry);
	if (tmem_slot_epoch(slot) >= r->bases[r->pool].epoch)
		return stale(r);
	if (!tmem_slot_is_whole(slot, size))
		return -EIO;
	if (is_ephemeral(r) || tmem_slot_form(slot) == TMEM_FORM_SAME) {
		memcpy(r->slot, slot, sizeof(*slot) + slot->length);
		if (tmem_dicts_of_slot(slot))
			tmem_dicts_hold(store, tmem_dicts_of_slot(slot));
		return 0;
	}
	*ret_pinned = tmem_saving_pin(store, key->shard, *entry);
	return *ret_pinned ? 0 : -ENOMEM;
}

static void give_back(struct restorer *r, struct tmem_shard *shard,
		      uint32_t pinned)
{
	tmem_lock_acquire(&shard->lock);
	tmem_saving_unpin(r->store, shard, pinned);
	tmem_lock_release(&shard->lock);
}

static int keep(struct restorer *r, uint32_t index)
{
	const struct tmem_slot *slot = (const struct tmem_slot *)r->slot;
	tmem_pool_id base = r->bases[r->pool].pool;
	struct data data = { TMEM_FORM_REF, sizeof(uint32_t), NULL };
	struct tmem_key key;
	uint32_t pinned = 0, dict;
	int error;

	r->snapshot.kept_pages++;
	if (!r->store)
		return 0;
	key = tmem_key_of(r->store, tmem_pool_number(base), &r->object, index);
	tmem_lock_acquire(&key.shard->lock);
	error = take_locked(r, &key, &pinned);
	tmem_lock_release(&key.shard->lock);
	if (error)
		return error == TMEM_MISS ? 0 : error;
	data.bytes = &pinned;
	dict = pinned ? 0 : tmem_dicts_of_slot(slot);
	if (!pinned)
		data = (struct data){ tmem_slot_form(slot), slot->length,
				      slot->data };
	error = put(r, index, &data);
	if (dict)
		tmem_dicts_release(r->store, dict);
	if (error && pinned)
		give_back(r, key.shard, pinned);
	return error;
}

/* Records.  Each returns how many bytes it took, or -errno. */

static int read_client(struct restorer *r, const unsigned char *at, size_t left)
{
	struct tmem_snap_client rec;

	if (left < sizeof(rec) || r->stage != AT_START)
		return wrong(r);
	memcpy(&rec, at, sizeof(rec));
	if (rec.zero[0] || rec.zero[1] || rec.zero[2] || !rec.weight ||
	    rec.weight > TMEM_WEIGHT_MAX)
		return wrong(r);
	r->snapshot.weight = rec.weight;
	r->stage = AT_POOLS;
	return sizeof(rec);
}

static bool is_pool(const struct restorer *r, const struct tmem_snap_pool *rec)
{
	const uint32_t both = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED;
	bool shared = rec->flags & TMEM_POOL_SHARED;

	return !rec->zero && !rec->zeros && rec->source &&
	       rec->number == r->snapshot.nr_pools &&
	       rec->number < TMEM_SNAPSHOT_POOLS && !(rec->flags & ~both) &&
	       rec->flags != TMEM_POOL_SHARED &&
	       (shared ? !rec->base[0] && !rec->base[1]
		       : !rec->uuid[0] && !rec->uuid[1]);
}

/* The caller's, and of the same kind: pages are taken as they are there. */
static bool can_be_base(const struct restorer *r,
			const struct tmem_snapshot_pool *base, uint32_t flags)
{
	const struct tmem_pool *pool = tmem_pool_of(r->client, base->pool);

	return base->epoch && pool && atomic_load(&pool->flags) == flags;
}

/* The pool that holds the snapshot which the record names. */
static int find_base(struct restorer *r, const struct tmem_snap_pool *rec,
		     struct base *ret_base)
{
	const struct tmem_snapshot *since = r->options->since;
	uint32_t i;

	if (!r->store)
		return 0;
	if (!since || !since->store || since->store != r->store->identity ||
	    since->nr_pools > TMEM_SNAPSHOT_POOLS)
		return stale(r);
	for (i = 0; i < since->nr_pools; i++) {
		const struct tmem_snapshot_pool *pool = &since->pools[i];

		if (pool->id[0] == rec->base[0] &&
		    pool->id[1] == rec->base[1] &&
		    can_be_base(r, pool, rec->flags)) {
			*ret_base = (struct base){ pool->pool, pool->epoch };
			return 0;
		}
	}
	return stale(r);
}

static int read_pool(struct restorer *r, const unsigned char *at, size_t left)
{
	uint32_t nr = r->snapshot.nr_pools;
	struct tmem_snapshot_pool pool = { 0 };
	struct tmem_snap_pool rec;
	int error = 0;

	if (left < sizeof(rec) || r->stage > AT_POOLS)
		return wrong(r);
	memcpy(&rec, at, sizeof(rec));
	if (!is_pool(r, &rec))
		return wrong(r);
	r->has_base[nr] = rec.base[0] || rec.base[1];
	if (r->has_base[nr])
		error = find_base(r, &rec, &r->bases[nr]);
	pool.id[0] = r->reader.header.id[0];
	pool.id[1] = r->reader.header.id[1] + nr;
	pool.source = rec.source;
	pool.flags = rec.flags;
	memcpy(pool.uuid, rec.uuid, sizeof(pool.uuid));
	/* A shared one is joined when all is well. */
	r->is_staged[nr] = r->client && !(rec.flags & TMEM_POOL_SHARED);
	if (error == 0 && r->is_staged[nr])
		error = tmem_pool_stage(r->client, rec.flags, &pool.pool);
	if (error < 0)
		return error;
	r->snapshot.pools[r->snapshot.nr_pools++] = pool;
	r->stage = AT_POOLS;
	return sizeof(rec);
}

static int read_object(struct restorer *r, const unsigned char *at, size_t left)
{
	struct tmem_snap_object rec;

	if (left < sizeof(rec))
		return wrong(r);
	memcpy(&rec, at, sizeof(rec));
	if (rec.zero || rec.zeros || rec.pool >= r->snapshot.nr_pools ||
	    (r->snapshot.pools[rec.pool].flags & TMEM_POOL_SHARED))
		return wrong(r);
	memcpy(r->object.word, rec.id, sizeof(rec.id));
	r->pool = rec.pool;
	r->has_object = true;
	r->stage = AT_PAGES;
	return sizeof(rec);
}

static bool is_dict(const struct restorer *r, const struct tmem_snap_dict *rec,
		    size_t left)
{
	return (rec->uses == TMEM_DICT_LZ4 || rec->uses == TMEM_DICT_ZSTD ||
		rec->uses == (TMEM_DICT_LZ4 | TMEM_DICT_ZSTD)) &&
	       rec->number < TMEM_SNAP_DICTS &&
	       rec->pool < r->snapshot.nr_pools &&
	       !(r->snapshot.pools[rec->pool].flags & TMEM_POOL_SHARED) &&
	       rec->current <= 1 && !rec->zero &&
	       rec->content_bytes >= TMEM_DICT_MIN_BYTES &&
	       rec->content_bytes <= TMEM_DICT_MAX_BYTES &&
	       rec->content_bytes <= left;
}

static int read_dict(struct restorer *r, const unsigned char *at, size_t left)
{
	struct tmem_snap_dict rec;
	tmem_pool_id pool;
	int error;

	if (left < sizeof(rec) ||
	    (r->stage != AT_POOLS && r->stage != AT_PAGES))
		return wrong(r);
	memcpy(&rec, at, sizeof(rec));
	if (!is_dict(r, &rec, left - sizeof(rec)))
		return wrong(r);
	pool = r->snapshot.pools[rec.pool].pool;
	error = tmem_snap_known_add(&r->known, &rec, at + sizeof(rec),
				    tmem_pool_number(pool));
	if (error == -EINVAL)
		return wrong(r);
	r->stage = AT_PAGES;
	return error < 0 ? error : (int)(sizeof(rec) + rec.content_bytes);
}

/*
 * A page whose dictionary is the store's, by the name that it has there; of
 * another one, compressed without it.
 */
static void change_dict(struct restorer *r,
			const struct tmem_snap_known_one *known,
			struct data *data)
{
	uint16_t name = (uint16_t)known->name;
	unsigned length;

	if (name) {
		memcpy(r->slot, data->bytes, data->length);
		memcpy(r->slot, &name, sizeof(name));
		data->bytes = r->slot;
		return;
	}
	length = tmem_codec_lz4.compress(r->zip, NULL, r->page, r->slot,
					 TMEM_PAGE_SIZE - 1);
	*data = length ? (struct data){ TMEM_FORM_LZ4, length, r->slot }
		       : (struct data){ TMEM_FORM_RAW, TMEM_PAGE_SIZE,
					r->page };
}

/* Reads the page, and makes of the data what is to be stored. */
static int read_data(struct restorer *r, const struct tmem_codec *codec,
		     struct data *data)
{
	const struct tmem_snap_known_one *known = NULL;
	const char *bytes = data->bytes;
	unsigned skip = 0;

	if (codec->has_dict) {
		skip = TMEM_DICT_NAME_BYTES;
		if (data->length <= skip)
			return refuse(r, -EBADMSG, "a page is damaged");
		known = tmem_snap_known_find(&r->known, tmem_dict_name(bytes));
		if (!known)
			return refuse(r, -EBADMSG, "a page lacks a dictionary");
	}
	if (codec->decompress(r->unzip, known ? known->dict : NULL,
			      bytes + skip, data->length - skip, r->page) < 0)
		return refuse(r, -EBADMSG, "a page is damaged");
	if (known && r->store)
		change_dict(r, known, data);
	return 0;
}

static int read_page(struct restorer *r, const unsigned char *at, size_t left)
{
	const struct tmem_codec *codec;
	struct tmem_snap_page rec;
	struct data data;
	int error;

	if (left < sizeof(rec) || !r->has_object)
		return wrong(r);
	memcpy(&rec, at, sizeof(rec));
	if (!rec.length || rec.length > TMEM_PAGE_SIZE ||
	    rec.length > left - sizeof(rec))
		return wrong(r);
	codec = tmem_codec_of(rec.form);
	if (!codec)
		return refuse(r, -EOPNOTSUPP, "has pages of an unknown form");
	data = (struct data){ rec.form, rec.length, at + sizeof(rec) };
	error = read_data(r, codec, &data);
	if (error == 0)
		error = prepare_form(r, codec);
	if (error == 0 && r->store)
		error = put(r, rec.index, &data);
	r->snapshot.pages++;
	r->snapshot.data_bytes += rec.length;
	return error < 0 ? error : (int)(sizeof(rec) + rec.length);
}

/* A step to the next index; how many bytes it took, or 0. */
static unsigned read_step(const unsigned char *at, size_t left,
			  uint32_t *ret_step)
{
	uint64_t step = 0;
	unsigned i;

	for (i = 0; i < 5 && i < left; i++) {
		step |= (uint64_t)(at[i] & (STEP_MORE - 1)) << i * STEP_BITS;
		if (at[i] & STEP_MORE)
			continue;
		if (step == 0 || step > UINT32_MAX || (i && !at[i]))
			return 0;
		*ret_step = (uint32_t)step;
		return i + 1;
	}
	return 0;
}

static int read_keep(struct restorer *r, const unsigned char *at, size_t left)
{
	struct tmem_snap_keep rec;
	uint32_t index, step = 0, i;
	size_t used = sizeof(rec);
	unsigned n;
	int error;

	if (left < sizeof(rec) || !r->has_object || !r->has_base[r->pool])
		return wrong(r);
	memcpy(&rec, at, sizeof(rec));
	if (rec.zero || !rec.nr)
		return wrong(r);
	index = rec.index;
	error = keep(r, index);
	for (i = 1; i < rec.nr && error == 0; i++) {
		n = read_step(at + used, left - used, &step);
		if (!n || step > UINT32_MAX - index)
			return wrong(r);
		used += n;
		index += step;
		error = keep(r, index);
	}
	return error < 0 ? error : (int)used;
}

static int read_end(struct restorer *r, const unsigned char *at, size_t left)
{
	const struct tmem_snap_end want = {
		.type = TMEM_SNAP_END,
		.pages = r->snapshot.pages,
		.kept_pages = r->snapshot.kept_pages,
		.data_bytes = r->snapshot.data_bytes,
	};

	if (left != sizeof(want) || memcmp(at, &want, sizeof(want)) != 0 ||
	    !r->reader.last)
		return wrong(r);
	r->stage = AT_END;
	return sizeof(want);
}

static int read_record(struct restorer *r, const unsigned char *at, size_t left)
{
	switch (*at) {
	case TMEM_SNAP_CLIENT:
		return read_client(r, at, left);
	case TMEM_SNAP_POOL:
		return read_pool(r, at, left);
	case TMEM_SNAP_OBJECT:
		return read_object(r, at, left);
	case TMEM_SNAP_PAGE:
		return read_page(r, at, left);
	case TMEM_SNAP_KEEP:
		return read_keep(r, at, left);
	case TMEM_SNAP_END:
		return read_end(r, at, left);
	case TMEM_SNAP_DICT:
		return read_dict(r, at, left);
	default:
		return wrong(r);
	}
}

/* The whole. */

static int read_block(struct restorer *r)
{
	const struct tmem_snap_frame *frame = &r->reader.frame;
	size_t at = 0;
	int n = tmem_snap_next(&r->reader);

	if (n < 0)
		return n;
	r->has_object = false;
	if (!frame->head.length)
		return wrong(r);
	while (at < frame->head.length) {
		n = read_record(r, frame->text + at, frame->head.length - at);
		if (n < 0)
			return n;
		at += (size_t)n;
	}
	if (r->reader.last && r->stage != AT_END)
		return wrong(r);
	return 0;
}

/* Takes back, or leaves, what there is of the pools. */
static void undo(struct restorer *r)
{
	uint32_t i;

	for (i = 0; r->client && i < r->snapshot.nr_pools; i++) {
		const struct tmem_snapshot_pool *pool = &r->snapshot.pools[i];

		if (r->is_staged[i])
			tmem_pool_discard(r->client, pool->pool);
		else if (pool->pool)
			tmem_pool_destroy(r->client, pool->pool);
	}
}

static int join_pools(struct restorer *r)
{
	uint32_t i;

	for (i = 0; i < r->snapshot.nr_pools; i++) {
		struct tmem_snapshot_pool *pool = &r->snapshot.pools[i];
		struct tmem_pool_options options = {
			.flags = pool->flags,
			.uuid = { pool->uuid[0], pool->uuid[1] },
		};
		int error = 0;

		if (pool->flags & TMEM_POOL_SHARED)
			error = tmem_pool_create(r->client, &options,
						 &pool->pool);
		if (error < 0)
			return error;
		if (error == TMEM_PRIVATE)
			pool->flags &= ~(uint32_t)TMEM_POOL_SHARED;
	}
	return 0;
}

static int seal_epoch(struct restorer *r)
{
	uint32_t epoch = 0, i;
	int error;

	tmem_lock_acquire(&r->store->control);
	error = tmem_snap_identify_locked(r->store);
	if (error == 0)
		error = tmem_snap_raise_epoch_locked(r->store, NULL, &epoch);
	for (i = 0; error == 0 && i < r->snapshot.nr_pools; i++) {
		struct tmem_snapshot_pool *pool = &r->snapshot.pools[i];

		if (!(pool->flags & TMEM_POOL_SHARED))
			pool->epoch = epoch;
	}
	r->snapshot.store = r->store->identity;
	tmem_lock_release(&r->store->control);
	return error;
}

static int note_pools(struct restorer *r)
{
	int error = 0;
	uint32_t i;

	for (i = 0; i < r->snapshot.nr_pools && error == 0; i++)
		if (r->is_staged[i])
			error = tmem_pool_note_staged(
				r->client, r->snapshot.pools[i].pool);
	return error;
}

static void show_pools(struct restorer *r)
{
	uint32_t i;

	tmem_lock_acquire(&r->client->store->control);
	for (i = 0; i < r->snapshot.nr_pools; i++)
		if (r->is_staged[i])
			tmem_pool_show_staged_locked(r->client,
						     r->snapshot.pools[i].pool);
	tmem_snap_known_make_current(&r->known, r->client->store);
	tmem_lock_release(&r->client->store->control);
}

/* All was read: the pools are the caller's. */
static int commit(struct restorer *r)
{
	struct tmem_store *store = r->store;
	int error;

	if (!r->client)
		return 0;
	error = seal_epoch(r);
	if (error == 0)
		error = note_pools(r);
	if (error == 0)
		error = join_pools(r);
	if (error < 0)
		return error;
	show_pools(r);
	if (r->options->set_weight && r->snapshot.weight)
		tmem_client_set_weight(r->client, r->snapshot.weight);
	tmem_lock_acquire(&store->shards[0].lock);
	store->shards[0].stats.restored +=
		r->snapshot.pages + r->snapshot.kept_pages;
	tmem_lock_release(&store->shards[0].lock);
	return 0;
}

static int restore(struct restorer *r,
		   const struct tmem_snapshot_source *source,
		   struct tmem_snapshot *ret_snapshot)
{
	int error = tmem_snap_open(&r->reader, source, r->options->key);

	while (error == 0 && r->stage != AT_END)
		error = read_block(r);
	if (error == 0)
		error = commit(r);
	if (error < 0) {
		undo(r);
		return error;
	}
	r->snapshot.stream_bytes = r->reader.next_offset;
	*ret_snapshot = r->snapshot;
	return 0;
}

static int restore_with(struct tmem_client *client,
			const struct tmem_snapshot_options *options,
			const struct tmem_snapshot_source *source,
			struct tmem_snapshot *ret_snapshot,
			struct tmem_snapshot_fault *ret_fault)
{
	static const struct tmem_snapshot_options none;
	struct restorer *r;
	int error;

	r = tmem_map->map(TMEM_SNAP_ROUND(sizeof(*r)), 4096);
	if (!r)
		return -ENOMEM;
	r->client = client;
	r->store = client ? client->store : NULL;
	r->known.store = r->store;
	r->options = options ? options : &none;
	error = restore(r, source, ret_snapshot);
	if (error < 0 && ret_fault)
		*ret_fault = (struct tmem_snapshot_fault){
			.offset = r->reader.offset,
			.why = r->reader.why ? r->reader.why : "",
		};
	tmem_snap_known_fini(&r->known);
	tmem_snap_reader_fini(&r->reader);
	tmem_map->unmap(r, TMEM_SNAP_ROUND(sizeof(*r)));
	return error;
}

int tmem_snapshot_restore(struct tmem_client *client,
			  const struct tmem_snapshot_options *options,
			  const struct tmem_snapshot_source *source,
			  struct tmem_snapshot *ret_snapshot,
			  struct tmem_snapshot_fault *ret_fault)
{
	return restore_with(tmem_client_of(client), options, source,
			    ret_snapshot, ret_fault);
}

int tmem_snapshot_verify(const struct tmem_snapshot_options *options,
			 const struct tmem_snapshot_source *source,
			 struct tmem_snapshot *ret_snapshot,
			 struct tmem_snapshot_fault *ret_fault)
{
	return restore_with(NULL, options, source, ret_snapshot, ret_fault);
}
