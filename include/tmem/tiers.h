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
 * gone with the store unless it was given.
 *
 * Only pages of persistent pools go down.  Ephemeral ones are dropped instead:
 * whoever stored them can have them again, which costs no write.
 *
 * A RESTARTABLE STORE (tmem/store.h) is opened with its tiers, in its options:
 * with the same files, keys and order when it is taken up again.  Then pages in
 * a tier outlive its process, too, killed at whatever instruction.  The file is
 * opened anew and locked for as long as the store, or I/O of a process that was
 * killed, has it (-EBUSY after a second); the descriptors given may be closed
 * once the store is open.  One segment of a tier says whose it is.  Then
 *
 *  - a tier whose key or file is not the right one is told before anything is
 *    changed: -EKEYREJECTED, -ENODEV; one that is missing, or smaller than it
 *    was, if pages are in it: -ENXIO.  With `give_up_tiers` the store is opened
 *    nevertheless, and the tier is from then on that of the file and the key
 *    given.  What it had is not overwritten as long as pages are in it: the
 *    right file or key gives these back, again with `give_up_tiers`;
 *  - what can't be read, or was damaged, costs those pages only: their loads
 * are -EIO until they are replaced or invalidated, and *recover_lost* counts
 * them (where the segment's head is damaged) when the store is opened.
 *
 * THE KEY of such a tier is the owner's: a memfd, sealed against changes, that
 * some process keeps open (a supervisor, or an array of descriptors handed on)
 * and gives to whoever takes the store up.  It is on no disk: after the machine
 * was restarted only plain tiers can be read.  While a store is open it is
 * locked in RAM, if that is allowed, and left out of core dumps; in between,
 * only a system without swap keeps it off the disk for sure.  Nonces are drawn,
 * not counted, so nothing has to be remembered: one key is good for 16 TiB
 * written to all of its tiers in all of its runs (2^-33 for a repetition).
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
	 * the store (but if that is restartable), and what it held is
	 * overwritten, unless it is a tier that the store has had.
	 */
	int fd;
	/*
	 * How much of it is used, in whole MiB.  Where the limit was below 64
	 * MiB when the tier was added, each has a 64th of the limit only.
	 */
	uint64_t max_bytes;
	/* Nonzero: not encrypted, only protected against accidents. */
	int plain;
	/*
	 * Not NULL: the key, of tmem_key_create(); it stays the caller's and
	 * may be closed once the store is open (-EINVAL: it is none).  NULL:
	 * one is drawn; then the store can't be restartable (-EINVAL).
	 */
	const int *key_fd;
};

/* Tiers that a store may have; the first that has room is used. */
#define TMEM_STORE_MAX_TIERS 4u

/*
 * Gives the store a tier, before its first page is stored.  0, -EINVAL,
 * -ENOSPC (it has enough of them), -EOPNOTSUPP (a restartable store is opened
 * with its tiers), -ENOMEM (its buffers, 3.5 MiB and less if the limit is below
 * 64 MiB, do not fit under the limit), or what opening it said.
 */
TMEM_API int tmem_store_add_tier(struct tmem_store *store,
				 const struct tmem_tier_setup *setup);

/*
 * A nameless file of mode 0600 in `dir`, for O_DIRECT if the file system will
 * have it: it goes away with the last process that has it open.  A descriptor
 * (close-on-exec) or -errno.
 */
TMEM_API int tmem_tier_create(const char *dir);

/*
 * A new key for tiers: a memfd that can't be changed any more.  A descriptor
 * (close-on-exec) or -errno.
 */
TMEM_API int tmem_key_create(void);

#ifdef __cplusplus
}
#endif
#endif
