/* SPDX-License-Identifier: MIT */
/* Walks the arena's invariants S1-S8; their text is in arena.h. */
#include "arena.h"

#include "geometry.h"

struct walk {
	uint64_t nr_ready[TMEM_CLASSES];
	uint64_t nr_used[TMEM_CLASSES];
	struct tmem_arena *arena;
	uint64_t slots;
	uint64_t orphans;
	uint64_t shares;
	uint64_t touched;
	uint64_t idle;
	uint64_t run_pages;
	uint64_t nr_lists;
	uint64_t nr_idle_lists;
};

static void check_bitmaps(const struct tmem_span *span)
{
	uint64_t all = tmem_span_all(span->class);
	unsigned i, p;

	TMEM_INVARIANT("S1", !(span->free & ~all));
	for (i = 0; i < tmem_span_slots(span->class); i++) {
		uint64_t pages = tmem_pages_of_slot(span->class, i);
		bool touched = !(pages & ~span->touched);
		bool free = span->free >> i & 1;

		TMEM_INVARIANT("S1", free || touched);
		TMEM_INVARIANT("S1", (span->ready >> i & 1) ==
					     (uint64_t)(free && touched));
	}
	for (p = 0; p < 64; p++) {
		bool idle = span->touched >> p & 1 &&
			    !(tmem_slots_on_pages(span->class, 1ull << p) &
			      ~span->free);

		TMEM_INVARIANT("S2", (span->idle >> p & 1) == (uint64_t)idle);
	}
	TMEM_INVARIANT("S6", span->touched || span->list == TMEM_SPAN_LEAVING);
}

static void check_shares(struct walk *w, const struct tmem_span *span)
{
	uint32_t nr = atomic_load(&span->shares);
	const struct tmem_shares *shares;
	uint32_t nr_shared = 0;
	unsigned i;

	if (!nr)
		return;
	shares = tmem_records_get(&w->arena->shares, nr,
				  sizeof(struct tmem_shares));
	for (i = 0; i < TMEM_SPAN_SLOTS; i++) {
		if (shares->nr[i]) {
			TMEM_INVARIANT("S7", !(span->free >> i & 1));
			nr_shared++;
			w->shares += shares->nr[i];
		}
		if (shares->orphans >> i & 1) {
			TMEM_INVARIANT("S7", shares->nr[i]);
			w->orphans++;
		}
	}
	TMEM_INVARIANT("S7", nr_shared && nr_shared == shares->nr_shared);
}

static bool is_shared(const struct tmem_arena *arena, uint32_t handle,
		      uint64_t *ret_orphans)
{
	uint32_t nr = atomic_load(&tmem_arena_span(arena, handle)->shares);
	const struct tmem_shares *shares;

	*ret_orphans = 0;
	if (!nr)
		return false;
	shares = tmem_records_get(&arena->shares, nr,
				  sizeof(struct tmem_shares));
	*ret_orphans = shares->orphans;
	return shares->nr[handle % TMEM_SPAN_SLOTS] != 0;
}

static void check_moved(const struct walk *w, uint32_t nr,
			const struct tmem_span *span)
{
	uint64_t orphans, moved;

	for (moved = span->moved; moved; moved &= moved - 1) {
		unsigned i = (unsigned)__builtin_ctzll(moved);
		uint32_t to = span->links[i].next;

		TMEM_INVARIANT("S8", is_shared(w->arena, to, &orphans));
		TMEM_INVARIANT("S8", tmem_arena_span(w->arena, to)->class ==
					     span->class);
		is_shared(w->arena, nr * TMEM_SPAN_SLOTS + i, &orphans);
		TMEM_INVARIANT("S8", (span->free | orphans) >> i & 1);
	}
}

static void check_span(void *arg, uint32_t nr, void *record)
{
	struct walk *w = arg;
	const struct tmem_span *span = record;
	uint16_t want = TMEM_SPAN_NONE;

	TMEM_INVARIANT("S1", nr && span->class && span->class < TMEM_CLASSES);
	check_bitmaps(span);
	check_shares(w, span);
	if (span->list == TMEM_SPAN_LEAVING) {
		check_moved(w, nr, span);
	} else {
		if (span->ready)
			want = TMEM_SPAN_READY;
		else if (span->free)
			want = TMEM_SPAN_OPEN;
		TMEM_INVARIANT("S3", span->list == want);
		w->nr_ready[span->class] +=
			(uint64_t)__builtin_popcountll(span->ready);
	}
	w->nr_lists += want != TMEM_SPAN_NONE;
	w->nr_idle_lists += span->idle != 0;
	w->nr_used[span->class] += (uint64_t)__builtin_popcountll(
		tmem_span_all(span->class) & ~span->free);
	w->slots += (uint64_t)__builtin_popcountll(tmem_span_all(span->class) &
						   ~span->free);
	w->touched += (uint64_t)__builtin_popcountll(span->touched);
	w->idle += (uint64_t)__builtin_popcountll(span->idle);
	w->run_pages += tmem_span_pages(span->class);
}

static const struct tmem_span *span_nr(const struct tmem_arena *arena,
				       uint32_t nr)
{
	return tmem_records_get(&arena->spans, nr, sizeof(struct tmem_span));
}

static uint64_t check_list(const struct tmem_arena *arena, unsigned c,
			   unsigned frozen, unsigned list)
{
	uint32_t head = arena->classes[c].lists[frozen][list], nr = head;
	uint64_t length = 0;

	if (!head)
		return 0;
	do {
		const struct tmem_span *span = span_nr(arena, nr);

		TMEM_INVARIANT("S3", span->class == c && span->list == list);
		TMEM_INVARIANT("S3", (span->epoch < arena->frozen_before) ==
					     (frozen != 0));
		TMEM_INVARIANT("S3", span_nr(arena, span->next)->prev == nr);
		length++;
		nr = span->next;
	} while (nr != head);
	return length;
}

static uint64_t check_idle_list(const struct tmem_arena *arena, unsigned c)
{
	uint64_t length = 0, pages = 0;
	uint32_t nr, prev = 0;

	for (nr = arena->classes[c].idle; nr; length++) {
		const struct tmem_span *span = span_nr(arena, nr);

		TMEM_INVARIANT("S4", span->class == c && span->idle);
		TMEM_INVARIANT("S4", span->idle_prev == prev);
		pages += (uint64_t)__builtin_popcountll(span->idle);
		prev = nr;
		nr = span->idle_next;
	}
	TMEM_INVARIANT("S4", pages == arena->classes[c].nr_idle);
	return length;
}

void tmem_arena_check(struct tmem_arena *arena, uint64_t *ret_slots,
		      uint64_t *ret_orphans, uint64_t *ret_shares)
{
	struct walk w = { .arena = arena };
	uint64_t nr_lists = 0, nr_idle_lists = 0, used_pages;
	unsigned c, frozen, list;

	tmem_records_check(&arena->spans);
	tmem_records_check(&arena->shares);
	tmem_records_check(&arena->ages);
	tmem_records_for_each(&arena->spans, check_span, &w);
	for (c = 1; c < TMEM_CLASSES; c++) {
		for (frozen = 0; frozen < 2; frozen++)
			for (list = TMEM_SPAN_READY; list <= TMEM_SPAN_OPEN;
			     list++)
				nr_lists += check_list(arena, c, frozen, list);
		nr_idle_lists += check_idle_list(arena, c);
		TMEM_INVARIANT("S3",
			       w.nr_ready[c] == arena->classes[c].nr_ready);
		TMEM_INVARIANT("S3", w.nr_used[c] == arena->classes[c].nr_used);
	}
	TMEM_INVARIANT("S3", nr_lists == w.nr_lists);
	TMEM_INVARIANT("S4", nr_idle_lists == w.nr_idle_lists);
	TMEM_INVARIANT("S4", w.idle == atomic_load(&arena->nr_idle));
	TMEM_INVARIANT("S5", w.touched == atomic_load(&arena->nr_touched));
	used_pages = tmem_pages_check(&arena->pages);
	TMEM_INVARIANT("S5", used_pages * 4096 ==
				     w.run_pages * 4096 +
					     arena->pages.nr_chunks *
						     tmem_pages_head_bytes(
							     &arena->pages));
	*ret_slots = w.slots;
	*ret_orphans = w.orphans;
	*ret_shares = w.shares;
}
