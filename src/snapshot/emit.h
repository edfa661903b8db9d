/* SPDX-License-Identifier: MIT */
/*
 * Pages as records: which object they belong to is written once, and names in
 * rising order become one record.  See format.h.
 */
#ifndef TMEM_SNAPSHOT_EMIT_H
#define TMEM_SNAPSHOT_EMIT_H

#include "block.h"
#include "core/saving.h"

struct tmem_snap_emit {
	struct tmem_snap_writer writer;
	uint64_t block;			  /* number + 1 that `object` is of */
	struct tmem_snap_object object;	  /* the last one */
	unsigned char *keep;		  /* the last record, if it is a KEEP */
	uint32_t keep_index;		  /* its last page */
	uint16_t nr_kept;		  /* its pages */
	uint16_t numbers[TMEM_MAX_POOLS]; /* a pool's number in the stream */
	uint32_t dicts[TMEM_SNAP_DICTS];  /* names: those that are written */
	uint64_t pages;
	uint64_t kept_pages;
	uint64_t data_bytes;
};

void tmem_snap_emit_client(struct tmem_snap_emit *e, uint32_t weight);
void tmem_snap_emit_pool(struct tmem_snap_emit *e,
			 const struct tmem_snap_pool *pool);
/*
 * A dictionary of the store's: its number in the stream is its place in the
 * store's table, so who writes one must hold it until the end (core/dicts.h).
 */
void tmem_snap_emit_dict(struct tmem_snap_emit *e,
			 const struct tmem_snap_dict *head,
			 const void *content);
/*
 * The data of a slot that is whole, under that name.  If it names a dictionary
 * that was written before.
 */
void tmem_snap_emit_page(struct tmem_snap_emit *e,
			 const struct tmem_saving_name *name,
			 const struct tmem_slot *slot);
void tmem_snap_emit_keep(struct tmem_snap_emit *e,
			 const struct tmem_saving_name *name);
/* The last record, and the last block.  0 or the first error of all. */
int tmem_snap_emit_end(struct tmem_snap_emit *e);

#endif
