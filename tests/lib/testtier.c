/* SPDX-License-Identifier: MIT */
/* A tier in RAM that fails on demand; see testtier.h. */
#include "testtier.h"

#include <pthread.h>
#include <sched.h>

#include "base/sys.h"
#include "fstest.h"

enum {
	MAX_PENDING = 64
};

struct pending {
	struct tmem_tier_request *request;
	bool is_write;
	bool is_held;
};

struct testtier {
	pthread_mutex_t lock;
	struct testtier_mood mood;
	struct rng rng;
	uint32_t nr_segments;
	char **segments; /* NULL: not there */
	uint32_t *bytes;
	bool *writing;
	unsigned nr_pending;
	struct pending pending[MAX_PENDING];
	unsigned long nr_bad_reads;
	struct tmem_tier_stats stats;
};

static bool comes(struct testtier *t, unsigned part)
{
	return part && rng_below(&t->rng, 1024) < part;
}

struct testtier *testtier_create(uint32_t nr_segments, uint64_t seed)
{
	struct testtier *t = calloc(1, sizeof(*t));

	CHECK(t != NULL);
	pthread_mutex_init(&t->lock, NULL);
	t->rng.state = seed;
	t->nr_segments = nr_segments;
	t->segments = calloc(nr_segments, sizeof(*t->segments));
	t->bytes = calloc(nr_segments, sizeof(*t->bytes));
	t->writing = calloc(nr_segments, sizeof(*t->writing));
	CHECK(t->segments && t->bytes && t->writing);
	return t;
}

void testtier_set(struct testtier *t, const struct testtier_mood *mood)
{
	pthread_mutex_lock(&t->lock);
	t->mood = *mood;
	pthread_mutex_unlock(&t->lock);
}

unsigned long testtier_nr_bad_reads(struct testtier *t)
{
	unsigned long nr;

	pthread_mutex_lock(&t->lock);
	nr = t->nr_bad_reads;
	pthread_mutex_unlock(&t->lock);
	return nr;
}

static void add(struct testtier *t, struct tmem_tier_request *q, bool is_write)
{
	t->pending[t->nr_pending++] = (struct pending){ q, is_write, false };
	q->state = TMEM_TIER_PENDING;
}

static void answer(struct tmem_tier_request *q, int result)
{
	q->result = result;
	q->state = TMEM_TIER_DONE;
}

static int test_write(void *self, struct tmem_tier_request *q)
{
	struct testtier *t = self;
	int r = 1;

	pthread_mutex_lock(&t->lock);
	CHECK(q->segment < t->nr_segments && q->offset == 0);
	CHECK(q->bytes && q->bytes <= TMEM_SEGMENT_BYTES &&
	      ((uintptr_t)q->buffer | q->bytes) % TMEM_TIER_BLOCK == 0);
	/* Nobody writes a number that is there. */
	CHECK(!t->segments[q->segment] && !t->writing[q->segment]);
	if (t->nr_pending == MAX_PENDING || comes(t, t->mood.busy)) {
		r = 0;
	} else {
		t->writing[q->segment] = true;
		add(t, q, true);
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

static int test_read(void *self, struct tmem_tier_request *const *requests,
		     unsigned nr)
{
	struct testtier *t = self;
	unsigned i;

	pthread_mutex_lock(&t->lock);
	for (i = 0; i < nr; i++) {
		struct tmem_tier_request *q = requests[i];

		CHECK(q->segment < t->nr_segments && q->bytes &&
		      q->offset <= TMEM_SEGMENT_BYTES - q->bytes);
		if (q->bytes > TMEM_TIER_SMALL)
			CHECK(((uintptr_t)q->buffer | q->bytes | q->offset) %
				      TMEM_TIER_BLOCK ==
			      0);
		if (t->nr_pending == MAX_PENDING || comes(t, t->mood.busy))
			break;
		if (t->segments[q->segment])
			add(t, q, false);
		else
			answer(q, -ENODATA);
	}
	pthread_mutex_unlock(&t->lock);
	return (int)i;
}

static int test_drop(void *self, uint32_t segment)
{
	struct testtier *t = self;
	int r = 0;

	pthread_mutex_lock(&t->lock);
	CHECK(segment < t->nr_segments);
	if (t->writing[segment])
		r = -EBUSY;
	else if (!t->segments[segment])
		r = -ENODATA;
	if (r == 0) {
		free(t->segments[segment]);
		t->segments[segment] = NULL;
		t->stats.drops++;
		t->stats.held_segments--;
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

static void remove_pending(struct testtier *t, unsigned i)
{
	t->pending[i] = t->pending[--t->nr_pending];
}

static void end_write(struct testtier *t, unsigned i)
{
	struct pending *p = &t->pending[i];
	struct tmem_tier_request *q = p->request;
	int result = 0;

	if (p->is_held) {
		t->writing[q->segment] = false;
		remove_pending(t, i);
		q->state = TMEM_TIER_DONE;
		return;
	}
	if (comes(t, t->mood.write_timeout)) {
		p->is_held = true;
		q->result = -ETIMEDOUT;
		q->state = TMEM_TIER_HELD;
		return;
	}
	if (comes(t, t->mood.write_error))
		result = -EIO;
	else if (comes(t, t->mood.write_full))
		result = -ENOSPC;
	if (result == 0) {
		t->segments[q->segment] = malloc(q->bytes);
		CHECK(t->segments[q->segment] != NULL);
		memcpy(t->segments[q->segment], q->buffer, q->bytes);
		t->bytes[q->segment] = q->bytes;
		t->stats.writes++;
		t->stats.written_bytes += q->bytes;
		t->stats.held_segments++;
	}
	t->writing[q->segment] = false;
	remove_pending(t, i);
	answer(q, result);
}

static void end_read(struct testtier *t, unsigned i)
{
	struct tmem_tier_request *q = t->pending[i].request;
	const char *from = t->segments[q->segment];
	int result = 0;

	remove_pending(t, i);
	if (!from) {
		/* Dropped meanwhile: any bytes. */
		memset(q->buffer, 0x77, q->bytes);
	} else if (comes(t, t->mood.read_error)) {
		t->nr_bad_reads++;
		result = -EIO;
	} else {
		CHECK(q->offset + q->bytes <=
		      (t->bytes[q->segment] + 4095) / 4096 * 4096);
		memcpy(q->buffer, from + q->offset, q->bytes);
		if (comes(t, t->mood.read_garbage)) {
			t->nr_bad_reads++;
			((char *)q->buffer)[rng_below(&t->rng, q->bytes)] ^= 1;
		}
	}
	answer(q, result);
}

static int answer_some(struct testtier *t)
{
	int n = 0;
	unsigned left = t->nr_pending;

	while (left-- > 0 && t->nr_pending && !t->mood.hold) {
		unsigned i = (unsigned)rng_below(&t->rng, t->nr_pending);

		if (comes(t, t->mood.slow))
			continue;
		if (t->pending[i].is_write)
			end_write(t, i);
		else
			end_read(t, i);
		n++;
	}
	return n;
}

static int test_poll(void *self, const struct tmem_tier_request *request,
		     uint64_t until_ns)
{
	struct testtier *t = self;
	bool idle;
	int n = 0;

	do {
		pthread_mutex_lock(&t->lock);
		n += answer_some(t);
		idle = t->nr_pending == 0;
		pthread_mutex_unlock(&t->lock);
		if (idle || (request ? tmem_tier_is_answered(request) : n != 0))
			break;
		sched_yield();
	} while (tmem_sys_now_ns() < until_ns);
	return n;
}

static int test_open(const struct tmem_tier_options *options, void **ret_tier)
{
	(void)options;
	(void)ret_tier;
	return -EINVAL;
}

static int test_reopen(void *self)
{
	struct testtier *t = self;

	CHECK_EQ(t->nr_pending, 0);
	return 0;
}

static void test_stats(void *self, struct tmem_tier_stats *ret_stats)
{
	struct testtier *t = self;

	pthread_mutex_lock(&t->lock);
	*ret_stats = t->stats;
	ret_stats->nr_segments = t->nr_segments;
	pthread_mutex_unlock(&t->lock);
}

static void test_close(void *self)
{
	struct testtier *t = self;
	uint32_t i;

	CHECK_EQ(t->nr_pending, 0);
	for (i = 0; i < t->nr_segments; i++)
		free(t->segments[i]);
	free(t->segments);
	free(t->bytes);
	free(t->writing);
	free(t);
}

const struct tmem_tier_ops testtier_ops = {
	.name = "test",
	.open = test_open,
	.write = test_write,
	.read = test_read,
	.drop = test_drop,
	.poll = test_poll,
	.reopen = test_reopen,
	.stats = test_stats,
	.close = test_close,
};
