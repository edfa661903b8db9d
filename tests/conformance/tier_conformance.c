/* SPDX-License-Identifier: MIT */
/*
 * The contract of tmem_tier_ops, sentence by sentence, over every
 * implementation, every way that each has of doing I/O, and every kind of
 * file that it may be given.
 */
#include <pthread.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/sys.h"
#include "testfile.h"
#include "tiers/tier.h"

enum {
	NR = 12,
	SEG = TMEM_SEGMENT_BYTES,
	MAX_BATCH = 24
};

static const uint64_t long_time = 20000000000ull;

struct way {
	const char *name;
	int (*file)(void);
	bool no_uring;
	bool no_direct;
	bool is_device;
};

static const struct way *way;
static const struct tmem_tier_ops *ops;
static void *tier;
static int fd;

static void open_tier(bool keep)
{
	struct tmem_tier_options o = {
		.fd = fd,
		.max_bytes = (uint64_t)NR * SEG + 4096,
		.depth = 4,
		.keep = keep,
		.no_uring = way->no_uring,
		.no_direct = way->no_direct,
	};

	if (way->is_device)
		o.max_bytes = (uint64_t)NR * SEG;
	CHECK_EQ(ops->open(&o, &tier), 0);
}

static struct tmem_tier_stats stats(void)
{
	struct tmem_tier_stats s;

	ops->stats(tier, &s);
	return s;
}

/* A segment's content by (tag): each byte's place tells. */
static uint64_t word_of(uint64_t tag, uint32_t i)
{
	return (tag + 1) * 0x9e3779b97f4a7c15ull ^ i;
}

static void fill(char *buffer, uint64_t tag, uint32_t bytes)
{
	uint64_t *w = (uint64_t *)buffer;

	for (uint32_t i = 0; i < bytes / 8; i++)
		w[i] = word_of(tag, i);
}

static bool is_range(const void *got, uint64_t tag, uint32_t offset,
		     uint32_t bytes)
{
	uint32_t first = offset / 8, end = (offset + bytes + 7) / 8;
	uint64_t *expected = malloc((end - first) * sizeof(*expected));
	bool is;

	CHECK(expected != NULL);
	for (uint32_t i = first; i < end; i++)
		expected[i - first] = word_of(tag, i);
	is = memcmp((char *)expected + offset % 8, got, bytes) == 0;
	free(expected);
	return is;
}

static int wait_for(struct tmem_tier_request *q)
{
	int r = tmem_tier_wait(ops, tier, q);

	while (q->state != TMEM_TIER_DONE)
		ops->poll(tier, NULL, tmem_sys_now_ns() + 1000000);
	return r;
}

static int put_request(struct tmem_tier_request *q)
{
	while (ops->write(tier, q) == 0)
		ops->poll(tier, NULL, tmem_sys_now_ns() + long_time);
	return wait_for(q);
}

static int put(uint32_t segment, uint64_t tag, uint32_t bytes)
{
	char *buffer = pages_alloc(SEG / PAGE);
	struct tmem_tier_request q = { .segment = segment,
				       .bytes = bytes,
				       .buffer = buffer };
	int r;

	fill(buffer, tag, bytes);
	r = put_request(&q);
	pages_free(buffer, SEG / PAGE);
	return r;
}

static int get(uint32_t segment, uint32_t offset, uint32_t bytes, void *to)
{
	struct tmem_tier_request q = { .segment = segment,
				       .offset = offset,
				       .bytes = bytes,
				       .buffer = to },
				 *one = &q;

	CHECK_EQ(ops->read(tier, &one, 1), 1);
	return wait_for(&q);
}

static bool holds(uint32_t segment, uint64_t tag, uint32_t bytes)
{
	char *buffer = pages_alloc(SEG / PAGE);
	bool is;

	is = get(segment, 0, bytes, buffer) == 0 &&
	     is_range(buffer, tag, 0, bytes);
	pages_free(buffer, SEG / PAGE);
	return is;
}

static void what_was_never_written_is_nodata(void)
{
	char byte;

	CHECK_EQ(get(0, 0, 1, &byte), -ENODATA);
	CHECK_EQ(get(NR - 1, SEG - 1, 1, &byte), -ENODATA);
	CHECK_EQ(ops->drop(tier, 3), -ENODATA);
	CHECK_EQ(stats().nr_segments, NR);
	CHECK_EQ(stats().held_segments, 0);
}

static void a_written_segment_reads_back(void)
{
	CHECK_EQ(put(0, 10, SEG), 0);
	CHECK_EQ(put(NR - 1, 11, SEG), 0);
	CHECK_EQ(put(5, 12, 8192), 0);
	CHECK(holds(0, 10, SEG));
	CHECK(holds(NR - 1, 11, SEG));
	CHECK(holds(5, 12, 8192));
	CHECK_EQ(stats().held_segments, 3);
	CHECK_EQ(stats().writes, 3);
	CHECK_EQ(stats().written_bytes, 2 * SEG + 8192);
}

static void any_small_range_reads(void)
{
	char *buffer = pages_alloc(20);
	struct rng rng = { 1 };

	CHECK_EQ(put(1, 20, SEG), 0);
	for (unsigned i = 0; i < 300; i++) {
		uint32_t bytes =
			1 + (uint32_t)rng_below(&rng,
						i % 2 ? TMEM_TIER_SMALL : 5000);
		uint32_t offset = (uint32_t)rng_below(&rng, SEG - bytes + 1);
		uint32_t shift = (uint32_t)rng_below(&rng, PAGE);

		buffer[shift + bytes] = 0x77;
		CHECK_EQ(get(1, offset, bytes, buffer + shift), 0);
		CHECK(is_range(buffer + shift, 20, offset, bytes));
		CHECK(buffer[shift + bytes] == 0x77);
	}
	CHECK_EQ(get(1, SEG - 1, 1, buffer), 0);
	CHECK(is_range(buffer, 20, SEG - 1, 1));
	pages_free(buffer, 20);
}

static void whole_blocks_read_at_any_length(void)
{
	char *buffer = pages_alloc(SEG / PAGE);

	CHECK_EQ(put(2, 21, SEG), 0);
	for (uint32_t bytes = 4096; bytes < SEG; bytes += 9 * 4096) {
		CHECK_EQ(get(2, SEG - bytes, bytes, buffer), 0);
		CHECK(is_range(buffer, 21, SEG - bytes, bytes));
	}
	pages_free(buffer, SEG / PAGE);
}

static void what_makes_no_sense_is_invalid(void)
{
	char *buffer = pages_alloc(SEG / PAGE);
	struct tmem_tier_request q = { .segment = 1, .buffer = buffer };
	struct tmem_tier_options o = { .fd = fd, .max_bytes = 4096 };
	void *other;

	CHECK_EQ(put(1, 1, SEG), 0);
	CHECK_EQ(put(NR, 1, SEG), -EINVAL);
	CHECK_EQ(get(1, 0, 0, buffer), -EINVAL);
	CHECK_EQ(get(1, SEG, 1, buffer), -EINVAL);
	CHECK_EQ(get(1, SEG - 1, 2, buffer), -EINVAL);
	CHECK_EQ(get(1, 4, UINT32_MAX, buffer), -EINVAL);
	CHECK_EQ(get(NR, 0, 1, buffer), -EINVAL);
	CHECK_EQ(get(1, 1, TMEM_TIER_SMALL + 4096, buffer), -EINVAL);
	q.segment = 2;
	q.bytes = 100;
	CHECK_EQ(put_request(&q), -EINVAL);
	q.bytes = 4096;
	q.offset = 4096;
	CHECK_EQ(put_request(&q), -EINVAL);
	q.offset = 0;
	q.buffer = buffer + 8;
	CHECK_EQ(put_request(&q), -EINVAL);
	CHECK_EQ(ops->drop(tier, NR), -EINVAL);
	CHECK_EQ(ops->open(&o, &other), -EINVAL);
	o.max_bytes = SEG;
	o.fd = -1;
	CHECK_EQ(ops->open(&o, &other), -EBADF);
	pages_free(buffer, SEG / PAGE);
}

static void a_segment_is_written_once(void)
{
	CHECK_EQ(put(4, 40, SEG), 0);
	CHECK_EQ(put(4, 41, SEG), -EEXIST);
	CHECK(holds(4, 40, SEG));
	CHECK_EQ(stats().errors, 1);
}

static void a_dropped_segment_is_gone(void)
{
	struct stat st;
	char byte;

	CHECK_EQ(put(4, 40, SEG), 0);
	CHECK_EQ(put(6, 60, SEG), 0);
	CHECK_EQ(ops->drop(tier, 4), 0);
	CHECK_EQ(get(4, 0, 1, &byte), -ENODATA);
	CHECK_EQ(ops->drop(tier, 4), -ENODATA);
	CHECK(holds(6, 60, SEG));
	CHECK_EQ(stats().held_segments, 1);
	CHECK_EQ(stats().drops, 1);
	CHECK_EQ(fstat(fd, &st), 0);
	if (!way->is_device && stats().kept_space == 0)
		CHECK(st.st_blocks * 512 < SEG + SEG / 2);
	CHECK_EQ(put(4, 41, 4096), 0);
	CHECK(holds(4, 41, 4096));
}

static void ranges_that_touch_are_one_read(void)
{
	struct tmem_tier_request q[MAX_BATCH], *p[MAX_BATCH];
	static char to[MAX_BATCH][5000];

	CHECK_EQ(put(7, 70, SEG), 0);
	for (unsigned i = 0; i < MAX_BATCH; i++) {
		q[i] = (struct tmem_tier_request){ .segment = 7,
						   .offset = 100 + i * 1500,
						   .bytes = 1500,
						   .buffer = to[i] };
		p[i] = &q[i];
	}
	CHECK_EQ(ops->read(tier, p, MAX_BATCH), MAX_BATCH);
	for (unsigned i = 0; i < MAX_BATCH; i++) {
		CHECK_EQ(wait_for(p[i]), 0);
		CHECK(is_range(to[i], 70, 100 + i * 1500, 1500));
	}
	CHECK_EQ(stats().reads, MAX_BATCH);
	CHECK_EQ(stats().read_bytes, MAX_BATCH * 1500);
	if (ops == &tmem_tier_file)
		CHECK_EQ(stats().read_ios, 1);
	/* Backwards, and two that don't touch. */
	for (unsigned i = 0; i < MAX_BATCH; i++) {
		q[i].offset = 100000 - i * 1500 - (i > 11 ? 40000 : 0);
		q[i].state = TMEM_TIER_IDLE;
	}
	CHECK_EQ(ops->read(tier, p, MAX_BATCH), MAX_BATCH);
	for (unsigned i = 0; i < MAX_BATCH; i++) {
		CHECK_EQ(wait_for(p[i]), 0);
		CHECK(is_range(to[i], 70, q[i].offset, 1500));
	}
	if (ops == &tmem_tier_file)
		CHECK_EQ(stats().read_ios, 3);
}

static void each_of_a_vector_has_its_own_result(void)
{
	struct tmem_tier_request q[4] = { 0 }, *p[4];
	char to[4][8];

	CHECK_EQ(put(8, 80, 4096), 0);
	for (unsigned i = 0; i < 4; i++) {
		q[i].segment = i == 1 ? 9 : 8;
		q[i].bytes = i == 2 ? 0 : 8;
		q[i].buffer = to[i];
		p[i] = &q[i];
	}
	q[3].deadline_ns = 1;
	CHECK_EQ(ops->read(tier, p, 4), 4);
	CHECK_EQ(wait_for(p[0]), 0);
	CHECK_EQ(wait_for(p[1]), -ENODATA);
	CHECK_EQ(wait_for(p[2]), -EINVAL);
	CHECK_EQ(wait_for(p[3]), -ETIMEDOUT);
	CHECK(is_range(to[0], 80, 0, 8));
}

static void a_deadline_that_has_passed_is_timedout(void)
{
	char *buffer = pages_alloc(SEG / PAGE);
	struct tmem_tier_request q = { .segment = 1,
				       .bytes = SEG,
				       .buffer = buffer,
				       .deadline_ns = tmem_sys_now_ns() };

	CHECK_EQ(put_request(&q), -ETIMEDOUT);
	CHECK_EQ(get(1, 0, 1, buffer), -ENODATA);
	q.deadline_ns = tmem_sys_now_ns() + long_time;
	CHECK_EQ(put_request(&q), 0);
	CHECK_EQ(stats().timeouts, 1);
	pages_free(buffer, SEG / PAGE);
}

static void a_full_tier_takes_no_more(void)
{
	char *buffer = pages_alloc(SEG / PAGE);
	struct tmem_tier_request q[NR] = { 0 };
	unsigned taken = 0;

	for (unsigned i = 0; i < NR; i++) {
		q[i].segment = i;
		q[i].bytes = SEG;
		q[i].buffer = buffer;
	}
	while (taken < NR && ops->write(tier, &q[taken]) == 1)
		taken++;
	CHECK(taken > 0);
	if (taken < NR)
		CHECK_EQ(q[taken].state, TMEM_TIER_IDLE);
	for (unsigned i = 0; i < taken; i++)
		CHECK_EQ(wait_for(&q[i]), 0);
	CHECK_EQ(ops->poll(tier, NULL, 0), 0);
	CHECK_EQ(ops->poll(tier, NULL, tmem_sys_now_ns() + long_time), 0);
	pages_free(buffer, SEG / PAGE);
}

static void what_is_kept_reads_after_reopening(void)
{
	char byte;

	CHECK_EQ(put(3, 30, SEG), 0);
	ops->close(tier);
	open_tier(true);
	CHECK(holds(3, 30, SEG));
	CHECK_EQ(put(3, 31, SEG), -EEXIST);
	CHECK_EQ(ops->drop(tier, 3), 0);
	CHECK_EQ(put(3, 31, SEG), 0);
	ops->close(tier);
	open_tier(false);
	CHECK_EQ(get(3, 0, 1, &byte), -ENODATA);
	CHECK_EQ(put(3, 32, SEG), 0);
	CHECK(holds(3, 32, SEG));
}

static void parent_and_child_read_what_was_there(void)
{
	int status;
	pid_t pid;

	CHECK_EQ(put(0, 1, SEG), 0);
	CHECK_EQ(put(1, 2, SEG), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK_EQ(ops->reopen(tier), 0);
		CHECK(holds(0, 1, SEG));
		CHECK_EQ(put(2, 3, SEG), 0);
		CHECK(holds(2, 3, SEG));
		ops->close(tier);
		_exit(0);
	}
	CHECK_EQ(put(3, 4, SEG), 0);
	CHECK(holds(1, 2, SEG));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK(holds(3, 4, SEG));
}

/* Truncated behind our back: an error, no signal. */
static void a_file_that_is_cut_off_is_an_error(void)
{
	char *buffer = pages_alloc(SEG / PAGE);

	if (way->is_device)
		return;
	CHECK_EQ(put(2, 20, SEG), 0);
	CHECK_EQ(put(1, 10, SEG), 0);
	CHECK_EQ(ftruncate(fd, 2 * SEG + SEG / 2), 0);
	CHECK_EQ(get(2, 0, SEG, buffer), -EIO);
	CHECK_EQ(get(2, SEG - 100, 50, buffer), -EIO);
	CHECK(holds(1, 10, SEG));
	CHECK_EQ(ftruncate(fd, (off_t)NR * SEG), 0);
	pages_free(buffer, SEG / PAGE);
}

/* A file system of 3 MiB. */
static void a_full_file_system_is_nospace(void)
{
	char dir[] = "/tmp/tmem-tier-XXXXXX", byte;
	int saved = fd, last = 0;
	unsigned n = 0;

	if (way->is_device || !mkdtemp(dir))
		return;
	if (mount("none", dir, "tmpfs", 0, "size=3m")) {
		rmdir(dir);
		return;
	}
	ops->close(tier);
	fd = tmem_tier_create(dir);
	CHECK(fd >= 0);
	open_tier(false);
	while (n < NR && (last = put(n, n, SEG)) == 0)
		n++;
	CHECK_EQ(last, -ENOSPC);
	CHECK(n == 2 || n == 3);
	CHECK_EQ(get(n, 0, 1, &byte), -ENODATA);
	CHECK_EQ(stats().full, 1);
	CHECK_EQ(stats().held_segments, n);
	for (unsigned i = 0; i < n; i++)
		CHECK(holds(i, i, SEG));
	CHECK_EQ(ops->drop(tier, 0), 0);
	CHECK_EQ(put(n, n, SEG), 0);
	CHECK(holds(n, n, SEG));
	ops->close(tier);
	close(fd);
	CHECK_EQ(umount(dir), 0);
	rmdir(dir);
	fd = saved;
	open_tier(false);
}

static void random_operations(void)
{
	uint64_t tags[NR] = { 0 };
	uint32_t bytes[NR] = { 0 };
	struct rng rng = { 77 };
	char *buffer = pages_alloc(SEG / PAGE);

	for (unsigned i = 1; i < 400; i++) {
		uint32_t s = (uint32_t)rng_below(&rng, NR), n, o;

		switch (rng_below(&rng, 6)) {
		case 0:
			n = 4096 * (1 + (uint32_t)rng_below(&rng, 256));
			CHECK_EQ(put(s, i, n), bytes[s] ? -EEXIST : 0);
			if (!bytes[s])
				tags[s] = i;
			if (!bytes[s])
				bytes[s] = n;
			break;
		case 1:
			CHECK_EQ(ops->drop(tier, s), bytes[s] ? 0 : -ENODATA);
			bytes[s] = 0;
			break;
		default:
			n = 1 + (uint32_t)rng_below(&rng, 5000);
			o = (uint32_t)rng_below(&rng, SEG - n);
			if (bytes[s] && o + n > bytes[s])
				break;
			CHECK_EQ(get(s, o, n, buffer), bytes[s] ? 0 : -ENODATA);
			CHECK(!bytes[s] || is_range(buffer, tags[s], o, n));
			break;
		}
	}
	pages_free(buffer, SEG / PAGE);
}

static void *use_in_thread(void *arg)
{
	uint32_t first = *(const uint32_t *)arg;
	struct rng rng = { first };
	char to[4][3000];

	for (unsigned i = 1; i < 40; i++) {
		uint32_t s = first + i % 3;
		struct tmem_tier_request q[4] = { 0 }, *p[4];
		int taken = 0, n;

		CHECK_EQ(put(s, first * 1000 + i, SEG), 0);
		for (unsigned k = 0; k < 4; k++) {
			q[k].segment = s;
			q[k].offset = (uint32_t)rng_below(&rng, SEG - 3000);
			q[k].bytes = 3000;
			q[k].buffer = to[k];
			p[k] = &q[k];
		}
		while (taken < 4) {
			n = ops->read(tier, p + taken, 4 - (unsigned)taken);
			taken += n;
			if (n == 0)
				ops->poll(tier, NULL,
					  tmem_sys_now_ns() + 1000000);
		}
		for (unsigned k = 0; k < 4; k++) {
			CHECK_EQ(wait_for(p[k]), 0);
			CHECK(is_range(to[k], first * 1000 + i, q[k].offset,
				       3000));
		}
		CHECK_EQ(ops->drop(tier, s), 0);
	}
	return NULL;
}

static void threads_use_it_together(void)
{
	uint32_t first[4] = { 0, 3, 6, 9 };
	pthread_t threads[4];

	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, use_in_thread,
					&first[i]),
			 0);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(stats().held_segments, 0);
}

static int disk(void)
{
	int f = tmem_tier_create(
		getenv("TMEM_TEST_DIR") ? getenv("TMEM_TEST_DIR") : "/var/tmp");
	struct stat st;

	CHECK(f >= 0);
	CHECK(fstat(f, &st) == 0 && (st.st_mode & 07777) == 0600 &&
	      st.st_nlink == 0);
	return f;
}

static int loop_device(void)
{
	return testfile_loop((uint64_t)NR * SEG);
}

static const struct way ways[] = {
	{ "disk", disk, false, false, false },
	{ "disk, pread", disk, true, false, false },
	{ "disk, buffered", disk, false, true, false },
	{ "disk, buffered, pread", disk, true, true, false },
	{ "tmpfs", testfile_ram, false, false, false },
	{ "tmpfs, pread", testfile_ram, true, false, false },
	{ "loop device", loop_device, false, false, true },
	{ "loop device, pread", loop_device, true, false, true },
};

static void (*const tests[])(void) = {
	what_was_never_written_is_nodata,
	a_written_segment_reads_back,
	any_small_range_reads,
	whole_blocks_read_at_any_length,
	what_makes_no_sense_is_invalid,
	a_segment_is_written_once,
	a_dropped_segment_is_gone,
	ranges_that_touch_are_one_read,
	each_of_a_vector_has_its_own_result,
	a_deadline_that_has_passed_is_timedout,
	a_full_tier_takes_no_more,
	what_is_kept_reads_after_reopening,
	parent_and_child_read_what_was_there,
	a_file_that_is_cut_off_is_an_error,
	a_full_file_system_is_nospace,
	random_operations,
	threads_use_it_together,
};

static void run_way(void)
{
	for (unsigned t = 0; t < sizeof(tests) / sizeof(tests[0]); t++) {
		fd = way->file();
		if (fd < 0) {
			printf("%s, %s: not here\n", ops->name, way->name);
			return;
		}
		open_tier(false);
		tests[t]();
		ops->close(tier);
		close(fd);
	}
	printf("%s, %s: ok\n", ops->name, way->name);
	fflush(stdout);
}

int main(void)
{
	for (unsigned i = 0; tmem_tiers[i]; i++) {
		ops = tmem_tiers[i];
		for (unsigned w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
			way = &ways[w];
			/* How it does I/O is the file tier's affair only. */
			if (ops == &tmem_tier_mapped &&
			    (way->no_uring || way->no_direct))
				continue;
			run_way();
		}
	}
	return 0;
}
