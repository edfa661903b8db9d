/* SPDX-License-Identifier: MIT */
/*
 * ahead_patterns [--check]
 *
 * What the streams of src/pager/stream.h make of patterns of access, beside a
 * majority of the last differences (as in "Leap", USENIX ATC 2020) with the
 * same windows: faults, pages read ahead, and how many of these were thrown
 * away unused.  A memory of MEMORY pages, first in first out, in front of
 * PAGES pages; as the pager sees it, only faults are told.  With --check the
 * exit status says whether streams keep what docs/performance.md says of them.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pager/stream.h"

enum {
	PAGES = 65536,
	MEMORY = 32768,
	ACCESSES = 400000,
	DELTAS = 8
};

struct majority {
	uint64_t last;
	int64_t delta[DELTAS];
	unsigned nr, window, hits;
};

struct sim {
	bool present[PAGES];
	bool marked[PAGES]; /* read ahead, use unknown to the streams */
	bool unused[PAGES]; /* read ahead, in truth not used yet */
	uint32_t ring[MEMORY];
	unsigned at;
	uint64_t faults, read, wasted;
	bool use_majority;
	struct tmem_streams streams;
	struct majority majority;
};

static uint64_t rng = 1;

static uint32_t roll(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng >> 16) % n);
}

static void bring(struct sim *s, uint32_t page)
{
	uint32_t old = s->ring[s->at];

	if (s->present[old]) {
		s->wasted += s->unused[old];
		if (s->marked[old])
			tmem_streams_settle(&s->streams, 0, 1);
		s->present[old] = s->marked[old] = s->unused[old] = false;
	}
	s->ring[s->at] = page;
	s->at = (s->at + 1) % MEMORY;
	s->present[page] = true;
}

static void read_ahead(struct sim *s, uint64_t from, int64_t stride,
		       unsigned nr)
{
	for (; nr > 0; nr--, from += (uint64_t)stride) {
		if (from >= PAGES || s->present[from])
			continue;
		bring(s, (uint32_t)from);
		s->marked[from] = s->unused[from] = true;
		s->read++;
	}
}

static void ask_streams(struct sim *s, uint32_t page)
{
	struct tmem_stream_plan plan = tmem_streams_fault(&s->streams, 1, page);
	unsigned i, used = 0, skipped = 0;
	uint64_t at = plan.used;

	for (i = 0; i < plan.nr_used + plan.nr_gap; i++) {
		skipped += at < PAGES && !s->present[at];
		at += (uint64_t)plan.stride;
	}
	if (plan.stream)
		tmem_streams_skipped(&plan, skipped);
	for (i = 0; i < plan.nr_used; i++, plan.used += (uint64_t)plan.stride)
		if (plan.used < PAGES && s->marked[plan.used]) {
			s->marked[plan.used] = false;
			used++;
		}
	tmem_streams_settle(&s->streams, used, 0);
	read_ahead(s, plan.read, plan.stride, plan.nr_read);
}

/* Boyer and Moore's, over the last n. */
static int64_t majority_of(const struct majority *m, unsigned n)
{
	int64_t best = 0;
	unsigned i, count = 0;

	for (i = 0; i < n; i++) {
		int64_t d = m->delta[(m->nr - 1 - i) % DELTAS];

		if (!count)
			best = d;
		count = d == best ? count + 1 : count - 1;
	}
	for (i = count = 0; i < n; i++)
		count += m->delta[(m->nr - 1 - i) % DELTAS] == best;
	return count > n / 2 ? best : 0;
}

static void ask_majority(struct sim *s, uint32_t page)
{
	struct majority *m = &s->majority;
	int64_t d;

	m->delta[m->nr++ % DELTAS] = (int64_t)(page - m->last);
	d = m->nr < DELTAS ? 0 : majority_of(m, DELTAS / 2);
	if (m->nr >= DELTAS && !d)
		d = majority_of(m, DELTAS);
	/* It is told of each use at once, which a pager can't know. */
	m->window = m->hits ? m->window * 2 : m->window / 2;
	if (m->window < STREAM_WINDOW_FIRST)
		m->window = STREAM_WINDOW_FIRST;
	if (m->window > STREAM_WINDOW_MAX)
		m->window = STREAM_WINDOW_MAX;
	m->hits = 0;
	m->last = page;
	if (!d)
		return;
	read_ahead(s, page + (uint64_t)d, d, m->window);
	/* Its own steps are in the next difference. */
	m->last += (uint64_t)(d * (int64_t)m->window);
}

static void touch(struct sim *s, uint32_t page)
{
	s->majority.hits += s->unused[page];
	s->unused[page] = false;
	if (s->present[page])
		return;
	s->faults++;
	bring(s, page);
	if (s->use_majority)
		ask_majority(s, page);
	else
		ask_streams(s, page);
}

/* The patterns: the i-th access */

static uint32_t seq(uint32_t i)
{
	return i % PAGES;
}

static uint32_t back(uint32_t i)
{
	return PAGES - 1 - i % PAGES;
}

static uint32_t stride(uint32_t i)
{
	return (i * 5 + i * 5 / PAGES) % PAGES;
}

static uint32_t changing(uint32_t i)
{
	return i < PAGES ? i : stride(i - PAGES);
}

static uint32_t column(uint32_t i)
{
	return (i * 512 + i * 512 / PAGES) % PAGES;
}

static uint32_t two(uint32_t i)
{
	return i % 2 ? back(i / 2) : seq(i / 2);
}

static uint32_t three(uint32_t i)
{
	return (i % 3 * (PAGES / 3) + i / 3) % PAGES;
}

static uint32_t noisy(uint32_t i)
{
	return i % 2 ? roll(PAGES) : seq(i / 2);
}

static uint32_t drowned(uint32_t i)
{
	return i % 5 ? roll(PAGES) : seq(i / 5);
}

static uint32_t gaps(uint32_t i)
{
	static uint32_t at;

	at += 1 + (i && roll(3) == 0);
	return at % PAGES;
}

static uint32_t blocks(uint32_t i)
{
	static uint32_t start;

	if (i % 8 == 0)
		start = roll(PAGES);
	return (start + i % 8) % PAGES;
}

static uint32_t triples(uint32_t i)
{
	static uint32_t start;

	if (i % 3 == 0)
		start = roll(PAGES);
	return (start + i % 3) % PAGES;
}

static uint32_t uniform(uint32_t i)
{
	(void)i;
	return roll(PAGES);
}

static const struct pattern {
	const char *name;
	uint32_t (*page)(uint32_t i);
	double faults_max; /* with streams, part of those without */
	double wasted_max; /* part of all faults without read-ahead */
} patterns[] = {
	{ "sequential", seq, 0.02, 0.01 },
	{ "downwards", back, 0.02, 0.01 },
	{ "every 5th page", stride, 0.02, 0.01 },
	{ "upwards, then every 5th", changing, 0.03, 0.01 },
	{ "columns, 512 pages apart", column, 0.35, 0.05 },
	{ "two by turns", two, 0.03, 0.01 },
	{ "three by turns", three, 0.03, 0.01 },
	{ "half random", noisy, 0.6, 0.02 },
	{ "four fifths random", drowned, 0.85, 0.02 },
	{ "with gaps of one", gaps, 0.05, 0.35 },
	{ "8 in a row, anywhere", blocks, 0.75, 0.1 },
	{ "3 in a row, anywhere", triples, 1.01, 0.05 },
	{ "random", uniform, 1.005, 0.005 },
};

static void replay(struct sim *s, const struct pattern *p)
{
	uint32_t i;

	rng = 88172645463325252ull;
	for (i = 0; i < ACCESSES; i++)
		touch(s, p->page(i));
	for (i = 0; i < PAGES; i++)
		s->wasted += s->present[i] && s->unused[i];
}

static struct sim *new_sim(void)
{
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		exit(2);
	tmem_streams_init(&s->streams);
	return s;
}

static bool run(const struct pattern *p)
{
	struct sim *none = new_sim(), *majority = new_sim(),
		   *streams = new_sim();
	double faults;
	bool ok;

	none->streams.window_max =
		0; /* and it never grows back: nothing read */
	majority->use_majority = true;
	replay(none, p);
	replay(majority, p);
	replay(streams, p);
	faults = (double)none->faults;
	ok = (double)streams->faults <= faults * p->faults_max &&
	     (double)streams->wasted <= faults * p->wasted_max;
	printf("%-26s %8.0f  %6.1f %6.1f %6.1f    %6.1f %6.1f %6.1f%s\n",
	       p->name, faults, (double)majority->faults / faults * 100,
	       (double)majority->read / faults * 100,
	       (double)majority->wasted / faults * 100,
	       (double)streams->faults / faults * 100,
	       (double)streams->read / faults * 100,
	       (double)streams->wasted / faults * 100, ok ? "" : "   !");
	free(none);
	free(majority);
	free(streams);
	return ok;
}

int main(int argc, char **argv)
{
	bool ok = true;
	size_t i;

	printf("%% of the faults without   %8s  majority:            streams:\n"
	       "%-26s %8s  %6s %6s %6s    %6s %6s %6s\n",
	       "", "", "faults", "faults", "read", "wasted", "faults", "read",
	       "wasted");
	for (i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
		ok &= run(&patterns[i]);
	return argc > 1 && strcmp(argv[1], "--check") == 0 && !ok;
}
