/* SPDX-License-Identifier: MIT */
/*
 * See testdev.h.  One mutex; an array of pages by offset; a list of writes
 * in flight.  A write in flight is `latest` for its offset until the page is
 * discarded or written again.
 */
#include "testdev.h"

#include <pthread.h>

#include "fstest.h"

struct flight {
	struct tmem_swapdev_request *request;
	bool latest;
};

struct testdev {
	pthread_mutex_t mutex;
	pthread_cond_t ended;
	uint64_t nr_offsets;
	uint64_t capacity;
	uint64_t used; /* pages held, in flight included */
	char **pages;
	struct flight *flights;
	unsigned nr_flights;
	unsigned depth;
	unsigned nr_done_running; /* done() being called just now */
	struct testdev_faults faults;
	struct rng rng;
};

static bool strikes(struct testdev *dev, long *in)
{
	if (*in < 0)
		return false;
	if (*in > 0) {
		--*in;
		return false;
	}
	if (!dev->faults.sticky)
		*in = -1;
	return true;
}

static struct flight *flight_of(struct testdev *dev, uint64_t offset)
{
	for (unsigned i = 0; i < dev->nr_flights; i++) {
		struct flight *f = &dev->flights[i];

		if (f->latest && f->request->offset == offset)
			return f;
	}
	return NULL;
}

static void forget(struct testdev *dev, uint64_t offset)
{
	struct flight *f = flight_of(dev, offset);

	if (f) {
		f->latest = false;
		dev->used--;
	}
	if (dev->pages[offset]) {
		free(dev->pages[offset]);
		dev->pages[offset] = NULL;
		dev->used--;
	}
}

static int testdev_write(void *self, struct tmem_swapdev_request *request)
{
	struct testdev *dev = self;
	int r = 0;

	if (request->offset >= dev->nr_offsets)
		return -EINVAL;
	CHECK(((uintptr_t)request->page & (PAGE - 1)) == 0);
	pthread_mutex_lock(&dev->mutex);
	if (dev->nr_flights == dev->depth) {
		r = -EAGAIN;
	} else {
		forget(dev, request->offset);
		if (dev->used >= dev->capacity ||
		    strikes(dev, &dev->faults.write_full_in))
			r = -ENOSPC;
	}
	if (r == 0) {
		dev->flights[dev->nr_flights++] =
			(struct flight){ request, true };
		dev->used++;
	}
	pthread_mutex_unlock(&dev->mutex);
	return r;
}

static void testdev_flush(void *self)
{
	(void)self;
}

/* Ends one write in flight, unlocked while done() runs. */
static void end_one(struct testdev *dev)
{
	unsigned i = (unsigned)rng_below(&dev->rng, dev->nr_flights);
	struct flight f = dev->flights[i];
	int result = 0;

	dev->flights[i] = dev->flights[--dev->nr_flights];
	if (f.latest && strikes(dev, &dev->faults.write_result_in)) {
		result = dev->faults.write_result;
		dev->used--;
	} else if (f.latest) {
		char *copy = malloc(PAGE);

		CHECK(copy != NULL);
		memcpy(copy, f.request->page, PAGE);
		dev->pages[f.request->offset] = copy;
	}
	dev->nr_done_running++;
	pthread_mutex_unlock(&dev->mutex);
	f.request->done(f.request, result);
	pthread_mutex_lock(&dev->mutex);
	dev->nr_done_running--;
	pthread_cond_broadcast(&dev->ended);
}

static int testdev_reap(void *self, bool wait)
{
	struct testdev *dev = self;
	int n = 0;

	pthread_mutex_lock(&dev->mutex);
	if (dev->nr_flights == 0 && dev->nr_done_running != 0 && wait)
		pthread_cond_wait(&dev->ended, &dev->mutex);
	/* Without wait some stay in flight, for tests to meet them. */
	while (dev->nr_flights != 0 && n < (wait ? 8 : 2)) {
		end_one(dev);
		n++;
	}
	pthread_mutex_unlock(&dev->mutex);
	return n;
}

static int testdev_read(void *self, uint64_t offset, void *page)
{
	struct testdev *dev = self;
	struct flight *f;
	int r = 0;

	if (offset >= dev->nr_offsets)
		return -EINVAL;
	pthread_mutex_lock(&dev->mutex);
	f = flight_of(dev, offset);
	if (!f && !dev->pages[offset])
		r = -ENODATA;
	else if (strikes(dev, &dev->faults.read_in))
		r = -EIO;
	else
		memcpy(page, f ? f->request->page : dev->pages[offset], PAGE);
	pthread_mutex_unlock(&dev->mutex);
	return r;
}

static void testdev_read_many(void *self, struct tmem_swapdev_read *reads,
			      unsigned nr)
{
	for (; nr > 0; nr--, reads++)
		reads->result = testdev_read(self, reads->offset, reads->page);
}

static void testdev_discard(void *self, uint64_t offset, uint64_t nr_pages)
{
	struct testdev *dev = self;

	pthread_mutex_lock(&dev->mutex);
	for (; nr_pages != 0 && offset < dev->nr_offsets; nr_pages--)
		forget(dev, offset++);
	pthread_mutex_unlock(&dev->mutex);
}

static uint64_t testdev_used_pages(void *self)
{
	struct testdev *dev = self;
	uint64_t used;

	pthread_mutex_lock(&dev->mutex);
	used = dev->used;
	pthread_mutex_unlock(&dev->mutex);
	return used;
}

static void testdev_close(void *self)
{
	struct testdev *dev = self;

	while (testdev_reap(dev, true) != 0)
		;
	testdev_discard(dev, 0, dev->nr_offsets);
	CHECK_EQ(dev->used, 0);
	pthread_mutex_destroy(&dev->mutex);
	pthread_cond_destroy(&dev->ended);
	free(dev->pages);
	free(dev->flights);
	free(dev);
}

struct testdev *testdev_create(uint64_t nr_offsets, uint64_t capacity,
			       unsigned depth, uint64_t seed)
{
	struct testdev *dev = calloc(1, sizeof(*dev));

	CHECK(dev != NULL);
	pthread_mutex_init(&dev->mutex, NULL);
	pthread_cond_init(&dev->ended, NULL);
	dev->nr_offsets = nr_offsets;
	dev->capacity = capacity;
	dev->depth = depth;
	dev->pages = calloc(nr_offsets, sizeof(*dev->pages));
	dev->flights = calloc(depth, sizeof(*dev->flights));
	CHECK(dev->pages && dev->flights);
	dev->rng.state = seed;
	testdev_set_faults(dev, &(struct testdev_faults){ -1, 0, -1, -1, 0 });
	return dev;
}

void testdev_set_faults(struct testdev *dev,
			const struct testdev_faults *faults)
{
	pthread_mutex_lock(&dev->mutex);
	dev->faults = *faults;
	pthread_mutex_unlock(&dev->mutex);
}

unsigned testdev_in_flight(struct testdev *dev)
{
	unsigned n;

	pthread_mutex_lock(&dev->mutex);
	n = dev->nr_flights;
	pthread_mutex_unlock(&dev->mutex);
	return n;
}

static const struct tmem_swapdev_ops testdev_ops = {
	.name = "testdev",
	.write = testdev_write,
	.flush = testdev_flush,
	.reap = testdev_reap,
	.read = testdev_read,
	.read_many = testdev_read_many,
	.discard = testdev_discard,
	.used_pages = testdev_used_pages,
	.close = testdev_close,
};

struct tmem_swapdev testdev_device(struct testdev *dev)
{
	return (struct tmem_swapdev){ &testdev_ops, dev };
}
