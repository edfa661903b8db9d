/* SPDX-License-Identifier: MIT */
/*
 * Background work: who does it, for how long, and how much of a CPU it takes.
 *
 * Compaction gives memory back at once and is not bounded.  Cooling and
 * learning may take `percent` of one CPU, averaged over a second or so: what
 * they may take grows with the time that passes, up to a second's worth, and
 * shrinks by the CPU time that they took.
 */
#include <tmem/store.h>

#include "base/sys.h"
#include "compact.h"
#include "cool.h"
#include "dedup.h"
#include "learn.h"
#include "tiering.h"

#define SECOND 1000000000ull

/* CPU time of this thread. */
static uint64_t cpu_ns(void)
{
	struct timespec ts = { 0, 0 };

	tmem_sys(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

/* Nanoseconds that may be taken now, 0: none. */
static uint64_t allowance(struct tmem_work *work, uint64_t now)
{
	uint64_t passed = now - work->last_ns;
	int64_t most = (int64_t)(SECOND / 100 * work->percent);

	if (!work->percent)
		return UINT64_MAX / 2;
	if (passed > SECOND)
		passed = SECOND;
	work->last_ns = now;
	work->left_ns += (int64_t)(passed * work->percent / 100);
	if (work->left_ns > most)
		work->left_ns = most;
	return work->left_ns > 0 ? (uint64_t)work->left_ns : 0;
}

static bool recompress(struct tmem_store *store, uint64_t now, uint64_t until)
{
	struct tmem_work *work = &store->work;
	uint64_t may = allowance(work, now), start, took;
	bool more;

	if (!may || (!store->cool_after_ns && !store->dict_every_ns &&
		     !atomic_load(&store->dicts)))
		return false;
	if (until > now + may)
		until = now + may;
	start = cpu_ns();
	more = tmem_cool_some(store, until);
	if (!more || tmem_sys_now_ns() < until)
		more |= tmem_learn_some(store, until);
	took = cpu_ns() - start;
	atomic_fetch_add_explicit(&work->cpu_ns, took, memory_order_relaxed);
	work->left_ns -= (int64_t)took;
	/* More to do, but not now, is nothing to do. */
	return more && (!work->percent || work->left_ns > 0);
}

/* False: the table of hints has the size that it should have. */
static bool trim_dedup(struct tmem_store *store, uint64_t until_ns)
{
	bool more;

	do {
		if (!tmem_lock_acquire_unless_closed(&store->control))
			return false;
		more = tmem_dedup_trim(store);
		tmem_lock_release(&store->control);
	} while (more && tmem_sys_now_ns() < until_ns);
	return more;
}

int tmem_store_maintain(struct tmem_store *store, uint64_t budget_ns)
{
	uint64_t now = tmem_sys_now_ns(), until = now + budget_ns;
	bool more;

	if (until < now)
		until = UINT64_MAX;
	if (atomic_exchange(&store->quiet->maintaining, 1))
		return 0; /* somebody does it */
	more = trim_dedup(store, until);
	more |= tmem_compact(store, until);
	more |= tmem_tiering_some(store, until, !more);
	if (!more || tmem_sys_now_ns() < until)
		more |= recompress(store, tmem_sys_now_ns(), until);
	atomic_store(&store->quiet->maintaining, 0);
	return more;
}
