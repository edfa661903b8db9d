/* SPDX-License-Identifier: MIT */
/*
 * Snapshots: a client's pools as a stream of bytes, and back.
 *
 * tmem_snapshot_save() writes what the pools held at one instant, while stores
 * and everything else go on; nobody waits for it longer than for the copies of
 * a few pages.  Pages travel in their stored form.  A stream is full, or holds
 * what changed since an earlier snapshot and the names of what did not.
 *
 * tmem_snapshot_restore() makes pools of a stream, new ones, which the caller
 * is told when all of it was read and every page of it was verified; a stream
 * that is cut short, damaged, or not what its first bytes say is refused whole,
 * with the place, and nothing has changed.  An increment needs the pools that
 * the earlier snapshot was restored to, as they were then; these stay as they
 * are, and are the caller's to destroy.
 *
 * WHAT TRAVELS.  Pages, the dictionaries that they are compressed with (parts
 * of which may stem from pages of the client's that are gone), the flags of
 * pools, the client's weight.  Of a shared pool only its UUID: its pages are
 * other clients' too, and may be newer where the stream is restored, so the
 * pool is joined, or made anew and empty, as tmem_pool_create would.
 * Authorisations (tmem_client_allow()) don't travel: a stream grants nothing.
 * A pool's number is a new one.
 *
 * ENCRYPTION.  With a key the stream is encrypted and authenticated
 * (XChaCha20-Poly1305), and bound to its order and its end.  A key may serve
 * for any number of streams.
 *
 * MEMORY.  Both take about 250 KiB beside the store's limit, reading also up
 * to 64 KiB for each of at most 128 dictionaries that the store has no room
 * for, whose pages are stored without.  While a snapshot
 * is saved, pages that are replaced or dropped before it has read them stay
 * until then, within the limit: if there is no memory for that the snapshot
 * fails with -ENOMEM, not the operation.
 *
 * Threads: any.  One save at a time (-EBUSY); fork functions (tmem/store.h) not
 * while one is going on; the client must not be destroyed meanwhile.
 */
#ifndef TMEM_SNAPSHOT_H
#define TMEM_SNAPSHOT_H

#include <tmem/client.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
	TMEM_SNAPSHOT_POOLS = 256,
	TMEM_SNAPSHOT_KEY_BYTES = 32
};

struct tmem_snapshot_pool {
	uint64_t id[2];	     /* of this pool's part of the snapshot; random */
	tmem_pool_id pool;   /* here; 0 from tmem_snapshot_verify() */
	tmem_pool_id source; /* where it was saved */
	uint32_t flags;	     /* enum tmem_pool_flags, as it is here */
	uint32_t epoch;
	uint64_t uuid[2]; /* of a shared pool */
};

/*
 * What was saved or restored: to be given back as `since`.  It means something
 * to this store in this process only, and is plain data.
 */
struct tmem_snapshot {
	uint64_t store;
	uint64_t pages;	       /* whose data travelled */
	uint64_t kept_pages;   /* of which only the name did */
	uint64_t data_bytes;   /* of the pages, in their stored form */
	uint64_t stream_bytes; /* all of it */
	uint32_t weight;       /* the client's; 0: one pool was saved */
	uint32_t nr_pools;
	struct tmem_snapshot_pool pools[TMEM_SNAPSHOT_POOLS];
};

/* All zeroes: a full snapshot of all pools, not encrypted. */
struct tmem_snapshot_options {
	/* save: this pool alone; 0: all pools of the client. */
	tmem_pool_id pool;
	/* Nonzero: restore sets the client's weight to the stream's. */
	int set_weight;
	/*
	 * save: only what changed since then, of pools that are in it.
	 * restore: what an increment is based on.
	 */
	const struct tmem_snapshot *since;
	/* TMEM_SNAPSHOT_KEY_BYTES, or NULL. */
	const void *key;
};

/*
 * Where the bytes go, come from.  Some were written or read (how many), or a
 * negative errno; read: 0 at the end.  Called from within save and restore,
 * without a lock of the store; may block.
 */
struct tmem_snapshot_sink {
	int64_t (*write)(void *arg, const void *bytes, size_t nr_bytes);
	void *arg;
};

struct tmem_snapshot_source {
	int64_t (*read)(void *arg, void *ret_bytes, size_t nr_bytes);
	void *arg;
};

/* Of a file descriptor; arg points to it (an int). */
TMEM_API int64_t tmem_snapshot_write_fd(void *arg, const void *bytes,
					size_t nr_bytes);
TMEM_API int64_t tmem_snapshot_read_fd(void *arg, void *ret_bytes,
				       size_t nr_bytes);

/* Why a stream was refused, and where: the offset of the block, in bytes. */
struct tmem_snapshot_fault {
	uint64_t offset;
	const char *why; /* a constant */
};

/*
 * 0.  -ENOENT: no such pool of this client; -EINVAL: `pool` is a shared one;
 * -EBUSY: one is being saved; -ESTALE: `since` is not of this store;
 * -ENOMEM; -EIO: a stored page is damaged, or its tier can't be read;
 * -EOVERFLOW: 2^24 snapshots were taken; or what write said.
 * What was written is of no use then, and the store is as it was.
 */
TMEM_API int tmem_snapshot_save(struct tmem_client *client,
				const struct tmem_snapshot_options *options,
				const struct tmem_snapshot_sink *sink,
				struct tmem_snapshot *ret_snapshot);

/*
 * 0, and the pools.  Else nothing has changed (but that ephemeral pages may
 * have made room) and, of a fault of the stream, *ret_fault says more:
 * -EBADMSG: damaged or cut short, or the key is another; -EOPNOTSUPP: a
 * version, feature or form that this library does not know; -ENOKEY: it is
 * encrypted, and there is no key; -EKEYREJECTED: there is one, and it is not
 * encrypted; -ESTALE: an increment, and `since` is not what it is based on, or
 * its pools have changed.  Others: -ENOMEM, -ENOSPC (pools), or what read
 * said.  Reads not a byte beyond the stream's end.
 */
TMEM_API int tmem_snapshot_restore(struct tmem_client *client,
				   const struct tmem_snapshot_options *options,
				   const struct tmem_snapshot_source *source,
				   struct tmem_snapshot *ret_snapshot,
				   struct tmem_snapshot_fault *ret_fault);

/*
 * Reads a stream and verifies it, every page of it, and restores nothing.
 * Of the options only the key counts.  The same faults.
 */
TMEM_API int tmem_snapshot_verify(const struct tmem_snapshot_options *options,
				  const struct tmem_snapshot_source *source,
				  struct tmem_snapshot *ret_snapshot,
				  struct tmem_snapshot_fault *ret_fault);

#ifdef __cplusplus
}
#endif
#endif
