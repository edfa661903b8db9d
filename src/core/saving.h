/* SPDX-License-Identifier: MIT */
/*
 * What the store does while a snapshot is written (src/snapshot).
 *
 * EPOCHS.  A slot's generation begins with an epoch, of 24 bits.  A snapshot
 * begins by raising all shards to a new one, under all their locks, which
 * takes no longer for more pages: what has an earlier epoch was there at that
 * instant, what is stored from then on has not.  A page changed since an
 * earlier snapshot if its epoch is not below that one's.  A new form of old
 * content (cool.c) keeps the epoch.
 *
 * PINS.  The saver then walks the shards, some of the index at a time.  Who is
 * about to overwrite or drop a page that it has not come to *keeps* it: one
 * more reference to its slot, which holds the data even if the page goes, and
 * an entry in the shard's log.  The saver empties the logs as it goes.  A page
 * of an ephemeral pool may vanish, and does.
 *
 * A log and the counts of references need memory of the store.  If there is
 * none the snapshot fails, not the operation.
 *
 * Per shard, under its lock: pages whose place in the index is before `begin`
 * were sent; of those before `end` the names say so; the others were not.
 *
 *   V1  Pinned slots are those that the logs name, and what src/snapshot holds
 *       for a moment; nr_pinned counts them.
 */
#ifndef TMEM_CORE_SAVING_H
#define TMEM_CORE_SAVING_H

#include "core.h"

enum {
	TMEM_SEGMENT_ENTRIES = TMEM_SEGMENT_BUCKETS * TMEM_BUCKET_ENTRIES,
	TMEM_SAVING_NAMES = 2 * TMEM_SEGMENT_ENTRIES,
	TMEM_SAVING_LOG_ENTRIES = 102,
	TMEM_POOL_WORDS = TMEM_MAX_POOLS / 64
};

struct tmem_saving_name {
	struct tmem_object_id object;
	uint32_t index;
	uint16_t pool;
	uint8_t changed; /* since the earlier snapshot */
	uint8_t sent;	 /* or needs not be, as only its name is */
};
_Static_assert(sizeof(struct tmem_saving_name) == 32, "1280 of them");

struct tmem_saving_entry {
	struct tmem_saving_name name;
	uint32_t handle; /* pinned; 0 if the page has not changed */
	uint32_t zero;
};

struct tmem_saving_log {
	struct tmem_saving_log *next;
	uint64_t nr;
	struct tmem_saving_entry entries[TMEM_SAVING_LOG_ENTRIES];
};
_Static_assert(sizeof(struct tmem_saving_log) == 4096, "a page");

struct tmem_saving_part {
	uint32_t begin;
	uint32_t end;
	struct tmem_saving_log *_Atomic log;
};

struct tmem_saving {
	uint32_t epoch; /* pages of earlier ones belong to it */
	_Atomic int error;
	uint64_t pools[TMEM_POOL_WORDS];   /* by number */
	uint64_t pinning[TMEM_POOL_WORDS]; /* persistent ones of them */
	uint32_t since[TMEM_MAX_POOLS];	   /* epochs; 0: all pages changed */
	struct tmem_saving_part parts[TMEM_MAX_SHARDS];
	/* From `begin` to `end`, where the saver is; that shard's lock. */
	uint32_t nr_names;
	struct tmem_saving_name names[TMEM_SAVING_NAMES];
};

static inline bool tmem_saving_has(const uint64_t *set, uint32_t pool)
{
	return set[pool / 64] >> pool % 64 & 1;
}

bool tmem_saving_wants_now(struct tmem_store *store, struct tmem_shard *shard,
			   uint32_t handle) TMEM_REQUIRES(&shard->lock);
void tmem_saving_keep_now(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t handle) TMEM_REQUIRES(&shard->lock);

/* True if the page's slot must not be overwritten. */
static inline bool tmem_saving_wants(struct tmem_store *store,
				     struct tmem_shard *shard, uint32_t handle)
	TMEM_REQUIRES(&shard->lock)
{
	return __builtin_expect(shard->saving != NULL, 0) &&
	       tmem_saving_wants_now(store, shard, handle);
}

/* The page's slot is about to be given up. */
static inline void tmem_saving_keep(struct tmem_store *store,
				    struct tmem_shard *shard, uint32_t handle)
	TMEM_REQUIRES(&shard->lock)
{
	if (__builtin_expect(shard->saving != NULL, 0))
		tmem_saving_keep_now(store, shard, handle);
}

/*
 * One more reference to a page's data, and the slot that has it; 0: no memory.
 * unpin gives it up; any shard's lock will do.
 */
uint32_t tmem_saving_pin(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle) TMEM_REQUIRES(&shard->lock);
void tmem_saving_unpin(struct tmem_store *store, struct tmem_shard *shard,
		       uint32_t handle) TMEM_REQUIRES(&shard->lock);

#endif
