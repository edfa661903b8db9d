/* SPDX-License-Identifier: MIT */
/*
 * A backend in RAM that refuses, misses and fails on demand.  One pool.
 * For tests of what stands on a backend; the real one is the store.
 */
#ifndef TESTBACKEND_H
#define TESTBACKEND_H

#include <stdbool.h>

#include "tmem/backend.h"

struct testbackend;

/* How many calls go well before one fails; < 0: all do. */
struct testbackend_faults {
	long refuse_in;	   /* store refuses */
	long store_eio_in; /* store fails with -EIO, the old page stays */
	long load_eio_in;
	bool sticky;
};

struct testbackend *testbackend_create(uint64_t capacity);
void testbackend_destroy(struct testbackend *tb);
struct tmem_backend testbackend_backend(struct testbackend *tb);
void testbackend_set_faults(struct testbackend *tb,
			    const struct testbackend_faults *faults);
uint64_t testbackend_pages(struct testbackend *tb);
/* Loses every page, as no honest backend does. */
void testbackend_lose_all(struct testbackend *tb);

#endif
