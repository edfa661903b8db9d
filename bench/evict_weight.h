/* SPDX-License-Identifier: MIT */
/*
 * Clients with weights that share a full store: who must evict.
 *
 * A simulation.  Each client draws pages from a working set of its own and
 * stores what is not there; pages have the sizes of compressed ones.  A client
 * *demands* what its working set takes.  Its *weighted share* of the store is
 * the share by weight, or its demand if that is less; what such a client
 * leaves is shared by the others.
 */
#ifndef EVICT_WEIGHT_H
#define EVICT_WEIGHT_H

#include <stdbool.h>
#include <stdint.h>

enum {
	EVICT_MAX_CLIENTS = 8,
	EVICT_WEIGHT_KEYS = 1 << 16 /* the largest working set */
};

enum evict_by {
	/* The client with the most bytes by weight. */
	EVICT_BY_WEIGHT,
	/*
	 * Xen's test: a client evicts its own page if its share of weights is
	 * *more* than its share of bytes; else the oldest page of all goes.
	 */
	EVICT_BY_XEN,
	/* The same test the right way round. */
	EVICT_BY_XEN_RIGHT
};

struct evict_client {
	uint32_t weight;
	uint32_t rate;	   /* of its requests, relative */
	uint32_t set_keys; /* working set */
	uint64_t bytes;	   /* held */
	uint32_t pages;
	uint64_t share_bytes; /* weighted share, see above */
};

/* What happened between a change and when all shares were right. */
struct evict_phase {
	bool converged;	    /* each within 2 % of its share */
	uint64_t evictions; /* until then */
	uint64_t least;	    /* bytes over shares at first, in mean pages */
	uint64_t stores;    /* until then, by clients under their share */
	double worst;	    /* deviation from then on, percent */
	uint64_t wrong;	    /* evictions of clients under their share */
};

struct evict_weights;

struct evict_weights *evict_weights_create(enum evict_by by, unsigned nr,
					   uint64_t limit_bytes);
void evict_weights_destroy(struct evict_weights *w);
/* To read and, between phases, to change weight, rate and set_keys. */
struct evict_client *evict_weights_client(struct evict_weights *w, unsigned i);
/* The client's pages are gone. */
void evict_weights_invalidate(struct evict_weights *w, unsigned i);
/* Sets every share_bytes. */
void evict_weights_shares(struct evict_weights *w);
void evict_weights_run(struct evict_weights *w, uint64_t requests,
		       struct evict_phase *ret_phase);

#endif
