/* SPDX-License-Identifier: MIT */
/* A growing table of records; the model is in records.h. */
#include "records.h"

#include <errno.h>
#include <string.h>

static uint64_t full_mask(const struct tmem_records *records)
{
	return ~0ull >> (64 - records->per_page);
}

static void push(struct tmem_records *records, uint32_t *list, uint32_t nr)
{
	struct tmem_records_entry *entry = tmem_records_entry(records, nr);

	entry->prev = 0;
	entry->next = *list;
	if (*list)
		tmem_records_entry(records, *list - 1)->prev = nr + 1;
	*list = nr + 1;
}

static void unlink_entry(struct tmem_records *records, uint32_t *list,
			 uint32_t nr)
{
	struct tmem_records_entry *entry = tmem_records_entry(records, nr);

	if (entry->prev)
		tmem_records_entry(records, entry->prev - 1)->next =
			entry->next;
	else
		*list = entry->next;
	if (entry->next)
		tmem_records_entry(records, entry->next - 1)->prev =
			entry->prev;
}

/* Who reads the few meanwhile may go on: they stay as they are. */
static bool make_first_top(struct tmem_records *records)
{
	struct tmem_records_entry **top = tmem_meta_alloc(records->meta, 1);

	if (!top)
		return false;
	memcpy(top, records->few, sizeof(records->few));
	atomic_store_explicit(&records->tops[0], top, memory_order_release);
	return true;
}

static bool make_dir_locked(struct tmem_records *records, uint32_t nr)
	TMEM_REQUIRES(&records->lock)
{
	uint32_t dir = nr / TMEM_RECORDS_PER_DIR;
	struct tmem_records_entry **_Atomic *slot, **top;

	if (nr >= TMEM_RECORDS_MAX_PAGES)
		return false;
	slot = &records->tops[dir / TMEM_RECORDS_DIRS];
	top = atomic_load_explicit(slot, memory_order_relaxed);
	if (dir >= TMEM_RECORDS_FEW && top == records->few) {
		if (!make_first_top(records))
			return false;
	} else if (!top) {
		top = tmem_meta_alloc(records->meta, 1);
		if (!top)
			return false;
		atomic_store_explicit(slot, top, memory_order_release);
	}
	top = atomic_load_explicit(slot, memory_order_relaxed);
	dir %= TMEM_RECORDS_DIRS;
	if (!top[dir])
		top[dir] = tmem_meta_alloc(records->meta, 1);
	return top[dir] != NULL;
}

/* An entry number that has no page, with its directory; or false. */
static bool bare_entry_locked(struct tmem_records *records, uint32_t *ret_nr)
	TMEM_REQUIRES(&records->lock)
{
	uint32_t nr = records->nr_entries;

	if (records->bare) {
		*ret_nr = records->bare - 1;
		return true;
	}
	if (!make_dir_locked(records, nr))
		return false;
	*ret_nr = nr;
	return true;
}

/* Makes sure that the open list has an entry. */
static bool open_page_locked(struct tmem_records *records)
	TMEM_REQUIRES(&records->lock)
{
	uint32_t nr;
	char *page;

	if (records->open)
		return true;
	if (!bare_entry_locked(records, &nr))
		return false;
	page = tmem_meta_alloc(records->meta, 1);
	if (!page)
		return false;
	if (records->bare)
		unlink_entry(records, &records->bare, nr);
	else
		records->nr_entries++;
	tmem_records_entry(records, nr)->page = page;
	push(records, &records->open, nr);
	return true;
}

static void use_locked(struct tmem_records *records, uint32_t nr, uint32_t i)
	TMEM_REQUIRES(&records->lock)
{
	struct tmem_records_entry *entry = tmem_records_entry(records, nr);

	entry->used |= 1ull << i;
	if (entry->used == full_mask(records))
		unlink_entry(records, &records->open, nr);
	memset(entry->page + (size_t)i * records->record_bytes, 0,
	       records->record_bytes);
	records->nr_used++;
}

static uint32_t alloc_locked(struct tmem_records *records)
	TMEM_REQUIRES(&records->lock)
{
	uint32_t nr, i;

	if (!open_page_locked(records))
		return 0;
	nr = records->open - 1;
	i = (uint32_t)__builtin_ctzll(~tmem_records_entry(records, nr)->used);
	use_locked(records, nr, i);
	return nr * records->per_page + i + 1;
}

/* Entries up to that one, as bare ones if they are not there. */
static bool extend_locked(struct tmem_records *records, uint32_t nr)
	TMEM_REQUIRES(&records->lock)
{
	while (records->nr_entries <= nr) {
		uint32_t next = records->nr_entries;

		if (!make_dir_locked(records, next))
			return false;
		records->nr_entries++;
		push(records, &records->bare, next);
	}
	return true;
}

static int alloc_at_locked(struct tmem_records *records, uint32_t number)
	TMEM_REQUIRES(&records->lock)
{
	uint32_t nr = (number - 1) / records->per_page;
	uint32_t i = (number - 1) % records->per_page;
	struct tmem_records_entry *entry;

	if (!number || nr >= TMEM_RECORDS_MAX_PAGES)
		return -ERANGE;
	if (!extend_locked(records, nr))
		return -ENOMEM;
	entry = tmem_records_entry(records, nr);
	if (!entry->page) {
		char *page = tmem_meta_alloc(records->meta, 1);

		if (!page)
			return -ENOMEM;
		unlink_entry(records, &records->bare, nr);
		entry->page = page;
		push(records, &records->open, nr);
	}
	if (entry->used >> i & 1)
		return -EEXIST;
	use_locked(records, nr, i);
	return 0;
}

static void free_locked(struct tmem_records *records, uint32_t number)
	TMEM_REQUIRES(&records->lock)
{
	uint32_t nr = (number - 1) / records->per_page;
	uint64_t bit = 1ull << ((number - 1) % records->per_page);
	struct tmem_records_entry *entry = tmem_records_entry(records, nr);

	TMEM_ASSERT(entry->used & bit);
	if (entry->used == full_mask(records))
		push(records, &records->open, nr);
	entry->used &= ~bit;
	records->nr_used--;
	if (entry->used)
		return;
	unlink_entry(records, &records->open, nr);
	tmem_meta_free(records->meta, entry->page, 1);
	entry->page = NULL;
	push(records, &records->bare, nr);
}

void tmem_records_init(struct tmem_records *records, struct tmem_meta *meta,
		       uint32_t record_bytes)
{
	*records = (struct tmem_records){
		.meta = meta,
		.record_bytes = record_bytes,
		.per_page = TMEM_RECORDS_PER_PAGE(record_bytes),
	};
	atomic_store_explicit(&records->tops[0], records->few,
			      memory_order_relaxed);
	tmem_lock_init(&records->lock, TMEM_RANK_RECORDS);
}

uint32_t tmem_records_alloc(struct tmem_records *records)
{
	uint32_t number;

	tmem_lock_acquire(&records->lock);
	number = alloc_locked(records);
	tmem_lock_release(&records->lock);
	return number;
}

int tmem_records_alloc_at(struct tmem_records *records, uint32_t number)
{
	int r;

	tmem_lock_acquire(&records->lock);
	r = alloc_at_locked(records, number);
	tmem_lock_release(&records->lock);
	return r;
}

bool tmem_records_has(const struct tmem_records *records, uint32_t number)
{
	uint32_t nr = (number - 1) / records->per_page;

	return number && nr < records->nr_entries &&
	       tmem_records_entry(records, nr)->used >>
			       ((number - 1) % records->per_page) &
		       1;
}

void tmem_records_free(struct tmem_records *records, uint32_t number)
{
	tmem_lock_acquire(&records->lock);
	free_locked(records, number);
	tmem_lock_release(&records->lock);
}

void tmem_records_for_each(struct tmem_records *records,
			   void (*fn)(void *arg, uint32_t number, void *record),
			   void *arg)
{
	uint32_t nr, i;

	for (nr = 0; nr < records->nr_entries; nr++) {
		struct tmem_records_entry *entry;

		entry = tmem_records_entry(records, nr);
		for (i = 0; i < records->per_page; i++)
			if (entry->used >> i & 1)
				fn(arg, nr * records->per_page + i + 1,
				   entry->page +
					   (size_t)i * records->record_bytes);
	}
}

static uint32_t list_length(struct tmem_records *records, uint32_t list,
			    bool bare)
{
	uint32_t nr, length = 0, prev = 0;

	for (nr = list; nr; length++) {
		struct tmem_records_entry *entry;

		entry = tmem_records_entry(records, nr - 1);
		TMEM_INVARIANT("R2", entry->prev == prev);
		TMEM_INVARIANT("R2", !entry->page == bare);
		prev = nr;
		nr = entry->next;
	}
	return length;
}

void tmem_records_check(struct tmem_records *records)
{
	uint32_t nr, nr_open = 0, nr_bare = 0;
	uint64_t used = 0;

	tmem_lock_acquire(&records->lock);
	for (nr = 0; nr < records->nr_entries; nr++) {
		struct tmem_records_entry *entry;

		entry = tmem_records_entry(records, nr);
		TMEM_INVARIANT("R1", !entry->page == !entry->used);
		TMEM_INVARIANT("R1", !(entry->used & ~full_mask(records)));
		nr_bare += !entry->page;
		nr_open += entry->page && entry->used != full_mask(records);
		used += (uint64_t)__builtin_popcountll(entry->used);
	}
	TMEM_INVARIANT("R2",
		       nr_open == list_length(records, records->open, false));
	TMEM_INVARIANT("R2",
		       nr_bare == list_length(records, records->bare, true));
	TMEM_INVARIANT("R3", used == records->nr_used);
	tmem_lock_release(&records->lock);
}
