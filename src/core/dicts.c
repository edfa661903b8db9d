/* SPDX-License-Identifier: MIT */
/* The store's dictionaries; the model is in dicts.h. */
#include "dicts.h"

#include <errno.h>

#include "dictslot.h"
#include "durable.h"

enum {
	GENERATIONS = 1 << (16 - TMEM_DICT_PLACE_BITS)
};
_Static_assert(TMEM_MAX_DICTS == 1 << TMEM_DICT_PLACE_BITS, "places");

/* The name's record, whatever is in it; NULL if there is no table. */
static struct tmem_dict_record *record_of(const struct tmem_store *store,
					  uint32_t name)
{
	struct tmem_dict_table *table = atomic_load(&store->dicts);

	return table ? &table->records[tmem_dict_place(name)] : NULL;
}

static bool is_current(const struct tmem_store *store,
		       const struct tmem_dict_record *r, uint32_t name)
{
	return (atomic_load(&store->pools[r->pool].dict) & 0xffff) == name;
}

const struct tmem_dict *tmem_dicts_get(const struct tmem_store *store,
				       uint32_t name)
{
	const struct tmem_dict_record *r = record_of(store, name);

	if (!r ||
	    name != tmem_dict_name_of(tmem_dict_place(name), r->generation))
		return NULL;
	return atomic_load(&r->dict);
}

uint32_t tmem_dicts_pool(const struct tmem_store *store, uint32_t name)
{
	return record_of(store, name)->pool;
}

bool tmem_dicts_is_current(const struct tmem_store *store, uint32_t name)
{
	return is_current(store, record_of(store, name), name);
}

bool tmem_dicts_can_read(const struct tmem_store *store,
			 const struct tmem_slot *slot)
{
	uint32_t name = tmem_dicts_of_slot(slot);

	if (!tmem_form_has_dict(tmem_slot_form(slot)))
		return !name || tmem_dicts_get(store, name);
	return slot->length > TMEM_DICT_NAME_BYTES &&
	       tmem_dicts_get(store, name);
}

void tmem_dicts_count_one(struct tmem_store *store, uint32_t name, int nr)
{
	if (tmem_dicts_get(store, name))
		atomic_fetch_add(&record_of(store, name)->nr_slots,
				 (uint32_t)nr);
}

static bool make_table(struct tmem_store *store)
{
	struct tmem_dict_table *table = atomic_load(&store->dicts);
	unsigned i;

	if (table)
		return true;
	table = tmem_meta_alloc(&store->meta, 1);
	if (!table)
		return false;
	for (i = 0; i < TMEM_MAX_DICTS; i++)
		table->records[i].generation = 1; /* no name is 0 */
	atomic_store(&store->dicts, table);
	return true;
}

/* Where it goes: the name's place, or the first that is free. */
static int find_place(struct tmem_store *store, uint32_t name)
{
	struct tmem_dict_table *table = atomic_load(&store->dicts);
	uint32_t i;

	if (name)
		return atomic_load(&table->records[tmem_dict_place(name)].dict)
			       ? -EEXIST
			       : (int)tmem_dict_place(name);
	for (i = 0; i < TMEM_MAX_DICTS; i++)
		if (!atomic_load(&table->records[i].dict))
			return (int)i;
	return -ENOSPC;
}

static int build(struct tmem_store *store, struct tmem_dict_record *r,
		 const struct tmem_dict_spec *spec)
{
	size_t bytes = tmem_dict_bytes(spec->content_bytes, spec->uses);
	unsigned nr_pages = (unsigned)((bytes + 4095) / 4096);
	const struct tmem_dict *dict;
	void *memory = NULL;
	int result;

	if (nr_pages <= TMEM_RUN_MAX_PAGES)
		memory = tmem_meta_alloc(&store->meta, nr_pages);
	if (!memory)
		return -ENOMEM;
	result = tmem_dict_build(memory, spec->content, spec->content_bytes,
				 spec->uses, &dict);
	if (result < 0) {
		tmem_meta_free(&store->meta, memory, nr_pages);
		return result;
	}
	r->pool = spec->pool;
	r->nr_pages = (uint16_t)nr_pages;
	atomic_store(&r->nr_slots, 0);
	atomic_store(&r->dict, dict);
	return 0;
}

/* Not before nobody has it any more; its name is another's then. */
static void destroy(struct tmem_store *store, struct tmem_dict_record *r)
	TMEM_REQUIRES(&store->control)
{
	const struct tmem_dict *dict = atomic_load(&r->dict);

	tmem_dictslot_free(store, r->slot);
	r->slot = 0;
	atomic_store(&r->dict, NULL);
	r->generation = (uint16_t)(r->generation % (GENERATIONS - 1)) + 1;
	/* It lies at the start of its memory. */
	tmem_meta_free(&store->meta, (void *)dict, r->nr_pages);
}

/* What the image needs to have of it, if there is one. */
static bool write_slots(struct tmem_store *store, struct tmem_dict_record *r,
			uint32_t name, const struct tmem_dict_spec *spec)
	TMEM_REQUIRES(&store->control)
{
	if (!tmem_store_lasts(store))
		return true;
	r->slot = spec->slot ? spec->slot
			     : tmem_dictslot_write(store, name, spec);
	return r->slot != 0;
}

int tmem_dicts_add(struct tmem_store *store, const struct tmem_dict_spec *spec,
		   uint32_t *ret_name)
{
	struct tmem_dict_record *r;
	int place, result;
	uint32_t name;

	if (spec->content_bytes < TMEM_DICT_MIN_BYTES ||
	    spec->content_bytes > TMEM_DICT_MAX_BYTES ||
	    spec->pool >= TMEM_MAX_POOLS || spec->name > UINT16_MAX ||
	    (spec->name && !(spec->name >> TMEM_DICT_PLACE_BITS)))
		return -EINVAL;
	if (!make_table(store))
		return -ENOMEM;
	place = find_place(store, spec->name);
	if (place < 0)
		return place;
	r = record_of(store, (uint32_t)place);
	if (spec->name)
		r->generation = (uint16_t)(spec->name >> TMEM_DICT_PLACE_BITS);
	result = build(store, r, spec);
	if (result < 0)
		return result;
	name = tmem_dict_name_of((uint32_t)place, r->generation);
	if (!write_slots(store, r, name, spec)) {
		destroy(store, r);
		return -ENOMEM;
	}
	*ret_name = name;
	return 0;
}

void tmem_dicts_make_current(struct tmem_store *store, uint32_t name)
{
	const struct tmem_dict_record *r = record_of(store, name);
	const struct tmem_dict *dict = tmem_dicts_get(store, name);
	uint32_t old;

	TMEM_ASSERT(dict);
	old = atomic_load(&store->pools[r->pool].dict) & 0xffff;
	tmem_dictslot_mark(store, r->slot, true);
	atomic_store(&store->pools[r->pool].dict,
		     name | dict->uses << TMEM_DICT_USES_SHIFT);
	if (old && old != name)
		tmem_dictslot_mark(store, record_of(store, old)->slot, false);
}

void tmem_dicts_retire(struct tmem_store *store, uint32_t pool)
{
	uint32_t name = atomic_load(&store->pools[pool].dict) & 0xffff;

	atomic_store(&store->pools[pool].dict, 0);
	if (name)
		tmem_dictslot_mark(store, record_of(store, name)->slot, false);
}

/* Not current, so its users become fewer only. */
static bool is_unused(struct tmem_store *store, uint32_t place,
		      struct tmem_dict_record *r)
{
	_Atomic uint32_t *users = &store->quiet->dict_users[place];

	return !atomic_load(users) && !atomic_load(&r->nr_slots) &&
	       !atomic_load(users);
}

unsigned tmem_dicts_sweep(struct tmem_store *store)
{
	struct tmem_dict_table *table = atomic_load(&store->dicts);
	const struct tmem_dict *dict;
	unsigned left = 0;
	uint32_t i;

	for (i = 0; table && i < TMEM_MAX_DICTS; i++) {
		struct tmem_dict_record *r = &table->records[i];

		dict = atomic_load(&r->dict);
		if (!dict ||
		    is_current(store, r, tmem_dict_name_of(i, r->generation)))
			continue;
		if (!is_unused(store, i, r)) {
			left++;
			continue;
		}
		destroy(store, r);
	}
	return left;
}

unsigned tmem_dicts_old(const struct tmem_store *store, uint32_t pool)
{
	struct tmem_dict_table *table = atomic_load(&store->dicts);
	unsigned nr = 0;
	uint32_t i;

	for (i = 0; table && i < TMEM_MAX_DICTS; i++) {
		const struct tmem_dict_record *r = &table->records[i];

		nr += atomic_load(&r->dict) && r->pool == pool &&
		      !is_current(store, r,
				  tmem_dict_name_of(i, r->generation));
	}
	return nr;
}

unsigned tmem_dicts_sum(const struct tmem_store *store, uint64_t *ret_bytes)
{
	struct tmem_dict_table *table = atomic_load(&store->dicts);
	uint64_t bytes = table ? 4096 : 0;
	unsigned nr = 0;
	uint32_t i;

	for (i = 0; table && i < TMEM_MAX_DICTS; i++) {
		struct tmem_dict_record *r = &table->records[i];

		if (!atomic_load(&r->dict))
			continue;
		bytes += r->nr_pages * 4096ull;
		nr++;
	}
	*ret_bytes = bytes;
	return nr;
}

void tmem_dicts_check(const struct tmem_store *store,
		      const uint32_t slots[TMEM_MAX_DICTS])
{
	struct tmem_dict_table *table = atomic_load(&store->dicts);
	uint32_t i, word;

	for (i = 0; i < TMEM_MAX_DICTS; i++) {
		TMEM_INVARIANT("D1", !slots[i] || table);
		TMEM_INVARIANT(
			"D1",
			!table || slots[i] ==
					  atomic_load(
						  &table->records[i].nr_slots));
		TMEM_INVARIANT("D1",
			       !slots[i] ||
				       atomic_load(&table->records[i].dict));
	}
	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		const struct tmem_dict *dict;

		word = atomic_load(&store->pools[i].dict);
		if (!word)
			continue;
		dict = tmem_dicts_get(store, word & 0xffff);
		TMEM_INVARIANT("D2", dict);
		TMEM_INVARIANT("D2", record_of(store, word)->pool == i);
		TMEM_INVARIANT("D2",
			       dict->uses == word >> TMEM_DICT_USES_SHIFT);
	}
}
