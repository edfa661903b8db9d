/* SPDX-License-Identifier: MIT */
/* See start.h. */
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "ahead.h"
#include "anchor.h"
#include "base/assert.h"
#include "base/chaos.h"
#include "base/sys.h"
#include "birth.h"
#include "born.h"
#include "budget.h"
#include "busy.h"
#include "clock.h"
#include "event.h"
#include "evict.h"
#include "gate.h"
#include "heat.h"
#include "link.h"
#include "offsets.h"
#include "pin.h"
#include "process.h"
#include "procfs.h"
#include "region.h"
#include "related.h"
#include "serve.h"
#include "solo.h"
#include "upkeep.h"

enum {
	SWAP_DEPTH = 128,
	KCMP_VM = 1,
	SLOW_TICKS = 10,
	PIN_PERIOD_NS = 5000000,
	TICKER_PRIORITY = 2, /* above the handlers' when urged */
	SIZE_LOOKS = 8,
	ROOM_NAP_NS = 500000,
	ROOM_NAPS = 8
};

struct tmem_pager *tmem_pager;

void *tmem_pager_map(struct tmem_pager *pager, size_t bytes)
{
	void *p = tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);

	if (!p)
		return NULL;
	TMEM_ASSERT(pager->nr_own < PAGER_MAX_OWN);
	pager->own[pager->nr_own++] =
		(struct tmem_range){ (uintptr_t)p,
				     ((uintptr_t)p + bytes + 4095) & ~4095ull };
	return p;
}

/* Without us evicted memory would read as zeros: the program must not live. */
static void die_together(const char *line)
{
	(void)line;
	if (tmem_pager)
		tmem_sys(SYS_kill, tmem_pager->program_pid, SIGKILL);
}

static void finish(struct tmem_pager *pager)
{
	tmem_budget_report(pager);
	tmem_budget_report_cpu(pager);
	atomic_store(&pager->slot->state, TMEM_SLOT_DEAD);
	atomic_store(&pager->state, PAGER_ENDED);
	tmem_sys(SYS_exit_group, 0);
}

/*
 * Without the right to compare (the program gave up root): an exec shows in
 * how much is mapped there and here.  Both change, so several looks agree.
 */
static bool sizes_differ(const struct tmem_pager *pager)
{
	unsigned i, differ = 0;

	for (i = 0; i < SIZE_LOOKS && differ == i; i++) {
		uint64_t before = tmem_procfs_mapped_pages(pager->pager_pid);
		uint64_t theirs = tmem_procfs_mapped_pages(pager->program_pid);
		uint64_t after = tmem_procfs_mapped_pages(pager->pager_pid);

		differ += theirs && theirs != before && theirs != after;
	}
	return differ == SIZE_LOOKS;
}

static bool is_in_our_memory(void *arg, int tid)
{
	const struct tmem_pager *pager = arg;
	long same = tmem_sys(SYS_kcmp, tid, pager->pager_pid, KCMP_VM, 0, 0);

	if (same == -EPERM || same == -EACCES)
		return !sizes_differ(pager);
	return same == 0 || same == -ENOSYS;
}

bool tmem_start_program_lives(struct tmem_pager *pager)
{
	struct pollfd p = { .fd = pager->program_pidfd, .events = POLLIN };

	if (tmem_sys(SYS_poll, &p, 1, 0) > 0)
		return false;
	return is_in_our_memory(pager, pager->program_pid) ||
	       tmem_procfs_tasks(pager->program_pid, is_in_our_memory, pager);
}

static int open_files(struct tmem_pager *pager)
{
	pager->statm_fd = (int)tmem_sys(SYS_open, "/proc/self/statm",
					O_RDONLY | O_CLOEXEC);
	pager->remaps_right = tmem_procfs_linux(6, 18);
	pager->maps_fd = (int)tmem_sys(SYS_open, "/proc/self/maps",
				       O_RDONLY | O_CLOEXEC);
	pager->pagemap_fd = (int)tmem_sys(SYS_open, "/proc/self/pagemap",
					  O_RDONLY | O_CLOEXEC);
	pager->program_pidfd =
		(int)tmem_sys(SYS_pidfd_open, pager->program_pid, 0);
	if (pager->statm_fd < 0)
		return pager->statm_fd;
	if (pager->pagemap_fd < 0)
		return pager->pagemap_fd;
	if (pager->program_pidfd < 0)
		return pager->program_pidfd;
	return 0;
}

/*
 * Room for -m to be raised; but from 4 GiB on the store has more shards, which
 * take memory.
 */
static uint64_t store_max_bytes(uint64_t limit_bytes)
{
	const uint64_t many = 4ull << 30;

	if (limit_bytes >= many)
		return limit_bytes;
	return limit_bytes < many / 4 ? 4 * limit_bytes : many - 1;
}

static int open_store(struct tmem_pager *pager)
{
	/* A page as it is frees nothing here; the swap file takes it. */
	struct tmem_store_options so = { .limit_bytes = atomic_load(
						 &pager->tree->limit_bytes),
					 .no_raw = 1,
					 .no_dedup = 1 };
	struct tmem_frontswap_options fo = { 0 };
	struct tmem_swapdev device = { 0 };
	int r;

	if (tmem_tree_has(pager->tree, TMEM_COOL))
		so.cool_after_ns =
			tmem_chaos_hits(TMEM_CHAOS_HASTE) ? 1 : UPKEEP_COOL_NS;
	pager->store_max_bytes = store_max_bytes(so.limit_bytes);
	so.max_limit_bytes = pager->store_max_bytes;
	r = tmem_offsets_init(pager);
	if (r < 0)
		return r;
	r = tmem_store_open(&so, &pager->store);
	if (r < 0)
		return r;
	fo.backend = tmem_store_backend(pager->store);
	r = tmem_frontswap_open(&fo, &pager->frontswap);
	if (r < 0)
		return r;
	if (pager->swap_file_fd >= 0) {
		struct tmem_swapfile_options wo = {
			.file_fd = pager->swap_file_fd,
			.map_fd = pager->swap_map_fd,
			.user = (unsigned)pager->slot_nr,
			.depth = SWAP_DEPTH,
			.nr_offsets = pager->nr_offsets,
		};

		r = tmem_swapfile_open(&wo, &pager->swapfile);
		if (r < 0)
			return r;
		device = tmem_swapfile_device(pager->swapfile);
	}
	return tmem_frontswap_init(pager->frontswap, PAGER_FRONTSWAP_TYPE,
				   pager->nr_offsets, device);
}

static void run_handler(void *arg)
{
	struct tmem_handler *me = arg;
	cpu_set_t one;

	if (me->cpu >= 0) {
		memset(&one, 0, sizeof(one));
		one.__bits[me->cpu / 64] |= 1ul << me->cpu % 64;
		tmem_sys(SYS_sched_setaffinity, 0, sizeof(one), &one);
	}
	tmem_serve_run(me);
}

static void run_gate(void *arg)
{
	tmem_gate_run(arg);
}

static int start_threads(struct tmem_pager *pager)
{
	unsigned i;
	int tid;

	for (i = 0; i < pager->nr_handlers; i++) {
		struct tmem_handler *h = &pager->handlers[i];

		h->kick_fd = (int)tmem_sys(SYS_eventfd2, 0,
					   EFD_NONBLOCK | EFD_CLOEXEC);
		if (h->kick_fd < 0)
			return h->kick_fd;
		tid = tmem_process_thread(pager, h->block, run_handler, h);
		if (tid < 0)
			return tid;
		h->tid = tid;
	}
	tid = tmem_process_thread(pager, pager->gate_block, run_gate, pager);
	if (tid >= 0 && tmem_tree_has(pager->tree, TMEM_COOL))
		tid = tmem_process_thread(pager, pager->upkeep_block,
					  tmem_upkeep_run, pager);
	return tid < 0 ? tid : 0;
}

static void set_state(struct tmem_pager *pager, uint32_t state)
{
	atomic_store(&pager->state, state);
	tmem_sys_futex_wake(&pager->state, INT32_MAX);
}

/* In a child: its own ends of what it inherited, then the doorbell. */
static int take_over(struct tmem_pager *pager)
{
	struct tmem_swapdev device;
	int r;

	if (pager->swapfile) {
		r = tmem_swapfile_reopen(pager->swapfile, pager->swap_file_fd,
					 pager->swap_map_fd,
					 (unsigned)pager->slot_nr);
		if (r < 0)
			return r;
		device = tmem_swapfile_device(pager->swapfile);
		tmem_frontswap_set_device(pager->frontswap,
					  PAGER_FRONTSWAP_TYPE, device);
	}
	if (pager->trapped)
		return tmem_born_adopt(pager);
	if (!atomic_load(&pager->armed)) {
		atomic_store(&pager->deferred->nr, 0);
		return 0;
	}
	/* Waits until our parent's pager lets go of this memory. */
	(void)*(volatile uint8_t *)pager->doorbell;
	pager->alone = true;
	tmem_lock_acquire(&pager->lock);
	atomic_store(&pager->deferred->nr, 0);
	tmem_event_forget_noted_locked(pager, (void *)pager->doorbell);
	tmem_lock_release(&pager->lock);
	tmem_sys_madvise(pager->doorbell, 2ul * TMEM_PAGE_SIZE, MADV_DONTNEED);
	atomic_store(&pager->armed, 0);
	tmem_region_adopt(pager);
	return 0;
}

/* Pss was read with another: budget.c takes their difference. */
static void read_shmem(struct tmem_pager *pager)
{
	uint64_t was = pager->shmem_pages;

	tmem_procfs_shmem_pages(&pager->shmem_pages);
	if (pager->shmem_pages != was)
		atomic_store(&pager->pss_stale, 1);
}

static void tick_forever(struct tmem_pager *pager)
{
	struct pollfd fds[2] = { { .fd = pager->wake_fd, .events = POLLIN },
				 { .fd = pager->program_pidfd,
				   .events = POLLIN } };
	struct sched_param fifo = { .sched_priority = TICKER_PRIORITY };
	unsigned ticks = 0;
	uint64_t count, ns, pinned_ns = 0;

	/* Late ticks are memory over the budget: B4. */
	tmem_sys(SYS_sched_setscheduler, 0, SCHED_FIFO, &fifo);
	for (;;) {
		struct timespec ts = { 0, 0 };

		ns = tmem_budget_tick(pager);
		if (ticks++ % SLOW_TICKS == 0) {
			read_shmem(pager);
			tmem_related_update(pager);
			tmem_budget_report_cpu(pager);
		}
		if (atomic_load(&pager->armed) &&
		    !atomic_load(&pager->fork_mode) &&
		    !atomic_load(&pager->dumping)) {
			if (tmem_sys_now_ns() - pinned_ns > PIN_PERIOD_NS) {
				tmem_region_pin_threads(pager);
				pinned_ns = tmem_sys_now_ns();
			}
			tmem_busy_retry(pager);
		}
		ts.tv_nsec = (long)ns;
		tmem_sys(SYS_ppoll, fds, 2, &ts, 0, 8);
		if (fds[0].revents & POLLIN)
			tmem_sys(SYS_read, pager->wake_fd, &count,
				 sizeof(count));
		if (!tmem_start_program_lives(pager))
			finish(pager);
	}
}

static void fail(struct tmem_pager *pager, int error)
{
	/* Nobody else has what is out now: it would read zeros. */
	TMEM_ASSERT(!pager->alone);
	pager->start_error = error;
	if (!pager->trapped || !pager->forked) /* else it is born again */
		tmem_link_not_paged(pager->tree_name, pager->program_pid,
				    pager->fail_reason, pager->comm);
	/* Nothing was out yet: the keeper need not end the program. */
	if (pager->slot)
		atomic_store(&pager->slot->state, TMEM_SLOT_DEAD);
	set_state(pager, PAGER_FAILED);
	tmem_sys(SYS_exit_group, 1);
}

/* The program's limits on files are not meant for the swap file. */
static void lift_limit(int which)
{
	struct rlimit limit = { 0, 0 };

	if (tmem_sys(SYS_prlimit64, 0, which, NULL, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	tmem_sys(SYS_prlimit64, 0, which, &limit, NULL);
	limit.rlim_cur = limit.rlim_max = RLIM_INFINITY;
	if (which == RLIMIT_FSIZE) /* refused without the right to */
		tmem_sys(SYS_prlimit64, 0, which, &limit, NULL);
}

static void run_pager(void *arg)
{
	struct tmem_pager *pager = arg;
	int r;

	tmem_sys(SYS_close_range, 0, ~0u, 0);
	lift_limit(RLIMIT_NOFILE);
	lift_limit(RLIMIT_FSIZE);
	tmem_sys(SYS_setsid);
	tmem_sys(SYS_chdir, "/");
	tmem_sys(SYS_prctl, PR_SET_NAME, "tmem-pager");
	pager->pager_pid = (int)tmem_sys(SYS_getpid);
	tmem_clock_start(pager);
	r = tmem_link_open(pager);
	if (r == 0)
		r = open_files(pager);
	if (r == 0 && !pager->store)
		r = open_store(pager);
	else if (r == 0)
		r = take_over(pager);
	if (r == 0)
		r = start_threads(pager);
	if (r < 0)
		fail(pager, r);
	memcpy(pager->slot->comm, pager->comm, sizeof(pager->comm));
	tmem_budget_tick(pager);
	atomic_store(&pager->slot->state, TMEM_SLOT_LIVE);
	set_state(pager, PAGER_SERVING);
	tick_forever(pager);
}

/* One handler for each CPU that the program may use. */
static int plan_handlers(struct tmem_pager *pager)
{
	uint64_t mask[1024 / 64] = { 0 };
	unsigned cpu;

	tmem_sys(SYS_sched_getaffinity, 0, sizeof(mask), mask);
	for (cpu = 0; cpu < 1024 && pager->nr_handlers < PAGER_MAX_HANDLERS;
	     cpu++) {
		struct tmem_handler *h = &pager->handlers[pager->nr_handlers];

		if (!(mask[cpu / 64] >> cpu % 64 & 1))
			continue;
		h->pager = pager;
		h->nr = pager->nr_handlers++;
		h->cpu = (int)cpu;
		h->block = tmem_process_block(pager);
		h->page = tmem_pager_map(pager,
					 (PAGER_LOADS + 1ul) * TMEM_PAGE_SIZE);
		if (!h->block || !h->page)
			return -ENOMEM;
		h->page2 = h->page + (size_t)PAGER_LOADS * TMEM_PAGE_SIZE;
	}
	pager->spare_page = tmem_pager_map(pager, 3ul * TMEM_PAGE_SIZE);
	pager->gate_block = tmem_process_block(pager);
	pager->ticker_block = tmem_process_block(pager);
	pager->upkeep_block = tmem_process_block(pager);
	if (!pager->spare_page || !pager->gate_block || !pager->ticker_block ||
	    !pager->upkeep_block)
		return -ENOMEM;
	pager->gate_page = pager->spare_page + TMEM_PAGE_SIZE;
	pager->ticker_page = pager->spare_page + 2ul * TMEM_PAGE_SIZE;
	return 0;
}

static int plan(struct tmem_pager *pager)
{
	int r;

	tmem_lock_init(&pager->lock, TMEM_RANK_PAGER);
	tmem_ahead_start(pager);
	tmem_heat_init(pager);
	tmem_process_measure(pager);
	pager->gate.child_uffd = -1;
	pager->doorbell = tmem_pager_map(pager, 2ul * TMEM_PAGE_SIZE);
	pager->deferred = tmem_pager_map(pager, sizeof(*pager->deferred));
	pager->seen = tmem_pager_map(pager, sizeof(*pager->seen));
	if (!pager->doorbell || !pager->deferred || !pager->seen)
		return -ENOMEM;
	r = tmem_birth_init(pager);
	if (r == 0)
		r = tmem_anchor_init(pager);
	if (r == 0)
		r = tmem_table_init(&pager->table);
	if (r == 0)
		r = tmem_region_init(pager);
	if (r == 0)
		r = tmem_frames_init(pager);
	return r == 0 ? plan_handlers(pager) : r;
}

static void read_comm(struct tmem_pager *pager)
{
	long fd = tmem_sys(SYS_open, "/proc/self/comm", O_RDONLY | O_CLOEXEC);
	long n = tmem_sys(SYS_read, fd, pager->comm, sizeof(pager->comm) - 1);

	if (n > 0)
		pager->comm[n - 1] = 0; /* its newline */
	tmem_sys_close((int)fd);
}

static void launch(struct tmem_pager *pager)
{
	int r;

	tmem_solo_init(pager);
	atomic_store(&pager->state, PAGER_STARTING);
	r = tmem_process_spawn(pager, pager->ticker_block, run_pager);
	if (r < 0) {
		pager->start_error = r;
		atomic_store(&pager->state, PAGER_FAILED);
		if (!pager->trapped || !pager->forked)
			tmem_link_not_paged(pager->tree_name,
					    pager->program_pid,
					    TMEM_NOT_PAGED_FAILED, pager->comm);
	}
	while (atomic_load(&pager->state) == PAGER_STARTING)
		tmem_sys_futex_wait(&pager->state, PAGER_STARTING, NULL);
}

struct tmem_pager *tmem_start_serving(void)
{
	struct tmem_pager *pager = tmem_pager;

	if (!pager || atomic_load(&pager->state) != PAGER_SERVING ||
	    pager->program_pid != (int)tmem_sys(SYS_getpid))
		return NULL;
	return pager;
}

/*
 * What a child inherited is its parent's until both have seen how much of it
 * is whose: a moment for that, before it starts to write.
 */
static void wait_for_room(const struct tmem_pager *pager)
{
	const struct timespec nap = { 0, ROOM_NAP_NS };
	unsigned i;

	for (i = 0; i < ROOM_NAPS && atomic_load(&pager->armed) &&
		    atomic_load(&pager->state) == PAGER_SERVING &&
		    !tmem_budget_fits(pager);
	     i++)
		tmem_sys(SYS_nanosleep, &nap, NULL);
}

/* What the parent's ticker knew of its own budget. */
static void forget_pressure(struct tmem_pager *pager)
{
	atomic_store(&pager->related, 1);
	atomic_store(&pager->pss_stale, 1);
	atomic_store(&pager->evict_starved, 0);
	pager->starved_ns = 0; /* it has its own patience */
	pager->over_ns = 0;
	pager->unshare_until_ns = 0;
	pager->ask_next_ns = 0;
}

static void start_in_child(struct tmem_pager *pager)
{
	uint32_t reason;
	unsigned i;

	pager->alone = false;
	pager->program_pid = (int)tmem_sys(SYS_getpid);
	atomic_store(&pager->state, PAGER_FAILED); /* until launched */
	pager->forked = true;
	forget_pressure(pager);
	atomic_store(&pager->fork_mode, 0);
	tmem_store_after_fork(pager->store, 1);
	tmem_frontswap_after_fork(pager->frontswap);
	tmem_lock_init(&pager->lock, TMEM_RANK_PAGER);
	tmem_ahead_start(pager);
	pager->slot = NULL; /* until the keeper has said welcome */
	pager->slot_nr = pager->gate.child_slot;
	reason = pager->gate.child_reason;
	tmem_gate_reset(pager);
	for (i = 0; i < pager->nr_handlers; i++) {
		pager->handlers[i].nr_loads = 0;
		pager->handlers[i].nr_backlog = 0;
		pager->handlers[i].job.left = 0;
		pager->handlers[i].owed_pages = 0;
		pager->handlers[i].open = NULL;
	}
	pager->nr_stash = 0;
	pager->nr_homes = 0; /* it has none of them */
	if (pager->slot_nr == TMEM_TREE_NO_SLOT) {
		atomic_store(&pager->state, PAGER_FAILED);
		/* A filter might kill the child for a socket of ours. */
		if (reason != TMEM_NOT_PAGED_SECCOMP &&
		    (!pager->trapped || pager->gate.whole))
			tmem_link_not_paged(pager->tree_name,
					    pager->program_pid, reason,
					    pager->comm);
	} else if (tmem_frames_remap(pager) == 0) {
		read_comm(pager);
		launch(pager);
	}
	if (pager->trapped)
		tmem_birth_report(pager);
	wait_for_room(pager);
	if (pager->trapped)
		return;
	/* Nobody will serve us: our parent's pager makes us whole. */
	if (atomic_load(&pager->state) != PAGER_SERVING &&
	    atomic_load(&pager->armed))
		(void)*(volatile uint8_t *)(pager->doorbell + TMEM_PAGE_SIZE);
}

void tmem_start_in_child(struct tmem_pager *pager)
{
	uint64_t all = ~0ull, old = 0;

	/* A handler could touch what nobody watches just then. */
	tmem_sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all));
	start_in_child(pager);
	tmem_sys(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(all));
}

__attribute__((constructor)) static void start(void)
{
	const char *name = getenv(TMEM_TREE_ENV);
	struct tmem_pager *pager;

	if (!name || strlen(name) >= sizeof(pager->tree_name))
		return;
	tmem_chaos_start();
	tmem_sys_map_within(TMEM_WINDOW_START, TMEM_ANCHOR_LOW);
	pager = tmem_sys_map_anon(sizeof(*pager), PROT_READ | PROT_WRITE);
	if (!pager)
		return;
	pager->own[pager->nr_own++] = (struct tmem_range){
		(uintptr_t)pager,
		((uintptr_t)pager + sizeof(*pager) + 4095) & ~4095ull
	};
	memcpy(pager->tree_name, name, strlen(name) + 1);
	pager->slot_nr = TMEM_TREE_NO_SLOT;
	pager->program_pid = (int)tmem_sys(SYS_getpid);
	read_comm(pager);
	tmem_pager = pager;
	tmem_assert_hook = die_together;
	if (plan(pager) == 0)
		launch(pager);
}
