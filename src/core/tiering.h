/* SPDX-License-Identifier: MIT */
/*
 * Tiers of a store: what is where, who moves it, and what must not happen.
 *
 * A page that goes down is copied into a *batch*, the segment in the making
 * (demote.c), and stays where it is until the tier has the segment.  Then its
 * slot is replaced by a small one of form TMEM_FORM_TIER that holds a *place*:
 * tier, segment, offset, and what must be found there.  So nothing is lost when
 * a write fails, and a page that was replaced, invalidated or cloned meanwhile
 * is simply not replaced (its slot's generation tells).
 *
 * A *lot* is what the store knows of one segment number of a tier: what is
 * needed to read it, and its live bytes, the records that places refer to.  A
 * place counts from the moment its slot is filled until that slot is freed, all
 * under some shard's lock.  A lot without live bytes is dropped by the next
 * maintenance; one with few is emptied by the cleaner (clean.c), which makes
 * its records part of a batch.
 *
 * A load of such a page copies place and segment under its shard's lock, reads
 * without it, and opens the record, which is bound to segment, generation and
 * offset (tiers/segment.h).  If that fails although the page's slot is still
 * the same, the page is damaged; if not, the load begins anew.
 *
 * Who maintains owns the batch, the lots' states and the hand; one thread at a
 * time does (tmem_quiet).  Loads share only lots (constant while they have live
 * bytes), clusters (a lock each) and counters.
 *
 * THE GATE counts who is busy with a tier and can be closed, for fork: before
 * it nothing may be in flight.
 *
 * RESTART.  In a restartable store places are in the image, and another process
 * finds them there: see reopen.c.  What a place names then need not be what the
 * tier has: a load compares the two, and a *lost* lot has nothing to read.
 *
 * FORK.  The child reads what was there; it *follows*: it writes and drops
 * nothing, for ever.  As long as the store is frozen its parent drops nothing,
 * so what the child has is there.
 *
 *   T1  A lot's live bytes are those of the records that slots in use name.
 *   T2  A place names a lot that is live, with the place's generation; or, of a
 *       restartable store, one that is live or lost, or no tier that it has.
 *   T3  accounted_bytes and reserve_bytes are part of the account's.
 */
#ifndef TMEM_CORE_TIERING_H
#define TMEM_CORE_TIERING_H

#include "core.h"
#include "tiers/segment.h"

struct tmem_seal;

enum {
	TMEM_MAX_TIERS = 4, /* TMEM_STORE_MAX_TIERS */
	TMEM_LOTS_PER_PAGE = 64,
	TMEM_MAX_CLUSTERS = 8,
	TMEM_BLOCK_PAGES = 16, /* neighbours that share a shard */
	TMEM_MAX_CANDIDATES = TMEM_SEGMENT_BUCKETS * TMEM_BUCKET_ENTRIES
};

/* Held bytes in sixteenths of the limit: where moving begins and ends. */
enum {
	TMEM_WATER_LOW = 12,
	TMEM_WATER_HIGH = 14,
	TMEM_WATER_FULL = 15
};

#define TMEM_GENERATION_MASK ((1ull << TMEM_SLOT_FORM_SHIFT) - 1)

/* The data of a slot of form TMEM_FORM_TIER: a format. */
struct tmem_place {
	uint16_t dict; /* the page's dictionary; first: see dicts.h */
	uint16_t length;
	uint8_t tier;
	uint8_t form;
	uint8_t salt[6]; /* the segment's first bytes of it */
	uint32_t segment;
	uint32_t segment_generation;
	uint32_t offset;
	uint64_t generation;
};
_Static_assert(sizeof(struct tmem_place) == 32, "in the smallest slot");

enum tmem_lot_state {
	TMEM_LOT_FREE = 0,
	TMEM_LOT_WRITING, /* in the making, or not known yet */
	TMEM_LOT_LIVE,
	TMEM_LOT_LOST, /* places name it, but there is no such segment */
	TMEM_LOT_LABEL /* says whose tier it is: reopen.c */
};

struct tmem_lot {
	struct tmem_tier_segment segment;
	_Atomic uint32_t live_bytes;
	uint32_t generation;   /* of the last segment of that number */
	uint32_t state;	       /* enum tmem_lot_state */
	uint32_t stuck_bytes;  /* the cleaner leaves it alone from here on */
	uint32_t walked_bytes; /* tmem_tiering_check() */
};
_Static_assert(sizeof(struct tmem_lot) <= 64, "64 to a page");

struct tmem_below {
	const struct tmem_tier_ops *ops;
	void *self;
	struct tmem_seal *seal;	 /* NULL: not encrypted */
	int own_fd;		 /* open and locked by us, or -1 */
	struct tmem_lot **pages; /* of lots; NULL until used */
	uint32_t nr_lots;
	uint32_t nr_held;
	uint32_t hand; /* the number last given */
	uint32_t clean_hand;
	_Atomic uint32_t emptied; /* a lot may have no live bytes any more */
	uint64_t backoff_ns;	  /* 0: the last write went well */
	uint64_t retry_ns;
};

/* A record of the batch, and the slot that it came from. */
struct tmem_move {
	uint64_t hash;
	uint64_t slot_generation; /* its form too */
	uint64_t generation;	  /* the record's */
	uint32_t offset;
	uint16_t length;
	uint8_t form;
	uint8_t shard;
};
_Static_assert(sizeof(struct tmem_move) == 32, "");

enum tmem_batch_state {
	TMEM_BATCH_NONE = 0,
	TMEM_BATCH_OPEN,
	TMEM_BATCH_SEALED, /* to be given to the tier */
	TMEM_BATCH_WRITING,
	TMEM_BATCH_HELD /* over its deadline; the tier has the buffer */
};

struct tmem_batch {
	enum tmem_batch_state state;
	uint32_t tier;
	uint32_t number;
	uint32_t nr_moves;
	uint32_t nr_victims; /* segments that were cleaned into it */
	uint32_t nr_cleaned; /* moves of these */
	struct tmem_segment_writer writer;
	struct tmem_tier_segment segment;
	struct tmem_tier_request request;
	struct tmem_move *moves;
	char *buffer;
};

/* The cleaner's segment. */
struct tmem_victim {
	bool is_reading; /* or held */
	uint32_t tier;
	struct tmem_tier_segment segment;
	struct tmem_tier_request request;
	char *buffer;
};

/* A range that was read for one page, and serves its neighbours. */
struct tmem_cluster {
	struct tmem_lock lock;
	uint32_t tier;
	uint32_t segment;
	uint32_t generation; /* 0: nothing */
	uint32_t offset;
	uint32_t bytes;
	uint32_t hits;
	char *data;
};

/* A slot that may go down: seen under its shard's lock, which is released. */
struct tmem_candidate {
	uint64_t hash;
	uint64_t slot_generation;
};

struct tmem_staged {
	uint64_t hash;
	unsigned size;
	_Alignas(8) char slot[TMEM_SLOT_MAX_BYTES];
};

struct tmem_tiering_counts {
	_Atomic uint64_t written_bytes;
	_Atomic uint64_t reads;
	_Atomic uint64_t cluster_hits;
	_Atomic uint64_t segments; /* a gauge */
	_Atomic uint64_t dropped;
	_Atomic uint64_t full;
	_Atomic uint64_t write_errors;
	_Atomic uint64_t read_errors;
};

struct tmem_tiering {
	size_t map_bytes;		  /* of this and the buffers */
	_Atomic uint64_t accounted_bytes; /* these, and the tiers' own */
	_Atomic uint64_t reserve_bytes;
	uint64_t reserve_max;
	uint64_t held_seen; /* when the reserve was last filled */
	/* Tests want it sooner. */
	uint64_t rest_step_ns;
	uint64_t backoff_step_ns;
	uint32_t first_generation; /* of a number that is new to us */
	uint32_t segment_bytes;	   /* of a batch, at the most */
	uint32_t max_moves;
	uint32_t cluster_bytes;
	uint32_t nr_tiers;
	bool follows; /* the child of a fork */
	_Atomic uint32_t gate;
	_Atomic int32_t cluster_gain;
	_Atomic uint32_t cluster_turn;
	struct tmem_tiering_counts counts;
	struct tmem_below tiers[TMEM_MAX_TIERS];
	struct tmem_cluster clusters[TMEM_MAX_CLUSTERS];

	/* Who maintains: the hand goes over the index. */
	uint64_t goal_bytes;  /* of slots, still to go; 0: no need */
	uint64_t moved_bytes; /* since the goal was set */
	uint64_t refused;     /* stores, so far */
	uint64_t mark_ns;     /* the last round of marking */
	uint64_t rest_ns;     /* until then nothing is to be had */
	unsigned unsettled;   /* calls in a row */
	unsigned turn;	      /* enum turn of demote.c */
	uint32_t shard;
	uint32_t pos;
	struct tmem_batch batch;
	struct tmem_victim victim;
	uint32_t candidate_shard;
	unsigned candidate_turn;
	unsigned nr_candidates;
	struct tmem_candidate candidates[TMEM_MAX_CANDIDATES];
	unsigned nr_staged;
	struct tmem_object_id staged_object;
	struct tmem_staged *staged; /* TMEM_BLOCK_PAGES */
};

/*
 * Gives the store a tier that is open; `seal` may be NULL.  Both are the
 * store's then.  0, -EINVAL, -ENOSPC, -ENOMEM.
 */
int tmem_tiering_attach(struct tmem_store *store,
			const struct tmem_tier_ops *ops, void *self,
			struct tmem_seal *seal);
/* The same; what is in `below` but for its lots. */
int tmem_tiering_attach_opened(struct tmem_store *store,
			       const struct tmem_below *below);
/* Waits for what is in flight, and closes them all. */
void tmem_tiering_fini(struct tmem_store *store);
/* Of a batch, for the limit that there is. */
uint32_t tmem_tiering_batch_bytes(const struct tmem_store *store);

/*
 * reopen.c.  open: the tiers that the options name, before the store is
 * recovered; 0, or with nothing changed what tmem_store_open() says.  label:
 * those that are new to the image; -errno of the write.
 */
int tmem_tiering_open(struct tmem_store *store,
		      const struct tmem_store_options *options);
int tmem_tiering_label(struct tmem_store *store);

enum tmem_found {
	TMEM_FOUND_LIVE = 0,
	TMEM_FOUND_LOST,    /* the segment is not there, or damaged */
	TMEM_FOUND_MISSING, /* no such tier was given, or too small a one */
	TMEM_FOUND_NOTHING  /* this can't be a place */
};
/*
 * Recovery: what the place in a sound slot leads to, or -errno.  recovered:
 * segments that no place names are dropped.
 */
int tmem_tiering_find(struct tmem_store *store, const struct tmem_slot *slot);
void tmem_tiering_recovered(struct tmem_store *store);

/* Background work; false: nothing to do for now.  `settled`: see demote.c. */
bool tmem_tiering_some(struct tmem_store *store, uint64_t until_ns,
		       bool settled);

/* The gate.  enter waits while it is closed. */
void tmem_tiering_enter(struct tmem_tiering *tiering);
bool tmem_tiering_try_enter(struct tmem_tiering *tiering);
void tmem_tiering_leave(struct tmem_tiering *tiering);

/* Around fork.  NULL is accepted: the store has no tier. */
void tmem_tiering_rest(struct tmem_store *store);
void tmem_tiering_wake(struct tmem_store *store, bool is_child);

void tmem_tiering_stats(const struct tmem_tiering *tiering,
			struct tmem_stats *stats);

/* A slot with a place was filled, or is freed: under its shard's lock. */
void tmem_tiering_note(struct tmem_store *store, struct tmem_stats *stats,
		       const void *data);
void tmem_tiering_forget(struct tmem_store *store, struct tmem_stats *stats,
			 const struct tmem_place *place);

/* For check.c: each slot in use with a place, its record's bytes; then T1. */
uint32_t tmem_tiering_walk(struct tmem_store *store, const void *data);
void tmem_tiering_check(struct tmem_store *store);
/* Bytes of the account's that are the tiers'. */
uint64_t tmem_tiering_bytes(const struct tmem_store *store);

struct tmem_lot *tmem_tiering_lot(const struct tmem_below *tier,
				  uint32_t number);
/* The segment that a slot's place names, to be read; NULL: it is lost. */
const struct tmem_tier_segment *
tmem_tiering_segment(const struct tmem_store *store,
		     const struct tmem_place *place);
/* Reads a range, waits for it; its result, -ETIMEDOUT after a while. */
int tmem_tiering_read(struct tmem_below *tier, struct tmem_tier_request *q);

/*
 * Begins a batch: a tier that is not being left alone, with a free number.
 * False: there is none.
 */
bool tmem_tiering_begin(struct tmem_store *store);
/* Drops lots without live bytes. */
void tmem_tiering_drop_empty(struct tmem_store *store);
/* The batch's write was answered, or can't be: counts and leaves alone. */
void tmem_tiering_failed(struct tmem_tiering *tiering, struct tmem_below *tier,
			 int result);
/* Room for takes that the limit denies, while slots are replaced. */
void tmem_tiering_open_reserve(struct tmem_store *store);
void tmem_tiering_close_reserve(struct tmem_store *store);

/* demote.c */
/*
 * A record into the batch; 0: there is no room.  `move` but for offset, length
 * and form filled in.
 */
uint32_t tmem_demote_add(struct tmem_tiering *tiering,
			 const struct tmem_record_info *info, const void *data,
			 const struct tmem_move *move);
/* Waits for the batch's write, if there is one, and ends it. */
void tmem_demote_finish(struct tmem_store *store);
bool tmem_demote_some(struct tmem_store *store, uint64_t until_ns,
		      bool settled);

/* clean.c: true while there is more to read before the batch can go on. */
bool tmem_clean_some(struct tmem_store *store, uint64_t until_ns);
void tmem_clean_finish(struct tmem_store *store);

static inline uint64_t tmem_tiering_water(const struct tmem_store *store,
					  unsigned sixteenths)
{
	return tmem_account_limit(&store->account) / 16 * sixteenths;
}

#endif
