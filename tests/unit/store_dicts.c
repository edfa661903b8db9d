/* SPDX-License-Identifier: MIT */
/*
 * Dictionaries: which pools learn, what it gains them, that the new one takes
 * over and the old one goes, and that no page is read with another's.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/dicts.h"
#include "storetest.h"
#include <tmem/client.h>

enum {
	PAGES = 800,
	PHRASES = 256,
	PHRASE = 64,
	LOADERS = 3
};

#define EACH_TIME 1ull /* each call of maintain may begin something */

static _Atomic int done;

static void open_store(const struct tmem_store_options *options)
{
	struct tmem_store_options o = *options;

	o.no_dedup = 1; /* equal pages of different pools are compressed */
	open_with(&o);
}

static void open_learning(uint64_t cool_after_ns)
{
	struct tmem_store_options o = { .limit_bytes = 64ull << 20,
					.cool_after_ns = cool_after_ns,
					.dict_every_ns = EACH_TIME };

	open_store(&o);
}

/*
 * Phrases of the topic, some in capitals: on one page few come twice, so that
 * it takes a dictionary to see them.
 */
static void fill(unsigned char *page, unsigned topic, unsigned key)
{
	struct rng rng = { key * 1009ull + topic };
	unsigned i, k;

	for (i = 0; i < PAGE / PHRASE; i++) {
		struct rng phrase = { topic * 7919ull +
				      rng_below(&rng, PHRASES) };

		for (k = 0; k < PHRASE; k++)
			page[i * PHRASE + k] =
				(unsigned char)(rng_next(&phrase) >> 24);
		for (k = 0; k < 8; k++)
			page[i * PHRASE + k] = (unsigned char)rng_next(&rng);
	}
}

static void fill_noise(unsigned char *page, unsigned key)
{
	struct rng rng = { key };
	unsigned i;

	for (i = 0; i < PAGE; i++)
		page[i] = (unsigned char)(rng_next(&rng) >> 40 & 7);
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 500 } },
				 .index = key,
				 .page = page };
}

static void put(tmem_pool_id to, unsigned topic, unsigned key)
{
	unsigned char page[PAGE];
	struct tmem_io io = io_of(key, page);

	if (topic)
		fill(page, topic, key);
	else
		fill_noise(page, key);
	CHECK_EQ(backend.ops->store(backend.self, to, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void get(tmem_pool_id from, unsigned topic, unsigned key)
{
	unsigned char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(backend.ops->load(backend.self, from, &io, 1), 0);
	CHECK_EQ(io.result, 0);
	if (topic)
		fill(want, topic, key);
	else
		fill_noise(want, key);
	CHECK(memcmp(page, want, PAGE) == 0);
}

static void put_all(tmem_pool_id to, unsigned topic)
{
	unsigned key;

	for (key = 0; key < PAGES; key++)
		put(to, topic, key);
}

static void get_all(tmem_pool_id from, unsigned topic)
{
	unsigned key;

	for (key = 0; key < PAGES; key++)
		get(from, topic, key);
}

/* So often that whatever waits some surveys has its turn. */
static void maintain(unsigned times)
{
	while (times-- > 0) {
		while (tmem_store_maintain(store, 1000000000))
			;
		tmem_store_check(store);
	}
}

static void similar_pages_get_a_dictionary(void)
{
	uint64_t before;

	open_learning(0);
	put_all(pool, 1);
	before = stats().slot_bytes;
	CHECK_EQ(stats().dicts, 0);
	maintain(2);
	CHECK_EQ(stats().dicts, 1);
	CHECK_EQ(stats().dicts_adopted, 1);
	/* Those that were there already too. */
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	CHECK_EQ(stats().reformed, PAGES);
	CHECK(stats().slot_bytes < before * 6 / 10);
	CHECK(stats().dict_bytes > 0 && stats().dict_bytes < 64ul * 1024);
	CHECK(stats().recompress_ns > 0);
	get_all(pool, 1);
	put_all(pool, 1);
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	get_all(pool, 1);
	close_store();
}

static void cold_pages_use_it_too(void)
{
	open_learning(EACH_TIME);
	put_all(pool, 1);
	maintain(6);
	CHECK_EQ(stats().zstd_dict_pages, PAGES);
	get_all(pool, 1);
	maintain(4);
	put_all(pool, 1);
	get_all(pool, 1);
	close_store();
}

static void nothing_in_common_gives_none(void)
{
	open_learning(EACH_TIME);
	put_all(pool, 0);
	maintain(30);
	CHECK(stats().trainings > 0);
	CHECK_EQ(stats().dicts, 0);
	CHECK_EQ(stats().lz4_dict_pages + stats().zstd_dict_pages, 0);
	get_all(pool, 0);
	close_store();
}

static void nobody_learns_unless_asked_to(void)
{
	struct tmem_store_options o = { .limit_bytes = 64ull << 20,
					.cool_after_ns = EACH_TIME };

	open_store(&o);
	put_all(pool, 1);
	maintain(4);
	CHECK_EQ(stats().trainings, 0);
	CHECK_EQ(stats().dicts, 0);
	close_store();
}

static void a_small_pool_does_not_pay(void)
{
	unsigned key;

	open_learning(0);
	for (key = 0; key < 60; key++)
		put(pool, 1, key);
	maintain(20);
	CHECK_EQ(stats().trainings, 0);
	close_store();
}

static void when_the_pages_change_a_new_one_takes_over(void)
{
	unsigned i;

	open_learning(0);
	put_all(pool, 1);
	maintain(2);
	CHECK_EQ(stats().dicts_adopted, 1);
	put_all(pool, 2);
	for (i = 0; i < 50 && stats().dicts_adopted < 2; i++)
		maintain(1);
	CHECK_EQ(stats().dicts_adopted, 2);
	maintain(2);
	/* All pages have the new one, and the old one is gone. */
	CHECK_EQ(stats().dicts, 1);
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	get_all(pool, 2);
	close_store();
}

static void one_that_gains_nothing_any_more_is_dropped(void)
{
	unsigned i;

	open_learning(0);
	put_all(pool, 1);
	maintain(2);
	CHECK_EQ(stats().dicts, 1);
	put_all(pool, 0);
	for (i = 0; i < 50 && stats().dicts; i++)
		maintain(1);
	CHECK_EQ(stats().dicts, 0);
	CHECK_EQ(stats().lz4_pages + stats().raw_pages, PAGES);
	get_all(pool, 0);
	close_store();
}

static void retire(void)
{
	tmem_lock_acquire(&store->control);
	tmem_dicts_retire(store, tmem_pool_number(pool));
	store->cool_again = 1;
	tmem_lock_release(&store->control);
}

/* Pages that only a dictionary made smaller let it go all the same. */
static void a_dropped_one_goes_whatever_its_pages_are(void)
{
	open_learning(0);
	put_all(pool, 1);
	maintain(2);
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	store->dict_every_ns = 0;
	retire();
	maintain(2);
	CHECK_EQ(stats().lz4_dict_pages, 0);
	CHECK_EQ(stats().dicts, 0);
	CHECK_EQ(tmem_store_maintain(store, 1000000000), 0);
	get_all(pool, 1);
	close_store();
}

static void unused_ones_are_freed(void)
{
	uint64_t meta;

	open_learning(0);
	put_all(pool, 1);
	maintain(2);
	CHECK_EQ(stats().dicts, 1);
	meta = stats().dict_bytes;
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	CHECK_EQ(stats().dicts, 1);
	maintain(1);
	CHECK_EQ(stats().dicts, 0);
	CHECK(stats().dict_bytes < meta);
	close_store();
}

static void a_pools_successor_does_not_inherit(void)
{
	tmem_pool_id next;
	unsigned key;

	open_learning(0);
	put_all(pool, 1);
	maintain(2);
	CHECK_EQ(stats().dicts, 1);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &next), 0);
	CHECK_EQ(next % TMEM_MAX_POOLS, pool % TMEM_MAX_POOLS);
	for (key = 0; key < 50; key++)
		put(next, 1, key);
	CHECK_EQ(stats().lz4_dict_pages, 0);
	close_store();
}

static void pools_do_not_share(void)
{
	tmem_pool_id other;
	unsigned key;

	open_learning(0);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &other), 0);
	put_all(pool, 1);
	for (key = 0; key < 50; key++)
		put(other, 1, key);
	maintain(4);
	CHECK_EQ(stats().dicts, 1);
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	for (key = 50; key < 60; key++)
		put(other, 1, key);
	CHECK_EQ(stats().lz4_pages + stats().raw_pages, 60);
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	close_store();
}

static void shared_pools_do_not_learn(void)
{
	struct tmem_pool_options o = {
		.flags = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED,
		.uuid = { 1, 2 },
	};
	tmem_pool_id shared;

	open_learning(EACH_TIME);
	CHECK_EQ(tmem_client_allow(tmem_client_default(store), o.uuid, 1), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, &o, &shared), 0);
	put_all(shared, 1);
	maintain(20);
	CHECK_EQ(stats().trainings, 0);
	CHECK_EQ(stats().dicts, 0);
	close_store();
}

static void ephemeral_pages_come_out_right(void)
{
	struct tmem_pool_options o = { .flags = TMEM_POOL_EPHEMERAL };
	tmem_pool_id private;

	open_learning(EACH_TIME);
	CHECK_EQ(backend.ops->pool_create(backend.self, &o, &private), 0);
	put_all(private, 1);
	maintain(2);
	CHECK_EQ(stats().dicts, 1);
	put_all(private, 1);
	CHECK_EQ(stats().lz4_dict_pages, PAGES);
	get_all(private, 1);
	CHECK_EQ(stats().pages, 0);
	close_store();
}

static void a_clone_keeps_what_it_needs(void)
{
	tmem_pool_id clone;

	open_learning(EACH_TIME);
	put_all(pool, 1);
	maintain(2);
	CHECK_EQ(stats().dicts, 1);
	CHECK_EQ(backend.ops->pool_clone(backend.self, pool, &clone), 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	maintain(4);
	CHECK_EQ(stats().dicts, 1);
	get_all(clone, 1);
	put_all(clone, 3);
	maintain(1);
	get_all(clone, 3);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, clone), 0);
	maintain(1);
	CHECK_EQ(stats().dicts, 0);
	close_store();
}

static void fill_to_the_limit(uint64_t limit_bytes)
{
	struct tmem_store_options o = { .limit_bytes = limit_bytes,
					.cool_after_ns = EACH_TIME,
					.dict_every_ns = EACH_TIME };
	unsigned char page[PAGE];
	bool there[PAGES];
	unsigned key;

	open_store(&o);
	for (key = 0; key < PAGES; key++) {
		struct tmem_io io = io_of(key, page);

		fill(page, 1, key);
		backend.ops->store(backend.self, pool, &io, 1);
		there[key] = io.result == 0;
		if (key % 200 == 199)
			maintain(1);
	}
	for (key = 0; key < PAGES; key++)
		if (there[key])
			get(pool, 1, key);
}

static void without_memory_it_goes_on_without(void)
{
	uint64_t limit;

	for (limit = 1 << 20; limit < 5 << 20; limit += 900ul * 1024) {
		fill_to_the_limit(limit);
		if (limit < 3 << 19)
			CHECK_EQ(stats().trainings, 0);
		close_store();
	}
}

static void steps_are_as_good_as_a_run(void)
{
	unsigned calls = 0;

	open_learning(0);
	put_all(pool, 1);
	while (!stats().dicts && calls++ < 100000) {
		tmem_store_maintain(store, 0);
		if (calls % 64 == 0)
			tmem_store_check(store);
	}
	CHECK_EQ(stats().dicts, 1);
	CHECK(calls > 50);
	maintain(1);
	get_all(pool, 1);
	close_store();
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void it_takes_no_more_of_a_cpu_than_it_may(void)
{
	struct tmem_store_options o = { .limit_bytes = 64ull << 20,
					.cool_after_ns = EACH_TIME,
					.dict_every_ns = EACH_TIME,
					.maintain_percent = 2 };
	uint64_t start, took;

	open_store(&o);
	put_all(pool, 1);
	start = now_ns();
	do {
		tmem_store_maintain(store, 1000000);
		took = now_ns() - start;
	} while (took < 400000000);
	CHECK(stats().recompress_ns > 0);
	/* A second's worth at the start, and one step beyond it. */
	CHECK(stats().recompress_ns < (took + 1000000000) / 50 + 50000000);
	get_all(pool, 1);
	close_store();
}

/* A fork at every stage: the child finds no trial, and all its pages. */
static void a_fork_while_it_learns(void)
{
	unsigned i;
	int status;
	pid_t pid;

	open_learning(EACH_TIME);
	put_all(pool, 1);
	for (i = 0; i < 8; i++) {
		unsigned n = i * i;

		while (n-- > 0)
			tmem_store_maintain(store, 0);
		tmem_store_before_fork(store);
		get(pool, 1, i);
		pid = fork();
		tmem_store_after_fork(store, pid >= 0);
		get_all(pool, 1);
		maintain(1);
		if (!pid) {
			tmem_store_thaw(store);
			put_all(pool, 2);
			maintain(3);
			get_all(pool, 2);
			tmem_store_check(store);
			_exit(0);
		}
		CHECK(waitpid(pid, &status, 0) == pid && status == 0);
		tmem_store_thaw(store);
		get_all(pool, 1);
	}
	close_store();
}

static void *load_all_the_time(void *arg)
{
	unsigned key = *(unsigned *)arg, n = 0;

	while (!atomic_load(&done)) {
		unsigned char page[PAGE], want[PAGE];
		struct tmem_io io = io_of(key % PAGES, page);

		CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
		CHECK_EQ(io.result, 0);
		fill(want, 1, key % PAGES);
		if (memcmp(page, want, PAGE) != 0) {
			fill(want, 2, key % PAGES);
			CHECK(memcmp(page, want, PAGE) == 0);
		}
		if (n++ % 3 == 0)
			put(pool, 1 + n % 2, key % PAGES);
		key += LOADERS;
	}
	return NULL;
}

/* Dictionaries come and go under loads, stores and forks. */
static void loads_while_dictionaries_change(void)
{
	pthread_t threads[LOADERS];
	unsigned first[LOADERS], i;

	open_learning(EACH_TIME);
	put_all(pool, 1);
	for (i = 0; i < LOADERS; i++) {
		first[i] = i;
		CHECK_EQ(pthread_create(&threads[i], NULL, load_all_the_time,
					&first[i]),
			 0);
	}
	for (i = 0; i < 24; i++) {
		maintain(1);
		/* As if the pool had none any more, to begin again. */
		if (i % 4 == 3)
			retire();
		if (i % 8 == 5) {
			tmem_store_before_fork(store);
			tmem_store_after_fork(store, 1);
			tmem_store_thaw(store);
		}
	}
	atomic_store(&done, 1);
	for (i = 0; i < LOADERS; i++)
		pthread_join(threads[i], NULL);
	CHECK(stats().trainings > 0);
	close_store();
}

/* What snapshot and recovery need: the same content under the same name. */
static void one_can_be_added_by_name(void) TMEM_UNANALYSED
{
	static char content[20000];
	struct tmem_dict_spec spec = { .name = 5 << 7 | 9,
				       .pool = 3,
				       .uses = TMEM_DICT_LZ4,
				       .content_bytes = sizeof(content),
				       .content = content };
	const struct tmem_dict *dict;
	uint32_t name = 0;

	open_learning(0);
	memset(content, 'x', sizeof(content));
	tmem_lock_acquire(&store->control);
	CHECK_EQ(tmem_dicts_add(store, &spec, &name), 0);
	CHECK_EQ(name, spec.name);
	CHECK_EQ(tmem_dicts_add(store, &spec, &name), -EEXIST);
	dict = tmem_dicts_get(store, name);
	CHECK(dict && dict->content_bytes == sizeof(content));
	CHECK(memcmp(dict->content, content, sizeof(content)) == 0);
	CHECK(!tmem_dicts_get(store, name + 128));
	spec.name = 9; /* no generation: never a name */
	CHECK_EQ(tmem_dicts_add(store, &spec, &name), -EINVAL);
	spec.name = 0;
	spec.content_bytes = TMEM_DICT_MIN_BYTES - 1;
	CHECK_EQ(tmem_dicts_add(store, &spec, &name), -EINVAL);
	tmem_lock_release(&store->control);
	CHECK_EQ(stats().dicts, 1);
	maintain(1); /* nobody uses it */
	CHECK_EQ(stats().dicts, 0);
	close_store();
}

static void there_are_so_many_and_no_more(void) TMEM_UNANALYSED
{
	static char content[TMEM_DICT_MIN_BYTES];
	struct tmem_dict_spec spec = { .pool = 3,
				       .uses = TMEM_DICT_LZ4,
				       .content_bytes = sizeof(content),
				       .content = content };
	uint32_t name, last = 0;
	unsigned i;

	open_learning(0);
	tmem_lock_acquire(&store->control);
	for (i = 0; i < TMEM_MAX_DICTS; i++) {
		CHECK_EQ(tmem_dicts_add(store, &spec, &name), 0);
		CHECK(name != last && name);
		last = name;
	}
	CHECK_EQ(tmem_dicts_add(store, &spec, &name), -ENOSPC);
	CHECK_EQ(tmem_dicts_sweep(store), 0);
	/* The names come again after 511 others. */
	CHECK_EQ(tmem_dicts_add(store, &spec, &name), 0);
	last = name;
	for (i = 0; i < 600; i++) {
		CHECK_EQ(tmem_dicts_sweep(store), 0);
		CHECK_EQ(tmem_dicts_add(store, &spec, &name), 0);
		CHECK((name == last) == (i == 510) && name >> 7);
	}
	tmem_lock_release(&store->control);
	close_store();
}

int main(void)
{
	RUN(similar_pages_get_a_dictionary);
	RUN(cold_pages_use_it_too);
	RUN(nothing_in_common_gives_none);
	RUN(nobody_learns_unless_asked_to);
	RUN(a_small_pool_does_not_pay);
	RUN(when_the_pages_change_a_new_one_takes_over);
	RUN(one_that_gains_nothing_any_more_is_dropped);
	RUN(a_dropped_one_goes_whatever_its_pages_are);
	RUN(unused_ones_are_freed);
	RUN(a_pools_successor_does_not_inherit);
	RUN(pools_do_not_share);
	RUN(shared_pools_do_not_learn);
	RUN(ephemeral_pages_come_out_right);
	RUN(a_clone_keeps_what_it_needs);
	RUN(without_memory_it_goes_on_without);
	RUN(steps_are_as_good_as_a_run);
	RUN(it_takes_no_more_of_a_cpu_than_it_may);
	RUN(a_fork_while_it_learns);
	RUN(loads_while_dictionaries_change);
	RUN(one_can_be_added_by_name);
	RUN(there_are_so_many_and_no_more);
	return 0;
}
