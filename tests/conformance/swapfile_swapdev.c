/* SPDX-License-Identifier: MIT */
/*
 * The contract of tmem_swapdev_ops, sentence by sentence, over every
 * implementation and every way that the swap file has of doing I/O.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/seal.h"
#include "frontends/swapmap.h"
#include "fstest.h"
#include "testdev.h"
#include "testfile.h"

enum {
	CAPACITY = 200,
	OFFSETS = 1000,
	MANY = 24, /* more than one read takes */
	DEPTH = 16
};

/* A way to make a device, and what it needs besides. */
struct way {
	const char *name;
	struct tmem_swapdev (*open)(const struct way *way);
	int (*file)(void);
	bool no_uring;
	bool no_direct;
	bool no_encrypt;
	enum tmem_cipher cipher; /* 0: the best there is */
};

static const struct way *way;
static struct tmem_swapdev dev;
static struct tmem_swapfile *file;
static int file_fd, map_fd;
static bool was_uring, was_direct;

struct write {
	struct tmem_swapdev_request request;
	_Atomic int nr_done;
	int result;
};

static void write_done(struct tmem_swapdev_request *request, int result)
{
	struct write *w = request->arg;

	CHECK(request == &w->request);
	w->result = result;
	w->nr_done++;
}

static struct write *write_new(uint64_t offset, uint64_t tag)
{
	struct write *w = calloc(1, sizeof(*w));

	CHECK(w != NULL);
	w->request.offset = offset;
	w->request.page = pages_alloc(1);
	w->request.done = write_done;
	w->request.arg = w;
	page_fill(w->request.page, tag);
	return w;
}

static void write_free(struct write *w)
{
	pages_free(w->request.page, 1);
	free(w);
}

static int queue(struct write *w)
{
	int r = dev.ops->write(dev.self, &w->request);

	CHECK_EQ(w->nr_done, 0);
	return r;
}

static void wait_for(struct write *w)
{
	while (w->nr_done == 0)
		dev.ops->reap(dev.self, true);
	CHECK_EQ(w->nr_done, 1);
}

/* Writes a page to its end; the result. */
static int put(uint64_t offset, uint64_t tag)
{
	struct write *w = write_new(offset, tag);
	int r;

	while ((r = queue(w)) == -EAGAIN)
		dev.ops->reap(dev.self, true);
	if (r == 0) {
		wait_for(w);
		r = w->result;
	}
	write_free(w);
	return r;
}

static bool holds(uint64_t offset, uint64_t tag)
{
	char page[PAGE];

	CHECK_EQ(dev.ops->read(dev.self, offset, page), 0);
	return page_is(page, tag);
}

static int read_error(uint64_t offset)
{
	char page[PAGE];
	int r;

	memset(page, 0xa5, sizeof(page));
	r = dev.ops->read(dev.self, offset, page);
	for (unsigned i = 0; i < PAGE; i++)
		CHECK((unsigned char)page[i] == 0xa5);
	return r;
}

static void discard(uint64_t offset, uint64_t nr)
{
	dev.ops->discard(dev.self, offset, nr);
}

static uint64_t used(void)
{
	return dev.ops->used_pages(dev.self);
}

static void a_page_never_written_is_nodata(void)
{
	CHECK_EQ(read_error(0), -ENODATA);
	CHECK_EQ(read_error(OFFSETS - 1), -ENODATA);
	CHECK_EQ(read_error(OFFSETS), -EINVAL);
	CHECK_EQ(used(), 0);
}

static void a_written_page_reads_back(void)
{
	CHECK_EQ(put(7, 70), 0);
	CHECK(holds(7, 70));
	CHECK_EQ(put(8, 80), 0);
	CHECK(holds(7, 70));
	CHECK(holds(8, 80));
	CHECK_EQ(used(), 2);
	CHECK_EQ(read_error(9), -ENODATA);
}

static void a_page_reads_into_any_alignment(void)
{
	char *buffer = pages_alloc(2);

	CHECK_EQ(put(7, 70), 0);
	for (unsigned shift = 0; shift < 600; shift += 59) {
		CHECK_EQ(dev.ops->read(dev.self, 7, buffer + shift), 0);
		CHECK(page_is(buffer + shift, 70));
	}
	pages_free(buffer, 2);
}

/* The same as one by one, in a row or not, at rest or in flight. */
static void check_many(const uint64_t *offsets, unsigned nr)
{
	char *pages = pages_alloc(MANY), alone[PAGE];
	struct tmem_swapdev_read reads[MANY];
	unsigned i;

	for (i = 0; i < nr; i++)
		reads[i] = (struct tmem_swapdev_read){ offsets[i],
						       pages + (size_t)i * PAGE,
						       1 };
	dev.ops->read_many(dev.self, reads, nr);
	for (i = 0; i < nr; i++) {
		CHECK_EQ(reads[i].result,
			 dev.ops->read(dev.self, offsets[i], alone));
		if (reads[i].result == 0)
			CHECK(memcmp(alone, reads[i].page, PAGE) == 0);
	}
	pages_free(pages, MANY);
}

static void many_pages_read_as_one_by_one(void)
{
	uint64_t offsets[MANY];
	struct write *last;
	unsigned i;

	for (i = 0; i < MANY - 1; i++)
		CHECK_EQ(put(i, 100 + i), 0);
	for (i = 0; i < MANY; i++)
		offsets[i] = i;
	check_many(offsets, MANY); /* the last was never written */
	for (i = 0; i < MANY; i++)
		offsets[i] = MANY - 1 - i;
	check_many(offsets, MANY);
	discard(5, 2);
	CHECK_EQ(put(9, 900), 0);
	for (i = 0; i < MANY; i++)
		offsets[i] = i;
	check_many(offsets, MANY);
	offsets[3] = OFFSETS;
	offsets[4] = 2;
	last = write_new(11, 1100);
	CHECK_EQ(queue(last), 0);
	check_many(offsets, MANY);
	wait_for(last);
	write_free(last);
	check_many(offsets, MANY);
}

static void a_page_in_flight_reads_back(void)
{
	struct write *w = write_new(3, 30);

	CHECK_EQ(queue(w), 0);
	CHECK(holds(3, 30));
	dev.ops->flush(dev.self);
	CHECK(holds(3, 30));
	CHECK_EQ(used(), 1);
	wait_for(w);
	CHECK_EQ(w->result, 0);
	CHECK(holds(3, 30));
	write_free(w);
}

static void a_page_may_change_after_done(void)
{
	struct write *w = write_new(3, 30);

	CHECK_EQ(queue(w), 0);
	wait_for(w);
	page_fill(w->request.page, 31);
	CHECK(holds(3, 30));
	write_free(w);
}

static void the_newest_of_two_writes_wins(void)
{
	for (unsigned i = 0; i < 20; i++) {
		struct write *a = write_new(5, 100 + i);
		struct write *b = write_new(5, 200 + i);

		CHECK_EQ(queue(a), 0);
		if (i % 2)
			dev.ops->flush(dev.self);
		CHECK_EQ(queue(b), 0);
		CHECK(holds(5, 200 + i));
		wait_for(a);
		wait_for(b);
		CHECK_EQ(a->result, 0);
		CHECK_EQ(b->result, 0);
		CHECK(holds(5, 200 + i));
		CHECK_EQ(used(), 1);
		write_free(a);
		write_free(b);
	}
}

static void a_page_discarded_is_gone(void)
{
	CHECK_EQ(put(5, 1), 0);
	discard(5, 1);
	CHECK_EQ(read_error(5), -ENODATA);
	CHECK_EQ(used(), 0);
	discard(5, 1);
	discard(6, 1);
	CHECK_EQ(put(5, 2), 0);
	CHECK(holds(5, 2));
}

static void a_page_discarded_in_flight_is_gone(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct write *w = write_new(5, 1);

		CHECK_EQ(queue(w), 0);
		if (i)
			dev.ops->flush(dev.self);
		discard(5, 1);
		CHECK_EQ(read_error(5), -ENODATA);
		wait_for(w);
		CHECK_EQ(w->result, 0);
		CHECK_EQ(read_error(5), -ENODATA);
		CHECK_EQ(used(), 0);
		write_free(w);
	}
	/* Its space is free again: all of it can be used. */
	for (unsigned i = 0; i < CAPACITY; i++)
		CHECK_EQ(put(i, i), 0);
}

static void a_range_is_discarded(void)
{
	for (unsigned i = 10; i < 60; i++)
		CHECK_EQ(put(i, i), 0);
	discard(20, 30);
	for (unsigned i = 0; i < 70; i++) {
		if (i < 10 || i >= 60 || (i >= 20 && i < 50))
			CHECK_EQ(read_error(i), -ENODATA);
		else
			CHECK(holds(i, i));
	}
	CHECK_EQ(used(), 20);
	discard(0, UINT64_MAX);
	CHECK_EQ(used(), 0);
}

static void a_full_queue_says_again(void)
{
	struct write *w[DEPTH * 2];
	unsigned n = 0;
	int r;

	for (n = 0; n < DEPTH * 2; n++) {
		w[n] = write_new(n, n);
		r = queue(w[n]);
		if (r != 0)
			break;
	}
	CHECK_EQ(n, DEPTH);
	CHECK_EQ(r, -EAGAIN);
	CHECK_EQ(read_error(n), -ENODATA);
	while (dev.ops->reap(dev.self, true) != 0)
		;
	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(w[i]->nr_done, 1);
		CHECK_EQ(w[i]->result, 0);
		CHECK(holds(i, i));
		write_free(w[i]);
	}
	CHECK_EQ(queue(w[n]), 0);
	wait_for(w[n]);
	write_free(w[n]);
}

static void a_full_queue_keeps_the_old_page(void)
{
	struct write *w[DEPTH], *late = write_new(500, 2);

	CHECK_EQ(put(500, 1), 0);
	for (unsigned i = 0; i < DEPTH; i++) {
		w[i] = write_new(i, i);
		CHECK_EQ(queue(w[i]), 0);
	}
	CHECK_EQ(queue(late), -EAGAIN);
	CHECK(holds(500, 1));
	for (unsigned i = 0; i < DEPTH; i++) {
		wait_for(w[i]);
		write_free(w[i]);
	}
	write_free(late);
}

static void a_full_device_says_nospace(void)
{
	for (unsigned i = 0; i < CAPACITY; i++)
		CHECK_EQ(put(i, i), 0);
	CHECK_EQ(put(CAPACITY, 1), -ENOSPC);
	CHECK_EQ(read_error(CAPACITY), -ENODATA);
	CHECK_EQ(used(), CAPACITY);
	for (unsigned i = 0; i < CAPACITY; i++)
		CHECK(holds(i, i));
	/* Writing over a page needs no more room than there is. */
	CHECK_EQ(put(3, 1003), 0);
	CHECK(holds(3, 1003));
	discard(17, 1);
	CHECK_EQ(put(CAPACITY, 1), 0);
	CHECK(holds(CAPACITY, 1));
}

static void an_offset_out_of_range_is_refused(void)
{
	CHECK_EQ(put(OFFSETS, 1), -EINVAL);
	CHECK_EQ(put(UINT64_MAX, 1), -EINVAL);
	CHECK_EQ(used(), 0);
	discard(OFFSETS, 1);
	discard(UINT64_MAX, UINT64_MAX);
}

static void reap_with_nothing_in_flight_returns(void)
{
	CHECK_EQ(dev.ops->reap(dev.self, true), 0);
	CHECK_EQ(dev.ops->reap(dev.self, false), 0);
	dev.ops->flush(dev.self);
}

/* Writes its page again, from done(), until it has been written 5 times. */
static void again_done(struct tmem_swapdev_request *request, int result)
{
	struct write *w = request->arg;
	char page[PAGE];

	CHECK_EQ(result, 0);
	CHECK_EQ(dev.ops->read(dev.self, request->offset, page), 0);
	if (++w->nr_done < 5)
		CHECK_EQ(dev.ops->write(dev.self, request), 0);
}

static void done_may_write(void)
{
	struct write *w = write_new(9, 90);

	w->request.done = again_done;
	CHECK_EQ(queue(w), 0);
	while (w->nr_done < 5)
		dev.ops->reap(dev.self, true);
	CHECK(holds(9, 90));
	write_free(w);
}

static void close_ends_what_is_in_flight(void)
{
	struct write *w[DEPTH];

	for (uint64_t i = 0; i < DEPTH; i++) {
		w[i] = write_new(i * 3, i);
		CHECK_EQ(queue(w[i]), 0);
	}
	dev.ops->close(dev.self);
	for (unsigned i = 0; i < DEPTH; i++) {
		CHECK_EQ(w[i]->nr_done, 1);
		write_free(w[i]);
	}
	dev = way->open(way);
}

/* A new write in the place of an older one, if there is one. */
static void write_next(struct write **w, uint64_t offset, uint64_t tag)
{
	if (*w) {
		wait_for(*w);
		CHECK_EQ((*w)->result, 0);
		write_free(*w);
	}
	*w = write_new(offset, tag);
	while (queue(*w) == -EAGAIN)
		dev.ops->reap(dev.self, true);
}

/* Random writes, discards and reads against an array of tags. */
static void random_operations(void)
{
	struct rng rng = { 12345 };
	uint64_t tags[OFFSETS] = { 0 };
	struct write *w[DEPTH] = { 0 };
	uint64_t nr = 0;

	for (unsigned step = 1; step < 3000; step++) {
		uint64_t o = rng_below(&rng, OFFSETS), i = step % DEPTH;
		uint64_t r = rng_below(&rng, 10);

		if (r < 5 && (nr < CAPACITY / 2 || tags[o])) {
			write_next(&w[i], o, step);
			nr += tags[o] == 0;
			tags[o] = step;
		} else if (r < 7) {
			discard(o, 1);
			nr -= tags[o] != 0;
			tags[o] = 0;
		} else if (r < 8) {
			dev.ops->reap(dev.self, false);
		} else if (r < 9) {
			dev.ops->flush(dev.self);
		}
		for (unsigned k = 0; k < 3; k++) {
			o = rng_below(&rng, OFFSETS);
			if (tags[o])
				CHECK(holds(o, tags[o]));
			else
				CHECK_EQ(read_error(o), -ENODATA);
		}
		if (file)
			tmem_swapfile_check(file);
	}
	while (dev.ops->reap(dev.self, true) != 0)
		;
	CHECK_EQ(used(), nr);
	for (unsigned i = 0; i < DEPTH; i++)
		if (w[i])
			write_free(w[i]);
	for (unsigned o = 0; o < OFFSETS; o++)
		if (tags[o])
			CHECK(holds(o, tags[o]));
}

struct worker {
	pthread_t thread;
	unsigned number;
};

/* Writes, reads in flight, and reads again pages of its own. */
static void *work(void *arg)
{
	struct worker *me = arg;
	struct rng rng = { me->number };

	for (uint64_t i = 0; i < 400; i++) {
		uint64_t o = me->number * 10ul + rng_below(&rng, 10);
		struct write *w = write_new(o, i * 10 + me->number);

		while (dev.ops->write(dev.self, &w->request) == -EAGAIN)
			dev.ops->reap(dev.self, true);
		CHECK(holds(o, i * 10 + me->number));
		if (i % 3 == 0)
			dev.ops->flush(dev.self);
		if (i % 5 == 0)
			discard(o, 1);
		while (w->nr_done == 0)
			dev.ops->reap(dev.self, true);
		CHECK_EQ(w->result, 0);
		if (i % 5 == 0)
			CHECK_EQ(read_error(o), -ENODATA);
		else
			CHECK(holds(o, i * 10 + me->number));
		write_free(w);
	}
	return NULL;
}

static void threads_use_it_together(void)
{
	struct worker workers[4];

	for (unsigned i = 0; i < 4; i++) {
		workers[i].number = i;
		CHECK_EQ(pthread_create(&workers[i].thread, NULL, work,
					&workers[i]),
			 0);
	}
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(pthread_join(workers[i].thread, NULL), 0);
}

static _Atomic unsigned race_round, race_read;

enum {
	RACES = 1000
};

/* Reads the page of each round once, while it is on its way. */
static void *race_reader(void *arg)
{
	(void)arg;
	for (unsigned i = 1; i <= RACES; i++) {
		while (race_round != i)
			sched_yield();
		CHECK(holds(1, i));
		race_read = i;
	}
	return NULL;
}

static void race_done(struct tmem_swapdev_request *request, int result)
{
	struct write *w = request->arg;

	CHECK_EQ(result, 0);
	memset(request->page, 0xee, PAGE);
	w->nr_done++;
}

/* A reader has its copy before done() lets the page change. */
static void a_page_is_read_whole_while_it_lands(void)
{
	struct write *w = write_new(1, 0);
	pthread_t reader;

	race_round = race_read = 0;
	w->request.done = race_done;
	CHECK_EQ(pthread_create(&reader, NULL, race_reader, NULL), 0);
	for (unsigned i = 1; i <= RACES; i++) {
		w->nr_done = 0;
		page_fill(w->request.page, i);
		CHECK_EQ(queue(w), 0);
		race_round = i;
		while (w->nr_done == 0)
			dev.ops->reap(dev.self, true);
		while (race_read != i)
			sched_yield();
	}
	CHECK_EQ(pthread_join(reader, NULL), 0);
	write_free(w);
}

static struct tmem_swapdev open_testdev(const struct way *w)
{
	(void)w;
	return testdev_device(testdev_create(OFFSETS, CAPACITY, DEPTH, 1));
}

static struct tmem_swapdev open_swapfile(const struct way *w)
{
	struct tmem_swapfile_options options = {
		.file_fd = file_fd,
		.map_fd = map_fd,
		.user = 1,
		.depth = DEPTH,
		.nr_offsets = OFFSETS,
		.no_uring = w->no_uring,
		.no_direct = w->no_direct,
		.no_encrypt = w->no_encrypt,
	};
	struct tmem_seal_key key = { .cipher = w->cipher };

	if (w->cipher != TMEM_CIPHER_NONE)
		CHECK_EQ(tmem_swapmap_set_key(map_fd, &key), 0);
	CHECK_EQ(tmem_swapfile_open(&options, &file), 0);
	was_uring = tmem_swapfile_is_uring(file);
	was_direct = tmem_swapfile_is_direct(file);
	CHECK(!w->no_uring || !was_uring);
	CHECK(!w->no_direct || !was_direct);
	return tmem_swapfile_device(file);
}

static int loop_device(void)
{
	return testfile_loop(CAPACITY * PAGE);
}

static const struct way ways[] = {
	{ "testdev", open_testdev, NULL, false, false },
	{ "file, io_uring, direct", open_swapfile, testfile_disk, false,
	  false },
	{ "file, io_uring, buffered", open_swapfile, testfile_disk, false,
	  true },
	{ "file, pwrite, direct", open_swapfile, testfile_disk, true, false },
	{ "file, pwrite, buffered", open_swapfile, testfile_disk, true, true },
	{ "tmpfs, io_uring", open_swapfile, testfile_ram, false, false },
	{ "tmpfs, pwrite", open_swapfile, testfile_ram, true, false },
	{ "loop device, io_uring", open_swapfile, loop_device, false, false },
	{ "tmpfs, XChaCha20", open_swapfile, testfile_ram, false, false, false,
	  TMEM_CIPHER_XCHACHA20POLY1305 },
	{ "tmpfs, not encrypted", open_swapfile, testfile_ram, false, false,
	  true, TMEM_CIPHER_NONE },
};

static void (*const tests[])(void) = {
	a_page_never_written_is_nodata,
	a_written_page_reads_back,
	a_page_reads_into_any_alignment,
	many_pages_read_as_one_by_one,
	a_page_in_flight_reads_back,
	a_page_may_change_after_done,
	the_newest_of_two_writes_wins,
	a_page_discarded_is_gone,
	a_page_discarded_in_flight_is_gone,
	a_range_is_discarded,
	a_full_queue_says_again,
	a_full_queue_keeps_the_old_page,
	a_full_device_says_nospace,
	an_offset_out_of_range_is_refused,
	reap_with_nothing_in_flight_returns,
	done_may_write,
	close_ends_what_is_in_flight,
	random_operations,
	threads_use_it_together,
	a_page_is_read_whole_while_it_lands,
};

static void run_test(void (*test)(void))
{
	file = NULL;
	was_uring = was_direct = false;
	if (way->file)
		map_fd = testfile_map(CAPACITY, 4);
	dev = way->open(way);
	test();
	if (file)
		tmem_swapfile_check(file);
	dev.ops->close(dev.self);
	if (way->file) {
		uint64_t used_pages, limit;

		CHECK_EQ(tmem_swapmap_usage(map_fd, &used_pages, &limit), 0);
		CHECK_EQ(used_pages, 0);
		CHECK_EQ(tmem_swapmap_check(map_fd), 0);
		close(map_fd);
	}
}

int main(void)
{
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		way = &ways[i];
		file_fd = way->file ? way->file() : -1;
		if (way->file && file_fd < 0) {
			printf("%s: not here\n", way->name);
			continue;
		}
		for (unsigned t = 0; t < sizeof(tests) / sizeof(tests[0]); t++)
			run_test(tests[t]);
		if (file_fd >= 0)
			close(file_fd);
		printf("%s: ok%s%s\n", way->name, was_uring ? ", uring" : "",
		       was_direct ? ", direct" : "");
		fflush(stdout);
	}
	return 0;
}
