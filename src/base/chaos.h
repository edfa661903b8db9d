/* SPDX-License-Identifier: MIT */
/*
 * Chaos: a pager library for tests whose kernel, store and disk refuse, whose
 * threads are late, and whose steps can be made to happen in one order.
 *
 * Compiled with TMEM_CHAOS only, which tests/chaos/meson.build does; in what
 * is shipped all of this is nothing, and tools/check-symbols looks.
 *
 * FAULTS.  A seam asks tmem_chaos_hits() whether to fail this time; chaos.def
 * says how often.  TMEM_CHAOS=SEED[,KIND=PER_MILLE]... in the environment turns
 * it on; the kind "all" stands for all of them.
 *
 * POINTS.  Where the order of two threads matters, a thread comes by a point.
 * A test arms a point for a range of pages: the next thread that comes there
 * with one of them stops until the test lets it go.  And it says which pages
 * are to be evicted before others.  Test and pagers share a page for that, the
 * file that TMEM_CHAOS_FILE names; it counts the faults, too.
 *
 *   C1  armed[p].left threads will be stopped, no more; who takes one of them
 *       adds itself to `arrived`, and waits while `passed` is less.
 */
#ifndef TMEM_BASE_CHAOS_H
#define TMEM_BASE_CHAOS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum tmem_chaos_kind {
#define CHAOS_KIND(name, word, per_mille, text) TMEM_CHAOS_##name,
#include "chaos.def"
#undef CHAOS_KIND
	TMEM_CHAOS_KINDS
};

enum tmem_chaos_place {
#define CHAOS_POINT(name, text) TMEM_AT_##name,
#include "chaos.def"
#undef CHAOS_POINT
	TMEM_CHAOS_PLACES
};

struct tmem_chaos_point {
	_Atomic uint64_t start; /* vpns */
	_Atomic uint64_t end;
	_Atomic uint32_t left;
	_Atomic uint32_t arrived; /* futex */
	_Atomic uint32_t passed;  /* futex */
	_Atomic uint32_t seen;	  /* threads that came by, stopped or not */
};

struct tmem_chaos_page {
	_Atomic uint64_t wanted_start; /* vpns: these are to leave first */
	_Atomic uint64_t wanted_end;
	struct tmem_chaos_point point[TMEM_CHAOS_PLACES];
	_Atomic uint64_t hits[TMEM_CHAOS_KINDS];
};

#ifdef TMEM_CHAOS

/* Reads the environment; in a program that was just started. */
void tmem_chaos_start(void);
bool tmem_chaos_hits(enum tmem_chaos_kind kind);
/* The same answer whenever it is asked about the same thing. */
bool tmem_chaos_picks(enum tmem_chaos_kind kind, uint64_t thing);
/* Of nr (1 or more), how many are to be done this time. */
unsigned tmem_chaos_fewer(enum tmem_chaos_kind kind, unsigned nr);
/* Sleeps, now and then. */
void tmem_chaos_pause(void);
void tmem_chaos_at(enum tmem_chaos_place place, uint64_t vpn);
#define TMEM_CHAOS_AT(place, vpn) tmem_chaos_at(TMEM_AT_##place, vpn)
/* Is a page at *vpn or above wanted out?  Then *vpn is the first. */
bool tmem_chaos_wants(uint64_t *vpn);

#else

/* NOLINTNEXTLINE(readability-non-const-parameter): as in a test's build. */
static inline bool tmem_chaos_wants(uint64_t *vpn)
{
	(void)vpn;
	return false;
}

static inline void tmem_chaos_start(void)
{
}

static inline bool tmem_chaos_hits(enum tmem_chaos_kind kind)
{
	(void)kind;
	return false;
}

static inline bool tmem_chaos_picks(enum tmem_chaos_kind kind, uint64_t thing)
{
	(void)kind;
	(void)thing;
	return false;
}

static inline unsigned tmem_chaos_fewer(enum tmem_chaos_kind kind, unsigned nr)
{
	(void)kind;
	return nr;
}

static inline void tmem_chaos_pause(void)
{
}

#define TMEM_CHAOS_AT(place, vpn) ((void)0)

#endif
#endif
