/* SPDX-License-Identifier: MIT */
/* See ahead.h. */
#include "ahead.h"

#include <errno.h>

#include "heat.h"
#include "install.h"
#include "late.h"
#include "load.h"

enum {
	/* Part of the resident pages that may be of unknown use, and so many
	 * at least. */
	UNKNOWN_PART = 8,
	UNKNOWN_LEAST = 64
};

void tmem_ahead_start(struct tmem_pager *pager)
{
	tmem_streams_init(&pager->streams);
	pager->table.nr_wasted = 0;
	pager->ahead_wasted_seen = 0;
}

/* The stream came past these pages. */
static void note_used_locked(struct tmem_pager *pager,
			     const struct tmem_stream_plan *plan)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_table *table = &pager->table;
	uint64_t vpn = plan->used;
	uint32_t i, handle, nr = 0;

	for (i = 0; i < plan->nr_used && table->nr_ahead; i++) {
		handle = tmem_table_find(table, vpn);
		if (handle != TABLE_NO_HANDLE)
			nr += tmem_table_use(table, handle);
		vpn += (uint64_t)plan->stride;
	}
	if (nr)
		PAGER_COUNT(pager, readahead_hits, nr);
	if (nr || table->nr_wasted != pager->ahead_wasted_seen) {
		tmem_streams_settle(&pager->streams, nr,
				    (uint32_t)(table->nr_wasted -
					       pager->ahead_wasted_seen));
		pager->ahead_wasted_seen = table->nr_wasted;
		atomic_store_explicit(&pager->slot->counters.readahead_wasted,
				      table->nr_wasted, memory_order_relaxed);
	}
}

/* Pages of the stream's way that the thread could not have used. */
static uint32_t count_skipped_locked(struct tmem_pager *pager,
				     const struct tmem_stream_plan *plan)
	TMEM_REQUIRES(&pager->lock)
{
	uint64_t vpn = plan->used;
	uint32_t i, nr = 0;

	for (i = 0; i < plan->nr_used + plan->nr_gap; i++) {
		nr += tmem_entry_state(tmem_table_get(&pager->table, vpn)) ==
		      PAGE_STORED;
		vpn += (uint64_t)plan->stride;
	}
	return nr;
}

void tmem_ahead_note_locked(struct tmem_pager *pager, struct tmem_handler *me,
			    uint64_t fault)
{
	struct tmem_stream_plan plan;

	if (!tmem_tree_has(pager->tree, TMEM_READ_AHEAD))
		return;
	plan = tmem_streams_fault(&pager->streams, (uint32_t)(fault & 4095),
				  tmem_vpn(fault));
	if (plan.stream)
		tmem_streams_skipped(&plan, count_skipped_locked(pager, &plan));
	note_used_locked(pager, &plan);
	if (!plan.nr_read ||
	    pager->table.nr_ahead >
		    UNKNOWN_LEAST + pager->table.nr_resident / UNKNOWN_PART)
		return;
	me->job.vpn = plan.read;
	me->job.stride = plan.stride;
	me->job.left = plan.nr_read;
	me->job.looked = 0;
}

/* Neighbours are installed upwards. */
static void turn_round(struct tmem_handler *me)
{
	unsigned i, k;

	for (i = 0, k = me->nr_loads; i + 1 < k; i++) {
		struct tmem_load load = me->load[i];

		k--;
		me->load[i] = me->load[k];
		me->load[k] = load;
	}
}

/* Claims the page if it is STORED; in the swap file only, or anywhere. */
static void claim_locked(struct tmem_pager *pager, struct tmem_handler *me,
			 uint64_t vpn, bool in_file) TMEM_REQUIRES(&pager->lock)
{
	uint32_t handle = tmem_table_find(&pager->table, vpn), entry;

	if (handle == TABLE_NO_HANDLE)
		return;
	entry = tmem_table_entry(&pager->table, handle);
	if (tmem_entry_state(entry) == PAGE_STORED &&
	    (!in_file ||
	     !tmem_frontswap_test(pager->frontswap, PAGER_FRONTSWAP_TYPE,
				  tmem_entry_value(entry))))
		tmem_load_claim_locked(pager, me, handle, vpn);
}

static void claim_rest_locked(struct tmem_pager *pager, struct tmem_handler *me)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_job *job = &me->job;

	while (job->left && me->nr_loads < PAGER_LOADS) {
		claim_locked(pager, me, job->vpn, false);
		job->vpn += (uint64_t)job->stride;
		job->left--;
		job->looked--;
	}
}

/*
 * The job's pages in the swap file first, all of them: what was evicted one
 * after the other is often in a row there, and comes with one read.
 */
static void claim_chunk_locked(struct tmem_pager *pager,
			       struct tmem_handler *me)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_job *job = &me->job;

	if (atomic_load(&pager->fork_mode) || !pager->swapfile)
		job->looked = job->left;
	for (; job->looked < job->left && me->nr_loads < PAGER_LOADS;
	     job->looked++)
		claim_locked(pager, me,
			     job->vpn + (uint64_t)job->stride * job->looked,
			     true);
	if (atomic_load(&pager->fork_mode))
		job->left = 0;
	if (!me->nr_loads)
		claim_rest_locked(pager, me);
	if (job->stride < 0)
		turn_round(me);
}

static bool may_install(const struct tmem_pager *pager,
			const struct tmem_load *load)
{
	return !atomic_load(&pager->fork_mode) && load->result == 0 &&
	       tmem_load_stands(pager, load);
}

/* How many loads from `first` on are neighbours and may be installed. */
static unsigned run_length(const struct tmem_handler *me, unsigned first)
{
	unsigned i;

	for (i = first; i < me->nr_loads; i++)
		if (me->load[i].vpn != me->load[first].vpn + (i - first) ||
		    !may_install(me->pager, &me->load[i]))
			break;
	return i - first;
}

static void note_installed_locked(struct tmem_pager *pager,
				  struct tmem_load *load)
	TMEM_REQUIRES(&pager->lock)
{
	uint32_t handle = load->handle;

	tmem_load_installed_locked(pager, load);
	tmem_heat_arrived_locked(pager, handle);
	tmem_table_set_ahead(&pager->table, handle);
	PAGER_COUNT(pager, readahead_pages, 1);
}

/* Installs or returns some loads from `first` on; how many. */
static unsigned install_run_locked(struct tmem_pager *pager,
				   struct tmem_handler *me, unsigned first)
	TMEM_REQUIRES(&pager->lock)
{
	struct tmem_load *load = &me->load[first];
	unsigned nr = run_length(me, first), i;
	long r = -EAGAIN;

	if (nr)
		r = tmem_install_pages(pager->uffd, load->vpn,
				       tmem_load_page(me, first), nr);
	if (r == -ENOENT && nr > 1) /* two mappings meet in the run */
		r = tmem_install_copy(pager->uffd, load->vpn,
				      tmem_load_page(me, first));
	for (i = 0; (long)i < r; i++)
		note_installed_locked(pager, &load[i]);
	if (r > 0) {
		tmem_late_quiet_locked(pager);
		return i;
	}
	if (r == -EEXIST) { /* present, whoever brought it: P3 */
		tmem_load_installed_locked(pager, load);
		tmem_install_wake(pager->uffd, load->vpn, 1);
	} else {
		tmem_load_return_locked(pager, load);
	}
	return 1;
}

static void install_chunk(struct tmem_handler *me)
{
	struct tmem_pager *pager = me->pager;
	unsigned i = 0;

	while (i < me->nr_loads) {
		tmem_lock_acquire(&pager->lock);
		i += install_run_locked(pager, me, i);
		if (i == me->nr_loads)
			tmem_load_end_locked(pager, me);
		tmem_lock_release(&pager->lock);
		if (!me->nr_loads)
			break;
	}
}

int tmem_ahead_step(struct tmem_handler *me)
{
	struct tmem_pager *pager = me->pager;
	unsigned nr;

	if (!me->job.left)
		return -1;
	tmem_lock_acquire(&pager->lock);
	claim_chunk_locked(pager, me);
	nr = me->nr_loads;
	tmem_lock_release(&pager->lock);
	if (nr) {
		tmem_load_read(me);
		install_chunk(me);
	}
	return (int)nr;
}
