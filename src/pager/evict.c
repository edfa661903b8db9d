/* SPDX-License-Identifier: MIT */
/* See evict.h. */
#include "evict.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/chaos.h"
#include "base/sys.h"
#include "budget.h"
#include "event.h"
#include "hand.h"
#include "heat.h"
#include "install.h"
#include "offsets.h"

enum {
	/* So many refused in a row, and that part of all: nothing fits. */
	REFUSED_LEAST = 64,
	REFUSED_PART = 8,
	/* Under one hold of the lock. */
	PUT_BACK_TRIES = 8
};

static bool is_zeros(const uint8_t *page)
{
	uint64_t first;

	memcpy(&first, page, sizeof(first));
	return first == 0 && memcmp(page, page + sizeof(first),
				    TMEM_PAGE_SIZE - sizeof(first)) == 0;
}

enum {
	OUT_ZERO = 1,
	OUT_CLEAN,
	OUT_STORED,
	OUT_POOR,
	OUT_REFUSED,
	OUT_STUCK /* is to stay, and could not be put back yet */
};

/*
 * Refused for its content, not for want of room: it stays for now, which costs
 * no more than zram's copy would, and a read from disk costs as much as five
 * from the store.  Once above the grant, whatever can go goes.
 */
static bool may_stay(const struct tmem_pager *pager, const struct tmem_frame *f)
{
	return !f->poor && pager->swapfile &&
	       tmem_tree_has(pager->tree, TMEM_KEEP_POOR) &&
	       tmem_budget_fits(pager) && tmem_budget_store_has_room(pager);
}

/* Without the lock: what becomes of the page in frame i. */
static int send_out(struct tmem_pager *pager, const struct tmem_frame *f,
		    const uint8_t *page, uint8_t *scratch)
{
	struct tmem_frontswap *fs = pager->frontswap;

	if (f->kept) {
		if (tmem_frontswap_test(fs, PAGER_FRONTSWAP_TYPE, f->offset) &&
		    tmem_frontswap_swap_in(fs, PAGER_FRONTSWAP_TYPE, f->offset,
					   scratch) == 0 &&
		    memcmp(scratch, page, TMEM_PAGE_SIZE) == 0)
			return OUT_CLEAN;
		if (pager->swapfile &&
		    tmem_swapfile_equals(pager->swapfile, f->offset, page))
			return OUT_CLEAN;
		tmem_frontswap_invalidate_page(fs, PAGER_FRONTSWAP_TYPE,
					       f->offset);
	}
	if (is_zeros(page))
		return OUT_ZERO;
	return tmem_frontswap_store(fs, PAGER_FRONTSWAP_TYPE, f->offset,
				    page) == 0
		       ? OUT_STORED
		       : OUT_REFUSED;
}

/*
 * It goes back where it was.  False: not now, as there is no memory, or an
 * event that can't be noted; the frame still has it.
 */
static bool put_back_locked(struct tmem_pager *pager,
			    const struct tmem_frame *f, const uint8_t *page)
	TMEM_REQUIRES(&pager->lock)
{
	unsigned tries = 0;
	uint64_t vpn, addr;
	long r;

	while (!f->gone) {
		/* Unmapped or moved while events are put off? */
		vpn = tmem_notes_follow(
			pager->deferred,
			tmem_table_vpn(&pager->table, f->handle));
		if (vpn == UINT64_MAX)
			break;
		r = tmem_install_sure(pager->uffd, vpn, page);
		if (r > 0)
			atomic_fetch_add(&pager->usage_delta_pages, 1);
		if (r != -EAGAIN && r != -ENOMEM)
			break;
		if (tries++ == PUT_BACK_TRIES)
			return false;
		/* The event that waits may be about this very page. */
		if (r == -EAGAIN && tmem_event_read_locked(pager, &addr) == 1)
			tmem_install_wake(pager->uffd, tmem_vpn(addr), 1);
		tmem_sys_pause();
	}
	if (!f->gone) {
		tmem_table_set(&pager->table, f->handle, PAGE_RESIDENT, 0);
		tmem_heat_spare_locked(pager, f->handle);
	}
	return true;
}

/* The page stays.  Without a swap file all of them may be like this one. */
static void note_staying_locked(struct tmem_pager *pager,
				const struct tmem_frame *f)
	TMEM_REQUIRES(&pager->lock)
{
	if (f->result == OUT_POOR) {
		PAGER_COUNT(pager, evict_poor, 1);
		tmem_table_set_poor(&pager->table, f->handle);
	} else if (f->result == OUT_REFUSED) {
		PAGER_COUNT(pager, evict_nospace, 1);
		if (pager->swapfile ||
		    pager->refused_run >=
			    REFUSED_LEAST +
				    pager->table.nr_resident / REFUSED_PART)
			tmem_budget_full(pager);
	}
}

/* True if the frame is done with. */
static bool stay_locked(struct tmem_pager *pager, struct tmem_frame *f,
			const uint8_t *page) TMEM_REQUIRES(&pager->lock)
{
	note_staying_locked(pager, f);
	if (put_back_locked(pager, f, page))
		return true;
	f->result = OUT_STUCK;
	atomic_store(&pager->some_stuck, 1);
	return false;
}

/*
 * The frame's page has arrived somewhere: tells the table.  If it can't be put
 * back now, the frame stays as it is, and is settled again (tmem_evict_reap).
 */
static void settle_locked(struct tmem_pager *pager, struct tmem_frame *f,
			  const uint8_t *page) TMEM_REQUIRES(&pager->lock)
{
	pager->refused_run =
		f->result >= OUT_REFUSED ? pager->refused_run + 1 : 0;
	if (f->result >= OUT_POOR && !f->gone && !stay_locked(pager, f, page))
		return;
	f->used = false;
	if (f->gone || f->result >= OUT_POOR || f->result == OUT_ZERO) {
		tmem_offset_drop_locked(pager, f->offset);
		if (!f->gone && f->result == OUT_ZERO) {
			PAGER_COUNT(pager, evicted_zero, 1);
			tmem_table_set(&pager->table, f->handle, PAGE_NONE, 0);
		}
		return;
	}
	if (f->result == OUT_CLEAN)
		PAGER_COUNT(pager, evicted_clean, 1);
	else if (f->to_swap)
		PAGER_COUNT(pager, evicted_swap, 1);
	else
		PAGER_COUNT(pager, evicted_store, 1);
	if (f->poor && f->result == OUT_STORED && !f->to_swap)
		tmem_table_clear_poor(&pager->table, f->handle);
	tmem_table_set(&pager->table, f->handle, PAGE_STORED, f->offset);
}

static void write_done(struct tmem_swapdev_request *request, int result)
{
	struct tmem_frame *f = request->arg;

	f->result = result == 0 ? OUT_STORED : OUT_REFUSED;
	atomic_store(&f->writing, false);
}

/* Queues a refused page for the swap file, if there is one with room. */
static void queue_write(struct tmem_pager *pager, struct tmem_frame *f,
			void *page)
{
	int r;

	if (!pager->swapfile)
		return;
	f->request = (struct tmem_swapdev_request){
		.offset = f->offset,
		.page = page,
		.done = write_done,
		.arg = f,
	};
	f->to_swap = true;
	atomic_store(&f->writing, true);
	do {
		r = tmem_frontswap_write(pager->frontswap, PAGER_FRONTSWAP_TYPE,
					 &f->request);
		if (r == -EAGAIN)
			tmem_frontswap_reap(pager->frontswap,
					    PAGER_FRONTSWAP_TYPE, true);
	} while (r == -EAGAIN);
	if (r != 0)
		atomic_store(&f->writing, false);
}

/* Settles what is done; how many frames are not. */
static unsigned settle_frames_locked(struct tmem_pager *pager,
				     struct tmem_frame_group *group)
	TMEM_REQUIRES(&pager->lock)
{
	unsigned i, left = 0;

	for (i = 0; i < group->nr_used; i++) {
		struct tmem_frame *f = &group->frame[i];

		if (f->used && !f->unsent && !atomic_load(&f->writing))
			settle_locked(pager, f,
				      group->pages +
					      (size_t)i * TMEM_PAGE_SIZE);
		left += f->used;
	}
	return left;
}

/* The same; true if all is done, and the group may be released. */
static bool settle_group_locked(struct tmem_pager *pager,
				struct tmem_frame_group *group)
	TMEM_REQUIRES(&pager->lock)
{
	group->owned = settle_frames_locked(pager, group) == 0;
	return group->owned;
}

static void free_group(struct tmem_pager *pager, struct tmem_frame_group *group)
{
	unsigned nr = group->nr_used;

	tmem_frames_release(pager, group);
	atomic_fetch_sub(&pager->usage_delta_pages, nr);
	tmem_lock_acquire(&pager->lock);
	group->nr_used = 0;
	group->owned = false;
	group->busy = false;
	tmem_lock_release(&pager->lock);
}

/* A group that only waited for its writes, and they are done; or NULL. */
static struct tmem_frame_group *take_written_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock)
{
	unsigned i, k;

	for (i = 0; i < FRAME_GROUPS; i++) {
		struct tmem_frame_group *group = &pager->frames.group[i];
		bool done = group->busy && !group->owned && group->nr_used;

		for (k = 0; k < group->nr_used && done; k++)
			done = !atomic_load(&group->frame[k].writing);
		if (done && settle_group_locked(pager, group))
			return group;
	}
	return NULL;
}

void tmem_evict_reap(struct tmem_pager *pager, bool wait)
{
	struct tmem_frame_group *group;

	if (!pager->swapfile && !atomic_exchange(&pager->some_stuck, 0))
		return;
	tmem_frontswap_reap(pager->frontswap, PAGER_FRONTSWAP_TYPE, wait);
	do {
		tmem_lock_acquire(&pager->lock);
		group = take_written_locked(pager);
		tmem_lock_release(&pager->lock);
		if (group)
			free_group(pager, group);
	} while (group);
}

bool tmem_evict_wait(struct tmem_pager *pager)
{
	unsigned i, writing = 0, free = 0;

	if (!pager->swapfile)
		return false;
	tmem_lock_acquire(&pager->lock);
	for (i = 0; i < FRAME_GROUPS_RW; i++) {
		const struct tmem_frame_group *group = &pager->frames.group[i];

		free += !group->busy;
		writing += group->busy && !group->owned;
	}
	tmem_lock_release(&pager->lock);
	if (free || !writing)
		return false;
	tmem_evict_reap(pager, true);
	return true;
}

/* What lies in frames [first, end) of the group, without the lock. */
static void send_frames(struct tmem_pager *pager,
			struct tmem_frame_group *group, unsigned first,
			unsigned end, uint8_t *scratch)
{
	unsigned i;

	for (i = first; i < end; i++) {
		struct tmem_frame *f = &group->frame[i];
		uint8_t *page = group->pages + (size_t)i * TMEM_PAGE_SIZE;

		TMEM_CHAOS_AT(EVICT_MOVED,
			      tmem_table_vpn(&pager->table, f->handle));
		f->result = send_out(pager, f, page, scratch);
		if (f->result == OUT_REFUSED && may_stay(pager, f))
			f->result = OUT_POOR;
		if (f->result == OUT_REFUSED)
			queue_write(pager, f, page);
		f->unsent = false;
		TMEM_CHAOS_AT(EVICT_SENT,
			      tmem_table_vpn(&pager->table, f->handle));
	}
}

/* All of the group was sent. */
static void end_group(struct tmem_pager *pager, struct tmem_frame_group *group)
{
	bool free;

	if (pager->swapfile)
		tmem_frontswap_flush(pager->frontswap, PAGER_FRONTSWAP_TYPE);
	atomic_fetch_sub(&pager->nr_storing, 1);
	tmem_lock_acquire(&pager->lock);
	free = settle_group_locked(pager, group);
	tmem_lock_release(&pager->lock);
	if (free)
		free_group(pager, group);
}

void tmem_evict_finish(struct tmem_pager *pager, struct tmem_frame_group *group,
		       uint8_t *scratch)
{
	send_frames(pager, group, 0, group->nr_used, scratch);
	end_group(pager, group);
}

struct tmem_frame_group *tmem_evict_begin_locked(struct tmem_pager *pager,
						 struct tmem_batch *b)
{
	struct tmem_frame_group *group = b->group;

	if (group && !group->nr_used) {
		group->busy = false;
		group->owned = false;
		group = NULL;
	}
	if (group)
		atomic_fetch_add(&pager->nr_storing, 1);
	return group;
}

bool tmem_evict_may_locked(const struct tmem_pager *pager, unsigned nr)
{
	return !atomic_load(&pager->fork_mode) &&
	       tmem_offsets_left(pager) >= nr;
}

/* Moves a group's worth out: 0, or -EBUSY if what was looked at is busy. */
static int open_group(struct tmem_pager *pager, struct tmem_handler *me)
{
	struct tmem_batch b = { .want = FRAME_GROUP };

	tmem_lock_acquire(&pager->lock);
	if (tmem_evict_may_locked(pager, b.want))
		tmem_hand_fill_locked(pager, &b);
	me->open = tmem_evict_begin_locked(pager, &b);
	me->nr_sent = 0;
	tmem_lock_release(&pager->lock);
	return !me->open && b.failures ? -EBUSY : 0;
}

int tmem_evict_some(struct tmem_pager *pager, struct tmem_handler *me,
		    unsigned nr)
{
	struct tmem_frame_group *group;
	unsigned first, end;
	int r = 0;

	tmem_evict_reap(pager, false);
	if (!me->open)
		r = open_group(pager, me);
	group = me->open;
	if (!group)
		return r;
	first = me->nr_sent;
	end = nr < group->nr_used - first ? first + nr : group->nr_used;
	send_frames(pager, group, first, end, me->page2);
	me->nr_sent = end;
	if (end == group->nr_used) {
		me->open = NULL;
		end_group(pager, group);
	} else {
		tmem_lock_acquire(&pager->lock);
		settle_frames_locked(pager, group);
		tmem_lock_release(&pager->lock);
	}
	return (int)(end - first);
}
