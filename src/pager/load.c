/* SPDX-License-Identifier: MIT */
/* See load.h. */
#include "load.h"

#include "base/assert.h"
#include "base/chaos.h"
#include "budget.h"
#include "event.h"
#include "install.h"
#include "offsets.h"

void tmem_load_claim_locked(struct tmem_pager *pager, struct tmem_handler *me,
			    uint32_t handle, uint64_t vpn)
{
	uint32_t entry = tmem_table_entry(&pager->table, handle);

	TMEM_ASSERT(tmem_entry_state(entry) == PAGE_STORED);
	TMEM_ASSERT(me->nr_loads < PAGER_LOADS);
	tmem_table_set(&pager->table, handle, PAGE_LOADING,
		       tmem_entry_value(entry));
	if (!me->nr_loads)
		atomic_fetch_add(&pager->nr_loading, 1);
	me->load[me->nr_loads++] = (struct tmem_load){
		.vpn = vpn,
		.handle = handle,
		.offset = tmem_entry_value(entry),
	};
}

void tmem_load_read(struct tmem_handler *me)
{
	struct tmem_frontswap *fs = me->pager->frontswap;
	struct tmem_swapdev_read reads[PAGER_LOADS];
	unsigned i;

	for (i = 0; i < me->nr_loads; i++) {
		struct tmem_load *load = &me->load[i];

		load->in_store = tmem_frontswap_test(fs, PAGER_FRONTSWAP_TYPE,
						     load->offset);
		reads[i].offset = load->offset;
		reads[i].page = tmem_load_page(me, i);
		TMEM_CHAOS_AT(LOAD_CLAIMED, load->vpn);
	}
	if (me->nr_loads == 1)
		reads[0].result = tmem_frontswap_swap_in(
			fs, PAGER_FRONTSWAP_TYPE, reads[0].offset, me->page);
	else
		tmem_frontswap_swap_in_many(fs, PAGER_FRONTSWAP_TYPE, reads,
					    me->nr_loads);
	for (i = 0; i < me->nr_loads; i++) {
		me->load[i].result = reads[i].result;
		TMEM_CHAOS_AT(LOAD_READ, me->load[i].vpn);
	}
}

bool tmem_load_stands(const struct tmem_pager *pager,
		      const struct tmem_load *load)
{
	return load->handle != TABLE_NO_HANDLE &&
	       tmem_table_vpn(&pager->table, load->handle) == load->vpn &&
	       tmem_notes_resolve(pager->deferred, load->vpn) == load->vpn;
}

/*
 * A child may need the copy (P4) or share it; and one in the swap file costs
 * no memory: evicting the page unchanged is for free.  But what came from there
 * because the store was full goes to the store the next time, if it has room:
 * it is wanted, and a read from disk costs as much as five from the store.
 */
static bool keep_copy(const struct tmem_pager *pager,
		      const struct tmem_load *load)
{
	return atomic_load(&pager->fork_mode) || atomic_load(&pager->related) ||
	       (!load->in_store && pager->swapfile &&
		(tmem_table_is_poor(&pager->table, load->handle) ||
		 !tmem_budget_store_has_room(pager)) &&
		tmem_swapfile_is_roomy(pager->swapfile));
}

void tmem_load_installed_locked(struct tmem_pager *pager,
				struct tmem_load *load)
{
	atomic_fetch_add(&pager->usage_delta_pages, 1);
	if (keep_copy(pager, load)) {
		tmem_table_set(&pager->table, load->handle, PAGE_KEPT,
			       load->offset);
	} else {
		tmem_offset_drop_locked(pager, load->offset);
		tmem_table_set(&pager->table, load->handle, PAGE_RESIDENT, 0);
	}
	if (!load->in_store)
		tmem_table_set_missed(&pager->table, load->handle);
	load->handle = TABLE_NO_HANDLE;
}

void tmem_load_return_locked(struct tmem_pager *pager, struct tmem_load *load)
{
	uint64_t vpn;

	if (load->handle == TABLE_NO_HANDLE) { /* so is its copy */
		tmem_offset_drop_locked(pager, load->offset);
	} else {
		vpn = tmem_table_vpn(&pager->table, load->handle);
		tmem_table_set(&pager->table, load->handle, PAGE_STORED,
			       load->offset);
		load->handle = TABLE_NO_HANDLE;
		if (vpn != load->vpn)
			tmem_install_wake(pager->uffd, vpn, 1);
	}
	tmem_install_wake(pager->uffd, load->vpn, 1);
}

void tmem_load_end_locked(struct tmem_pager *pager, struct tmem_handler *me)
{
	unsigned i;

	for (i = 0; i < me->nr_loads; i++)
		TMEM_ASSERT(me->load[i].handle == TABLE_NO_HANDLE);
	me->nr_loads = 0;
	atomic_fetch_sub(&pager->nr_loading, 1);
}
