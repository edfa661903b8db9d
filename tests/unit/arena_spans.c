/* SPDX-License-Identifier: MIT */
/*
 * The arena's parts: page runs, record tables, spans and slots; random use
 * beside an oracle, and one test for each rule.
 */
#include "arena/arena.h"

#include "arena/geometry.h"
#include "fstest.h"

enum {
	SLOTS = 3000,
	STEPS = 60000,
	RUNS = 200,
	RECORDS = 5000
};

static struct tmem_account account;
static struct tmem_meta meta;
static struct tmem_arena arena;

static void open_arena(uint64_t limit_bytes)
{
	memset(&account, 0, sizeof(account));
	memset(&arena, 0, sizeof(arena));
	account.limit_bytes = limit_bytes;
	tmem_meta_init(&meta, &account);
	tmem_arena_init(&arena, &meta, &account);
}

static void check_arena(uint64_t want_slots)
{
	uint64_t slots, orphans, shares, held;

	tmem_arena_check(&arena, &slots, &orphans, &shares);
	tmem_meta_check(&meta);
	CHECK_EQ(slots, want_slots);
	held = tmem_meta_bytes(&meta) + arena.nr_touched * 4096 +
	       arena.pages.nr_chunks * 4096ull;
	CHECK_EQ(held, tmem_account_held(&account));
	CHECK(held <= tmem_account_limit(&account));
}

static void close_arena(void)
{
	tmem_arena_fini(&arena);
	tmem_meta_fini(&meta);
}

/* Slots and pages as the definition has them, byte by byte. */
static void geometry_is_what_it_says(void)
{
	unsigned c, i, p;

	for (c = 1; c < TMEM_CLASSES; c++) {
		CHECK(tmem_span_slots(c) * c * 64 <= tmem_span_pages(c) * 4096);
		for (p = 0; p < tmem_span_pages(c); p++) {
			uint64_t slots = tmem_slots_on_pages(c, 1ull << p);

			for (i = 0; i < tmem_span_slots(c); i++) {
				bool on = i * c * 64 < (p + 1) * 4096 &&
					  (i + 1) * c * 64 > p * 4096;

				CHECK_EQ(slots >> i & 1, on);
				CHECK_EQ(tmem_pages_of_slot(c, i) >> p & 1, on);
			}
		}
	}
}

struct run {
	char *start;
	unsigned nr_pages;
};

static void runs_never_overlap_and_come_zeroed(void)
{
	static struct run runs[RUNS];
	struct tmem_pages pages;
	struct rng rng = { 5 };
	unsigned i, k;

	memset(&account, 0, sizeof(account));
	account.limit_bytes = 1u << 20;
	tmem_pages_init(&pages, &account);
	for (i = 0; i < 20000; i++) {
		struct run *r = &runs[rng_below(&rng, RUNS)];
		unsigned nr = 1 + (unsigned)rng_below(
					  &rng, i % 3 ? 8 : TMEM_RUN_MAX_PAGES);

		if (r->start) {
			for (k = 0; k < r->nr_pages; k++)
				CHECK_EQ(r->start[k * 4096ul],
					 (char)(r - runs + 1));
			memset(r->start, 0, r->nr_pages * 4096ul);
			tmem_pages_free(&pages, r->start, r->nr_pages);
			r->start = NULL;
			continue;
		}
		r->start = tmem_pages_alloc(&pages, nr);
		CHECK(r->start);
		r->nr_pages = nr;
		for (k = 0; k < nr; k++) {
			CHECK_EQ(r->start[k * 4096ul], 0);
			r->start[k * 4096ul] = (char)(r - runs + 1);
		}
		if (i % 64 == 0)
			tmem_pages_check(&pages);
	}
	for (i = 0; i < RUNS; i++)
		if (runs[i].start)
			tmem_pages_free(&pages, runs[i].start,
					runs[i].nr_pages);
	CHECK_EQ(tmem_pages_check(&pages), pages.nr_chunks);
	CHECK(pages.nr_chunks <= 1);
	tmem_pages_fini(&pages);
}

static void records_keep_their_place_and_give_back(void)
{
	static uint32_t numbers[RECORDS];
	struct tmem_records records;
	struct rng rng = { 6 };
	unsigned i, k;

	open_arena(16u << 20);
	tmem_records_init(&records, &meta, 300);
	for (i = 0; i < 40000; i++) {
		k = (unsigned)rng_below(&rng, RECORDS);
		if (numbers[k]) {
			uint32_t *r =
				tmem_records_get(&records, numbers[k], 300);

			CHECK_EQ(*r, k);
			tmem_records_free(&records, numbers[k]);
			numbers[k] = 0;
		} else {
			uint32_t *r;

			numbers[k] = tmem_records_alloc(&records);
			CHECK(numbers[k]);
			r = tmem_records_get(&records, numbers[k], 300);
			CHECK_EQ(*r, 0);
			*r = k;
		}
		if (i % 1000 == 0)
			tmem_records_check(&records);
	}
	for (k = 0; k < RECORDS; k++)
		if (numbers[k])
			tmem_records_free(&records, numbers[k]);
	tmem_records_check(&records);
	tmem_meta_trim(&meta);
	/* The directory stays: the top page and what hangs under it. */
	CHECK(tmem_meta_bytes(&meta) <= 8 * 4096ul);
	close_arena();
}

/* Past what one top page has room for; the pages' memory is given back. */
static void records_go_on_past_their_first_top_page(void)
{
	const uint32_t nr = TMEM_RECORDS_PER_TOP + 300;
	struct tmem_records records;
	uint32_t i, *r;

	open_arena(1u << 30);
	tmem_records_init(&records, &meta, 4096);
	for (i = 1; i <= nr; i++) {
		CHECK_EQ(tmem_records_alloc(&records), i);
		r = tmem_records_get(&records, i, 4096);
		*r = i;
		if (i < TMEM_RECORDS_PER_TOP - 100)
			CHECK_EQ(madvise(r, 4096, MADV_DONTNEED), 0);
	}
	tmem_records_check(&records);
	for (i = TMEM_RECORDS_PER_TOP - 50; i <= nr; i++) {
		r = tmem_records_get(&records, i, 4096);
		CHECK_EQ(*r, i);
	}
	for (i = nr; i > 0; i--)
		tmem_records_free(&records, i);
	tmem_records_check(&records);
	CHECK_EQ(tmem_records_alloc(&records), 1);
	tmem_records_free(&records, 1);
	close_arena();
}

struct held {
	uint32_t handle;
	unsigned length;
	uint64_t tag;
};

static void write_slot(const struct held *h)
{
	struct tmem_slot *slot = tmem_arena_slot(&arena, h->handle);

	CHECK(sizeof(*slot) + h->length <=
	      tmem_arena_size_of(&arena, h->handle));
	memset(slot, (int)(h->tag & 0xff), sizeof(*slot) + h->length);
}

static void check_slot(const struct held *h)
{
	const unsigned char *p =
		(unsigned char *)tmem_arena_slot(&arena, h->handle);
	unsigned i;

	for (i = 0; i < sizeof(struct tmem_slot) + h->length; i++)
		CHECK_EQ(p[i], h->tag & 0xff);
}

static void slots_never_overlap(void)
{
	static struct held held[SLOTS];
	struct rng rng = { 7 };
	uint64_t nr = 0, refused = 0;
	unsigned i;

	open_arena(2u << 20);
	for (i = 0; i < STEPS; i++) {
		struct held *h = &held[rng_below(&rng, SLOTS)];

		if (h->handle) {
			check_slot(h);
			CHECK(tmem_arena_release(&arena, h->handle));
			h->handle = 0;
			nr--;
		} else {
			/* Sizes drift, so that memory moves between classes. */
			h->length = 8 + (unsigned)rng_below(&rng, 1 + i / 15);
			if (h->length > 4096)
				h->length = 4096;
			h->handle = tmem_arena_alloc(&arena, h->length, 0);
			h->tag = rng_next(&rng);
			refused += !h->handle;
			if (h->handle) {
				write_slot(h);
				nr++;
			}
		}
		if (i % 500 == 0)
			check_arena(nr);
		if (i == STEPS / 3)
			tmem_arena_freeze(&arena);
		if (i == STEPS / 2)
			tmem_arena_thaw(&arena);
	}
	CHECK(refused > 100);
	for (i = 0; i < SLOTS; i++)
		if (held[i].handle) {
			check_slot(&held[i]);
			tmem_arena_release(&arena, held[i].handle);
		}
	tmem_arena_trim(&arena);
	check_arena(0);
	CHECK_EQ(arena.nr_touched, 0);
	close_arena();
}

static void frozen_spans_are_not_written(void)
{
	uint32_t handles[100], more;
	unsigned i, k;

	open_arena(8u << 20);
	for (i = 0; i < 100; i++)
		handles[i] = tmem_arena_alloc(&arena, 1000, 0);
	CHECK(tmem_arena_may_rewrite(&arena, handles[0], 1000));
	CHECK(!tmem_arena_may_rewrite(&arena, handles[0], 1100));
	tmem_arena_freeze(&arena);
	CHECK(!tmem_arena_may_rewrite(&arena, handles[0], 1000));
	for (i = 0; i < 100; i += 2)
		tmem_arena_release(&arena, handles[i]);
	for (i = 0; i < 200; i++) {
		more = tmem_arena_alloc(&arena, 1000, 0);
		CHECK(more);
		for (k = 0; k < 100; k++)
			CHECK(more / TMEM_SPAN_SLOTS !=
			      handles[k] / TMEM_SPAN_SLOTS);
	}
	check_arena(250);
	tmem_arena_thaw(&arena);
	check_arena(250);
	CHECK(tmem_arena_may_rewrite(&arena, handles[1], 1000));
	close_arena();
}

static void shared_slots_stay_for_their_last_user(void)
{
	uint32_t handle;
	uint64_t slots, orphans, shares;

	open_arena(8u << 20);
	handle = tmem_arena_alloc(&arena, 500, 0);
	CHECK(tmem_arena_share(&arena, handle));
	CHECK(tmem_arena_share(&arena, handle));
	CHECK(!tmem_arena_may_rewrite(&arena, handle, 500));
	CHECK(!tmem_arena_unshare(&arena, handle));
	CHECK(!tmem_arena_release(&arena, handle));
	tmem_arena_check(&arena, &slots, &orphans, &shares);
	CHECK(slots == 1 && orphans == 1 && shares == 1);
	CHECK(tmem_arena_unshare(&arena, handle));
	check_arena(0);
	close_arena();
}

static void a_checksum_covers_every_bit_but_the_marks(void)
{
	_Alignas(8) uint8_t memory[256];
	struct tmem_slot *slot = (struct tmem_slot *)memory;
	unsigned bit;

	memset(memory, 3, sizeof(memory));
	slot->length = 200;
	tmem_slot_seal(slot);
	CHECK(tmem_slot_is_whole(slot, sizeof(memory)));
	CHECK(!tmem_slot_is_whole(slot, sizeof(*slot) + 199));
	for (bit = 0; bit < (sizeof(*slot) + 200) * 8; bit++) {
		uint64_t before = slot->form_generation & TMEM_SLOT_MARKS;
		bool is_mark;

		memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
		is_mark = (slot->form_generation & TMEM_SLOT_MARKS) != before;
		CHECK_EQ(tmem_slot_is_whole(slot, sizeof(memory)), is_mark);
		memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	CHECK(tmem_slot_is_whole(slot, sizeof(memory)));
}

int main(void)
{
	RUN(geometry_is_what_it_says);
	RUN(runs_never_overlap_and_come_zeroed);
	RUN(records_keep_their_place_and_give_back);
	RUN(records_go_on_past_their_first_top_page);
	RUN(slots_never_overlap);
	RUN(frozen_spans_are_not_written);
	RUN(shared_slots_stay_for_their_last_user);
	RUN(a_checksum_covers_every_bit_but_the_marks);
	return 0;
}
