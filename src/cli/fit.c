/* SPDX-License-Identifier: MIT */
/*
 * See fit.h.  Pages are stored in random order until what remains resident
 * and what the store holds are within the budget.  Then the pager's life is
 * played: a page that is stored comes back, others go until it fits again,
 * about as often as there are pages stored, for a store in use is less dense
 * than a new one.
 *
 * What the store refuses, as hopeless or because it has its share of the
 * budget, stays resident: without a swap file it has nowhere to go.
 */
#include "cli/fit.h"

#include "base/hash.h"

#include <errno.h>
#include <stdlib.h>
#include <tmem/stats.h>
#include <tmem/store.h>

enum {
	PAGE = TMEM_PAGE_SIZE,
	/* The pager's own memory: at rest, and its table for each page. */
	RUN_BYTES = 1 << 20,
	PAGE_BYTES = 8,
	/* What of its memory the pager gives the store: pager/budget.c. */
	STORE_PERCENT = 70,
	/* What it keeps free, for bursts: two thirds of its reserve, mostly. */
	RESERVE_PART = 24,
	RESERVE_MAX_BYTES = 4 << 20,
	/* More than an empty store holds. */
	SCALED_EXTRA = 8 << 20,
	FIRST_INDEX = 1 /* 0 is used to warm up */
};

struct target {
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pool;
	uint64_t empty_bytes; /* held by the store with nothing in it */
};

static bool store_page(struct target *t, uint32_t index, void *page)
{
	struct tmem_io io = { .object = { { 1, 0, 0 } },
			      .index = index,
			      .page = page };

	t->backend.ops->store(t->backend.self, t->pool, &io, 1);
	return io.result == 0;
}

static void drop_page(struct target *t, uint32_t index)
{
	struct tmem_io io = { .object = { { 1, 0, 0 } }, .index = index };

	t->backend.ops->invalidate(t->backend.self, t->pool, &io, 1);
}

/* A page in and out: what it needs for the first is not the page's. */
static void warm_up(struct target *t)
{
	static char page[PAGE];

	store_page(t, 0, page);
	drop_page(t, 0);
	t->empty_bytes = tmem_store_held_bytes(t->store);
}

static int open_target(uint64_t limit_bytes, struct target *ret)
{
	/* As the pager opens it. */
	struct tmem_store_options options = { .limit_bytes = limit_bytes,
					      .no_raw = 1,
					      .no_dedup = 1 };
	int r;

	if (limit_bytes < TMEM_STORE_MIN_BYTES)
		options.limit_bytes = TMEM_STORE_MIN_BYTES;
	r = tmem_store_open(&options, &ret->store);
	if (r < 0)
		return r;
	ret->backend = tmem_store_backend(ret->store);
	r = ret->backend.ops->pool_create(ret->backend.self, NULL, &ret->pool);
	if (r < 0) {
		tmem_store_close(ret->store);
		return r;
	}
	warm_up(ret);
	return 0;
}

int tmem_fit_sample(const struct tmem_fit_input *input,
		    struct tmem_fit_sample *ret)
{
	const struct tmem_pages *sample = input->sample;
	struct tmem_stats s = { 0 };
	struct target t;
	uint32_t i;
	int r;

	r = open_target(4ull * sample->nr * PAGE + (64u << 20), &t);
	if (r < 0)
		return r;
	for (i = 0; i < sample->nr; i++)
		store_page(&t, FIRST_INDEX + i, tmem_pages_at(sample, i));
	t.backend.ops->stats(t.backend.self, &s);
	ret->same_percent = 100.0 * (double)s.same_pages / sample->nr;
	ret->hopeless_percent =
		100.0 * (double)(sample->nr - s.pages) / sample->nr;
	ret->ratio = 0;
	if (s.held_bytes > t.empty_bytes)
		ret->ratio = (double)s.pages * PAGE /
			     (double)(s.held_bytes - t.empty_bytes);
	tmem_store_close(t.store);
	return 0;
}

/*
 * What the pages and their stored forms may take of a budget, and the store
 * alone of that, in bytes.
 */
struct room {
	double all;
	double store;
};

static int room_of(const struct tmem_fit_input *input, uint64_t limit_bytes,
		   struct room *ret)
{
	uint64_t store_bytes = limit_bytes / 100 * STORE_PERCENT;
	uint64_t reserve_bytes = limit_bytes / RESERVE_PART;
	struct target t;
	int r = open_target(store_bytes, &t);

	if (r < 0)
		return r;
	if (reserve_bytes > RESERVE_MAX_BYTES)
		reserve_bytes = RESERVE_MAX_BYTES;
	ret->all = (double)(limit_bytes - reserve_bytes) -
		   (double)input->fixed_bytes - (double)t.empty_bytes -
		   RUN_BYTES - (double)input->pages * PAGE_BYTES;
	ret->store = (double)store_bytes - (double)t.empty_bytes;
	tmem_store_close(t.store);
	return 0;
}

/* A store that has so much room for the sample. */
static int open_scaled(double room_bytes, struct target *ret)
{
	uint64_t bytes = room_bytes > 0 ? (uint64_t)room_bytes : 0;
	int r = open_target(bytes + SCALED_EXTRA, ret);

	if (r < 0)
		return r;
	bytes += ret->empty_bytes;
	if (bytes < TMEM_STORE_MIN_BYTES)
		bytes = TMEM_STORE_MIN_BYTES;
	r = tmem_store_set_limit(ret->store, bytes);
	if (r < 0)
		tmem_store_close(ret->store);
	return r;
}

/*
 * Who is where: order[0 .. nr_stored) are in the store, then those that could
 * be, then nr_refused that it did not take.
 */
struct fill {
	const struct tmem_pages *sample;
	struct target target;
	double room_bytes;
	uint32_t *order;
	uint32_t nr_stored;
	uint32_t nr_refused;
	uint64_t random;
};

/* Of `nr`, any. */
static uint32_t any(struct fill *f, uint32_t nr)
{
	f->random++;
	return (uint32_t)(tmem_hash_word(f->random) % nr);
}

static void swap(struct fill *f, uint32_t a, uint32_t b)
{
	uint32_t page = f->order[a];

	f->order[a] = f->order[b];
	f->order[b] = page;
}

/* What is still too much; at most 0: it fits. */
static double over(const struct fill *f)
{
	return (double)(f->sample->nr - f->nr_stored) * PAGE +
	       (double)tmem_store_held_bytes(f->target.store) -
	       (double)f->target.empty_bytes - f->room_bytes;
}

static void put_some(struct fill *f)
{
	uint32_t others, at;

	for (;;) {
		others = f->sample->nr - f->nr_stored - f->nr_refused;
		if (over(f) <= 0 || !others)
			return;
		at = f->nr_stored + any(f, others);
		if (store_page(&f->target, FIRST_INDEX + f->order[at],
			       tmem_pages_at(f->sample, f->order[at])))
			swap(f, at, f->nr_stored++);
		else
			swap(f, at, f->sample->nr - ++f->nr_refused);
	}
}

static void take_one(struct fill *f)
{
	uint32_t at = any(f, f->nr_stored);

	drop_page(&f->target, FIRST_INDEX + f->order[at]);
	swap(f, at, --f->nr_stored);
}

static void play(struct fill *f)
{
	uint32_t steps;

	put_some(f);
	for (steps = f->nr_stored; steps && f->nr_stored; steps--) {
		take_one(f);
		put_some(f);
	}
}

static void note_fit(const struct fill *f, double scale, struct tmem_fit *ret)
{
	uint32_t resident = f->sample->nr - f->nr_stored, out = 0;
	double left = over(f);

	if (left > 0) {
		/* As many whole pages as that is. */
		out = (uint32_t)(left / PAGE) + 1;
		out = out < resident ? out : resident;
	}
	ret->fits = left <= 0;
	ret->swap_bytes = (uint64_t)((double)out / scale) * PAGE;
	ret->resident = (double)(resident - out) / f->sample->nr;
}

int tmem_fit_budget(const struct tmem_fit_input *input, uint64_t limit_bytes,
		    struct tmem_fit *ret)
{
	double scale = (double)input->sample->nr / (double)input->pages;
	struct fill f = { .sample = input->sample };
	struct room room;
	uint32_t i;
	int r;

	r = room_of(input, limit_bytes, &room);
	if (r < 0)
		return r;
	f.order = calloc(input->sample->nr, sizeof(*f.order));
	if (!f.order)
		return -ENOMEM;
	for (i = 0; i < input->sample->nr; i++)
		f.order[i] = i;
	f.room_bytes = room.all * scale;
	r = open_scaled(room.store * scale, &f.target);
	if (r == 0) {
		play(&f);
		note_fit(&f, scale, ret);
		tmem_store_close(f.target.store);
	}
	free(f.order);
	return r;
}
