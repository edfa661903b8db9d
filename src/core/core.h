/* SPDX-License-Identifier: MIT */
/*
 * The page store: its parts and how they fit together.
 *
 * A page is named by pool, 192-bit object and 32-bit index.  The key's hash
 * picks one of 16 or 64 *shards*; all that there is to know about the page
 * hangs under that shard's lock:
 *
 *   index     hash -> reference: a slot's handle, or an object record's number
 *             with the top bit set (so one structure finds both);
 *   slot      the stored page itself, naming its object by number (arena/);
 *   object    a record with the 192 bits and the list of its slots.
 *
 * Sixteen neighbouring indexes of an object fall into the same shard, and an
 * object has a record in each shard where it has pages: so no operation on a
 * page needs more than its shard's lock, a small object costs one record, and
 * invalidating an object walks its own lists only.
 *
 * STORE.  The page is compressed into a *scratch* without the shard's lock.
 * Then, under it: the old slot is overwritten if the new data has its size
 * class and nobody shares it, else a new slot is filled and the index entry
 * turned to it.  If there is no memory for it, the old page is removed.
 *
 * CLONE.  A slot of the new pool holds either the same word (same-filled
 * pages) or a reference to the slot that has the data, which is counted; the
 * data goes with its last user.
 *
 * TIER.  A slot may say where below RAM the page is: see tiering.h.
 *
 * FORK.  before_fork waits for what is in flight by taking every lock that an
 * operation begins with (control, scratches, shards), and closes them.  Loads
 * that find their shard closed read without a lock and are counted in a page
 * of its own that fork(2) wipes (MADV_WIPEONFORK): after_fork reopens the
 * locks, waits until that count is 0 and releases them.
 *
 * LOCK ORDER.  control > scratch > shard > hints > class > records > meta >
 * pages > cluster > tier.
 *
 * Dictionaries: dicts.h, with D1-D4.  What a restartable store has beside its
 * pages: durable.h, with U1-U3.
 *
 *   C1  Each index entry of a slot is found under the key that the slot and
 *       its object name, in that key's shard; the slot is whole.
 *   C2  Each object record has an index entry, is on its pool's list, has at
 *       least one page, and its list holds nr_pages slots that name it.
 *   C3  Slots in use == index entries of slots + orphans + those of U1.
 *   C4  Reference slots + pinned ones (saving.h, and where slots have moved)
 *       == sum of share counts; what they name has data.
 *   C5  held_bytes == fixed + scratches + metadata + touched data pages +
 *       chunk headers + what the tiers have.
 *   C6  The gauges (pages by form, bytes, objects) are what a walk counts.
 *   C7  An object's pool is live.
 *   C8  A pool's bytes are those of its slots, if it is ephemeral; and all its
 *       pages are on its queues (Q1, Q2); ephemeral_pages counts them.
 *   C9  A shard's nr_pages is its number of pages; hints name shards (H1, H2).
 */
#ifndef TMEM_CORE_CORE_H
#define TMEM_CORE_CORE_H

#include <tmem/stats.h>
#include <tmem/store.h>

#include "arena/arena.h"
#include "base/hash.h"
#include "base/lock.h"
#include "codecs/codec.h"
#include "ghost.h"
#include "hints.h"
#include "index.h"
#include "policy.h"

enum {
	TMEM_MAX_POOLS = 256,
	TMEM_OBJECT_LISTS = 16, /* of a shard */
	TMEM_MAX_CLIENTS = 64,
	TMEM_MAX_SHARDS = 64,
	TMEM_FEW_SHARDS = 16,
	TMEM_MAX_SCRATCHES = 16,
	TMEM_SCRATCH_PAGES = 6,
	TMEM_MAX_UNZIPS = 4,
	TMEM_MAX_DICTS = 128,
	TMEM_SWEEP_FEW = 2 * TMEM_LEAVING_MAX,
	/* A sweep is for more than that part of all data pages. */
	TMEM_SWEEP_WORTH = 32
};

/* Below this a store is not worth 64 index pages. */
#define TMEM_MANY_SHARDS_BYTES (4ull << 30)
/* Marks a reference as an object record's number. */
#define TMEM_REF_OBJECT 0x80000000u
/* An object's client is not known any more: it counts as whoever leaves. */
#define TMEM_CLIENT_UNKNOWN UINT32_MAX

struct tmem_object {
	uint64_t hash; /* of pool and id */
	struct tmem_object_id id;
	uint32_t pool; /* number */
	uint32_t head; /* a slot's handle; its list is circular */
	uint32_t nr_pages;
	uint32_t next; /* object number on the shard's list, 0: last */
	uint32_t prev;
	uint32_t client; /* the last that stored or loaded; shared pools */
	uint32_t slot;	 /* durable.h; 0: the store is not restartable */
};
_Static_assert(sizeof(struct tmem_object) <= 64, "64 to a page");

/*
 * The lock's cache line moves from CPU to CPU with it; what every operation
 * counts is on it, what every operation only reads (the index) is not.
 */
struct tmem_shard {
	_Alignas(64) struct tmem_lock lock;
	_Atomic uint32_t nr_pages;
	uint64_t generation;	 /* epoch << 32 | counter */
	struct tmem_stats stats; /* this shard's part */
	_Alignas(64) struct tmem_index index;
	struct tmem_saving *saving; /* saving.h; NULL: no snapshot */
	/* Lists of object numbers, by pool; who drops a pool's goes along. */
	uint32_t objects[TMEM_OBJECT_LISTS];
	uint32_t walk; /* the next one for who does; 0: nobody, or no more */
};

/* A thread's working memory while it compresses. */
struct tmem_scratch {
	struct tmem_lock lock;
	_Atomic uint32_t ready; /* memory is there */
	_Atomic uint64_t user;	/* the last one's stack */
	char *memory;
};

/* Equal pages: dedup.h. */
struct tmem_dedup {
	bool on;
	uint32_t nr_seeds; /* ever made; control lock */
	uint64_t secret;
	_Atomic uint32_t groups[TMEM_MAX_CLIENTS]; /* 0: in none */
	struct tmem_hints hints;
};

struct tmem_queues;
struct tmem_saving;

/* What maintenance took of the CPU, and may take: maintain.c. */
struct tmem_work {
	uint32_t percent; /* of a CPU; 0: all of it */
	uint64_t last_ns; /* when `left_ns` was true */
	int64_t left_ns;
	_Atomic uint64_t cpu_ns; /* so far: cooling and learning */
	_Atomic uint64_t trainings;
	_Atomic uint64_t adopted;
};

enum tmem_sweep_stage {
	TMEM_SWEEP_NONE = 0,
	TMEM_SWEEP_GATHER, /* spans leave, their slots move */
	TMEM_SWEEP_FOLLOW, /* references follow */
	TMEM_SWEEP_FORGET, /* where slots have moved */
	TMEM_SWEEP_SETTLE  /* spans go */
};

/* Spans with shared slots that are leaving: sweep.c.  Control lock. */
struct tmem_sweep {
	enum tmem_sweep_stage stage;
	uint32_t nr;		       /* spans */
	uint32_t at;		       /* of them */
	uint32_t pos[TMEM_MAX_SHARDS]; /* where the walk is */
	uint32_t nr_pages;	       /* of `spans` */
	uint32_t *spans;
	uint32_t few[TMEM_SWEEP_FEW]; /* if there is no memory for them */
	uint64_t copied_bytes;
	uint64_t may_copy_bytes;
	uint64_t freed_bytes; /* of what was copied */
	uint64_t left_bytes;  /* the excess that the last one could not help */
	uint32_t worth_part;  /* TMEM_SWEEP_WORTH; tests */
};

struct tmem_pool {
	_Atomic uint32_t id;	  /* 0: not live */
	_Atomic uint32_t flags;	  /* enum tmem_pool_flags; fixed while live */
	uint32_t generation;	  /* of this number; control lock */
	uint32_t used;		  /* the number is; control lock */
	_Atomic uint64_t clients; /* a bit for each that may use it */
	_Atomic uint64_t staged;  /* for whom it is being restored: pool.h */
	_Atomic uint64_t bytes;	  /* of an ephemeral pool's slots */
	/* dicts.h: name and uses of the current one; 0: none. */
	_Atomic uint32_t dict;
	uint64_t uuid[2];
	uint32_t slot; /* durable.h; control lock */
	/* queue.h.  Once made it stays with the number, for the next pool. */
	struct tmem_queues *_Atomic queues;
};

/* What fork(2) wipes: loads in flight that hold no lock; who maintains. */
struct tmem_quiet {
	_Atomic uint32_t nr_readers;
	_Atomic uint32_t maintaining;
	_Atomic uint32_t unzip_waits; /* not only one is wanted */
	_Atomic uint32_t parent;      /* of a fork, not its child */
	_Atomic uint32_t cooling;     /* cool.c: its memory is as it left it */
	_Atomic uint32_t dict_users[TMEM_MAX_DICTS]; /* dicts.h */
};

/* Working memory to read forms that need some; fork(2) wipes it: unzip.c. */
struct tmem_unzip {
	_Atomic uint32_t busy; /* futex: 0 free, 1 taken, 2 somebody waits */
	_Alignas(64) char memory[TMEM_ZSTD_DECOMPRESS_BYTES];
};

struct tmem_store {
	uint64_t magic;
	uint64_t max_limit_bytes;
	size_t mapped_bytes; /* of this struct and the image's, rounded up */
	size_t fixed_bytes;  /* and of `quiet`, and what the image takes */
	uint32_t nr_shards;
	uint32_t no_raw;
	struct tmem_quiet *quiet;
	struct tmem_client *client; /* the default one */
	_Atomic uint32_t client_records[TMEM_MAX_CLIENTS];
	struct tmem_lock control;
	_Alignas(64) struct tmem_account account;
	struct tmem_meta meta;
	struct tmem_records objects;
	struct tmem_records clients;
	struct tmem_dedup dedup;
	struct tmem_ghost ghost;
	struct tmem_image *image; /* a restartable store's arena is there */
	uint64_t generation;	  /* of clients and pools; control lock */
	_Atomic uint64_t ephemeral_pages;
	_Atomic uint64_t nr_pinned; /* slots; saving.h */
	struct tmem_saving *saving; /* the one going on; control lock */
	uint64_t identity; /* random, drawn for the first snapshot; the same */
	uint32_t compact_hand; /* the class; control lock */
	struct tmem_sweep sweep;
	uint64_t cool_after_ns;	      /* 0: pages keep their form */
	struct tmem_cool *cool;	      /* cool.c; who maintains */
	struct tmem_tiering *tiering; /* tiering.h; NULL: no tier */
	uint32_t marks_cold;	      /* loads take the mark off */
	struct tmem_unzip *_Atomic unzips[TMEM_MAX_UNZIPS];
	_Atomic uint32_t evict_hand; /* the shard, and a random number */
	_Atomic uint32_t weights[TMEM_MAX_CLIENTS]; /* 0: no such client */
	/* evict.c: the small queues' part in percent, and when it is next set.
	 */
	_Atomic uint32_t small_part[TMEM_MAX_CLIENTS];
	_Atomic uint32_t evictions[TMEM_MAX_CLIENTS];
	struct tmem_scratch scratches[TMEM_MAX_SCRATCHES];
	struct tmem_pool pools[TMEM_MAX_POOLS];
	struct tmem_policy policy;
	struct tmem_arena arena;
	struct tmem_dict_table *_Atomic dicts;
	uint64_t dict_every_ns;		  /* 0: no pool learns */
	struct tmem_learn *_Atomic learn; /* learn.c; who maintains */
	size_t learn_bytes;		  /* of that mapping */
	struct tmem_notes *notes;	  /* the same */
	_Atomic uint32_t cool_again;	  /* cool.c: a dictionary has changed */
	struct tmem_work work;		  /* maintain.c */
	struct tmem_shard shards[];
};

/* A page's name, hashed. */
struct tmem_key {
	const struct tmem_object_id *object;
	uint32_t pool; /* number */
	uint32_t index;
	uint64_t object_hash;
	uint64_t hash;
	struct tmem_shard *shard;
};

static inline struct tmem_object *tmem_object_nr(const struct tmem_store *store,
						 uint32_t nr)
{
	return tmem_records_get(&store->objects, nr,
				sizeof(struct tmem_object));
}

/* The list that has a pool's objects, and those of some others. */
static inline uint32_t *tmem_object_list(struct tmem_shard *shard,
					 uint32_t pool)
{
	return &shard->objects[pool % TMEM_OBJECT_LISTS];
}

static inline uint64_t tmem_object_hash(uint32_t pool,
					const struct tmem_object_id *id)
{
	uint64_t h = tmem_hash_word(id->word[0] + pool * TMEM_HASH_K0);

	h = tmem_hash_more(h, id->word[1]);
	return tmem_hash_more(h, id->word[2]);
}

/* Sixteen neighbours share this, and so their shard. */
static inline uint64_t tmem_block_hash(uint64_t object_hash, uint32_t index)
{
	return tmem_hash_more(object_hash, index >> 4);
}

static inline uint64_t tmem_page_hash(uint64_t block_hash, uint32_t index)
{
	return tmem_hash_more(block_hash, index & 15);
}

static inline struct tmem_shard *tmem_shard_of(struct tmem_store *store,
					       uint64_t block_hash)
{
	return &store->shards[block_hash >> 32 & (store->nr_shards - 1)];
}

static inline struct tmem_key tmem_key_of(struct tmem_store *store,
					  uint32_t pool,
					  const struct tmem_object_id *object,
					  uint32_t index)
{
	uint64_t object_hash = tmem_object_hash(pool, object);
	uint64_t block = tmem_block_hash(object_hash, index);

	return (struct tmem_key){
		.object = object,
		.pool = pool,
		.index = index,
		.object_hash = object_hash,
		.hash = tmem_page_hash(block, index),
		.shard = tmem_shard_of(store, block),
	};
}

/* The hash of the page that a slot names. */
static inline uint64_t tmem_slot_hash(const struct tmem_store *store,
				      const struct tmem_slot *slot)
{
	uint64_t object = tmem_object_nr(store, slot->object)->hash;

	return tmem_page_hash(tmem_block_hash(object, slot->index),
			      slot->index);
}

static inline uint32_t tmem_pool_number(tmem_pool_id pool)
{
	return pool % TMEM_MAX_POOLS;
}

static inline bool tmem_pool_has(const struct tmem_store *store,
				 uint32_t number, enum tmem_pool_flags flag)
{
	return atomic_load_explicit(&store->pools[number].flags,
				    memory_order_relaxed) &
	       flag;
}

/* All shards, in order: control operations and checks. */
static inline void tmem_shards_acquire(struct tmem_store *store) TMEM_UNANALYSED
{
	uint32_t i;

	tmem_lock_acquire(&store->shards[0].lock);
	for (i = 1; i < store->nr_shards; i++)
		tmem_lock_acquire_also(&store->shards[i].lock);
}

static inline void tmem_shards_release(struct tmem_store *store) TMEM_UNANALYSED
{
	uint32_t i;

	for (i = store->nr_shards; i-- > 1;)
		tmem_lock_release_also(&store->shards[i].lock);
	tmem_lock_release(&store->shards[0].lock);
}

/* stats.c */
void tmem_store_stats(struct tmem_store *store, struct tmem_stats *ret_stats);

#endif
