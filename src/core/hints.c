/* SPDX-License-Identifier: MIT */
/* The table of hints; the model is in hints.h. */
#include "hints.h"

#include <string.h>

enum {
	HOMES = 64,
	REACH = 8, /* buckets from home */
	HINT_MASK = (1 << TMEM_HINT_BITS) - 1,
	R_BITS = 31,
	LOW_MASK = (1 << 25) - 1,
	/* It grows by that part at least, and shrinks by twice that part. */
	STEP_PART = 8
};

static uint32_t get(const _Atomic uint32_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static void set(_Atomic uint32_t *value, uint32_t to)
{
	atomic_store_explicit(value, to, memory_order_relaxed);
}

/* Entries: bits 0-15, 16-23 and 24 of r, distance, hint. */

static uint32_t low_at(const struct tmem_hints_bucket *bucket, unsigned i)
{
	return bucket->low[i] | (uint32_t)bucket->mid[i] << 16 |
	       bucket->words[i] >> 31 << 24;
}

static unsigned distance_at(const struct tmem_hints_bucket *bucket, unsigned i)
{
	return bucket->words[i] >> TMEM_HINT_BITS & (REACH - 1);
}

static uint32_t hint_at(const struct tmem_hints_bucket *bucket, unsigned i)
{
	return bucket->words[i] & HINT_MASK;
}

static void put_at(struct tmem_hints_bucket *bucket, unsigned i, uint32_t r,
		   unsigned distance, uint32_t hint)
{
	bucket->low[i] = (uint16_t)r;
	bucket->mid[i] = (uint8_t)(r >> 16);
	bucket->words[i] =
		(r >> 24 & 1) << 31 | distance << TMEM_HINT_BITS | hint;
}

/* They are filled from the first on, and none is ever taken out. */
static bool is_full(const struct tmem_hints_bucket *bucket)
{
	return bucket->hand >= TMEM_HINTS_BUCKET;
}

static unsigned count_of(const struct tmem_hints_bucket *bucket)
{
	return is_full(bucket) ? TMEM_HINTS_BUCKET : bucket->hand;
}

/* Homes: buckets, counted through all pages. */

static uint32_t home_in(uint32_t r, uint32_t size)
{
	return (uint32_t)((uint64_t)r * size * HOMES >> R_BITS);
}

/* The lowest r whose home that is. */
static uint32_t first_of(uint32_t home, uint32_t size)
{
	uint64_t homes = (uint64_t)size * HOMES;

	return (uint32_t)((((uint64_t)home << R_BITS) + homes - 1) / homes);
}

/* What r is, whose home that is in a table of that size. */
static uint32_t r_of(uint32_t home, uint32_t size, uint32_t low)
{
	uint32_t first = first_of(home, size);

	return first + ((low - first) & LOW_MASK);
}

static bool has_moved(const struct tmem_hints *hints, uint32_t page)
{
	if (get(&hints->new_size) > get(&hints->size))
		return page >= get(&hints->moved);
	return page < get(&hints->moved);
}

static uint32_t home_of(const struct tmem_hints *hints, uint32_t r)
{
	uint32_t home = home_in(r, get(&hints->size));

	if (has_moved(hints, home / HOMES))
		home = home_in(r, get(&hints->new_size));
	return home;
}

/* Bucket `distance` away from home. */
static struct tmem_hints_bucket *bucket_of(const struct tmem_hints *hints,
					   uint32_t home, unsigned distance)
{
	return &hints->pages[home / HOMES]->buckets[(home + distance) % HOMES];
}

/* Locks. */

static struct tmem_lock *stripe_of(struct tmem_hints *hints, uint32_t home)
{
	return &hints->stripes[home / HOMES % TMEM_HINTS_STRIPES].lock;
}

/* The home of r, whose lock is held then; or NULL: there is no table yet. */
static struct tmem_lock *acquire(struct tmem_hints *hints, uint32_t r,
				 uint32_t *ret_home) TMEM_UNANALYSED
{
	struct tmem_lock *lock;
	uint32_t home;

	for (;;) {
		lock = stripe_of(hints, home_of(hints, r));
		tmem_lock_acquire(lock);
		home = home_of(hints, r);
		if (get(&hints->size) && stripe_of(hints, home) == lock)
			break;
		tmem_lock_release(lock);
		if (!get(&hints->size))
			return NULL;
	}
	*ret_home = home;
	return lock;
}

static void release(struct tmem_lock *lock) TMEM_UNANALYSED
{
	tmem_lock_release(lock);
}

static void acquire_all(struct tmem_hints *hints) TMEM_UNANALYSED
{
	unsigned i;

	tmem_lock_acquire(&hints->stripes[0].lock);
	for (i = 1; i < TMEM_HINTS_STRIPES; i++)
		tmem_lock_acquire_also(&hints->stripes[i].lock);
}

static void release_all(struct tmem_hints *hints) TMEM_UNANALYSED
{
	unsigned i;

	for (i = TMEM_HINTS_STRIPES; i-- > 1;)
		tmem_lock_release_also(&hints->stripes[i].lock);
	tmem_lock_release(&hints->stripes[0].lock);
}

/* Looking and inserting. */

void tmem_hints_init(struct tmem_hints *hints)
{
	unsigned i;

	for (i = 0; i < TMEM_HINTS_STRIPES; i++)
		tmem_lock_init(&hints->stripes[i].lock, TMEM_RANK_HINTS);
	hints->pages = hints->first;
}

struct place {
	struct tmem_hints_bucket *bucket;
	unsigned i;
	unsigned distance;
};

static void insert(struct tmem_hints *hints, uint32_t home, uint32_t r,
		   uint32_t hint)
{
	struct tmem_hints_bucket *bucket;
	unsigned distance;

	for (distance = 0; distance < REACH; distance++) {
		bucket = bucket_of(hints, home, distance);
		if (!is_full(bucket)) {
			put_at(bucket, bucket->hand++, r, distance, hint);
			return;
		}
	}
	bucket = bucket_of(hints, home, 0);
	put_at(bucket, bucket->hand - TMEM_HINTS_BUCKET, r, 0, hint);
	if (++bucket->hand == 2 * TMEM_HINTS_BUCKET)
		bucket->hand = TMEM_HINTS_BUCKET;
}

/*
 * The next entry for r, from that place on.  Behind a bucket with room there
 * is none.
 */
static bool next_match(const struct tmem_hints *hints, uint32_t home,
		       uint32_t r, struct place *place)
{
	struct tmem_hints_bucket *bucket;
	unsigned nr;

	for (; place->distance < REACH; place->distance++, place->i = 0) {
		bucket = bucket_of(hints, home, place->distance);
		place->bucket = bucket;
		nr = count_of(bucket);
		for (; place->i < nr; place->i++)
			if (bucket->low[place->i] == (uint16_t)r &&
			    low_at(bucket, place->i) == (r & LOW_MASK) &&
			    distance_at(bucket, place->i) == place->distance)
				return true;
		if (nr < TMEM_HINTS_BUCKET)
			return false;
	}
	return false;
}

unsigned tmem_hints_look(struct tmem_hints *hints, uint32_t r, uint32_t hint,
			 uint32_t found[TMEM_HINTS_FOUND])
{
	struct place place = { 0 };
	struct tmem_lock *lock;
	uint32_t home;
	unsigned nr = 0;

	lock = acquire(hints, r, &home);
	if (!lock)
		return 0;
	while (nr < TMEM_HINTS_FOUND && next_match(hints, home, r, &place))
		found[nr++] = hint_at(place.bucket, place.i++);
	if (!nr)
		insert(hints, home, r, hint);
	release(lock);
	return nr;
}

const void *tmem_hints_home(struct tmem_hints *hints,
			    uint32_t r) TMEM_UNANALYSED
{
	struct tmem_lock *lock = stripe_of(hints, home_of(hints, r));
	const void *bucket = NULL;
	uint32_t home;

	if (!tmem_lock_try_acquire(lock))
		return NULL;
	home = home_of(hints, r);
	if (get(&hints->size) && stripe_of(hints, home) == lock)
		bucket = bucket_of(hints, home, 0);
	release(lock);
	return bucket;
}

void tmem_hints_correct(struct tmem_hints *hints, uint32_t r, uint32_t wrong,
			uint32_t hint)
{
	struct place place = { 0 };
	struct tmem_lock *lock;
	uint32_t home;

	lock = acquire(hints, r, &home);
	if (!lock)
		return;
	for (; next_match(hints, home, r, &place); place.i++)
		if (hint_at(place.bucket, place.i) == wrong)
			put_at(place.bucket, place.i, r, place.distance, hint);
	release(lock);
}

/* Resizing.  All stripes are held. */

static unsigned dir_pages_for(uint32_t size)
{
	return size <= TMEM_HINTS_INLINE ? 0 : (size + 511) / 512;
}

/* Makes the directory long enough for that size, which is larger. */
static bool grow_dir(struct tmem_hints *hints, struct tmem_meta *meta,
		     uint32_t size)
{
	unsigned have = hints->dir_pages, want = dir_pages_for(size);
	struct tmem_hints_page **pages;

	if (want == have)
		return true;
	pages = tmem_meta_alloc(meta, want);
	if (!pages)
		return false;
	memcpy(pages, hints->pages,
	       get(&hints->size) * sizeof(struct tmem_hints_page *));
	if (have)
		tmem_meta_free(meta, hints->pages, have);
	hints->pages = pages;
	hints->dir_pages = want;
	return true;
}

/* No longer than that size needs it; takes no memory, so it can't fail. */
static void shrink_dir(struct tmem_hints *hints, struct tmem_meta *meta,
		       uint32_t size)
{
	unsigned have = hints->dir_pages, want = dir_pages_for(size);

	if (want == have)
		return;
	if (!want) { /* pages that were in it before have gone */
		memset(hints->first, 0, sizeof(hints->first));
		memcpy(hints->first, hints->pages,
		       size * sizeof(struct tmem_hints_page *));
	}
	tmem_meta_free(meta, (char *)hints->pages + want * 4096ul, have - want);
	if (!want)
		hints->pages = hints->first;
	hints->dir_pages = want;
}

/* The page's hints to where they are at home in the new size. */
static void move_page(struct tmem_hints *hints, uint32_t page)
{
	struct tmem_hints_page old = *hints->pages[page];
	uint32_t size = get(&hints->size), new_size = get(&hints->new_size);
	uint32_t first[HOMES];
	unsigned b, i;

	memset(hints->pages[page], 0, sizeof(old));
	for (b = 0; b < HOMES; b++)
		first[b] = first_of(page * HOMES + b, size);
	for (b = 0; b < HOMES; b++)
		for (i = 0; i < count_of(&old.buckets[b]); i++) {
			const struct tmem_hints_bucket *from = &old.buckets[b];
			uint32_t r = first[(b - distance_at(from, i)) % HOMES];

			r += (low_at(from, i) - r) & LOW_MASK;
			insert(hints, home_in(r, new_size), r,
			       hint_at(from, i));
		}
}

/* The last page that has not moved; false: no memory. */
static bool grow_step(struct tmem_hints *hints, struct tmem_meta *meta)
{
	uint64_t size = get(&hints->size), new_size = get(&hints->new_size);
	uint32_t page = get(&hints->moved) - 1;
	uint64_t to = page * new_size / size;
	uint64_t end = ((page + 1) * new_size + size - 1) / size;

	for (; to < end; to++) {
		if (!hints->pages[to])
			hints->pages[to] = tmem_meta_alloc(meta, 1);
		if (!hints->pages[to])
			return false;
	}
	move_page(hints, page);
	set(&hints->moved, page);
	if (!page)
		set(&hints->size, (uint32_t)new_size);
	return true;
}

/* The first page that has not moved. */
static void shrink_step(struct tmem_hints *hints, struct tmem_meta *meta)
{
	uint32_t page = get(&hints->moved), new_size = get(&hints->new_size);

	move_page(hints, page);
	set(&hints->moved, ++page);
	if (page > new_size) {
		tmem_meta_free(meta, hints->pages[page - 1], 1);
		hints->pages[page - 1] = NULL;
	}
	if (page < get(&hints->size))
		return;
	shrink_dir(hints, meta, new_size);
	set(&hints->size, new_size);
	set(&hints->moved, 0);
}

/* From nothing to one page, or back. */
static bool first_step(struct tmem_hints *hints, struct tmem_meta *meta,
		       bool make)
{
	if (make) {
		hints->first[0] = tmem_meta_alloc(meta, 1);
		if (!hints->first[0])
			return false;
	} else {
		tmem_meta_free(meta, hints->first[0], 1);
		hints->first[0] = NULL;
	}
	set(&hints->size, make);
	set(&hints->new_size, make);
	return true;
}

static bool step(struct tmem_hints *hints, struct tmem_meta *meta,
		 uint32_t want)
{
	uint32_t size = get(&hints->size);

	if (!size || (!want && size == 1 && get(&hints->new_size) == 1))
		return want == size || first_step(hints, meta, want != 0);
	if (size == get(&hints->new_size)) {
		if (want > size && !grow_dir(hints, meta, want))
			return false;
		set(&hints->new_size, want ? want : 1);
		set(&hints->moved, want > size ? size : 0);
	}
	if (get(&hints->new_size) > size)
		return grow_step(hints, meta);
	shrink_step(hints, meta);
	return true;
}

/* It changes, or is too far from what is wanted. */
static bool is_unfit(const struct tmem_hints *hints, uint32_t want)
{
	uint32_t size = get(&hints->size);

	return size != get(&hints->new_size) ||
	       want > size + size / STEP_PART ||
	       want < size - size / STEP_PART * 2;
}

bool tmem_hints_are_there(const struct tmem_hints *hints)
{
	return get(&hints->size) != 0;
}

bool tmem_hints_fit(struct tmem_hints *hints, struct tmem_meta *meta,
		    uint64_t nr_pages)
{
	uint64_t want = 0;
	bool stepped;

	/* A little too large while it is small. */
	if (nr_pages)
		want = nr_pages / TMEM_HINTS_PER_PAGE + 2;
	if (want > TMEM_HINTS_MAX_PAGES)
		want = TMEM_HINTS_MAX_PAGES;
	if (!is_unfit(hints, (uint32_t)want))
		return false;
	acquire_all(hints);
	stepped = !is_unfit(hints, (uint32_t)want) ||
		  step(hints, meta, (uint32_t)want);
	release_all(hints);
	return stepped && is_unfit(hints, (uint32_t)want);
}

/* Checking. */

static void check_page(const struct tmem_hints *hints, uint32_t page,
		       void (*fn)(void *arg, uint32_t hint), void *arg)
{
	uint32_t size = get(&hints->size), new_size = get(&hints->new_size);
	unsigned b, i;

	for (b = 0; b < HOMES; b++)
		for (i = 0; i < count_of(&hints->pages[page]->buckets[b]);
		     i++) {
			const struct tmem_hints_bucket *bucket;
			uint32_t home, low;

			bucket = &hints->pages[page]->buckets[b];
			low = low_at(bucket, i);
			home = page * HOMES +
			       (b - distance_at(bucket, i)) % HOMES;
			TMEM_INVARIANT(
				"H1",
				home_of(hints, r_of(home, size, low)) == home ||
					home_of(hints, r_of(home, new_size,
							    low)) == home);
			fn(arg, hint_at(bucket, i));
		}
}

void tmem_hints_check(struct tmem_hints *hints,
		      void (*fn)(void *arg, uint32_t hint), void *arg)
{
	uint32_t size, new_size, page, max;

	acquire_all(hints);
	size = get(&hints->size);
	new_size = get(&hints->new_size);
	max = size > new_size ? size : new_size;
	TMEM_INVARIANT("H2", hints->dir_pages == dir_pages_for(max));
	for (page = 0; page < max; page++) {
		/* What has moved away, or nothing has moved to yet. */
		if (page >= size || page < get(&hints->moved))
			TMEM_INVARIANT("H2",
				       hints->pages[page] || new_size != size);
		else
			TMEM_INVARIANT("H2", hints->pages[page] != NULL);
		if (hints->pages[page])
			check_page(hints, page, fn, arg);
	}
	release_all(hints);
}
