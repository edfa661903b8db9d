/* SPDX-License-Identifier: MIT */
/* See seen.h. */
#include "seen.h"

#include <errno.h>
#include <string.h>

#include "install.h"
#include "late.h"

enum {
	/* The first and the last page of where it was, and of where it went. */
	POINTS_EACH = 4,
	/* How far apart events are read in the wrong order. */
	NEAR = 4
};

/* A page that some note is about, and whether the child has it mapped. */
struct point {
	uint64_t vpn;
	bool there;
};

struct guess {
	const struct tmem_deferred *all;
	uint64_t nr; /* notes */
	unsigned nr_points;
	struct point point[POINTS_EACH * EVENT_NOTES];
	bool seen[EVENT_NOTES];
};

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static uint64_t pages_of(const struct tmem_note *n)
{
	return n->kind == NOTE_MOVED ? n->nr : n->to - n->from;
}

static bool is_left(const struct tmem_note *n, uint64_t vpn)
{
	return n->kind != NOTE_GONE && vpn - n->from < pages_of(n);
}

static bool is_taken(const struct tmem_note *n, uint64_t vpn)
{
	return n->kind == NOTE_MOVED && vpn - n->to < n->nr;
}

static int add_point(struct guess *g, int child_uffd, uint64_t vpn)
{
	int r;

	if (vpn >= LATE_ASIDE)
		return 0;
	r = tmem_install_is_watched(child_uffd, vpn);
	if (r < 0)
		return r;
	g->point[g->nr_points++] = (struct point){ vpn, r > 0 };
	return 0;
}

static int add_points(struct guess *g, int child_uffd,
		      const struct tmem_note *n)
{
	uint64_t last = pages_of(n) - 1;
	int r = 0;

	if (n->kind == NOTE_GONE)
		return 0;
	r = add_point(g, child_uffd, n->from);
	if (r == 0 && last)
		r = add_point(g, child_uffd, n->from + last);
	if (r == 0 && n->kind == NOTE_MOVED)
		r = add_point(g, child_uffd, n->to);
	if (r == 0 && n->kind == NOTE_MOVED && last)
		r = add_point(g, child_uffd, n->to + last);
	return r;
}

/* Would it be mapped? */
static bool is_expected(const struct guess *g, uint64_t vpn)
{
	const struct tmem_note *n = g->all->note;
	uint64_t i;

	for (i = g->nr; i-- > 0;)
		if (g->seen[i] && (is_left(&n[i], vpn) || is_taken(&n[i], vpn)))
			return is_taken(&n[i], vpn);
	/* As before all of them, which the first one tells. */
	for (i = 0; i < g->nr; i++)
		if (is_left(&n[i], vpn) || is_taken(&n[i], vpn))
			break;
	return i == g->nr || is_left(&n[i], vpn);
}

static unsigned count_right(const struct guess *g)
{
	unsigned i, right = 0;

	for (i = 0; i < g->nr_points; i++)
		right += is_expected(g, g->point[i].vpn) == g->point[i].there;
	return right;
}

/* The first `nr`, but for note `one`, or with it; g->nr: none. */
static void see(struct guess *g, uint64_t nr, uint64_t one)
{
	uint64_t i;

	for (i = 0; i < g->nr; i++)
		g->seen[i] = (i < nr) != (i == one);
}

/* The moment in the order of the notes that agrees best; how well. */
static unsigned find_moment(struct guess *g, uint64_t heard, uint64_t *ret_k)
{
	unsigned right, best = 0;
	uint64_t k;

	for (k = 0; k <= g->nr; k++) {
		see(g, k, g->nr);
		right = count_right(g);
		if (right < best ||
		    (right == best &&
		     distance(k, heard) >= distance(*ret_k, heard)))
			continue;
		best = right;
		*ret_k = k;
	}
	return best;
}

/* One note near to the moment is on the wrong side of it. */
static void find_one(struct guess *g, unsigned best, uint64_t *ret_k,
		     uint64_t *ret_one)
{
	unsigned right;
	uint64_t k, one;

	for (k = 0; k <= g->nr; k++) {
		one = k > NEAR ? k - NEAR : 0;
		for (; one <= k + NEAR && one < g->nr; one++) {
			see(g, k, one);
			right = count_right(g);
			if (right <= best)
				continue;
			best = right;
			*ret_k = k;
			*ret_one = one;
		}
	}
}

static void choose(struct guess *g, uint64_t heard)
{
	uint64_t k = 0, one = g->nr;
	unsigned right = find_moment(g, heard, &k);

	/* The order is not quite that in which they happened. */
	if (right < g->nr_points)
		find_one(g, right, &k, &one);
	see(g, k, one);
}

/*
 * late.h, E3: what is said to be aside is where it was, if what was moved there
 * was not.
 */
static struct tmem_note as_seen(const struct guess *g, uint64_t nr)
{
	const struct tmem_note *all = g->all->note;
	struct tmem_note n = all[nr];
	uint64_t i;

	if (n.kind == NOTE_GONE || n.from < LATE_ASIDE)
		return n;
	for (i = nr; i-- > 0;)
		if (is_taken(&all[i], n.from - LATE_ASIDE))
			break;
	if (i > nr || g->seen[i])
		return n;
	n.from -= LATE_ASIDE;
	if (n.kind == NOTE_UNMAPPED)
		n.to -= LATE_ASIDE;
	return n;
}

int tmem_seen_find(const struct tmem_deferred *all, uint64_t nr, uint64_t heard,
		   int child_uffd, struct tmem_deferred *ret_seen)
{
	struct guess g;
	uint64_t i, nr_seen = 0;
	int r = 0;

	memset(&g, 0, sizeof(g));
	g.all = all;
	g.nr = nr;
	for (i = 0; i < g.nr && r == 0; i++)
		r = add_points(&g, child_uffd, &all->note[i]);
	if (r < 0)
		return r;
	choose(&g, heard);
	for (i = 0; i < g.nr; i++)
		if (g.seen[i])
			ret_seen->note[nr_seen++] = as_seen(&g, i);
	atomic_store(&ret_seen->nr, nr_seen);
	return 0;
}
