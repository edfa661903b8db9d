/* SPDX-License-Identifier: MIT */
/*
 * A restartable store with a tier is opened while the n-th system call fails
 * that opening, reading or dropping makes, for n = 1, 2, 3... until none does.
 * Then it is opened or not; what it loads is right or -EIO; and a try without
 * a fault, afterwards, finds every page: no passing fault costs one.
 *
 * And it is opened while a write of its killed process is still under way.
 */
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include <tmem/stats.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "core/tiering.h"
#include "faultsys.h"
#include "slowfs.h"
#include "testfile.h"
#include "testimage.h"

enum {
	TIER_BYTES = 16 << 20,
	CALLS_MAX = 5000
};

#define LIMIT (2ull << 20)

static struct tmem_store *store;
static struct tmem_backend backend;
static int image, tier, key_fd; /* as a killed process left them */
static uint32_t kind;
static unsigned long nr_opened, nr_refused, nr_lost;
static struct known {
	tmem_pool_id pool;
	unsigned nr_pages;
	_Atomic int turn; /* of the two processes */
} * known;

static int try_open(int image_fd, int tier_fd)
{
	const struct tmem_tier_setup setup = { .kind = kind,
					       .fd = tier_fd,
					       .max_bytes = TIER_BYTES,
					       .key_fd = &key_fd };
	const struct tmem_store_options o = { .limit_bytes = LIMIT,
					      .arena_fd = &image_fd,
					      .tiers = &setup,
					      .nr_tiers = 1 };
	int r = tmem_store_open(&o, &store);

	if (r < 0)
		return r;
	backend = tmem_store_backend(store);
	tmem_store_check(store);
	return 0;
}

static struct tmem_stats stats(void)
{
	struct tmem_stats s;

	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	return s;
}

static void fill(void *page, unsigned key)
{
	struct rng rng = { key };
	uint64_t *w = page;

	for (unsigned i = 0; i < PAGE / 8; i++)
		w[i] = i % 3 ? key : rng_next(&rng);
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 100 } },
				 .index = key,
				 .page = page };
}

/* Pages that can't be read; all others are right. */
static unsigned load_all(void)
{
	unsigned lost = 0;

	for (unsigned key = 0; key < known->nr_pages; key++) {
		_Alignas(8) char page[PAGE], want[PAGE];
		struct tmem_io io = io_of(key, page);

		CHECK_EQ(backend.ops->load(backend.self, known->pool, &io, 1),
			 0);
		CHECK(io.result == 0 || io.result == -EIO);
		fill(want, key);
		CHECK(io.result || memcmp(page, want, PAGE) == 0);
		lost += io.result != 0;
	}
	return lost;
}

static void wait_turn(int turn)
{
	while (known->turn != turn)
		sched_yield();
}

/* Pages, some of which go down once it is this process's turn. */
static _Noreturn void run_child(void)
{
	CHECK_EQ(try_open(image, tier), 0);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &known->pool), 0);
	while (tmem_store_held_bytes(store) < LIMIT / 16 * 15) {
		_Alignas(8) char page[PAGE];
		struct tmem_io io = io_of(known->nr_pages, page);

		fill(page, known->nr_pages++);
		backend.ops->store(backend.self, known->pool, &io, 1);
		CHECK_EQ(io.result, 0);
	}
	known->turn = 1;
	wait_turn(2);
	store->tiering->rest_step_ns = 0;
	while (tmem_store_maintain(store, 1000000000))
		;
	CHECK(stats().tier_pages > 50);
	known->turn = 3;
	for (;;)
		pause();
}

static pid_t start_child(void)
{
	pid_t pid;

	memset(known, 0, sizeof(*known));
	key_fd = tmem_key_create();
	CHECK(key_fd >= 0);
	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		run_child();
	wait_turn(1);
	return pid;
}

/* The image is free when its process is gone, the tier only after that. */
static void io_in_flight_keeps_a_successor_out(void)
{
	const struct slowfs_mood held = { .hold = true }, good = { 0 };
	struct slowfs *fs = slowfs_create(TIER_BYTES);
	pid_t pid;
	int r;

	if (!fs)
		return; /* not root */
	kind = TMEM_TIER_KIND_FILE;
	image = image_memfd();
	tier = slowfs_file(fs);
	pid = start_child();
	slowfs_set(fs, &held);
	known->turn = 2;
	while (slowfs_nr_held(fs) == 0)
		sched_yield();
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(try_open(image, tier), -EBUSY);
	CHECK_EQ(try_open(image, tier), -EBUSY);
	slowfs_set(fs, &good);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	do
		r = try_open(image, tier);
	while (r == -EBUSY);
	CHECK_EQ(r, 0);
	CHECK_EQ(stats().recover_lost, 0);
	CHECK_EQ(load_all(), 0);
	tmem_store_close(store);
	close(image);
	close(tier);
	close(key_fd);
	slowfs_destroy(fs);
}

/* Some pages are below, and their process was killed. */
static void make(void)
{
	pid_t pid = start_child();

	known->turn = 2;
	wait_turn(3);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

/* True if a call failed; `is_new`: the tier is, and nothing is there. */
static bool try_one(unsigned long n, int error, int sticky, bool is_new)
{
	int i = image_memfd(), t = testfile_ram(), r;
	unsigned long struck;

	if (!is_new) {
		image_copy(image, i);
		image_copy(tier, t);
	}
	faultsys_arm(n, error, sticky);
	r = try_open(i, t);
	struck = faultsys_struck();
	faultsys_arm(0, 0, 0);
	nr_refused += r < 0;
	nr_opened += r == 0;
	if (r == 0) {
		uint64_t lost = stats().recover_lost;

		nr_lost += lost != 0;
		if (!is_new)
			CHECK_EQ(load_all(), lost);
		tmem_store_check(store);
		tmem_store_close(store);
	}
	r = try_open(i, t);
	CHECK_EQ(r, 0);
	CHECK_EQ(stats().recover_lost + stats().recover_torn, 0);
	if (!is_new)
		CHECK_EQ(load_all(), 0);
	tmem_store_close(store);
	close(i);
	close(t);
	return struck != 0;
}

static void try_all(int error, int sticky, bool is_new)
{
	unsigned long n = 1;

	while (try_one(n, error, sticky, is_new))
		CHECK(++n < CALLS_MAX);
	/* Dropping what is not there is most of it. */
	CHECK(n > 20);
}

int main(void)
{
	known = mmap(NULL, sizeof(*known), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(known != MAP_FAILED);
	io_in_flight_keeps_a_successor_out();
	for (kind = 0; kind <= TMEM_TIER_KIND_MAPPED; kind++) {
		image = image_memfd();
		tier = testfile_ram();
		make();
		for (int sticky = 0; sticky < 2; sticky++) {
			try_all(-EIO, sticky, false);
			try_all(-ENOMEM, sticky, false);
			try_all(-ENOSPC, sticky, true);
		}
		close(image);
		close(tier);
		close(key_fd);
	}
	printf("opened %lu times, %lu with pages lost; refused %lu times\n",
	       nr_opened, nr_lost, nr_refused);
	CHECK(nr_lost > 0);
	return 0;
}
