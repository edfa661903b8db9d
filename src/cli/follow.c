/* SPDX-License-Identifier: MIT */
/*
 * A budget that changes while the tree runs.
 *
 * The difference goes to limit_bytes and avail_bytes alike (tree.h, I1).  What
 * is more, pagers take as ever.  What is less makes avail_bytes negative:
 * share.c takes that for memory that is wanted, and tells those who have it to
 * give back, which they do by evicting.
 *
 * -m auto is what the memory cgroups of the program allow (cgroup.h).  They
 * are read the more often the nearer the tree is to it: others may use up
 * what is left in between, at 4 GiB/s at the most.  Far away, that is once a
 * second.  What the tree itself uses more or less does not change the budget,
 * only its pagers need to watch that.
 *
 * A tree that was allowed to grow for want of any other place (--on-full
 * grow) is left alone until it has room again.
 */
#include "cli/keeper.h"

#include <errno.h>
#include <unistd.h>

#define OTHERS_BYTES_PER_MS ((4ull << 30) / 1000)
#define FOLLOW_MIN_NS	    (50 * TMEM_MS)
#define FOLLOW_MAX_NS	    (1000 * TMEM_MS)
#define STEP_BYTES	    (1ull << 20)

enum {
	STEP_PART = 128 /* of the budget: a smaller change is none */
};

static uint64_t usage_bytes(struct tmem_keeper *k)
{
	return tmem_slots_sample(k) + atomic_load(&k->tree->keeper_bytes);
}

static uint64_t ask(struct tmem_keeper *k, const struct tmem_amount *memory,
		    uint64_t usage)
{
	pid_t pid = k->main_pid > 0 && !k->main_ended ? k->main_pid : getpid();

	return tmem_amount_bytes(memory, k->root, pid, usage);
}

static void change(struct tmem_keeper *k, uint64_t bytes)
{
	uint64_t old = atomic_load(&k->tree->limit_bytes);

	/* A growing pager adds to the limit, too: so add, never store. */
	atomic_fetch_add(&k->tree->limit_bytes, bytes - old);
	atomic_fetch_add(&k->tree->avail_bytes, (int64_t)(bytes - old));
	k->asked_bytes = bytes;
}

int tmem_follow_set(struct tmem_keeper *k, struct tmem_amount memory,
		    uint64_t *ret_old_bytes)
{
	uint64_t bytes = ask(k, &memory, usage_bytes(k));

	if (bytes < TMEM_MIN_LIMIT_BYTES || bytes > INT64_MAX)
		return -ERANGE;
	*ret_old_bytes = k->asked_bytes;
	k->memory = memory;
	change(k, bytes);
	k->next_follow_ns = 0;
	/* Now, not at the next look. */
	k->next_tick_ns = tmem_keeper_now_ns();
	return 0;
}

static uint64_t difference(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

void tmem_follow_tick(struct tmem_keeper *k, uint64_t now_ns)
{
	uint64_t usage, bytes, step, ns = FOLLOW_MIN_NS;

	if (k->memory.kind != TMEM_AMOUNT_AUTO || now_ns < k->next_follow_ns)
		return;
	usage = usage_bytes(k);
	bytes = ask(k, &k->memory, usage);
	step = k->asked_bytes / STEP_PART;
	if (step < STEP_BYTES)
		step = STEP_BYTES;
	if (!atomic_load(&k->tree->growing) &&
	    difference(bytes, k->asked_bytes) >= step)
		change(k, bytes);
	if (usage < k->asked_bytes)
		ns = (k->asked_bytes - usage) / OTHERS_BYTES_PER_MS * TMEM_MS;
	if (ns < FOLLOW_MIN_NS)
		ns = FOLLOW_MIN_NS;
	k->next_follow_ns = now_ns + (ns < FOLLOW_MAX_NS ? ns : FOLLOW_MAX_NS);
}
