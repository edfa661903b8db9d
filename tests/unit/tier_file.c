/* SPDX-License-Identifier: MIT */
/*
 * The file tier on a device that hangs, breaks, is full in the middle of a
 * segment or moves less than it was asked to: deadlines, what becomes of
 * requests that are over theirs, and that no bad write leaves a segment.
 */
#include <pthread.h>

#include "base/sys.h"
#include "fstest.h"
#include "slowfs.h"
#include "tiers/tier.h"

enum {
	SEG = TMEM_SEGMENT_BYTES,
	NR = 8
};

#define MS 1000000ull

static const struct tmem_tier_ops *ops = &tmem_tier_file;
static const struct slowfs_mood good, held = { .hold = true };
static struct slowfs *fs;
static void *tier;
static char *buffer;

static struct tmem_tier_stats stats(void)
{
	struct tmem_tier_stats s;

	ops->stats(tier, &s);
	return s;
}

static void set(struct slowfs_mood mood)
{
	slowfs_set(fs, &mood);
}

static void fill(uint64_t tag)
{
	for (unsigned i = 0; i < SEG / PAGE; i++)
		page_fill(buffer + i * PAGE, tag + i);
}

static int put(uint32_t segment, uint64_t tag)
{
	struct tmem_tier_request q = { .segment = segment,
				       .bytes = SEG,
				       .buffer = buffer };

	fill(tag);
	CHECK_EQ(ops->write(tier, &q), 1);
	return tmem_tier_wait(ops, tier, &q);
}

static int get(uint32_t segment, uint32_t page, uint64_t tag)
{
	char *to = pages_alloc(1);
	struct tmem_tier_request q = { .segment = segment,
				       .offset = page * PAGE,
				       .bytes = PAGE,
				       .buffer = to },
				 *one = &q;
	int r;

	CHECK_EQ(ops->read(tier, &one, 1), 1);
	r = tmem_tier_wait(ops, tier, &q);
	CHECK(r != 0 || page_is(to, tag + page));
	pages_free(to, 1);
	return r;
}

static void wait_held(unsigned nr)
{
	while (slowfs_nr_held(fs) < nr)
		tmem_sys(SYS_sched_yield);
}

static void wait_done(const struct tmem_tier_request *q)
{
	while (q->state != TMEM_TIER_DONE)
		ops->poll(tier, NULL, tmem_sys_now_ns() + MS);
}

static void a_read_that_hangs_is_let_go(void)
{
	char to[100];
	struct tmem_tier_request q = { .segment = 1,
				       .offset = 5000,
				       .bytes = sizeof(to),
				       .buffer = to },
				 *one = &q;
	uint64_t start;

	CHECK_EQ(put(1, 10), 0);
	set(held);
	start = tmem_sys_now_ns();
	q.deadline_ns = start + 20 * MS;
	CHECK_EQ(ops->read(tier, &one, 1), 1);
	CHECK_EQ(q.state, TMEM_TIER_PENDING);
	CHECK_EQ(tmem_tier_wait(ops, tier, &q), -ETIMEDOUT);
	CHECK(tmem_sys_now_ns() - start >= 20 * MS);
	CHECK_EQ(q.state, TMEM_TIER_DONE);
	/* Whatever comes now goes nowhere near. */
	memset(to, 0x33, sizeof(to));
	memset(&q, 0x44, sizeof(q));
	wait_held(1);
	set(good);
	CHECK_EQ(get(1, 0, 10), 0);
	for (unsigned i = 0; i < sizeof(to); i++)
		CHECK(to[i] == 0x33);
	CHECK_EQ(stats().timeouts, 1);
}

static void of_one_io_each_has_its_own_deadline(void)
{
	char to[2][100];
	struct tmem_tier_request q[2] = { { 0 } }, *p[2] = { &q[0], &q[1] };

	CHECK_EQ(put(1, 10), 0);
	set(held);
	for (unsigned i = 0; i < 2; i++) {
		q[i].segment = 1;
		q[i].offset = i * 200;
		q[i].bytes = 100;
		q[i].buffer = to[i];
	}
	q[0].deadline_ns = tmem_sys_now_ns() + 10 * MS;
	CHECK_EQ(ops->read(tier, p, 2), 2);
	CHECK_EQ(stats().read_ios, 1);
	CHECK_EQ(tmem_tier_wait(ops, tier, &q[0]), -ETIMEDOUT);
	CHECK_EQ(q[1].state, TMEM_TIER_PENDING);
	wait_held(1);
	set(good);
	CHECK_EQ(tmem_tier_wait(ops, tier, &q[1]), 0);
	CHECK(memcmp(to[1], buffer + 200, 100) == 0);
}

static void a_large_read_is_held(void)
{
	char *to = pages_alloc(SEG / PAGE);
	struct tmem_tier_request q = { .segment = 1,
				       .bytes = SEG,
				       .buffer = to },
				 *one = &q;

	CHECK_EQ(put(1, 10), 0);
	set(held);
	q.deadline_ns = tmem_sys_now_ns() + 10 * MS;
	CHECK_EQ(ops->read(tier, &one, 1), 1);
	CHECK_EQ(tmem_tier_wait(ops, tier, &q), -ETIMEDOUT);
	CHECK_EQ(q.state, TMEM_TIER_HELD);
	wait_held(1);
	set(good);
	wait_done(&q);
	CHECK_EQ(q.result, -ETIMEDOUT);
	pages_free(to, SEG / PAGE);
	CHECK_EQ(get(1, 3, 10), 0);
}

static void a_write_that_hangs_leaves_nothing(void)
{
	struct tmem_tier_request q = { .segment = 2,
				       .bytes = SEG,
				       .buffer = buffer };
	char *mine = buffer, byte;
	struct tmem_tier_request r = { .segment = 2,
				       .bytes = 1,
				       .buffer = &byte },
				 *one = &r;
	unsigned punched = slowfs_nr_punched(fs);

	fill(20);
	set(held);
	q.deadline_ns = tmem_sys_now_ns() + 10 * MS;
	CHECK_EQ(ops->write(tier, &q), 1);
	CHECK_EQ(tmem_tier_wait(ops, tier, &q), -ETIMEDOUT);
	CHECK_EQ(q.state, TMEM_TIER_HELD);
	CHECK_EQ(ops->read(tier, &one, 1), 1);
	CHECK_EQ(r.result, -ENODATA);
	CHECK_EQ(ops->drop(tier, 2), -EBUSY);
	buffer = pages_alloc(SEG / PAGE);
	CHECK_EQ(put(2, 30), -EBUSY);
	wait_held(1);
	set(good);
	wait_done(&q);
	CHECK_EQ(get(2, 0, 20), -ENODATA);
	CHECK_EQ(slowfs_nr_punched(fs), punched + 1);
	CHECK_EQ(stats().held_segments, 0);
	CHECK_EQ(put(2, 30), 0);
	CHECK_EQ(get(2, 7, 30), 0);
	pages_free(buffer, SEG / PAGE);
	buffer = mine;
}

static void errors_are_answers(void)
{
	CHECK_EQ(put(1, 10), 0);
	set((struct slowfs_mood){ .read_error = EIO });
	CHECK_EQ(get(1, 0, 10), -EIO);
	set((struct slowfs_mood){ .write_error = EIO });
	CHECK_EQ(put(2, 20), -EIO);
	set((struct slowfs_mood){ .write_error = EDQUOT });
	CHECK_EQ(put(2, 20), -ENOSPC);
	set(good);
	CHECK_EQ(get(2, 0, 20), -ENODATA);
	CHECK_EQ(get(1, 0, 10), 0);
	CHECK_EQ(put(2, 20), 0);
	CHECK_EQ(get(2, 255, 20), 0);
	CHECK_EQ(stats().full, 1);
}

static void full_in_the_middle_leaves_nothing(void)
{
	char *bytes = pages_alloc(SEG / PAGE);

	CHECK_EQ(put(2, 20), 0);
	set((struct slowfs_mood){ .full_above = 3 * SEG + SEG / 2 });
	CHECK_EQ(put(3, 30), -ENOSPC);
	CHECK_EQ(get(3, 0, 30), -ENODATA);
	slowfs_get(fs, 3ull * SEG, bytes, SEG);
	for (unsigned i = 0; i < SEG; i++)
		CHECK(bytes[i] == 0);
	pages_free(bytes, SEG / PAGE);
	CHECK_EQ(get(2, 255, 20), 0);
	set(good);
	CHECK_EQ(put(3, 31), 0);
	CHECK_EQ(get(3, 255, 31), 0);
}

/* The kernel makes a short write of FUSE's EIO: tests/fault has those. */
static void a_short_read_is_tried_on(void)
{
	char *to = pages_alloc(SEG / PAGE);
	struct tmem_tier_request q = { .segment = 4,
				       .bytes = SEG,
				       .buffer = to },
				 *one = &q;

	CHECK_EQ(put(4, 40), 0);
	set((struct slowfs_mood){ .shorten = 128 << 10 });
	CHECK_EQ(ops->read(tier, &one, 1), 1);
	CHECK_EQ(tmem_tier_wait(ops, tier, &q), 0);
	CHECK(memcmp(to, buffer, SEG) == 0);
	/* Less than a block, over and over: no progress is an error. */
	set((struct slowfs_mood){ .shorten = 100 });
	CHECK_EQ(get(4, 0, 40), -EIO);
	set(good);
	CHECK_EQ(get(4, 0, 40), 0);
	pages_free(to, SEG / PAGE);
}

static void space_that_stays_is_counted(void)
{
	CHECK_EQ(put(4, 40), 0);
	set((struct slowfs_mood){ .no_punch = true });
	CHECK_EQ(ops->drop(tier, 4), 0);
	CHECK_EQ(stats().kept_space, 1);
	CHECK_EQ(get(4, 0, 40), -ENODATA);
	CHECK_EQ(put(4, 41), 0);
	CHECK_EQ(get(4, 0, 41), 0);
}

static void *let_go_soon(void *arg)
{
	(void)arg;
	wait_held(2);
	set(good);
	return NULL;
}

static void close_waits_for_what_is_in_flight(void)
{
	char *to = pages_alloc(SEG / PAGE);
	struct tmem_tier_request
		q[2] = { { .segment = 1, .bytes = SEG, .buffer = to },
			 { .segment = 6, .bytes = SEG, .buffer = buffer } },
		*one = &q[0];
	struct tmem_tier_options o = { .fd = slowfs_file(fs),
				       .max_bytes = (uint64_t)NR * SEG };
	pthread_t thread;

	CHECK_EQ(put(1, 10), 0);
	set(held);
	CHECK_EQ(ops->read(tier, &one, 1), 1);
	CHECK_EQ(ops->write(tier, &q[1]), 1);
	CHECK_EQ(pthread_create(&thread, NULL, let_go_soon, NULL), 0);
	ops->close(tier);
	CHECK_EQ(q[0].state, TMEM_TIER_DONE);
	CHECK_EQ(q[1].state, TMEM_TIER_DONE);
	CHECK_EQ(q[0].result, 0);
	CHECK(memcmp(to, buffer, SEG) == 0);
	pthread_join(thread, NULL);
	pages_free(to, SEG / PAGE);
	CHECK_EQ(ops->open(&o, &tier), 0);
	ops->close(tier);
	close(o.fd);
	tier = NULL;
}

static void run(void (*test)(void), const char *name)
{
	struct tmem_tier_options o = { .max_bytes = (uint64_t)NR * SEG,
				       .depth = 6 };

	fprintf(stderr, "  %s\n", name);
	fs = slowfs_create((uint64_t)NR * SEG);
	if (!fs) {
		fprintf(stderr, "needs root and /dev/fuse\n");
		exit(77);
	}
	o.fd = slowfs_file(fs);
	CHECK_EQ(ops->open(&o, &tier), 0);
	test();
	if (tier)
		ops->close(tier);
	close(o.fd);
	slowfs_destroy(fs);
}

#define RUN_TIER(test) run(test, #test)

int main(void)
{
	buffer = pages_alloc(SEG / PAGE);
	RUN_TIER(a_read_that_hangs_is_let_go);
	RUN_TIER(of_one_io_each_has_its_own_deadline);
	RUN_TIER(a_large_read_is_held);
	RUN_TIER(a_write_that_hangs_leaves_nothing);
	RUN_TIER(errors_are_answers);
	RUN_TIER(full_in_the_middle_leaves_nothing);
	RUN_TIER(a_short_read_is_tried_on);
	RUN_TIER(space_that_stays_is_counted);
	RUN_TIER(close_waits_for_what_is_in_flight);
	pages_free(buffer, SEG / PAGE);
	return 0;
}
