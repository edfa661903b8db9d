/* SPDX-License-Identifier: MIT */
/* The index: random use beside an oracle, growth, shrinking, hostile hashes. */
#include "core/index.h"

#include "base/hash.h"
#include "fstest.h"

enum {
	REFS = 60000,
	DEEP = 8000,
	MANY = 700000 /* its window moves twice */
};

static struct tmem_account account;
static struct tmem_meta meta;
static struct tmem_index table;
static uint64_t hashes[MANY + 1]; /* of each reference; 0: not there */

static uint64_t hash_of(void *arg, uint32_t ref)
{
	(void)arg;
	CHECK(hashes[ref]);
	return hashes[ref];
}

static void hashes_of(void *arg, const uint32_t *refs, unsigned nr,
		      uint64_t *ret_hashes)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		ret_hashes[i] = hash_of(arg, refs[i]);
}

static void open_index(uint64_t limit_bytes)
{
	memset(&account, 0, sizeof(account));
	memset(hashes, 0, sizeof(hashes));
	account.limit_bytes = limit_bytes;
	tmem_meta_init(&meta, &account);
	tmem_index_init(&table, hashes_of, NULL);
}

static void close_index(void)
{
	tmem_meta_fini(&meta);
}

static uint64_t nr_asked;

static bool is_it(void *arg, uint32_t ref)
{
	nr_asked++;
	return hashes[ref] == *(uint64_t *)arg;
}

static void check(uint64_t nr)
{
	CHECK_EQ(table.nr_entries, nr);
	tmem_index_check(&table, hash_of, NULL);
	tmem_meta_check(&meta);
}

static void find_all(void)
{
	uint32_t ref, *at;

	for (ref = 1; ref <= REFS; ref++) {
		uint64_t hash = hashes[ref];

		if (!hash)
			continue;
		at = tmem_index_find(&table, hash, is_it, &hash);
		CHECK(at && *at == ref);
	}
}

static void it_finds_what_was_put_in(void)
{
	struct rng rng = { 1 };
	uint64_t nr = 0, absent = 12345;
	unsigned i;

	open_index(64u << 20);
	for (i = 0; i < 300000; i++) {
		/* Grows to all, then shrinks to nothing, twice. */
		bool growing = i / 75000 % 2 == 0;
		uint32_t ref = 1 + (uint32_t)rng_below(&rng, REFS);

		if (!hashes[ref] && (growing || rng_below(&rng, 8) == 0)) {
			hashes[ref] = rng_next(&rng) | 1;
			CHECK(tmem_index_insert(&table, &meta, hashes[ref],
						ref));
			nr++;
		} else if (hashes[ref] &&
			   (!growing || rng_below(&rng, 8) == 0)) {
			tmem_index_remove(&table, &meta, hashes[ref], ref);
			hashes[ref] = 0;
			nr--;
		}
		if (i % 20000 == 0)
			check(nr);
	}
	CHECK(!tmem_index_find(&table, absent, is_it, &absent));
	find_all();
	check(nr);
	close_index();
}

static void its_memory_follows_the_number_of_entries(void)
{
	uint32_t ref;

	open_index(64u << 20);
	for (ref = 1; ref <= REFS; ref++) {
		hashes[ref] = tmem_hash_word(ref);
		CHECK(tmem_index_insert(&table, &meta, hashes[ref], ref));
	}
	check(REFS);
	CHECK(tmem_meta_bytes(&meta) < REFS * 16ul);
	for (ref = 1; ref <= REFS; ref++)
		tmem_index_remove(&table, &meta, hashes[ref], ref);
	memset(hashes, 0, sizeof(hashes));
	check(0);
	tmem_meta_trim(&meta);
	/* The chunk's header. */
	CHECK_EQ(tmem_meta_bytes(&meta), 4096);
	close_index();
}

/* A look at a reference costs misses: few are looked at in vain. */
static void many_entries_are_told_apart(void)
{
	uint32_t ref, *at;

	open_index(64u << 20);
	for (ref = 1; ref <= MANY; ref++) {
		hashes[ref] = tmem_hash_word(ref);
		CHECK(tmem_index_insert(&table, &meta, hashes[ref], ref));
	}
	check(MANY);
	CHECK(table.depth >= 10);
	nr_asked = 0;
	for (ref = 1; ref <= MANY; ref++) {
		at = tmem_index_find(&table, hashes[ref], is_it, &hashes[ref]);
		CHECK(at && *at == ref);
	}
	fprintf(stderr, "    depth %u, %.3f looks an entry\n", table.depth,
		(double)nr_asked / MANY);
	CHECK(nr_asked < MANY + MANY / 50);
	for (ref = MANY; ref > 0; ref--) {
		tmem_index_remove(&table, &meta, hashes[ref], ref);
		hashes[ref] = 0;
		if (ref % (MANY / 16) == 0)
			check(ref - 1);
	}
	check(0);
	close_index();
}

/* Eighty equal hashes fill their buckets; the next is turned away, politely. */
static void equal_hashes_end_in_a_refusal(void)
{
	uint32_t ref, n;

	open_index(64u << 20);
	for (ref = 1; ref <= 200; ref++) {
		hashes[ref] = 0xdeadbeef;
		if (!tmem_index_insert(&table, &meta, hashes[ref], ref))
			break;
	}
	hashes[ref] = 0;
	CHECK_EQ(ref, 81);
	check(80);
	for (n = 1; n < ref; n++) {
		tmem_index_remove(&table, &meta, hashes[n], n);
		hashes[n] = 0;
	}
	check(0);
	close_index();
}

static void visit(void *arg, uint32_t ref)
{
	unsigned *nr = arg;

	++nr[ref];
}

/*
 * Entries lie close together, deep in the index; in the midst of them all but
 * each 100th go.  What is left is met all the same, once.
 */
static void no_part_is_left_out_when_all_merges(void)
{
	static unsigned nr[DEEP + 1];
	uint32_t ref, pos = 0;

	open_index(64u << 20);
	for (ref = 1; ref <= DEEP; ref++) {
		hashes[ref] = ref / 2 << TMEM_INDEX_HOME_BITS | ref % 61;
		CHECK(tmem_index_insert(&table, &meta, hashes[ref], ref));
	}
	check(DEEP);
	CHECK(table.depth >= 12);
	while (pos < 1600)
		CHECK(tmem_index_visit_part(&table, &pos, TMEM_SEGMENT_PARTS,
					    visit, nr));
	for (ref = 1; ref <= DEEP; ref++)
		if (ref % 100) {
			tmem_index_remove(&table, &meta, hashes[ref], ref);
			hashes[ref] = 0;
		}
	check(DEEP / 100);
	CHECK(table.depth <= 5);
	while (tmem_index_visit_part(&table, &pos, TMEM_SEGMENT_PARTS, visit,
				     nr))
		;
	for (ref = 100; ref <= DEEP; ref += 100)
		CHECK_EQ(nr[ref], 1);
	close_index();
}

static void no_memory_is_a_refusal(void)
{
	uint32_t ref;

	open_index(128u << 10);
	for (ref = 1; ref <= REFS; ref++) {
		hashes[ref] = tmem_hash_word(ref);
		if (!tmem_index_insert(&table, &meta, hashes[ref], ref))
			break;
	}
	CHECK(ref > 5000 && ref < REFS);
	hashes[ref] = 0;
	check(ref - 1);
	find_all();
	close_index();
}

int main(void)
{
	RUN(it_finds_what_was_put_in);
	RUN(its_memory_follows_the_number_of_entries);
	RUN(many_entries_are_told_apart);
	RUN(equal_hashes_end_in_a_refusal);
	RUN(no_part_is_left_out_when_all_merges);
	RUN(no_memory_is_a_refusal);
	return 0;
}
