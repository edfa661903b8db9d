/* SPDX-License-Identifier: MIT */
/* Dictionaries' slots, and how they are found again; see dictslot.h. */
#include "dictslot.h"

#include <errno.h>

#include "durable.h"

enum {
	CONTENT_PAGES = (TMEM_DICT_MAX_BYTES + 4095) / 4096
};

static unsigned nr_parts(unsigned content_bytes)
{
	return (content_bytes + TMEM_DICT_PART_BYTES - 1) /
	       TMEM_DICT_PART_BYTES;
}

/* A part's data, the head included. */
static unsigned part_length(unsigned content_bytes, unsigned part)
{
	unsigned left = content_bytes - part * TMEM_DICT_PART_BYTES;

	if (left > TMEM_DICT_PART_BYTES)
		left = TMEM_DICT_PART_BYTES;
	return (unsigned)sizeof(struct tmem_dict_part) + left;
}

uint32_t tmem_dictslot_bytes(const struct tmem_store *store,
			     unsigned content_bytes)
{
	uint32_t bytes = 0;
	unsigned i;

	if (!tmem_store_lasts(store))
		return 0;
	for (i = 0; i < nr_parts(content_bytes); i++)
		bytes += tmem_slot_bytes(part_length(content_bytes, i));
	return bytes;
}

static uint32_t next_of(const struct tmem_store *store, uint32_t handle)
{
	return tmem_arena_link(&store->arena, handle)->next;
}

void tmem_dictslot_free(struct tmem_store *store, uint32_t first)
{
	uint32_t handle = first, next;

	if (!first)
		return;
	do {
		next = next_of(store, handle);
		tmem_arena_release(&store->arena, handle);
		handle = next;
	} while (handle != first);
}

static void fill_part(struct tmem_store *store, struct tmem_slot *slot,
		      const struct tmem_dict_spec *spec)
{
	struct tmem_dict_part head = {
		.pool = atomic_load(&store->pools[spec->pool].id),
		.content_bytes = spec->content_bytes,
		.uses = spec->uses,
	};
	const char *content = spec->content;

	slot->length = (uint16_t)part_length(spec->content_bytes, slot->index);
	memcpy(slot->data, &head, sizeof(head));
	memcpy(slot->data + sizeof(head),
	       content + (size_t)slot->index * TMEM_DICT_PART_BYTES,
	       slot->length - sizeof(head));
}

uint32_t tmem_dictslot_write(struct tmem_store *store, uint32_t name,
			     const struct tmem_dict_spec *spec)
{
	uint64_t word = (uint64_t)TMEM_FORM_DICT << TMEM_SLOT_FORM_SHIFT |
			TMEM_SLOT_ORPHAN | ++store->generation;
	unsigned i = nr_parts(spec->content_bytes);
	uint32_t first = 0, handle;

	while (i-- > 0) {
		struct tmem_slot *slot;

		handle = tmem_arena_alloc(
			&store->arena, part_length(spec->content_bytes, i), 0);
		if (!handle) {
			tmem_dictslot_free(store, first);
			return 0;
		}
		tmem_arena_list_add(&store->arena, &first, handle);
		slot = tmem_arena_slot(&store->arena, handle);
		slot->object = name;
		slot->index = i;
		slot->place = tmem_slot_place(spec->pool, 0);
		fill_part(store, slot, spec);
		tmem_slot_publish(slot, word);
	}
	return first;
}

void tmem_dictslot_mark(struct tmem_store *store, uint32_t first, bool current)
{
	struct tmem_slot *slot;

	if (!first)
		return;
	slot = tmem_arena_slot(&store->arena, first);
	if (current == !(tmem_slot_word(slot) & TMEM_SLOT_ORPHAN))
		return;
	/* Nobody else writes to that word. */
	__atomic_fetch_xor(&slot->form_generation, TMEM_SLOT_ORPHAN,
			   __ATOMIC_RELEASE);
}

static struct tmem_dict_record *record_of(const struct tmem_store *store,
					  uint32_t name)
{
	return &atomic_load(&store->dicts)->records[tmem_dict_place(name)];
}

void tmem_dictslot_moved(struct tmem_store *store, uint32_t from, uint32_t to)
{
	uint32_t name = tmem_arena_slot(&store->arena, from)->object;

	tmem_arena_list_replace(&store->arena, &record_of(store, name)->slot,
				from, to);
}

/* Recovery, by one thread: no locks are taken. */

static struct tmem_dict_part head_of(const struct tmem_slot *slot)
{
	struct tmem_dict_part head;

	memcpy(&head, slot->data, sizeof(head));
	return head;
}

/* Can there be such a part? */
static bool is_part(const struct tmem_slot *slot)
{
	uint32_t pool = tmem_slot_pool(slot);
	struct tmem_dict_part head;

	if (slot->length < sizeof(head) || slot->object > UINT16_MAX ||
	    !(slot->object >> TMEM_DICT_PLACE_BITS) || pool >= TMEM_MAX_POOLS ||
	    tmem_slot_shard(slot))
		return false;
	head = head_of(slot);
	return head.content_bytes >= TMEM_DICT_MIN_BYTES &&
	       head.content_bytes <= TMEM_DICT_MAX_BYTES && head.uses &&
	       !(head.uses & ~(TMEM_DICT_LZ4 | TMEM_DICT_ZSTD)) &&
	       !head.reserved &&
	       (!head.pool || tmem_pool_number(head.pool) == pool) &&
	       slot->index < nr_parts(head.content_bytes) &&
	       slot->length == part_length(head.content_bytes, slot->index);
}

static struct tmem_dict_found *found_at(struct tmem_dict_scan *scan,
					const struct tmem_slot *slot)
{
	return &scan->found[tmem_dict_place(slot->object)];
}

void tmem_dictslot_note(struct tmem_dict_scan *scan,
			const struct tmem_slot *slot)
{
	uint64_t generation = tmem_slot_generation(slot);
	struct tmem_dict_found *found = found_at(scan, slot);

	if (generation > scan->store->generation)
		scan->store->generation = generation;
	if (!is_part(slot) || generation <= found->generation)
		return;
	scan->nr += !found->generation;
	found->generation = generation;
	found->name = slot->object;
}

static void drop(struct tmem_dict_scan *scan, struct tmem_slot *slot)
{
	tmem_slot_clear(slot);
	scan->stale++;
}

/* A part of what is at its place, once; whatever else has that form goes. */
static void collect(void *arg, uint32_t handle, struct tmem_slot *slot)
{
	struct tmem_dict_scan *scan = arg;
	struct tmem_arena *arena = &scan->store->arena;
	struct tmem_dict_found *found;

	if (tmem_slot_form(slot) != TMEM_FORM_DICT ||
	    !tmem_arena_is_sound(arena, handle) || !is_part(slot))
		return;
	found = found_at(scan, slot);
	if (found->generation != tmem_slot_generation(slot) ||
	    found->name != slot->object || (found->parts >> slot->index & 1)) {
		drop(scan, slot);
		return;
	}
	found->parts |= 1u << slot->index;
	tmem_arena_list_add(arena, &found->head, handle);
}

static void drop_parts(struct tmem_dict_scan *scan,
		       const struct tmem_dict_found *found)
{
	uint32_t handle = found->head;

	do {
		drop(scan, tmem_arena_slot(&scan->store->arena, handle));
		handle = next_of(scan->store, handle);
	} while (handle != found->head);
}

/*
 * Are all parts there, of one and the same?  Then their content is put
 * together, and the list begins with the first.
 */
static bool gather(const struct tmem_store *store,
		   struct tmem_dict_found *found, char *content)
{
	uint32_t handle = found->head, first = 0;
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct tmem_dict_part want = head_of(slot), head;
	uint16_t place = slot->place;

	if (found->parts != UINT32_MAX >> (32 - nr_parts(want.content_bytes)))
		return false;
	do {
		slot = tmem_arena_slot(&store->arena, handle);
		head = head_of(slot);
		if (memcmp(&head, &want, sizeof(head)) != 0 ||
		    slot->place != place)
			return false;
		memcpy(content + (size_t)slot->index * TMEM_DICT_PART_BYTES,
		       slot->data + sizeof(head), slot->length - sizeof(head));
		if (!slot->index)
			first = handle;
		handle = next_of(store, handle);
	} while (handle != found->head);
	found->head = first;
	return true;
}

static int keep_parts(struct tmem_store *store, uint32_t first)
{
	uint32_t handle = first;
	int r;

	do {
		r = tmem_arena_keep(&store->arena, handle);
		handle = next_of(store, handle);
	} while (r == 0 && handle != first);
	return r;
}

/* 0, -ENOMEM or -ENOSPC; what can't be a dictionary is dropped. */
static int restore(struct tmem_dict_scan *scan, struct tmem_dict_found *found,
		   char *content) TMEM_UNANALYSED
{
	struct tmem_store *store = scan->store;
	struct tmem_dict_spec spec = { .name = found->name,
				       .content = content };
	struct tmem_dict_part head;
	uint32_t name;
	int r = -EINVAL;

	if (gather(store, found, content)) {
		head = head_of(tmem_arena_slot(&store->arena, found->head));
		spec.pool = tmem_slot_pool(
			tmem_arena_slot(&store->arena, found->head));
		spec.uses = head.uses;
		spec.content_bytes = head.content_bytes;
		spec.slot = found->head;
		r = tmem_dicts_add(store, &spec, &name);
	}
	if (r == -ENOMEM)
		return r;
	if (r == 0)
		return keep_parts(store, found->head);
	drop_parts(scan, found);
	found->head = 0;
	return 0;
}

static uint64_t word_of(const struct tmem_store *store, uint32_t handle)
{
	return tmem_slot_word(tmem_arena_slot(&store->arena, handle));
}

/* Is it the one that its pool, the same as ever, goes on with? */
static bool should_be_current(const struct tmem_dict_scan *scan,
			      const struct tmem_dict_found *found)
{
	const struct tmem_store *store = scan->store;
	const struct tmem_slot *slot =
		tmem_arena_slot(&store->arena, found->head);
	struct tmem_dict_part head = head_of(slot);
	uint32_t pool = tmem_slot_pool(slot), other;

	other = atomic_load(&store->pools[pool].dict);
	return !(word_of(store, found->head) & TMEM_SLOT_ORPHAN) && head.pool &&
	       head.pool == atomic_load(&store->pools[pool].id) &&
	       !tmem_pool_has(store, pool, TMEM_POOL_SHARED) &&
	       (!other ||
		found->generation > scan->found[tmem_dict_place(other & 0xffff)]
					    .generation);
}

static void settle(struct tmem_dict_scan *scan) TMEM_UNANALYSED
{
	struct tmem_store *store = scan->store;
	unsigned i;

	for (i = 0; i < TMEM_MAX_DICTS; i++) {
		const struct tmem_dict_found *found = &scan->found[i];

		if (!found->head)
			continue;
		if (should_be_current(scan, found))
			tmem_dicts_make_current(store, found->name);
		else
			tmem_dictslot_mark(store, found->head, false);
		/* Pages may still be on their way to it. */
		store->cool_again = 1;
	}
}

int tmem_dictslot_recover(struct tmem_dict_scan *scan) TMEM_UNANALYSED
{
	struct tmem_store *store = scan->store;
	char *content;
	unsigned i;
	int r = 0;

	if (!scan->nr)
		return 0;
	content = tmem_meta_alloc(&store->meta, CONTENT_PAGES);
	if (!content)
		return -ENOMEM;
	tmem_arena_scan(&store->arena, collect, scan);
	for (i = 0; i < TMEM_MAX_DICTS && r == 0; i++)
		if (scan->found[i].head)
			r = restore(scan, &scan->found[i], content);
	if (r == 0)
		settle(scan);
	tmem_meta_free(&store->meta, content, CONTENT_PAGES);
	return r;
}

static void check_part(const struct tmem_store *store, uint32_t handle,
		       const struct tmem_dict *dict)
{
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	struct tmem_dict_part head = head_of(slot);

	TMEM_INVARIANT("D4", tmem_arena_is_whole(&store->arena, handle));
	TMEM_INVARIANT("D4", tmem_slot_form(slot) == TMEM_FORM_DICT);
	TMEM_INVARIANT("D4", is_part(slot));
	TMEM_INVARIANT("D4", head.content_bytes == dict->content_bytes);
	TMEM_INVARIANT("D4", head.uses == dict->uses);
	TMEM_INVARIANT("D4",
		       !memcmp(slot->data + sizeof(head),
			       dict->content + (size_t)slot->index *
						       TMEM_DICT_PART_BYTES,
			       slot->length - sizeof(head)));
}

/* Each part once, in any order, the first at the head; how many. */
static unsigned check_parts(const struct tmem_store *store, uint32_t name,
			    const struct tmem_dict_record *r,
			    const struct tmem_dict *dict)
{
	const struct tmem_slot *slot, *first;
	uint32_t handle = r->slot, parts = 0;
	unsigned nr = nr_parts(dict->content_bytes);

	first = tmem_arena_slot(&store->arena, handle);
	TMEM_INVARIANT("D4", first->index == 0);
	do {
		slot = tmem_arena_slot(&store->arena, handle);
		check_part(store, handle, dict);
		TMEM_INVARIANT("D4", slot->object == name);
		TMEM_INVARIANT("D4", tmem_slot_pool(slot) == r->pool);
		TMEM_INVARIANT("D4", tmem_slot_generation(slot) ==
					     tmem_slot_generation(first));
		TMEM_INVARIANT("D4", !(parts >> slot->index & 1));
		parts |= 1u << slot->index;
		handle = next_of(store, handle);
	} while (handle != r->slot);
	TMEM_INVARIANT("D4", parts == UINT32_MAX >> (32 - nr));
	return nr;
}

uint64_t tmem_dictslot_check(const struct tmem_store *store)
{
	uint64_t nr = 0;
	uint32_t i;

	for (i = 0; atomic_load(&store->dicts) && i < TMEM_MAX_DICTS; i++) {
		const struct tmem_dict_record *r = record_of(store, i);
		const struct tmem_dict *dict = atomic_load(&r->dict);
		uint32_t name = tmem_dict_name_of(i, r->generation);
		bool current;

		TMEM_INVARIANT("D4",
			       !r->slot || (dict && tmem_store_lasts(store)));
		if (!dict || !tmem_store_lasts(store))
			continue;
		TMEM_INVARIANT("D4", r->slot);
		nr += check_parts(store, name, r, dict);
		current = (atomic_load(&store->pools[r->pool].dict) & 0xffff) ==
			  name;
		TMEM_INVARIANT("D4", current != !!(word_of(store, r->slot) &
						   TMEM_SLOT_ORPHAN));
	}
	return nr;
}
