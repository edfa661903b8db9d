/* SPDX-License-Identifier: MIT */
/* Cold pages get a smaller form: which ones, when, and that nothing is lost. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storetest.h"

enum {
	PAGES = 3000,
	CHURNED = 20000,
	LOADERS = 3
};

#define ROUND_NS 1ull /* so that each call of maintain begins a new round */

static _Atomic int done, churned;

static void open_store(uint64_t cool_after_ns)
{
	struct tmem_store_options o = { .limit_bytes = 64ull << 20,
					.cool_after_ns = cool_after_ns };

	open_with(&o);
}

/* Text-like: letters of few kinds, which LZ4 hardly and zstd well takes. */
static void fill(unsigned char *page, unsigned key)
{
	struct rng rng = { key + 1 };
	unsigned i;

	for (i = 0; i < PAGE; i++)
		page[i] = (unsigned char)("etaoin shrdlu"[rng_below(&rng, 13)]);
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 500 } },
				 .index = key,
				 .page = page };
}

static void put(unsigned key, unsigned content)
{
	unsigned char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, content);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void get(unsigned key, unsigned content)
{
	unsigned char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
	fill(want, content);
	CHECK(memcmp(page, want, PAGE) == 0);
}

/* A round marks, the next recompresses. */
static void maintain(unsigned rounds)
{
	while (rounds-- > 0)
		while (tmem_store_maintain(store, 1000000000))
			;
}

static void fill_store(void)
{
	unsigned key;

	for (key = 0; key < PAGES; key++)
		put(key, key);
}

static void pages_that_nobody_touches_shrink(void)
{
	uint64_t before;
	unsigned key;

	open_store(ROUND_NS);
	fill_store();
	before = stats().stored_bytes;
	maintain(1);
	CHECK_EQ(stats().zstd_pages, 0);
	maintain(1);
	CHECK_EQ(stats().zstd_pages, PAGES);
	CHECK_EQ(stats().cooled, PAGES);
	CHECK(stats().stored_bytes < before * 8 / 10);
	for (key = 0; key < PAGES; key++)
		get(key, key);
	close_store();
}

/* A budget beyond the clock's end is one without an end. */
static void all_the_time_there_is_will_do(void)
{
	open_store(ROUND_NS);
	fill_store();
	CHECK_EQ(tmem_store_maintain(store, UINT64_MAX), 0);
	CHECK_EQ(tmem_store_maintain(store, UINT64_MAX), 0);
	CHECK_EQ(stats().zstd_pages, PAGES);
	close_store();
}

static void pages_that_are_loaded_stay_fast(void)
{
	unsigned key;

	open_store(ROUND_NS);
	fill_store();
	maintain(1);
	for (key = 0; key < PAGES; key += 2)
		get(key, key);
	maintain(1);
	CHECK_EQ(stats().zstd_pages, PAGES / 2);
	/* And what is stored anew is new. */
	for (key = 0; key < PAGES; key++)
		put(key, key + 7);
	CHECK_EQ(stats().zstd_pages, 0);
	for (key = 0; key < PAGES; key++)
		get(key, key + 7);
	close_store();
}

static void nothing_cools_unless_asked_to(void)
{
	open_store(0);
	fill_store();
	maintain(3);
	CHECK_EQ(stats().zstd_pages, 0);
	close_store();
}

/* So much of a page that LZ4 takes it, in slots of many sizes. */
static void fill_part(unsigned char *page, unsigned key)
{
	unsigned part = PAGE / 16 * (2 + key % 11);

	fill(page, key);
	memset(page + part, 0, PAGE - part);
}

static int put_part(unsigned key)
{
	unsigned char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill_part(page, key);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	return io.result;
}

/* What becomes free is taken at once: pages from *arg on come and go. */
static void *churn(void *arg)
{
	unsigned first = *(const unsigned *)arg, nr = first, i, key;
	struct rng rng = { 5 };
	struct tmem_io io;

	while (!atomic_load(&done)) {
		key = first + rng_below(&rng, nr);
		io = io_of(key, NULL);
		backend.ops->invalidate(backend.self, pool, &io, 1);
		for (i = 0; i < 4; i++)
			put_part(first + rng_below(&rng, nr));
		atomic_fetch_add(&churned, 1);
	}
	return NULL;
}

/* Rounds need memory of their own, which others would have taken. */
static void a_full_store_cools(void)
{
	struct tmem_store_options o = { .limit_bytes = 16ull << 20,
					.cool_after_ns = ROUND_NS };
	unsigned char page[PAGE], want[PAGE];
	unsigned key = 0, nr, i;
	struct tmem_io io;
	pthread_t thread;

	open_with(&o);
	maintain(1);
	while (put_part(key) == 0)
		key++;
	nr = key;
	atomic_store(&done, 0);
	CHECK_EQ(pthread_create(&thread, NULL, churn, &nr), 0);
	while (atomic_load(&churned) < CHURNED)
		usleep(1000);
	for (i = 0; i < 100000 && stats().cooled < nr / 4; i++)
		tmem_store_maintain(store, 1000000);
	atomic_store(&done, 1);
	pthread_join(thread, NULL);
	CHECK(stats().cooled >= nr / 4);
	for (key = 0; key < nr; key++) {
		io = io_of(key, page);
		CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
		CHECK_EQ(io.result, 0);
		fill_part(want, key);
		CHECK(memcmp(page, want, PAGE) == 0);
	}
	close_store();
}

static void nothing_cools_before_its_time(void)
{
	open_store(3600ull * 1000000000);
	fill_store();
	maintain(3);
	CHECK_EQ(stats().zstd_pages, 0);
	close_store();
}

static void an_object_that_cools_is_still_dropped_whole(void)
{
	struct tmem_object_id object = { { 0 } };
	unsigned key;
	uint64_t pages;

	open_store(ROUND_NS);
	fill_store();
	maintain(2);
	CHECK_EQ(backend.ops->invalidate_object(backend.self, pool, object,
						&pages),
		 0);
	CHECK_EQ(pages, 500);
	for (key = 500; key < PAGES; key++)
		get(key, key);
	close_store();
}

static void *load_all_the_time(void *arg)
{
	unsigned key = *(unsigned *)arg;

	while (!atomic_load(&done)) {
		get(key % PAGES, key % PAGES);
		key += LOADERS;
	}
	return NULL;
}

static void loads_and_rounds_at_once(void)
{
	pthread_t threads[LOADERS];
	unsigned first[LOADERS], i;

	open_store(ROUND_NS);
	fill_store();
	maintain(2);
	for (i = 0; i < LOADERS; i++) {
		first[i] = i;
		CHECK_EQ(pthread_create(&threads[i], NULL, load_all_the_time,
					&first[i]),
			 0);
	}
	for (i = 0; i < 300; i++) {
		put(i, i);
		maintain(1);
	}
	atomic_store(&done, 1);
	for (i = 0; i < LOADERS; i++)
		pthread_join(threads[i], NULL);
	close_store();
}

static void a_forks_child_reads_them_too(void)
{
	unsigned key;
	int status;
	pid_t pid;

	open_store(ROUND_NS);
	fill_store();
	maintain(2);
	tmem_store_before_fork(store);
	get(1, 1);
	pid = fork();
	tmem_store_after_fork(store, pid >= 0);
	for (key = 0; key < PAGES; key++)
		get(key, key);
	maintain(2);
	put(0, 99);
	get(0, 99);
	tmem_store_check(store);
	if (!pid)
		_exit(0);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	tmem_store_thaw(store);
	maintain(2);
	get(0, 99);
	close_store();
}

int main(void)
{
	RUN(pages_that_nobody_touches_shrink);
	RUN(all_the_time_there_is_will_do);
	RUN(pages_that_are_loaded_stay_fast);
	RUN(nothing_cools_unless_asked_to);
	RUN(a_full_store_cools);
	RUN(nothing_cools_before_its_time);
	RUN(an_object_that_cools_is_still_dropped_whole);
	RUN(loads_and_rounds_at_once);
	RUN(a_forks_child_reads_them_too);
	return 0;
}
