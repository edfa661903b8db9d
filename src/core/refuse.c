/* SPDX-License-Identifier: MIT */
/*
 * The backend that refuses every store and misses every load: what the hooks
 * of a front end cost alone.  It has one pool number for all pools and keeps
 * no state, so that it measures nothing of its own.
 */
#include <errno.h>

#include <tmem/backend.h>
#include <tmem/stats.h>

enum {
	THE_POOL = 1
};

static int all(tmem_pool_id pool, struct tmem_io *io, unsigned nr, int result)
{
	int r = pool == THE_POOL ? 0 : -ENOENT;
	unsigned i;

	for (i = 0; i < nr; i++)
		io[i].result = r ? r : result;
	return r;
}

static int pool_create(void *backend, const struct tmem_pool_options *options,
		       tmem_pool_id *ret_pool)
{
	(void)backend;
	(void)options;
	*ret_pool = THE_POOL;
	return 0;
}

static int pool_destroy(void *backend, tmem_pool_id pool)
{
	(void)backend;
	return pool == THE_POOL ? 0 : -ENOENT;
}

static int pool_clone(void *backend, tmem_pool_id pool, tmem_pool_id *ret_pool)
{
	(void)backend;
	if (pool != THE_POOL)
		return -ENOENT;
	*ret_pool = THE_POOL;
	return 0;
}

static int store(void *backend, tmem_pool_id pool, struct tmem_io *io,
		 unsigned nr)
{
	(void)backend;
	return all(pool, io, nr, TMEM_REFUSED);
}

static int load(void *backend, tmem_pool_id pool, struct tmem_io *io,
		unsigned nr)
{
	(void)backend;
	return all(pool, io, nr, TMEM_MISS);
}

static int invalidate(void *backend, tmem_pool_id pool, struct tmem_io *io,
		      unsigned nr)
{
	(void)backend;
	return all(pool, io, nr, TMEM_MISS);
}

static int invalidate_object(void *backend, tmem_pool_id pool,
			     struct tmem_object_id object, uint64_t *ret_pages)
{
	(void)backend;
	(void)object;
	if (pool != THE_POOL)
		return -ENOENT;
	*ret_pages = 0;
	return 0;
}

static int stats(void *backend, struct tmem_stats *ret_stats)
{
	(void)backend;
	*ret_stats = (struct tmem_stats){ 0 };
	return 0;
}

static const struct tmem_backend_ops refusing = {
	.name = "refusing",
	.pool_create = pool_create,
	.pool_destroy = pool_destroy,
	.pool_clone = pool_clone,
	.store = store,
	.load = load,
	.invalidate = invalidate,
	.invalidate_object = invalidate_object,
	.stats = stats,
};

struct tmem_backend tmem_backend_refusing(void)
{
	return (struct tmem_backend){ &refusing, NULL };
}
