/* SPDX-License-Identifier: MIT */
/* Metadata pages; the model is in meta.h. */
#include "meta.h"

#include <string.h>

#include "map.h"

static struct tmem_account *account_of(struct tmem_meta *meta)
{
	return meta->pages.account;
}

static void give_back(struct tmem_meta *meta, void *start, unsigned nr_pages)
{
	tmem_map->discard(start, (size_t)nr_pages * 4096);
	tmem_account_give(account_of(meta), (uint64_t)nr_pages * 4096);
	tmem_pages_free(&meta->pages, start, nr_pages);
}

static void *take_kept_locked(struct tmem_meta *meta) TMEM_REQUIRES(&meta->lock)
{
	void *start = meta->kept;

	if (!start)
		return NULL;
	memcpy(&meta->kept, start, sizeof(meta->kept));
	meta->nr_kept--;
	return start;
}

static bool keep_locked(struct tmem_meta *meta, void *start)
	TMEM_REQUIRES(&meta->lock)
{
	if (meta->nr_kept >= TMEM_META_KEEP)
		return false;
	memcpy(start, &meta->kept, sizeof(meta->kept));
	meta->kept = start;
	meta->nr_kept++;
	return true;
}

void tmem_meta_init(struct tmem_meta *meta, struct tmem_account *account)
{
	*meta = (struct tmem_meta){ 0 };
	tmem_pages_init(&meta->pages, account);
	tmem_lock_init(&meta->lock, TMEM_RANK_META);
}

void tmem_meta_fini(struct tmem_meta *meta)
{
	tmem_pages_fini(&meta->pages);
}

void *tmem_meta_alloc(struct tmem_meta *meta, unsigned nr_pages)
{
	uint64_t bytes = (uint64_t)nr_pages * 4096;
	void *start = NULL;

	tmem_lock_acquire(&meta->lock);
	if (nr_pages == 1)
		start = take_kept_locked(meta);
	if (start)
		meta->nr_pages++;
	tmem_lock_release(&meta->lock);
	if (start)
		return memset(start, 0, 4096);

	if (!tmem_account_take(account_of(meta), bytes))
		return NULL;
	start = tmem_pages_alloc(&meta->pages, nr_pages);
	if (!start) {
		tmem_account_give(account_of(meta), bytes);
		return NULL;
	}
	tmem_lock_acquire(&meta->lock);
	meta->nr_pages += nr_pages;
	tmem_lock_release(&meta->lock);
	return start;
}

void tmem_meta_free(struct tmem_meta *meta, void *start, unsigned nr_pages)
{
	bool kept;

	tmem_lock_acquire(&meta->lock);
	meta->nr_pages -= nr_pages;
	kept = nr_pages == 1 && keep_locked(meta, start);
	tmem_lock_release(&meta->lock);
	if (!kept)
		give_back(meta, start, nr_pages);
}

void tmem_meta_trim(struct tmem_meta *meta)
{
	void *start;

	do {
		tmem_lock_acquire(&meta->lock);
		start = take_kept_locked(meta);
		tmem_lock_release(&meta->lock);
		if (start)
			give_back(meta, start, 1);
	} while (start);
}

uint64_t tmem_meta_bytes(struct tmem_meta *meta)
{
	uint64_t nr_pages;

	tmem_lock_acquire(&meta->lock);
	nr_pages = meta->nr_pages + meta->nr_kept + meta->pages.nr_chunks;
	tmem_lock_release(&meta->lock);
	return nr_pages * 4096;
}

void tmem_meta_check(struct tmem_meta *meta)
{
	uint64_t used_pages = tmem_pages_check(&meta->pages);

	TMEM_INVARIANT("M1", used_pages * 4096 == tmem_meta_bytes(meta));
	TMEM_INVARIANT("M2", meta->nr_kept <= TMEM_META_KEEP);
}
