/* SPDX-License-Identifier: MIT */
/*
 * The swap file across fork, damage and odd descriptors: what the contract
 * of tmem_swapdev_ops does not say (tests/conformance has that).
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "fstest.h"
#include "testfile.h"

enum {
	MAX_PAGES = 2048,
	OFFSETS = 4096,
	USERS = 8
};

static int file_fd, map_fd;

static struct tmem_swapfile *open_file(unsigned user, bool no_uring)
{
	struct tmem_swapfile_options options = {
		.file_fd = file_fd,
		.map_fd = map_fd,
		.user = user,
		.depth = 32,
		.nr_offsets = OFFSETS,
		.no_uring = no_uring,
	};
	struct tmem_swapfile *f;

	CHECK_EQ(tmem_swapfile_open(&options, &f), 0);
	return f;
}

struct write {
	struct tmem_swapdev_request request;
	int result;
};

static void write_done(struct tmem_swapdev_request *request, int result)
{
	struct write *w = request->arg;

	w->result = result;
}

static int put(struct tmem_swapfile *f, uint64_t offset, uint64_t tag)
{
	struct tmem_swapdev dev = tmem_swapfile_device(f);
	char *page = pages_alloc(1);
	struct write w = { { .offset = offset, .page = page }, 1 };
	int r;

	w.request.done = write_done;
	w.request.arg = &w;
	page_fill(page, tag);
	r = dev.ops->write(dev.self, &w.request);
	while (r == 0 && w.result == 1)
		dev.ops->reap(dev.self, true);
	pages_free(page, 1);
	return r ? r : w.result;
}

static int get(struct tmem_swapfile *f, uint64_t offset, void *page)
{
	struct tmem_swapdev dev = tmem_swapfile_device(f);

	return dev.ops->read(dev.self, offset, page);
}

static bool holds(struct tmem_swapfile *f, uint64_t offset, uint64_t tag)
{
	char page[PAGE];

	return get(f, offset, page) == 0 && page_is(page, tag);
}

static void discard(struct tmem_swapfile *f, uint64_t offset)
{
	struct tmem_swapdev dev = tmem_swapfile_device(f);

	dev.ops->discard(dev.self, offset, 1);
}

static void close_file(struct tmem_swapfile *f)
{
	struct tmem_swapdev dev = tmem_swapfile_device(f);

	tmem_swapfile_check(f);
	dev.ops->close(dev.self);
}

static uint64_t used(void)
{
	uint64_t pages, limit;

	CHECK_EQ(tmem_swapmap_usage(map_fd, &pages, &limit), 0);
	return pages;
}

static void wait_ok(pid_t pid)
{
	int status;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void wrong_options_are_refused(void)
{
	struct tmem_swapfile_options good = {
		.file_fd = file_fd,
		.map_fd = map_fd,
		.nr_offsets = 10,
	};
	struct tmem_swapfile_options o;
	struct tmem_swapfile *f;
	int pipes[2];

	o = good;
	o.nr_offsets = 0;
	CHECK_EQ(tmem_swapfile_open(&o, &f), -EINVAL);
	o.nr_offsets = UINT64_MAX;
	CHECK_EQ(tmem_swapfile_open(&o, &f), -EINVAL);
	o.nr_offsets = 1ull << 50;
	CHECK_EQ(tmem_swapfile_open(&o, &f), -ENOMEM);
	o = good;
	o.user = USERS;
	CHECK_EQ(tmem_swapfile_open(&o, &f), -EINVAL);
	o = good;
	o.map_fd = file_fd;
	CHECK_EQ(tmem_swapfile_open(&o, &f), -EINVAL);
	o = good;
	o.file_fd = -1;
	CHECK_EQ(tmem_swapfile_open(&o, &f), -EBADF);
	CHECK_EQ(pipe(pipes), 0);
	o.file_fd = pipes[0];
	CHECK_EQ(tmem_swapfile_open(&o, &f), -EINVAL);
	close(pipes[0]);
	close(pipes[1]);
	o = good;
	CHECK_EQ(tmem_swapfile_open(&o, &f), 0);
	close_file(f);
}

/* The disk gives back other bytes than it was given. */
static void a_damaged_page_is_an_error(void)
{
	struct tmem_swapfile *f = open_file(0, false);
	char page[PAGE], *other = pages_alloc(1);

	CHECK_EQ(put(f, 1, 10), 0);
	CHECK_EQ(put(f, 2, 20), 0);
	CHECK(holds(f, 1, 10));
	page_fill(other, 10);
	other[4095] ^= 1;
	CHECK_EQ(pwrite(file_fd, other, PAGE, 0), PAGE);
	memset(page, 0x5a, sizeof(page));
	CHECK_EQ(get(f, 1, page), -EBADMSG);
	for (unsigned i = 0; i < PAGE; i++)
		CHECK(page[i] == 0x5a);
	CHECK(holds(f, 2, 20));
	/* Another slot's page, and a file that has become too short. */
	page_fill(other, 20);
	CHECK_EQ(pwrite(file_fd, other, PAGE, 0), PAGE);
	CHECK_EQ(get(f, 1, page), -EBADMSG);
	CHECK_EQ(ftruncate(file_fd, PAGE), 0);
	CHECK_EQ(get(f, 2, page), -EIO);
	pages_free(other, 1);
	close_file(f);
}

static void equal_pages_are_known_without_reading(void)
{
	struct tmem_swapfile *f = open_file(0, false);
	char *page = pages_alloc(1);

	CHECK_EQ(put(f, 1, 10), 0);
	CHECK(tmem_swapfile_is_roomy(f));
	page_fill(page, 10);
	CHECK(tmem_swapfile_equals(f, 1, page));
	CHECK(!tmem_swapfile_equals(f, 2, page));
	CHECK(!tmem_swapfile_equals(f, UINT64_MAX, page));
	page[4095] ^= 1;
	CHECK(!tmem_swapfile_equals(f, 1, page));
	discard(f, 1);
	page[4095] ^= 1;
	CHECK(!tmem_swapfile_equals(f, 1, page));
	pages_free(page, 1);
	close_file(f);
}

static void parent_and_child_go_on_alone(void)
{
	struct tmem_swapfile *f = open_file(1, false);
	pid_t pid;

	for (unsigned o = 0; o < 300; o++)
		CHECK_EQ(put(f, o, o), 0);
	CHECK_EQ(tmem_swapfile_before_fork(f, 2), 0);
	CHECK_EQ(used(), 300);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(holds(f, 299, 299));
		CHECK_EQ(tmem_swapfile_reopen(f, dup(file_fd), dup(map_fd), 2),
			 0);
		tmem_swapfile_check(f);
		for (unsigned o = 0; o < 100; o++)
			CHECK_EQ(put(f, o, 10000 + o), 0);
		for (unsigned o = 200; o < 300; o++)
			discard(f, o);
		for (unsigned o = 0; o < 100; o++)
			CHECK(holds(f, o, 10000 + o));
		for (unsigned o = 100; o < 200; o++)
			CHECK(holds(f, o, o));
		close_file(f);
		_exit(0);
	}
	for (unsigned o = 0; o < 150; o++)
		CHECK_EQ(put(f, o, 20000 + o), 0);
	for (unsigned o = 0; o < 300; o++)
		CHECK(holds(f, o, o < 150 ? 20000 + o : o));
	wait_ok(pid);
	for (unsigned o = 0; o < 300; o++)
		CHECK(holds(f, o, o < 150 ? 20000 + o : o));
	CHECK_EQ(used(), 300);
	close_file(f);
	CHECK_EQ(used(), 0);
	CHECK_EQ(tmem_swapmap_check(map_fd), 0);
}

static void a_failed_fork_is_undone_by_reap(void)
{
	struct tmem_swapfile *f = open_file(1, false);

	for (unsigned o = 0; o < 50; o++)
		CHECK_EQ(put(f, o, o), 0);
	CHECK_EQ(tmem_swapfile_before_fork(f, 2), 0);
	CHECK_EQ(tmem_swapmap_reap(map_fd, 2), 0);
	tmem_swapfile_check(f);
	CHECK_EQ(tmem_swapmap_check(map_fd), 0);
	for (unsigned o = 0; o < 50; o++) {
		CHECK(holds(f, o, o));
		discard(f, o);
	}
	CHECK_EQ(used(), 0);
	close_file(f);
}

static void nothing_may_be_in_flight_at_a_fork(void)
{
	struct tmem_swapfile *f = open_file(1, false);
	struct tmem_swapdev dev = tmem_swapfile_device(f);
	char *page = pages_alloc(1);
	struct write w = { { .offset = 1, .page = page }, 1 };

	w.request.done = write_done;
	w.request.arg = &w;
	CHECK_EQ(dev.ops->write(dev.self, &w.request), 0);
	CHECK_EQ(tmem_swapfile_before_fork(f, 2), -EBUSY);
	while (w.result == 1)
		dev.ops->reap(dev.self, true);
	CHECK_EQ(tmem_swapfile_before_fork(f, 2), 0);
	CHECK_EQ(tmem_swapfile_before_fork(f, 1), -EINVAL);
	CHECK_EQ(tmem_swapmap_reap(map_fd, 2), 0);
	close_file(f);
	pages_free(page, 1);
}

/* The child dies without a word, its writes in flight. */
static void a_killed_child_costs_the_parent_nothing(void)
{
	struct tmem_swapfile *f = open_file(1, false);
	struct tmem_swapdev dev = tmem_swapfile_device(f);
	struct rng rng = { 3 };

	for (unsigned o = 0; o < 200; o++)
		CHECK_EQ(put(f, o, o), 0);
	for (unsigned round = 0; round < 20; round++) {
		pid_t pid;

		CHECK_EQ(tmem_swapfile_before_fork(f, 2), 0);
		pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			CHECK_EQ(tmem_swapfile_reopen(f, dup(file_fd),
						      dup(map_fd), 2),
				 0);
			for (uint64_t i = 0;; i++)
				put(f, i % 300, 1000 + i);
		}
		for (unsigned i = 0; i < 30; i++) {
			uint64_t o = rng_below(&rng, 200);

			CHECK_EQ(put(f, o, o), 0);
		}
		CHECK_EQ(kill(pid, SIGKILL), 0);
		CHECK_EQ(waitpid(pid, NULL, 0), pid);
		CHECK_EQ(tmem_swapmap_reap(map_fd, 2), 0);
		for (unsigned o = 0; o < 200; o++)
			CHECK(holds(f, o, o));
		tmem_swapfile_check(f);
	}
	/* At the most what one child has in flight, each time. */
	CHECK(used() <= 200 + 20 * 2);
	dev.ops->discard(dev.self, 0, OFFSETS);
	CHECK(tmem_swapmap_trim(map_fd, file_fd) > 0);
	CHECK(tmem_swapmap_check(map_fd) <= 20);
	close_file(f);
}

/* A chain of forks, each generation on its own after the next began. */
static void grandchildren_work_too(void)
{
	struct tmem_swapfile *f = open_file(0, true);
	unsigned generation = 0;
	pid_t pid;

	for (unsigned o = 0; o < 100; o++)
		CHECK_EQ(put(f, o, o), 0);
	for (;;) {
		CHECK_EQ(tmem_swapfile_before_fork(f, generation + 1), 0);
		pid = fork();
		CHECK(pid >= 0);
		if (pid != 0)
			break;
		generation++;
		CHECK_EQ(tmem_swapfile_reopen(f, file_fd, map_fd, generation),
			 0);
		for (unsigned o = 0; o < generation * 10; o++)
			CHECK_EQ(put(f, o, generation * 1000 + o), 0);
		if (generation == USERS - 1)
			break;
	}
	for (unsigned o = 0; o < 100; o++)
		CHECK(holds(f, o,
			    o < generation * 10 ? generation * 1000 + o : o));
	if (pid != 0)
		wait_ok(pid);
	close_file(f);
	if (generation != 0)
		_exit(0);
	CHECK_EQ(used(), 0);
	CHECK_EQ(tmem_swapmap_check(map_fd), 0);
}

static void a_file_size_limit_is_nospace(void)
{
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		struct rlimit limit = { 10 * PAGE, RLIM_INFINITY };
		struct tmem_swapfile *f;

		signal(SIGXFSZ, SIG_IGN);
		CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
		f = open_file(0, false);
		for (unsigned o = 0; o < 10; o++)
			CHECK_EQ(put(f, o, o), 0);
		CHECK_EQ(put(f, 10, 10), -ENOSPC);
		for (unsigned o = 0; o < 10; o++)
			CHECK(holds(f, o, o));
		close_file(f);
		_exit(0);
	}
	wait_ok(pid);
}

/* One vectored write goes over the limit: each page has its own result. */
static void a_run_that_ends_early_ends_page_by_page(void)
{
	enum {
		NR = 16,
		FIT = 10
	};
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0) {
		struct rlimit limit = { FIT * PAGE, RLIM_INFINITY };
		struct tmem_swapfile *f;
		struct tmem_swapdev dev;
		char *pages = pages_alloc(NR);
		struct write w[NR];

		signal(SIGXFSZ, SIG_IGN);
		CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
		f = open_file(0, false);
		dev = tmem_swapfile_device(f);
		for (unsigned i = 0; i < NR; i++) {
			w[i] = (struct write){ { .offset = i,
						 .page = pages + i * PAGE,
						 .done = write_done,
						 .arg = &w[i] },
					       1 };
			page_fill(w[i].request.page, i);
			if (i < NR - 1)
				CHECK_EQ(
					dev.ops->write(dev.self, &w[i].request),
					0);
		}
		while (dev.ops->reap(dev.self, true) != 0)
			;
		for (unsigned i = 0; i < NR - 1; i++) {
			CHECK_EQ(w[i].result, i < FIT ? 0 : -ENOSPC);
			CHECK(holds(f, i, i) == (i < FIT));
		}
		CHECK_EQ(used(), FIT);
		close_file(f);
		_exit(0);
	}
	wait_ok(pid);
}

struct mappings {
	const struct tmem_swapfile *file;
	unsigned nr;
	bool has_file;
};

static void count_mapping(void *arg, void *start, size_t bytes)
{
	struct mappings *m = arg;

	CHECK(bytes != 0 && ((uintptr_t)start & (PAGE - 1)) == 0);
	m->nr++;
	m->has_file |= start == (const void *)m->file;
}

static void mappings_are_listed(void)
{
	struct tmem_swapfile *f = open_file(0, true);
	struct mappings m = { f, 0, false };

	tmem_swapfile_for_each_mapping(f, count_mapping, &m);
	CHECK_EQ(m.nr, 6);
	CHECK(m.has_file);
	close_file(f);
}

static void run(void (*test)(void), const char *name)
{
	fprintf(stderr, "  %s\n", name);
	file_fd = testfile_disk();
	map_fd = testfile_map(MAX_PAGES, USERS);
	test();
	close(file_fd);
	close(map_fd);
}

#define RUN_FILE(test) run(test, #test)

int main(void)
{
	RUN_FILE(wrong_options_are_refused);
	RUN_FILE(a_damaged_page_is_an_error);
	RUN_FILE(equal_pages_are_known_without_reading);
	RUN_FILE(parent_and_child_go_on_alone);
	RUN_FILE(a_failed_fork_is_undone_by_reap);
	RUN_FILE(nothing_may_be_in_flight_at_a_fork);
	RUN_FILE(a_killed_child_costs_the_parent_nothing);
	RUN_FILE(grandchildren_work_too);
	RUN_FILE(a_file_size_limit_is_nospace);
	RUN_FILE(a_run_that_ends_early_ends_page_by_page);
	RUN_FILE(mappings_are_listed);
	return 0;
}
