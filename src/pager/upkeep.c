/* SPDX-License-Identifier: MIT */
/* See upkeep.h. */
#include "upkeep.h"

#include <tmem/stats.h>

#include "base/chaos.h"
#include "base/sys.h"
#include "budget.h"
#include "procfs.h"

#define NS_PER_MS 1000000ull

enum {
	STEP_MS = 1,
	REST_MS = 20,	    /* the least, between two steps */
	LONG_REST_MS = 200, /* nothing was to be done */
	/* K1: of the time that a step took. */
	REST_LESS = 9,
	REST_MORE = 49
};

/* Is a CPU idle, if those that we may use are all that there are? */
static bool some_cpu_is_idle(const struct tmem_pager *pager)
{
	/* Without us. */
	return tmem_procfs_runnable() <= pager->nr_handlers;
}

static void nap(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / (1000 * NS_PER_MS)),
			       (long)(ns % (1000 * NS_PER_MS)) };

	if (!tmem_chaos_hits(TMEM_CHAOS_HASTE))
		tmem_sys(SYS_nanosleep, &ts, NULL);
}

static bool may_work(struct tmem_pager *pager)
{
	return atomic_load(&pager->armed) && !atomic_load(&pager->fork_mode) &&
	       !atomic_load(&pager->dumping);
}

static uint64_t cooled(struct tmem_pager *pager)
{
	struct tmem_backend be = tmem_store_backend(pager->store);
	struct tmem_stats st;

	return be.ops->stats(be.self, &st) == 0 ? st.cooled : 0;
}

/* K1 */
static bool may_take_more(const struct tmem_pager *pager)
{
	return !tmem_budget_store_has_room(pager) || some_cpu_is_idle(pager);
}

/* How long to rest afterwards. */
static uint64_t step(struct tmem_pager *pager)
{
	uint64_t start = tmem_sys_now_ns(), rest;
	int more = tmem_store_maintain(pager->store, STEP_MS * NS_PER_MS);

	rest = tmem_sys_now_ns() - start;
	rest *= may_take_more(pager) ? REST_LESS : REST_MORE;
	if (!more && rest < LONG_REST_MS * NS_PER_MS)
		rest = LONG_REST_MS * NS_PER_MS;
	return rest < REST_MS * NS_PER_MS ? REST_MS * NS_PER_MS : rest;
}

void tmem_upkeep_run(void *arg)
{
	struct tmem_pager *pager = arg;
	/* What a fork's child inherits was counted by its parent. */
	uint64_t before = cooled(pager), now;

	for (;;) {
		if (!may_work(pager)) {
			nap(LONG_REST_MS * NS_PER_MS);
			continue;
		}
		nap(step(pager));
		now = cooled(pager);
		PAGER_COUNT(pager, cooled_pages, now - before);
		before = now;
	}
}
