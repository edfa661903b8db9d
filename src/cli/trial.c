/* SPDX-License-Identifier: MIT */
/*
 * See trial.h.  Threads are started first and wait on a futex, so that none
 * runs ahead; each takes its own times, and the round takes from the first
 * start to the last end.
 */
#include "cli/trial.h"

#include "base/sys.h"
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
	PAGE = TMEM_PAGE_SIZE,
	VECTOR = 16,
	SLOT_HEADER = 24, /* part of the store's format */
	EXIT_WRONG = 1,	  /* a page came back different */
	SETTLE_ROUNDS = 4,
	SETTLE_NS = 1000000000
};

enum gate {
	GATE_CLOSED = 0,
	GATE_OPEN,
	GATE_CANCELLED
};

/* A store that is filled, or the array that takes its place. */
struct target {
	const struct tmem_trial_input *input;
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pool;
	struct tmem_pages copy;
	bool *accepted; /* by page */
};

/* One measured pass of all threads. */
struct pass {
	struct target *target;
	uint32_t (*fn)(struct target *t, uint32_t first, uint32_t end);
	_Atomic uint32_t gate;
};

struct worker {
	struct pass *pass;
	uint32_t first, end; /* its part of the pages */
	uint32_t done;	     /* what fn returned */
	uint64_t start_ns, end_ns;
	pthread_t thread;
};

static void name(struct tmem_io *io, uint32_t key)
{
	io->object = (struct tmem_object_id){ { key & 15, 7, 0 } };
	io->index = key >> 4;
}

static void store_vector(struct target *t, uint32_t first, uint32_t nr)
{
	const struct tmem_pages *pages = t->input->pages;
	struct tmem_io io[VECTOR];
	uint32_t i;

	if (!t->store) {
		memcpy(tmem_pages_at(&t->copy, first),
		       tmem_pages_at(pages, first), (size_t)nr * PAGE);
		memset(t->accepted + first, 1, nr);
		return;
	}
	for (i = 0; i < nr; i++) {
		name(&io[i], first + i);
		io[i].page = tmem_pages_at(pages, first + i);
	}
	t->backend.ops->store(t->backend.self, t->pool, io, nr);
	for (i = 0; i < nr; i++)
		t->accepted[first + i] = io[i].result == 0;
}

/* Returns how many were accepted. */
static uint32_t store_pages(struct target *t, uint32_t first, uint32_t end)
{
	uint32_t i, n, done = 0;

	for (i = first; i < end; i += n) {
		n = end - i < VECTOR ? end - i : VECTOR;
		store_vector(t, i, n);
	}
	for (i = first; i < end; i++)
		done += t->accepted[i];
	return done;
}

/* Page keys[i] into the i-th page of `to`; returns how many were found. */
static uint32_t load_vector(struct target *t, const uint32_t *keys, uint32_t nr,
			    char *to)
{
	struct tmem_io io[VECTOR];
	uint32_t i, done = 0;

	for (i = 0; i < nr; i++) {
		name(&io[i], keys[i]);
		io[i].page = to + (size_t)i * PAGE;
		if (!t->store)
			memcpy(io[i].page, tmem_pages_at(&t->copy, keys[i]),
			       PAGE);
	}
	if (!t->store)
		return nr;
	t->backend.ops->load(t->backend.self, t->pool, io, nr);
	for (i = 0; i < nr; i++)
		done += io[i].result == 0;
	return done;
}

static uint32_t load_pages(struct target *t, uint32_t first, uint32_t end)
{
	char to[VECTOR * PAGE];
	uint32_t keys[VECTOR], i, nr = 0, done = 0;

	for (i = first; i < end; i++) {
		uint32_t key = t->input->order[i];

		if (t->accepted[key])
			keys[nr++] = key;
		if (nr < VECTOR)
			continue;
		done += load_vector(t, keys, nr, to);
		nr = 0;
	}
	return done + load_vector(t, keys, nr, to);
}

/* Returns how many are as they were stored. */
static uint32_t verify_pages(struct target *t, uint32_t first, uint32_t end)
{
	char page[PAGE];
	uint32_t i, done = 0;

	for (i = first; i < end; i++)
		if (t->accepted[i] && load_vector(t, &i, 1, page) == 1)
			done += !memcmp(page, tmem_pages_at(t->input->pages, i),
					PAGE);
	return done;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	struct pass *pass = w->pass;

	while (atomic_load(&pass->gate) == GATE_CLOSED)
		tmem_sys_futex_wait(&pass->gate, GATE_CLOSED, NULL);
	if (atomic_load(&pass->gate) == GATE_CANCELLED)
		return NULL;
	w->start_ns = tmem_sys_now_ns();
	w->done = pass->fn(pass->target, w->first, w->end);
	w->end_ns = tmem_sys_now_ns();
	return NULL;
}

static unsigned start_workers(struct pass *pass, struct worker *workers,
			      unsigned nr)
{
	uint64_t pages = pass->target->input->pages->nr;
	unsigned i;

	for (i = 0; i < nr; i++) {
		workers[i] = (struct worker){
			.pass = pass,
			.first = (uint32_t)(pages * i / nr),
			.end = (uint32_t)(pages * (i + 1) / nr),
		};
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			break;
	}
	return i;
}

/* 0, or an exit status after one line. */
static int run_pass(struct target *target,
		    uint32_t (*fn)(struct target *t, uint32_t first,
				   uint32_t end),
		    uint32_t *ret_done, uint64_t *ret_ns)
{
	static struct worker workers[TMEM_TRIAL_MAX_THREADS];
	struct pass pass = { .target = target, .fn = fn };
	unsigned nr = target->input->nr_threads, started, i;
	uint64_t start = UINT64_MAX, end = 0;
	uint32_t done = 0;

	started = start_workers(&pass, workers, nr);
	atomic_store(&pass.gate, started == nr ? GATE_OPEN : GATE_CANCELLED);
	tmem_sys_futex_wake(&pass.gate, INT32_MAX);
	for (i = 0; i < started; i++) {
		pthread_join(workers[i].thread, NULL);
		done += workers[i].done;
		if (workers[i].start_ns < start)
			start = workers[i].start_ns;
		if (workers[i].end_ns > end)
			end = workers[i].end_ns;
	}
	if (started < nr)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--threads %u: only %u could be started; "
				     "ask for fewer",
				     nr, started);
	*ret_done = done;
	*ret_ns = end - start;
	return 0;
}

static int fail_memory(int error)
{
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "no memory for the store: %s; take fewer pages "
			     "with --pages",
			     strerror(error));
}

static int open_target(const struct tmem_trial_form *form,
		       const struct tmem_trial_input *input, struct target *t)
{
	struct tmem_store_options options = form->options;
	int r;

	t->input = input;
	t->accepted = calloc(input->pages->nr, sizeof(*t->accepted));
	if (!t->accepted)
		return fail_memory(ENOMEM);
	if (form->copy)
		return tmem_pages_open(input->pages->nr, &t->copy);
	options.limit_bytes = input->limit_bytes;
	/* Each page in its form, whatever the others are. */
	options.no_dedup = 1;
	r = tmem_store_open(&options, &t->store);
	if (r < 0)
		return fail_memory(-r);
	t->backend = tmem_store_backend(t->store);
	r = t->backend.ops->pool_create(t->backend.self, NULL, &t->pool);
	return r < 0 ? fail_memory(-r) : 0;
}

static void close_target(struct target *t)
{
	tmem_store_close(t->store);
	tmem_pages_close(&t->copy);
	free(t->accepted);
}

static void note_memory(struct tmem_trial *trial, struct target *t)
{
	struct tmem_stats *s = &trial->stats;
	uint64_t headers;

	if (!t->store) {
		trial->held_bytes = (uint64_t)t->input->pages->nr * PAGE;
		return;
	}
	t->backend.ops->stats(t->backend.self, s);
	trial->held_bytes = s->held_bytes;
	headers = s->pages * SLOT_HEADER;
	trial->meta_bytes = s->meta_bytes + headers;
	trial->rounding_bytes = s->slot_bytes - s->stored_bytes - headers;
}

static int fail_pages(const struct tmem_trial *trial, uint32_t done,
		      uint32_t accepted)
{
	return tmem_cli_fail(EXIT_WRONG,
			     "form %s: %" PRIu32 " of %" PRIu32
			     " pages did not come back as they were stored; "
			     "check this machine's memory, and report it",
			     trial->form->name, accepted - done, accepted);
}

static int check_target(struct tmem_trial *trial, struct target *t,
			uint32_t accepted)
{
	uint32_t done = 0;
	uint64_t ns = 0;
	int r;

	note_memory(trial, t);
	trial->accepted_pages = accepted;
	r = run_pass(t, verify_pages, &done, &ns);
	if (!r && done != accepted)
		r = fail_pages(trial, done, accepted);
	return r;
}

/* All background work that there is; its CPU time. */
static uint64_t settle(struct target *t)
{
	struct tmem_stats s;
	unsigned i;

	if (!t->store)
		return 0;
	/* The first marks what is cold, the others find it. */
	for (i = 0; i < SETTLE_ROUNDS; i++)
		while (tmem_store_maintain(t->store, SETTLE_NS))
			;
	t->backend.ops->stats(t->backend.self, &s);
	return s.recompress_ns;
}

static int run_target(struct tmem_trial *trial, struct target *t)
{
	const struct tmem_trial_input *input = t->input;
	double threads = input->nr_threads;
	uint32_t accepted = 0, loaded = 0;
	uint64_t store_ns = 0, load_ns = 0, work_ns;
	int r;

	r = run_pass(t, store_pages, &accepted, &store_ns);
	work_ns = settle(t);
	if (!r && trial->form->again)
		r = run_pass(t, store_pages, &accepted, &store_ns);
	if (!r && !trial->nr_rounds)
		r = check_target(trial, t, accepted);
	if (!r)
		r = run_pass(t, load_pages, &loaded, &load_ns);
	if (!r && loaded != accepted)
		r = fail_pages(trial, loaded, accepted);
	if (r)
		return r;
	trial->store_ns[trial->nr_rounds] =
		(double)store_ns * threads / input->pages->nr;
	trial->load_ns[trial->nr_rounds] =
		loaded ? (double)load_ns * threads / loaded : 0;
	trial->work_ns[trial->nr_rounds] = (double)work_ns / input->pages->nr;
	trial->nr_rounds++;
	return 0;
}

int tmem_trial_round(struct tmem_trial *trial,
		     const struct tmem_trial_input *input)
{
	struct target t = { 0 };
	int r;

	r = open_target(trial->form, input, &t);
	if (!r)
		r = run_target(trial, &t);
	close_target(&t);
	return r;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double tmem_trial_median(double *values, unsigned nr)
{
	qsort(values, nr, sizeof(*values), compare);
	return nr % 2 ? values[nr / 2]
		      : (values[nr / 2 - 1] + values[nr / 2]) / 2;
}
