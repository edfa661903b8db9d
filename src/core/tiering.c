/* SPDX-License-Identifier: MIT */
/*
 * Tiers of a store: attaching, lots, the gate, forks, counts.  The model is in
 * tiering.h.
 *
 * MEMORY.  One mapping has the struct and all buffers, sized by the limit: a
 * batch is 1/64 of it, from 64 KiB to 1 MiB.  Lots come from the store's
 * metadata, a page of them when the first of its numbers is used.  Replacing
 * slots by smaller ones needs a page now and then just when there is none; so
 * some bytes are set aside (the reserve), which takes may use while a batch is
 * ended, and which what the batch frees fills up again.
 */
#include "tiering.h"

#include <errno.h>
#include <string.h>

#include "arena/map.h"
#include "base/seal.h"
#include "base/sys.h"
#include "compact.h"

enum {
	BATCH_PART = 64, /* of the limit */
	BATCH_LEAST = 64 << 10,
	MOVE_BYTES = 512,  /* of a batch; a move for each */
	CLUSTER_PART = 32, /* of a batch */
	CLUSTER_LEAST = 12 << 10,
	NR_LOTS_MAX = TMEM_RUN_MAX_PAGES * 512 * TMEM_LOTS_PER_PAGE,
	RESERVE_PAGES = 8, /* and one for 64 slots */
	REFILL_TRIES = 8,
	UNSETTLED_MAX = 16,
	GATE_CLOSED = 1u << 30
};

#define READ_NS	       30000000000ull
#define POLL_NS	       1000000000ull
#define REST_NS	       1000000000ull
#define BACKOFF_MIN_NS 100000000ull
#define BACKOFF_MAX_NS 30000000000ull

_Static_assert(TMEM_MAX_TIERS == TMEM_STORE_MAX_TIERS, "one number");

static size_t round_page(size_t bytes)
{
	return (bytes + 4095) & ~(size_t)4095;
}

/* Attaching */

uint32_t tmem_tiering_batch_bytes(const struct tmem_store *store)
{
	uint64_t bytes = tmem_account_limit(&store->account) / BATCH_PART;

	if (bytes > TMEM_SEGMENT_BYTES)
		return TMEM_SEGMENT_BYTES;
	return bytes < BATCH_LEAST ? BATCH_LEAST : (uint32_t)bytes & ~4095u;
}

static uint32_t cluster_bytes(uint32_t batch)
{
	uint32_t bytes = batch / CLUSTER_PART & ~4095u;

	return bytes < CLUSTER_LEAST ? CLUSTER_LEAST : bytes;
}

/* The victim is a whole segment of any batch: these have all one size. */
static void place_buffers(struct tmem_tiering *t, uint32_t batch)
{
	char *at = (char *)t + round_page(sizeof(*t));
	unsigned i;

	t->segment_bytes = batch;
	t->max_moves = batch / MOVE_BYTES;
	t->cluster_bytes = cluster_bytes(batch);
	t->batch.buffer = at;
	t->victim.buffer = at + batch;
	at += (size_t)batch * 2;
	for (i = 0; i < TMEM_MAX_CLUSTERS; i++) {
		tmem_lock_init(&t->clusters[i].lock, TMEM_RANK_CLUSTER);
		t->clusters[i].data = at;
		at += t->cluster_bytes;
	}
	t->batch.moves = (struct tmem_move *)at;
	at += round_page(t->max_moves * sizeof(struct tmem_move));
	t->staged = (struct tmem_staged *)at;
	at += round_page(TMEM_BLOCK_PAGES * sizeof(struct tmem_staged));
	TMEM_ASSERT(at == (char *)t + t->map_bytes);
}

static size_t map_bytes(uint32_t batch)
{
	return round_page(sizeof(struct tmem_tiering)) + (size_t)batch * 2 +
	       (size_t)cluster_bytes(batch) * TMEM_MAX_CLUSTERS +
	       round_page(batch / MOVE_BYTES * sizeof(struct tmem_move)) +
	       round_page(TMEM_BLOCK_PAGES * sizeof(struct tmem_staged));
}

/* What tiers need; nobody sees it yet.  NULL: no memory. */
static struct tmem_tiering *create_locked(struct tmem_store *store)
	TMEM_REQUIRES(&store->control)
{
	uint32_t batch = tmem_tiering_batch_bytes(store);
	size_t bytes = map_bytes(batch);
	uint64_t reserve;
	struct tmem_tiering *t;

	reserve = (RESERVE_PAGES + batch / MOVE_BYTES / 64) * 4096ull;
	if (!tmem_account_take(&store->account, bytes + reserve))
		return NULL;
	t = tmem_map->map(bytes, 4096);
	if (!t) {
		tmem_account_give(&store->account, bytes + reserve);
		return NULL;
	}
	t->map_bytes = bytes;
	t->accounted_bytes = bytes;
	t->reserve_max = reserve;
	t->reserve_bytes = reserve;
	t->rest_step_ns = REST_NS;
	t->backoff_step_ns = BACKOFF_MIN_NS;
	place_buffers(t, batch);
	return t;
}

static void destroy_locked(struct tmem_store *store, struct tmem_tiering *t)
	TMEM_REQUIRES(&store->control)
{
	tmem_account_give(&store->account,
			  t->accounted_bytes + t->reserve_bytes);
	tmem_map->unmap(t, t->map_bytes);
}

/* What the tier has of memory, but for the file that it maps. */
static uint64_t own_bytes(const struct tmem_tier_ops *ops, void *self,
			  uint64_t *ret_nr_segments)
{
	struct tmem_tier_stats s;

	ops->stats(self, &s);
	*ret_nr_segments = s.nr_segments;
	if (ops == &tmem_tier_mapped)
		s.memory_bytes -= s.nr_segments * TMEM_SEGMENT_BYTES;
	return s.memory_bytes;
}

static unsigned dir_pages(uint64_t nr_lots)
{
	uint64_t pages =
		(nr_lots + TMEM_LOTS_PER_PAGE - 1) / TMEM_LOTS_PER_PAGE;

	return (unsigned)((pages * sizeof(struct tmem_lot *) + 4095) / 4096);
}

static int add_locked(struct tmem_store *store, struct tmem_tiering *t,
		      const struct tmem_below *new)
	TMEM_REQUIRES(&store->control)
{
	struct tmem_below below = *new;
	uint64_t nr, bytes = own_bytes(below.ops, below.self, &nr);

	if (t->nr_tiers == TMEM_MAX_TIERS)
		return -ENOSPC;
	below.nr_lots = nr < NR_LOTS_MAX ? (uint32_t)nr : NR_LOTS_MAX;
	if (!tmem_account_take(&store->account, bytes))
		return -ENOMEM;
	below.pages = tmem_meta_alloc(&store->meta, dir_pages(below.nr_lots));
	if (!below.pages) {
		tmem_account_give(&store->account, bytes);
		return -ENOMEM;
	}
	t->accounted_bytes += bytes;
	t->tiers[t->nr_tiers++] = below;
	return 0;
}

static int attach_locked(struct tmem_store *store, const struct tmem_below *new)
	TMEM_REQUIRES(&store->control)
{
	struct tmem_tiering *t = store->tiering;
	int r;

	if (t)
		return add_locked(store, t, new);
	t = create_locked(store);
	if (!t)
		return -ENOMEM;
	r = add_locked(store, t, new);
	if (r < 0) {
		destroy_locked(store, t);
		return r;
	}
	store->tiering = t;
	store->marks_cold = 1;
	return 0;
}

int tmem_tiering_attach_opened(struct tmem_store *store,
			       const struct tmem_below *below)
{
	int r;

	tmem_lock_acquire(&store->control);
	r = attach_locked(store, below);
	tmem_lock_release(&store->control);
	return r;
}

int tmem_tiering_attach(struct tmem_store *store,
			const struct tmem_tier_ops *ops, void *self,
			struct tmem_seal *seal)
{
	const struct tmem_below below = {
		.ops = ops, .self = self, .seal = seal, .own_fd = -1
	};

	return tmem_tiering_attach_opened(store, &below);
}

void tmem_tiering_fini(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	unsigned i;

	if (!t)
		return;
	tmem_tiering_rest(store);
	for (i = 0; i < t->nr_tiers; i++) {
		t->tiers[i].ops->close(t->tiers[i].self);
		tmem_seal_destroy(t->tiers[i].seal);
		if (t->tiers[i].own_fd < 0)
			continue;
		tmem_sys(SYS_fsync, t->tiers[i].own_fd);
		tmem_sys_close(t->tiers[i].own_fd);
	}
	store->tiering = NULL;
	tmem_map->unmap(t, t->map_bytes);
}

/* The reserve */

/*
 * Fills it up: under the limit as anybody; over it (it was lowered) by no more
 * than what was given back since the last time.
 */
static void refill_locked(struct tmem_store *store, uint64_t left)
	TMEM_REQUIRES(&store->shards[0].lock)
{
	struct tmem_tiering *t = store->tiering;
	uint64_t want = t->reserve_max - left;
	uint64_t held = tmem_account_held(&store->account);

	if (want && tmem_account_take(&store->account, want)) {
		left += want;
	} else if (held > tmem_account_limit(&store->account) &&
		   held < t->held_seen) {
		if (want > t->held_seen - held)
			want = t->held_seen - held;
		atomic_fetch_add_explicit(&store->account.held_bytes, want,
					  memory_order_relaxed);
		left += want;
	}
	t->reserve_bytes = left;
	t->held_seen = tmem_account_held(&store->account);
}

void tmem_tiering_open_reserve(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;

	tmem_lock_acquire(&store->shards[0].lock);
	refill_locked(store, t->reserve_bytes);
	atomic_store(&store->account.open_bytes,
		     atomic_exchange(&t->reserve_bytes, 0));
	tmem_lock_release(&store->shards[0].lock);
}

static bool refill(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	bool is_short;

	tmem_lock_acquire(&store->shards[0].lock);
	refill_locked(store,
		      t->reserve_bytes +
			      atomic_exchange(&store->account.open_bytes, 0));
	is_short = t->reserve_bytes < t->reserve_max;
	if (is_short) {
		tmem_arena_trim(&store->arena);
		refill_locked(store, t->reserve_bytes);
	}
	is_short = t->reserve_bytes < t->reserve_max;
	tmem_lock_release(&store->shards[0].lock);
	return !is_short;
}

/*
 * What went left holes all over.  Where there is no page for the reserve, the
 * next batch might find none for its slots, so spans are emptied for it.
 */
void tmem_tiering_close_reserve(struct tmem_store *store)
{
	unsigned tries = REFILL_TRIES;
	bool full;

	full = refill(store);
	while (!full && tries-- > 0 && tmem_compact_hard(store))
		full = refill(store);
}

/* Lots */

struct tmem_lot *tmem_tiering_lot(const struct tmem_below *tier,
				  uint32_t number)
{
	struct tmem_lot *page = tier->pages[number / TMEM_LOTS_PER_PAGE];

	return page ? &page[number % TMEM_LOTS_PER_PAGE] : NULL;
}

/* NULL: in no tier that the store has, which only recovery brings about. */
static struct tmem_lot *lot_of(const struct tmem_store *store,
			       const struct tmem_place *place)
{
	const struct tmem_tiering *t = store->tiering;

	if (!t || place->tier >= t->nr_tiers ||
	    place->segment >= t->tiers[place->tier].nr_lots)
		return NULL;
	return tmem_tiering_lot(&t->tiers[place->tier], place->segment);
}

const struct tmem_tier_segment *
tmem_tiering_segment(const struct tmem_store *store,
		     const struct tmem_place *place)
{
	const struct tmem_lot *lot = lot_of(store, place);
	const struct tmem_tier_segment *segment;

	if (!lot || lot->state != TMEM_LOT_LIVE)
		return NULL;
	segment = &lot->segment;
	return segment->generation == place->segment_generation &&
			       !memcmp(segment->salt, place->salt,
				       sizeof(place->salt)) &&
			       place->offset + tmem_record_bytes(
						       place->length) <=
				       segment->end
		       ? segment
		       : NULL;
}

/* The lot, made if it was never used; NULL: no memory. */
static struct tmem_lot *make_lot(struct tmem_store *store,
				 struct tmem_below *tier, uint32_t number)
{
	struct tmem_lot **page = &tier->pages[number / TMEM_LOTS_PER_PAGE];

	if (!*page) {
		tmem_tiering_open_reserve(store);
		/* With a shard held the accounts are at rest: check.c. */
		tmem_lock_acquire(&store->shards[0].lock);
		*page = tmem_meta_alloc(&store->meta, 1);
		tmem_lock_release(&store->shards[0].lock);
		tmem_tiering_close_reserve(store);
	}
	return tmem_tiering_lot(tier, number);
}

/* The next number that is free, upwards. */
static struct tmem_lot *take_lot(struct tmem_store *store,
				 struct tmem_below *tier, uint32_t *ret_number)
{
	uint32_t i, number = tier->hand;

	for (i = 0; tier->nr_held < tier->nr_lots && i < tier->nr_lots; i++) {
		struct tmem_lot *lot;

		number = number + 1 < tier->nr_lots ? number + 1 : 0;
		lot = make_lot(store, tier, number);
		if (!lot)
			return NULL;
		if (lot->state != TMEM_LOT_FREE)
			continue;
		tier->hand = *ret_number = number;
		return lot;
	}
	return NULL;
}

static bool begin_in(struct tmem_store *store, uint32_t nr)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_below *tier = &t->tiers[nr];
	struct tmem_batch *b = &t->batch;
	struct tmem_lot *lot;
	uint32_t number;

	if (tier->retry_ns > tmem_sys_now_ns())
		return false;
	lot = take_lot(store, tier, &number);
	if (!lot) {
		t->counts.full++;
		return false;
	}
	if (!lot->generation)
		lot->generation = t->first_generation;
	if (tmem_segment_begin(&b->writer, tier->seal, number,
			       ++lot->generation, b->buffer) < 0)
		return false;
	lot->state = TMEM_LOT_WRITING;
	tier->nr_held++;
	t->counts.segments++;
	b->tier = nr;
	b->number = number;
	b->nr_moves = b->nr_victims = b->nr_cleaned = 0;
	b->state = TMEM_BATCH_OPEN;
	return true;
}

bool tmem_tiering_begin(struct tmem_store *store)
{
	uint32_t i;

	for (i = 0; i < store->tiering->nr_tiers; i++)
		if (begin_in(store, i))
			return true;
	return false;
}

static void drop_empty_of(struct tmem_tiering *t, struct tmem_below *tier)
{
	uint32_t i;

	if (!atomic_exchange(&tier->emptied, 0))
		return;
	for (i = 0; i < tier->nr_lots; i++) {
		struct tmem_lot *lot = tmem_tiering_lot(tier, i);
		int r;

		if (!lot) {
			i |= TMEM_LOTS_PER_PAGE - 1;
			continue;
		}
		if ((lot->state != TMEM_LOT_LIVE &&
		     lot->state != TMEM_LOT_LOST) ||
		    atomic_load_explicit(&lot->live_bytes,
					 memory_order_acquire))
			continue;
		r = tier->ops->drop(tier->self, i);
		if (r < 0 && r != -ENODATA) {
			atomic_store(&tier->emptied, 1);
			continue;
		}
		lot->state = TMEM_LOT_FREE;
		tier->nr_held--;
		t->counts.segments--;
		t->counts.dropped++;
	}
}

void tmem_tiering_drop_empty(struct tmem_store *store)
{
	uint32_t i;

	for (i = 0; i < store->tiering->nr_tiers; i++)
		drop_empty_of(store->tiering, &store->tiering->tiers[i]);
}

void tmem_tiering_failed(struct tmem_tiering *t, struct tmem_below *tier,
			 int result)
{
	uint32_t i;

	if (result == -ENOSPC)
		t->counts.full++;
	else
		t->counts.write_errors++;
	tier->backoff_ns *= 2;
	if (tier->backoff_ns < t->backoff_step_ns)
		tier->backoff_ns = t->backoff_step_ns;
	if (tier->backoff_ns > BACKOFF_MAX_NS)
		tier->backoff_ns = BACKOFF_MAX_NS;
	tier->retry_ns = tmem_sys_now_ns() + tier->backoff_ns;
	/* What was cleaned into it is where it was: it may be tried again. */
	for (i = 0; i < tier->nr_lots; i++)
		if (tmem_tiering_lot(tier, i))
			tmem_tiering_lot(tier, i)->stuck_bytes = 0;
}

void tmem_tiering_note(struct tmem_store *store, struct tmem_stats *stats,
		       const void *data)
{
	struct tmem_place place;
	struct tmem_lot *lot;
	uint32_t bytes;

	memcpy(&place, data, sizeof(place));
	bytes = tmem_record_bytes(place.length);
	lot = lot_of(store, &place);
	if (lot)
		atomic_fetch_add_explicit(&lot->live_bytes, bytes,
					  memory_order_relaxed);
	stats->tier_bytes += bytes;
}

void tmem_tiering_forget(struct tmem_store *store, struct tmem_stats *stats,
			 const struct tmem_place *place)
{
	uint32_t bytes = tmem_record_bytes(place->length), before;
	struct tmem_lot *lot = lot_of(store, place);

	stats->tier_bytes -= bytes;
	if (!lot)
		return;
	before = atomic_fetch_sub_explicit(&lot->live_bytes, bytes,
					   memory_order_release);
	TMEM_ASSERT(before >= bytes);
	if (before == bytes)
		atomic_store(&store->tiering->tiers[place->tier].emptied, 1);
}

int tmem_tiering_read(struct tmem_below *tier, struct tmem_tier_request *q)
{
	uint64_t until = tmem_sys_now_ns() + READ_NS;
	struct tmem_tier_request *one = q;

	q->deadline_ns = until;
	while (tier->ops->read(tier->self, &one, 1) == 0) {
		if (tmem_sys_now_ns() >= until)
			return -ETIMEDOUT;
		tier->ops->poll(tier->self, NULL, tmem_sys_now_ns() + POLL_NS);
	}
	return tmem_tier_wait(tier->ops, tier->self, q);
}

/* The gate */

bool tmem_tiering_try_enter(struct tmem_tiering *t)
{
	uint32_t seen = atomic_load(&t->gate);

	do {
		if (seen & GATE_CLOSED)
			return false;
	} while (!atomic_compare_exchange_weak(&t->gate, &seen, seen + 1));
	return true;
}

void tmem_tiering_enter(struct tmem_tiering *t)
{
	while (!tmem_tiering_try_enter(t)) {
		uint32_t seen = atomic_load(&t->gate);

		if (seen & GATE_CLOSED)
			tmem_sys_futex_wait(&t->gate, seen, NULL);
	}
}

void tmem_tiering_leave(struct tmem_tiering *t)
{
	uint32_t before = atomic_fetch_sub(&t->gate, 1);

	if (before & GATE_CLOSED)
		tmem_sys_futex_wake(&t->gate, INT32_MAX);
}

void tmem_tiering_rest(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	uint32_t seen;

	if (!t)
		return;
	seen = atomic_fetch_or(&t->gate, GATE_CLOSED) | GATE_CLOSED;
	while (seen != GATE_CLOSED) {
		tmem_sys_futex_wait(&t->gate, seen, NULL);
		seen = atomic_load(&t->gate);
	}
	tmem_clean_finish(store);
	tmem_demote_finish(store);
	store->quiet->parent = 1;
}

void tmem_tiering_wake(struct tmem_store *store, bool is_child)
{
	struct tmem_tiering *t = store->tiering;
	unsigned i;

	if (!t)
		return;
	for (i = 0; is_child && i < t->nr_tiers; i++) {
		t->tiers[i].ops->reopen(t->tiers[i].self);
		if (t->tiers[i].seal)
			tmem_seal_adopt(t->tiers[i].seal);
	}
	if (is_child)
		t->follows = true;
	atomic_store(&t->gate, 0);
	tmem_sys_futex_wake(&t->gate, INT32_MAX);
}

bool tmem_tiering_some(struct tmem_store *store, uint64_t until_ns,
		       bool settled)
{
	struct tmem_tiering *t = store->tiering;
	bool frozen, more = false;

	if (!t || !tmem_tiering_try_enter(t))
		return false;
	tmem_lock_acquire(&store->shards[0].lock);
	frozen = t->follows || store->arena.frozen_before != 0;
	tmem_lock_release(&store->shards[0].lock);
	if (!frozen) {
		/* Where much goes on, compaction may never be done. */
		t->unsettled = settled ? 0 : t->unsettled + 1;
		if (t->unsettled == UNSETTLED_MAX) {
			t->unsettled = 0;
			settled = true;
		}
		tmem_tiering_drop_empty(store);
		more = tmem_demote_some(store, until_ns, settled);
	}
	tmem_tiering_leave(t);
	return more;
}

/* Figures and checks */

void tmem_tiering_stats(const struct tmem_tiering *t, struct tmem_stats *stats)
{
	const struct tmem_tiering_counts *c = &t->counts;

	stats->tier_written_bytes = c->written_bytes;
	stats->tier_reads = c->reads;
	stats->tier_cluster_hits = c->cluster_hits;
	stats->tier_segments = c->segments;
	stats->tier_dropped = c->dropped;
	stats->tier_full = c->full;
	stats->tier_write_errors = c->write_errors;
	stats->tier_read_errors = c->read_errors;
}

uint64_t tmem_tiering_bytes(const struct tmem_store *store)
{
	const struct tmem_tiering *t = store->tiering;

	return t ? t->accounted_bytes + t->reserve_bytes +
			       atomic_load(&store->account.open_bytes)
		 : 0;
}

uint32_t tmem_tiering_walk(struct tmem_store *store, const void *data)
{
	struct tmem_place place;
	struct tmem_lot *lot;

	memcpy(&place, data, sizeof(place));
	lot = lot_of(store, &place);
	TMEM_INVARIANT("T2",
		       store->image || tmem_tiering_segment(store, &place));
	TMEM_INVARIANT("T2", !lot || lot->state == TMEM_LOT_LIVE ||
				     lot->state == TMEM_LOT_LOST);
	if (lot)
		lot->walked_bytes += tmem_record_bytes(place.length);
	return tmem_record_bytes(place.length);
}

void tmem_tiering_check(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	uint32_t i, n;

	for (i = 0; t && i < t->nr_tiers; i++)
		for (n = 0; n < t->tiers[i].nr_lots; n++) {
			struct tmem_lot *lot =
				tmem_tiering_lot(&t->tiers[i], n);

			if (!lot)
				continue;
			TMEM_INVARIANT("T1",
				       lot->live_bytes == lot->walked_bytes);
			lot->walked_bytes = 0;
		}
}
