/* SPDX-License-Identifier: MIT */
/*
 * The same streams on the store itself, so that the simulator is held to what
 * it stands for.  Pages are noise and zeros, 2.6 times smaller when they are
 * stored, and compared when they come back.
 *
 * An ordinary cache is a shared pool (a load leaves the page), a victim cache
 * a private one.
 */
#ifndef EVICT_STORE_H
#define EVICT_STORE_H

#include "evict_policy.h"

/*
 * Hits of a store whose limit is such that it holds about `capacity` pages;
 * ret_pages: how many it held on average once it was full, or at its end.
 * Ends the program if a page comes back wrong.
 */
uint32_t evict_store_run(const struct evict_stream *stream, uint32_t capacity,
			 double *ret_pages);

#endif
