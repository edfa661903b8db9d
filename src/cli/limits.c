/* SPDX-License-Identifier: MIT */
/*
 * What happens when there is no room left, or no progress.
 *
 * --on-full.  A pager says SWAP_FULL when neither store nor swap file takes a
 * page.  grow: pagers may exceed the budget from then on, until the swap file
 * has room again; if a memory cgroup is about to kill for it, the program is
 * ended with a message instead.  pause: all programs of the tree are stopped
 * until the user continues them.  term: the program is ended.
 *
 * The swap file's space goes back to the file system when its use has fallen
 * by half, or when a process died whose last writes nobody waited for.
 *
 * --max-stall.  Faults' waiting time is added up in ten steps that make one
 * window.  In each step a process counts for the step's length at the most,
 * however many of its threads waited.
 */
#include "cli/cgroup.h"
#include "cli/keeper.h"
#include "cli/proc.h"

#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <tmem/swapfile.h>
#include <unistd.h>

#define CGROUP_MARGIN_BYTES (16ull << 20)
/* Less is not worth the walk. */
#define TRIM_PAGES ((64ull << 20) / TMEM_PAGE_SIZE)

enum {
	STEPS = sizeof(((struct tmem_keeper *)0)->stall_steps) /
		sizeof(uint64_t)
};

static uint64_t used_swap_pages(const struct tmem_keeper *k)
{
	uint64_t used = 0, max;

	if (k->swap_map_fd >= 0)
		tmem_swapmap_usage(k->swap_map_fd, &used, &max);
	return used;
}

/* To every paged program. */
static void signal_tree(struct tmem_keeper *k, int sig)
{
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		if (k->slots[i].pid_fd >= 0 && !k->slots[i].ended)
			syscall(SYS_pidfd_send_signal, k->slots[i].pid_fd, sig,
				NULL, 0);
}

static void terminate(struct tmem_keeper *k, const char *why)
{
	if (k->terminating)
		return;
	k->terminating = true;
	tmem_keeper_say(k, "%s; the program is told to end (SIGTERM)", why);
	tmem_keeper_signal_main(k, SIGTERM);
	/* A stopped program must run to end. */
	tmem_keeper_signal_main(k, SIGCONT);
}

static void grow(struct tmem_keeper *k)
{
	if (!k->full_warned)
		tmem_keeper_say(k, "store and swap file are full; the program "
				   "now takes more memory than -m allows; give "
				   "more by -m or --swap-max, or choose "
				   "--on-full pause or term");
	k->full_warned = true;
	k->swap_full = true;
	k->full_used_pages = used_swap_pages(k);
	atomic_store(&k->tree->growing, 1);
}

static void pause_tree(struct tmem_keeper *k)
{
	if (k->paused)
		return;
	k->paused = true;
	tmem_keeper_say(k,
			"store and swap file are full; the program is stopped; "
			"make room, then continue it (fg, or kill -CONT %d)",
			(int)(k->front_fd >= 0 ? k->front_pid : k->main_pid));
	signal_tree(k, SIGSTOP);
}

void tmem_limits_swap_full(struct tmem_keeper *k)
{
	switch (k->options->on_full) {
	case TMEM_FULL_GROW:
		grow(k);
		break;
	case TMEM_FULL_PAUSE:
		pause_tree(k);
		break;
	case TMEM_FULL_TERM:
		terminate(k, "store and swap file are full");
		break;
	}
}

void tmem_limits_resume(struct tmem_keeper *k)
{
	if (!k->paused)
		return;
	k->paused = false;
	signal_tree(k, SIGCONT);
}

static void watch_growth(struct tmem_keeper *k)
{
	uint64_t headroom;

	/* The swap file has room again: back into the budget. */
	if (used_swap_pages(k) < k->full_used_pages / 4 * 3) {
		k->swap_full = false;
		atomic_store(&k->tree->growing, 0);
		return;
	}
	headroom = tmem_cgroup_headroom("", k->main_pid);
	if (headroom < CGROUP_MARGIN_BYTES)
		terminate(k, "store and swap file are full, and its memory "
			     "cgroup would kill it");
}

static void watch_stall(struct tmem_keeper *k, uint64_t now)
{
	const struct tmem_run_options *o = k->options;
	const uint64_t step_ns = o->stall_seconds * TMEM_S / STEPS;
	uint64_t stall, delta, sum = 0;
	char why[96];
	int i;

	if (now - k->stall_step_ns < step_ns)
		return;
	k->stall_step_ns = now;
	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		stall = atomic_load(&k->tree->slots[i].counters.stall_ns);
		/* A slot's new user begins at 0. */
		delta = stall - k->slots[i].stall_ns;
		if (stall < k->slots[i].stall_ns)
			delta = stall;
		k->slots[i].stall_ns = stall;
		sum += delta < step_ns ? delta : step_ns;
	}
	k->stall_steps[k->stall_step] = sum;
	k->stall_step = (k->stall_step + 1) % STEPS;
	if (k->nr_stall_steps < STEPS)
		k->nr_stall_steps++;
	for (i = 0, sum = 0; i < STEPS; i++)
		sum += k->stall_steps[i];
	if (k->nr_stall_steps < STEPS ||
	    sum <= o->stall_seconds * TMEM_S / 100 * o->stall_percent)
		return;
	snprintf(why, sizeof(why),
		 "it waited for paging more than %u%% of the last %u seconds",
		 o->stall_percent, o->stall_seconds);
	terminate(k, why);
}

/* With --exec nobody tells us that the user continued the program. */
static void watch_pause(struct tmem_keeper *k)
{
	struct tmem_proc proc;

	if (k->main_pid_fd >= 0 && tmem_proc_read(k->main_pid, &proc) == 0 &&
	    proc.state != 'T')
		tmem_limits_resume(k);
}

static void watch_swap_file(struct tmem_keeper *k)
{
	uint64_t used = used_swap_pages(k);

	if (used > k->swap_peak_pages)
		k->swap_peak_pages = used;
	if (k->swap.fd < 0 || k->no_trim ||
	    (!k->swap_has_lost && (k->swap_peak_pages - used < TRIM_PAGES ||
				   used > k->swap_peak_pages / 2)))
		return;
	k->no_trim = tmem_swapmap_trim(k->swap_map_fd, k->swap.fd) < 0;
	k->swap_peak_pages = used_swap_pages(k);
	k->swap_has_lost = false;
}

bool tmem_limits_tick(struct tmem_keeper *k, uint64_t now_ns)
{
	watch_swap_file(k);
	if (k->swap_full)
		watch_growth(k);
	if (k->paused)
		watch_pause(k);
	if (k->options->stall_percent)
		watch_stall(k, now_ns);
	return k->swap_full || k->options->stall_percent;
}
