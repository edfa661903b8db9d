/* SPDX-License-Identifier: MIT */
/*
 * cleancache: a second chance for clean pages of files.
 *
 * Whoever caches pages of files offers a clean page here when it must drop it
 * (store), and asks here before it reads a page from disk (load).  The pages
 * of a *file system* are in an ephemeral pool of the backend: they may vanish
 * at any moment.  A load takes a page away, for it is in the caller's cache
 * from then on, unless the file system is shared: then it stays for others.
 *
 * THE PROMISE: a page that is found is the one stored last for that file and
 * index and not invalidated since; never an older one, never another file's.
 * A store that is refused leaves a miss, and after a miss every load misses
 * until the next store.
 *
 * THE CALLER'S PART:
 *  - Only what is the same as on disk is stored.
 *  - A page is invalidated before it changes on disk, however it changes:
 *    written back, written around the cache, truncated, discarded.  A file is
 *    invalidated before its name (inode number, handle) may mean another one,
 *    a file system before it changes while nobody watches: at the unmount.
 *  - Operations on one page are serialised, as the kernel's page lock did;
 *    else a late store may bring back what was just invalidated.
 *
 * FAULTS.  No error of the backend ever reaches who reads: a load that fails
 * is a miss.  What it may have left behind is invalidated; so is the page of
 * a store that fails.  An invalidation that fails is another matter, for the
 * backend may still have a page that is no longer true.  It disables the file
 * system for good: loads miss and stores are refused until it is ended and
 * begun anew, on a new pool.  For a private one that is all, and the result
 * may be ignored.  The other users of a shared one cannot be told from here:
 * who gets an error must keep the page as it is on disk until they have ended
 * that file system too.
 *
 * Threads: any, but for open, close and check.  Store, load and invalidate
 * never call malloc and take no lock of their own; ending a file system waits
 * for what is in flight on it.
 */
#ifndef TMEM_CLEANCACHE_H
#define TMEM_CLEANCACHE_H

#include <tmem/backend.h>
#include <tmem/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_cleancache;

/* A file system's number.  Never 0, and never used again. */
typedef uint64_t tmem_cleancache_fs;

enum {
	TMEM_CLEANCACHE_MAX_FS = 64,
	TMEM_CLEANCACHE_MAX_HANDLE = 6 /* words */
};

/* A file within its file system: made by one of the two functions below. */
struct tmem_cleancache_file {
	struct tmem_object_id object;
};

/*
 * One page of a vector.  `page` points to TMEM_PAGE_SIZE bytes of any
 * alignment, read by store, written by load, unused by invalidate.
 */
struct tmem_cleancache_io {
	struct tmem_cleancache_file file;
	uint64_t index; /* of the page in the file; beyond 32 bits: ignored */
	void *page;
	int32_t result;
};

struct tmem_cleancache_stats {
#define COUNTER(name, unit, text) uint64_t name;
#include <tmem/cleancache.def>
#undef COUNTER
};

/* 0 or -ENOMEM.  Memory by mmap.  The backend must outlive it. */
TMEM_API int tmem_cleancache_open(struct tmem_backend backend,
				  struct tmem_cleancache **ret_cc);
/* Ends every file system.  NULL is accepted. */
TMEM_API void tmem_cleancache_close(struct tmem_cleancache *cc);

/*
 * A file by its inode number; by its file handle, where inode numbers are not
 * enough.  All these differ, handles of different length too.  A handle of no
 * word, of more than six, or of six that end in one of three reserved values
 * (src/frontends/cleancache.c) cannot be named: operations on that file are
 * ignored, so it is not cached.
 */
TMEM_API struct tmem_cleancache_file tmem_cleancache_inode(uint64_t inode);
TMEM_API struct tmem_cleancache_file
tmem_cleancache_handle(const uint32_t *words, unsigned nr_words);

/*
 * Begins a file system, with a pool of its own, or with the one that all who
 * know its UUID share; pages of 4096 bytes only.  0, or TMEM_PRIVATE: begun,
 * but not shared, so what others invalidate is still found here.  -EINVAL
 * (page_bytes), -ENOSPC (too many), -ENOMEM, or the backend's error.
 */
TMEM_API int tmem_cleancache_init_fs(struct tmem_cleancache *cc,
				     size_t page_bytes,
				     tmem_cleancache_fs *ret_fs);
TMEM_API int tmem_cleancache_init_shared_fs(struct tmem_cleancache *cc,
					    const uint64_t uuid[2],
					    size_t page_bytes,
					    tmem_cleancache_fs *ret_fs);

/*
 * Offers pages that the caller is about to drop.  result: 0 or TMEM_REFUSED;
 * nothing depends on it.  An older page of that name is gone either way.
 */
TMEM_API void tmem_cleancache_store(struct tmem_cleancache *cc,
				    tmem_cleancache_fs fs,
				    struct tmem_cleancache_io *io, unsigned nr);

/* result: 0, or TMEM_MISS: read it from disk.  A page is written only with 0.
 */
TMEM_API void tmem_cleancache_load(struct tmem_cleancache *cc,
				   tmem_cleancache_fs fs,
				   struct tmem_cleancache_io *io, unsigned nr);

/*
 * These pages are not found any more.  result: 0 if it was there, TMEM_MISS,
 * or a negative errno.  Returns 0, or the last of these: see FAULTS.
 */
TMEM_API int tmem_cleancache_invalidate_pages(struct tmem_cleancache *cc,
					      tmem_cleancache_fs fs,
					      struct tmem_cleancache_io *io,
					      unsigned nr);
/* All pages of the file.  0, or a negative errno: see FAULTS. */
TMEM_API int tmem_cleancache_invalidate_inode(struct tmem_cleancache *cc,
					      tmem_cleancache_fs fs,
					      struct tmem_cleancache_file file);
/*
 * Ends the file system: its pool is destroyed, a shared one left.  Its number
 * means nothing from then on: stores are refused, loads miss, the rest is
 * ignored.  0, or the backend's error: then it is still there, disabled, and
 * this may be tried again.
 */
TMEM_API int tmem_cleancache_invalidate_fs(struct tmem_cleancache *cc,
					   tmem_cleancache_fs fs);

TMEM_API void
tmem_cleancache_get_stats(struct tmem_cleancache *cc,
			  struct tmem_cleancache_stats *ret_stats);
/* One line for each of these; an entry with a NULL name ends it. */
TMEM_API const struct tmem_counter *tmem_cleancache_stats_table(void);

/*
 * Walks every numbered invariant (src/frontends/cleancache.c); aborts if one
 * fails.  Nothing else may run.
 */
TMEM_API void tmem_cleancache_check(struct tmem_cleancache *cc);

#ifdef __cplusplus
}
#endif
#endif
