/* SPDX-License-Identifier: MIT */
/*
 * See table.h.  Two directory levels of lazily mapped arrays lead to leaf
 * numbers; leaves live in chunks and are recycled through a free list,
 * so a program that maps and unmaps at ever new addresses does not grow us.
 */
#include "table.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/sys.h"

static void *map_bytes(struct tmem_table *table, size_t bytes)
{
	void *p = tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);

	if (p)
		table->held_bytes += bytes;
	return p;
}

int tmem_table_init(struct tmem_table *table)
{
	memset(table, 0, sizeof(*table));
	table->free_leaf = TABLE_NO_LEAF;
	table->l1 = map_bytes(table, TABLE_L1 * sizeof(void *));
	table->chunks = map_bytes(table, TABLE_CHUNKS * sizeof(void *));
	return table->l1 && table->chunks ? 0 : -ENOMEM;
}

struct tmem_leaf *tmem_table_leaf(const struct tmem_table *table, uint32_t nr)
{
	return &table->chunks[nr / TABLE_CHUNK][nr % TABLE_CHUNK];
}

static uint32_t *directory(const struct tmem_table *table, uint64_t vpn)
{
	uint64_t leaf = vpn >> LEAF_SHIFT;

	if (leaf >= (uint64_t)TABLE_L1 * TABLE_L2 ||
	    !table->l1[leaf / TABLE_L2])
		return NULL;
	return &table->l1[leaf / TABLE_L2][leaf % TABLE_L2];
}

uint32_t tmem_table_find(const struct tmem_table *table, uint64_t vpn)
{
	const uint32_t *slot = directory(table, vpn);

	if (!slot || !*slot)
		return TABLE_NO_HANDLE;
	return (*slot - 1) << LEAF_SHIFT | (uint32_t)(vpn % LEAF_PAGES);
}

static uint32_t new_leaf(struct tmem_table *table)
{
	uint32_t nr = table->free_leaf;

	if (nr != TABLE_NO_LEAF) {
		table->free_leaf = tmem_table_leaf(table, nr)->next_free;
		return nr;
	}
	nr = table->nr_leaves;
	if (nr / TABLE_CHUNK >= TABLE_CHUNKS)
		return TABLE_NO_LEAF;
	if (nr % TABLE_CHUNK == 0) {
		struct tmem_leaf *chunk =
			map_bytes(table, TABLE_CHUNK * sizeof(*chunk));

		if (!chunk)
			return TABLE_NO_LEAF;
		table->chunks[nr / TABLE_CHUNK] = chunk;
	}
	table->nr_leaves++;
	return nr;
}

uint32_t tmem_table_make(struct tmem_table *table, uint64_t vpn)
{
	uint64_t leaf = vpn >> LEAF_SHIFT;
	uint32_t *slot, nr;
	struct tmem_leaf *l;

	if (leaf >= (uint64_t)TABLE_L1 * TABLE_L2)
		return TABLE_NO_HANDLE;
	if (!table->l1[leaf / TABLE_L2]) {
		table->l1[leaf / TABLE_L2] =
			map_bytes(table, TABLE_L2 * sizeof(uint32_t));
		if (!table->l1[leaf / TABLE_L2])
			return TABLE_NO_HANDLE;
	}
	slot = directory(table, vpn);
	if (!*slot) {
		nr = new_leaf(table);
		if (nr == TABLE_NO_LEAF)
			return TABLE_NO_HANDLE;
		l = tmem_table_leaf(table, nr);
		memset(l, 0, sizeof(*l));
		l->base = leaf << LEAF_SHIFT;
		*slot = nr + 1;
	}
	return (*slot - 1) << LEAF_SHIFT | (uint32_t)(vpn % LEAF_PAGES);
}

uint32_t tmem_table_entry(const struct tmem_table *table, uint32_t handle)
{
	return tmem_table_leaf(table, handle >> LEAF_SHIFT)
		->entry[handle % LEAF_PAGES];
}

uint32_t tmem_table_get(const struct tmem_table *table, uint64_t vpn)
{
	uint32_t handle = tmem_table_find(table, vpn);

	return handle == TABLE_NO_HANDLE ? 0 : tmem_table_entry(table, handle);
}

uint64_t tmem_table_vpn(const struct tmem_table *table, uint32_t handle)
{
	return tmem_table_leaf(table, handle >> LEAF_SHIFT)->base +
	       handle % LEAF_PAGES;
}

static void free_leaf_if_empty(struct tmem_table *table, uint32_t nr)
{
	struct tmem_leaf *l = tmem_table_leaf(table, nr);

	if (l->nr_used || l->base == UINT64_MAX)
		return;
	*directory(table, l->base) = 0;
	l->base = UINT64_MAX;
	l->next_free = table->free_leaf;
	table->free_leaf = nr;
}

static bool is_resident(enum tmem_page_state state)
{
	return state == PAGE_RESIDENT || state == PAGE_KEPT;
}

void tmem_table_set(struct tmem_table *table, uint32_t handle,
		    enum tmem_page_state state, uint32_t value)
{
	struct tmem_leaf *l = tmem_table_leaf(table, handle >> LEAF_SHIFT);
	uint32_t i = handle % LEAF_PAGES;
	enum tmem_page_state old = tmem_entry_state(l->entry[i]);
	uint64_t bit = 1ull << i % 64;

	TMEM_ASSERT(value <= TABLE_VALUE_MASK);
	if (is_resident(old) && !is_resident(state)) {
		table->nr_wasted += tmem_table_use(table, handle);
		l->resident[i / 64] &= ~bit;
		l->young[i / 64] &= ~bit;
		l->busy[i / 64] &= ~bit;
		l->nr_resident--;
		table->nr_resident--;
	} else if (!is_resident(old) && is_resident(state)) {
		l->resident[i / 64] |= bit;
		l->nr_resident++;
		table->nr_resident++;
	}
	l->loose[i / 64] &= ~bit;
	if (state == PAGE_NONE) /* what comes there next is another page */
		l->age[i] = 0;
	l->nr_used += (state != PAGE_NONE) - (old != PAGE_NONE);
	l->entry[i] = (uint32_t)state << TABLE_VALUE_BITS | value;
	free_leaf_if_empty(table, handle >> LEAF_SHIFT);
}

void tmem_table_set_ahead(struct tmem_table *table, uint32_t handle)
{
	struct tmem_leaf *l = tmem_table_leaf(table, handle >> LEAF_SHIFT);
	uint32_t i = handle % LEAF_PAGES;
	uint64_t bit = 1ull << i % 64;

	TMEM_ASSERT(is_resident(tmem_entry_state(l->entry[i])));
	table->nr_ahead += !(l->ahead[i / 64] & bit);
	l->ahead[i / 64] |= bit;
}

bool tmem_table_use(struct tmem_table *table, uint32_t handle)
{
	struct tmem_leaf *l = tmem_table_leaf(table, handle >> LEAF_SHIFT);
	uint32_t i = handle % LEAF_PAGES;
	uint64_t bit = 1ull << i % 64;

	if (!(l->ahead[i / 64] & bit))
		return false;
	l->ahead[i / 64] &= ~bit;
	table->nr_ahead--;
	return true;
}

void tmem_table_set_busy(struct tmem_table *table, uint32_t handle)
{
	uint32_t i = handle % LEAF_PAGES;

	tmem_table_leaf(table, handle >> LEAF_SHIFT)->busy[i / 64] |= 1ull
								      << i % 64;
}

void tmem_table_set_poor(struct tmem_table *table, uint32_t handle)
{
	uint32_t i = handle % LEAF_PAGES;

	tmem_table_leaf(table, handle >> LEAF_SHIFT)->poor[i / 64] |= 1ull
								      << i % 64;
}

void tmem_table_set_missed(struct tmem_table *table, uint32_t handle)
{
	struct tmem_leaf *l = tmem_table_leaf(table, handle >> LEAF_SHIFT);
	uint32_t i = handle % LEAF_PAGES;

	l->missed[i / 64] |= l->poor[i / 64] & 1ull << i % 64;
}

void tmem_table_clear_poor(struct tmem_table *table, uint32_t handle)
{
	struct tmem_leaf *l = tmem_table_leaf(table, handle >> LEAF_SHIFT);
	uint32_t i = handle % LEAF_PAGES;

	l->poor[i / 64] &= ~(1ull << i % 64);
	l->missed[i / 64] &= ~(1ull << i % 64);
}

bool tmem_table_is_poor(const struct tmem_table *table, uint32_t handle)
{
	uint32_t i = handle % LEAF_PAGES;

	return tmem_table_leaf(table, handle >> LEAF_SHIFT)->poor[i / 64] >>
		       i % 64 &
	       1;
}

void tmem_table_set_loose(struct tmem_table *table, uint32_t handle)
{
	uint32_t i = handle % LEAF_PAGES;

	tmem_table_leaf(table, handle >> LEAF_SHIFT)->loose[i / 64] |=
		1ull << i % 64;
}

bool tmem_table_is_loose(const struct tmem_table *table, uint32_t handle)
{
	uint32_t i = handle % LEAF_PAGES;

	return tmem_table_leaf(table, handle >> LEAF_SHIFT)->loose[i / 64] >>
		       i % 64 &
	       1;
}

void tmem_table_pin(struct tmem_table *table, uint32_t handle)
{
	struct tmem_leaf *l = tmem_table_leaf(table, handle >> LEAF_SHIFT);
	uint32_t i = handle % LEAF_PAGES;
	uint64_t bit = 1ull << i % 64;

	if (!(l->pinned[i / 64] & bit)) {
		l->pinned[i / 64] |= bit;
		l->nr_used++;
	}
}

bool tmem_table_is_pinned(const struct tmem_table *table, uint64_t vpn)
{
	uint32_t handle = tmem_table_find(table, vpn);
	uint32_t i = (uint32_t)(vpn % LEAF_PAGES);
	const struct tmem_leaf *l;

	if (handle == TABLE_NO_HANDLE)
		return false;
	l = tmem_table_leaf(table, handle >> LEAF_SHIFT);
	return tmem_entry_state(l->entry[i]) < PAGE_STORED &&
	       (l->pinned[i / 64] >> i % 64 & 1);
}

void tmem_table_walk(struct tmem_table *table, uint64_t start, uint64_t end,
		     tmem_table_fn *fn, void *arg)
{
	uint64_t vpn = start, stop;
	uint32_t *slot, nr;

	while (vpn < end) {
		stop = (vpn | (LEAF_PAGES - 1)) + 1;
		if (!directory(table, vpn)) {
			/* Nothing in these 16 GiB. */
			stop = ((vpn >> LEAF_SHIFT) / TABLE_L2 + 1) * TABLE_L2
			       << LEAF_SHIFT;
			vpn = stop;
			continue;
		}
		slot = directory(table, vpn);
		nr = *slot;
		for (; nr && vpn < stop && vpn < end; vpn++) {
			uint32_t i = (uint32_t)(vpn % LEAF_PAGES);
			uint32_t entry =
				tmem_table_leaf(table, nr - 1)->entry[i];

			if (entry)
				fn(arg, (nr - 1) << LEAF_SHIFT | i, entry);
			if (*slot != nr) /* fn emptied and freed the leaf */
				break;
		}
		vpn = stop;
	}
}

static void unpin_in_leaf(struct tmem_leaf *l, uint64_t vpn, uint64_t end)
{
	for (; vpn < end; vpn++) {
		uint32_t i = (uint32_t)(vpn % LEAF_PAGES);
		uint64_t bit = 1ull << i % 64;

		if (l->pinned[i / 64] & bit) {
			l->pinned[i / 64] &= ~bit;
			l->nr_used--;
		}
	}
}

void tmem_table_unpin(struct tmem_table *table, uint64_t start, uint64_t end)
{
	uint64_t vpn = start, next;

	for (; vpn < end; vpn = next) {
		const uint32_t *slot = directory(table, vpn);

		next = (vpn | (LEAF_PAGES - 1)) + 1;
		if (!slot) /* nothing in these 16 GiB */
			next = ((vpn >> LEAF_SHIFT) / TABLE_L2 + 1) * TABLE_L2
			       << LEAF_SHIFT;
		if (!slot || !*slot)
			continue;
		unpin_in_leaf(tmem_table_leaf(table, *slot - 1), vpn,
			      next < end ? next : end);
		free_leaf_if_empty(table, *slot - 1);
	}
}

void tmem_table_for_each_mapping(const struct tmem_table *table,
				 void (*fn)(void *arg, void *start,
					    size_t bytes),
				 void *arg)
{
	uint32_t i;

	fn(arg, table->chunks, TABLE_CHUNKS * sizeof(void *));
	for (i = 0; i * TABLE_CHUNK < table->nr_leaves; i++)
		fn(arg, table->chunks[i],
		   TABLE_CHUNK * sizeof(struct tmem_leaf));
	for (i = 0; i < TABLE_L1; i++)
		if (table->l1[i])
			fn(arg, table->l1[i], TABLE_L2 * sizeof(uint32_t));
}

static void check_leaf(const struct tmem_table *table, uint32_t nr,
		       uint64_t *nr_resident, uint64_t *nr_ahead)
{
	const struct tmem_leaf *l = tmem_table_leaf(table, nr);
	const uint32_t *slot = directory(table, l->base);
	uint32_t used = 0, present = 0, i;

	TMEM_ASSERT(slot && *slot == nr + 1); /* T4 */
	for (i = 0; i < LEAF_PAGES; i++) {
		enum tmem_page_state s = tmem_entry_state(l->entry[i]);
		bool bit = l->resident[i / 64] >> i % 64 & 1;

		TMEM_ASSERT(bit == is_resident(s)); /* T2 */
		if (l->ahead[i / 64] >> i % 64 & 1) {
			TMEM_ASSERT(bit); /* T5 */
			++*nr_ahead;
		}
		if (l->young[i / 64] >> i % 64 & 1) /* H1: heat.h */
			TMEM_ASSERT(bit && (l->age[i] & HEAT_AGE_MASK));
		TMEM_ASSERT(s >= PAGE_KEPT ||
			    !(l->loose[i / 64] >> i % 64 & 1)); /* T6 */
		used += s != PAGE_NONE;
		used += l->pinned[i / 64] >> i % 64 & 1;
		present += bit;
	}
	TMEM_ASSERT(present == l->nr_resident); /* T2 */
	*nr_resident += present;
	TMEM_ASSERT(used == l->nr_used); /* T3 */
}

void tmem_table_check(const struct tmem_table *table)
{
	uint64_t nr_resident = 0, nr_ahead = 0;
	uint32_t nr;

	for (nr = 0; nr < table->nr_leaves; nr++)
		if (tmem_table_leaf(table, nr)->base != UINT64_MAX)
			check_leaf(table, nr, &nr_resident, &nr_ahead);
	TMEM_ASSERT(nr_resident == table->nr_resident);
	TMEM_ASSERT(nr_ahead == table->nr_ahead); /* T5 */
}
