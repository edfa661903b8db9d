/* SPDX-License-Identifier: MIT */
/* Page runs in chunks; the model is in pages.h. */
#include "pages.h"

#include <stdbool.h>
#include <string.h>

#include "image.h"
#include "map.h"

enum {
	DATA_PAGES = TMEM_CHUNK_PAGES - TMEM_CHUNK_HEAD_PAGES
};

#define CHUNK_MAGIC 0x6b6e7568632d6d74ull /* "tm-chunk" */

static unsigned bin_of(unsigned longest)
{
	return longest ? 32 - (unsigned)__builtin_clz(longest) : 0;
}

static struct tmem_chunk *chunk_of(void *start)
{
	uintptr_t p = (uintptr_t)start;
	struct tmem_chunk *chunk;

	chunk = (struct tmem_chunk *)((char *)start -
				      (p & (TMEM_CHUNK_BYTES - 1)));
	TMEM_ASSERT(chunk->magic == CHUNK_MAGIC);
	return chunk;
}

static bool bit_get(const struct tmem_chunk *chunk, unsigned page)
{
	return chunk->used[page / 64] >> (page % 64) & 1;
}

/* The mask of bits [first, end) within word w. */
static uint64_t word_mask(unsigned w, unsigned first, unsigned end)
{
	unsigned lo = w * 64, hi = lo + 64;
	uint64_t mask = ~0ull;

	if (first >= hi || end <= lo)
		return 0;
	if (first > lo)
		mask &= ~0ull << (first - lo);
	if (end < hi)
		mask &= ~0ull >> (hi - end);
	return mask;
}

static void bits_set(struct tmem_chunk *chunk, unsigned first, unsigned end)
{
	unsigned w;

	for (w = first / 64; w <= (end - 1) / 64; w++) {
		uint64_t mask = word_mask(w, first, end);

		TMEM_ASSERT(!(chunk->used[w] & mask));
		chunk->used[w] |= mask;
	}
}

static void bits_clear(struct tmem_chunk *chunk, unsigned first, unsigned end)
{
	unsigned w;

	for (w = first / 64; w <= (end - 1) / 64; w++) {
		uint64_t mask = word_mask(w, first, end);

		TMEM_ASSERT((chunk->used[w] & mask) == mask);
		chunk->used[w] &= ~mask;
	}
}

/* The next page >= page whose bit is `used`, or TMEM_CHUNK_PAGES. */
static unsigned next_bit(const struct tmem_chunk *chunk, unsigned page,
			 bool used)
{
	while (page < TMEM_CHUNK_PAGES) {
		uint64_t word = chunk->used[page / 64];

		word = (used ? word : ~word) >> (page % 64);
		if (word)
			return page + (unsigned)__builtin_ctzll(word);
		page = (page / 64 + 1) * 64;
	}
	return TMEM_CHUNK_PAGES;
}

/*
 * The first free run of at least `want` pages; *ret_longest is the longest of
 * the runs looked at (all of them, if none fits).
 */
static unsigned find_run(const struct tmem_chunk *chunk, unsigned want,
			 unsigned *ret_longest)
{
	unsigned first, end = 0, longest = 0;

	for (;;) {
		first = next_bit(chunk, end, false);
		if (first >= TMEM_CHUNK_PAGES)
			break;
		end = next_bit(chunk, first, true);
		if (end - first > longest)
			longest = end - first;
		if (end - first >= want)
			break;
	}
	*ret_longest = longest;
	return first;
}

static void unlink_chunk(struct tmem_pages *pages, struct tmem_chunk *chunk)
{
	if (chunk->prev)
		chunk->prev->next = chunk->next;
	else
		pages->bins[chunk->bin] = chunk->next;
	if (chunk->next)
		chunk->next->prev = chunk->prev;
}

static void link_chunk(struct tmem_pages *pages, struct tmem_chunk *chunk)
{
	chunk->prev = NULL;
	chunk->next = pages->bins[chunk->bin];
	if (chunk->next)
		chunk->next->prev = chunk;
	pages->bins[chunk->bin] = chunk;
}

/* Puts the chunk where it belongs after its bitmap changed. */
static void rebin(struct tmem_pages *pages, struct tmem_chunk *chunk)
{
	unsigned longest;

	find_run(chunk, TMEM_CHUNK_PAGES, &longest);
	chunk->longest = (uint16_t)longest;
	if (chunk->bin == bin_of(longest))
		return;
	unlink_chunk(pages, chunk);
	chunk->bin = (uint16_t)bin_of(longest);
	link_chunk(pages, chunk);
}

static bool is_empty(const struct tmem_chunk *chunk)
{
	return chunk->nr_free == DATA_PAGES;
}

static void init_chunk(struct tmem_pages *pages, struct tmem_chunk *chunk)
{
	*chunk = (struct tmem_chunk){
		.magic = CHUNK_MAGIC,
		.used = { (1u << TMEM_CHUNK_HEAD_PAGES) - 1 },
		.nr_free = DATA_PAGES,
		.longest = DATA_PAGES,
		.bin = (uint16_t)bin_of(DATA_PAGES),
	};
	link_chunk(pages, chunk);
	pages->nr_chunks++;
	pages->nr_empty++;
}

static struct tmem_chunk *add_chunk_locked(struct tmem_pages *pages)
	TMEM_REQUIRES(&pages->lock)
{
	struct tmem_chunk *chunk;

	if (!tmem_account_take(pages->account, tmem_pages_head_bytes(pages)))
		return NULL;
	chunk = pages->image
			? tmem_image_map(pages->image)
			: tmem_map->map(TMEM_CHUNK_BYTES, TMEM_CHUNK_BYTES);
	if (!chunk) {
		atomic_fetch_add_explicit(&pages->map_failures, 1,
					  memory_order_relaxed);
		tmem_account_give(pages->account, tmem_pages_head_bytes(pages));
		return NULL;
	}
	init_chunk(pages, chunk);
	return chunk;
}

static void remove_chunk_locked(struct tmem_pages *pages,
				struct tmem_chunk *chunk)
	TMEM_REQUIRES(&pages->lock)
{
	unlink_chunk(pages, chunk);
	pages->nr_chunks--;
	pages->nr_empty--;
	if (pages->image)
		tmem_image_unmap(pages->image, chunk);
	else
		tmem_map->unmap(chunk, TMEM_CHUNK_BYTES);
	tmem_account_give(pages->account, tmem_pages_head_bytes(pages));
}

static void *alloc_locked(struct tmem_pages *pages, unsigned nr_pages)
	TMEM_REQUIRES(&pages->lock)
{
	struct tmem_chunk *chunk = NULL;
	unsigned bin, first, longest;

	/* In bin b every chunk has a run of 2^(b-1). */
	for (bin = bin_of(nr_pages - 1) + 1; bin < TMEM_CHUNK_BINS; bin++)
		if ((chunk = pages->bins[bin]))
			break;
	if (!chunk)
		chunk = add_chunk_locked(pages);
	if (!chunk)
		return NULL;
	if (is_empty(chunk))
		pages->nr_empty--;
	first = find_run(chunk, nr_pages, &longest);
	TMEM_ASSERT(longest >= nr_pages);
	bits_set(chunk, first, first + nr_pages);
	chunk->nr_free -= nr_pages;
	rebin(pages, chunk);
	return (char *)chunk + (size_t)first * 4096;
}

static void free_locked(struct tmem_pages *pages, void *start,
			unsigned nr_pages) TMEM_REQUIRES(&pages->lock)
{
	struct tmem_chunk *chunk = chunk_of(start);
	unsigned first = (unsigned)(((char *)start - (char *)chunk) / 4096);

	bits_clear(chunk, first, first + nr_pages);
	chunk->nr_free += nr_pages;
	if (is_empty(chunk) && pages->nr_empty++ > 0)
		remove_chunk_locked(pages, chunk);
	else
		rebin(pages, chunk);
}

void tmem_pages_init(struct tmem_pages *pages, struct tmem_account *account)
{
	*pages = (struct tmem_pages){ .account = account };
	tmem_lock_init(&pages->lock, TMEM_RANK_PAGES);
}

void tmem_pages_fini(struct tmem_pages *pages)
{
	unsigned bin;

	if (pages->image)
		return; /* it is closed as a whole */
	for (bin = 0; bin < TMEM_CHUNK_BINS; bin++) {
		struct tmem_chunk *chunk = pages->bins[bin], *next;

		for (; chunk; chunk = next) {
			next = chunk->next;
			tmem_map->unmap(chunk, TMEM_CHUNK_BYTES);
		}
	}
}

void *tmem_pages_alloc(struct tmem_pages *pages, unsigned nr_pages)
{
	void *start;

	TMEM_ASSERT(nr_pages && nr_pages <= TMEM_RUN_MAX_PAGES);
	tmem_lock_acquire(&pages->lock);
	start = alloc_locked(pages, nr_pages);
	tmem_lock_release(&pages->lock);
	return start;
}

void tmem_pages_free(struct tmem_pages *pages, void *start, unsigned nr_pages)
{
	tmem_lock_acquire(&pages->lock);
	free_locked(pages, start, nr_pages);
	tmem_lock_release(&pages->lock);
}

void tmem_pages_discard(struct tmem_pages *pages, const struct iovec *ranges,
			unsigned nr)
{
	unsigned i;

	if (!pages->image) {
		tmem_map_discard_all(ranges, nr);
		return;
	}
	for (i = 0; i < nr; i++)
		tmem_image_discard(pages->image, ranges[i].iov_base,
				   ranges[i].iov_len);
}

void tmem_pages_for_each_quiet(const struct tmem_pages *pages,
			       void (*fn)(void *arg, void *start, size_t bytes),
			       void *arg)
{
	struct tmem_chunk *chunk;
	unsigned bin;

	for (bin = 0; bin < TMEM_CHUNK_BINS; bin++)
		for (chunk = pages->bins[bin]; chunk; chunk = chunk->next)
			fn(arg, chunk, TMEM_CHUNK_BYTES);
}

void tmem_pages_for_each(struct tmem_pages *pages,
			 void (*fn)(void *arg, void *start, size_t bytes),
			 void *arg)
{
	tmem_lock_acquire(&pages->lock);
	tmem_pages_for_each_quiet(pages, fn, arg);
	tmem_lock_release(&pages->lock);
}

uint64_t tmem_pages_check(struct tmem_pages *pages)
{
	struct tmem_chunk *chunk;
	unsigned bin, i, longest, nr_chunks = 0, nr_empty = 0;
	uint64_t used_pages = 0;

	tmem_lock_acquire(&pages->lock);
	for (bin = 0; bin < TMEM_CHUNK_BINS; bin++)
		for (chunk = pages->bins[bin]; chunk; chunk = chunk->next) {
			unsigned used = 0;

			for (i = 0; i < TMEM_CHUNK_PAGES; i++)
				used += bit_get(chunk, i);
			find_run(chunk, TMEM_CHUNK_PAGES, &longest);
			for (i = 0; i < TMEM_CHUNK_HEAD_PAGES; i++)
				TMEM_INVARIANT("P1", bit_get(chunk, i));
			TMEM_INVARIANT("P1", chunk->longest == longest);
			TMEM_INVARIANT("P1", chunk->bin == bin &&
						     bin == bin_of(longest));
			TMEM_INVARIANT("P1", chunk->nr_free ==
						     TMEM_CHUNK_PAGES - used);
			nr_chunks++;
			nr_empty += is_empty(chunk);
			used_pages += used;
		}
	TMEM_INVARIANT("P1", nr_chunks == pages->nr_chunks);
	TMEM_INVARIANT("P3", nr_empty == pages->nr_empty && nr_empty <= 1);
	tmem_lock_release(&pages->lock);
	return used_pages - (uint64_t)nr_chunks * TMEM_CHUNK_HEAD_PAGES +
	       nr_chunks * tmem_pages_head_bytes(pages) / 4096;
}

struct tmem_chunk *tmem_pages_adopt(struct tmem_pages *pages, void *start)
{
	struct tmem_chunk *chunk = start;

	if (!tmem_account_take(pages->account, tmem_pages_head_bytes(pages)))
		return NULL;
	init_chunk(pages, chunk);
	tmem_image_adopt(pages->image, chunk);
	tmem_image_find_data(pages->image, chunk, chunk->data);
	return chunk;
}

bool tmem_pages_claim(struct tmem_pages *pages, void *start, unsigned nr_pages)
{
	struct tmem_chunk *chunk = chunk_of(start);
	unsigned first = (unsigned)(((char *)start - (char *)chunk) / 4096);
	unsigned page;

	if (first + nr_pages > TMEM_CHUNK_PAGES)
		return false;
	for (page = first; page < first + nr_pages; page++)
		if (bit_get(chunk, page))
			return false;
	pages->nr_empty -= is_empty(chunk);
	bits_set(chunk, first, first + nr_pages);
	chunk->nr_free -= nr_pages;
	rebin(pages, chunk);
	return true;
}

void tmem_pages_abandon(struct tmem_pages *pages, struct tmem_chunk *chunk)
{
	tmem_lock_acquire(&pages->lock);
	if (is_empty(chunk))
		remove_chunk_locked(pages, chunk);
	tmem_lock_release(&pages->lock);
}
