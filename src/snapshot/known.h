/* SPDX-License-Identifier: MIT */
/*
 * The dictionaries that a stream has brought so far, as it is read.
 *
 * One is added to the store, for the pool that is being restored, and held
 * until the end: its pages are stored as they come.  If the store has no room
 * for it, or if nothing is stored, it is in memory of our own: its pages can be
 * read, and are compressed anew without it.  A stream gets no more than a part
 * of the store's table, whatever it says.
 */
#ifndef TMEM_SNAPSHOT_KNOWN_H
#define TMEM_SNAPSHOT_KNOWN_H

#include "core/dicts.h"
#include "format.h"

struct tmem_snap_known_one {
	const struct tmem_dict *dict; /* NULL: there is none */
	uint32_t name;		      /* the store's, held; 0: it is ours */
	bool current;		      /* its pool is to go on with it */
	size_t bytes;		      /* that are ours, from `dict` on */
};

struct tmem_snap_known {
	struct tmem_store *store; /* NULL: nothing is stored */
	unsigned taken;		  /* by the store, ever */
	struct tmem_snap_known_one one[TMEM_SNAP_DICTS];
};

/*
 * A record that is right in itself; `pool` is the one being restored, by
 * number in the store.  0, -ENOMEM, or -EINVAL if the content is none.
 */
int tmem_snap_known_add(struct tmem_snap_known *known,
			const struct tmem_snap_dict *rec, const void *content,
			uint32_t pool);
/* What has that number now, or NULL. */
const struct tmem_snap_known_one *
tmem_snap_known_find(const struct tmem_snap_known *known, uint32_t number);

/* All went well: the pools go on with theirs. */
void tmem_snap_known_make_current(const struct tmem_snap_known *known,
				  struct tmem_store *store)
	TMEM_REQUIRES(&store->control);
/* At the end in any case; what no page has goes at once, if it can. */
void tmem_snap_known_fini(struct tmem_snap_known *known);

#endif
