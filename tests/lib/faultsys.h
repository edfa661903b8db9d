/* SPDX-License-Identifier: MIT */
/*
 * System calls that fail on demand.  Sources under test are compiled with
 * this file included first: tmem_sys() then comes by tmem_faulty_sys6(), and
 * so does mmap by tmem_sys_map_anon().  What can't fail in practice (munmap,
 * madvise, futex) is left alone.
 */
#ifndef FAULTSYS_H
#define FAULTSYS_H

#define tmem_sys6 tmem_sys6_real
#include "base/sys.h"
#undef tmem_sys6
#define tmem_sys6	  tmem_faulty_sys6
#define tmem_sys_map_anon tmem_faulty_map_anon

long tmem_faulty_sys6(long nr, long a, long b, long c, long d, long e, long f);
void *tmem_faulty_map_anon(size_t bytes, int prot);

/* What the call that is struck does. */
enum {
	FAULTSYS_SHORT = 1 /* reads and writes end halfway */
};

/*
 * The n-th call from now on (1: the next) fails with `result`, a negative
 * errno or FAULTSYS_SHORT, and if `sticky` all later ones of that call's
 * number.  n 0: none.
 */
void faultsys_arm(unsigned long n, int result, int sticky);
/* How many calls were struck since then. */
unsigned long faultsys_struck(void);

#endif
