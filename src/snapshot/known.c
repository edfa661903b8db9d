/* SPDX-License-Identifier: MIT */
/* Dictionaries of a stream that is read; see known.h. */
#include "known.h"

#include <errno.h>

#include "arena/map.h"
#include "snapshot.h"

enum {
	MOST_TAKEN = TMEM_MAX_DICTS / 4
};
_Static_assert((int)TMEM_SNAP_DICTS == (int)TMEM_MAX_DICTS,
	       "a place is a number");

/* In the store.  -ENOSPC: there is no room for it there. */
static int take(struct tmem_snap_known *known, const struct tmem_snap_dict *rec,
		const void *content, uint32_t pool,
		struct tmem_snap_known_one *ret_one)
{
	const struct tmem_dict_spec spec = {
		.pool = pool,
		.uses = rec->uses,
		.content_bytes = rec->content_bytes,
		.content = content,
	};
	struct tmem_store *store = known->store;
	int r;

	if (!store || known->taken == MOST_TAKEN)
		return -ENOSPC;
	tmem_lock_acquire(&store->control);
	r = tmem_dicts_add(store, &spec, &ret_one->name);
	if (r == 0) { /* before anybody could sweep it */
		tmem_dicts_hold(store, ret_one->name);
		ret_one->dict = tmem_dicts_get(store, ret_one->name);
	}
	tmem_lock_release(&store->control);
	known->taken += r == 0;
	return r == -ENOMEM ? -ENOSPC : r;
}

/* In our own memory, to be read with only. */
static int make(const struct tmem_snap_dict *rec, const void *content,
		struct tmem_snap_known_one *ret_one)
{
	size_t bytes = TMEM_SNAP_ROUND(tmem_dict_bytes(rec->content_bytes, 0));
	void *memory = tmem_map->map(bytes, 4096);
	int r;

	if (!memory)
		return -ENOMEM;
	r = tmem_dict_build(memory, content, rec->content_bytes, 0,
			    &ret_one->dict);
	if (r < 0)
		tmem_map->unmap(memory, bytes);
	else
		ret_one->bytes = bytes;
	return r;
}

static void drop(struct tmem_snap_known *known, struct tmem_snap_known_one *one)
{
	if (one->name)
		tmem_dicts_release(known->store, one->name);
	else if (one->dict) /* it lies at the start of its memory */
		tmem_map->unmap((void *)one->dict, one->bytes);
	*one = (struct tmem_snap_known_one){ 0 };
}

int tmem_snap_known_add(struct tmem_snap_known *known,
			const struct tmem_snap_dict *rec, const void *content,
			uint32_t pool)
{
	struct tmem_snap_known_one one = { .current = rec->current };
	int r = take(known, rec, content, pool, &one);

	if (r == -ENOSPC)
		r = make(rec, content, &one);
	if (r < 0)
		return r;
	drop(known, &known->one[rec->number]);
	known->one[rec->number] = one;
	return 0;
}

const struct tmem_snap_known_one *
tmem_snap_known_find(const struct tmem_snap_known *known, uint32_t number)
{
	return number < TMEM_SNAP_DICTS && known->one[number].dict
		       ? &known->one[number]
		       : NULL;
}

void tmem_snap_known_make_current(const struct tmem_snap_known *known,
				  struct tmem_store *store)
{
	unsigned i;

	for (i = 0; i < TMEM_SNAP_DICTS; i++)
		if (known->one[i].name && known->one[i].current)
			tmem_dicts_make_current(store, known->one[i].name);
	if (known->taken) /* pages of others are to come to these */
		store->cool_again = 1;
}

void tmem_snap_known_fini(struct tmem_snap_known *known)
{
	struct tmem_store *store = known->store;
	unsigned i;

	for (i = 0; i < TMEM_SNAP_DICTS; i++)
		drop(known, &known->one[i]);
	/* Whoever maintains frees them, and nobody else meanwhile. */
	if (!known->taken || atomic_exchange(&store->quiet->maintaining, 1))
		return;
	tmem_lock_acquire(&store->control);
	tmem_dicts_sweep(store);
	tmem_lock_release(&store->control);
	atomic_store(&store->quiet->maintaining, 0);
}
