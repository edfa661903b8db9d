/* SPDX-License-Identifier: MIT */
/*
 * Memory for metadata: accounted, zeroed runs of pages.
 *
 * A few single pages that were freed are kept (resident, accounted), since
 * an index at the edge of a split would else pay the kernel for each step.
 *
 *   M1  Every page handed out or kept is accounted.
 *   M2  At most TMEM_META_KEEP pages are kept.
 */
#ifndef TMEM_ARENA_META_H
#define TMEM_ARENA_META_H

#include "pages.h"

enum {
	TMEM_META_KEEP = 8
};

struct tmem_meta {
	struct tmem_pages pages;
	struct tmem_lock lock; /* guards what follows */
	uint32_t nr_kept;
	void *kept;	   /* linked through their first word */
	uint64_t nr_pages; /* handed out */
};

void tmem_meta_init(struct tmem_meta *meta, struct tmem_account *account);
void tmem_meta_fini(struct tmem_meta *meta);

/* nr_pages of zeroes, or NULL: at the limit, or the kernel has none. */
void *tmem_meta_alloc(struct tmem_meta *meta, unsigned nr_pages);
void tmem_meta_free(struct tmem_meta *meta, void *start, unsigned nr_pages);
/* Gives the kept pages back to the kernel. */
void tmem_meta_trim(struct tmem_meta *meta);

/* Bytes handed out or kept, chunk headers included. */
uint64_t tmem_meta_bytes(struct tmem_meta *meta);
void tmem_meta_check(struct tmem_meta *meta);

#endif
