/* SPDX-License-Identifier: MIT */
/*
 * Page runs in an image, and how they are found again: see image.h.  `data`
 * of a chunk is the part of what the last process left that is not yet known
 * to belong to anything; it is all zeroes once recovery is over.
 */
#include "image.h"
#include "pages.h"

static struct tmem_chunk *chunk_of(void *start)
{
	return (struct tmem_chunk *)((char *)start - ((uintptr_t)start &
						      (TMEM_CHUNK_BYTES - 1)));
}

static unsigned page_of(const void *start)
{
	return (unsigned)(((uintptr_t)start & (TMEM_CHUNK_BYTES - 1)) / 4096);
}

static bool has_data(const struct tmem_chunk *chunk, unsigned page)
{
	return chunk->data[page / 64] >> (page % 64) & 1;
}

bool tmem_pages_populate(struct tmem_pages *pages, void *start,
			 unsigned nr_pages)
{
	const struct tmem_chunk *chunk = chunk_of(start);
	unsigned first = page_of(start), there = 0;

	if (!pages->image)
		return true;
	while (there < nr_pages && has_data(chunk, first + there))
		there++;
	return there == nr_pages ||
	       tmem_image_populate(pages->image, start,
				   (size_t)nr_pages * 4096);
}

bool tmem_pages_have_data(void *start, size_t bytes)
{
	const struct tmem_chunk *chunk = chunk_of(start);
	unsigned page = page_of(start);
	unsigned end = page_of((char *)start + bytes - 1);

	while (page <= end && has_data(chunk, page))
		page++;
	return page > end;
}

void tmem_pages_keep_data(void *start, uint64_t kept)
{
	struct tmem_chunk *chunk = chunk_of(start);
	unsigned first = page_of(start);

	for (; kept; kept &= kept - 1) {
		unsigned page = first + (unsigned)__builtin_ctzll(kept);

		chunk->data[page / 64] &= ~(1ull << page % 64);
	}
}

static void finish_chunk(void *arg, void *start, size_t bytes)
{
	struct tmem_pages *pages = arg;
	struct tmem_chunk *chunk = start;
	unsigned page = TMEM_CHUNK_HEAD_PAGES, first;

	(void)bytes;
	while (page < TMEM_CHUNK_PAGES) {
		first = page;
		while (page < TMEM_CHUNK_PAGES && has_data(chunk, page))
			page++;
		if (page > first)
			tmem_image_discard(pages->image,
					   (char *)start + first * 4096ul,
					   (page - first) * 4096ul);
		else
			page++;
	}
	for (page = 0; page < TMEM_CHUNK_WORDS; page++)
		chunk->data[page] = 0;
}

void tmem_pages_finish(struct tmem_pages *pages)
{
	tmem_pages_for_each(pages, finish_chunk, pages);
}
