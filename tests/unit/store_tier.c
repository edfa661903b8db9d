/* SPDX-License-Identifier: MIT */
/*
 * A store with a tier: what goes down and when, that it comes back as it was,
 * and what becomes of it when the tier fails, is full, or the page changes
 * meanwhile.
 */
#include <sys/wait.h>

#include <tmem/stats.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "base/sys.h"
#include "core/tiering.h"
#include "testfile.h"
#include "testtier.h"

enum {
	LIMIT = 8 << 20,
	MAX_PAGES = 16384,
	PER_OBJECT = 200
};

static struct tmem_store *store;
static struct tmem_backend backend;
static struct testtier *tier;
static tmem_pool_id pool;
static uint64_t versions[MAX_PAGES]; /* 0: not there */
static unsigned nr_pages;
static const struct testtier_mood good;

static struct tmem_stats stats(void)
{
	struct tmem_stats s;

	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	return s;
}

static void set(struct testtier_mood mood)
{
	testtier_set(tier, &mood);
}

static void open_bare(uint64_t limit, uint64_t cool_after_ns)
{
	struct tmem_store_options o = { .limit_bytes = limit,
					.max_limit_bytes = 64 << 20,
					.cool_after_ns = cool_after_ns };

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	backend = tmem_store_backend(store);
	memset(versions, 0, sizeof(versions));
	nr_pages = 0;
}

static void impatient(void)
{
	store->tiering->rest_step_ns = 0;
	store->tiering->backoff_step_ns = 1;
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
}

static void open_store(uint32_t nr_segments, uint64_t cool_after_ns)
{
	open_bare(LIMIT, cool_after_ns);
	tier = testtier_create(nr_segments, 1);
	CHECK_EQ(tmem_tiering_attach(store, &testtier_ops, tier, NULL), 0);
	impatient();
}

static void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

/* About half of a page, compressed. */
static void fill(void *page, unsigned key, uint64_t version)
{
	struct rng rng = { key * 1000003ull + version };
	uint64_t *w = page;

	for (unsigned i = 0; i < PAGE / 8; i++)
		w[i] = i % 3 ? key : rng_next(&rng);
	w[0] = version;
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / PER_OBJECT } },
				 .index = key,
				 .page = page };
}

static int put(unsigned key, uint64_t version)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, key, version);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	versions[key] = io.result == 0 ? version : 0;
	return io.result;
}

/* What is right or -EIO. */
static int get_from(tmem_pool_id from, unsigned key, uint64_t version)
{
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	memset(page, 0x5a, PAGE);
	CHECK_EQ(backend.ops->load(backend.self, from, &io, 1), 0);
	if (version && io.result == 0)
		fill(want, key, version);
	else
		memset(want, 0x5a, PAGE);
	CHECK(io.result == (version ? 0 : TMEM_MISS) || io.result == -EIO);
	CHECK(memcmp(page, want, PAGE) == 0);
	return io.result;
}

static int get(unsigned key)
{
	return get_from(pool, key, versions[key]);
}

static void drop(unsigned key)
{
	struct tmem_io io = io_of(key, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, versions[key] ? 0 : TMEM_MISS);
	versions[key] = 0;
}

static void maintain(void)
{
	unsigned n = 0;

	while (tmem_store_maintain(store, 1000000000))
		CHECK(++n < 100000);
	tmem_store_check(store);
}

/* New pages until so many sixteenths of the limit are held. */
static void grow_to(unsigned sixteenths)
{
	while (tmem_store_held_bytes(store) <
	       stats().limit_bytes / 16 * sixteenths) {
		CHECK(nr_pages < MAX_PAGES);
		CHECK_EQ(put(nr_pages, nr_pages + 1), 0);
		nr_pages++;
	}
}

static void get_all(void)
{
	for (unsigned key = 0; key < nr_pages; key++)
		CHECK_EQ(get(key), versions[key] ? 0 : TMEM_MISS);
}

static void go_down(void)
{
	grow_to(15);
	maintain();
	CHECK(stats().tier_pages > 100);
	CHECK_EQ(stats().tier_write_errors, 0);
}

static void nothing_is_written_while_there_is_room(void)
{
	open_store(64, 0);
	grow_to(13);
	for (unsigned i = 0; i < 10; i++)
		maintain();
	CHECK_EQ(stats().tier_written_bytes, 0);
	CHECK_EQ(stats().tier_segments, 0);
	close_store();
}

static void cold_pages_go_down_and_are_what_they_were(void)
{
	struct tmem_stats s;

	open_store(64, 0);
	go_down();
	s = stats();
	CHECK(s.held_bytes < s.limit_bytes / 16 * 14);
	CHECK_EQ(s.tier_moved, s.tier_pages);
	CHECK(s.tier_written_bytes >= s.tier_moved_bytes);
	CHECK(s.tier_written_bytes < s.tier_moved_bytes * 9 / 8);
	get_all();
	CHECK(stats().tier_reads > 0);
	CHECK_EQ(stats().tier_read_errors, 0);
	get_all();
	CHECK(stats().tier_promoted > 0);
	close_store();
}

static void pages_that_are_loaded_stay(void)
{
	unsigned hot;

	open_store(64, 0);
	grow_to(15);
	hot = nr_pages / 3;
	store->tiering->rest_step_ns = 1000000000;
	/* A round marks all; what is loaded then is not what goes. */
	for (unsigned i = 0; i < 10000 && stats().tier_written_bytes == 0;
	     i++) {
		tmem_store_maintain(store, 0);
		for (unsigned key = 0; key < hot; key++)
			get(key);
	}
	maintain();
	CHECK(stats().tier_pages > 100);
	for (unsigned key = 0; key < hot; key++)
		get(key);
	CHECK_EQ(stats().tier_reads, 0);
	close_store();
}

static void between_the_waters_nothing_moves(void)
{
	uint64_t written;

	open_store(64, 0);
	go_down();
	maintain();
	written = stats().tier_written_bytes;
	grow_to(13);
	maintain();
	CHECK_EQ(stats().tier_written_bytes, written);
	grow_to(15);
	maintain();
	CHECK(stats().tier_written_bytes > written);
	close_store();
}

static void cooled_pages_go_before_others(void)
{
	open_store(64, 1);
	grow_to(11);
	maintain();
	maintain();
	maintain();
	CHECK(stats().zstd_pages > 0);
	store->cool_after_ns = 3600ull * 1000000000;
	grow_to(15);
	maintain();
	CHECK(stats().tier_pages > 100);
	/* What was stored since is there. */
	CHECK(stats().lz4_pages > 0);
	get_all();
	close_store();
}

static void what_is_gone_is_dropped_below(void)
{
	uint64_t dropped;

	open_store(64, 0);
	go_down();
	for (unsigned key = 0; key < nr_pages; key++) {
		if (key % 2)
			drop(key);
		else
			put(key, key + 70000);
	}
	CHECK_EQ(stats().tier_pages, 0);
	CHECK_EQ(stats().tier_bytes, 0);
	maintain();
	CHECK_EQ(stats().tier_segments, 0);
	dropped = stats().tier_dropped;
	CHECK(dropped > 0);
	get_all();
	grow_to(15);
	maintain();
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	CHECK_EQ(stats().tier_pages, 0);
	maintain();
	CHECK_EQ(stats().tier_segments, 0);
	close_store();
}

static void a_tier_that_fails_costs_no_page(void)
{
	const struct testtier_mood moods[] = { { .write_error = 1024 },
					       { .write_full = 1024 },
					       { .write_timeout = 1024 } };

	for (unsigned i = 0; i < 3; i++) {
		struct tmem_stats s;

		open_store(64, 0);
		set(moods[i]);
		grow_to(15);
		for (unsigned n = 0; n < 5; n++)
			maintain();
		s = stats();
		CHECK_EQ(s.tier_pages, 0);
		CHECK_EQ(s.tier_moved, 0);
		CHECK_EQ(s.tier_written_bytes, 0);
		CHECK((i == 1 ? s.tier_full : s.tier_write_errors) > 0);
		get_all();
		set(good);
		for (unsigned n = 0; n < 5; n++)
			maintain();
		CHECK(stats().tier_pages > 100);
		get_all();
		close_store();
	}
}

static void a_broken_tier_is_left_alone(void)
{
	uint64_t errors;

	open_store(64, 0);
	store->tiering->backoff_step_ns = 3600ull * 1000000000;
	set((struct testtier_mood){ .write_error = 1024 });
	grow_to(15);
	maintain();
	errors = stats().tier_write_errors;
	CHECK_EQ(errors, 1);
	maintain();
	maintain();
	CHECK_EQ(stats().tier_write_errors, 1);
	close_store();
}

static void the_second_tier_takes_what_the_first_has_no_room_for(void)
{
	struct testtier *second;

	open_store(4, 0);
	second = testtier_create(200, 2);
	CHECK_EQ(tmem_tiering_attach(store, &testtier_ops, second, NULL), 0);
	go_down();
	CHECK_EQ(store->tiering->tiers[0].nr_held, 4);
	CHECK(store->tiering->tiers[1].nr_held > 0);
	get_all();
	close_store();
}

static void what_cannot_be_read_is_an_error_not_a_page(void)
{
	const struct testtier_mood moods[] = { { .read_error = 1024 },
					       { .read_garbage = 1024 } };
	unsigned errors = 0;

	for (unsigned i = 0; i < 2; i++) {
		open_store(64, 0);
		go_down();
		set(moods[i]);
		errors = 0;
		for (unsigned key = 0; key < nr_pages; key++)
			errors += get(key) == -EIO;
		CHECK(errors > 0);
		CHECK(stats().tier_read_errors >= errors);
		set(good);
		/* A bad cluster is forgotten with the next. */
		memset(&store->tiering->clusters[0].generation, 0, 4);
		for (unsigned c = 0; c < TMEM_MAX_CLUSTERS; c++)
			store->tiering->clusters[c].generation = 0;
		get_all();
		for (unsigned key = 0; key < nr_pages; key++)
			drop(key);
		maintain();
		CHECK_EQ(stats().tier_segments, 0);
		close_store();
	}
}

static void a_page_that_changes_while_it_is_written_is_the_new_one(void)
{
	open_store(64, 0);
	grow_to(15);
	set((struct testtier_mood){ .hold = true });
	for (unsigned i = 0; i < 100; i++)
		tmem_store_maintain(store, 1000);
	CHECK_EQ(store->tiering->batch.state, TMEM_BATCH_WRITING);
	for (unsigned key = 0; key < nr_pages; key++) {
		if (key % 3 == 0)
			drop(key);
		else if (key % 3 == 1)
			put(key, key + 90000);
	}
	get_all();
	set(good);
	maintain();
	get_all();
	close_store();
}

static void a_clone_has_what_is_below(void)
{
	tmem_pool_id clone, again;

	open_store(64, 0);
	go_down();
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), 0);
	CHECK_EQ(backend.ops->pool_clone(backend.self, clone, &again), 0);
	tmem_store_check(store);
	for (unsigned key = 0; key < nr_pages; key++) {
		CHECK_EQ(get_from(clone, key, key + 1), 0);
		if (key % 2)
			drop(key);
		else
			put(key, key + 50000);
	}
	tmem_store_check(store);
	maintain();
	for (unsigned key = 0; key < nr_pages; key++) {
		CHECK_EQ(get_from(clone, key, key + 1), 0);
		CHECK_EQ(get_from(again, key, key + 1), 0);
	}
	get_all();
	tmem_store_check(store);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, clone), 0);
	for (unsigned key = 0; key < nr_pages; key++)
		CHECK_EQ(get_from(again, key, key + 1), 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, again), 0);
	maintain();
	CHECK_EQ(stats().tier_segments, 0);
	CHECK_EQ(stats().pages, 0);
	close_store();
}

static void a_lower_limit_moves_pages_down(void)
{
	open_bare(32 << 20, 0);
	tier = testtier_create(256, 1);
	CHECK_EQ(tmem_tiering_attach(store, &testtier_ops, tier, NULL), 0);
	impatient();
	grow_to(13);
	CHECK_EQ(tmem_store_set_limit(store, 8 << 20), 0);
	CHECK(tmem_store_held_bytes(store) > 8 << 20);
	for (unsigned i = 0; i < 20; i++)
		maintain();
	CHECK(tmem_store_held_bytes(store) <= 8 << 20);
	get_all();
	CHECK_EQ(put(nr_pages++, 1), 0);
	close_store();
}

/* Ever at its limit, with little time for maintenance in between. */
static void a_store_that_is_always_full_goes_on(void)
{
	open_store(400, 0);
	while (nr_pages < MAX_PAGES) {
		unsigned tries = 0;

		while (put(nr_pages, nr_pages + 1) != 0) {
			tmem_store_maintain(store, 100000);
			CHECK(++tries < 1000);
		}
		nr_pages++;
	}
	tmem_store_check(store);
	get_all();
	close_store();
}

static void the_cleaner_makes_room(void)
{
	struct rng rng = { 3 };
	struct tmem_stats s;

	/* Segments of 128 KiB: about 60 pages each. */
	open_store(40, 0);
	for (unsigned i = 0; i < 400; i++) {
		for (unsigned n = 0; n < 60; n++) {
			unsigned key = (unsigned)rng_below(&rng, 5000);

			if (key >= nr_pages)
				nr_pages = key + 1;
			put(key, rng_next(&rng) | 1);
			key = (unsigned)rng_below(&rng, nr_pages);
			if (n % 8 == 0)
				drop(key);
		}
		maintain();
	}
	get_all();
	s = stats();
	CHECK(s.tier_cleaned > 0);
	CHECK(s.tier_segments <= 40);
	CHECK(s.tier_written_bytes < 4 * s.tier_moved_bytes);
	close_store();
}

static void ephemeral_pages_do_not_go_down(void)
{
	const struct tmem_pool_options o = { .flags = TMEM_POOL_EPHEMERAL };
	_Alignas(8) char page[PAGE];

	open_store(64, 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &o, &pool), 0);
	for (unsigned key = 0; key < 6000; key++) {
		struct tmem_io io = io_of(key, page);

		fill(page, key, 1);
		CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	}
	for (unsigned i = 0; i < 5; i++)
		maintain();
	CHECK_EQ(stats().tier_moved, 0);
	close_store();
}

static void a_forks_child_reads_what_was_there(void)
{
	int status;
	pid_t pid;

	open_store(64, 0);
	go_down();
	set((struct testtier_mood){ .slow = 900 });
	grow_to(15);
	tmem_store_maintain(store, 1000);
	tmem_store_before_fork(store);
	CHECK(store->tiering->batch.state == TMEM_BATCH_NONE);
	pid = fork();
	tmem_store_after_fork(store, pid >= 0);
	set(good);
	if (!pid) {
		get_all();
		maintain();
		for (unsigned key = 0; key < nr_pages; key++)
			drop(key);
		maintain();
		CHECK_EQ(stats().tier_dropped, 0);
		_exit(0);
	}
	get_all();
	for (unsigned key = 0; key < nr_pages; key += 2)
		drop(key);
	maintain();
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	tmem_store_thaw(store);
	maintain();
	get_all();
	close_store();
}

static void with_real_tiers(void)
{
	static const struct {
		uint32_t kind;
		int plain;
	} ways[] = { { TMEM_TIER_KIND_FILE, 0 },
		     { TMEM_TIER_KIND_FILE, 1 },
		     { TMEM_TIER_KIND_MAPPED, 0 } };

	for (unsigned i = 0; i < 3; i++) {
		struct tmem_tier_setup setup = {
			.kind = ways[i].kind,
			.fd = testfile_disk(),
			.max_bytes = 64 << 20,
			.plain = ways[i].plain,
		};
		int status;
		pid_t pid;

		open_bare(LIMIT, 0);
		CHECK_EQ(tmem_store_add_tier(store, &setup), 0);
		impatient();
		go_down();
		get_all();
		grow_to(15);
		maintain();
		/* In a child the file is read by a ring of its own. */
		tmem_store_before_fork(store);
		pid = fork();
		tmem_store_after_fork(store, pid >= 0);
		get_all();
		if (!pid)
			_exit(0);
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		tmem_store_thaw(store);
		for (unsigned key = 0; key < nr_pages; key++)
			drop(key);
		maintain();
		CHECK_EQ(stats().tier_segments, 0);
		close_store();
		close(setup.fd);
	}
}

static void what_does_not_fit_is_not_added(void)
{
	struct tmem_tier_setup setup = { .kind = 7, .fd = -1 };

	open_bare(1 << 20, 0);
	CHECK_EQ(tmem_store_add_tier(store, &setup), -EINVAL);
	setup.kind = TMEM_TIER_KIND_FILE;
	setup.max_bytes = 1 << 20;
	CHECK_EQ(tmem_store_add_tier(store, &setup), -EBADF);
	tmem_store_check(store);
	for (unsigned i = 0; i < TMEM_MAX_TIERS; i++) {
		tier = testtier_create(4, i);
		CHECK_EQ(tmem_tiering_attach(store, &testtier_ops, tier, NULL),
			 0);
	}
	tier = testtier_create(4, 9);
	CHECK_EQ(tmem_tiering_attach(store, &testtier_ops, tier, NULL),
		 -ENOSPC);
	testtier_ops.close(tier);
	close_store();
}

/* Page by page more room, so that each of its memory is what is denied. */
static void a_tier_without_memory_takes_none(void)
{
	unsigned denied = 0;
	uint64_t held;
	int r = -ENOMEM;

	open_bare(1 << 20, 0);
	tier = testtier_create(4, 1);
	held = tmem_store_held_bytes(store);
	while (r < 0) {
		atomic_store(&store->account.limit_bytes,
			     held + denied++ * 4096ul);
		r = tmem_tiering_attach(store, &testtier_ops, tier, NULL);
		tmem_store_check(store);
		CHECK(r == 0 || r == -ENOMEM);
		CHECK(r == 0 || tmem_store_held_bytes(store) == held);
	}
	CHECK(denied > 60);
	CHECK(tmem_store_held_bytes(store) > held);
	CHECK_EQ(tmem_store_set_limit(store, 1 << 20), 0);
	close_store();
}

int main(void)
{
	RUN(nothing_is_written_while_there_is_room);
	RUN(cold_pages_go_down_and_are_what_they_were);
	RUN(pages_that_are_loaded_stay);
	RUN(between_the_waters_nothing_moves);
	RUN(cooled_pages_go_before_others);
	RUN(what_is_gone_is_dropped_below);
	RUN(a_tier_that_fails_costs_no_page);
	RUN(a_broken_tier_is_left_alone);
	RUN(the_second_tier_takes_what_the_first_has_no_room_for);
	RUN(what_cannot_be_read_is_an_error_not_a_page);
	RUN(a_page_that_changes_while_it_is_written_is_the_new_one);
	RUN(a_clone_has_what_is_below);
	RUN(a_lower_limit_moves_pages_down);
	RUN(a_store_that_is_always_full_goes_on);
	RUN(the_cleaner_makes_room);
	RUN(ephemeral_pages_do_not_go_down);
	RUN(a_forks_child_reads_what_was_there);
	RUN(with_real_tiers);
	RUN(what_does_not_fit_is_not_added);
	RUN(a_tier_without_memory_takes_none);
	return 0;
}
