/* SPDX-License-Identifier: MIT */
/*
 * See deadpager.h.  Two walks of the page table: the first counts who claims
 * which offset, the second tells the fates.
 */
#include "deadpager.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "deadstore.h"
#include "frontends/frontswap_impl.h"
#include "pager/event.h"
#include "pager/offsets.h"
#include "pager/pager.h"
#include "wire/anchor.h"

enum {
	PIECE = 4096 / sizeof(uint32_t) /* entries of the directory at a time */
};

struct tmem_deadpager {
	const struct tmem_corefile *core;
	struct tmem_deadstore *store;
	struct tmem_frontswap frontswap;
	struct tmem_anchor anchor;
	struct tmem_pager pager;
	struct tmem_deferred deferred;
	struct tmem_deadpager_info info;
	/* While the dump was written. */
	uint64_t nr_taken;
	uint64_t nr_dropped;
	bool is_low;	 /* the anchor: it does not tell of all */
	bool lost_count; /* nobody knows which pages were moved out */
	/* A bit for each offset: in use, claimed by a page, by several. */
	uint64_t *used;
	uint64_t *claimed;
	uint64_t *shared;
	uint8_t *page;	  /* as the core has it */
	uint8_t *content; /* as it was */
};

/* One page, as the table has it. */
struct entry {
	uint64_t vpn;
	uint32_t handle;
	enum tmem_page_state state;
	uint32_t value;
	bool loose;
	bool ahead;
};

typedef int entry_fn(struct tmem_deadpager *dp, const struct entry *e,
		     void *arg);

static bool read_core(const struct tmem_deadpager *dp, const void *at, void *to,
		      size_t bytes)
{
	return tmem_corefile_read(dp->core, (uintptr_t)at, to, bytes);
}

/* Of an array there; pointers of a dump are numbers, and any sum may wrap. */
static bool read_element(const struct tmem_deadpager *dp, const void *array,
			 uint64_t i, void *to, size_t bytes)
{
	return tmem_corefile_read(dp->core, (uintptr_t)array + i * bytes, to,
				  bytes);
}

static bool is_zeros(const uint8_t *page)
{
	return !page[0] && !memcmp(page, page + 1, TMEM_PAGE_SIZE - 1);
}

/* A bool of the dump may be any byte, which C has no meaning for. */
static bool is_set(const bool *flag)
{
	return *(const unsigned char *)flag;
}

static bool test_bit(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> i % 64 & 1;
}

/* What a terminal may be shown. */
static void copy_text(char *to, const char *from, size_t room)
{
	size_t i;

	for (i = 0; i < room - 1 && from[i]; i++) {
		to[i] = '?';
		if (from[i] >= ' ' && from[i] <= '~')
			to[i] = from[i];
	}
	to[i] = 0;
}

/* Opening it. */

static bool read_anchor(struct tmem_deadpager *dp, uint64_t addr)
{
	struct tmem_anchor *a = &dp->anchor;

	dp->is_low = addr == TMEM_ANCHOR_LOW;
	return tmem_corefile_read(dp->core, addr, a, sizeof(*a)) &&
	       memcmp(a->magic, TMEM_ANCHOR_MAGIC, sizeof(a->magic)) == 0;
}

static int find_pager(struct tmem_deadpager *dp)
{
	struct tmem_anchor *a = &dp->anchor;

	if (!read_anchor(dp, TMEM_ANCHOR_ADDR) &&
	    !read_anchor(dp, TMEM_ANCHOR_LOW))
		return TMEM_DEAD_NO_PAGER;
	copy_text(dp->info.version, a->version, sizeof(dp->info.version));
	if (memcmp(a->source, tmem_source_id, sizeof(a->source)) != 0)
		return TMEM_DEAD_OTHER_BUILD;
	if (!tmem_corefile_read(dp->core, a->pager, &dp->pager,
				sizeof(dp->pager)))
		return TMEM_DEAD_DAMAGED;
	copy_text(dp->info.comm, dp->pager.comm, sizeof(dp->info.comm));
	dp->info.pid = dp->pager.program_pid;
	/* Else its pages were all brought back. */
	dp->info.served = dp->pager.state == PAGER_SERVING ||
			  dp->pager.state == PAGER_STARTING;
	return 0;
}

static enum tmem_deadpager_doubt doubt_of(const struct tmem_deadpager *dp)
{
	if (dp->core->pid != dp->pager.program_pid)
		return TMEM_DOUBT_PROCESS;
	if (dp->pager.state == PAGER_STARTING && is_set(&dp->pager.forked))
		return TMEM_DOUBT_FORKED;
	if (dp->lost_count)
		return TMEM_DOUBT_AT_WORK;
	return TMEM_DOUBT_NONE;
}

static int read_rest(struct tmem_deadpager *dp)
{
	const struct tmem_fs_swap_type *type =
		&dp->frontswap.types[PAGER_FRONTSWAP_TYPE];
	uint64_t nr = dp->pager.nr_offsets;
	int r;

	if (!read_core(dp, dp->pager.deferred, &dp->deferred,
		       sizeof(dp->deferred)) ||
	    dp->deferred.nr > EVENT_NOTES || nr > OFFSETS_MAX || nr % 64)
		return TMEM_DEAD_DAMAGED;
	dp->used = calloc(nr / 64 + 1, sizeof(uint64_t));
	dp->claimed = calloc(nr / 64 + 1, sizeof(uint64_t));
	dp->shared = calloc(nr / 64 + 1, sizeof(uint64_t));
	dp->page = malloc(TMEM_PAGE_SIZE);
	dp->content = malloc(TMEM_PAGE_SIZE);
	if (!dp->used || !dp->claimed || !dp->shared || !dp->page ||
	    !dp->content)
		return -ENOMEM;
	if (!dp->pager.frontswap) /* it had not come to that */
		return 0;
	if (!read_core(dp, dp->pager.offsets_used, dp->used, nr / 8) ||
	    !read_core(dp, dp->pager.frontswap, &dp->frontswap,
		       sizeof(dp->frontswap)) ||
	    type->nr_pages != nr)
		return TMEM_DEAD_DAMAGED;
	r = tmem_deadstore_open(dp->core, (uintptr_t)dp->pager.store,
				dp->frontswap.pool, &dp->store);
	return r == -EIO ? TMEM_DEAD_DAMAGED : r;
}

int tmem_deadpager_open(const struct tmem_corefile *core,
			struct tmem_deadpager **ret,
			struct tmem_deadpager_info *ret_info)
{
	struct tmem_deadpager *dp = calloc(1, sizeof(*dp));
	int r;

	if (!dp)
		return -ENOMEM;
	dp->core = core;
	r = find_pager(dp);
	if (r == 0 && dp->info.served) {
		dp->nr_taken = dp->anchor.nr_taken - dp->pager.nr_taken;
		dp->nr_dropped = dp->anchor.nr_dropped - dp->pager.nr_dropped;
		dp->lost_count =
			dp->nr_taken > (dp->is_low ? 0 : TMEM_ANCHOR_MOVED);
		dp->info.doubt = doubt_of(dp);
		r = read_rest(dp);
	}
	tmem_deadpager_get_info(dp, ret_info);
	if (r != 0)
		tmem_deadpager_close(dp);
	else
		*ret = dp;
	return r;
}

void tmem_deadpager_close(struct tmem_deadpager *dp)
{
	if (!dp)
		return;
	tmem_deadstore_close(dp->store);
	free(dp->used);
	free(dp->claimed);
	free(dp->shared);
	free(dp->page);
	free(dp->content);
	free(dp);
}

void tmem_deadpager_get_info(const struct tmem_deadpager *dp,
			     struct tmem_deadpager_info *ret_info)
{
	*ret_info = dp->info;
}

/* Walking the table. */

static int walk_leaf(struct tmem_deadpager *dp, uint32_t nr, uint64_t base,
		     entry_fn *fn, void *arg)
{
	const struct tmem_table *table = &dp->pager.table;
	struct tmem_leaf *chunk, leaf;
	int r = 0;
	uint32_t i;

	if (nr >= table->nr_leaves || nr / TABLE_CHUNK >= TABLE_CHUNKS ||
	    !read_element(dp, table->chunks, nr / TABLE_CHUNK, &chunk,
			  sizeof(struct tmem_leaf *)) ||
	    !read_element(dp, chunk, nr % TABLE_CHUNK, &leaf, sizeof(leaf)) ||
	    leaf.base != base) {
		dp->info.nr_damaged++;
		return 0;
	}
	for (i = 0; i < LEAF_PAGES && r == 0; i++) {
		struct entry e = {
			.vpn = base + i,
			.handle = nr << LEAF_SHIFT | i,
			.state = tmem_entry_state(leaf.entry[i]),
			.value = tmem_entry_value(leaf.entry[i]),
			.loose = test_bit(leaf.loose, i),
			.ahead = test_bit(leaf.ahead, i),
		};

		if (e.state != PAGE_NONE)
			r = fn(dp, &e, arg);
	}
	return r;
}

/* A second level of the directory: 16 GiB of addresses. */
static int walk_level(struct tmem_deadpager *dp, const uint32_t *level,
		      uint64_t first_leaf, entry_fn *fn, void *arg)
{
	uint32_t piece[PIECE];
	unsigned at, i;
	int r = 0;

	for (at = 0; at < TABLE_L2 && r == 0; at += PIECE) {
		if (!read_element(dp, level, at / PIECE, piece,
				  sizeof(piece))) {
			dp->info.nr_damaged++;
			continue;
		}
		for (i = 0; i < PIECE && r == 0; i++)
			if (piece[i])
				r = walk_leaf(dp, piece[i] - 1,
					      (first_leaf + at + i)
						      << LEAF_SHIFT,
					      fn, arg);
	}
	return r;
}

static int walk_table(struct tmem_deadpager *dp, entry_fn *fn, void *arg)
{
	const uint32_t *l1[TABLE_L1];
	unsigned i;
	int r = 0;

	if (!dp->info.served)
		return 0;
	if (!read_core(dp, (const void *)dp->pager.table.l1, l1, sizeof(l1))) {
		dp->info.nr_damaged++;
		return 0;
	}
	/* The upper half is no place in memory. */
	for (i = 0; i < TABLE_L1 / 2 && r == 0; i++)
		if (l1[i])
			r = walk_level(dp, l1[i], (uint64_t)i * TABLE_L2, fn,
				       arg);
	return r;
}

/* The frame that a page is in; NULL: it is not. */
static const struct tmem_frame *frame_of(const struct tmem_deadpager *dp,
					 const struct entry *e)
{
	const struct tmem_frame *f;

	if (e->state != PAGE_LEAVING || e->value >= FRAMES)
		return NULL;
	f = &dp->pager.frames.frame[e->value];
	return is_set(&f->used) && f->handle == e->handle ? f : NULL;
}

/* The offset that is the page's, or UINT64_MAX. */
static uint64_t offset_of(const struct tmem_deadpager *dp,
			  const struct entry *e)
{
	const struct tmem_frame *f = frame_of(dp, e);
	uint64_t offset = UINT64_MAX;

	if (f)
		offset = f->offset;
	else if (e->state == PAGE_KEPT || e->state == PAGE_STORED ||
		 e->state == PAGE_LOADING)
		offset = e->value;
	return offset < dp->pager.nr_offsets ? offset : UINT64_MAX;
}

static int claim(struct tmem_deadpager *dp, const struct entry *e, void *arg)
{
	uint64_t offset = offset_of(dp, e);
	uint64_t bit = 1ull << offset % 64;

	(void)arg;
	if (offset == UINT64_MAX)
		return 0;
	dp->shared[offset / 64] |= dp->claimed[offset / 64] & bit;
	dp->claimed[offset / 64] |= bit;
	return 0;
}

/* Telling the fates. */

static bool is_noted(const struct tmem_deadpager *dp, uint64_t vpn)
{
	uint64_t i;

	for (i = 0; i < dp->deferred.nr; i++) {
		const struct tmem_note *n = &dp->deferred.note[i];

		if (n->kind == NOTE_MOVED
			    ? vpn - n->from < n->nr || vpn - n->to < n->nr
			    : vpn >= n->from && vpn < n->to)
			return true;
	}
	return false;
}

/* The i-th page that was moved out while the dump was written. */
static const struct tmem_anchor_move *move_of(const struct tmem_deadpager *dp,
					      uint64_t i)
{
	return &dp->anchor.moved[(dp->pager.nr_taken + i) % TMEM_ANCHOR_MOVED];
}

/* Was it that page? */
static const struct tmem_anchor_move *find_move(const struct tmem_deadpager *dp,
						uint64_t vpn)
{
	uint64_t i;

	if (dp->info.doubt == TMEM_DOUBT_NONE)
		for (i = 0; i < dp->nr_taken; i++)
			if (move_of(dp, i)->vpn == vpn)
				return move_of(dp, i);
	return NULL;
}

static bool is_locked(const struct tmem_deadpager *dp)
{
	return (dp->pager.lock.word & TMEM_LOCK_STATE_MASK) != TMEM_LOCK_FREE;
}

/* May what is stored there be what another page, or that one, had before? */
static bool is_doubtful(const struct tmem_deadpager *dp, uint64_t offset)
{
	uint64_t i;

	for (i = 0; i < dp->nr_taken; i++)
		if (move_of(dp, i)->offset == offset &&
		    (dp->nr_dropped || is_locked(dp) || move_of(dp, i)->kept))
			return true;
	return false;
}

/* As the table has it. */
static bool is_present(const struct entry *e)
{
	return e->state == PAGE_RESIDENT || e->state == PAGE_KEPT;
}

static bool may_be_present(const struct tmem_deadpager *dp,
			   const struct entry *e)
{
	return dp->info.doubt != TMEM_DOUBT_NONE || e->loose ||
	       is_noted(dp, e->vpn) ||
	       (e->state == PAGE_LOADING && is_locked(dp));
}

static enum tmem_page_fate fate_at(struct tmem_deadpager *dp, uint64_t offset)
{
	const struct tmem_fs_swap_type *type =
		&dp->frontswap.types[PAGER_FRONTSWAP_TYPE];
	uint64_t word;

	if (offset >= dp->pager.nr_offsets || test_bit(dp->shared, offset))
		return TMEM_FATE_DAMAGED;
	if (is_doubtful(dp, offset))
		return TMEM_FATE_UNSURE;
	if (!tmem_corefile_read(dp->core,
				(uintptr_t)type->bits + offset / 64 * 8, &word,
				sizeof(word)))
		return TMEM_FATE_DAMAGED;
	if (!(word >> offset % 64 & 1))
		return TMEM_FATE_SWAPPED;
	return dp->store && tmem_deadstore_load(dp->store, offset,
						dp->content) == 0
		       ? TMEM_FATE_REBUILT
		       : TMEM_FATE_DAMAGED;
}

/* On its way out while the dump was written: it may have arrived. */
static enum tmem_page_fate fate_moved(struct tmem_deadpager *dp,
				      const struct tmem_anchor_move *m)
{
	return fate_at(dp, m->offset) == TMEM_FATE_REBUILT ? TMEM_FATE_REBUILT
							   : TMEM_FATE_UNSURE;
}

static enum tmem_page_fate fate_in_frame(struct tmem_deadpager *dp,
					 const struct entry *e)
{
	const struct tmem_frame *f = frame_of(dp, e);
	const struct tmem_frame_group *group;

	if (!f)
		return TMEM_FATE_DAMAGED;
	if (is_set(&f->gone))
		return TMEM_FATE_UNSURE;
	if (!is_set(&f->kept) && fate_at(dp, f->offset) == TMEM_FATE_REBUILT)
		return TMEM_FATE_REBUILT;
	if (dp->nr_taken) /* into that very frame, perhaps */
		return TMEM_FATE_UNSURE;
	group = tmem_frame_group(&dp->pager.frames, e->value);
	if (!read_element(dp, group->pages, e->value - group->first,
			  dp->content, TMEM_PAGE_SIZE))
		return TMEM_FATE_DAMAGED;
	/* Nothing tells a page of zeros from a frame that was released. */
	return is_zeros(dp->content) ? TMEM_FATE_UNSURE : TMEM_FATE_REBUILT;
}

/* Of a page that the core has zeros for. */
static enum tmem_page_fate fate_of(struct tmem_deadpager *dp,
				   const struct entry *e)
{
	const struct tmem_anchor_move *m = find_move(dp, e->vpn);
	uint64_t offset = offset_of(dp, e);

	if (e->state == PAGE_LOST)
		return TMEM_FATE_LOST;
	if (is_present(e) && !m)
		return dp->core->by_gdb ? TMEM_FATE_NO_BYTES : TMEM_FATE_UNSURE;
	if (may_be_present(dp, e))
		return TMEM_FATE_UNSURE;
	if (m)
		return fate_moved(dp, m);
	if (e->state == PAGE_LEAVING)
		return fate_in_frame(dp, e);
	if (offset == UINT64_MAX || !test_bit(dp->used, offset))
		return TMEM_FATE_DAMAGED;
	return fate_at(dp, offset);
}

/*
 * Did the store change while the dump was written?  Then what leads to a slot
 * may have been seen before, and the slot after, or the other way round.
 */
static bool is_at_work(const struct tmem_deadpager *dp)
{
	return dp->nr_taken || dp->nr_dropped || dp->pager.nr_storing;
}

struct walk {
	int (*fn)(void *arg, const struct tmem_fate *fate);
	void *arg;
};

static int tell(struct tmem_deadpager *dp, const struct entry *e, void *arg)
{
	const struct walk *w = arg;
	bool out = !is_present(e) || find_move(dp, e->vpn);
	struct tmem_fate fate = { .addr = e->vpn * TMEM_PAGE_SIZE,
				  .content = dp->content };

	/*
	 * The kernel writes what is present.  But a page may have come after
	 * its place was written, if read-ahead went on for a moment; or have
	 * gone before.
	 */
	if (!out && !dp->core->by_gdb && !e->ahead && !dp->lost_count)
		return 0;
	if (!tmem_corefile_place(dp->core, fate.addr, &fate.file_offset)) {
		fate.fate = TMEM_FATE_LEFT_OUT;
		return out ? w->fn(w->arg, &fate) : 0;
	}
	if (!tmem_corefile_read(dp->core, fate.addr, dp->page, TMEM_PAGE_SIZE))
		fate.fate = TMEM_FATE_LEFT_OUT;
	else if (!is_zeros(dp->page))
		fate.fate = TMEM_FATE_PRESENT;
	else
		fate.fate = fate_of(dp, e);
	if (fate.fate == TMEM_FATE_DAMAGED && is_at_work(dp))
		fate.fate = TMEM_FATE_UNSURE;
	if (!out && fate.fate == TMEM_FATE_PRESENT)
		return 0;
	return w->fn(w->arg, &fate);
}

int tmem_deadpager_walk(struct tmem_deadpager *dp,
			int (*fn)(void *arg, const struct tmem_fate *fate),
			void *arg)
{
	struct walk w = { fn, arg };
	uint64_t nr_damaged = dp->info.nr_damaged;
	int r = walk_table(dp, claim, NULL);

	dp->info.nr_damaged = nr_damaged; /* the same again */
	return r == 0 ? walk_table(dp, tell, &w) : r;
}
