/* SPDX-License-Identifier: MIT */
/*
 * Deduplication: equal pages of a client are stored once.
 *
 * Before a page is compressed its hash (XXH3, with a secret seed that differs
 * from client to client) is looked up in a table of hints (hints.h), which say
 * which pages may have the same content: not where they are stored, but their
 * names, as far as they matter for the index.  So a hint leads to what that
 * page is *now*, under its shard's lock, whatever moved, replaced or cooled
 * it, and can't lead to memory that is gone.  What it leads to is pinned (by
 * the count that clones have: it is neither overwritten nor moved then) and
 * compared byte by byte without a lock.  If it is equal the new page becomes a
 * reference, and the pin that reference's count.
 *
 * SCOPE.  Another client's pages have other hashes; if one is found all the
 * same, by chance, it is not touched, unless both clients are in one group.
 * So neither what is stored nor how long it takes says anything of others.
 * Pages of ephemeral pools take no part: evicting one has to free its memory,
 * and its weight must count for whom it belongs to.  Same-filled pages are
 * small as they are.
 *
 * The table has 8 bytes for each page in the store, so where all of them
 * differ some hints are lost.  A seed without getrandom is no secret: then
 * nothing is deduplicated.
 */
#ifndef TMEM_CORE_DEDUP_H
#define TMEM_CORE_DEDUP_H

#include "client.h"

void tmem_dedup_init(struct tmem_store *store, bool on);

/* For a client that was made, in no group yet; or the group's. */
uint64_t tmem_dedup_new_seed(struct tmem_store *store);
uint64_t tmem_dedup_group_seed(const struct tmem_store *store, uint32_t group);

static inline bool tmem_dedup_wants(const struct tmem_store *store,
				    uint32_t pool)
{
	return store->dedup.on &&
	       !tmem_pool_has(store, pool, TMEM_POOL_EPHEMERAL);
}

/* The page's hash, never 0. */
uint64_t tmem_dedup_hash(const struct tmem_client *client, const void *page);
/*
 * The hashes of nr pages that are about to be stored, and brings near where
 * they will be looked up.  0: such a page is seen to need none.
 */
void tmem_dedup_near(const struct tmem_client *client, const struct tmem_io *io,
		     unsigned nr, uint64_t *ret_hashes);

/*
 * A slot with the same page, whose hash is given, pinned, or 0.  `buffer` has
 * room for a page.  No shard's lock is held.
 */
uint32_t tmem_dedup_find(const struct tmem_client *client,
			 const struct tmem_key *key, const void *page,
			 uint64_t hash, void *buffer);

/*
 * The table shrinks with the number of pages, by one step; true: there are
 * more.  A lock that a fork waits for is held.
 */
bool tmem_dedup_trim(struct tmem_store *store);

/* Nothing else may be going on. */
void tmem_dedup_check(struct tmem_store *store);

#endif
