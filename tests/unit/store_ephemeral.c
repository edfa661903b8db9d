/* SPDX-License-Identifier: MIT */
/* Ephemeral and shared pools, clients and weights, one rule a test. */
#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "core/core.h"
#include "fstest.h"

#define MIB (1ul << 20)

static struct tmem_store *store;
static struct tmem_client *clients[4];
static const struct tmem_pool_options ephemeral = {
	.flags = TMEM_POOL_EPHEMERAL
};
static const struct tmem_pool_options shared = {
	.flags = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED,
	.uuid = { 1, 2 },
};

static void open_store(uint64_t limit_bytes)
{
	struct tmem_store_options o = { .limit_bytes = limit_bytes };
	unsigned i;

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	for (i = 0; i < 4; i++)
		CHECK_EQ(tmem_client_create(store, 0, &clients[i]), 0);
}

static void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static struct tmem_stats stats(void)
{
	struct tmem_backend be = tmem_store_backend(store);
	struct tmem_stats s;

	CHECK_EQ(be.ops->stats(be.self, &s), 0);
	return s;
}

static int create(struct tmem_client *client,
		  const struct tmem_pool_options *options, tmem_pool_id *pool)
{
	struct tmem_backend be = tmem_client_backend(client);

	return be.ops->pool_create(be.self, options, pool);
}

static int destroy(struct tmem_client *client, tmem_pool_id pool)
{
	struct tmem_backend be = tmem_client_backend(client);

	return be.ops->pool_destroy(be.self, pool);
}

/* Half random: compresses to a little more than half. */
static void fill(void *page, uint64_t key)
{
	struct rng rng = { key };
	uint64_t *w = page;
	unsigned i;

	for (i = 0; i < PAGE / 8; i++)
		w[i] = i < PAGE / 16 ? rng_next(&rng) : key;
}

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){
		.object = { { key / 1000, 0, 0 } },
		.index = key % 1000,
		.page = page,
	};
}

static int put(struct tmem_client *client, tmem_pool_id pool, uint32_t key)
{
	struct tmem_backend be = tmem_client_backend(client);
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);
	int r;

	fill(page, key);
	r = be.ops->store(be.self, pool, &io, 1);
	return r < 0 ? r : io.result;
}

static int get(struct tmem_client *client, tmem_pool_id pool, uint32_t key)
{
	struct tmem_backend be = tmem_client_backend(client);
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);
	int r = be.ops->load(be.self, pool, &io, 1);

	fill(want, key);
	if (r == 0 && io.result == 0)
		CHECK(memcmp(page, want, PAGE) == 0);
	return r < 0 ? r : io.result;
}

static void allow(unsigned nr)
{
	while (nr-- > 0)
		CHECK_EQ(tmem_client_allow(clients[nr], shared.uuid, 1), 0);
}

static void bad_flags_are_refused(void)
{
	struct tmem_pool_options o = { .flags = TMEM_POOL_SHARED };
	tmem_pool_id pool = 77;

	open_store(8 * MIB);
	CHECK_EQ(create(clients[0], &o, &pool), -EINVAL);
	o.flags = 4;
	CHECK_EQ(create(clients[0], &o, &pool), -EINVAL);
	CHECK_EQ(pool, 77);
	CHECK_EQ(tmem_client_set_weight(clients[0], 0), -EINVAL);
	CHECK_EQ(tmem_client_set_weight(clients[0], TMEM_WEIGHT_MAX + 1),
		 -EINVAL);
	close_store();
}

static void a_private_ephemeral_load_is_exclusive(void)
{
	tmem_pool_id pool;

	open_store(8 * MIB);
	CHECK_EQ(create(clients[0], &ephemeral, &pool), 0);
	CHECK_EQ(put(clients[0], pool, 1), 0);
	CHECK_EQ(stats().ephemeral_pages, 1);
	CHECK_EQ(get(clients[0], pool, 1), 0);
	CHECK_EQ(get(clients[0], pool, 1), TMEM_MISS);
	CHECK_EQ(stats().pages, 0);
	close_store();
}

static void a_shared_load_leaves_the_page(void)
{
	tmem_pool_id pool, joined;

	open_store(8 * MIB);
	allow(2);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	CHECK_EQ(create(clients[1], &shared, &joined), 0);
	CHECK_EQ(pool, joined);
	CHECK_EQ(put(clients[0], pool, 1), 0);
	CHECK_EQ(get(clients[1], pool, 1), 0);
	CHECK_EQ(get(clients[0], pool, 1), 0);
	CHECK_EQ(get(clients[1], pool, 1), 0);
	close_store();
}

static void who_may_not_share_gets_a_private_pool(void)
{
	struct tmem_pool_options ones = shared;
	tmem_pool_id a, b, c;

	open_store(8 * MIB);
	allow(1);
	CHECK_EQ(create(clients[0], &shared, &a), 0);
	CHECK_EQ(create(clients[1], &shared, &b), TMEM_PRIVATE);
	CHECK(a != b);
	ones.uuid[0] = ones.uuid[1] = UINT64_MAX;
	CHECK_EQ(create(clients[0], &ones, &c), TMEM_PRIVATE);
	CHECK_EQ(tmem_client_allow(clients[0], ones.uuid, 1), -EINVAL);
	CHECK_EQ(put(clients[1], b, 1), 0);
	CHECK_EQ(get(clients[0], a, 1), TMEM_MISS);
	CHECK_EQ(get(clients[1], b, 1), 0);
	CHECK_EQ(get(clients[1], b, 1), TMEM_MISS);
	/* What was allowed can be taken back: for who comes later. */
	CHECK_EQ(tmem_client_allow(clients[0], shared.uuid, 0), 0);
	CHECK_EQ(create(clients[0], &shared, &c), TMEM_PRIVATE);
	close_store();
}

static void sixteen_uuids_may_be_allowed(void)
{
	uint64_t uuid[2] = { 0, 5 };

	open_store(8 * MIB);
	for (; uuid[0] < TMEM_CLIENT_UUIDS; uuid[0]++)
		CHECK_EQ(tmem_client_allow(clients[0], uuid, 1), 0);
	CHECK_EQ(tmem_client_allow(clients[0], uuid, 1), -ENOSPC);
	uuid[0] = 3;
	CHECK_EQ(tmem_client_allow(clients[0], uuid, 1), 0);
	CHECK_EQ(tmem_client_allow(clients[0], uuid, 0), 0);
	uuid[0] = 99;
	CHECK_EQ(tmem_client_allow(clients[0], uuid, 1), 0);
	close_store();
}

static void a_client_cannot_name_the_pools_of_others(void)
{
	struct tmem_backend other;
	struct tmem_io io = io_of(1, NULL);
	tmem_pool_id mine, theirs, clone;
	uint64_t pages;

	open_store(8 * MIB);
	allow(3);
	other = tmem_client_backend(clients[1]);
	CHECK_EQ(create(clients[0], NULL, &mine), 0);
	CHECK_EQ(create(clients[0], &shared, &theirs), 0);
	CHECK_EQ(put(clients[0], mine, 1), 0);
	CHECK_EQ(put(clients[0], theirs, 1), 0);
	CHECK_EQ(put(clients[1], mine, 1), -ENOENT);
	CHECK_EQ(get(clients[1], mine, 1), -ENOENT);
	/* It may join, but has not. */
	CHECK_EQ(get(clients[1], theirs, 1), -ENOENT);
	CHECK_EQ(other.ops->invalidate(other.self, mine, &io, 1), -ENOENT);
	CHECK_EQ(other.ops->invalidate_object(other.self, mine, io.object,
					      &pages),
		 -ENOENT);
	CHECK_EQ(other.ops->pool_clone(other.self, mine, &clone), -ENOENT);
	CHECK_EQ(destroy(clients[1], mine), -ENOENT);
	CHECK_EQ(destroy(clients[1], theirs), -ENOENT);
	CHECK_EQ(get(clients[0], mine, 1), 0);
	close_store();
}

static void a_leaver_takes_what_it_used_last(void)
{
	tmem_pool_id pool, joined;

	open_store(8 * MIB);
	allow(2);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	CHECK_EQ(create(clients[1], &shared, &joined), 0);
	/* Objects 0 to 3: stored by 0, 0, 1, 1; loaded by -, 1, -, 0. */
	CHECK_EQ(put(clients[0], pool, 5), 0);
	CHECK_EQ(put(clients[0], pool, 1005), 0);
	CHECK_EQ(put(clients[1], pool, 2005), 0);
	CHECK_EQ(put(clients[1], pool, 3005), 0);
	CHECK_EQ(get(clients[1], pool, 1005), 0);
	CHECK_EQ(get(clients[0], pool, 3005), 0);
	CHECK_EQ(destroy(clients[1], pool), 0);
	CHECK_EQ(stats().left_pages, 2);
	CHECK_EQ(get(clients[0], pool, 5), 0);
	CHECK_EQ(get(clients[0], pool, 1005), TMEM_MISS);
	CHECK_EQ(get(clients[0], pool, 2005), TMEM_MISS);
	CHECK_EQ(get(clients[0], pool, 3005), 0);
	CHECK_EQ(get(clients[1], pool, 5), -ENOENT);
	CHECK_EQ(destroy(clients[1], pool), -ENOENT);
	/* The last to leave takes the pool with it. */
	CHECK_EQ(destroy(clients[0], pool), 0);
	CHECK_EQ(stats().pages, 0);
	CHECK_EQ(stats().pools, 0);
	close_store();
}

/* More objects than are looked at in one go, of others among them. */
static void many_objects_go_and_the_others_stay(void)
{
	tmem_pool_id pool, joined, pools[TMEM_OBJECT_LISTS + 1];
	const uint32_t nr = 20000;
	uint32_t i;

	open_store(96 * MIB);
	allow(2);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	CHECK_EQ(create(clients[1], &shared, &joined), 0);
	for (i = 0; i <= TMEM_OBJECT_LISTS; i++)
		CHECK_EQ(create(clients[0], NULL, &pools[i]), 0);
	for (i = 0; i < nr; i++) {
		CHECK_EQ(put(clients[i % 2], pool, i * 1000), 0);
		if (i % 4 == 0)
			CHECK_EQ(put(clients[0],
				     pools[i % 8 ? 0 : TMEM_OBJECT_LISTS],
				     i * 1000),
				 0);
	}
	CHECK_EQ(destroy(clients[1], pool), 0);
	CHECK_EQ(stats().left_pages, nr / 2);
	CHECK_EQ(stats().objects, nr / 2 + nr / 4);
	for (i = 0; i < nr; i += 97)
		CHECK_EQ(get(clients[0], pool, i * 1000),
			 i % 2 ? TMEM_MISS : 0);
	CHECK_EQ(destroy(clients[0], pools[0]), 0);
	CHECK_EQ(stats().objects, nr / 2 + nr / 8);
	for (i = 0; i < nr; i += 8)
		CHECK_EQ(get(clients[0], pools[TMEM_OBJECT_LISTS], i * 1000),
			 0);
	tmem_store_check(store);
	CHECK_EQ(destroy(clients[0], pool), 0);
	CHECK_EQ(stats().objects, nr / 8);
	close_store();
}

static void leaving_touches_no_other_pool(void)
{
	tmem_pool_id pool, joined, own;

	open_store(8 * MIB);
	allow(2);
	CHECK_EQ(create(clients[0], &ephemeral, &own), 0);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	CHECK_EQ(create(clients[1], &shared, &joined), 0);
	CHECK_EQ(put(clients[0], own, 7), 0);
	CHECK_EQ(put(clients[0], pool, 7), 0);
	CHECK_EQ(put(clients[1], pool, 1007), 0);
	/* The maker leaves: the pool and what the other used stay. */
	CHECK_EQ(destroy(clients[0], pool), 0);
	CHECK_EQ(get(clients[1], pool, 1007), 0);
	CHECK_EQ(get(clients[1], pool, 7), TMEM_MISS);
	CHECK_EQ(tmem_client_ephemeral_bytes(clients[0]),
		 tmem_client_ephemeral_bytes(clients[1]));
	CHECK_EQ(get(clients[0], own, 7), 0);
	close_store();
}

static void each_join_needs_its_own_leave(void)
{
	tmem_pool_id pool, again;

	open_store(8 * MIB);
	allow(1);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	CHECK_EQ(create(clients[0], &shared, &again), 0);
	CHECK_EQ(pool, again);
	CHECK_EQ(put(clients[0], pool, 1), 0);
	CHECK_EQ(destroy(clients[0], pool), 0);
	CHECK_EQ(get(clients[0], pool, 1), 0);
	CHECK_EQ(destroy(clients[0], pool), 0);
	CHECK_EQ(get(clients[0], pool, 1), -ENOENT);
	close_store();
}

static void a_shared_pool_counts_for_all_in_parts(void)
{
	tmem_pool_id pool, joined;
	uint64_t bytes;
	uint32_t key;

	open_store(8 * MIB);
	allow(2);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	for (key = 0; key < 100; key++)
		CHECK_EQ(put(clients[0], pool, key), 0);
	bytes = tmem_client_ephemeral_bytes(clients[0]);
	CHECK(bytes >= 100ul * 2048);
	CHECK_EQ(create(clients[1], &shared, &joined), 0);
	CHECK_EQ(tmem_client_ephemeral_bytes(clients[0]), bytes / 2);
	CHECK_EQ(tmem_client_ephemeral_bytes(clients[1]), bytes / 2);
	close_store();
}

static void a_client_that_goes_takes_its_pools(void)
{
	tmem_pool_id pool, joined, own;
	uint64_t before;

	open_store(8 * MIB);
	allow(2);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	CHECK_EQ(put(clients[0], pool, 1), 0);
	before = stats().pages;
	CHECK_EQ(create(clients[1], &shared, &joined), 0);
	CHECK_EQ(create(clients[1], NULL, &own), 0);
	CHECK_EQ(put(clients[1], pool, 1001), 0);
	CHECK_EQ(put(clients[1], own, 1), 0);
	tmem_client_destroy(clients[1]);
	CHECK_EQ(stats().pages, before);
	CHECK_EQ(stats().pools, 1);
	CHECK_EQ(get(clients[0], pool, 1), 0);
	CHECK_EQ(tmem_client_create(store, 0, &clients[1]), 0);
	close_store();
}

static void there_are_64_clients_at_a_time(void)
{
	struct tmem_client *client;
	unsigned nr = 5; /* the default one, and four */

	open_store(8 * MIB);
	while (tmem_client_create(store, 0, &client) == 0)
		nr++;
	CHECK_EQ(nr, 64);
	CHECK_EQ(tmem_client_create(store, 0, &client), -ENOSPC);
	tmem_client_destroy(clients[3]);
	CHECK_EQ(tmem_client_create(store, 0, &client), 0);
	close_store();
}

static void ephemeral_pages_make_room_for_persistent_ones(void)
{
	tmem_pool_id cache, swap;
	uint32_t key, refused = 0;

	open_store(8 * MIB);
	CHECK_EQ(create(clients[0], &ephemeral, &cache), 0);
	CHECK_EQ(create(clients[1], NULL, &swap), 0);
	for (key = 0; key < 10000; key++)
		refused += put(clients[0], cache, key) == TMEM_REFUSED;
	CHECK_EQ(refused, 0);
	CHECK(stats().evicted > 5000);
	CHECK(stats().held_bytes <= 8 * MIB);
	CHECK(stats().held_bytes > 7 * MIB);
	for (key = 0; key < 2500; key++)
		CHECK_EQ(put(clients[1], swap, key), 0);
	for (key = 0; key < 2500; key++)
		CHECK_EQ(get(clients[1], swap, key), 0);
	tmem_store_check(store);
	close_store();
}

static void memory_comes_back_at_once_when_the_limit_shrinks(void)
{
	tmem_pool_id cache, swap;
	uint32_t key;

	open_store(32 * MIB);
	CHECK_EQ(create(clients[0], &ephemeral, &cache), 0);
	CHECK_EQ(create(clients[1], NULL, &swap), 0);
	for (key = 0; key < 1000; key++)
		CHECK_EQ(put(clients[1], swap, key), 0);
	for (key = 0; key < 20000; key++)
		CHECK_EQ(put(clients[0], cache, key), 0);
	CHECK_EQ(tmem_store_set_limit(store, 8 * MIB), 0);
	CHECK(stats().held_bytes <= 8 * MIB);
	CHECK(stats().ephemeral_pages > 0);
	for (key = 0; key < 1000; key++)
		CHECK_EQ(get(clients[1], swap, key), 0);
	CHECK_EQ(put(clients[0], cache, 1), 0);
	close_store();
}

/* A small store that may grow large some day has its memory for pages. */
static void ghosts_are_in_proportion_to_the_limit(void)
{
	struct tmem_store_options o = { .limit_bytes = 64 * MIB,
					.max_limit_bytes = 1ull << 40 };
	tmem_pool_id cache;
	uint64_t before;

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	CHECK_EQ(tmem_client_create(store, 0, &clients[0]), 0);
	before = stats().held_bytes;
	CHECK_EQ(create(clients[0], &ephemeral, &cache), 0);
	CHECK(stats().held_bytes - before <= 64 * MIB / 128);
	close_store();
}

/* Pages in use come back; a scan of others must not drive them out. */
static void a_scan_does_not_drive_out_what_is_in_use(void)
{
	tmem_pool_id pool;
	uint32_t key, round, found = 0;

	open_store(8 * MIB);
	allow(1);
	CHECK_EQ(create(clients[0], &shared, &pool), 0);
	for (round = 0; round < 4; round++)
		for (key = 0; key < 1000; key++)
			if (get(clients[0], pool, key) == TMEM_MISS)
				CHECK_EQ(put(clients[0], pool, key), 0);
	for (key = 100000; key < 130000; key++)
		CHECK_EQ(put(clients[0], pool, key), 0);
	for (key = 0; key < 1000; key++)
		found += get(clients[0], pool, key) == 0;
	CHECK(found >= 980);
	close_store();
}

/* A page that was loaded (and so is gone) and comes back is kept longer. */
static void a_page_that_comes_back_has_proved_itself(void)
{
	tmem_pool_id pool;
	uint32_t key, found = 0;

	open_store(8 * MIB);
	CHECK_EQ(create(clients[0], &ephemeral, &pool), 0);
	for (key = 0; key < 1000; key++) {
		CHECK_EQ(put(clients[0], pool, key), 0);
		CHECK_EQ(get(clients[0], pool, key), 0);
	}
	for (key = 0; key < 1000; key++)
		CHECK_EQ(put(clients[0], pool, key), 0);
	for (key = 100000; key < 130000; key++)
		CHECK_EQ(put(clients[0], pool, key), 0);
	for (key = 0; key < 1000; key++)
		found += get(clients[0], pool, key) == 0;
	CHECK(found >= 980);
	close_store();
}

/* Each client stores in turn; its part must come to that of its weight. */
static void converge(const uint32_t *weights, unsigned nr)
{
	uint64_t all = 0, sum = 0, bytes, want;
	tmem_pool_id pools[4];
	uint32_t key;
	unsigned i;

	for (i = 0; i < nr; i++) {
		CHECK_EQ(create(clients[i], &ephemeral, &pools[i]), 0);
		CHECK_EQ(tmem_client_set_weight(clients[i], weights[i]), 0);
		sum += weights[i];
	}
	for (key = 0; key < 20000; key++)
		for (i = 0; i < nr; i++)
			CHECK_EQ(put(clients[i], pools[i], key), 0);
	for (i = 0; i < nr; i++)
		all += tmem_client_ephemeral_bytes(clients[i]);
	for (i = 0; i < nr; i++) {
		want = all * weights[i] / sum;
		bytes = tmem_client_ephemeral_bytes(clients[i]);
		/* Two in a hundred, and what is evicted at a time. */
		CHECK(bytes + want / 50 + 16 * PAGE >= want);
		CHECK(bytes <= want + want / 50 + 16 * PAGE);
	}
	for (i = 0; i < nr; i++)
		CHECK_EQ(destroy(clients[i], pools[i]), 0);
}

static void parts_come_to_the_weights(void)
{
	static const uint32_t weights[][4] = { { 100, 100, 0, 0 },
					       { 100, 300, 0, 0 },
					       { 10, 100, 1000, 0 },
					       { 1, 2, 3, 4 } };
	static const unsigned nr[] = { 2, 2, 3, 4 };
	unsigned i;

	open_store(24 * MIB);
	for (i = 0; i < 4; i++)
		converge(weights[i], nr[i]);
	close_store();
}

/* The old rule was inverted: who was below its part evicted itself. */
static void who_is_below_its_part_loses_nothing(void)
{
	tmem_pool_id small, large;
	uint32_t key;

	open_store(16 * MIB);
	CHECK_EQ(create(clients[0], &ephemeral, &small), 0);
	CHECK_EQ(create(clients[1], &ephemeral, &large), 0);
	for (key = 0; key < 500; key++)
		CHECK_EQ(put(clients[0], small, key), 0);
	for (key = 0; key < 50000; key++)
		CHECK_EQ(put(clients[1], large, key), 0);
	for (key = 0; key < 500; key++)
		CHECK_EQ(get(clients[0], small, key), 0);
	close_store();
}

int main(void)
{
	RUN(bad_flags_are_refused);
	RUN(a_private_ephemeral_load_is_exclusive);
	RUN(a_shared_load_leaves_the_page);
	RUN(who_may_not_share_gets_a_private_pool);
	RUN(sixteen_uuids_may_be_allowed);
	RUN(a_client_cannot_name_the_pools_of_others);
	RUN(a_leaver_takes_what_it_used_last);
	RUN(many_objects_go_and_the_others_stay);
	RUN(leaving_touches_no_other_pool);
	RUN(each_join_needs_its_own_leave);
	RUN(a_shared_pool_counts_for_all_in_parts);
	RUN(a_client_that_goes_takes_its_pools);
	RUN(there_are_64_clients_at_a_time);
	RUN(ephemeral_pages_make_room_for_persistent_ones);
	RUN(memory_comes_back_at_once_when_the_limit_shrinks);
	RUN(ghosts_are_in_proportion_to_the_limit);
	RUN(a_scan_does_not_drive_out_what_is_in_use);
	RUN(a_page_that_comes_back_has_proved_itself);
	RUN(parts_come_to_the_weights);
	RUN(who_is_below_its_part_loses_nothing);
	return 0;
}
