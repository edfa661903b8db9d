/* SPDX-License-Identifier: MIT */
/* See budget.h. */
#include "budget.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include <tmem/stats.h>

#include "base/sys.h"
#include "clock.h"
#include "evict.h"
#include "link.h"
#include "procfs.h"
#include "region.h"
#include "serve.h"
#include "zeros.h"

enum {
	MIB_PAGES = 256,
	RESERVE_MAX_PAGES = 6 * MIB_PAGES,
	/* Taken from the tree at a time, and kept as slack. */
	GRANT_STEP_PAGES = 2 * MIB_PAGES,
	/* A fault waits for no more than this, however far above. */
	FAULT_EVICT_MAX = 64,
	/* Of the grant, if there is a swap file for the rest. */
	STORE_PERCENT = 70,
	LOCK_TRIES = 3,
	/* Beside shared memory that takes the whole grant. */
	PRIVATE_LEAST = 12 * MIB_PAGES,
	/* So many looks find that the program has not run: it may just wait
	 * for us. */
	IDLE_TICKS = 16,
	/* Looks in one go that find only busy pages. */
	BUSY_MAX = 16,
	/* Faults wait no longer than for these when we are far above. */
	RECLAIM_MAX = 128,
	/* Fewer pages of zeros than that are not worth a sweep. */
	SILENT_PAGES = 2 * MIB_PAGES
};

#define NS_PER_MS 1000000ull
/* The clock of a process's CPU time: see clock_getcpuclockid(3). */
#define CPU_CLOCK_OF(pid) ((~(pid) << 3) | 2)
/* How fast one CPU touches new memory: 2.7 GB/s measured, with room. */
#define GROW_PAGES_PER_MS 1024ull
#define TICK_MIN_NS	  (NS_PER_MS / 2)
#define TICK_OVER_NS	  (1 * NS_PER_MS)
#define TICK_LONG_NS	  (5 * NS_PER_MS)
#define TICK_IDLE_NS	  (2 * NS_PER_MS)
#define TICK_MAX_NS	  (100 * NS_PER_MS)
#define ASK_NS		  (10 * NS_PER_MS)
#define LONG_NS		  (100 * NS_PER_MS)
#define PSS_PERIOD_NS	  (50 * NS_PER_MS)
#define PSS_URGENT_NS	  (10 * NS_PER_MS)

/*
 * What we may use.  Where shared memory, which can't be paged, takes all of
 * it, some private memory stays nevertheless: to evict that as well would not
 * bring the use down to the grant, only the program to a stop.
 */
static int64_t grant_pages(const struct tmem_pager *pager)
{
	uint64_t grant = atomic_load(&pager->slot->grant_bytes);
	uint64_t target = atomic_load(&pager->slot->target_bytes);
	uint64_t pages = (grant < target ? grant : target) / TMEM_PAGE_SIZE;
	uint64_t least = pager->shmem_pages + PRIVATE_LEAST;

	if (pager->shmem_pages > PRIVATE_LEAST && pages < least)
		pages = least;
	return (int64_t)pages;
}

/* Kept free below the grant, for bursts and for what ticks see late. */
static int64_t reserve_pages(int64_t grant)
{
	int64_t r = grant / 16;

	if (r > RESERVE_MAX_PAGES)
		return RESERVE_MAX_PAGES;
	return r < MIB_PAGES ? MIB_PAGES : r;
}

int64_t tmem_budget_usage_pages(const struct tmem_pager *pager)
{
	int64_t store =
		(int64_t)(tmem_store_held_bytes(pager->store) / TMEM_PAGE_SIZE);

	return (int64_t)pager->usage_base_pages +
	       atomic_load(&pager->usage_delta_pages) + store -
	       (int64_t)pager->usage_store_base + pager->pss_minus_rss;
}

bool tmem_budget_fits(const struct tmem_pager *pager)
{
	return tmem_budget_usage_pages(pager) <= grant_pages(pager);
}

static bool stuck(const struct tmem_pager *pager)
{
	return pager->full_until_ticks &&
	       tmem_clock_ticks() < pager->full_until_ticks;
}

/*
 * The program has crashed, and the kernel writes what is left of it: nothing is
 * to move meanwhile (wire/anchor.h).  Asked for only while something would.
 */
static bool dumps_core(struct tmem_pager *pager)
{
	uint64_t dumping = 0;
	char path[64];

	tmem_procfs_path(path, "/proc/", (uint64_t)pager->program_pid,
			 "/status");
	tmem_procfs_value(path, "CoreDumping:", &dumping);
	if (dumping)
		atomic_store(&pager->dumping, 1);
	return dumping;
}

/*
 * Evicts until the use is at the goal, at most `limit` pages; where all
 * frames wait for the swap file, so do we.  False: nothing could be.
 */
static bool evict_down(struct tmem_handler *me, int64_t goal, int64_t limit)
{
	struct tmem_pager *pager = me->pager;
	int64_t done = 0;
	int n = 0, busy = 0;

	while (tmem_budget_usage_pages(pager) > goal && done < limit &&
	       busy < BUSY_MAX && !stuck(pager) &&
	       !atomic_load(&pager->fork_mode) &&
	       !atomic_load(&pager->dumping)) {
		n = tmem_evict_some(pager, me, FRAME_GROUP);
		if (!n && !tmem_evict_wait(pager))
			break;
		done += n > 0 ? n : 0;
		busy += n < 0;
	}
	if (done == 0 && n == 0)
		atomic_store(&pager->evict_starved, 1);
	return done > 0;
}

bool tmem_budget_store_has_room(const struct tmem_pager *pager)
{
	return tmem_store_held_bytes(pager->store) <
	       pager->store_limit / 16 * 15;
}

bool tmem_budget_is_roomy(const struct tmem_pager *pager)
{
	int64_t grant = grant_pages(pager);

	return tmem_budget_usage_pages(pager) <=
	       grant - reserve_pages(grant) / 2;
}

unsigned tmem_budget_after_fault(struct tmem_handler *me)
{
	struct tmem_pager *pager = me->pager;
	int64_t grant, usage;
	unsigned nr;

	if (!atomic_load(&pager->armed) || atomic_load(&pager->fork_mode))
		return 0;
	grant = grant_pages(pager);
	usage = tmem_budget_usage_pages(pager);
	if (usage > grant) {
		evict_down(me, grant, FAULT_EVICT_MAX);
		return FAULT_EVICT_MAX;
	}
	if (!me->open &&
	    (usage <= grant - reserve_pages(grant) || stuck(pager)))
		return 0;
	nr = me->owed_pages ? me->owed_pages : 1;
	if (!tmem_tree_has(pager->tree, TMEM_METER))
		nr = FRAME_GROUP;
	else if (usage > grant - reserve_pages(grant) / 2)
		nr++;
	tmem_evict_some(pager, me, nr);
	return nr;
}

void tmem_budget_reclaim(struct tmem_handler *me)
{
	struct tmem_pager *pager = me->pager;
	int64_t grant = grant_pages(pager);
	struct sched_param none = { 0 };
	uint64_t one = 1;

	/* Faults first, then the rest; where nothing can go, the next tick. */
	if (atomic_load(&pager->armed) && !atomic_load(&pager->fork_mode) &&
	    !stuck(pager) && tmem_budget_usage_pages(pager) > grant &&
	    evict_down(me, grant - reserve_pages(grant) / 2, RECLAIM_MAX) &&
	    !dumps_core(pager))
		tmem_sys(SYS_write, me->kick_fd, &one, sizeof(one));
	else if (atomic_exchange(&me->urged, 0))
		tmem_sys(SYS_sched_setscheduler, 0, SCHED_OTHER, &none);
}

/* The program outruns us: the handlers go first until it fits again. */
static void urge_handlers(struct tmem_pager *pager)
{
	struct sched_param fifo = { .sched_priority = 1 };
	unsigned i;

	for (i = 0; i < pager->nr_handlers && !pager->rt_priority; i++) {
		struct tmem_handler *h = &pager->handlers[i];

		if (tmem_sys(SYS_sched_setscheduler, h->tid, SCHED_FIFO,
			     &fifo) == 0)
			atomic_store(&h->urged, 1);
	}
	tmem_serve_kick(pager);
}

void tmem_budget_acquire(struct tmem_pager *pager) TMEM_UNANALYSED
{
	unsigned i;

	for (i = 0; i < LOCK_TRIES; i++) {
		if (tmem_lock_try_acquire(&pager->lock))
			return;
		tmem_sys_pause();
	}
	urge_handlers(pager);
	tmem_lock_acquire(&pager->lock);
}

void tmem_budget_full(struct tmem_pager *pager)
{
	/* Try again in a tenth of a second: something may have been freed. */
	pager->full_until_ticks = tmem_clock_ticks() + 200000000ull;
	pager->full_seen = true;
}

/* B1: takes up to `pages` from the tree; returns what it got. */
static int64_t take_grant(struct tmem_pager *pager, int64_t pages)
{
	int64_t avail = atomic_load(&pager->tree->avail_bytes), take;

	do {
		take = pages * TMEM_PAGE_SIZE;
		if (take > avail)
			take = avail / TMEM_PAGE_SIZE * TMEM_PAGE_SIZE;
		if (take <= 0)
			return 0;
	} while (!atomic_compare_exchange_weak(&pager->tree->avail_bytes,
					       &avail, avail - take));
	atomic_fetch_add(&pager->slot->grant_bytes, (uint64_t)take);
	return take / TMEM_PAGE_SIZE;
}

static void give_grant(struct tmem_pager *pager, int64_t pages)
{
	int64_t bytes = pages * TMEM_PAGE_SIZE;

	atomic_fetch_sub(&pager->slot->grant_bytes, (uint64_t)bytes);
	atomic_fetch_add(&pager->tree->avail_bytes, bytes);
}

/* B1, at every tick: room for growth while there is some to be had. */
static void settle_grant(struct tmem_pager *pager, int64_t usage)
{
	int64_t grant = (int64_t)(atomic_load(&pager->slot->grant_bytes) /
				  TMEM_PAGE_SIZE);
	int64_t need = usage + reserve_pages(grant) + GRANT_STEP_PAGES;
	uint64_t target = atomic_load(&pager->slot->target_bytes);

	if (atomic_load(&pager->tree->growing) && usage > grant) {
		/* --on-full grow: what no place was found for stays. */
		atomic_fetch_add(&pager->slot->grant_bytes,
				 (uint64_t)(usage - grant) * TMEM_PAGE_SIZE);
		atomic_fetch_add(&pager->tree->limit_bytes,
				 (uint64_t)(usage - grant) * TMEM_PAGE_SIZE);
		return;
	}
	if (target != UINT64_MAX) {
		/* Told to give back: all above it that is not in use. */
		int64_t keep = (int64_t)(target / TMEM_PAGE_SIZE);

		if (keep < usage)
			keep = usage;
		if (grant > keep) {
			give_grant(pager, grant - keep);
			grant = keep;
		}
	} else if (need > grant) {
		grant += take_grant(pager, need - grant);
	} else if (grant > need + GRANT_STEP_PAGES) {
		give_grant(pager, grant - need);
		grant = need;
	}
	if (need <= grant)
		atomic_store(&pager->slot->want_bytes, 0);
	else if (!atomic_exchange(&pager->slot->want_bytes,
				  (uint64_t)(need - grant) * TMEM_PAGE_SIZE))
		tmem_link_want(pager);
}

/*
 * The kernel walks all page tables for Pss, so it is read a tenth of the time
 * by all relatives together; half of it while anything is evicted for its
 * sake, as what others do changes it too.
 */
static bool pss_is_due(struct tmem_pager *pager, uint64_t now, uint64_t minflt)
{
	uint64_t age = now - pager->last_pss_ns, took = pager->pss_took_ns;
	uint64_t nr = pager->nr_relatives;

	if (atomic_exchange(&pager->pss_stale, 0))
		return true;
	if (!tmem_budget_fits(pager) && age > PSS_URGENT_NS &&
	    age > took * (4 + 2 * nr))
		return true;
	return age > took * 10 * (nr + 1) &&
	       (age > PSS_PERIOD_NS || minflt - pager->last_minflt > MIB_PAGES);
}

/* Memory shared by fork: the difference between its share and its size. */
static void read_shares(struct tmem_pager *pager)
{
	uint64_t now = tmem_sys_now_ns(), minflt, shmem;
	int64_t less;

	if (!atomic_load(&pager->related)) {
		pager->pss_minus_rss = 0;
		return;
	}
	/*
	 * A first write to a shared page makes a copy, which adds to Pss but
	 * not to Rss: the program's minor faults bound how many.  (Those that
	 * we answer count as major ones.)
	 */
	minflt = tmem_procfs_stat(pager->program_pid, PROCFS_STAT_MINFLT);
	if (pss_is_due(pager, now, minflt) &&
	    tmem_procfs_shares(&less, &shmem) == 0) {
		pager->last_pss_ns = tmem_sys_now_ns();
		pager->pss_took_ns = pager->last_pss_ns - now;
		pager->pss_at_read =
			(int64_t)(shmem - pager->shmem_pages) - less;
		pager->last_minflt = minflt;
	}
	pager->pss_minus_rss =
		pager->pss_at_read + (int64_t)(minflt - pager->last_minflt);
	if (pager->pss_minus_rss > 0)
		pager->pss_minus_rss = 0;
}

static void read_usage(struct tmem_pager *pager)
{
	uint64_t rss = 0, file_shmem = 0;

	/* The handlers count on from here: what they did meanwhile is in. */
	atomic_store(&pager->usage_delta_pages, 0);
	pager->usage_store_base =
		tmem_store_held_bytes(pager->store) / TMEM_PAGE_SIZE;
	if (tmem_procfs_statm(pager->statm_fd, &rss, &file_shmem) == 0)
		pager->usage_base_pages = rss - file_shmem + pager->shmem_pages;
	read_shares(pager);
}

/* Pages present that the table does not know: new, or not registered yet. */
static int64_t unknown_pages(const struct tmem_pager *pager, int64_t usage)
{
	int64_t store =
		(int64_t)(tmem_store_held_bytes(pager->store) / TMEM_PAGE_SIZE);

	return usage - store - (int64_t)pager->table.nr_resident;
}

static void arm_if_near(struct tmem_pager *pager, int64_t usage)
{
	int64_t grant = grant_pages(pager), unknown;
	int64_t avail = atomic_load(&pager->tree->avail_bytes) / TMEM_PAGE_SIZE;
	uint64_t now = tmem_sys_now_ns();

	if (atomic_load(&pager->fork_mode))
		return;
	if (!atomic_load(&pager->armed)) {
		/* Near: what two ticks could add would not fit any more. */
		int64_t near =
			(int64_t)(GROW_PAGES_PER_MS * 5) * pager->nr_handlers;

		if (near > (grant + avail) / 4 * 3)
			near = (grant + avail) / 4 * 3;
		if (usage + near < grant + avail)
			return;
	} else {
		unknown = unknown_pages(pager, usage);
		if (unknown < pager->unknown_at_scan + MIB_PAGES ||
		    usage < grant / 4 * 3)
			return;
		/* A quarter of the time for scans, if it is not urgent. */
		if (usage <= grant &&
		    now - pager->scan_end_ns < 3 * pager->scan_ns)
			return;
	}
	if (dumps_core(pager))
		return;
	tmem_region_scan(pager);
	pager->ask_next_ns = 0; /* there is something new */
	pager->scan_end_ns = tmem_sys_now_ns();
	pager->scan_ns = pager->scan_end_ns - now;
	pager->unknown_at_scan = unknown_pages(pager, usage);
}

/*
 * Pages of zeros that the program may fill without our seeing it: they must
 * be out before they are more than there is room for.  Taking one out costs a
 * third of what filling it does.
 */
static void watch_zeros(struct tmem_pager *pager, int64_t usage)
{
	int64_t unknown = unknown_pages(pager, usage - pager->pss_minus_rss);
	int64_t all = grant_pages(pager) +
		      atomic_load(&pager->tree->avail_bytes) / TMEM_PAGE_SIZE;
	int64_t silent, room = all - usage;

	if (!atomic_load(&pager->armed) || atomic_load(&pager->fork_mode))
		return;
	if (pager->zeros_new)
		tmem_zeros_counted(pager, unknown, pager->zeros_found);
	pager->zeros_new = false;
	silent = tmem_zeros_silent(pager, unknown);
	if (silent > SILENT_PAGES &&
	    silent > room + reserve_pages(grant_pages(pager)) &&
	    room < silent * pager->nr_handlers / 4 && !dumps_core(pager))
		tmem_zeros_sweep(pager, unknown);
}

/* Some memory must stay for the program to run in: the rest goes to disk. */
static void limit_store(struct tmem_pager *pager, int64_t grant)
{
	uint64_t bytes = (uint64_t)grant * TMEM_PAGE_SIZE / 100 * STORE_PERCENT;

	if (!pager->swapfile)
		bytes = atomic_load(&pager->tree->limit_bytes);
	if (bytes < TMEM_STORE_MIN_BYTES)
		bytes = TMEM_STORE_MIN_BYTES;
	/* -m was raised a lot; then the less needs to be stored. */
	if (bytes > pager->store_max_bytes)
		bytes = pager->store_max_bytes;
	if (atomic_load(&pager->fork_mode))
		return;
	pager->store_limit = bytes;
	tmem_store_set_limit(pager->store, bytes);
}

/*
 * A program that does not run does not grow, and need not be looked at: many
 * idle processes would cost much together.  Told to give back, or above its
 * grant, it is not left alone.
 */
static bool nothing_new(struct tmem_pager *pager)
{
	struct timespec ts = { 0, 0 };
	uint64_t cpu_ns, now = tmem_sys_now_ns();
	bool same;

	tmem_sys(SYS_clock_gettime, CPU_CLOCK_OF(pager->program_pid), &ts);
	cpu_ns = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
	same = cpu_ns == pager->program_cpu_ns &&
	       now - pager->full_tick_ns < TICK_MAX_NS &&
	       atomic_load(&pager->slot->target_bytes) == UINT64_MAX &&
	       tmem_budget_usage_pages(pager) <= grant_pages(pager);
	pager->program_cpu_ns = cpu_ns;
	pager->idle_ticks = same ? pager->idle_ticks + 1 : 0;
	if (pager->idle_ticks > IDLE_TICKS)
		return true;
	pager->full_tick_ns = now;
	return false;
}

/* We hold too much, and have for a while: it does not go fast, or at all. */
static bool is_over_for_long(const struct tmem_pager *pager, uint64_t now)
{
	return pager->over_ns && now - pager->over_ns > LONG_NS;
}

/*
 * B4: until then, what may the program do behind our back?  It counts on half
 * of the room: the next look must come while there is still some.
 */
static uint64_t next_tick(const struct tmem_pager *pager, int64_t usage,
			  uint64_t now)
{
	int64_t avail = atomic_load(&pager->tree->avail_bytes) / TMEM_PAGE_SIZE;
	int64_t headroom = (grant_pages(pager) + avail - usage) / 2;
	uint64_t ns;

	if (headroom < 0) {
		if (!is_over_for_long(pager, now))
			return TICK_OVER_NS;
		/* All relatives together take a quarter of the time for it. */
		ns = (tmem_sys_now_ns() - now) * 4 * pager->nr_relatives /
		     pager->nr_handlers;
		if (ns < TICK_OVER_NS)
			return TICK_OVER_NS;
		return ns > TICK_LONG_NS ? TICK_LONG_NS : ns;
	}
	ns = (uint64_t)headroom * NS_PER_MS /
	     (GROW_PAGES_PER_MS * pager->nr_handlers);
	if (ns < TICK_MIN_NS)
		return TICK_MIN_NS;
	return ns > TICK_MAX_NS ? TICK_MAX_NS : ns;
}

/*
 * What found no place is the keeper's affair if we hold too much: there may be
 * room to grow again, for which nothing has to go.
 */
static void report_full(struct tmem_pager *pager)
{
	if (!pager->full_seen)
		return;
	if (!tmem_budget_fits(pager)) {
		pager->full_seen = false;
		tmem_link_swap_full(pager);
	} else if (!stuck(pager)) {
		pager->full_seen = false;
	}
}

/*
 * Above the grant the handlers are to evict, and once asked do so for as long
 * as they find something.  If that does not help, they look again now and then,
 * or when more was registered or has become movable; faults make them look,
 * too.
 */
static void ask_handlers(struct tmem_pager *pager, uint64_t now)
{
	uint64_t pause = ASK_NS * (1 + pager->nr_relatives);

	if (stuck(pager)) {
		pager->starved_ns = 0; /* that is another trouble */
		return;
	}
	if ((is_over_for_long(pager, now) && now < pager->ask_next_ns) ||
	    dumps_core(pager))
		return;
	pager->ask_next_ns = now + (pause > TICK_MAX_NS ? TICK_MAX_NS : pause);
	pager->asked = true;
	urge_handlers(pager);
}

uint64_t tmem_budget_tick(struct tmem_pager *pager)
{
	uint64_t now = tmem_sys_now_ns();
	int64_t usage, grant;

	/* However far it is now: others may take what is left meanwhile. */
	if (atomic_load(&pager->dumping) || nothing_new(pager))
		return TICK_IDLE_NS;
	tmem_clock_adjust(pager);
	read_usage(pager);
	usage = tmem_budget_usage_pages(pager);
	settle_grant(pager, usage);
	arm_if_near(pager, usage);
	watch_zeros(pager, usage);
	tmem_evict_reap(pager, false);
	grant = grant_pages(pager);
	limit_store(pager, grant);
	if (usage <= grant)
		pager->over_ns = 0;
	else if (!pager->over_ns)
		pager->over_ns = now;
	if (atomic_load(&pager->armed) && usage > grant)
		ask_handlers(pager, now);
	report_full(pager);
	tmem_budget_report(pager);
	return next_tick(pager, usage, now);
}

void tmem_budget_report(struct tmem_pager *pager)
{
	struct tmem_tree_slot *s = pager->slot;
	int64_t usage = tmem_budget_usage_pages(pager);
	uint64_t bytes = (uint64_t)(usage > 0 ? usage : 0) * TMEM_PAGE_SIZE;
	struct tmem_stats st;
	struct tmem_backend be = tmem_store_backend(pager->store);

	atomic_store(&s->usage_bytes, bytes);
	if (bytes > atomic_load(&s->peak_bytes))
		atomic_store(&s->peak_bytes, bytes);
	atomic_store(&s->shared_bytes, pager->shmem_pages * TMEM_PAGE_SIZE);
	if (!atomic_load(&pager->armed) || be.ops->stats(be.self, &st) != 0)
		return;
	atomic_store(&s->store_held_bytes, st.held_bytes);
	atomic_store(&s->stored_pages, st.pages);
	atomic_store(&s->stored_bytes, st.stored_bytes);
	atomic_store(&s->same_pages, st.same_pages);
	atomic_store(&s->raw_pages, st.raw_pages);
	atomic_store(&s->refused_pages, st.refused_poor + st.refused_full +
						st.refused_limit +
						st.refused_pool);
	if (pager->swapfile) {
		struct tmem_swapdev d = tmem_swapfile_device(pager->swapfile);
		uint64_t used = d.ops->used_pages(d.self);

		atomic_store(&s->swapped_pages, used);
		if (used > atomic_load(&s->peak_swapped_pages))
			atomic_store(&s->peak_swapped_pages, used);
	}
	if (st.pages > atomic_load(&s->peak_stored_pages)) {
		atomic_store(&s->peak_stored_pages, st.pages);
		atomic_store(&s->peak_stored_bytes, st.stored_bytes);
		atomic_store(&s->peak_held_bytes, st.held_bytes);
	}
}

void tmem_budget_report_cpu(struct tmem_pager *pager)
{
	struct timespec ts = { 0, 0 };

	tmem_sys(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &ts);
	atomic_store(&pager->slot->counters.pager_cpu_ns,
		     (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
}
