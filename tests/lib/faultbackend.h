/* SPDX-License-Identifier: MIT */
/*
 * A backend in front of another one: passes everything on, and fails on
 * demand.  For tests of what stands on a backend.
 *
 * It also gives pools the lowest number that is free, so that a number comes
 * again at once, as the contract allows; and it aborts if an operation is in
 * flight on a pool that is being destroyed.
 */
#ifndef FAULTBACKEND_H
#define FAULTBACKEND_H

#include <stdbool.h>

#include "tmem/backend.h"

struct faultbackend;

/* Which calls count. */
enum {
	FAULT_CREATE = 1,
	FAULT_DESTROY = 2,
	FAULT_STORE = 4,
	FAULT_LOAD = 8,
	FAULT_INVALIDATE = 16,
	FAULT_OBJECT = 32,
	FAULT_ALL = 63
};

/* How a call fails. */
enum faulthow {
	FAULT_BEFORE,  /* nothing is done, the call returns the error */
	FAULT_AFTER,   /* it is done, but the call returns the error */
	FAULT_ELEMENT, /* only the first page has it, which is not done */
	FAULT_HOWS
};

struct faultbackend *faultbackend_create(struct tmem_backend real);
void faultbackend_destroy(struct faultbackend *fb);
struct tmem_backend faultbackend_backend(struct faultbackend *fb);

/*
 * The n-th call (1: the next) of one of these kinds fails with `error`; if
 * `sticky`, all of them from then on.  n 0: none, from now on.
 */
void faultbackend_arm(struct faultbackend *fb, unsigned long n, unsigned kinds);
void faultbackend_set_error(struct faultbackend *fb, int error,
			    enum faulthow how, bool sticky);
/* How many calls were struck since it was armed. */
unsigned long faultbackend_struck(const struct faultbackend *fb);

#endif
