/* SPDX-License-Identifier: MIT */
/*
 * The swap device in a file: offsets to slots, writes in flight, reads.
 *
 * `where` has a word per offset: 0, or slot + 1, or IN_FLIGHT with the number
 * of an entry.  `slots` has for each slot that this process refers to the
 * page's checksum, the number of its write and its tag.  They are private: a
 * read proves that the disk gave back what it was given; fork copies them, as
 * it does `where`; and a process that is killed between its write and its
 * note of it leaves nothing to anybody, as nobody else refers to that slot.
 *
 * ENCRYPTION.  Flush seals each page into the entry's page of `sealed`, once,
 * whatever is tried again later.  The key is the map's, the same in the whole
 * tree; the nonce is a number that the map gives out once; the slot is
 * authenticated with it.  So a page reads only as this write of it, from this
 * slot.  The checksum, seeded at random, is for tmem_swapfile_equals() only,
 * or, without encryption, stands in for the tag.
 *
 * Writes: an *entry* per page, in a ring of `depth`.  Entries are filled at
 * head, and from `queued` on they wait to be handed to the kernel; entries
 * in a row whose slots are in a row go as one vectored write.  Without
 * io_uring flush writes them itself, outside the lock.  Life of an entry:
 *
 *	FREE -> QUEUED (write) -> WRITING (flush) -> [DONE (by pwrite)]
 *	-> FREE (reap, which then calls done())
 *
 * One thread at a time *collects*; others that must wait do so for it, since
 * two waiters in the kernel could wait for the same completion.  A page that
 * is discarded or written again while in flight only marks its entry: the
 * slot is the kernel's until the write ends.
 *
 * Reads take no lock.  A reader of an entry's page announces itself in
 * `readers`, looks again whether the page is still in flight, and copies;
 * reap first takes the page out of flight, then waits for readers to leave,
 * then calls done().  Nothing is in flight around a fork, so reads then write
 * to no memory of ours.
 *
 * Invariants:
 *  S1 A page at rest is in a slot that this user refers to; one in flight
 *     has an entry of its offset that is not FREE and not discarded.
 *  S2 `held` is the number of offsets that are not 0.
 *  S3 The slots referred to are as many as pages at rest and entries not
 *     FREE: so no slot has two pages.
 *  S4 `in_flight` is the number of entries that are not FREE.
 *  S5 No offset at or above `end` is in use.
 */
#include "frontends/swapfile_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/assert.h"
#include "base/chaos.h"
#include "base/sys.h"

enum {
	DEFAULT_DEPTH = 64,
	MAX_DEPTH = 4096,
	MAX_RUN = 256, /* pages in one write: 1 MiB */
	MAX_ROW = 16   /* in one read */
};

static size_t where_bytes(const struct tmem_swapfile *f)
{
	return f->nr_offsets * sizeof(*f->where);
}

static size_t slots_bytes(const struct tmem_swapfile *f)
{
	return f->map.capacity * sizeof(*f->slots);
}

static size_t sealed_bytes(const struct tmem_swapfile *f)
{
	return (size_t)f->depth * TMEM_PAGE_SIZE;
}

/* Reading */

/* True if the page was in flight and is copied; else *where is anew. */
static bool read_in_flight(struct tmem_swapfile *f, uint64_t offset,
			   uint32_t *where, void *page)
{
	struct tmem_swapfile_entry *e =
		&f->entries[*where & ~TMEM_SWAPFILE_IN_FLIGHT];
	uint32_t now;

	e->readers++;
	now = f->where[offset];
	if (now == *where)
		memcpy(page, e->request->page, TMEM_PAGE_SIZE);
	e->readers--;
	if (now == *where)
		return true;
	*where = now;
	return false;
}

/* What was read is made the page that was written there, or -EBADMSG. */
static int open_page(const struct tmem_swapfile *f, uint32_t slot, void *page)
{
	const struct tmem_swapfile_slot *s = &f->slots[slot];
	struct tmem_seal_text text;

	if (tmem_chaos_picks(TMEM_CHAOS_DAMAGE, s->number))
		memset(page, 0, sizeof(text));
	if (!f->seal)
		return tmem_swapfile_sum(f, page) == s->sum ? 0 : -EBADMSG;
	text = tmem_swapfile_text(s->number, &slot, page, page);
	return tmem_seal_decrypt(f->seal, &text, s->tag) == 0 ? 0 : -EBADMSG;
}

static int swapfile_read(void *dev, uint64_t offset, void *page)
{
	_Alignas(TMEM_PAGE_SIZE) char buffer[TMEM_PAGE_SIZE];
	struct tmem_swapfile *f = dev;
	uint32_t w;
	long r;

	if (offset >= f->nr_offsets)
		return -EINVAL;
	w = f->where[offset];
	if (w & TMEM_SWAPFILE_IN_FLIGHT && read_in_flight(f, offset, &w, page))
		return 0;
	if (w == 0)
		return -ENODATA;
	do {
		r = tmem_sys(SYS_pread64, f->file_fd, buffer, sizeof(buffer),
			     (uint64_t)(w - 1) * TMEM_PAGE_SIZE);
	} while (r == -EINTR);
	if (tmem_chaos_picks(TMEM_CHAOS_READ, f->slots[w - 1].number))
		r = -EIO;
	if (r < 0)
		return (int)r;
	if (r != (long)sizeof(buffer))
		return -EIO;
	r = open_page(f, w - 1, buffer);
	if (r < 0)
		return (int)r;
	memcpy(page, buffer, sizeof(buffer));
	return 0;
}

/* Slots in a row from `slot` on; false: none of it was read. */
static bool read_row(struct tmem_swapfile *f, uint32_t slot,
		     struct tmem_swapdev_read *reads, unsigned nr)
{
	struct iovec iov[MAX_ROW];
	unsigned i;
	long r;

	if (tmem_chaos_hits(TMEM_CHAOS_SHORT) ||
	    tmem_chaos_hits(TMEM_CHAOS_READ))
		return false;
	for (i = 0; i < nr; i++)
		iov[i] = (struct iovec){ reads[i].page, TMEM_PAGE_SIZE };
	do {
		r = tmem_sys(SYS_preadv, f->file_fd, iov, nr,
			     (uint64_t)slot * TMEM_PAGE_SIZE, 0);
	} while (r == -EINTR);
	if (r != (long)nr * TMEM_PAGE_SIZE)
		return false;
	for (i = 0; i < nr; i++)
		reads[i].result = open_page(f, slot + i, reads[i].page);
	return true;
}

/* The slot of a page at rest, + 1; 0: it is none. */
static uint32_t resting_slot(const struct tmem_swapfile *f, uint64_t offset)
{
	uint32_t w = offset < f->nr_offsets ? f->where[offset] : 0;

	return w & TMEM_SWAPFILE_IN_FLIGHT ? 0 : w;
}

static void swapfile_read_many(void *dev, struct tmem_swapdev_read *reads,
			       unsigned nr)
{
	struct tmem_swapfile *f = dev;
	unsigned i, row;
	uint32_t w;

	for (i = 0; i < nr; i += row) {
		w = resting_slot(f, reads[i].offset);
		row = 1;
		while (w && i + row < nr && row < MAX_ROW &&
		       resting_slot(f, reads[i + row].offset) == w + row)
			row++;
		if (row > 1 && read_row(f, w - 1, &reads[i], row))
			continue;
		row = 1;
		reads[i].result =
			swapfile_read(f, reads[i].offset, reads[i].page);
	}
}

bool tmem_swapfile_equals(struct tmem_swapfile *f, uint64_t offset,
			  const void *page)
{
	uint32_t w = offset < f->nr_offsets ? f->where[offset] : 0;

	return w && !(w & TMEM_SWAPFILE_IN_FLIGHT) &&
	       tmem_swapfile_sum(f, page) == f->slots[w - 1].sum;
}

int64_t tmem_swapfile_place(const struct tmem_swapfile *f, uint64_t offset)
{
	uint32_t w = resting_slot(f, offset);

	return w ? (int64_t)(w - 1) * TMEM_PAGE_SIZE : -1;
}

bool tmem_swapfile_is_roomy(const struct tmem_swapfile *f)
{
	return tmem_swapmap_is_roomy(&f->map);
}

static uint64_t swapfile_used_pages(void *dev)
{
	struct tmem_swapfile *f = dev;

	return f->held;
}

/* Opening, forking, closing */

static void set_up_direct(struct tmem_swapfile *f)
{
	_Alignas(TMEM_PAGE_SIZE) char buffer[TMEM_PAGE_SIZE];
	long flags = tmem_sys(SYS_fcntl, f->file_fd, F_GETFL);

	if (flags < 0)
		return;
	f->direct = (flags & O_DIRECT) != 0;
	if (f->direct)
		return;
	if (tmem_sys(SYS_fcntl, f->file_fd, F_SETFL, flags | O_DIRECT) < 0)
		return;
	f->direct = true;
	if (tmem_sys(SYS_pread64, f->file_fd, buffer, sizeof(buffer), 0) < 0)
		tmem_swapfile_leave_direct(f);
}

/* The file is made as long as the map says; a device must be. */
static int set_size(int fd, uint64_t bytes)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	struct stat st = { 0 };
	uint64_t size;
	long r = tmem_sys(SYS_fstat, fd, &st);

	if (r < 0)
		return (int)r;
	if (S_ISBLK(st.st_mode)) {
		r = tmem_sys(SYS_ioctl, fd, BLKGETSIZE64, &size);
		if (r < 0)
			return (int)r;
		return size < bytes ? -EINVAL : 0;
	}
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((uint64_t)st.st_size >= bytes)
		return 0;
	/* Past the limit the kernel would send SIGXFSZ. */
	tmem_sys(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit);
	if (limit.rlim_cur < bytes)
		return 0;
	return (int)tmem_sys(SYS_ftruncate, fd, bytes);
}

static void unmap_all(struct tmem_swapfile *f)
{
	if (f->where)
		tmem_sys_unmap((void *)f->where, where_bytes(f));
	if (f->slots)
		tmem_sys_unmap(f->slots, slots_bytes(f));
	if (f->sealed)
		tmem_sys_unmap(f->sealed, sealed_bytes(f));
	tmem_seal_destroy(f->seal);
	if (f->map.header)
		tmem_swapmap_close(&f->map);
	tmem_sys_unmap(f, f->self_bytes);
}

/* Sparse: huge pages would make them dense. */
static void *map_sparse(size_t bytes)
{
	void *start = tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);

	if (start)
		tmem_sys_madvise(start, bytes, MADV_NOHUGEPAGE);
	return start;
}

static unsigned round_depth(unsigned depth)
{
	unsigned pow2 = 1;

	if (depth == 0)
		depth = DEFAULT_DEPTH;
	while (pow2 < depth && pow2 < MAX_DEPTH)
		pow2 *= 2;
	return pow2;
}

/* The memory of a device with nothing open yet, or NULL. */
static struct tmem_swapfile *
allocate(const struct tmem_swapfile_options *options)
{
	unsigned depth = round_depth(options->depth);
	size_t bytes = sizeof(struct tmem_swapfile) +
		       depth * (sizeof(struct tmem_swapfile_entry) +
				sizeof(struct iovec));
	struct tmem_swapfile *f =
		tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);

	if (!f)
		return NULL;
	f->self_bytes = bytes;
	f->depth = depth;
	f->max_run = depth / 2 ? depth / 2 : 1;
	if (f->max_run > MAX_RUN)
		f->max_run = MAX_RUN;
	f->entries = (struct tmem_swapfile_entry *)(f + 1);
	f->iov = (struct iovec *)(f->entries + depth);
	f->nr_offsets = options->nr_offsets;
	f->file_fd = options->file_fd;
	f->map_fd = options->map_fd;
	f->no_uring = options->no_uring;
	tmem_lock_init(&f->lock, TMEM_RANK_SWAPFILE);
	return f;
}

/* With the map open, whose capacity they have. */
static int open_tables(struct tmem_swapfile *f)
{
	f->where = map_sparse(where_bytes(f));
	f->slots = map_sparse(slots_bytes(f));
	if (!f->where || !f->slots)
		return -ENOMEM;
	return tmem_seal_random(&f->sum_seed, sizeof(f->sum_seed));
}

static int open_seal(struct tmem_swapfile *f)
{
	struct tmem_seal_key key;
	int r;

	f->sealed = map_sparse(sealed_bytes(f));
	if (!f->sealed)
		return -ENOMEM;
	tmem_swapmap_get_key(&f->map, &key);
	r = tmem_seal_create(&key, &f->seal);
	tmem_seal_wipe(&key, sizeof(key));
	return r;
}

static void open_ring(struct tmem_swapfile *f)
{
	f->ring_broken = false;
	f->ring.up = false;
	if (!f->no_uring)
		tmem_ring_open(&f->ring, f->depth);
}

int tmem_swapfile_open(const struct tmem_swapfile_options *options,
		       struct tmem_swapfile **ret_file)
{
	struct tmem_swapfile *f;
	int r;

	if (options->nr_offsets == 0 ||
	    options->nr_offsets > UINT64_MAX / 2 / sizeof(*f->where))
		return -EINVAL;
	f = allocate(options);
	if (!f)
		return -ENOMEM;
	r = tmem_swapmap_open(&f->map, f->map_fd, options->user);
	if (r == 0)
		r = set_size(f->file_fd, f->map.capacity * TMEM_PAGE_SIZE);
	if (r == 0)
		r = open_tables(f);
	if (r == 0 && !options->no_encrypt)
		r = open_seal(f);
	if (r < 0) {
		unmap_all(f);
		return r;
	}
	if (!options->no_direct)
		set_up_direct(f);
	open_ring(f);
	*ret_file = f;
	return 0;
}

int tmem_swapfile_before_fork(struct tmem_swapfile *f, unsigned child_user)
{
	int r;

	tmem_lock_acquire(&f->lock);
	if (f->in_flight != 0) {
		r = -EBUSY;
	} else {
		/* The child has no use for it. */
		if (f->sealed)
			tmem_sys_madvise(f->sealed, sealed_bytes(f),
					 MADV_DONTNEED);
		r = tmem_swapmap_share(&f->map, f->map_fd, child_user);
	}
	tmem_lock_release(&f->lock);
	return r;
}

int tmem_swapfile_reopen(struct tmem_swapfile *f, int file_fd, int map_fd,
			 unsigned user)
{
	int r = tmem_swapmap_become(&f->map, map_fd, user);

	if (r < 0)
		return r;
	tmem_lock_init(&f->lock, TMEM_RANK_SWAPFILE);
	f->file_fd = file_fd;
	f->map_fd = map_fd;
	f->collecting = false;
	if (f->seal)
		tmem_seal_adopt(f->seal);
	open_ring(f);
	return 0;
}

static void swapfile_close(void *dev)
{
	struct tmem_swapfile *f = dev;

	while (f->in_flight != 0)
		tmem_swapfile_reap(f, true);
	tmem_ring_close(&f->ring);
	tmem_swapmap_drop_all(&f->map);
	unmap_all(f);
}

bool tmem_swapfile_is_uring(const struct tmem_swapfile *f)
{
	return f->ring.up && !f->ring_broken;
}

bool tmem_swapfile_is_direct(const struct tmem_swapfile *f)
{
	return f->direct;
}

const char *tmem_swapfile_cipher(const struct tmem_swapfile *f)
{
	if (!f->seal)
		return "none";
	return tmem_seal_cipher(f->seal) == TMEM_CIPHER_AES256GCM
		       ? "AES-256-GCM"
		       : "XChaCha20-Poly1305";
}

void tmem_swapfile_for_each_mapping(const struct tmem_swapfile *f,
				    void (*fn)(void *arg, void *start,
					       size_t bytes),
				    void *arg)
{
	fn(arg, (void *)f, f->self_bytes);
	fn(arg, (void *)f->where, where_bytes(f));
	fn(arg, f->slots, slots_bytes(f));
	if (f->sealed)
		fn(arg, f->sealed, sealed_bytes(f));
	fn(arg, f->map.header, f->map.map_bytes);
	fn(arg, (void *)f->map.bits, f->map.bits_bytes);
	tmem_ring_for_each_mapping(&f->ring, fn, arg);
}

void tmem_swapfile_check(struct tmem_swapfile *f)
{
	uint64_t held = 0, resting = 0;
	unsigned busy = 0;

	tmem_lock_acquire(&f->lock);
	for (uint64_t offset = 0; offset < f->end; offset++) {
		uint32_t w = f->where[offset];

		held += w != 0;
		if (w & TMEM_SWAPFILE_IN_FLIGHT) {
			struct tmem_swapfile_entry *e =
				&f->entries[w & ~TMEM_SWAPFILE_IN_FLIGHT];

			TMEM_INVARIANT("S1",
				       e->offset == offset && !e->discarded &&
					       e->state != TMEM_ENTRY_FREE);
		} else if (w != 0) {
			resting++;
			TMEM_INVARIANT("S1", tmem_swapmap_has(&f->map, w - 1));
		}
	}
	for (unsigned i = 0; i < f->depth; i++) {
		struct tmem_swapfile_entry *e = &f->entries[i];

		busy += e->state != TMEM_ENTRY_FREE;
		TMEM_INVARIANT("S1",
			       e->state == TMEM_ENTRY_FREE ||
				       tmem_swapmap_has(&f->map, e->slot));
	}
	TMEM_INVARIANT("S2", f->held == held);
	TMEM_INVARIANT("S3", tmem_swapmap_count_own(&f->map) == resting + busy);
	TMEM_INVARIANT("S4", f->in_flight == busy);
	TMEM_INVARIANT("S5", f->end == f->nr_offsets || f->where[f->end] == 0);
	tmem_lock_release(&f->lock);
}

static const struct tmem_swapdev_ops swapfile_ops = {
	.name = "swapfile",
	.write = tmem_swapfile_write,
	.flush = tmem_swapfile_flush,
	.reap = tmem_swapfile_reap,
	.read = swapfile_read,
	.read_many = swapfile_read_many,
	.discard = tmem_swapfile_discard,
	.used_pages = swapfile_used_pages,
	.close = swapfile_close,
};

struct tmem_swapdev tmem_swapfile_device(struct tmem_swapfile *f)
{
	return (struct tmem_swapdev){ &swapfile_ops, f };
}
