/* SPDX-License-Identifier: MIT */
/* One page: store, load, invalidate.  The model is in core.h. */
#include "page.h"

#include <errno.h>
#include <string.h>

#include "base/sys.h"
#include "cool.h"
#include "dedup.h"
#include "dicts.h"
#include "evict.h"
#include "object.h"
#include "pool.h"
#include "promote.h"
#include "queue.h"
#include "saving.h"
#include "unzip.h"

enum {
	DROP_BATCH = 256,
	DEDUP_RARELY = 64, /* its table may shrink by a step */
	/* A store that finds no memory evicts so many pages, so many times. */
	EVICT_BATCH = 16,
	EVICT_TRIES = 6,
	/* Not answers: room must be made first; it was there, unchanged. */
	STORE_AGAIN = -1,
	STORED_ALREADY = -2
};

/* What a page became: form 0 if it is refused. */
struct encoded {
	unsigned form;
	unsigned length;
	bool skipped;	 /* known to be hopeless: not compressed */
	uint64_t hash;	 /* dedup's, 0: not known yet */
	uint32_t dict;	 /* what it is compressed with, held; 0: none */
	uint32_t target; /* of a reference: pinned until it is stored */
	const void *data;
};

_Static_assert(TMEM_LZ4_COMPRESS_BYTES + TMEM_DICT_NAME_BYTES +
			       TMEM_PAGE_SIZE <=
		       TMEM_SCRATCH_PAGES * 4096,
	       "codec state and output");

static char *output_of(const struct tmem_scratch *scratch)
{
	return scratch->memory + TMEM_LZ4_COMPRESS_BYTES;
}

static unsigned use(struct encoded *ret, const struct tmem_codec *codec,
		    struct tmem_scratch *scratch, const void *page,
		    unsigned capacity)
{
	char *data = output_of(scratch);

	ret->length =
		codec->compress(scratch->memory, NULL, page, data, capacity);
	ret->form = ret->length ? codec->form : 0;
	ret->data = data;
	return ret->length;
}

/* LZ4 with a dictionary, which the data then names. */
static unsigned use_dict(struct encoded *ret, const struct tmem_dict *dict,
			 struct tmem_scratch *scratch, const void *page,
			 unsigned capacity)
{
	char *data = output_of(scratch);
	uint16_t name = (uint16_t)ret->dict;
	unsigned n;

	memcpy(data, &name, sizeof(name));
	n = tmem_codec_lz4_dict.compress(scratch->memory, dict, page,
					 data + sizeof(name),
					 capacity - (unsigned)sizeof(name));
	if (!n)
		return 0;
	ret->form = TMEM_FORM_LZ4_DICT;
	ret->length = n + (unsigned)sizeof(name);
	ret->data = data;
	return ret->length;
}

static bool is_ephemeral(const struct tmem_store *store, tmem_pool_id id)
{
	return tmem_pool_has(store, tmem_pool_number(id), TMEM_POOL_EPHEMERAL);
}

/* A reference to an equal page, if there is one. */
static bool refer(struct encoded *ret, const struct tmem_client *client,
		  const struct tmem_key *key, struct tmem_scratch *scratch,
		  const void *page)
{
	ret->target = tmem_dedup_find(client, key, page,
				      ret->hash ? ret->hash
						: tmem_dedup_hash(client, page),
				      output_of(scratch));
	if (!ret->target)
		return false;
	ret->form = TMEM_FORM_REF;
	ret->length = sizeof(ret->target);
	ret->data = &ret->target;
	return true;
}

/* Compresses a page as far as the policy wants it: see policy.h. */
static void encode(struct encoded *ret, const struct tmem_client *client,
		   const struct tmem_key *key, struct tmem_scratch *scratch,
		   const void *page)
{
	struct tmem_store *store = client->store;
	bool ephemeral = tmem_pool_has(store, key->pool, TMEM_POOL_EPHEMERAL);
	uint64_t held = ephemeral ? 0 : tmem_account_held(&store->account);
	uint64_t limit = tmem_account_limit(&store->account);
	unsigned max = tmem_policy_max_length(held, limit);
	uint64_t sample;

	if (use(ret, &tmem_codec_same, scratch, page, max))
		return;
	if (store->dedup.on && !ephemeral &&
	    refer(ret, client, key, scratch, page))
		return;
	sample = tmem_policy_sample(page);
	ret->dict = tmem_dicts_use(store, key->pool, TMEM_DICT_LZ4);
	if (ret->dict) /* by that one it may not be hopeless */
		sample = tmem_hash_more(sample, ret->dict);
	ret->skipped = tmem_policy_is_hopeless(&store->policy, sample, max);
	if (!ret->skipped) {
		if (ret->dict ? use_dict(ret, tmem_dicts_get(store, ret->dict),
					 scratch, page, max)
			      : use(ret, &tmem_codec_lz4, scratch, page, max))
			return;
		tmem_policy_remember(&store->policy, sample, max);
	}
	if (!store->no_raw && tmem_policy_takes_raw(held, limit))
		use(ret, &tmem_codec_raw, scratch, page, TMEM_PAGE_SIZE);
}

/* No memory for the new page, so the old one goes: never an older page. */
static int refuse_locked(struct tmem_store *store, const struct tmem_key *key,
			 uint64_t *counter) TMEM_REQUIRES(&key->shard->lock)
{
	uint32_t *entry = tmem_object_find_page(store, key);

	++*counter;
	if (entry) {
		tmem_object_drop_page(store, key->shard, *entry);
		key->shard->stats.dropped_old++;
	}
	return TMEM_REFUSED;
}

static bool replace_locked(struct tmem_store *store, struct tmem_shard *shard,
			   uint32_t *entry, const struct encoded *e)
	TMEM_REQUIRES(&shard->lock)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, *entry);
	uint32_t old = 0;

	if (tmem_slot_form(slot) != TMEM_FORM_REF &&
	    !tmem_saving_wants(store, shard, *entry) &&
	    tmem_arena_may_rewrite(&store->arena, *entry, e->length))
		tmem_object_uncount(store, shard, *entry);
	else if (!(old = tmem_object_move_page(store, shard, entry, e->length)))
		return false;
	tmem_object_fill(store, shard, *entry, e->form, e->data, e->length);
	if (old)
		tmem_object_release(store, shard, old);
	shard->stats.stores_replaced++;
	return true;
}

/* Who was the last to use an object of a shared pool. */
static void note_client(const struct tmem_client *client,
			const struct tmem_key *key)
	TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = client->store;
	const uint32_t *entry;

	if (!tmem_pool_has(store, key->pool, TMEM_POOL_SHARED))
		return;
	entry = tmem_object_find_page(store, key);
	tmem_object_nr(store, tmem_arena_slot(&store->arena, *entry)->object)
		->client = client->nr;
}

static bool add_locked(struct tmem_store *store, const struct tmem_key *key,
		       const struct encoded *e) TMEM_REQUIRES(&key->shard->lock)
{
	uint32_t handle = tmem_object_add_page(store, key, e->length);

	if (!handle)
		return false;
	tmem_object_fill(store, key->shard, handle, e->form, e->data,
			 e->length);
	return true;
}

/* The page is the pinned one, or refers to it already. */
static bool is_same(const struct tmem_store *store, uint32_t handle,
		    uint32_t target)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	uint32_t data = handle;

	if (tmem_slot_form(slot) == TMEM_FORM_REF)
		memcpy(&data, slot->data, sizeof(data));
	return data == target;
}

/* `last`: no room can be made any more, so this is the answer. */
static int store_locked(const struct tmem_client *client, tmem_pool_id id,
			const struct tmem_key *key, const struct encoded *e,
			bool last) TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = client->store;
	struct tmem_stats *stats = &key->shard->stats;
	uint32_t *entry;

	stats->hopeless_skips += e->skipped;
	/* A pool that goes takes its pages with it: nothing to remove. */
	if (!tmem_pool_of(client, id)) {
		stats->refused_pool++;
		return TMEM_REFUSED;
	}
	if (!e->form)
		return refuse_locked(store, key, &stats->refused_poor);
	if (tmem_account_held(&store->account) >
	    tmem_account_limit(&store->account))
		return last ? refuse_locked(store, key, &stats->refused_limit)
			    : STORE_AGAIN;
	entry = tmem_object_find_page(store, key);
	if (entry && e->target && is_same(store, *entry, e->target)) {
		stats->stores_same++;
		stats->stores_replaced++;
		stats->stores++;
		return STORED_ALREADY;
	}
	if (entry && !replace_locked(store, key->shard, entry, e)) {
		if (!last)
			return STORE_AGAIN;
		/* The old page's memory may be what the new one needs. */
		tmem_object_drop_page(store, key->shard, *entry);
		stats->dropped_old++;
		entry = NULL;
	}
	if (!entry && !add_locked(store, key, e))
		return last ? refuse_locked(store, key, &stats->refused_full)
			    : STORE_AGAIN;
	note_client(client, key);
	stats->dedup_stores += e->target != 0;
	stats->stores++;
	return 0;
}

int tmem_page_store(const struct tmem_client *client, tmem_pool_id id,
		    const struct tmem_io *io, uint64_t hash,
		    struct tmem_scratch *scratch)
{
	struct tmem_store *store = client->store;
	struct tmem_key key = tmem_key_of(store, tmem_pool_number(id),
					  &io->object, io->index);
	struct encoded e = { .hash = hash };
	unsigned tries = 0;
	bool last;
	int r;

	__builtin_prefetch(&key.shard->lock, 1);
	encode(&e, client, &key, scratch, io->page);
	do {
		last = tries++ == EVICT_TRIES ||
		       !atomic_load_explicit(&store->ephemeral_pages,
					     memory_order_relaxed);
		tmem_lock_acquire(&key.shard->lock);
		if (tries > 2) /* it may be metadata that it lacks */
			tmem_arena_trim(&store->arena);
		r = store_locked(client, id, &key, &e, last);
		if (e.target && r != 0 && r != STORE_AGAIN)
			tmem_object_unshare(store, key.shard, e.target);
		tmem_lock_release(&key.shard->lock);
		if (r == STORE_AGAIN)
			tmem_evict(store, EVICT_BATCH);
		e.skipped = false; /* it was counted */
	} while (r == STORE_AGAIN);
	if (e.dict)
		tmem_dicts_release(store, e.dict);
	return r == STORED_ALREADY ? 0 : r;
}

/*
 * A slot, copied: a load holds its shard for as long as that takes, and checks
 * and decompresses without.  On the stack: 4 KiB that no lock guards.
 */
struct copy {
	_Alignas(64) char bytes[TMEM_SLOT_MAX_BYTES];
	unsigned size; /* of the slot */
	uint32_t dict; /* held; 0: none */
};

static const struct tmem_slot *slot_of(const struct copy *copy)
{
	return (const struct tmem_slot *)copy->bytes;
}

/* A slot that others refer to: its owner may mark it meanwhile. */
static bool copy_shared(const struct tmem_store *store, uint32_t handle,
			struct copy *copy)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct tmem_slot *to = (struct tmem_slot *)copy->bytes;

	copy->size = tmem_arena_size_of(&store->arena, handle);
	if (sizeof(*slot) + slot->length > copy->size)
		return false;
	memcpy(to, slot, offsetof(struct tmem_slot, form_generation));
	to->form_generation = tmem_slot_word(slot);
	memcpy(to->data, slot->data, slot->length);
	return true;
}

/* False if the slot's length is damaged. */
static bool copy_slot(const struct tmem_store *store, uint32_t handle,
		      struct copy *copy)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	size_t bytes = sizeof(*slot) + slot->length;

	copy->size = tmem_arena_size_of(&store->arena, handle);
	if (bytes > copy->size)
		return false;
	memcpy(copy->bytes, slot, bytes);
	return true;
}

/*
 * The slot that has the page's data: its own, or the one that it refers to.
 * Writes nothing to the store's memory.
 */
static int copy_locked(const struct tmem_client *client, tmem_pool_id pool,
		       const struct tmem_key *key, struct copy *copy)
	TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = client->store;
	const uint32_t *entry;
	uint32_t handle;

	if (!tmem_pool_of(client, pool))
		return TMEM_MISS;
	entry = tmem_object_find_page(store, key);
	if (!entry)
		return TMEM_MISS;
	if (!copy_slot(store, *entry, copy))
		return -EIO;
	if (tmem_slot_form(slot_of(copy)) == TMEM_FORM_REF) {
		if (!tmem_slot_is_whole(slot_of(copy), copy->size))
			return -EIO;
		memcpy(&handle, slot_of(copy)->data, sizeof(handle));
		if (!copy_shared(store, handle, copy))
			return -EIO;
	}
	copy->dict = tmem_dicts_of_slot(slot_of(copy));
	if (copy->dict)
		tmem_dicts_hold(store, copy->dict);
	return 0;
}

static int unpack(struct tmem_store *store, const struct copy *copy, void *page)
{
	int r = tmem_unzip_slot(store, slot_of(copy), copy->size, page);

	if (copy->dict)
		tmem_dicts_release(store, copy->dict);
	return r;
}

static void count_damaged(struct tmem_shard *shard)
{
	if (!tmem_lock_acquire_unless_closed(&shard->lock))
		return;
	shard->stats.load_damaged++;
	tmem_lock_release(&shard->lock);
}

/*
 * The shard is closed for a fork: read without its lock, counted, if it is
 * still closed once we are counted (after_fork reopens first and then waits
 * for the count).  -EAGAIN if not.
 */
static int copy_quietly(const struct tmem_client *client, tmem_pool_id pool,
			const struct tmem_key *key,
			struct copy *copy) TMEM_UNANALYSED
{
	_Atomic uint32_t *nr_readers = &client->store->quiet->nr_readers;
	int r = -EAGAIN;

	atomic_fetch_add(nr_readers, 1);
	if (tmem_lock_is_closed(&key->shard->lock))
		r = copy_locked(client, pool, key, copy);
	if (atomic_fetch_sub(nr_readers, 1) == 1)
		tmem_sys_futex_wake(nr_readers, 1);
	return r;
}

/* It is not cold.  (Nor is it worth a copy, if a fork's child shares it.) */
static void touch_locked(struct tmem_store *store, const struct tmem_key *key)
	TMEM_REQUIRES(&key->shard->lock)
{
	if (store->marks_cold && !store->arena.frozen_before)
		tmem_cool_touch(tmem_arena_slot(
			&store->arena, *tmem_object_find_page(store, key)));
}

static int load_persistent(const struct tmem_client *client, tmem_pool_id id,
			   const struct tmem_key *key, struct copy *copy)
{
	int r;

	do {
		if (tmem_lock_acquire_unless_closed(&key->shard->lock)) {
			r = copy_locked(client, id, key, copy);
			if (r == 0)
				touch_locked(client->store, key);
			key->shard->stats.loads += r == 0;
			key->shard->stats.load_misses += r == TMEM_MISS;
			tmem_lock_release(&key->shard->lock);
		} else {
			r = copy_quietly(client, id, key, copy);
		}
	} while (r == -EAGAIN);
	return r;
}

/*
 * A private pool's page goes with its load and leaves a ghost: when it comes
 * back it has proved itself.  A shared pool's page stays.
 */
static void found_ephemeral(const struct tmem_client *client,
			    const struct tmem_key *key)
	TMEM_REQUIRES(&key->shard->lock)
{
	struct tmem_store *store = client->store;
	uint32_t handle = *tmem_object_find_page(store, key);
	uint32_t object = tmem_arena_slot(&store->arena, handle)->object;

	if (tmem_pool_has(store, key->pool, TMEM_POOL_SHARED)) {
		tmem_object_nr(store, object)->client = client->nr;
		tmem_queue_touch(store, handle);
		return;
	}
	tmem_queue_found(store, handle, key->hash);
	tmem_object_drop_page(store, key->shard, handle);
}

/* Waits while the store is at rest for a fork: this load changes it. */
static int load_ephemeral(const struct tmem_client *client, tmem_pool_id id,
			  const struct tmem_key *key, struct copy *copy)
{
	int r;

	tmem_lock_acquire(&key->shard->lock);
	r = copy_locked(client, id, key, copy);
	if (r != TMEM_MISS)
		found_ephemeral(client, key);
	key->shard->stats.loads += r == 0;
	key->shard->stats.load_misses += r == TMEM_MISS;
	tmem_lock_release(&key->shard->lock);
	return r;
}

int tmem_page_load(const struct tmem_client *client, tmem_pool_id id,
		   const struct tmem_io *io)
{
	struct tmem_key key = tmem_key_of(client->store, tmem_pool_number(id),
					  &io->object, io->index);
	struct copy copy;
	int r;

	if (is_ephemeral(client->store, id))
		r = load_ephemeral(client, id, &key, &copy);
	else
		r = load_persistent(client, id, &key, &copy);
	if (r == 0 && tmem_slot_form(slot_of(&copy)) == TMEM_FORM_TIER) {
		r = tmem_promote(client, id, &key,
				 (struct tmem_slot *)copy.bytes, &copy.dict);
		copy.size = TMEM_SLOT_MAX_BYTES;
		if (r != 0) {
			if (copy.dict)
				tmem_dicts_release(client->store, copy.dict);
			return r;
		}
	}
	if (r == 0)
		r = unpack(client->store, &copy, io->page);
	if (r < 0)
		count_damaged(key.shard);
	return r;
}

int tmem_page_invalidate(const struct tmem_client *client, tmem_pool_id id,
			 const struct tmem_io *io)
{
	struct tmem_store *store = client->store;
	struct tmem_key key = tmem_key_of(store, tmem_pool_number(id),
					  &io->object, io->index);
	struct tmem_stats *stats = &key.shard->stats;
	uint32_t *entry = NULL;

	tmem_lock_acquire(&key.shard->lock);
	if (tmem_pool_of(client, id))
		entry = tmem_object_find_page(store, &key);
	if (entry)
		tmem_object_drop_page(store, key.shard, *entry);
	if (entry && stats->invalidates % DEDUP_RARELY == 0)
		tmem_dedup_trim(store);
	stats->invalidates += entry != NULL;
	stats->invalidate_misses += entry == NULL;
	tmem_lock_release(&key.shard->lock);
	return entry ? 0 : TMEM_MISS;
}

/*
 * The object's pages in one shard, in batches so that nobody waits long.
 * What is stored meanwhile is newer and stays: the oldest go first, and only
 * as many as there were.
 */
static uint64_t invalidate_in_shard(const struct tmem_client *client,
				    struct tmem_shard *shard, tmem_pool_id pool,
				    const struct tmem_object_id *object)
{
	struct tmem_store *store = client->store;
	uint64_t dropped = 0, left = UINT64_MAX;
	uint32_t nr, n;

	do {
		n = 0;
		tmem_lock_acquire(&shard->lock);
		nr = tmem_pool_of(client, pool)
			     ? tmem_object_find(store, shard,
						tmem_pool_number(pool), object)
			     : 0;
		if (nr) {
			if (left > tmem_object_nr(store, nr)->nr_pages)
				left = tmem_object_nr(store, nr)->nr_pages;
			n = tmem_object_drop(store, shard, nr,
					     left < DROP_BATCH ? (uint32_t)left
							       : DROP_BATCH);
			shard->stats.object_pages += n;
			tmem_dedup_trim(store);
		}
		tmem_lock_release(&shard->lock);
		dropped += n;
		left -= n;
	} while (n && left);
	return dropped;
}

uint64_t tmem_page_invalidate_object(const struct tmem_client *client,
				     tmem_pool_id id,
				     const struct tmem_object_id *object)
{
	struct tmem_store *store = client->store;
	uint64_t dropped = 0;
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++)
		dropped += invalidate_in_shard(client, &store->shards[i], id,
					       object);
	tmem_lock_acquire(&store->shards[0].lock);
	store->shards[0].stats.object_invalidates++;
	tmem_lock_release(&store->shards[0].lock);
	return dropped;
}
