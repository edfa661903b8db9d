/* SPDX-License-Identifier: MIT */
/*
 * frontswap over a backend's pool and swap devices.
 *
 * Keys: all types share one pool.  The object is the type and the low four
 * bits of the offset, the index is the rest, as Xen's shim had it: neighbours
 * are spread over objects, and a whole type is 16 objects.
 *
 * The bit of a page is the authority: a clear bit means that tmem is not
 * asked, whatever it may hold.  Bits and curr_pages change under the stripe
 * lock of the page; loads take no lock and look at the bit again after a
 * miss, since shrink may have moved the page to the device in between.
 *
 * Shrink copies pages out and writes them while others go on.  What it has
 * under way is noted in `moves`; whoever stores or invalidates such a page
 * cancels its move under the stripe lock, so that an old copy neither reaches
 * the device over a new one nor takes the bit of a new one.
 *
 * Invariants (while nothing is in flight):
 *  F1 curr_pages of a type is the number of its set bits.
 *  F2 A page whose bit is set is in the pool.
 *  F3 Without writethrough no page is both in the pool and on the device.
 *  F4 No bit is set in a type that is not active; no move is under way
 *     unless shrink runs.
 */
#include "frontends/frontswap_impl.h"

#include <string.h>

#include "base/assert.h"
#include "base/chaos.h"
#include "base/sys.h"

static size_t self_bytes(void)
{
	return (sizeof(struct tmem_frontswap) + TMEM_PAGE_SIZE - 1) &
	       ~(size_t)(TMEM_PAGE_SIZE - 1);
}

/* The struct and the buffers behind it. */
static size_t mapped_bytes(void)
{
	return self_bytes() + (size_t)TMEM_FS_MOVES * TMEM_PAGE_SIZE;
}

static size_t bits_bytes(const struct tmem_fs_swap_type *t)
{
	return (t->nr_pages + 63) / 64 * sizeof(uint64_t);
}

/* The type, if the offset lies in it. */
static struct tmem_fs_swap_type *type_of(struct tmem_frontswap *fs,
					 unsigned type, uint64_t offset)
{
	if (type >= TMEM_FRONTSWAP_MAX_TYPES ||
	    offset >= fs->types[type].nr_pages)
		return NULL;
	return &fs->types[type];
}

static void set_bit(struct tmem_fs_swap_type *t, uint64_t offset)
{
	uint64_t bit = 1ull << (offset % 64);

	if (!(atomic_fetch_or(&t->bits[offset / 64], bit) & bit))
		t->curr_pages++;
}

/* 0, TMEM_MISS, TMEM_REFUSED or -errno of one page. */
static int backend_store(struct tmem_frontswap *fs, struct tmem_io *io)
{
	int r = fs->backend.ops->store(fs->backend.self, fs->pool, io, 1);

	return r < 0 ? r : io->result;
}

static void device_discard(struct tmem_fs_swap_type *t, uint64_t offset)
{
	if (t->device.ops)
		t->device.ops->discard(t->device.self, offset, 1);
}

/* Under the page's stripe: what shrink has of it is old from now on. */
static void cancel_move(struct tmem_frontswap *fs, unsigned type,
			uint64_t offset)
{
	if (fs->nr_moves == 0)
		return;
	for (unsigned i = 0; i < TMEM_FS_MOVES; i++) {
		struct tmem_fs_move *m = &fs->moves[i];

		if (m->type == type && m->offset == offset)
			m->cancelled = true;
	}
}

/* Under the stripe.  0 or TMEM_REFUSED, as tmem answered. */
static int store_locked(struct tmem_frontswap *fs, unsigned type,
			uint64_t offset, const void *page)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	struct tmem_io io = tmem_fs_page_io(type, offset, (void *)page);
	int r;

	cancel_move(fs, type, offset);
	r = tmem_chaos_hits(TMEM_CHAOS_REFUSE) ? -ENOMEM
					       : backend_store(fs, &io);
	if (r == 0) {
		set_bit(t, offset);
		tmem_fs_count(&fs->counters.succ_stores);
	} else {
		/* A fault may have left the old page: it is not wanted. */
		if (tmem_fs_clear_bit(t, offset) && r < 0)
			tmem_fs_backend_invalidate(fs, type, offset);
		tmem_fs_count(&fs->counters.failed_stores);
	}
	device_discard(t, offset);
	return r == 0 ? 0 : TMEM_REFUSED;
}

int tmem_frontswap_store(struct tmem_frontswap *fs, unsigned type,
			 uint64_t offset, const void *page)
{
	int r;

	if (!type_of(fs, type, offset))
		return -EINVAL;
	tmem_lock_acquire(tmem_fs_stripe(fs, offset));
	r = store_locked(fs, type, offset, page);
	tmem_lock_release(tmem_fs_stripe(fs, offset));
	return fs->writethrough ? TMEM_REFUSED : r;
}

/* Between the device and the caller's own done(). */
static void write_done(struct tmem_swapdev_request *request, int result)
{
	struct tmem_frontswap *fs = request->front;
	bool safe =
		fs->writethrough &&
		tmem_frontswap_test(fs, request->front_type, request->offset);

	tmem_fs_count_device(fs, result);
	if (safe && result == 0)
		tmem_fs_count(&fs->counters.writethroughs);
	request->done = request->front_done;
	request->done(request, safe ? 0 : result);
}

/* Under the stripe. */
static int write_locked(struct tmem_frontswap *fs, unsigned type,
			struct tmem_swapdev_request *request)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	int r;

	if (!t->device.ops) {
		tmem_fs_count(&fs->counters.device_full);
		return -ENOSPC;
	}
	request->front = fs;
	request->front_type = type;
	request->front_done = request->done;
	request->done = write_done;
	r = t->device.ops->write(t->device.self, request);
	if (r != 0)
		request->done = request->front_done;
	if (r < 0 && r != -EAGAIN)
		tmem_fs_count_device(fs, r);
	return r;
}

int tmem_frontswap_write(struct tmem_frontswap *fs, unsigned type,
			 struct tmem_swapdev_request *request)
{
	uint64_t offset = request->offset;
	int r;

	if (!type_of(fs, type, offset))
		return -EINVAL;
	tmem_lock_acquire(tmem_fs_stripe(fs, offset));
	cancel_move(fs, type, offset);
	/* Written without having been offered: tmem's page is old. */
	if (!fs->writethrough && tmem_fs_clear_bit(&fs->types[type], offset))
		tmem_fs_backend_invalidate(fs, type, offset);
	r = write_locked(fs, type, request);
	tmem_lock_release(tmem_fs_stripe(fs, offset));
	return r;
}

void tmem_frontswap_flush(struct tmem_frontswap *fs, unsigned type)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, 0);

	if (t && t->device.ops)
		t->device.ops->flush(t->device.self);
}

int tmem_frontswap_reap(struct tmem_frontswap *fs, unsigned type, bool wait)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, 0);

	if (!t || !t->device.ops)
		return 0;
	return t->device.ops->reap(t->device.self, wait);
}

/* What a synchronous write waits for. */
struct sync_write {
	struct tmem_swapdev_request request;
	_Atomic bool done;
	int result;
};

static void sync_write_done(struct tmem_swapdev_request *request, int result)
{
	struct sync_write *w = request->arg;

	w->result = result;
	atomic_store_explicit(&w->done, true, memory_order_release);
}

static int write_and_wait(struct tmem_frontswap *fs, unsigned type,
			  uint64_t offset, const void *page)
{
	_Alignas(TMEM_PAGE_SIZE) char buffer[TMEM_PAGE_SIZE];
	struct sync_write w = {
		.request = { .offset = offset, .done = sync_write_done },
	};
	int r;

	memcpy(buffer, page, sizeof(buffer));
	w.request.page = buffer;
	w.request.arg = &w;
	while ((r = tmem_frontswap_write(fs, type, &w.request)) == -EAGAIN)
		tmem_frontswap_reap(fs, type, true);
	if (r < 0)
		return r;
	while (!atomic_load_explicit(&w.done, memory_order_acquire))
		tmem_frontswap_reap(fs, type, true);
	return w.result;
}

int tmem_frontswap_swap_out(struct tmem_frontswap *fs, unsigned type,
			    uint64_t offset, const void *page)
{
	int r = tmem_frontswap_store(fs, type, offset, page);

	if (r <= 0)
		return r;
	r = write_and_wait(fs, type, offset, page);
	/* Writethrough: the device need not have had room. */
	return r < 0 && tmem_frontswap_test(fs, type, offset) ? 0 : r;
}

static int read_device(struct tmem_frontswap *fs, struct tmem_fs_swap_type *t,
		       uint64_t offset, void *page)
{
	int r;

	if (!t->device.ops)
		return -ENODATA;
	r = t->device.ops->read(t->device.self, offset, page);
	if (r == 0 && !fs->forking)
		tmem_fs_count(&fs->counters.device_reads);
	return r;
}

/* After a load from tmem: its copy goes, if loads are exclusive. */
static void drop_loaded(struct tmem_frontswap *fs, unsigned type,
			uint64_t offset)
{
	struct tmem_fs_swap_type *t = &fs->types[type];

	tmem_lock_acquire(tmem_fs_stripe(fs, offset));
	cancel_move(fs, type, offset);
	if (tmem_fs_clear_bit(t, offset)) {
		tmem_fs_backend_invalidate(fs, type, offset);
		tmem_fs_count(&fs->counters.exclusive_loads);
	}
	/* A move may have brought it there; a writethrough copy stays. */
	if (!fs->writethrough)
		device_discard(t, offset);
	tmem_lock_release(tmem_fs_stripe(fs, offset));
}

int tmem_frontswap_swap_in(struct tmem_frontswap *fs, unsigned type,
			   uint64_t offset, void *page)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, offset);
	struct tmem_io io = tmem_fs_page_io(type, offset, page);
	int r = TMEM_MISS, device;

	if (!t)
		return -EINVAL;
	if (tmem_fs_test_bit(t, offset))
		r = tmem_fs_backend_load(fs, &io);
	if (r == 0) {
		if (fs->forking)
			return 0;
		tmem_fs_count(&fs->counters.loads);
		if (fs->exclusive)
			drop_loaded(fs, type, offset);
		return 0;
	}
	device = read_device(fs, t, offset, page);
	if (device == 0)
		return 0;
	if (!fs->forking)
		tmem_fs_count(&fs->counters.lost_pages);
	/* Why tmem could not says more than that the device has nothing. */
	return r < 0 && device == -ENODATA ? r : device;
}

enum {
	MANY = 16 /* asked for at once */
};

/* From tmem, as far as it has them; the others' results are TMEM_MISS. */
static void load_many(struct tmem_frontswap *fs, unsigned type,
		      struct tmem_swapdev_read *reads, unsigned nr)
{
	struct tmem_io io[MANY];
	unsigned which[MANY], i, n = 0;

	for (i = 0; i < nr; i++) {
		reads[i].result = TMEM_MISS;
		if (!tmem_frontswap_test(fs, type, reads[i].offset))
			continue;
		io[n] = tmem_fs_page_io(type, reads[i].offset, reads[i].page);
		which[n++] = i;
	}
	if (n && fs->backend.ops->load(fs->backend.self, fs->pool, io, n) < 0)
		return;
	for (i = 0; i < n; i++) {
		if (io[i].result != 0)
			continue;
		reads[which[i]].result = 0;
		if (!fs->forking)
			tmem_fs_count(&fs->counters.loads);
	}
}

/* From the device, those that are still a miss. */
static void read_many(struct tmem_frontswap *fs, struct tmem_fs_swap_type *t,
		      struct tmem_swapdev_read *reads, unsigned nr)
{
	struct tmem_swapdev_read rest[MANY];
	unsigned which[MANY], i, n = 0;

	for (i = 0; i < nr; i++) {
		if (reads[i].result != TMEM_MISS)
			continue;
		rest[n] = reads[i];
		which[n++] = i;
	}
	if (!n || !t->device.ops)
		return;
	t->device.ops->read_many(t->device.self, rest, n);
	for (i = 0; i < n; i++) {
		if (rest[i].result != 0)
			continue;
		reads[which[i]].result = 0;
		if (!fs->forking)
			tmem_fs_count(&fs->counters.device_reads);
	}
}

void tmem_frontswap_swap_in_many(struct tmem_frontswap *fs, unsigned type,
				 struct tmem_swapdev_read *reads, unsigned nr)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, 0);
	unsigned i, n;

	for (; nr > 0; reads += n, nr -= n) {
		n = nr < MANY ? nr : MANY;
		/* What is exclusive goes with its load: one by one. */
		if (t && !fs->exclusive) {
			load_many(fs, type, reads, n);
			read_many(fs, t, reads, n);
		}
		/* The rest alone: it may have moved, or tells why not. */
		for (i = 0; i < n; i++)
			if (!t || fs->exclusive || reads[i].result != 0)
				reads[i].result = tmem_frontswap_swap_in(
					fs, type, reads[i].offset,
					reads[i].page);
	}
}

bool tmem_frontswap_test(struct tmem_frontswap *fs, unsigned type,
			 uint64_t offset)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, offset);

	return t && tmem_fs_test_bit(t, offset);
}

void tmem_frontswap_invalidate_page(struct tmem_frontswap *fs, unsigned type,
				    uint64_t offset)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, offset);

	if (!t)
		return;
	tmem_lock_acquire(tmem_fs_stripe(fs, offset));
	cancel_move(fs, type, offset);
	if (tmem_fs_clear_bit(t, offset)) {
		tmem_fs_backend_invalidate(fs, type, offset);
		tmem_fs_count(&fs->counters.invalidates);
	}
	device_discard(t, offset);
	tmem_lock_release(tmem_fs_stripe(fs, offset));
}

void tmem_frontswap_invalidate_area(struct tmem_frontswap *fs, unsigned type)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, 0);

	if (!t)
		return;
	tmem_lock_acquire(&fs->control);
	for (unsigned low = 0; low < TMEM_FS_OBJECTS; low++) {
		struct tmem_io io = tmem_fs_page_io(type, low, NULL);
		uint64_t pages;

		fs->backend.ops->invalidate_object(fs->backend.self, fs->pool,
						   io.object, &pages);
	}
	if (t->device.ops)
		t->device.ops->discard(t->device.self, 0, t->nr_pages);
	tmem_sys_unmap((void *)t->bits, bits_bytes(t));
	memset(t, 0, sizeof(*t));
	tmem_lock_release(&fs->control);
}

/* Opening, forking, closing */

int tmem_frontswap_open(const struct tmem_frontswap_options *options,
			struct tmem_frontswap **ret_fs)
{
	size_t bytes = mapped_bytes();
	struct tmem_frontswap *fs =
		tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);
	int r;

	if (!fs)
		return -ENOMEM;
	tmem_sys_madvise(fs, bytes, MADV_NOHUGEPAGE);
	fs->backend = options->backend;
	fs->writethrough = options->writethrough;
	fs->exclusive = options->exclusive;
	fs->buffers = (char *)fs + self_bytes();
	tmem_lock_init(&fs->control, TMEM_RANK_FRONTSWAP);
	for (unsigned i = 0; i < TMEM_FS_STRIPES; i++)
		tmem_lock_init(&fs->stripes[i], TMEM_RANK_FRONTSWAP);
	for (unsigned i = 0; i < TMEM_FS_MOVES; i++) {
		fs->moves[i].type = TMEM_FRONTSWAP_MAX_TYPES;
		fs->moves[i].request.page =
			fs->buffers + (size_t)i * TMEM_PAGE_SIZE;
	}
	r = fs->backend.ops->pool_create(fs->backend.self, NULL, &fs->pool);
	if (r != 0) {
		tmem_sys_unmap(fs, bytes);
		return r < 0 ? r : -ENOMEM;
	}
	*ret_fs = fs;
	return 0;
}

void tmem_frontswap_close(struct tmem_frontswap *fs)
{
	if (!fs)
		return;
	for (unsigned type = 0; type < TMEM_FRONTSWAP_MAX_TYPES; type++)
		tmem_frontswap_invalidate_area(fs, type);
	fs->backend.ops->pool_destroy(fs->backend.self, fs->pool);
	tmem_sys_unmap(fs, mapped_bytes());
}

static int init_locked(struct tmem_frontswap *fs, unsigned type,
		       uint64_t nr_pages, struct tmem_swapdev device)
	TMEM_REQUIRES(&fs->control)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	struct tmem_fs_swap_type new = { .nr_pages = nr_pages };
	void *bits;

	if (t->nr_pages != 0)
		return -EBUSY;
	bits = tmem_sys_map_anon(bits_bytes(&new), PROT_READ | PROT_WRITE);
	if (!bits)
		return -ENOMEM;
	tmem_sys_madvise(bits, bits_bytes(&new), MADV_NOHUGEPAGE);
	t->bits = bits;
	t->device = device;
	t->nr_pages = nr_pages;
	return 0;
}

int tmem_frontswap_init(struct tmem_frontswap *fs, unsigned type,
			uint64_t nr_pages, struct tmem_swapdev device)
{
	int r;

	if (type >= TMEM_FRONTSWAP_MAX_TYPES || nr_pages == 0 ||
	    nr_pages > 1ull << (32 + TMEM_FS_OBJECT_BITS))
		return -EINVAL;
	tmem_lock_acquire(&fs->control);
	r = init_locked(fs, type, nr_pages, device);
	tmem_lock_release(&fs->control);
	return r;
}

void tmem_frontswap_before_fork(struct tmem_frontswap *fs)
{
	fs->forking = true;
}

void tmem_frontswap_after_fork(struct tmem_frontswap *fs)
{
	fs->forking = false;
}

void tmem_frontswap_set_device(struct tmem_frontswap *fs, unsigned type,
			       struct tmem_swapdev device)
{
	struct tmem_fs_swap_type *t = type_of(fs, type, 0);

	if (t)
		t->device = device;
}

void tmem_frontswap_get_stats(struct tmem_frontswap *fs,
			      struct tmem_frontswap_stats *ret_stats)
{
	struct tmem_fs_counters *c = &fs->counters;
	struct tmem_frontswap_stats stats = {
		.loads = c->loads,
		.succ_stores = c->succ_stores,
		.failed_stores = c->failed_stores,
		.invalidates = c->invalidates,
		.device_writes = c->device_writes,
		.device_reads = c->device_reads,
		.device_full = c->device_full,
		.device_errors = c->device_errors,
		.lost_pages = c->lost_pages,
		.writethroughs = c->writethroughs,
		.exclusive_loads = c->exclusive_loads,
		.shrunk_pages = c->shrunk_pages,
	};

	for (unsigned type = 0; type < TMEM_FRONTSWAP_MAX_TYPES; type++)
		stats.curr_pages += fs->types[type].curr_pages;
	*ret_stats = stats;
}

void tmem_frontswap_for_each_mapping(const struct tmem_frontswap *fs,
				     void (*fn)(void *arg, void *start,
						size_t bytes),
				     void *arg)
{
	fn(arg, (void *)fs, mapped_bytes());
	for (unsigned type = 0; type < TMEM_FRONTSWAP_MAX_TYPES; type++) {
		const struct tmem_fs_swap_type *t = &fs->types[type];

		if (t->nr_pages != 0)
			fn(arg, (void *)t->bits, bits_bytes(t));
	}
}

static void check_page(struct tmem_frontswap *fs, unsigned type,
		       uint64_t offset)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	struct tmem_io io = tmem_fs_page_io(type, offset, fs->buffers);

	TMEM_INVARIANT("F2", tmem_fs_backend_load(fs, &io) <= 0);
	if (t->device.ops && !fs->writethrough)
		TMEM_INVARIANT("F3",
			       t->device.ops->read(t->device.self, offset,
						   fs->buffers) == -ENODATA);
}

void tmem_frontswap_check(struct tmem_frontswap *fs)
{
	for (unsigned type = 0; type < TMEM_FRONTSWAP_MAX_TYPES; type++) {
		struct tmem_fs_swap_type *t = &fs->types[type];
		uint64_t nr = 0;

		for (uint64_t o = 0; tmem_fs_next_page(t, &o); o++) {
			check_page(fs, type, o);
			nr++;
		}
		TMEM_INVARIANT("F1", t->curr_pages == nr);
		if (t->nr_pages == 0)
			TMEM_INVARIANT("F4", t->curr_pages == 0 && !t->bits);
	}
	if (!fs->shrinking)
		TMEM_INVARIANT("F4", fs->nr_moves == 0);
}
