/* SPDX-License-Identifier: MIT */
/*
 * An arena taken up from its image: see image.h.
 *
 * The runs say where spans are and of which class; from then on a slot that
 * has a word is a candidate, and who knows what refers to it (core/recover.c)
 * keeps it or not.  The rules of arena.h hold all the time, with slots that
 * were not yet looked at counted as free: so nothing may be trimmed meanwhile.
 * Only what the kernel has no hole for is read: reading a hole would fill it.
 */
#include <errno.h>

#include "arena.h"
#include "geometry.h"
#include "image.h"

/* One span, where a run begins; without a span nothing begins there. */
static int adopt_run(struct tmem_arena *arena, char *base)
{
	struct tmem_image *image = arena->pages.image;
	uint32_t nr;
	unsigned c;
	int r;

	if (!tmem_image_get_run(image, base, &nr, &c) || c >= TMEM_CLASSES)
		return -ENOENT;
	/* Its record would take memory for all that are before it. */
	if (nr > tmem_image_most(image, 1))
		return -ERANGE;
	r = tmem_records_alloc_at(&arena->spans, nr);
	if (r < 0)
		return r;
	if (!tmem_pages_claim(&arena->pages, base, tmem_span_pages(c))) {
		tmem_records_free(&arena->spans, nr);
		return -EEXIST;
	}
	tmem_arena_adopt_span(arena, nr, c, base);
	return 0;
}

static int adopt_chunk(struct tmem_arena *arena, char *start)
{
	struct tmem_chunk *chunk = tmem_pages_adopt(&arena->pages, start);
	unsigned page;
	int r;

	if (!chunk)
		return -ENOMEM;
	for (page = TMEM_CHUNK_HEAD_PAGES; page < TMEM_CHUNK_PAGES; page++) {
		char *base = start + page * 4096ul;

		r = adopt_run(arena, base);
		if (r == -ENOMEM)
			return r;
		if (r < 0)
			tmem_image_set_run(arena->pages.image, base, 0, 0);
	}
	tmem_pages_abandon(&arena->pages, chunk);
	return 0;
}

int tmem_arena_adopt(struct tmem_arena *arena)
{
	uint32_t nr = 1;
	char *start;
	int r = 0;

	arena->recovering = true;
	while (r == 0 && (start = tmem_image_next(arena->pages.image, &nr))) {
		r = adopt_chunk(arena, start);
		nr++;
	}
	return r;
}

static struct tmem_span *span_nr(const struct tmem_arena *arena, uint32_t nr)
{
	return tmem_records_get(&arena->spans, nr, sizeof(struct tmem_span));
}

static void scan_span(struct tmem_arena *arena, uint32_t nr,
		      void (*fn)(void *arg, uint32_t handle,
				 struct tmem_slot *slot),
		      void *arg)
{
	const struct tmem_span *span = span_nr(arena, nr);
	unsigned i;

	for (i = 0; i < tmem_span_slots(span->class); i++) {
		uint32_t handle = nr * TMEM_SPAN_SLOTS + i;
		struct tmem_slot *slot = tmem_arena_slot(arena, handle);

		if (span->free >> i & 1 &&
		    tmem_pages_have_data(slot, sizeof(*slot)) &&
		    slot->form_generation)
			fn(arg, handle, slot);
	}
}

void tmem_arena_scan(struct tmem_arena *arena,
		     void (*fn)(void *arg, uint32_t handle,
				struct tmem_slot *slot),
		     void *arg)
{
	uint32_t nr, end = arena->spans.nr_entries * arena->spans.per_page;

	for (nr = 1; nr <= end; nr++)
		if (tmem_records_has(&arena->spans, nr))
			scan_span(arena, nr, fn, arg);
}

bool tmem_arena_is_sound(const struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_slot *slot = tmem_arena_slot(arena, handle);
	size_t bytes = sizeof(*slot) + slot->length;

	return bytes <= tmem_arena_size_of(arena, handle) &&
	       tmem_slot_epoch(slot) < TMEM_SLOT_EPOCHS_END &&
	       tmem_pages_have_data(slot, bytes) &&
	       tmem_arena_is_whole(arena, handle);
}

bool tmem_arena_has(const struct tmem_arena *arena, uint32_t handle)
{
	uint32_t nr = handle / TMEM_SPAN_SLOTS;

	return tmem_records_has(&arena->spans, nr) &&
	       handle % TMEM_SPAN_SLOTS <
		       tmem_span_slots(span_nr(arena, nr)->class);
}

bool tmem_arena_is_kept(const struct tmem_arena *arena, uint32_t handle)
{
	return tmem_arena_has(arena, handle) &&
	       !(tmem_arena_span(arena, handle)->free >>
			 handle % TMEM_SPAN_SLOTS &
		 1);
}

bool tmem_arena_is_shared(const struct tmem_arena *arena, uint32_t handle)
{
	uint32_t nr = atomic_load_explicit(
		&tmem_arena_span(arena, handle)->shares, memory_order_relaxed);
	const struct tmem_shares *shares;

	if (!nr)
		return false;
	shares = tmem_records_get(&arena->shares, nr,
				  sizeof(struct tmem_shares));
	return shares->nr[handle % TMEM_SPAN_SLOTS] != 0;
}

static void clear_slot(void *arg, uint32_t handle, struct tmem_slot *slot)
{
	(void)arg;
	(void)handle;
	tmem_slot_clear(slot);
}

void tmem_arena_finish(struct tmem_arena *arena)
{
	uint32_t nr, end = arena->spans.nr_entries * arena->spans.per_page;

	tmem_arena_scan(arena, clear_slot, NULL);
	for (nr = 1; nr <= end; nr++)
		if (tmem_records_has(&arena->spans, nr))
			tmem_pages_keep_data(span_nr(arena, nr)->base,
					     span_nr(arena, nr)->touched);
	tmem_pages_finish(&arena->pages);
	for (nr = 1; nr <= end; nr++)
		if (tmem_records_has(&arena->spans, nr))
			tmem_arena_drop_span(arena, nr);
	arena->recovering = false;
	tmem_arena_trim(arena);
}
