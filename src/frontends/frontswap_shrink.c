/* SPDX-License-Identifier: MIT */
/*
 * Shrink: pages go from tmem to the device while others use both.
 *
 * A batch of pages is loaded into buffers and written at depth.  When a write
 * has ended and nobody has stored or invalidated its page meanwhile, the page
 * changes its place: the bit is cleared, then tmem's copy goes.  A load in
 * between misses in tmem, looks at the bit again and reads the device.
 * frontswap.c has the rules of cancelling.
 */
#include "frontends/frontswap_impl.h"

static void move_done(struct tmem_swapdev_request *request, int result)
{
	struct tmem_fs_move *m = request->arg;

	m->result = result;
	atomic_store_explicit(&m->done, true, memory_order_release);
}

/*
 * Under the stripe: the page is on its way to the device.  0, or -errno:
 * nothing has changed.
 */
static int move_locked(struct tmem_frontswap *fs, unsigned type,
		       uint64_t offset, struct tmem_fs_move *m)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	struct tmem_io io = tmem_fs_page_io(type, offset, m->request.page);
	int r = tmem_fs_backend_load(fs, &io);

	if (r != 0)
		return r < 0 ? r : -ENODATA;
	m->request.offset = offset;
	m->request.done = move_done;
	m->request.arg = m;
	m->cancelled = false;
	m->done = false;
	r = t->device.ops->write(t->device.self, &m->request);
	if (r == 0) {
		m->offset = offset;
		m->type = type;
		fs->nr_moves++;
	} else if (r != -EAGAIN) {
		tmem_fs_count_device(fs, r);
	}
	return r;
}

/* The write has ended: the page changes its place, unless it is a new one. */
static int settle_move(struct tmem_frontswap *fs, struct tmem_fs_move *m)
{
	unsigned type = m->type;
	uint64_t offset = m->offset;
	bool moved;

	tmem_lock_acquire(tmem_fs_stripe(fs, offset));
	moved = !m->cancelled && m->result == 0;
	m->type = TMEM_FRONTSWAP_MAX_TYPES;
	fs->nr_moves--;
	if (moved) {
		tmem_fs_clear_bit(&fs->types[type], offset);
		tmem_fs_backend_invalidate(fs, type, offset);
		tmem_fs_count(&fs->counters.shrunk_pages);
	}
	tmem_lock_release(tmem_fs_stripe(fs, offset));
	tmem_fs_count_device(fs, m->result);
	return moved ? 1 : m->result;
}

/* Begins up to `max` moves from t->shrink_next on.  How many; *ret_error. */
static unsigned begin_moves(struct tmem_frontswap *fs, unsigned type,
			    unsigned max, int *ret_error)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	unsigned n = 0;
	int r = 0;

	while (n < max && tmem_fs_next_page(t, &t->shrink_next)) {
		uint64_t offset = t->shrink_next;

		tmem_lock_acquire(tmem_fs_stripe(fs, offset));
		if (tmem_fs_test_bit(t, offset))
			r = move_locked(fs, type, offset, &fs->moves[n]);
		else
			r = 1;
		tmem_lock_release(tmem_fs_stripe(fs, offset));
		if (r == 0) {
			n++;
		} else if (r == -EAGAIN && n == 0) {
			t->device.ops->reap(t->device.self, true);
			continue;
		} else if (r == -EAGAIN) {
			break;
		} else if (r < 0) {
			*ret_error = r;
			if (r == -ENOSPC)
				break;
		}
		t->shrink_next++;
	}
	return n;
}

/* Moves up to `max` pages of a type.  How many; *ret_error if any failed. */
static unsigned shrink_batch(struct tmem_frontswap *fs, unsigned type,
			     unsigned max, int *ret_error)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	unsigned n = begin_moves(fs, type, max, ret_error), moved = 0;

	for (unsigned i = 0; i < n; i++) {
		struct tmem_fs_move *m = &fs->moves[i];
		int r;

		while (!atomic_load_explicit(&m->done, memory_order_acquire))
			t->device.ops->reap(t->device.self, true);
		r = settle_move(fs, m);
		moved += r > 0;
		if (r < 0)
			*ret_error = r;
	}
	return moved;
}

/* Goes through a type once, from where the last shrink stopped. */
static uint64_t shrink_type(struct tmem_frontswap *fs, unsigned type,
			    uint64_t nr_pages, int *ret_error)
{
	struct tmem_fs_swap_type *t = &fs->types[type];
	uint64_t moved = 0;
	bool wrapped = t->shrink_next == 0;

	while (moved < nr_pages && t->curr_pages != 0 && *ret_error == 0) {
		uint64_t left = nr_pages - moved;
		uint64_t before = t->shrink_next;

		moved += shrink_batch(
			fs, type, left < TMEM_FS_MOVES ? left : TMEM_FS_MOVES,
			ret_error);
		if (t->shrink_next != before &&
		    tmem_fs_next_page(t, &t->shrink_next))
			continue;
		if (wrapped)
			break;
		wrapped = true;
		t->shrink_next = 0;
	}
	return moved;
}

int64_t tmem_frontswap_shrink(struct tmem_frontswap *fs, uint64_t nr_pages)
{
	uint64_t moved = 0;
	int error = 0;

	if (atomic_exchange(&fs->shrinking, true))
		return -EBUSY;
	for (unsigned type = 0; type < TMEM_FRONTSWAP_MAX_TYPES; type++) {
		struct tmem_fs_swap_type *t = &fs->types[type];

		if (moved >= nr_pages)
			break;
		if (t->nr_pages == 0 || t->curr_pages == 0)
			continue;
		if (!t->device.ops)
			error = -ENOSPC;
		else
			moved +=
				shrink_type(fs, type, nr_pages - moved, &error);
	}
	fs->shrinking = false;
	return moved == 0 && error < 0 ? error : (int64_t)moved;
}
