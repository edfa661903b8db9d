/* SPDX-License-Identifier: MIT */
/* See faultbackend.h.  Faults are for one thread; passing on is for any. */
#include "faultbackend.h"

#include <pthread.h>
#include <stdatomic.h>

#include "fstest.h"

enum {
	POOLS = 128
};

struct pool {
	_Atomic bool used;
	_Atomic uint32_t in_flight;
	tmem_pool_id real; /* fixed while used: TSan sees who does not wait */
};

struct faultbackend {
	struct tmem_backend real;
	pthread_mutex_t mutex; /* pools come and go */
	struct pool pools[POOLS];
	unsigned long left, struck;
	unsigned kinds;
	int error;
	enum faulthow how;
	bool sticky;
};

/* Pool numbers begin with 1. */
static struct pool *enter(struct faultbackend *fb, tmem_pool_id id)
{
	struct pool *pool = &fb->pools[id - 1];

	CHECK(id >= 1 && id <= POOLS);
	atomic_fetch_add(&pool->in_flight, 1);
	CHECK(pool->used);
	return pool;
}

static void leave(struct pool *pool)
{
	CHECK(pool->used);
	atomic_fetch_sub(&pool->in_flight, 1);
}

static bool strikes(struct faultbackend *fb, unsigned kind)
{
	if (fb->left == 0 || !(fb->kinds & kind))
		return false;
	if (fb->left > 1) {
		fb->left--;
		return false;
	}
	if (!fb->sticky)
		fb->left = 0;
	fb->struck++;
	return true;
}

static void fail_all(struct tmem_io *io, unsigned nr, int error)
{
	for (unsigned i = 0; i < nr; i++)
		io[i].result = error;
}

typedef int vector_op(void *self, tmem_pool_id pool, struct tmem_io *io,
		      unsigned nr);

/* Done, but the caller is not told; a load's pages don't reach it either. */
static void do_silently(struct faultbackend *fb, unsigned kind, vector_op *op,
			const struct pool *pool, struct tmem_io *io,
			unsigned nr)
{
	char page[PAGE];

	for (unsigned i = 0; i < nr; i++) {
		struct tmem_io one = io[i];

		if (kind == FAULT_LOAD)
			one.page = page;
		op(fb->real.self, pool->real, &one, 1);
	}
}

static int vector(struct faultbackend *fb, unsigned kind, vector_op *op,
		  tmem_pool_id id, struct tmem_io *io, unsigned nr)
{
	struct pool *pool = enter(fb, id);
	bool struck = strikes(fb, kind);
	bool element = struck && fb->how == FAULT_ELEMENT && nr != 0;
	int r = 0;

	if (element) {
		io[0].result = fb->error;
		if (nr > 1)
			r = op(fb->real.self, pool->real, io + 1, nr - 1);
	} else if (!struck) {
		r = op(fb->real.self, pool->real, io, nr);
	} else {
		if (fb->how == FAULT_AFTER)
			do_silently(fb, kind, op, pool, io, nr);
		/* Not even the results are written, as for a lost peer. */
		fail_all(io, nr, 0);
		r = fb->error;
	}
	leave(pool);
	return r;
}

static int fb_store(void *self, tmem_pool_id pool, struct tmem_io *io,
		    unsigned nr)
{
	struct faultbackend *fb = self;

	return vector(fb, FAULT_STORE, fb->real.ops->store, pool, io, nr);
}

static int fb_load(void *self, tmem_pool_id pool, struct tmem_io *io,
		   unsigned nr)
{
	struct faultbackend *fb = self;

	return vector(fb, FAULT_LOAD, fb->real.ops->load, pool, io, nr);
}

static int fb_invalidate(void *self, tmem_pool_id pool, struct tmem_io *io,
			 unsigned nr)
{
	struct faultbackend *fb = self;

	return vector(fb, FAULT_INVALIDATE, fb->real.ops->invalidate, pool, io,
		      nr);
}

static int fb_invalidate_object(void *self, tmem_pool_id id,
				struct tmem_object_id object,
				uint64_t *ret_pages)
{
	struct faultbackend *fb = self;
	struct pool *pool = enter(fb, id);
	bool struck = strikes(fb, FAULT_OBJECT);
	int r = 0;

	if (!struck || fb->how == FAULT_AFTER)
		r = fb->real.ops->invalidate_object(fb->real.self, pool->real,
						    object, ret_pages);
	leave(pool);
	return struck ? fb->error : r;
}

static int fb_pool_create(void *self, const struct tmem_pool_options *options,
			  tmem_pool_id *ret_pool)
{
	struct faultbackend *fb = self;
	tmem_pool_id id = 0;
	int r;

	if (strikes(fb, FAULT_CREATE))
		return fb->error;
	pthread_mutex_lock(&fb->mutex);
	while (id < POOLS && fb->pools[id].used)
		id++;
	CHECK(id < POOLS);
	r = fb->real.ops->pool_create(fb->real.self, options,
				      &fb->pools[id].real);
	if (r >= 0) {
		fb->pools[id].used = true;
		*ret_pool = id + 1;
	}
	pthread_mutex_unlock(&fb->mutex);
	return r;
}

static int fb_pool_destroy(void *self, tmem_pool_id id)
{
	struct faultbackend *fb = self;
	struct pool *pool = &fb->pools[id - 1];
	int r = 0;

	CHECK(id >= 1 && id <= POOLS && pool->used);
	CHECK_EQ(pool->in_flight, 0);
	/* -ENOENT would say that the pool is gone. */
	if (strikes(fb, FAULT_DESTROY))
		return fb->error == -ENOENT ? -EIO : fb->error;
	pthread_mutex_lock(&fb->mutex);
	r = fb->real.ops->pool_destroy(fb->real.self, pool->real);
	CHECK_EQ(pool->in_flight, 0);
	pool->used = false;
	pthread_mutex_unlock(&fb->mutex);
	return r;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): an op is of this type */
static int fb_pool_clone(void *self, tmem_pool_id pool, tmem_pool_id *ret_pool)
{
	(void)self;
	(void)pool;
	(void)ret_pool;
	return -EINVAL;
}

static int fb_stats(void *self, struct tmem_stats *ret_stats)
{
	struct faultbackend *fb = self;

	return fb->real.ops->stats(fb->real.self, ret_stats);
}

static const struct tmem_backend_ops fb_ops = {
	.name = "faults before another",
	.pool_create = fb_pool_create,
	.pool_destroy = fb_pool_destroy,
	.pool_clone = fb_pool_clone,
	.store = fb_store,
	.load = fb_load,
	.invalidate = fb_invalidate,
	.invalidate_object = fb_invalidate_object,
	.stats = fb_stats,
};

struct faultbackend *faultbackend_create(struct tmem_backend real)
{
	struct faultbackend *fb = calloc(1, sizeof(*fb));

	CHECK(fb != NULL);
	fb->real = real;
	fb->error = -EIO;
	pthread_mutex_init(&fb->mutex, NULL);
	return fb;
}

void faultbackend_destroy(struct faultbackend *fb)
{
	for (unsigned i = 0; i < POOLS; i++)
		CHECK_EQ(fb->pools[i].in_flight, 0);
	pthread_mutex_destroy(&fb->mutex);
	free(fb);
}

struct tmem_backend faultbackend_backend(struct faultbackend *fb)
{
	return (struct tmem_backend){ &fb_ops, fb };
}

void faultbackend_arm(struct faultbackend *fb, unsigned long n, unsigned kinds)
{
	fb->left = n;
	fb->kinds = kinds;
	if (n != 0)
		fb->struck = 0;
}

void faultbackend_set_error(struct faultbackend *fb, int error,
			    enum faulthow how, bool sticky)
{
	fb->error = error;
	fb->how = how;
	fb->sticky = sticky;
}

unsigned long faultbackend_struck(const struct faultbackend *fb)
{
	return fb->struck;
}
