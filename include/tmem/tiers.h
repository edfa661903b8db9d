/* SPDX-License-Identifier: MIT */
/*
 * Tiers: where a local store moves its coldest pages.
 *
 * A store with a tier begins to move pages down when it holds 7/8 of its limit,
 * or was refused memory, and stops at 3/4: nothing is written to a tier as long
 * as there is room.  All of it is done by tmem_store_maintain(), 1 MiB a write;
 * no store and no invalidation waits for a tier.  A load does, if the page is
 * there, for 30 seconds at the most: what can't be read by then, or was
 * damaged, is -EIO, never another page's bytes and never zeros.  A page that is
 * loaded again comes back.
 *
 * The promise: a page stays in memory until the tier has it.  A tier that is
 * full or broken costs no page: it is left alone for a while, and then tried
 * again.  What a tier holds is encrypted with a key that is in memory only, and
 * gone with the store.
 *
 * Only pages of persistent pools go down.  Ephemeral ones are dropped instead:
 * whoever stored them can have them again, which costs no write.
 *
 * fork(2): tmem_store_before_fork() also waits for what the tiers have in
 * flight, and loads of pages in a tier wait until after_fork.  The child reads
 * what was there, and moves nothing: its store keeps what it has in memory.  As
 * long as the store is frozen the parent moves nothing either.
 */
#ifndef TMEM_TIERS_H
#define TMEM_TIERS_H

#include <tmem/tmem.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_store;

enum tmem_tier_kind {
	TMEM_TIER_KIND_FILE = 0,  /* a file or a block device, by O_DIRECT */
	TMEM_TIER_KIND_MAPPED = 1 /* a file in memory: DAX, or any */
};

struct tmem_tier_setup {
	uint32_t kind; /* enum tmem_tier_kind */
	/*
	 * Open for reading and writing.  It stays the caller's, must outlive
	 * the store, and what it held is overwritten.
	 */
	int fd;
	/*
	 * How much of it is used, in whole MiB.  Where the limit was below 64
	 * MiB when the tier was added, each has a 64th of the limit only.
	 */
	uint64_t max_bytes;
	/* Nonzero: not encrypted, only protected against accidents. */
	int plain;
};

/* Tiers that a store may have; the first that has room is used. */
#define TMEM_STORE_MAX_TIERS 4u

/*
 * Gives the store a tier, before its first page is stored.  0, -EINVAL,
 * -ENOSPC (it has enough of them), -EOPNOTSUPP (a restartable store: what is
 * below would not outlive the process), -ENOMEM (its buffers, 3.5 MiB and less
 * if the limit is below 64 MiB, do not fit under the limit), or what opening it
 * said.
 */
TMEM_API int tmem_store_add_tier(struct tmem_store *store,
				 const struct tmem_tier_setup *setup);

/*
 * A nameless file of mode 0600 in `dir`, for O_DIRECT if the file system will
 * have it: it goes away with the last process that has it open.  A descriptor
 * (close-on-exec) or -errno.
 */
TMEM_API int tmem_tier_create(const char *dir);

#ifdef __cplusplus
}
#endif
#endif
