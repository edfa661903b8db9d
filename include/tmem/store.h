/* SPDX-License-Identifier: MIT */
/*
 * The local page store: compressed pages in this process's own memory.
 *
 * A store has a hard limit in bytes that covers everything: stored data,
 * metadata, index and scratch.  Pools are persistent: a page once accepted
 * stays until it is invalidated, replaced, or its pool is destroyed.
 *
 * Threads: every function may be called from any thread, except open, close
 * and the two fork functions.  Memory comes from mmap; store, load and
 * invalidate never call malloc, so the store may run where no malloc is
 * allowed (the pager does).
 */
#ifndef TMEM_STORE_H
#define TMEM_STORE_H

#include <tmem/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_store;
struct tmem_tier_setup;

struct tmem_store_options {
	/* Hard limit in bytes for everything; at least TMEM_STORE_MIN_BYTES. */
	uint64_t limit_bytes;
	/*
	 * Largest limit that tmem_store_set_limit() may later ask for; 0: the
	 * same as limit_bytes.  Costs address space only, not memory.
	 */
	uint64_t max_limit_bytes;
	/*
	 * Nonzero: a page that does not compress is always refused.  0: it is
	 * stored as it is while the store is at most half full, which serves
	 * callers whose other place is slow or missing.
	 */
	int no_raw;
	/*
	 * Nonzero: a page that was neither stored nor loaded for so long gets a
	 * form that is smaller and slower to read (zstd), by
	 * tmem_store_maintain().  Takes about 350 KiB of the limit once there
	 * are such pages.
	 */
	uint64_t cool_after_ns;
	/*
	 * Not NULL: a *restartable* store, see below; the descriptor of a memfd
	 * or regular file, open for reading and writing.  It stays the
	 * caller's, and may be closed once the store is open.
	 */
	const int *arena_fd;
	/*
	 * Nonzero: at such intervals tmem_store_maintain() looks what the pages
	 * of a private pool have in common.  Where a dictionary of that saves
	 * enough, pages are compressed with it: cold ones by zstd, others by
	 * LZ4, which then takes twice the time to store and a fifth more to
	 * load.  Takes 33 to 300 KiB of the limit for each pool that has one
	 * (17 to 34 more in a restartable store), and 3 MiB for a moment.
	 */
	uint64_t dict_every_ns;
	/*
	 * Cooling and dictionaries take at most so many percent of one CPU,
	 * over some seconds; 0: as much as tmem_store_maintain() is given.
	 */
	unsigned maintain_percent;
	/* Nonzero: equal pages are not looked for. */
	int no_dedup;
	/*
	 * Tiers that it is opened with, and how many (tmem/tiers.h).  For a
	 * restartable store that is how it gets them, the same ones in the same
	 * order each time.
	 */
	const struct tmem_tier_setup *tiers;
	unsigned nr_tiers;
	/*
	 * Nonzero: a restartable store is opened even if a tier that it had is
	 * missing, is another one, or is not opened by the key.  Pages in it
	 * are *lost*: their loads are -EIO until they are replaced or
	 * invalidated.  The tier is that of what was given from then on.
	 */
	int give_up_tiers;
};

#define TMEM_STORE_MIN_BYTES (1u << 20)

/*
 * A RESTARTABLE STORE has its pages in a file (of any name, or a memfd that
 * another process keeps), so that another process can go on with them when
 * this one has ended, or was killed at whatever instruction: an empty file
 * gets an arena, a file that has one is *recovered*.  Then
 *
 *  - every page whose store was answered is there, and none that was replaced,
 *    invalidated or (from a private ephemeral pool) loaded; an operation that
 *    was in flight is done or not;
 *  - clients and pools are there, with their numbers (tmem/client.h);
 *    ephemeral pages too, the order in which they go begins anew;
 *  - pools have their dictionaries, whatever dict_every_ns is now;
 *  - what is found damaged is dropped, and counted;
 *  - pages in a tier are there, if the tier and its key are (tmem/tiers.h).
 *
 * What is there is taken whatever the limit: as if it had been lowered.  The
 * price: a replacement takes a new slot, objects take one each, and a page of
 * new memory costs a system call more.  No fork: before_fork asserts, and in a
 * child of fork(2) the store must not be used.  /proc must be mounted.
 *
 * The file is this store's alone; what is in it is checked, but not that it
 * changes meanwhile.  On a disk it survives the machine's restart only if the
 * store was closed.
 */

/*
 * 0, -EINVAL (limit too small) or -ENOMEM.  Of a restartable store also, with
 * nothing changed: -EBUSY: another store has the file; -EBADMSG: something else
 * is in it, its head is damaged or its end missing; -EPROTONOSUPPORT: it is of
 * another version;
 * -ESTALE: the machine was restarted without it having been closed; -EINVAL: no
 * regular file; or the error of a system call (-EOPNOTSUPP: the file system has
 * no holes).  Of tiers: what opening one said, -ENOMEM if its buffers do not
 * fit under the limit, and for a restartable store those in tmem/tiers.h.
 */
TMEM_API int tmem_store_open(const struct tmem_store_options *options,
			     struct tmem_store **ret_store);
/* Frees everything but a restartable store's file.  NULL is accepted. */
TMEM_API void tmem_store_close(struct tmem_store *store);

/*
 * Changes the limit.  Below what is held, no page is dropped: stores are
 * refused until enough was invalidated, or moved to a tier (tmem/tiers.h).  0
 * or -EINVAL.
 */
TMEM_API int tmem_store_set_limit(struct tmem_store *store,
				  uint64_t limit_bytes);

/* Bytes of memory held now, all of it: data, metadata, index, scratch. */
TMEM_API uint64_t tmem_store_held_bytes(const struct tmem_store *store);

/*
 * Background work, for about budget_ns: memory that is only partly used goes
 * back to the kernel, cold pages are recompressed, or moved to a tier.  Nobody
 * waits longer for it than for the copy of sixteen pages.  To be called now and
 * then, from any thread, when there is time.  1 if there is more to do now,
 * else 0.
 */
TMEM_API int tmem_store_maintain(struct tmem_store *store, uint64_t budget_ns);

/* This store as a backend; valid until tmem_store_close(). */
TMEM_API struct tmem_backend tmem_store_backend(struct tmem_store *store);

/*
 * fork(2): the child gets its own copy of the store, copy-on-write, at no
 * cost until one of the two writes.  To keep it so, spans that exist at the
 * time of the fork are *frozen* in both processes: nothing is allocated in
 * them and nothing is written to them (frees are noted outside; memory whose
 * pages are all free is given back), until tmem_store_thaw().
 *
 * before_fork: waits until no operation is in flight.  From then until
 * after_fork the store is *read-only*: loads work (but for pages in a tier:
 * these wait until after_fork), from any thread, take no
 * lock and write nothing to the store's memory (not even a counter), so that
 * the child's copy is whole at whatever moment the kernel takes it (they are
 * counted in a page of its own that fork wipes: after_fork waits for them);
 * store,
 * invalidate and pool operations must not be called.  after_fork ends that,
 * in the parent and in the child; with freeze 0 (the fork failed) nothing is
 * frozen.
 */
TMEM_API void tmem_store_before_fork(struct tmem_store *store);
TMEM_API void tmem_store_after_fork(struct tmem_store *store, int freeze);
/* The other process is gone: frozen spans may be written again. */
TMEM_API void tmem_store_thaw(struct tmem_store *store);

/*
 * The memory the store has mapped, for who must tell it from the program's
 * own: calls fn(arg, start, bytes) for each mapping.
 */
TMEM_API void tmem_store_for_each_mapping(struct tmem_store *store,
					  void (*fn)(void *arg, void *start,
						     size_t bytes),
					  void *arg);

/* Walks every numbered invariant; aborts with its number if one fails. */
TMEM_API void tmem_store_check(struct tmem_store *store);

#ifdef __cplusplus
}
#endif
#endif
