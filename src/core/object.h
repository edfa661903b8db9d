/* SPDX-License-Identifier: MIT */
/*
 * Objects and the entries of their pages: interning, and what adding and
 * dropping a page does to index, object list, gauges and arena.  Everything
 * here needs the shard's lock.
 */
#ifndef TMEM_CORE_OBJECT_H
#define TMEM_CORE_OBJECT_H

#include "core.h"

/* The hash under which the index has a reference. */
uint64_t tmem_object_ref_hash(const struct tmem_store *store, uint32_t ref);

/* The number of the object's record in that shard, or 0. */
uint32_t tmem_object_find(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t pool, const struct tmem_object_id *id)
	TMEM_REQUIRES(&shard->lock);

/* Where the index has the page's handle, or NULL. */
uint32_t *tmem_object_find_page(struct tmem_store *store,
				const struct tmem_key *key)
	TMEM_REQUIRES(&key->shard->lock);

/*
 * A slot for a page that is not there, linked and indexed, its header but for
 * length, form and checksum filled in.  0 if there is no memory.
 */
uint32_t tmem_object_add_page(struct tmem_store *store,
			      const struct tmem_key *key, unsigned length)
	TMEM_REQUIRES(&key->shard->lock);

/*
 * Fills in form, length and data, seals the slot, counts it.  The slot must
 * not be counted already: see tmem_object_uncount().
 */
void tmem_object_fill(struct tmem_store *store, struct tmem_shard *shard,
		      uint32_t handle, unsigned form, const void *data,
		      unsigned length) TMEM_REQUIRES(&shard->lock);

/* Takes the page off the gauges, before it is overwritten. */
void tmem_object_uncount(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle) TMEM_REQUIRES(&shard->lock);

/*
 * Turns an index entry to a new slot for `length` bytes, to be filled, and
 * returns the old one, which is then to be released (so that at each moment
 * one of the two is whole); 0: no memory.
 */
uint32_t tmem_object_move_page(struct tmem_store *store,
			       struct tmem_shard *shard, uint32_t *entry,
			       unsigned length) TMEM_REQUIRES(&shard->lock);
/* The page's slot goes, index and list having let go of it. */
void tmem_object_release(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle) TMEM_REQUIRES(&shard->lock);

/*
 * Moves a page's slot, as it is, to a ready one of the same size; false: there
 * is none.  Its place in lists and queues stays.
 */
bool tmem_object_relocate(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t handle) TMEM_REQUIRES(&shard->lock);

/*
 * The same for a slot that others refer to, who follow later: it becomes an
 * orphan, and is noted as moved.  The caller holds it.
 */
bool tmem_object_relocate_shared(struct tmem_store *store,
				 struct tmem_shard *shard, uint32_t handle)
	TMEM_REQUIRES(&shard->lock);
/*
 * If the index still has that handle under that hash, and it is a reference to
 * what has moved, it follows: then true.
 */
bool tmem_object_redirect(struct tmem_store *store, struct tmem_shard *shard,
			  uint64_t hash, uint32_t handle)
	TMEM_REQUIRES(&shard->lock);

struct tmem_object_form {
	unsigned form;
	unsigned length;
	const void *data;
};
/*
 * The same content in another form: its place in lists and queues stays, and
 * its epoch.  False: no memory.
 */
bool tmem_object_change_form(struct tmem_store *store, struct tmem_shard *shard,
			     uint32_t *entry,
			     const struct tmem_object_form *new)
	TMEM_REQUIRES(&shard->lock);

/*
 * Record number `nr`, which is zeroed and not durable yet, becomes the key's
 * object; false: no memory, and it is as it was.  free: and its slot, if any.
 */
bool tmem_object_init(struct tmem_store *store, const struct tmem_key *key,
		      uint32_t nr) TMEM_REQUIRES(&key->shard->lock);
void tmem_object_free(struct tmem_store *store, struct tmem_shard *shard,
		      uint32_t nr) TMEM_REQUIRES(&shard->lock);

/* A reference's target has one user less. */
void tmem_object_unrefer(struct tmem_store *store, struct tmem_shard *shard,
			 const struct tmem_slot *reference)
	TMEM_REQUIRES(&shard->lock);
/* A slot in use that others refer to has no owner. */
void tmem_object_adopt_orphan(struct tmem_store *store,
			      struct tmem_shard *shard, uint32_t handle)
	TMEM_REQUIRES(&shard->lock);
/* A whole slot that names the page joins index, list, queue and gauges. */
bool tmem_object_adopt_page(struct tmem_store *store,
			    const struct tmem_key *key, uint32_t handle)
	TMEM_REQUIRES(&key->shard->lock);
/* Gives up one reference to a slot, whose bytes go with the last. */
void tmem_object_unshare(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle) TMEM_REQUIRES(&shard->lock);

/* The same, but its memory stays, idle, until somebody gives it back. */
void tmem_object_unshare_moved(struct tmem_store *store,
			       struct tmem_shard *shard, uint32_t handle)
	TMEM_REQUIRES(&shard->lock);

/* Removes a page from index, list, gauges and arena. */
void tmem_object_drop_page(struct tmem_store *store, struct tmem_shard *shard,
			   uint32_t handle) TMEM_REQUIRES(&shard->lock);

/*
 * Drops up to `max` of an object's pages, the oldest first; the record goes
 * with the last.  Returns how many.
 */
uint32_t tmem_object_drop(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t nr, uint32_t max)
	TMEM_REQUIRES(&shard->lock);

#endif
