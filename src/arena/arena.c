/* SPDX-License-Identifier: MIT */
/* Spans, classes and slots; the model is in arena.h. */
#include "arena_impl.h"

#include <errno.h>

#include "geometry.h"
#include "image.h"
#include "map.h"

enum {
	SPAN_RUNS = 32 /* of pages, at most */
};

static struct tmem_span *span_nr(const struct tmem_arena *arena, uint32_t nr)
{
	return tmem_records_get(&arena->spans, nr, sizeof(struct tmem_span));
}

static bool is_frozen(const struct tmem_arena *arena,
		      const struct tmem_span *span)
{
	return span->epoch < arena->frozen_before;
}

/* The ready and open lists: circular, so that they can be joined. */

static void list_add(struct tmem_arena *arena, uint32_t *head, uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);

	if (!*head) {
		span->next = span->prev = nr;
	} else {
		struct tmem_span *first = span_nr(arena, *head);

		span->next = *head;
		span->prev = first->prev;
		span_nr(arena, first->prev)->next = nr;
		first->prev = nr;
	}
	*head = nr;
}

static void list_remove(struct tmem_arena *arena, uint32_t *head, uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);

	span_nr(arena, span->prev)->next = span->next;
	span_nr(arena, span->next)->prev = span->prev;
	if (*head == nr)
		*head = span->next == nr ? 0 : span->next;
}

/* Appends list *from to *to; *from is empty then. */
static void list_join(struct tmem_arena *arena, uint32_t *to, uint32_t *from)
{
	uint32_t last_to, last_from;

	if (*to && *from) {
		last_to = span_nr(arena, *to)->prev;
		last_from = span_nr(arena, *from)->prev;
		span_nr(arena, last_to)->next = *from;
		span_nr(arena, *from)->prev = last_to;
		span_nr(arena, last_from)->next = *to;
		span_nr(arena, *to)->prev = last_from;
	} else if (*from) {
		*to = *from;
	}
	*from = 0;
}

/* Puts a span on the list that S3 wants. */
static void relist(struct tmem_arena *arena, struct tmem_class *class,
		   uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);
	uint32_t *lists = class->lists[is_frozen(arena, span)];
	uint16_t want = TMEM_SPAN_NONE;

	if (span->list == TMEM_SPAN_LEAVING)
		return;
	if (span->ready)
		want = TMEM_SPAN_READY;
	else if (span->free)
		want = TMEM_SPAN_OPEN;
	if (want == span->list)
		return;
	if (span->list != TMEM_SPAN_NONE)
		list_remove(arena, &lists[span->list], nr);
	if (want != TMEM_SPAN_NONE)
		list_add(arena, &lists[want], nr);
	span->list = want;
}

static void set_ready(struct tmem_class *class, struct tmem_span *span,
		      uint64_t ready)
{
	if (span->list != TMEM_SPAN_LEAVING)
		class->nr_ready += (uint64_t)__builtin_popcountll(ready) -
				   (uint64_t)__builtin_popcountll(span->ready);
	span->ready = ready;
}

/* The idle list and its counts. */

static void idle_link(struct tmem_arena *arena, struct tmem_class *class,
		      uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);

	span->idle_prev = 0;
	span->idle_next = class->idle;
	if (class->idle)
		span_nr(arena, class->idle)->idle_prev = nr;
	class->idle = nr;
}

static void idle_unlink(struct tmem_arena *arena, struct tmem_class *class,
			uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);

	if (span->idle_prev)
		span_nr(arena, span->idle_prev)->idle_next = span->idle_next;
	else
		class->idle = span->idle_next;
	if (span->idle_next)
		span_nr(arena, span->idle_next)->idle_prev = span->idle_prev;
}

static void set_idle(struct tmem_arena *arena, struct tmem_class *class,
		     uint32_t nr, uint64_t idle)
{
	struct tmem_span *span = span_nr(arena, nr);
	uint64_t before = span->idle;
	int delta = __builtin_popcountll(idle) - __builtin_popcountll(before);

	span->idle = idle;
	class->nr_idle += (uint32_t)delta;
	atomic_fetch_add_explicit(&arena->nr_idle, (uint64_t)(int64_t)delta,
				  memory_order_relaxed);
	if (idle && !before)
		idle_link(arena, class, nr);
	else if (!idle && before)
		idle_unlink(arena, class, nr);
}

/* Spans. */

static void init_span(struct tmem_arena *arena, uint32_t nr, unsigned c)
{
	struct tmem_span *span = span_nr(arena, nr);

	span->free = tmem_span_all(c);
	span->epoch = arena->epoch;
	span->class = (uint16_t)c;
	relist(arena, &arena->classes[c], nr);
}

static uint32_t create_span(struct tmem_arena *arena, unsigned c)
{
	uint32_t nr = tmem_records_alloc(&arena->spans);
	struct tmem_span *span;

	if (!nr)
		return 0;
	span = span_nr(arena, nr);
	span->base = tmem_pages_alloc(&arena->pages, tmem_span_pages(c));
	if (!span->base) {
		tmem_records_free(&arena->spans, nr);
		return 0;
	}
	if (tmem_arena_lasts(arena))
		tmem_image_set_run(arena->pages.image, span->base, nr, c);
	init_span(arena, nr, c);
	return nr;
}

/* No slot is in use, no page touched. */
static void destroy_span(struct tmem_arena *arena, uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);
	struct tmem_class *class = &arena->classes[span->class];
	uint32_t ages;

	TMEM_ASSERT(!span->touched && !span->idle && !span->ready);
	list_remove(arena, &class->lists[is_frozen(arena, span)][span->list],
		    nr);
	if (tmem_arena_lasts(arena))
		tmem_image_set_run(arena->pages.image, span->base, 0, 0);
	tmem_pages_free(&arena->pages, span->base,
			tmem_span_pages(span->class));
	ages = atomic_load_explicit(&span->ages, memory_order_relaxed);
	if (ages)
		tmem_records_free(&arena->ages, ages);
	tmem_records_free(&arena->spans, nr);
}

static void give_pages(struct tmem_arena *arena, uint64_t nr_pages)
{
	atomic_fetch_sub_explicit(&arena->nr_touched, nr_pages,
				  memory_order_relaxed);
	tmem_account_give(arena->account, nr_pages * 4096);
}

/* Fresh pages of a slot: neighbours, but for those that others touched. */
static bool populate(struct tmem_arena *arena, const struct tmem_span *span,
		     uint64_t fresh)
{
	unsigned first = (unsigned)__builtin_ctzll(fresh);
	unsigned last = 63 - (unsigned)__builtin_clzll(fresh);

	return tmem_pages_populate(&arena->pages,
				   span->base + (size_t)first * 4096,
				   last - first + 1);
}

static bool take_pages(struct tmem_arena *arena, const struct tmem_span *span,
		       uint64_t fresh)
{
	uint64_t nr_pages = (uint64_t)__builtin_popcountll(fresh);

	if (!tmem_account_take(arena->account, nr_pages * 4096))
		return false;
	if (tmem_arena_lasts(arena) && !populate(arena, span, fresh)) {
		tmem_account_give(arena->account, nr_pages * 4096);
		return false;
	}
	atomic_fetch_add_explicit(&arena->nr_touched, nr_pages,
				  memory_order_relaxed);
	return true;
}

/* The runs of those pages, as ranges; returns how many. */
static unsigned add_ranges(const struct tmem_span *span, uint64_t pages,
			   struct iovec *ranges)
{
	unsigned nr = 0;

	while (pages) {
		unsigned first = (unsigned)__builtin_ctzll(pages);
		uint64_t run = pages >> first;
		unsigned n = ~run ? (unsigned)__builtin_ctzll(~run) : 64;

		ranges[nr++] = (struct iovec){
			.iov_base = span->base + (size_t)first * 4096,
			.iov_len = (size_t)n * 4096,
		};
		pages &= ~tmem_bits(first, first + n - 1);
	}
	return nr;
}

/* Gives a span's idle pages back, run by run. */
static void discard_idle(struct tmem_arena *arena, struct tmem_class *class,
			 uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);
	struct iovec ranges[SPAN_RUNS];
	uint64_t idle = span->idle;
	unsigned i, nr_ranges = add_ranges(span, idle, ranges);

	set_idle(arena, class, nr, 0);
	/* Not at once: that is another system call, which a filter may mind. */
	for (i = 0; i < nr_ranges; i++)
		tmem_pages_discard(&arena->pages, &ranges[i], 1);
	span->touched &= ~idle;
	set_ready(class, span,
		  span->ready & ~tmem_slots_on_pages(span->class, idle));
	give_pages(arena, (uint64_t)__builtin_popcountll(idle));
	if (span->free == tmem_span_all(span->class) &&
	    span->list != TMEM_SPAN_LEAVING)
		destroy_span(arena, nr);
	else
		relist(arena, class, nr);
}

/* Slots. */

/* Fresh pages may have made other free slots on them ready. */
static void find_ready(struct tmem_class *class, struct tmem_span *span,
		       uint64_t fresh)
{
	uint64_t slots = tmem_slots_on_pages(span->class, fresh) & span->free;
	uint64_t ready = span->ready;

	for (; slots; slots &= slots - 1) {
		unsigned i = (unsigned)__builtin_ctzll(slots);

		if (!(tmem_pages_of_slot(span->class, i) & ~span->touched))
			ready |= 1ull << i;
	}
	set_ready(class, span, ready);
}

/* Hands out slot i; false if that needs memory which the limit denies. */
static bool take_slot(struct tmem_arena *arena, struct tmem_class *class,
		      uint32_t nr, unsigned i)
{
	struct tmem_span *span = span_nr(arena, nr);
	uint64_t pages = tmem_pages_of_slot(span->class, i);
	uint64_t fresh = pages & ~span->touched;

	if (fresh && !take_pages(arena, span, fresh))
		return false;
	span->free &= ~(1ull << i);
	class->nr_used++;
	set_ready(class, span, span->ready & ~(1ull << i));
	span->touched |= fresh;
	if (span->idle & pages)
		set_idle(arena, class, nr, span->idle & ~pages);
	if (fresh)
		find_ready(class, span, fresh);
	relist(arena, class, nr);
	return true;
}

static uint32_t grow_locked(struct tmem_arena *arena, struct tmem_class *class)
	TMEM_REQUIRES(&class->lock)
{
	uint32_t nr = class->lists[0][TMEM_SPAN_OPEN];
	unsigned i;

	if (!nr)
		nr = create_span(arena, (unsigned)(class - arena->classes));
	if (!nr)
		return 0;
	i = (unsigned)__builtin_ctzll(span_nr(arena, nr)->free);
	if (take_slot(arena, class, nr, i))
		return nr * TMEM_SPAN_SLOTS + i;
	if (!span_nr(arena, nr)->touched)
		destroy_span(arena, nr);
	return 0;
}

static uint32_t alloc_class(struct tmem_arena *arena, unsigned c, bool may_grow)
{
	struct tmem_class *class = &arena->classes[c];
	uint32_t nr, handle = 0;
	unsigned i;

	tmem_lock_acquire(&class->lock);
	nr = class->lists[0][TMEM_SPAN_READY];
	if (nr) {
		i = (unsigned)__builtin_ctzll(span_nr(arena, nr)->ready);
		take_slot(arena, class, nr, i);
		handle = nr * TMEM_SPAN_SLOTS + i;
	} else if (may_grow) {
		handle = grow_locked(arena, class);
	}
	tmem_lock_release(&class->lock);
	return handle;
}

static void free_locked(struct tmem_arena *arena, struct tmem_class *class,
			uint32_t handle) TMEM_REQUIRES(&class->lock)
{
	uint32_t nr = handle / TMEM_SPAN_SLOTS;
	unsigned i = handle % TMEM_SPAN_SLOTS;
	struct tmem_span *span = span_nr(arena, nr);
	uint64_t pages = tmem_pages_of_slot(span->class, i);
	uint64_t idle = span->idle;

	TMEM_ASSERT(!(span->free >> i & 1));
	if (tmem_arena_lasts(arena))
		tmem_slot_clear(tmem_arena_slot(arena, handle));
	span->free |= 1ull << i;
	class->nr_used--;
	set_ready(class, span, span->ready | 1ull << i);
	for (; pages; pages &= pages - 1) {
		uint64_t page = pages & -pages;

		if (!(tmem_slots_on_pages(span->class, page) & ~span->free))
			idle |= page;
	}
	relist(arena, class, nr);
	if (idle != span->idle)
		set_idle(arena, class, nr, idle);
}

void tmem_arena_free_locked(struct tmem_arena *arena, struct tmem_class *class,
			    uint32_t handle)
{
	free_locked(arena, class, handle);
}

static void trim_class(struct tmem_arena *arena, unsigned c)
{
	struct tmem_class *class = &arena->classes[c];

	tmem_lock_acquire(&class->lock);
	while (class->idle)
		discard_idle(arena, class, class->idle);
	tmem_lock_release(&class->lock);
}

static uint64_t load(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

/* Keeps the idle pages within bounds: class after class, in turn. */
void tmem_arena_balance(struct tmem_arena *arena)
{
	uint64_t max =
		TMEM_IDLE_PAGES + load(&arena->nr_touched) / TMEM_IDLE_FRACTION;
	unsigned i;

	if (load(&arena->nr_idle) <= max || arena->recovering)
		return;
	for (i = 1; i < TMEM_CLASSES && load(&arena->nr_idle) > max / 2; i++)
		trim_class(arena,
			   1 + atomic_fetch_add_explicit(&arena->hand, 1,
							 memory_order_relaxed) %
					   (TMEM_CLASSES - 1));
}

void tmem_arena_init(struct tmem_arena *arena, struct tmem_meta *meta,
		     struct tmem_account *account)
{
	unsigned c;

	arena->account = account;
	arena->sparse_part = TMEM_SPARSE_PART;
	arena->sparse_least = TMEM_SPARSE_LEAST;
	arena->meta = meta;
	tmem_pages_init(&arena->pages, account);
	tmem_records_init(&arena->spans, meta, sizeof(struct tmem_span));
	tmem_records_init(&arena->shares, meta, sizeof(struct tmem_shares));
	tmem_records_init(&arena->ages, meta, sizeof(struct tmem_ages));
	for (c = 0; c < TMEM_CLASSES; c++)
		tmem_lock_init(&arena->classes[c].lock, TMEM_RANK_CLASS);
}

void tmem_arena_fini(struct tmem_arena *arena)
{
	tmem_pages_fini(&arena->pages);
}

void tmem_arena_trim(struct tmem_arena *arena)
{
	unsigned c;

	for (c = 1; c < TMEM_CLASSES; c++)
		trim_class(arena, c);
}

/* May data take more of the memory, but for the spare part of it? */
static bool may_grow(const struct tmem_arena *arena, uint64_t spare_bytes)
{
	return !spare_bytes ||
	       tmem_account_held(arena->account) + spare_bytes <=
		       tmem_account_limit(arena->account);
}

uint32_t tmem_arena_alloc(struct tmem_arena *arena, unsigned length,
			  uint64_t spare_bytes)
{
	unsigned c = tmem_arena_slot_bytes(length) / TMEM_SLOT_GRAIN;
	unsigned up;
	uint32_t handle;

	TMEM_ASSERT(c < TMEM_CLASSES);
	handle = alloc_class(arena, c, may_grow(arena, spare_bytes));
	if (handle)
		return handle;
	/* What other classes hold idle may be enough. */
	if (load(&arena->nr_idle)) {
		tmem_arena_trim(arena);
		handle = alloc_class(arena, c, may_grow(arena, spare_bytes));
	}
	/* Else a hole that is a little too large is better than none. */
	for (up = c + 1; !handle && up <= c + TMEM_CLASSES_UP; up++) {
		if (up >= TMEM_CLASSES)
			break;
		handle = alloc_class(arena, up, false);
	}
	return handle;
}

static void orphan_locked(struct tmem_arena *arena, uint32_t shares,
			  uint32_t handle)
{
	struct tmem_slot *slot = tmem_arena_slot(arena, handle);

	tmem_arena_shares_nr(arena, shares)->orphans |=
		1ull << handle % TMEM_SPAN_SLOTS;
	if (tmem_arena_lasts(arena))
		__atomic_fetch_or(&slot->form_generation, TMEM_SLOT_ORPHAN,
				  __ATOMIC_RELEASE);
}

static bool release(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	uint32_t nr, i = handle % TMEM_SPAN_SLOTS;
	bool shared;

	tmem_lock_acquire(&class->lock);
	nr = atomic_load_explicit(&tmem_arena_span(arena, handle)->shares,
				  memory_order_relaxed);
	shared = nr && tmem_arena_shares_nr(arena, nr)->nr[i];
	if (shared)
		orphan_locked(arena, nr, handle);
	else
		free_locked(arena, class, handle);
	tmem_lock_release(&class->lock);
	return !shared;
}

bool tmem_arena_release(struct tmem_arena *arena, uint32_t handle)
{
	bool freed = release(arena, handle);

	tmem_arena_balance(arena);
	return freed;
}

void tmem_arena_release_moved(struct tmem_arena *arena, uint32_t handle)
{
	release(arena, handle);
}

bool tmem_arena_age(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_span *span = tmem_arena_span(arena, handle);
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	uint32_t nr;

	if (atomic_load_explicit(&span->ages, memory_order_acquire))
		return true;
	tmem_lock_acquire(&class->lock);
	nr = atomic_load_explicit(&span->ages, memory_order_relaxed);
	if (!nr)
		nr = tmem_records_alloc(&arena->ages);
	atomic_store_explicit(&span->ages, nr, memory_order_release);
	tmem_lock_release(&class->lock);
	return nr != 0;
}

bool tmem_arena_may_rewrite(const struct tmem_arena *arena, uint32_t handle,
			    unsigned length)
{
	const struct tmem_span *span = tmem_arena_span(arena, handle);

	return tmem_arena_slot_bytes(length) ==
		       span->class * (unsigned)TMEM_SLOT_GRAIN &&
	       !is_frozen(arena, span) && !tmem_arena_lasts(arena) &&
	       !atomic_load_explicit(&span->shares, memory_order_acquire);
}

/* Of the spans that have had ready slots for longest, the emptiest. */
static uint32_t sparsest_locked(struct tmem_arena *arena,
				struct tmem_class *class, bool shared_too)
	TMEM_REQUIRES(&class->lock)
{
	uint32_t *head = &class->lists[0][TMEM_SPAN_READY];
	uint32_t nr = *head, best = 0;
	int most = 0;
	unsigned i;

	for (i = 0; nr && i < TMEM_SPARSE_TRIES; i++) {
		const struct tmem_span *span;
		int free;

		nr = span_nr(arena, nr)->prev;
		span = span_nr(arena, nr);
		free = __builtin_popcountll(span->free);
		if (free > most &&
		    (shared_too ||
		     !atomic_load_explicit(&span->shares,
					   memory_order_relaxed))) {
			most = free;
			best = nr;
		}
		if (nr == *head)
			break;
	}
	/* Others are at the end the next time. */
	*head = nr;
	return best;
}

/* Ready slots beyond the part that a class may have; 0: it is not sparse. */
static uint64_t excess_locked(const struct tmem_arena *arena,
			      const struct tmem_class *class)
{
	uint64_t part = class->nr_used / arena->sparse_part;

	if (arena->frozen_before || class->nr_ready <= arena->sparse_least ||
	    class->nr_ready <= part)
		return 0;
	return class->nr_ready - part;
}

uint32_t tmem_arena_leave(struct tmem_arena *arena, unsigned c, bool shared_too)
{
	struct tmem_class *class = &arena->classes[c];
	struct tmem_span *span;
	uint32_t nr = 0;
	uint64_t used, ready;

	tmem_lock_acquire(&class->lock);
	if (excess_locked(arena, class))
		nr = sparsest_locked(arena, class, shared_too);
	if (nr) {
		span = span_nr(arena, nr);
		used = (uint64_t)__builtin_popcountll(tmem_span_all(c) &
						      ~span->free);
		ready = (uint64_t)__builtin_popcountll(span->ready);
		if (class->nr_ready - ready < used) {
			nr = 0;
		} else {
			list_remove(arena, &class->lists[0][span->list], nr);
			class->nr_ready -= ready;
			span->list = TMEM_SPAN_LEAVING;
			span->moved = 0;
		}
	}
	tmem_lock_release(&class->lock);
	return nr;
}

uint64_t tmem_arena_excess_bytes(struct tmem_arena *arena)
{
	uint64_t bytes = 0;
	unsigned c;

	for (c = 1; c < TMEM_CLASSES; c++) {
		struct tmem_class *class = &arena->classes[c];

		tmem_lock_acquire(&class->lock);
		bytes += excess_locked(arena, class) * c * TMEM_SLOT_GRAIN;
		tmem_lock_release(&class->lock);
	}
	return bytes;
}

uint32_t tmem_arena_find(struct tmem_arena *arena, uint32_t handle)
{
	return alloc_class(arena, tmem_arena_span(arena, handle)->class, false);
}

bool tmem_arena_is_movable(struct tmem_arena *arena, uint32_t handle)
{
	const struct tmem_span *span = tmem_arena_span(arena, handle);
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	unsigned i = handle % TMEM_SPAN_SLOTS;
	uint32_t shares;
	bool movable;

	tmem_lock_acquire(&class->lock);
	shares = atomic_load_explicit(&span->shares, memory_order_relaxed);
	/* The largest class has a slot less, which is neither free nor used. */
	movable = i < tmem_span_slots(span->class) && !(span->free >> i & 1) &&
		  !(shares && tmem_arena_shares_nr(arena, shares)->nr[i]);
	tmem_lock_release(&class->lock);
	return movable;
}

/* Takes a leaving span's idle pages off the idle list; returns which. */
static uint64_t take_idle(struct tmem_arena *arena, uint32_t nr)
{
	struct tmem_span *span = span_nr(arena, nr);
	struct tmem_class *class = &arena->classes[span->class];
	uint64_t idle;

	tmem_lock_acquire(&class->lock);
	TMEM_ASSERT(span->list == TMEM_SPAN_LEAVING);
	idle = span->idle;
	if (idle)
		set_idle(arena, class, nr, 0);
	tmem_lock_release(&class->lock);
	return idle;
}

/*
 * These pages have been discarded.  The span goes, or is listed again, but
 * for one whose slots have moved and may be asked for yet: then true.
 */
static bool settle_one(struct tmem_arena *arena, uint32_t nr, uint64_t pages)
{
	struct tmem_span *span = span_nr(arena, nr);
	struct tmem_class *class = &arena->classes[span->class];
	bool stays;

	tmem_lock_acquire(&class->lock);
	span->touched &= ~pages;
	set_ready(class, span,
		  span->ready & ~tmem_slots_on_pages(span->class, pages));
	give_pages(arena, (uint64_t)__builtin_popcountll(pages));
	stays = span->moved != 0;
	if (!stays) {
		span->list = TMEM_SPAN_NONE;
		class->nr_ready += (uint64_t)__builtin_popcountll(span->ready);
		relist(arena, class, nr);
		if (!span->touched)
			destroy_span(arena, nr);
	}
	tmem_lock_release(&class->lock);
	return stays;
}

/*
 * While no lock is held other slots of these spans may be freed, which touches
 * other pages; no slot is handed out, so nobody writes to the pages taken.
 */
unsigned tmem_arena_settle(struct tmem_arena *arena, uint32_t *spans,
			   unsigned nr)
{
	uint64_t pages[TMEM_LEAVING_MAX];
	struct iovec ranges[TMEM_MAP_RANGES];
	unsigned i, nr_ranges = 0, nr_left = 0;

	TMEM_ASSERT(nr <= TMEM_LEAVING_MAX);
	for (i = 0; i < nr; i++) {
		pages[i] = take_idle(arena, spans[i]);
		if (nr_ranges + SPAN_RUNS > TMEM_MAP_RANGES) {
			tmem_pages_discard(&arena->pages, ranges, nr_ranges);
			nr_ranges = 0;
		}
		nr_ranges += add_ranges(span_nr(arena, spans[i]), pages[i],
					&ranges[nr_ranges]);
	}
	if (nr_ranges)
		tmem_pages_discard(&arena->pages, ranges, nr_ranges);
	for (i = 0; i < nr; i++)
		if (settle_one(arena, spans[i], pages[i]))
			spans[nr_left++] = spans[i];
	return nr_left;
}

/* All listed spans become frozen, or not. */
static void move_lists(struct tmem_arena *arena, unsigned frozen)
{
	unsigned c, list;

	for (c = 1; c < TMEM_CLASSES; c++)
		for (list = TMEM_SPAN_READY; list <= TMEM_SPAN_OPEN; list++)
			list_join(arena, &arena->classes[c].lists[frozen][list],
				  &arena->classes[c].lists[!frozen][list]);
}

void tmem_arena_freeze(struct tmem_arena *arena)
{
	move_lists(arena, 1);
	arena->frozen_before = ++arena->epoch;
}

void tmem_arena_thaw(struct tmem_arena *arena)
{
	move_lists(arena, 0);
	arena->frozen_before = 0;
}

void tmem_arena_adopt_span(struct tmem_arena *arena, uint32_t nr, unsigned c,
			   char *base)
{
	span_nr(arena, nr)->base = base;
	init_span(arena, nr, c);
}

void tmem_arena_drop_span(struct tmem_arena *arena, uint32_t nr)
{
	if (!span_nr(arena, nr)->touched)
		destroy_span(arena, nr);
}

int tmem_arena_keep(struct tmem_arena *arena, uint32_t handle)
{
	struct tmem_class *class = tmem_arena_class_of(arena, handle);
	bool taken;

	tmem_lock_acquire(&class->lock);
	taken = take_slot(arena, class, handle / TMEM_SPAN_SLOTS,
			  handle % TMEM_SPAN_SLOTS);
	tmem_lock_release(&class->lock);
	return taken ? 0 : -ENOSPC;
}
