/* SPDX-License-Identifier: MIT */
/* What saving and restoring share, and tests need; see tmem/snapshot.h. */
#ifndef TMEM_SNAPSHOT_SNAPSHOT_H
#define TMEM_SNAPSHOT_SNAPSHOT_H

#include "emit.h"

#define TMEM_SNAP_ROUND(bytes) (((bytes) + 4095) & ~(size_t)4095)

/*
 * A new epoch in all shards: what was stored before is of an earlier one.  With
 * `saving` the shards also begin to keep pages for it.  0 or -EOVERFLOW.  The
 * control lock is held.
 */
int tmem_snap_raise_epoch_locked(struct tmem_store *store,
				 struct tmem_saving *saving,
				 uint32_t *ret_epoch);
/* Gives the store its random number.  The control lock is held. */
int tmem_snap_identify_locked(struct tmem_store *store);

/* tmem_snapshot_save() but for chance. */
int tmem_snap_save(struct tmem_client *client,
		   const struct tmem_snapshot_options *options,
		   const struct tmem_snapshot_sink *sink,
		   const struct tmem_snap_chance *chance,
		   struct tmem_snapshot *ret_snapshot);

#endif
