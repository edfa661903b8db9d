/* SPDX-License-Identifier: MIT */
/*
 * A swap device in a file or on a block device, which several processes of
 * one tree may share.
 *
 * The file is an array of 4 KiB slots.  Which slots are in use is known from
 * a *slot map* in shared memory (a memfd): one reference count per slot, and
 * one bitmap per user process that says which slots it refers to, so that
 * whoever reaps a killed process can drop its references.  Each process maps
 * its own offsets to slots privately: after fork(2) parent and child refer to
 * the same slots, and a slot is reused only when nobody refers to it.
 *
 * What is written is encrypted and authenticated, with a key that is drawn
 * with the map and is in RAM only: AES-256-GCM where the CPU has it, else
 * XChaCha20-Poly1305.  A page that does not read back as it was written, in
 * its place, is -EBADMSG.
 *
 * O_DIRECT where the file system allows; io_uring where the kernel allows,
 * else pread/pwrite.  No malloc: memory by mmap.  No errno: raw results.
 */
#ifndef TMEM_SWAPFILE_H
#define TMEM_SWAPFILE_H

#include <tmem/frontswap.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_swapfile;

enum {
	TMEM_SWAPFILE_MAX_USERS = 512
};

/*
 * Creates a slot map for a file of max_pages slots and max_users processes;
 * the limit is max_pages at first.  Sparse: memory is used as slots are (two
 * bytes a slot, and a bit a slot and user).  Returns a memfd (close-on-exec)
 * or a negative errno.  It holds the file's key: whoever has the descriptor
 * can read the file.
 */
TMEM_API int tmem_swapmap_create(uint64_t max_pages, unsigned max_users);
/* Pages in use by anybody, and the limit. */
TMEM_API int tmem_swapmap_usage(int map_fd, uint64_t *ret_used_pages,
				uint64_t *ret_limit_pages);
/* At most max_pages; below what is used, nothing is dropped. */
TMEM_API int tmem_swapmap_set_limit(int map_fd, uint64_t limit_pages);
/*
 * Drops every reference of a user that is dead.  A process killed within an
 * operation may leave one slot behind as used for ever, never one in use
 * twice.  Slots whose write the dead user had begun stay used, since the disk
 * may yet write them, until tmem_swapmap_trim().  0 or -errno.
 */
TMEM_API int tmem_swapmap_reap(int map_fd, unsigned user);
/*
 * Gives the file's space under free slots back to the file system.  Others
 * may go on meanwhile, but for a second trim.  Control path: call it when
 * usage has fallen far, or after many users were killed.
 * Returns the number of pages it punched out, or -errno (-EOPNOTSUPP).
 */
TMEM_API int64_t tmem_swapmap_trim(int map_fd, int file_fd);
/*
 * Walks the map's invariants while nobody uses it; aborts if one fails.
 * Returns how many references belong to no user (left by killed processes).
 */
TMEM_API int64_t tmem_swapmap_check(int map_fd);

struct tmem_swapfile_options {
	/*
	 * The descriptors are the caller's and must outlive the device; they
	 * and the ring's must be open in every process that calls it.  The
	 * file is made as long as the map says, if it is shorter; better do
	 * so before, where no RLIMIT_FSIZE is in the way.
	 */
	int file_fd;
	int map_fd;
	unsigned user;	     /* 0 .. max_users-1 of the map */
	unsigned depth;	     /* writes in flight at the most; 0: 64 */
	uint64_t nr_offsets; /* offsets are below this; costs address space
				only (4 bytes each, and 32 a slot of the
				map), touched as used */
	bool no_uring;	     /* pwrite even where io_uring is there */
	bool no_direct;	     /* leave O_DIRECT as it is */
	bool no_encrypt;     /* pages as they are: to measure, or on a disk
				that is encrypted; so in all processes */
};

/* 0 or a negative errno. */
TMEM_API int tmem_swapfile_open(const struct tmem_swapfile_options *options,
				struct tmem_swapfile **ret_file);
TMEM_API struct tmem_swapdev tmem_swapfile_device(struct tmem_swapfile *file);

/* True if io_uring is used; true if O_DIRECT is.  Either may end later. */
TMEM_API bool tmem_swapfile_is_uring(const struct tmem_swapfile *file);
TMEM_API bool tmem_swapfile_is_direct(const struct tmem_swapfile *file);
/* "AES-256-GCM", "XChaCha20-Poly1305" or "none". */
TMEM_API const char *tmem_swapfile_cipher(const struct tmem_swapfile *file);

/*
 * True if the page stored at offset has this content, by its checksum (64-bit
 * XXH3 with a random seed), without reading it; false also while it is being
 * written.
 */
TMEM_API bool tmem_swapfile_equals(struct tmem_swapfile *file, uint64_t offset,
				   const void *page);
/* Where in the file the page stored at offset is, in bytes; -1: it is not. */
TMEM_API int64_t tmem_swapfile_place(const struct tmem_swapfile *file,
				     uint64_t offset);
/* True while less than half of the limit is in use, by anybody. */
TMEM_API bool tmem_swapfile_is_roomy(const struct tmem_swapfile *file);

/*
 * fork(2).  Before: nothing may be in flight; `child_user` gets a reference
 * to every slot that this process refers to.  -EBUSY if something is in
 * flight.  Reads (tmem_swapdev_ops.read) never write to the device's memory,
 * so they may go on during a fork.
 * If the fork fails: tmem_swapmap_reap(map_fd, child_user).
 * In the child: tmem_swapfile_reopen() with the child's own descriptors of
 * the same file and map; the inherited offset table stays valid, rings are
 * made anew (the old ring's memory is not inherited, and its descriptor, if
 * it is, is left alone).  Until then only reads are possible.
 */
TMEM_API int tmem_swapfile_before_fork(struct tmem_swapfile *file,
				       unsigned child_user);
TMEM_API int tmem_swapfile_reopen(struct tmem_swapfile *file, int file_fd,
				  int map_fd, unsigned user);

TMEM_API void tmem_swapfile_for_each_mapping(const struct tmem_swapfile *file,
					     void (*fn)(void *arg, void *start,
							size_t bytes),
					     void *arg);

/* Walks every numbered invariant (src/frontends/swapfile.c); or aborts. */
TMEM_API void tmem_swapfile_check(struct tmem_swapfile *file);

#ifdef __cplusplus
}
#endif
#endif
