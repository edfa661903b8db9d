/* SPDX-License-Identifier: MIT */
/* See pin.h. */
#include "pin.h"

#include <errno.h>
#include <sched.h>

#include "base/sys.h"
#include "budget.h"
#include "procfs.h"
#include "region.h"
#include "serve.h"
#include "solo.h"

enum {
	/* Around the robust list's head, in glibc's thread descriptor. */
	DESCRIPTOR_BEFORE = 0x400,
	DESCRIPTOR_AFTER = 0x900,
	FIFO_PRIORITY_MAX = 99
};

void tmem_pin_range_locked(struct tmem_pager *pager, uint64_t start,
			   uint64_t end)
{
	uint64_t vpn;

	for (vpn = tmem_vpn(start); vpn <= tmem_vpn(end - 1); vpn++) {
		uint32_t h = tmem_table_make(&pager->table, vpn);
		enum tmem_page_state state;

		if (h == TABLE_NO_HANDLE)
			return;
		tmem_table_pin(&pager->table, h);
		state = tmem_entry_state(tmem_table_entry(&pager->table, h));
		if ((state == PAGE_STORED || state == PAGE_LEAVING) &&
		    pager->nr_fetch < PAGER_MAX_FETCH)
			pager->fetch[pager->nr_fetch++] = vpn;
	}
}

long tmem_pin_touch(struct tmem_pager *pager, uint64_t addr)
{
	/* Wakes nobody: the operation on the second word is what we want. */
	return tmem_sys(SYS_futex, &pager->touch_word, FUTEX_WAKE_OP_PRIVATE, 0,
			0, addr & ~3ull,
			FUTEX_OP(FUTEX_OP_OR, 0, FUTEX_OP_CMP_LT, 0));
}

void tmem_pin_fetch(struct tmem_pager *pager, void *scratch)
{
	uint64_t vpn;

	for (;;) {
		tmem_budget_acquire(pager);
		vpn = pager->nr_fetch ? pager->fetch[--pager->nr_fetch] : 0;
		tmem_lock_release(&pager->lock);
		if (!vpn)
			return;
		tmem_serve_fetch(pager, vpn, scratch);
	}
}

static void pin_thread(struct tmem_pager *pager, int tid)
{
	uint64_t head = 0, len = 0;

	if (tmem_sys(SYS_get_robust_list, tid, &head, &len) < 0 || !head)
		return;
	tmem_budget_acquire(pager);
	if (!atomic_load(&pager->fork_mode))
		tmem_pin_range_locked(pager, head - DESCRIPTOR_BEFORE,
				      head + DESCRIPTOR_AFTER);
	tmem_lock_release(&pager->lock);
}

/* A real-time program must not keep its own pager from running. */
static void note_priority(struct tmem_pager *pager, int tid)
{
	struct sched_param param = { 0 };
	long policy = tmem_sys(SYS_sched_getscheduler, tid);

	if ((policy & ~SCHED_RESET_ON_FORK) != SCHED_FIFO &&
	    (policy & ~SCHED_RESET_ON_FORK) != SCHED_RR)
		return;
	if (tmem_sys(SYS_sched_getparam, tid, &param) < 0 ||
	    param.sched_priority <= pager->rt_priority)
		return;
	pager->rt_priority = param.sched_priority;
	for (unsigned i = 0; i < pager->nr_handlers; i++)
		if (pager->handlers[i].tid)
			tmem_sys(SYS_sched_setscheduler, pager->handlers[i].tid,
				 SCHED_FIFO, &param);
	/* The ticker, who we are, goes before them. */
	if (param.sched_priority < FIFO_PRIORITY_MAX)
		param.sched_priority++;
	tmem_sys(SYS_sched_setscheduler, 0, SCHED_FIFO, &param);
}

struct threads {
	struct tmem_pager *pager;
	unsigned nr;
};

static bool look_at_thread(void *arg, int tid)
{
	struct threads *t = arg;

	pin_thread(t->pager, tid);
	note_priority(t->pager, tid);
	t->nr++;
	return false;
}

void tmem_region_pin_threads(struct tmem_pager *pager)
{
	struct threads t = { .pager = pager };

	tmem_procfs_tasks(pager->program_pid, look_at_thread, &t);
	if (!t.nr)
		return;
	tmem_solo_threads(pager, t.nr);
	tmem_pin_fetch(pager, pager->ticker_page);
}
