/* SPDX-License-Identifier: MIT */
/*
 * Dictionaries in a restartable store's image: slots of their own, beside
 * those of durable.h.
 *
 * The content lies in *parts* of 2 KiB, each a slot whose header has the
 * dictionary's name (object), the part's number (index), the pool's number and
 * the same generation as all others of it; its data begins with a head that
 * says how much there is of what and for which pool.
 *
 *  - All parts are whole before anybody gets to know the name, and go after the
 *    last slot of a page that has it: so at any instruction a page's dictionary
 *    is there.  One that lacks a part has no pages, and is dropped.
 *  - A mark on the first part (TMEM_SLOT_ORPHAN) says that it is not its pool's
 *    current one.  It is taken off the new one before the old one gets it: of
 *    two without a mark the newer counts.
 *  - A pool is named by its id, which never comes again: a dictionary is never
 *    current in another pool that has the number now.
 *  - The parts are a circular list in any order, from the first on.
 */
#ifndef TMEM_CORE_DICTSLOT_H
#define TMEM_CORE_DICTSLOT_H

#include "dicts.h"

enum {
	TMEM_DICT_PART_BYTES = 2048,
	TMEM_DICT_MAX_PARTS = TMEM_DICT_MAX_BYTES / TMEM_DICT_PART_BYTES
};
_Static_assert(TMEM_DICT_MAX_BYTES % TMEM_DICT_PART_BYTES == 0 &&
		       TMEM_DICT_MAX_PARTS <= 32,
	       "a bit for each");

/* Before the content in each part: a format. */
struct tmem_dict_part {
	uint32_t pool; /* id */
	uint32_t content_bytes;
	uint32_t uses; /* enum tmem_dict_uses */
	uint32_t reserved;
};
_Static_assert(sizeof(struct tmem_dict_part) == 16, "a format");

/* What the slots of such a dictionary take; 0 if the store has none. */
uint32_t tmem_dictslot_bytes(const struct tmem_store *store,
			     unsigned content_bytes);
/*
 * The slots of a dictionary that nobody has yet, marked as not current; the
 * handle of the first, 0 if there is no memory.
 */
uint32_t tmem_dictslot_write(struct tmem_store *store, uint32_t name,
			     const struct tmem_dict_spec *spec)
	TMEM_REQUIRES(&store->control);
/* Takes handles as they are in a record: 0, there are none, does nothing. */
void tmem_dictslot_free(struct tmem_store *store, uint32_t first)
	TMEM_REQUIRES(&store->control);
void tmem_dictslot_mark(struct tmem_store *store, uint32_t first, bool current)
	TMEM_REQUIRES(&store->control);
/* Compaction has copied a part: the copy is the one that counts. */
void tmem_dictslot_moved(struct tmem_store *store, uint32_t from, uint32_t to);

/* Walks D4; returns how many slots there are. */
uint64_t tmem_dictslot_check(const struct tmem_store *store);

/* Recovery: what was found at each place of the table. */
struct tmem_dict_found {
	uint64_t generation; /* of the newest; 0: there is nothing */
	uint32_t name;
	uint32_t head;	/* the parts' list */
	uint32_t parts; /* a bit for each */
};

struct tmem_dict_scan {
	struct tmem_store *store;
	uint64_t stale; /* slots that were dropped */
	uint32_t nr;	/* places with something */
	struct tmem_dict_found found[TMEM_MAX_DICTS];
};

/* A whole slot of that form is there. */
void tmem_dictslot_note(struct tmem_dict_scan *scan,
			const struct tmem_slot *slot);
/*
 * The dictionaries that were noted come back, all parts of them being there,
 * once the pools have; the others' slots are cleared.  0, -ENOMEM or -ENOSPC.
 */
int tmem_dictslot_recover(struct tmem_dict_scan *scan);

#endif
