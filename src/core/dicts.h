/* SPDX-License-Identifier: MIT */
/*
 * The store's dictionaries: which there are, who uses them, when they go.
 *
 * A dictionary is made of pages of one private pool (learn.h), and only pages
 * stored in that pool are compressed with it: it is as secret as they are.  A
 * page in one of the two forms that have a dictionary (codecs/dict.h) begins
 * with its *name*, 16 bits: 7 for its place in the table, 9 that tell it from
 * others that were there before.  So a slot says all that is needed to read it,
 * and one that is damaged finds no dictionary rather than a wrong one.
 *
 * A pool has at most one *current* dictionary, for what is stored and cooled
 * from now on.  One that is not current any more keeps its pages until they
 * are replaced, compressed anew (cool.c) or gone.  Clones of a page keep it
 * alive as they keep the slot, whatever becomes of the pool.
 *
 * USERS.  Compressing and decompressing hold no lock, so whoever does either
 * is counted as a user: a load while its shard's lock (or a fork's silence)
 * keeps the page where it is; a store by counting itself first and asking
 * then whether the dictionary is still current.  The counts are in memory that
 * fork wipes: the child has no such users, and loads may count there while the
 * store is at rest.
 *
 * END.  tmem_dicts_sweep() frees a dictionary that is not current when it has
 * seen: no user (so no store will add a page, as none can become one), then
 * no slot (so there will be none), then no user once more (of those that
 * loaded its last pages).
 *
 * In a restartable store they outlive the process, in slots: dictslot.h.
 *
 * Pages without a dictionary cost a comparison of their form.
 *
 *   D1  A record's nr_slots is the number of slots in use, orphans too, that
 *       name it; a dictionary that a slot names is there.
 *   D2  A pool's current dictionary is there, was made for its number, and
 *       has the uses that the pool's word says.
 *   D3  All memory of dictionaries is metadata, accounted, but for D4's slots.
 *   D4  In a restartable store each has slots with its content, and a mark if
 *       it is not current.
 */
#ifndef TMEM_CORE_DICTS_H
#define TMEM_CORE_DICTS_H

#include <string.h>

#include "codecs/dict.h"
#include "core.h"

enum {
	TMEM_DICT_PLACE_BITS = 7,
	TMEM_DICT_NAME_BYTES = 2, /* before the data of a page */
	TMEM_DICT_USES_SHIFT = 16 /* in a pool's word, above the name */
};

struct tmem_dict_record {
	const struct tmem_dict *_Atomic dict; /* NULL: none */
	_Atomic uint32_t nr_slots;
	uint32_t pool; /* number */
	_Atomic uint16_t generation;
	_Atomic uint16_t nr_pages; /* of memory */
	uint32_t slot;		   /* the first one, 0: none; control lock */
	uint32_t reserved[2];
};

struct tmem_dict_table {
	struct tmem_dict_record records[TMEM_MAX_DICTS];
};
_Static_assert(sizeof(struct tmem_dict_table) == 4096, "a page");

/* A dictionary to be added. */
struct tmem_dict_spec {
	uint32_t name; /* 0: any; else what slots have that are there already */
	uint32_t pool; /* number */
	unsigned uses; /* enum tmem_dict_uses */
	unsigned content_bytes;
	const void *content; /* copied */
	uint32_t slot; /* recovery: its first one; 0: it gets them if need be */
};

/*
 * Adds a dictionary, which is not current yet.  0 and its name; -ENOMEM;
 * -ENOSPC if there are too many; -EEXIST if that name is taken; -EINVAL if its
 * content is none or its name can't be.
 */
int tmem_dicts_add(struct tmem_store *store, const struct tmem_dict_spec *spec,
		   uint32_t *ret_name) TMEM_REQUIRES(&store->control);
/* Makes it the current one of its pool. */
void tmem_dicts_make_current(struct tmem_store *store, uint32_t name)
	TMEM_REQUIRES(&store->control);
/* From now on the pool has no current one. */
void tmem_dicts_retire(struct tmem_store *store, uint32_t pool)
	TMEM_REQUIRES(&store->control);
/* Frees what nobody needs any more; how many there still are to be freed. */
unsigned tmem_dicts_sweep(struct tmem_store *store)
	TMEM_REQUIRES(&store->control);

/*
 * A dictionary by name, or NULL; for who is its user, or has one of its pages
 * under a lock that keeps it.  Its content is what another store would need.
 */
const struct tmem_dict *tmem_dicts_get(const struct tmem_store *store,
				       uint32_t name);

/* The number of the pool that it was made for, and is that its current one? */
uint32_t tmem_dicts_pool(const struct tmem_store *store, uint32_t name);
bool tmem_dicts_is_current(const struct tmem_store *store, uint32_t name);

/* How many there are of a pool beside the current one. */
unsigned tmem_dicts_old(const struct tmem_store *store, uint32_t pool);
/* How many there are, and their metadata, the table's too. */
unsigned tmem_dicts_sum(const struct tmem_store *store, uint64_t *ret_bytes);

/* Walks D1 and D2; slots[place] were found.  All locks are held. */
void tmem_dicts_check(const struct tmem_store *store,
		      const uint32_t slots[TMEM_MAX_DICTS]);

static inline bool tmem_form_has_dict(unsigned form)
{
	return form == TMEM_FORM_LZ4_DICT || form == TMEM_FORM_ZSTD_DICT;
}

/* The page itself is in the slot, and more of it than a word. */
static inline bool tmem_form_has_page(unsigned form)
{
	return form == TMEM_FORM_LZ4 || form == TMEM_FORM_RAW ||
	       form == TMEM_FORM_ZSTD || tmem_form_has_dict(form);
}

static inline uint32_t tmem_dict_name_of(uint32_t place, uint32_t generation)
{
	return generation << TMEM_DICT_PLACE_BITS | place;
}

static inline uint32_t tmem_dict_place(uint32_t name)
{
	return name & ((1u << TMEM_DICT_PLACE_BITS) - 1);
}

/* The name in a page's data. */
static inline uint32_t tmem_dict_name(const void *data)
{
	uint16_t name;

	memcpy(&name, data, sizeof(name));
	return name;
}

/* The dictionary that a slot names; 0: its form has none. */
static inline uint32_t tmem_dicts_of_slot(const struct tmem_slot *slot)
{
	unsigned form = tmem_slot_form(slot);

	/* A place in a tier (struct tmem_place) begins with it, too. */
	return tmem_form_has_dict(form) || form == TMEM_FORM_TIER
		       ? tmem_dict_name(slot->data)
		       : 0;
}

/* Is there whatever dictionary it takes to read that slot? */
bool tmem_dicts_can_read(const struct tmem_store *store,
			 const struct tmem_slot *slot);

static inline void tmem_dicts_hold(struct tmem_store *store, uint32_t name)
{
	atomic_fetch_add(&store->quiet->dict_users[tmem_dict_place(name)], 1);
}

static inline void tmem_dicts_release(struct tmem_store *store, uint32_t name)
{
	atomic_fetch_sub(&store->quiet->dict_users[tmem_dict_place(name)], 1);
}

/* The pool's current one if it is for that use, held; else 0. */
static inline uint32_t tmem_dicts_use(struct tmem_store *store, uint32_t pool,
				      enum tmem_dict_uses use)
{
	_Atomic uint32_t *current = &store->pools[pool].dict;
	uint32_t word = atomic_load_explicit(current, memory_order_relaxed);
	uint32_t name = word & 0xffff;

	if (!(word >> TMEM_DICT_USES_SHIFT & use))
		return 0;
	tmem_dicts_hold(store, name);
	if (atomic_load(current) == word)
		return name;
	tmem_dicts_release(store, name);
	return 0;
}

void tmem_dicts_count_one(struct tmem_store *store, uint32_t name, int nr);

/* A slot that names a dictionary comes or goes; 0: it names none. */
static inline void tmem_dicts_count(struct tmem_store *store, uint32_t name,
				    int nr)
{
	if (name)
		tmem_dicts_count_one(store, name, nr);
}

#endif
