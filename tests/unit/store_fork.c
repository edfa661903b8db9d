/* SPDX-License-Identifier: MIT */
/*
 * A store across a real fork(2): parent and child both go on, both see what
 * was there, neither sees the other's changes; loads run all the while; a
 * child that only reads copies next to nothing.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "base/sys.h"
#include "core/core.h"
#include "fstest.h"

enum {
	PAGES = 6000,
	FORKS = 3
};

static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;

/* Compressible, and never the same for two tags. */
static void fill(void *page, uint64_t tag)
{
	struct rng rng = { tag };
	uint64_t *w = page;
	unsigned i;

	for (i = 0; i < PAGE / 8; i++)
		w[i] = i < 150 ? rng_next(&rng) : tag;
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){
		.object = { { key % 7, 0, 0 } },
		.index = key,
		.page = page,
	};
}

static void put(unsigned key, uint64_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, tag);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

/* tag 0: it must not be there. */
static void expect(unsigned key, uint64_t tag)
{
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(backend.ops->load(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, tag ? 0 : TMEM_MISS);
	if (!tag)
		return;
	fill(want, tag);
	CHECK(memcmp(page, want, PAGE) == 0);
}

static void drop(unsigned key)
{
	struct tmem_io io = io_of(key, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

static void open_filled(void)
{
	struct tmem_store_options o = { .limit_bytes = 64u << 20 };
	unsigned key;

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
	for (key = 0; key < PAGES; key++)
		put(key, key + 1);
}

static pid_t fork_store(void)
{
	pid_t pid;

	tmem_store_before_fork(store);
	pid = fork();
	CHECK(pid >= 0);
	tmem_store_after_fork(store, 1);
	return pid;
}

static void reap(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Changes one page in `step`, drops the one after, and sees all. */
static void change(unsigned step, uint64_t salt)
{
	unsigned key;

	for (key = 0; key + 1 < PAGES; key += step) {
		put(key, salt + key);
		drop(key + 1);
	}
	tmem_store_check(store);
	for (key = 0; key < PAGES; key++) {
		if (key % step == 0 && key + 1 < PAGES)
			expect(key, salt + key);
		else
			expect(key, key % step == 1 ? 0 : key + 1);
	}
}

static void parent_and_child_go_their_own_ways(void)
{
	pid_t pid;

	open_filled();
	pid = fork_store();
	change(pid ? 3 : 4, pid ? 1u << 20 : 1u << 21);
	if (!pid)
		_exit(0);
	reap(pid);
	tmem_store_thaw(store);
	tmem_store_check(store);
	tmem_store_close(store);
}

struct span {
	uint64_t start, end;
};

struct spans {
	struct span span[256];
	unsigned nr;
};

static void note_span(void *arg, void *start, size_t bytes)
{
	struct spans *spans = arg;

	CHECK(spans->nr < 256);
	spans->span[spans->nr].start = (uintptr_t)start;
	spans->span[spans->nr++].end = (uintptr_t)start + bytes;
}

/* Private_Dirty of the mappings that lie in the store's, in bytes. */
static uint64_t private_dirty(void)
{
	static struct spans spans;
	FILE *f = fopen("/proc/self/smaps", "r");
	uint64_t start, end, kib, sum = 0;
	bool ours = false;
	char line[512];
	unsigned i;

	spans.nr = 0;
	tmem_store_for_each_mapping(store, note_span, &spans);
	CHECK(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
			ours = false;
			for (i = 0; i < spans.nr; i++)
				ours |= spans.span[i].start < end &&
					start < spans.span[i].end;
		} else if (sscanf(line, "Private_Dirty: %lu", &kib) == 1) {
			sum += ours ? kib << 10 : 0;
		}
	}
	fclose(f);
	return sum;
}

static void a_child_that_only_reads_copies_nothing(void)
{
	struct tmem_stats s;
	unsigned key;
	pid_t pid;

	open_filled();
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	CHECK(s.data_bytes > PAGES * 1200ul);
	pid = fork_store();
	if (!pid) {
		for (key = 0; key < PAGES; key++)
			expect(key, key + 1);
		/* The store's own struct (locks, counters) and little else. */
		CHECK(private_dirty() < 128u << 10);
		_exit(0);
	}
	reap(pid);
	tmem_store_close(store);
}

/* Frees are noted outside of frozen pages; what is new lies elsewhere. */
static void a_child_that_frees_copies_metadata_only(void)
{
	struct tmem_stats s;
	unsigned key;
	pid_t pid;

	open_filled();
	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	pid = fork_store();
	if (!pid) {
		for (key = 0; key < PAGES; key += 2)
			drop(key);
		tmem_store_check(store);
		CHECK(private_dirty() <
		      s.meta_bytes + s.fixed_bytes + (256u << 10));
		_exit(0);
	}
	reap(pid);
	tmem_store_close(store);
}

static _Atomic int stop;

static void *load_all_the_time(void *arg)
{
	struct rng rng = { *(uint64_t *)arg };

	while (!atomic_load(&stop)) {
		unsigned key = (unsigned)rng_below(&rng, PAGES);

		expect(key, key + 1);
	}
	return NULL;
}

/* Forks of forks while threads load; nobody may notice. */
static void loads_go_on_during_forks(void)
{
	uint64_t seeds[2] = { 1, 2 };
	pthread_t threads[2];
	unsigned i, key;
	pid_t pid;

	open_filled();
	atomic_store(&stop, 0);
	for (i = 0; i < 2; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, load_all_the_time,
					&seeds[i]),
			 0);
	for (i = 0; i < FORKS; i++) {
		pid = fork_store();
		if (!pid) {
			for (key = i; key < PAGES; key += 5)
				put(key, 1u << 22 | key);
			tmem_store_check(store);
			for (key = i; key < PAGES; key += 5)
				expect(key, 1u << 22 | key);
			if (i == 0)
				reap(fork_store() ?: (_exit(0), 0));
			_exit(0);
		}
		reap(pid);
		if (i % 2)
			tmem_store_thaw(store);
	}
	atomic_store(&stop, 1);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	tmem_store_check(store);
	tmem_store_close(store);
}

static void *end_fork(void *arg)
{
	(void)arg;
	tmem_store_after_fork(store, 1);
	return NULL;
}

/* A load that holds no lock ends before anything may change. */
static void after_fork_waits_for_loads_in_flight(void) TMEM_UNANALYSED
{
	pthread_t thread;
	unsigned i;

	open_filled();
	tmem_store_before_fork(store);
	atomic_store(&store->quiet->nr_readers, 1);
	CHECK_EQ(pthread_create(&thread, NULL, end_fork, NULL), 0);
	while (tmem_lock_is_closed(&store->shards[0].lock))
		sched_yield();
	for (i = 0; i < 2000; i++) {
		CHECK(!tmem_lock_try_acquire(&store->shards[0].lock));
		sched_yield();
	}
	atomic_store(&store->quiet->nr_readers, 0);
	tmem_sys_futex_wake(&store->quiet->nr_readers, 1);
	pthread_join(thread, NULL);
	CHECK(tmem_lock_try_acquire(&store->shards[0].lock));
	tmem_lock_release(&store->shards[0].lock);
	tmem_store_check(store);
	tmem_store_close(store);
}

/* As the fork never happened: nothing is frozen, nothing is lost. */
static void a_failed_fork_freezes_nothing(void)
{
	uint64_t held;
	unsigned key;

	open_filled();
	held = tmem_store_held_bytes(store);
	tmem_store_before_fork(store);
	expect(0, 1);
	tmem_store_after_fork(store, 0);
	for (key = 0; key < PAGES; key++)
		put(key, 1u << 23 | key);
	/* Overwritten where they were, not beside frozen ones. */
	CHECK(tmem_store_held_bytes(store) < held + (512u << 10));
	tmem_store_check(store);
	tmem_store_close(store);
}

int main(void)
{
	/* A child whose check fails must not hang its parent. */
	alarm(120);
	RUN(parent_and_child_go_their_own_ways);
	RUN(a_child_that_only_reads_copies_nothing);
	RUN(a_child_that_frees_copies_metadata_only);
	RUN(loads_go_on_during_forks);
	RUN(after_fork_waits_for_loads_in_flight);
	RUN(a_failed_fork_freezes_nothing);
	return 0;
}
