/* SPDX-License-Identifier: MIT */
/*
 * What a child has seen, against a model: blocks are moved, unmapped and mapped
 * again, a child is made at some moment, and the events are read in an order
 * that is not quite that in which they happened.  Each page that the child has
 * mapped must lead back to where the table has it.
 *
 * Usage: pager_seen [ROUNDS [SEED]]
 */
#include "pager/seen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fstest.h"
#include "pager/install.h"

enum {
	PLACES = 12,
	PAGES = 4, /* of a place, a block fills it */
	FIRST = 1000,
	STEPS_MOST = 20,
	NOBODY = -1,
	UNWATCHED = -2 /* mapped since, and nobody told */
};

/* What is where, by the place that it had when the table stood still. */
struct world {
	int at[PLACES];
};

static struct world history[STEPS_MOST + 1], child;
static struct tmem_deferred all, seen;
static bool truth[STEPS_MOST + 1]; /* seen */
static unsigned nr_notes, child_busy, nr_same, nr_told;
static struct rng rng;

static unsigned below(unsigned n)
{
	return (unsigned)rng_below(&rng, n);
}

static uint64_t vpn_of(int place)
{
	return FIRST + (uint64_t)place * PAGES;
}

int tmem_install_is_watched(int uffd, uint64_t vpn)
{
	(void)uffd;
	if (child_busy) {
		child_busy--;
		return -EAGAIN;
	}
	return child.at[(vpn - FIRST) / PAGES] >= 0;
}

static int pick(const struct world *w, bool used)
{
	int place = (int)below(PLACES), i;

	for (i = 0; i < PLACES; i++, place = (place + 1) % PLACES)
		if ((w->at[place] >= 0) == used && w->at[place] != UNWATCHED)
			return place;
	return NOBODY;
}

/* One change, and the note about it. */
static bool change(struct world *w, struct tmem_note *ret_note)
{
	int from = pick(w, true), to = pick(w, false);

	if (from == NOBODY)
		return false;
	if (below(3) && to != NOBODY) {
		*ret_note = (struct tmem_note){ NOTE_MOVED, vpn_of(from),
						vpn_of(to), PAGES };
		w->at[to] = w->at[from];
		w->at[from] = NOBODY;
		return true;
	}
	*ret_note = (struct tmem_note){ NOTE_UNMAPPED, vpn_of(from),
					vpn_of(from) + PAGES, 0 };
	w->at[from] = below(2) ? NOBODY : UNWATCHED;
	return true;
}

static bool touches(const struct tmem_note *a, const struct tmem_note *b)
{
	uint64_t at[2] = { a->from, a->kind == NOTE_MOVED ? a->to : a->from };
	uint64_t bt[2] = { b->from, b->kind == NOTE_MOVED ? b->to : b->from };

	return at[0] == bt[0] || at[0] == bt[1] || at[1] == bt[0] ||
	       at[1] == bt[1];
}

/* Two that were read in the other order; the child may lie between them. */
static void swap_two(unsigned i)
{
	struct tmem_note n = all.note[i];
	bool b = truth[i];

	if (touches(&n, &all.note[i + 1]))
		return;
	all.note[i] = all.note[i + 1];
	all.note[i + 1] = n;
	truth[i] = truth[i + 1];
	truth[i + 1] = b;
}

/* If the first k notes but `one`, or with it, were seen: does it look so? */
static bool looks_so(unsigned k, unsigned one)
{
	bool there[PLACES], right = true;
	unsigned i;

	for (i = 0; i < PLACES; i++)
		there[i] = history[0].at[i] >= 0;
	for (i = 0; i < nr_notes; i++) {
		const struct tmem_note *n = &all.note[i];

		if ((i < k) == (i == one))
			continue;
		there[(n->from - FIRST) / PAGES] = false;
		if (n->kind == NOTE_MOVED)
			there[(n->to - FIRST) / PAGES] = true;
	}
	for (i = 0; i < PLACES; i++)
		right &= there[i] == (child.at[i] >= 0);
	return right;
}

static bool is_truth(unsigned k, unsigned one)
{
	unsigned i;

	for (i = 0; i < nr_notes; i++)
		if (truth[i] != ((i < k) != (i == one)))
			return false;
	return true;
}

/* Could this picture be of another moment? */
static bool is_unique(void)
{
	unsigned k, one;

	for (k = 0; k <= nr_notes; k++)
		for (one = 0; one <= nr_notes; one++)
			if (looks_so(k, one) && !is_truth(k, one))
				return false;
	return true;
}

static void fail(unsigned place, uint64_t got)
{
	unsigned i;

	for (i = 0; i < nr_notes; i++)
		fprintf(stderr, "%u: %lu %lu %lu\n", i,
			(unsigned long)all.note[i].kind,
			(unsigned long)all.note[i].from,
			(unsigned long)all.note[i].to);
	fprintf(stderr, "FAILED: place %u has %d, not %ld\n", place,
		child.at[place], (long)(got - FIRST) / PAGES);
	exit(1);
}

static void check_child(void)
{
	unsigned i, k;

	for (i = 0; i < PLACES; i++)
		for (k = 0; k < PAGES && child.at[i] >= 0; k++) {
			uint64_t got =
				tmem_notes_resolve(&seen, vpn_of((int)i) + k);

			if (got != vpn_of(child.at[i]) + k)
				fail(i, got);
		}
}

static void find(unsigned heard)
{
	int r;

	do
		r = tmem_seen_find(&all, nr_notes, heard, 0, &seen);
	while (r == -EAGAIN);
	if (r)
		exit(1);
}

static void one_round(void)
{
	unsigned want = 1 + below(STEPS_MOST), moment, heard, i;
	struct world w;

	for (i = 0; i < PLACES; i++)
		w.at[i] = below(2) ? (int)i : NOBODY;
	history[0] = w;
	for (nr_notes = 0; nr_notes < want; nr_notes++) {
		if (!change(&w, &all.note[nr_notes]))
			break;
		history[nr_notes + 1] = w;
	}
	atomic_store(&all.nr, nr_notes);
	moment = below(nr_notes + 1);
	child = history[moment];
	/* The fork's event is near to its moment. */
	heard = moment;
	if (below(2))
		heard = below(2) && moment ? moment - 1 : moment + 1;
	if (heard > nr_notes)
		heard = nr_notes;
	for (i = 0; i < nr_notes; i++)
		truth[i] = i < moment;
	if (nr_notes > 1 && below(2))
		swap_two(below(nr_notes - 1));
	child_busy = below(4) ? 0 : below(6);
	if (!is_unique()) {
		nr_same++;
		return;
	}
	nr_told++;
	find(heard);
	check_child();
}

/*
 * O leaves T, B comes there, and only then is it told of O, as of what is
 * aside.  The child was made when B had not moved yet.
 */
static void aside_is_where_it_was(void)
{
	const uint64_t t = vpn_of(0), z = vpn_of(1), s = vpn_of(2);
	int i;

	nr_notes = 2;
	atomic_store(&all.nr, 2);
	all.note[0] = (struct tmem_note){ NOTE_MOVED, s, t, PAGES };
	all.note[1] =
		(struct tmem_note){ NOTE_MOVED, t + (1ull << 35), z, PAGES };
	for (i = 0; i < PLACES; i++)
		child.at[i] = NOBODY;
	child.at[1] = 0;
	child.at[2] = 2;
	find(1);
	check_child();
	/* And when it had. */
	child.at[2] = NOBODY;
	child.at[0] = 2;
	find(2);
	check_child();
}

int main(int argc, char **argv)
{
	unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 0) : 20000, i;

	rng.state = seed_from(argc, argv, 2);
	aside_is_where_it_was();
	for (i = 0; i < rounds; i++)
		one_round();
	printf("%u told, %u that look the same at another moment\n", nr_told,
	       nr_same);
	return nr_told > nr_same / 4 ? 0 : 1;
}
