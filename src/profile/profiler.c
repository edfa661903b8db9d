/* SPDX-License-Identifier: MIT */
/*
 * A step reads how far the log of stalls is, then the samples, then the log up
 * to there: so a stall's sample, which is older, is there before it.
 */
#include "profile/profiler.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tmem/tmem.h>

#include "profile/match.h"
#include "profile/unwind.h"
#include "wire/stalls.h"

enum {
	TAKEN_MAX = 64, /* samples in a step */
	SHARE = 20,	/* one part in so many of a CPU for unwinding */
	SAVED_NS = 40000000,
	DEBT_NS = 20000000,
	COST_NS = 100000, /* of a stack, until it is known better */
	UNWINDS_MAX = 32,
	FOUND_MAX = 1024,
	RATE = 2000 /* samples a second, of all CPUs */
};

#define PART_MIN 1e-5
#define PART_MAX 0.5

struct process {
	int32_t pid; /* 0: none, or it is in another slot since */
	int32_t pager_pid;
	bool known; /* its group is */
	bool ended;
	uint32_t group; /* of fold */
	bool unreadable;
	struct tmem_unwind *unwind;
	uint64_t used;	  /* step */
	uint64_t faults;  /* that it waited for, not accounted for yet */
	unsigned samples; /* of these */
	double nr_each;	  /* faults that a sample stood for, last */
};

/* A stall of which the stack is known. */
struct found {
	int slot;
	uint32_t stack;
	uint64_t ns;
	bool again;
};

struct taken {
	struct tmem_perf_sample sample;
	int slot;
	uint8_t stack[TMEM_PERF_STACK_BYTES];
};

struct tmem_profiler {
	struct tmem_tree *tree;
	struct tmem_stall_log *log;
	struct tmem_perf *perf;
	struct tmem_places places;
	struct tmem_fold fold;
	uint32_t ended; /* the group of those that we saw too late */
	uint64_t next;	/* of the log */
	uint64_t lost;
	uint64_t unreadable;
	uint64_t step;
	unsigned nr_unwinds;
	uint64_t random;
	uint64_t last_ns;
	uint64_t elapsed_ns; /* since the last step */
	double part;	     /* of all faults that are sampled now */
	int64_t saved_ns;    /* of CPU time, to be used */
	uint64_t cost_ns;    /* of a stack, smoothed */
	unsigned may_take;
	unsigned nr_seen; /* samples in this step */
	unsigned nr_found;
	struct found found[FOUND_MAX]; /* in this step */
	struct process processes[TMEM_TREE_SLOTS];
	struct tmem_match match;
	struct taken taken[TAKEN_MAX];
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct tmem_profiler *tmem_profiler_create(struct tmem_tree *tree,
					   struct tmem_perf *perf)
{
	struct tmem_profiler *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->tree = tree;
	p->log = tmem_stall_log(tree);
	p->perf = perf;
	tmem_fold_init(&p->fold);
	p->ended = tmem_fold_group(&p->fold, "[ended]");
	if (tmem_places_init(&p->places) < 0 || p->ended == TMEM_INTERN_NONE) {
		tmem_profiler_destroy(p);
		return NULL;
	}
	p->last_ns = p->random = clock_ns(CLOCK_MONOTONIC);
	p->saved_ns = SAVED_NS;
	p->cost_ns = COST_NS;
	p->part = TMEM_PROFILER_PART;
	return p;
}

static void stop_unwinding(struct tmem_profiler *p, struct process *process)
{
	if (process->unwind)
		p->nr_unwinds--;
	tmem_unwind_close(process->unwind);
	process->unwind = NULL;
}

void tmem_profiler_destroy(struct tmem_profiler *profiler)
{
	int i;

	if (!profiler)
		return;
	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		stop_unwinding(profiler, &profiler->processes[i]);
	tmem_places_fini(&profiler->places);
	tmem_fold_fini(&profiler->fold);
	free(profiler);
}

static int slot_of(const struct tmem_profiler *p, pid_t pid)
{
	int i;

	/* 0 or less: of another namespace. */
	for (i = 0; pid > 0 && i < TMEM_TREE_SLOTS; i++)
		if (p->processes[i].pid == pid)
			return i;
	return TMEM_TREE_NO_SLOT;
}

/* What is in the log of it is read yet. */
static void forget(struct tmem_profiler *p, struct process *process)
{
	if (process->pid)
		tmem_perf_watch(p->perf, process->pid, false);
	stop_unwinding(p, process);
	process->pid = 0;
	process->ended = false;
}

static void meet(struct tmem_profiler *p, int slot, int32_t pid,
		 int32_t pager_pid)
{
	struct process *process = &p->processes[slot];
	char comm[TMEM_TREE_COMM + 1] = "";
	int old = slot_of(p, pid);

	/* It has become another program. */
	if (old != TMEM_TREE_NO_SLOT)
		forget(p, &p->processes[old]);
	forget(p, process);
	tmem_perf_watch(p->perf, pid, true);
	memcpy(comm, p->tree->slots[slot].comm, TMEM_TREE_COMM);
	process->pid = pid;
	process->pager_pid = pager_pid;
	process->unreadable = false;
	process->group = tmem_fold_group(&p->fold, comm);
	process->known = process->group != TMEM_INTERN_NONE;
	process->faults = process->samples = 0;
	process->nr_each = 1;
	if (!process->known)
		process->pid = 0;
}

/* Who is in which slot. */
static void look_at_slots(struct tmem_profiler *p)
{
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		const struct tmem_tree_slot *t = &p->tree->slots[i];
		struct process *process = &p->processes[i];
		uint32_t state = atomic_load(&t->state);
		int32_t pid, pager_pid;

		/* Its last samples are read once more. */
		if (state == TMEM_SLOT_FREE && process->pid) {
			if (process->ended)
				forget(p, process);
			else
				process->ended = true;
		}
		if (state != TMEM_SLOT_LIVE)
			continue;
		pid = atomic_load(&t->pid);
		pager_pid = atomic_load(&t->pager_pid);
		if (pid != process->pid || pager_pid != process->pager_pid)
			meet(p, i, pid, pager_pid);
	}
}

/* xorshift: which sample is taken is nobody's secret. */
static uint64_t random_below(struct tmem_profiler *p, uint64_t limit)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 7;
	p->random ^= p->random << 17;
	return p->random % limit;
}

/* Each sample of the step is kept with the same probability. */
static void take_sample(void *arg, const struct tmem_perf_sample *sample)
{
	struct tmem_profiler *p = arg;
	int slot = slot_of(p, sample->pid);
	uint64_t at;
	struct taken *t;

	if (slot == TMEM_TREE_NO_SLOT)
		return;
	at = p->nr_seen++;
	if (at >= p->may_take)
		at = random_below(p, p->nr_seen);
	if (at >= p->may_take)
		return;
	t = &p->taken[at];
	t->sample = *sample;
	t->slot = slot;
	if (sample->stack_bytes)
		memcpy(t->stack, sample->stack, sample->stack_bytes);
	t->sample.stack = t->stack;
}

static void stop_oldest(struct tmem_profiler *p)
{
	struct process *oldest = NULL, *process;
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++) {
		process = &p->processes[i];
		if (process->unwind &&
		    (!oldest || process->used < oldest->used))
			oldest = process;
	}
	if (oldest)
		stop_unwinding(p, oldest);
}

static uint32_t unwind(struct tmem_profiler *p, const struct taken *t)
{
	struct process *process = &p->processes[t->slot];
	const uint32_t unknown = PLACE_UNKNOWN;
	int r;

	process->used = p->step;
	if (!process->unwind && !process->unreadable) {
		if (p->nr_unwinds == UNWINDS_MAX)
			stop_oldest(p);
		r = tmem_unwind_open(process->pid, &p->places, &p->fold,
				     &process->unwind);
		process->unreadable = r < 0;
		p->nr_unwinds += r == 0;
		/* It may just have ended, too. */
		p->unreadable += r == -EACCES || r == -EPERM;
	}
	if (process->unwind)
		return tmem_unwind_stack(process->unwind, process->group,
					 &t->sample);
	return tmem_fold_stack(&p->fold, process->group, &unknown, 1);
}

static void unwind_taken(struct tmem_profiler *p)
{
	unsigned nr = p->nr_seen < p->may_take ? p->nr_seen : p->may_take, i;
	uint64_t start = clock_ns(CLOCK_PROCESS_CPUTIME_ID), took;

	for (i = 0; i < nr; i++) {
		const struct taken *t = &p->taken[i];
		struct tmem_match_sample s = {
			.vpn = t->sample.address / TMEM_PAGE_SIZE,
			.time_ns = t->sample.time_ns,
			.slot = t->slot,
			.stack = unwind(p, t),
		};

		if (s.stack != TMEM_INTERN_NONE)
			tmem_match_put(&p->match, &s);
	}
	if (!nr)
		return;
	took = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start;
	p->saved_ns -= (int64_t)took;
	/* Files that are read for the first time are not paid for long. */
	if (p->saved_ns < -DEBT_NS)
		p->saved_ns = -DEBT_NS;
	p->cost_ns = (7 * p->cost_ns + took / nr) / 8 + 1;
}

/* At least one, or nothing would ever be known of a large program. */
static void plan(struct tmem_profiler *p)
{
	uint64_t now = clock_ns(CLOCK_MONOTONIC);
	int64_t most;

	p->elapsed_ns = now - p->last_ns;
	p->saved_ns += (int64_t)(p->elapsed_ns / SHARE);
	p->last_ns = now;
	if (p->saved_ns > SAVED_NS)
		p->saved_ns = SAVED_NS;
	most = p->saved_ns / (int64_t)p->cost_ns;
	p->may_take = most < 1		 ? 1
		      : most > TAKEN_MAX ? TAKEN_MAX
					 : (unsigned)most;
	p->nr_seen = 0;
}

/* There were so many samples; what part of the faults to sample next. */
static void adjust(struct tmem_profiler *p, uint64_t nr)
{
	double faults = (double)nr / p->part, part = 1;

	if (faults > 0)
		part = RATE * (double)p->elapsed_ns / 1e9 / faults;
	/* What a pause has taught is soon wrong. */
	if (part > 2 * p->part)
		part = 2 * p->part;
	p->part = part < PART_MIN   ? PART_MIN
		  : part > PART_MAX ? PART_MAX
				    : part;
	tmem_perf_set_part(p->perf, p->part);
}

static void add_stall(struct tmem_profiler *p, const struct tmem_stall *stall)
{
	struct process *process = &p->processes[stall->slot];
	struct tmem_match_found found = tmem_match_stall(&p->match, stall);

	tmem_fold_stall(&p->fold, process->known ? process->group : p->ended,
			stall->ns);
	process->faults += !found.again;
	if (found.stack == TMEM_INTERN_NONE || p->nr_found == FOUND_MAX)
		return;
	process->samples += !found.again;
	p->found[p->nr_found++] = (struct found){ stall->slot, found.stack,
						  stall->ns, found.again };
}

/*
 * The samples of a step stand for all stalls of their process since the last
 * step that had any, each for as many.
 */
static void add_samples(struct tmem_profiler *p)
{
	const struct found *f;
	struct process *process;
	unsigned i;

	for (i = 0; i < p->nr_found; i++) {
		f = &p->found[i];
		process = &p->processes[f->slot];
		if (process->samples)
			process->nr_each =
				(double)process->faults / process->samples;
		tmem_fold_sample(&p->fold, f->stack, process->nr_each, f->ns,
				 f->again);
	}
	for (i = 0; i < p->nr_found; i++) {
		process = &p->processes[p->found[i].slot];
		if (process->samples)
			process->faults = process->samples = 0;
	}
	p->nr_found = 0;
}

static void read_log(struct tmem_profiler *p, uint64_t end)
{
	struct tmem_stall stall;

	if (end - p->next > TMEM_STALL_LOG_ENTRIES) {
		p->lost += end - p->next - TMEM_STALL_LOG_ENTRIES;
		p->next = end - TMEM_STALL_LOG_ENTRIES;
	}
	for (; p->next < end; p->next++) {
		if (tmem_stall_log_get(p->log, p->next, &stall))
			add_stall(p, &stall);
		else
			p->lost++;
	}
}

bool tmem_profiler_step(struct tmem_profiler *profiler)
{
	struct tmem_profiler *p = profiler;
	uint64_t end = atomic_load(&p->log->next), nr;
	bool some = end != p->next;

	p->step++;
	look_at_slots(p);
	plan(p);
	nr = tmem_perf_read(p->perf, take_sample, p);
	adjust(p, nr);
	unwind_taken(p);
	read_log(p, end);
	add_samples(p);
	return some || nr;
}

char *tmem_profiler_text(const struct tmem_profiler *profiler,
			 struct tmem_profiler_sums *ret_sums)
{
	struct tmem_profiler_sums sums = {
		.lost = profiler->lost,
		.unreadable = profiler->unreadable,
	};
	struct tmem_names *names = tmem_names_find(&profiler->places);
	char *text = NULL;

	if (names)
		text = tmem_fold_text(&profiler->fold, names, &sums.fold);
	tmem_names_free(names);
	if (text)
		*ret_sums = sums;
	return text;
}
