/* SPDX-License-Identifier: MIT */
/* Finding equal pages; the model is in dedup.h. */
#include "dedup.h"

#include <string.h>

#include "base/sys.h"
#include "cool.h"
#include "near.h"
#include "object.h"
#include "unzip.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
	NAME_BITS = TMEM_INDEX_NAME_BITS,
	/* The table is fitted at one store in so many. */
	FIT_RARELY = 16
};

_Static_assert(TMEM_MAX_SHARDS <= 1 << (TMEM_HINT_BITS - NAME_BITS),
	       "a shard's number is part of a hint");

void tmem_dedup_init(struct tmem_store *store, bool on)
{
	struct tmem_dedup *dedup = &store->dedup;

	tmem_hints_init(&dedup->hints);
	dedup->on = on && tmem_sys(SYS_getrandom, &dedup->secret,
				   sizeof(dedup->secret),
				   0) == (long)sizeof(dedup->secret);
}

uint64_t tmem_dedup_new_seed(struct tmem_store *store)
{
	return tmem_hash_more(store->dedup.secret, ++store->dedup.nr_seeds);
}

uint64_t tmem_dedup_group_seed(const struct tmem_store *store, uint32_t group)
{
	/* Above any number of a client. */
	return tmem_hash_more(store->dedup.secret, (uint64_t)group << 32);
}

static uint32_t hint_of(const struct tmem_store *store,
			const struct tmem_key *key)
{
	uint32_t shard = (uint32_t)(key->shard - store->shards);

	return shard << NAME_BITS | tmem_index_name(key->hash);
}

static uint32_t group_of(const struct tmem_store *store, uint32_t client)
{
	return atomic_load_explicit(&store->dedup.groups[client],
				    memory_order_relaxed);
}

/* May the client know of that pool's pages?  There is a page of it. */
static bool in_scope(const struct tmem_client *client, uint32_t pool)
{
	const struct tmem_store *store = client->store;
	uint64_t clients;
	uint32_t owner, group;

	if (tmem_pool_has(store, pool, TMEM_POOL_EPHEMERAL))
		return false;
	clients = atomic_load_explicit(&store->pools[pool].clients,
				       memory_order_relaxed);
	if (!clients)
		return false; /* a clone in the making */
	owner = (uint32_t)__builtin_ctzll(clients);
	group = group_of(store, client->nr);
	return owner == client->nr ||
	       (group && group == group_of(store, owner));
}

struct match {
	const struct tmem_store *store;
	uint32_t name;
};

static bool has_name(void *arg, uint32_t ref)
{
	const struct match *want = arg;
	const struct tmem_slot *slot;

	if (ref & TMEM_REF_OBJECT)
		return false;
	slot = tmem_arena_slot(&want->store->arena, ref);
	return tmem_index_name(tmem_slot_hash(want->store, slot)) == want->name;
}

/* The slot with the data of the page at that handle, or 0. */
static uint32_t data_of(const struct tmem_client *client, uint32_t handle)
{
	struct tmem_store *store = client->store;
	struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	uint32_t target;

	if (!in_scope(client, tmem_slot_pool(slot)) ||
	    tmem_slot_form(slot) == TMEM_FORM_SAME ||
	    tmem_slot_form(slot) == TMEM_FORM_TIER)
		return 0;
	if (tmem_slot_form(slot) != TMEM_FORM_REF) {
		tmem_cool_touch(slot);
		return handle;
	}
	if (!tmem_arena_is_whole(&store->arena, handle))
		return 0;
	memcpy(&target, slot->data, sizeof(target));
	return tmem_slot_form(tmem_arena_slot(&store->arena, target)) ==
			       TMEM_FORM_TIER
		       ? 0
		       : target;
}

/* Pins the data of the page that a hint names; 0: there is none. */
static uint32_t pin(const struct tmem_client *client, uint32_t hint)
{
	struct tmem_store *store = client->store;
	struct match want = { store, hint & ((1u << NAME_BITS) - 1) };
	struct tmem_shard *shard;
	const uint32_t *entry;
	uint32_t handle = 0;

	if (hint >> NAME_BITS >= store->nr_shards)
		return 0;
	shard = &store->shards[hint >> NAME_BITS];
	tmem_lock_acquire(&shard->lock);
	entry = tmem_index_find_name(&shard->index, want.name, has_name, &want);
	if (entry)
		handle = data_of(client, *entry);
	if (handle)
		handle = tmem_arena_share(&store->arena, handle);
	tmem_lock_release(&shard->lock);
	return handle;
}

static bool is_equal(struct tmem_store *store, uint32_t handle,
		     const void *page, void *buffer)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	unsigned size = tmem_arena_size_of(&store->arena, handle);

	return tmem_unzip_slot(store, slot, size, buffer) == 0 &&
	       memcmp(page, buffer, TMEM_PAGE_SIZE) == 0;
}

static void unpin(struct tmem_store *store, struct tmem_shard *shard,
		  uint32_t handle)
{
	tmem_lock_acquire(&shard->lock);
	tmem_object_unshare(store, shard, handle);
	tmem_lock_release(&shard->lock);
}

/* The number of pages, about: it changes while it is added up. */
static uint64_t nr_pages(const struct tmem_store *store)
{
	uint64_t nr = 0;
	uint32_t i;

	for (i = 0; i < store->nr_shards; i++)
		nr += atomic_load_explicit(&store->shards[i].nr_pages,
					   memory_order_relaxed);
	return nr;
}

uint64_t tmem_dedup_hash(const struct tmem_client *client, const void *page)
{
	uint64_t seed =
		atomic_load_explicit(&client->dedup_seed, memory_order_relaxed);

	return XXH3_64bits_withSeed(page, TMEM_PAGE_SIZE, seed) | 1;
}

/* By its ends, which is enough to know which are worth a hash beforehand. */
static bool may_be_same_filled(const void *page)
{
	const char *p = page;

	return memcmp(p, p + sizeof(uint64_t), sizeof(uint64_t)) == 0 &&
	       memcmp(p, p + TMEM_PAGE_SIZE - sizeof(uint64_t),
		      sizeof(uint64_t)) == 0;
}

/* 31 bits of the hash, its lowest not being one of them. */
static uint32_t place_of(uint64_t hash)
{
	return (uint32_t)hash >> 1;
}

void tmem_dedup_near(const struct tmem_client *client, const struct tmem_io *io,
		     unsigned nr, uint64_t *ret_hashes)
{
	struct tmem_hints *hints = &client->store->dedup.hints;
	const char *homes[TMEM_NEAR_GROUP];
	unsigned i;

	for (i = 0; i < nr; i++) {
		homes[i] = NULL;
		ret_hashes[i] = 0;
		if (may_be_same_filled(io[i].page))
			continue;
		ret_hashes[i] = tmem_dedup_hash(client, io[i].page);
		homes[i] = tmem_hints_home(hints, place_of(ret_hashes[i]));
	}
	/* Full ones are followed by the next. */
	for (i = 0; i < nr; i++) {
		if (!homes[i])
			continue;
		__builtin_prefetch(homes[i]);
		__builtin_prefetch(homes[i] + sizeof(struct tmem_hints_bucket));
	}
}

uint32_t tmem_dedup_find(const struct tmem_client *client,
			 const struct tmem_key *key, const void *page,
			 uint64_t hash, void *buffer)
{
	struct tmem_store *store = client->store;
	struct tmem_hints *hints = &store->dedup.hints;
	uint32_t found[TMEM_HINTS_FOUND], own = hint_of(store, key);
	uint32_t r = place_of(hash), handle;
	unsigned nr, i;

	/* The bits that the table does not use. */
	if ((hash >> 32) % FIT_RARELY == 0 || !tmem_hints_are_there(hints))
		tmem_hints_fit(hints, &store->meta, nr_pages(store) + 1);
	nr = tmem_hints_look(hints, r, own, found);
	for (i = 0; i < nr; i++) {
		handle = pin(client, found[i]);
		if (handle && is_equal(store, handle, page, buffer))
			return handle;
		if (handle)
			unpin(store, key->shard, handle);
	}
	if (nr && found[0] != own)
		tmem_hints_correct(hints, r, found[0], own);
	return 0;
}

bool tmem_dedup_trim(struct tmem_store *store)
{
	return store->dedup.on && tmem_hints_fit(&store->dedup.hints,
						 &store->meta, nr_pages(store));
}

static void check_hint(void *arg, uint32_t hint)
{
	const struct tmem_store *store = arg;

	TMEM_INVARIANT("C9", hint >> NAME_BITS < store->nr_shards);
}

void tmem_dedup_check(struct tmem_store *store)
{
	uint32_t i;

	tmem_hints_check(&store->dedup.hints, check_hint, store);
	for (i = 0; i < store->nr_shards; i++)
		TMEM_INVARIANT("C9", atomic_load(&store->shards[i].nr_pages) ==
					     store->shards[i].stats.pages);
}
