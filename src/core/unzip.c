/* SPDX-License-Identifier: MIT */
/*
 * Working memory to read forms that need some.  The first is made before the
 * first page gets such a form; one more, up to four, where somebody had to
 * wait, with the next maintenance.
 *
 * Loads go on while the store is at rest for a fork, and may write nothing
 * that the child's copy has: so this is memory of its own, which fork(2) wipes
 * for the child (as it is when it is new), locks and all.  The lock is a futex
 * word without a rank: nothing is acquired under it.
 */
#include "unzip.h"

#include <errno.h>

#include "arena/map.h"
#include "base/sys.h"
#include "dicts.h"

enum {
	BYTES = (sizeof(struct tmem_unzip) + 4095) & ~4095ul
};

static bool make(struct tmem_store *store, unsigned nr)
{
	struct tmem_unzip *new;

	if (!tmem_account_take(&store->account, BYTES))
		return false;
	new = tmem_map->map(BYTES, 4096);
	if (new &&tmem_sys_madvise(new, BYTES, MADV_WIPEONFORK) == 0) {
		atomic_store(&store->unzips[nr], new);
		return true;
	}
	if (new)
		tmem_map->unmap(new, BYTES);
	tmem_account_give(&store->account, BYTES);
	return false;
}

bool tmem_unzip_make(struct tmem_store *store)
{
	unsigned nr = 0;

	while (nr < TMEM_MAX_UNZIPS && atomic_load(&store->unzips[nr]))
		nr++;
	if (nr == 0)
		return make(store, 0);
	if (nr < TMEM_MAX_UNZIPS &&
	    atomic_exchange(&store->quiet->unzip_waits, 0))
		make(store, nr);
	return true;
}

static bool try_acquire(struct tmem_unzip *unzip)
{
	uint32_t free = 0;

	return atomic_compare_exchange_strong(&unzip->busy, &free, 1);
}

struct tmem_unzip *tmem_unzip_acquire(struct tmem_store *store)
{
	struct tmem_unzip *unzip;
	unsigned i;

	for (i = 0; i < TMEM_MAX_UNZIPS; i++) {
		unzip = atomic_load(&store->unzips[i]);
		if (!unzip)
			break;
		if (try_acquire(unzip))
			return unzip;
	}
	atomic_store(&store->quiet->unzip_waits, 1);
	unzip = atomic_load(&store->unzips[0]);
	while (atomic_exchange(&unzip->busy, 2))
		tmem_sys_futex_wait(&unzip->busy, 2, NULL);
	return unzip;
}

void tmem_unzip_release(struct tmem_unzip *unzip)
{
	if (atomic_exchange(&unzip->busy, 0) == 2)
		tmem_sys_futex_wake(&unzip->busy, 1);
}

static int decompress(struct tmem_store *store, const struct tmem_codec *codec,
		      const struct tmem_dict *dict,
		      const struct tmem_slot *slot, void *page)
{
	unsigned skip = dict ? TMEM_DICT_NAME_BYTES : 0;
	const unsigned char *data = slot->data + skip;
	unsigned length = slot->length - skip;
	struct tmem_unzip *unzip;
	int r;

	if (!codec->decompress_bytes)
		return codec->decompress(NULL, dict, data, length, page);
	unzip = tmem_unzip_acquire(store);
	r = codec->decompress(unzip->memory, dict, data, length, page);
	tmem_unzip_release(unzip);
	return r;
}

int tmem_unzip_slot(struct tmem_store *store, const struct tmem_slot *slot,
		    unsigned size, void *page)
{
	const struct tmem_codec *codec = tmem_codec_of(tmem_slot_form(slot));
	const struct tmem_dict *dict = NULL;

	if (!codec || !tmem_slot_is_whole(slot, size))
		return -EIO;
	if (codec->has_dict) {
		if (slot->length > TMEM_DICT_NAME_BYTES)
			dict = tmem_dicts_get(store, tmem_dicts_of_slot(slot));
		if (!dict)
			return -EIO;
	}
	return decompress(store, codec, dict, slot, page);
}

void tmem_unzip_for_each(struct tmem_store *store,
			 void (*fn)(void *arg, void *start, size_t bytes),
			 void *arg)
{
	unsigned i;

	for (i = 0; i < TMEM_MAX_UNZIPS; i++) {
		struct tmem_unzip *unzip = atomic_load(&store->unzips[i]);

		if (unzip)
			fn(arg, unzip, BYTES);
	}
}

static void unmap(void *arg, void *start, size_t bytes)
{
	(void)arg;
	tmem_map->unmap(start, bytes);
}

void tmem_unzip_fini(struct tmem_store *store)
{
	tmem_unzip_for_each(store, unmap, NULL);
}
