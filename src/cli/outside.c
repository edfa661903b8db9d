/* SPDX-License-Identifier: MIT */
/*
 * Processes of the tree that are not paged: those that say so (the pager's
 * exec hooks, or a pager that could not start), and those that a look at
 * /proc finds twice without a pager and without a word.
 *
 * Kept by name and reason, so that a build that runs a static tool ten
 * thousand times makes one line.
 */
#include "cli/keeper.h"
#include "cli/proc.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A pager needs a moment to start. */
enum {
	ENOUGH_LOOKS = 2
};

static struct tmem_keeper_seen *find_seen(struct tmem_keeper *k, pid_t pid,
					  uint64_t start_time)
{
	unsigned i;

	for (i = 0; i < k->nr_seen; i++)
		if (k->seen[i].pid == pid &&
		    k->seen[i].start_time == start_time)
			return &k->seen[i];
	return NULL;
}

/* NULL if there is no memory: then it may be counted twice. */
static struct tmem_keeper_seen *add_seen(struct tmem_keeper *k, pid_t pid,
					 uint64_t start_time)
{
	unsigned max = k->max_seen ? 2 * k->max_seen : 64;
	struct tmem_keeper_seen *seen;

	if (k->nr_seen == k->max_seen) {
		seen = realloc(k->seen, max * sizeof(*seen));
		if (!seen)
			return NULL;
		k->seen = seen;
		k->max_seen = max;
	}
	seen = &k->seen[k->nr_seen++];
	memset(seen, 0, sizeof(*seen));
	seen->pid = pid;
	seen->start_time = start_time;
	return seen;
}

static void count(struct tmem_keeper *k, pid_t pid, const char *comm,
		  uint32_t reason)
{
	struct tmem_keeper_outside *o;
	unsigned i, j;

	for (i = 0; i < k->nr_outside_kinds; i++) {
		o = &k->outside[i];
		if (o->reason != reason ||
		    strncmp(o->comm, comm, sizeof(o->comm)) != 0)
			continue;
		if (o->last_pid != pid)
			o->count++;
		o->last_pid = pid;
		return;
	}
	/* The last kind takes all that do not fit. */
	if (k->nr_outside_kinds == TMEM_MAX_OUTSIDE) {
		k->outside[TMEM_MAX_OUTSIDE - 1].count++;
		strcpy(k->outside[TMEM_MAX_OUTSIDE - 1].comm, "(others)");
		return;
	}
	o = &k->outside[k->nr_outside_kinds++];
	for (j = 0; j < sizeof(o->comm) - 1 && comm[j]; j++)
		o->comm[j] =
			(char)(comm[j] < ' ' || comm[j] > '~' ? '?' : comm[j]);
	o->comm[j] = '\0';
	o->reason = reason;
	o->count = 1;
	o->last_pid = pid;
}

void tmem_outside_note(struct tmem_keeper *k, pid_t pid, const char *comm,
		       uint32_t reason)
{
	struct tmem_keeper_seen *seen;
	struct tmem_proc proc;

	count(k, pid, comm, reason);
	if (tmem_proc_read(pid, &proc) < 0)
		return;
	seen = find_seen(k, pid, proc.start_time);
	if (!seen)
		seen = add_seen(k, pid, proc.start_time);
	if (seen)
		seen->known = true;
}

void tmem_outside_forget(struct tmem_keeper *k, pid_t pid)
{
	unsigned i;

	/* Root gains nothing by set-user-ID bits, so such a program may have
	 * a pager after all. */
	for (i = 0; i < k->nr_outside_kinds; i++) {
		if (k->outside[i].last_pid != pid ||
		    k->outside[i].reason != TMEM_NOT_PAGED_SETUID)
			continue;
		k->outside[i].last_pid = 0;
		if (--k->outside[i].count == 0)
			k->outside[i] = k->outside[--k->nr_outside_kinds];
		return;
	}
}

struct scan {
	struct tmem_proc *procs;
	bool *inside; /* descends from the root of the tree */
	unsigned nr, max;
};

static bool collect(void *arg, const struct tmem_proc *proc)
{
	struct scan *s = arg;
	unsigned max = s->max ? 2 * s->max : 256;
	struct tmem_proc *procs;

	if (s->nr == s->max) {
		procs = realloc(s->procs, max * sizeof(*procs));
		if (!procs)
			return false;
		s->procs = procs;
		s->max = max;
	}
	s->procs[s->nr++] = *proc;
	return true;
}

static bool is_root(const struct tmem_keeper *k, pid_t pid)
{
	int i;

	if (pid == getpid() || (pid == k->main_pid && !k->main_ended))
		return true;
	/* --exec: orphans lose the way up to it. */
	for (i = 0; k->main_pid_fd >= 0 && i < TMEM_TREE_SLOTS; i++)
		if (k->slots[i].pid_fd >= 0 && k->slots[i].pid == pid)
			return true;
	return false;
}

static int compare_pids(const void *a, const void *b)
{
	const struct tmem_proc *x = a, *y = b;

	return x->pid < y->pid ? -1 : x->pid > y->pid;
}

/* Parents mostly come first, so this takes few rounds. */
static void mark_inside(const struct tmem_keeper *k, struct scan *s)
{
	struct tmem_proc parent = { 0 }, *found;
	bool again = true;
	unsigned i;

	qsort(s->procs, s->nr, sizeof(*s->procs), compare_pids);
	for (i = 0; i < s->nr; i++)
		s->inside[i] = is_root(k, s->procs[i].pid);
	while (again) {
		again = false;
		for (i = 0; i < s->nr; i++) {
			if (s->inside[i])
				continue;
			parent.pid = s->procs[i].ppid;
			found = bsearch(&parent, s->procs, s->nr,
					sizeof(parent), compare_pids);
			if (found && s->inside[found - s->procs])
				s->inside[i] = again = true;
		}
	}
}

/* Our own children that write a line, or us. */
static bool is_keeper(const struct tmem_proc *proc)
{
	return proc->pid == getpid() || (proc->ppid == getpid() &&
					 !strcmp(proc->comm, TMEM_KEEPER_COMM));
}

static bool has_pager_or_is_one(const struct tmem_keeper *k, pid_t pid)
{
	int i;

	for (i = 0; i < TMEM_MAX_CONNS; i++)
		if (k->conns[i].fd >= 0 && k->conns[i].pid == pid)
			return true;
	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		if (k->slots[i].pid == pid ||
		    atomic_load(&k->tree->slots[i].pid) == pid)
			return true;
	return false;
}

/* True if it is worth another look. */
static bool look_at(struct tmem_keeper *k, const struct tmem_proc *proc)
{
	struct tmem_keeper_seen *seen;

	seen = find_seen(k, proc->pid, proc->start_time);
	if (!seen)
		seen = add_seen(k, proc->pid, proc->start_time);
	if (!seen)
		return false;
	seen->present = true;
	if (has_pager_or_is_one(k, proc->pid)) {
		seen->looks = 0;
		return false;
	}
	if (seen->known)
		return false;
	if (++seen->looks < ENOUGH_LOOKS)
		return true;
	seen->known = true;
	count(k, proc->pid, proc->comm, TMEM_NOT_PAGED_ENV);
	return false;
}

static void drop_absent(struct tmem_keeper *k)
{
	unsigned i, n = 0;

	for (i = 0; i < k->nr_seen; i++) {
		if (!k->seen[i].present)
			continue;
		k->seen[n] = k->seen[i];
		k->seen[n++].present = false;
	}
	k->nr_seen = n;
}

bool tmem_outside_scan(struct tmem_keeper *k)
{
	struct scan s = { 0 };
	bool again = false;
	unsigned i;

	tmem_proc_for_each(collect, &s);
	s.inside = calloc(s.nr + 1, sizeof(*s.inside));
	if (s.inside) {
		mark_inside(k, &s);
		for (i = 0; i < s.nr; i++)
			if (s.inside[i] && s.procs[i].state != 'Z' &&
			    !is_keeper(&s.procs[i]))
				again |= look_at(k, &s.procs[i]);
		drop_absent(k);
	}
	free(s.inside);
	free(s.procs);
	return again;
}
