/* SPDX-License-Identifier: MIT */
/* See stream.h. */
#include "stream.h"

#include <stdbool.h>
#include <string.h>

enum {
	/* So far behind the window's end the next fault still is its. */
	SLACK_STEPS = 2,
	/* With stride 1, where pages in between were not evicted. */
	SLACK_PAGES = 8,
	/* A stream may pass over one page; over more, it has a stride. */
	SKIPPED_MAX = 1,
	/* So often right without reading: it may read. */
	WATCHED_ENOUGH = 4,
	/* What a thread's streams start with, at the most. */
	FIRST_MAX = 8,
	/* Pages after which the usefulness of all is looked at. */
	SETTLE_PAGES = 256,
	/* More than this part of them wasted is too many. */
	WASTE_PART = 4
};

void tmem_streams_init(struct tmem_streams *s)
{
	memset(s, 0, sizeof(*s));
	s->window_max = STREAM_WINDOW_MAX;
}

static struct tmem_stream_thread *thread_of(struct tmem_streams *s, uint32_t id)
{
	unsigned i, oldest = 0;

	for (i = 0; i < STREAM_THREADS; i++)
		if (s->id[i] == id + 1)
			return &s->thread[i];
	for (i = 1; i < STREAM_THREADS; i++)
		if (s->thread[i].clock < s->thread[oldest].clock)
			oldest = i;
	s->id[oldest] = id + 1;
	memset(&s->thread[oldest], 0, sizeof(s->thread[oldest]));
	s->thread[oldest].first = STREAM_WINDOW_FIRST;
	return &s->thread[oldest];
}

/* How many strides vpn is behind `from`, if it is on the stream's way. */
static bool steps_to(const struct tmem_stream *st, uint64_t vpn,
		     int64_t *ret_steps)
{
	int64_t d = (int64_t)(vpn - st->from);

	if (!st->stride || d % st->stride)
		return false;
	*ret_steps = d / st->stride;
	return true;
}

static int64_t steps_in_window(const struct tmem_stream *st)
{
	return (int64_t)(st->next - st->from) / st->stride;
}

static int64_t slack(const struct tmem_stream *st)
{
	return st->stride == 1 || st->stride == -1 ? SLACK_PAGES : SLACK_STEPS;
}

static void grow(const struct tmem_streams *s, struct tmem_stream_thread *t,
		 struct tmem_stream *st)
{
	st->right++;
	if (st->window)
		st->window *= 2;
	else if (st->right >= WATCHED_ENOUGH)
		st->window = 2;
	if (st->window > s->window_max)
		st->window = s->window_max;
	if (st->window && t->first < FIRST_MAX)
		t->first = t->first ? t->first * 2 : 1;
}

/* What is there already of the window costs no more than a look. */
static void plan_read(struct tmem_stream *st, struct tmem_stream_plan *plan)
{
	plan->stride = st->stride;
	plan->read = st->from;
	plan->nr_read = st->window;
	st->next = st->from + (uint64_t)(st->stride * (int64_t)st->window);
}

/* The fault was to be expected. */
static void follow(const struct tmem_streams *s, struct tmem_stream_thread *t,
		   struct tmem_stream *st, uint64_t vpn,
		   struct tmem_stream_plan *plan)
{
	int64_t nr = steps_in_window(st), at = 0;

	steps_to(st, vpn, &at);
	plan->used = st->from;
	plan->nr_used = (uint32_t)(at < nr ? at : nr);
	plan->nr_gap = (uint32_t)at - plan->nr_used;
	plan->stream = st;
	st->from = vpn + (uint64_t)st->stride;
	/* It may be faster than we read; then more would not help it. */
	if (at >= nr)
		grow(s, t, st);
	plan_read(st, plan);
}

static struct tmem_stream *stream_of(struct tmem_stream_thread *t, uint64_t vpn)
{
	unsigned i;
	int64_t at;

	for (i = 0; i < STREAM_PER_THREAD; i++) {
		struct tmem_stream *st = &t->stream[i];

		if (steps_to(st, vpn, &at) && at >= 0 &&
		    at <= steps_in_window(st) + slack(st))
			return st;
	}
	return NULL;
}

static bool is_recent(const struct tmem_stream_thread *t, uint64_t vpn)
{
	unsigned i;

	for (i = 0; i < STREAM_RECENT; i++)
		if (t->recent[i] == vpn)
			return true;
	return false;
}

/* The smallest stride by which vpn is the third in a row, or 0. */
static int64_t find_stride(const struct tmem_stream_thread *t, uint64_t vpn)
{
	int64_t best = 0, d;
	uint64_t size, best_size = STREAM_STRIDE_MAX + 1;
	unsigned i;

	for (i = 0; i < STREAM_RECENT; i++) {
		d = (int64_t)(vpn - t->recent[i]);
		size = (uint64_t)(d < 0 ? -d : d);
		if (size && size < best_size &&
		    is_recent(t, vpn - 2 * (uint64_t)d)) {
			best = d;
			best_size = size;
		}
	}
	return best;
}

static void start_stream(const struct tmem_streams *s,
			 struct tmem_stream_thread *t, uint64_t vpn,
			 struct tmem_stream_plan *plan)
{
	struct tmem_stream *st = &t->stream[0];
	unsigned i;

	for (i = 1; i < STREAM_PER_THREAD; i++)
		if (t->stream[i].clock < st->clock)
			st = &t->stream[i];
	/* It came to nothing: begin more carefully. */
	if (st->stride && st->window && !st->right)
		t->first /= 2;
	st->stride = plan->stride;
	st->right = 0;
	st->clock = s->clock;
	st->window = t->first < s->window_max ? t->first : s->window_max;
	st->from = vpn + (uint64_t)st->stride;
	plan_read(st, plan);
}

struct tmem_stream_plan tmem_streams_fault(struct tmem_streams *s, uint32_t id,
					   uint64_t vpn)
{
	struct tmem_stream_plan plan = { 0 };
	struct tmem_stream_thread *t = thread_of(s, id);
	struct tmem_stream *st = stream_of(t, vpn);

	t->clock = ++s->clock;
	if (st) {
		st->clock = s->clock;
		follow(s, t, st, vpn, &plan);
		return plan;
	}
	plan.stride = find_stride(t, vpn);
	t->recent[t->nr_recent++ % STREAM_RECENT] = vpn;
	if (plan.stride)
		start_stream(s, t, vpn, &plan);
	return plan;
}

void tmem_streams_skipped(struct tmem_stream_plan *plan, uint32_t nr)
{
	if (nr <= SKIPPED_MAX)
		return;
	plan->stream->stride = 0;
	plan->nr_used = 0;
	plan->nr_read = 0;
}

void tmem_streams_settle(struct tmem_streams *s, uint32_t nr_used,
			 uint32_t nr_wasted)
{
	s->nr_used += nr_used;
	s->nr_wasted += nr_wasted;
	if (s->nr_used + s->nr_wasted < SETTLE_PAGES)
		return;
	if (s->nr_wasted > (s->nr_used + s->nr_wasted) / WASTE_PART) {
		if (s->window_max > 1)
			s->window_max /= 2;
	} else if (s->window_max < STREAM_WINDOW_MAX) {
		s->window_max *= 2;
	}
	s->nr_used = 0;
	s->nr_wasted = 0;
}
