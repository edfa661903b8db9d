/* SPDX-License-Identifier: MIT */
/*
 * The figures of a backend: one counter per cause, from one table
 * (tmem/counters.def).  All are 64-bit; a backend that has no such figure
 * leaves it 0.
 */
#ifndef TMEM_STATS_H
#define TMEM_STATS_H

#include <tmem/tmem.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_stats {
#define COUNTER(name, unit, text) uint64_t name;
#include <tmem/counters.def>
#undef COUNTER
};

/* One line of the table, for whoever prints all of it. */
struct tmem_counter {
	const char *name;
	const char *unit;
	const char *text;
	size_t offset; /* in struct tmem_stats */
};

/* The table; an entry with a NULL name ends it. */
TMEM_API const struct tmem_counter *tmem_stats_table(void);

#ifdef __cplusplus
}
#endif
#endif
