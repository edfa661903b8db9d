/* SPDX-License-Identifier: MIT */
/*
 * frontswap: pages of a swap area, first offered to tmem, else to a device.
 *
 * A *type* names a swap area, an *offset* a page in it.  One bit a page says
 * whether tmem or the device has it.  A store is offered to tmem; if refused,
 * it goes to the device at the same offset.  A refused store over an old page
 * invalidates the old page first: THE PROMISE of tmem/tmem.h holds for the
 * pair of tmem and device as one.
 *
 * Threads: any, but operations on one (type, offset) are serialised by the
 * caller, as the kernel's swap cache did.
 */
#ifndef TMEM_FRONTSWAP_H
#define TMEM_FRONTSWAP_H

#include <stdbool.h>
#include <tmem/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_frontswap;

/* One page on its way to a device. */
struct tmem_swapdev_request {
	uint64_t offset; /* page number on the device */
	void *page;	 /* TMEM_PAGE_SIZE bytes, 4 KiB aligned; stays the
			    caller's, and unchanged, until done() */
	/* Called once, from tmem_swapdev_ops.reap(). */
	void (*done)(struct tmem_swapdev_request *request, int result);
	void *arg; /* the caller's own */
	/* The device's own while in flight. */
	struct tmem_swapdev_request *next;
	/* The front end's own while in flight. */
	struct tmem_frontswap *front;
	void (*front_done)(struct tmem_swapdev_request *request, int result);
	uint32_t front_type;
};

/* One page of several that are read at once. */
struct tmem_swapdev_read {
	uint64_t offset;
	void *page; /* 4 KiB aligned; what is in it counts only with 0 */
	int result; /* as of a read of this page alone */
};

/*
 * A real swap device.  Offsets belong to whoever opened the device; what it
 * does with them is its business.  Operations on one offset are serialised by
 * the caller, but for a write in flight: read and discard of its page, and
 * the next write of it, may come before done().
 *  - write: queues one page; done() comes with 0, -ENOSPC (full: nothing was
 *    written), -EIO or another errno; never called from within write().
 *    Returns 0, or -EAGAIN when the queue is full (reap first: nothing was
 *    changed), or -ENOSPC, or -EINVAL (no such offset).  Whatever the offset
 *    held before is gone, but for -EAGAIN and -EINVAL.
 *  - flush: hands queued writes to the kernel.  Without io_uring it blocks
 *    while they are written.
 *  - reap: calls done() for what has finished; with `wait`, flushes and
 *    blocks until at least one has, if any is in flight.  Returns how many
 *    done() it called: 0 also if another thread's reap was faster.  done()
 *    may call write and read, not flush or reap.
 *  - read: one page, synchronously, without waiting for anybody's write; a
 *    page whose write is in flight is answered from the request.  0 or a
 *    negative errno; `page`, of any alignment, is written only with 0.
 *    Nothing there: -ENODATA.  Damaged: -EBADMSG.  Takes no lock; writes
 *    to the device's memory only if a write of that page is in flight.
 *  - read_many: the same for several pages; those that lie in a row on the
 *    device are read in one go.  Results in each element.
 *  - discard: these pages are needed no more; their space may be reused.
 *  - used_pages: pages that this device holds now, in flight included.
 *  - close: waits for what is in flight, then forgets all pages.
 */
struct tmem_swapdev_ops {
	const char *name;
	int (*write)(void *dev, struct tmem_swapdev_request *request);
	void (*flush)(void *dev);
	int (*reap)(void *dev, bool wait);
	int (*read)(void *dev, uint64_t offset, void *page);
	void (*read_many)(void *dev, struct tmem_swapdev_read *reads,
			  unsigned nr);
	void (*discard)(void *dev, uint64_t offset, uint64_t nr_pages);
	uint64_t (*used_pages)(void *dev);
	void (*close)(void *dev);
};

struct tmem_swapdev {
	const struct tmem_swapdev_ops *ops;
	void *self;
};

enum {
	TMEM_FRONTSWAP_MAX_TYPES = 32
};

struct tmem_frontswap_stats {
	/* The four classic ones. */
	uint64_t loads;
	uint64_t succ_stores;
	uint64_t failed_stores;
	uint64_t invalidates;
	/* One per cause. */
	uint64_t device_writes;
	uint64_t device_reads;
	uint64_t device_full;	  /* writes that the device had no room for */
	uint64_t device_errors;	  /* writes that failed otherwise */
	uint64_t lost_pages;	  /* loads that neither could answer */
	uint64_t writethroughs;	  /* stored and written too */
	uint64_t exclusive_loads; /* loads that also invalidated */
	uint64_t shrunk_pages;	  /* brought back by shrink */
	uint64_t curr_pages;	  /* in tmem now */
};

struct tmem_frontswap_options {
	struct tmem_backend backend;
	bool writethrough; /* store in tmem *and* write to the device */
	bool exclusive;	   /* a load from tmem also invalidates it there */
};

/*
 * One pool for all types.  0 or a negative errno.  Memory by mmap.  The
 * backend and the devices stay the caller's, and must outlive it.
 */
TMEM_API int tmem_frontswap_open(const struct tmem_frontswap_options *options,
				 struct tmem_frontswap **ret_fs);
TMEM_API void tmem_frontswap_close(struct tmem_frontswap *fs);

/*
 * Adds a swap area of nr_pages (bitmap memory is reserved, touched as used)
 * on `device`; device.ops NULL: tmem only, a refused store is -ENOSPC.
 * -EBUSY, -EINVAL, -ENOMEM.
 */
TMEM_API int tmem_frontswap_init(struct tmem_frontswap *fs, unsigned type,
				 uint64_t nr_pages, struct tmem_swapdev device);

/*
 * Offers one page to tmem only.  0, or TMEM_REFUSED: then the page is in
 * neither place, and tmem_frontswap_write() may follow.  Whatever the device
 * held at that offset is discarded.  With writethrough always TMEM_REFUSED,
 * so that the caller writes; tmem_frontswap_test() tells.
 */
TMEM_API int tmem_frontswap_store(struct tmem_frontswap *fs, unsigned type,
				  uint64_t offset, const void *page);

/*
 * Queues a refused page for the device: request->offset, page, done, arg set
 * by the caller.  The results of tmem_swapdev_ops.write (-ENOSPC too if the
 * type has no device).  done() is called from tmem_frontswap_reap(); its
 * result is 0 also when the device failed but tmem has the page
 * (writethrough).
 */
TMEM_API int tmem_frontswap_write(struct tmem_frontswap *fs, unsigned type,
				  struct tmem_swapdev_request *request);
TMEM_API void tmem_frontswap_flush(struct tmem_frontswap *fs, unsigned type);
TMEM_API int tmem_frontswap_reap(struct tmem_frontswap *fs, unsigned type,
				 bool wait);

/*
 * Store-or-write, synchronously: tmem, else the device.  0, -ENOSPC, -EIO…
 * On error the page is nowhere: a load says lost.
 */
TMEM_API int tmem_frontswap_swap_out(struct tmem_frontswap *fs, unsigned type,
				     uint64_t offset, const void *page);

/*
 * Load-or-read.  0, or a negative errno: the page is lost (-EIO, -ENODATA,
 * -EBADMSG: damaged on the device).
 * `page` is written only on success.  Safe beside tmem_frontswap_shrink().
 */
TMEM_API int tmem_frontswap_swap_in(struct tmem_frontswap *fs, unsigned type,
				    uint64_t offset, void *page);

/*
 * The same for several pages; tmem is asked for all of them at once, and so is
 * the device for those that tmem does not have.  Results in each element.
 */
TMEM_API void tmem_frontswap_swap_in_many(struct tmem_frontswap *fs,
					  unsigned type,
					  struct tmem_swapdev_read *reads,
					  unsigned nr);

/* True if tmem has it.  Never blocks. */
TMEM_API bool tmem_frontswap_test(struct tmem_frontswap *fs, unsigned type,
				  uint64_t offset);

/* The page is needed no more, in either place. */
TMEM_API void tmem_frontswap_invalidate_page(struct tmem_frontswap *fs,
					     unsigned type, uint64_t offset);
/* The whole area is needed no more (swapoff); the type is free again. */
TMEM_API void tmem_frontswap_invalidate_area(struct tmem_frontswap *fs,
					     unsigned type);

/*
 * Moves up to nr_pages from tmem to the device (what "partial swapoff" did:
 * the pages come back from tmem; their place is then the device).  Returns
 * how many, or a negative errno if none could be: -EBUSY if another thread
 * is shrinking, -ENOSPC, -EIO.  Other operations may go on meanwhile, on any
 * page.
 */
TMEM_API int64_t tmem_frontswap_shrink(struct tmem_frontswap *fs,
				       uint64_t nr_pages);

TMEM_API void tmem_frontswap_get_stats(struct tmem_frontswap *fs,
				       struct tmem_frontswap_stats *ret_stats);

/*
 * fork(2): same meaning as in tmem/store.h, for the front end itself: between
 * the two only swap_in and test may be called, and they write nothing to the
 * front end's memory (no counter, and an exclusive load leaves its page).
 * The backend and the device are told separately.
 */
TMEM_API void tmem_frontswap_before_fork(struct tmem_frontswap *fs);
TMEM_API void tmem_frontswap_after_fork(struct tmem_frontswap *fs);
/* In the child: the device under `type` is another one from now on. */
TMEM_API void tmem_frontswap_set_device(struct tmem_frontswap *fs,
					unsigned type,
					struct tmem_swapdev device);

TMEM_API void tmem_frontswap_for_each_mapping(const struct tmem_frontswap *fs,
					      void (*fn)(void *arg, void *start,
							 size_t bytes),
					      void *arg);

/*
 * Walks every numbered invariant (src/frontends/frontswap.c); aborts if one
 * fails.  Nothing else may run.
 */
TMEM_API void tmem_frontswap_check(struct tmem_frontswap *fs);

#ifdef __cplusplus
}
#endif
#endif
