/* SPDX-License-Identifier: MIT */
/* See testbackend.h: an array of pages, searched from the end. */
#include "testbackend.h"

#include <pthread.h>

#include "fstest.h"

struct stored {
	struct tmem_object_id object;
	uint32_t index;
	char page[PAGE];
};

struct testbackend {
	pthread_mutex_t mutex;
	struct stored **pages;
	uint64_t nr;
	uint64_t capacity;
	bool pool;
	struct testbackend_faults faults;
};

static bool strikes(struct testbackend *tb, long *in)
{
	if (*in < 0)
		return false;
	if (*in > 0) {
		--*in;
		return false;
	}
	if (!tb->faults.sticky)
		*in = -1;
	return true;
}

static bool same_object(struct tmem_object_id a, struct tmem_object_id b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static uint64_t find(struct testbackend *tb, const struct tmem_io *io)
{
	uint64_t i = tb->nr;

	while (i-- > 0) {
		if (tb->pages[i]->index == io->index &&
		    same_object(tb->pages[i]->object, io->object))
			return i;
	}
	return UINT64_MAX;
}

static void drop(struct testbackend *tb, uint64_t i)
{
	free(tb->pages[i]);
	tb->pages[i] = tb->pages[--tb->nr];
}

static int store_one(struct testbackend *tb, struct tmem_io *io)
{
	uint64_t i = find(tb, io);

	if (strikes(tb, &tb->faults.store_eio_in))
		return -EIO;
	if (i != UINT64_MAX)
		drop(tb, i);
	if (tb->nr == tb->capacity || strikes(tb, &tb->faults.refuse_in))
		return TMEM_REFUSED;
	tb->pages[tb->nr] = malloc(sizeof(struct stored));
	CHECK(tb->pages[tb->nr] != NULL);
	tb->pages[tb->nr]->object = io->object;
	tb->pages[tb->nr]->index = io->index;
	memcpy(tb->pages[tb->nr]->page, io->page, PAGE);
	tb->nr++;
	return 0;
}

static int load_one(struct testbackend *tb, struct tmem_io *io)
{
	uint64_t i = find(tb, io);

	if (i == UINT64_MAX)
		return TMEM_MISS;
	if (strikes(tb, &tb->faults.load_eio_in))
		return -EIO;
	memcpy(io->page, tb->pages[i]->page, PAGE);
	return 0;
}

static int invalidate_one(struct testbackend *tb, struct tmem_io *io)
{
	uint64_t i = find(tb, io);

	if (i == UINT64_MAX)
		return TMEM_MISS;
	drop(tb, i);
	return 0;
}

static int for_each(struct testbackend *tb, struct tmem_io *io, unsigned nr,
		    int (*one)(struct testbackend *tb, struct tmem_io *io))
{
	pthread_mutex_lock(&tb->mutex);
	for (unsigned i = 0; i < nr; i++)
		io[i].result = one(tb, &io[i]);
	pthread_mutex_unlock(&tb->mutex);
	return 0;
}

static int tb_store(void *self, tmem_pool_id pool, struct tmem_io *io,
		    unsigned nr)
{
	CHECK_EQ(pool, 1);
	return for_each(self, io, nr, store_one);
}

static int tb_load(void *self, tmem_pool_id pool, struct tmem_io *io,
		   unsigned nr)
{
	CHECK_EQ(pool, 1);
	return for_each(self, io, nr, load_one);
}

static int tb_invalidate(void *self, tmem_pool_id pool, struct tmem_io *io,
			 unsigned nr)
{
	CHECK_EQ(pool, 1);
	return for_each(self, io, nr, invalidate_one);
}

static int tb_invalidate_object(void *self, tmem_pool_id pool,
				struct tmem_object_id object,
				uint64_t *ret_pages)
{
	struct testbackend *tb = self;

	CHECK_EQ(pool, 1);
	*ret_pages = 0;
	pthread_mutex_lock(&tb->mutex);
	for (uint64_t i = tb->nr; i-- > 0;) {
		if (same_object(tb->pages[i]->object, object)) {
			drop(tb, i);
			++*ret_pages;
		}
	}
	pthread_mutex_unlock(&tb->mutex);
	return 0;
}

static int tb_pool_create(void *self, const struct tmem_pool_options *options,
			  tmem_pool_id *ret_pool)
{
	struct testbackend *tb = self;

	CHECK(!options && !tb->pool);
	tb->pool = true;
	*ret_pool = 1;
	return 0;
}

static int tb_pool_destroy(void *self, tmem_pool_id pool)
{
	struct testbackend *tb = self;

	CHECK(tb->pool && pool == 1);
	testbackend_lose_all(tb);
	tb->pool = false;
	return 0;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): an op is of this type */
static int tb_pool_clone(void *self, tmem_pool_id pool, tmem_pool_id *ret_pool)
{
	(void)self;
	(void)pool;
	(void)ret_pool;
	return -ENOMEM;
}

static int tb_stats(void *self, struct tmem_stats *ret_stats)
{
	(void)self;
	(void)ret_stats;
	return -EOPNOTSUPP;
}

static const struct tmem_backend_ops tb_ops = {
	.name = "testbackend",
	.pool_create = tb_pool_create,
	.pool_destroy = tb_pool_destroy,
	.pool_clone = tb_pool_clone,
	.store = tb_store,
	.load = tb_load,
	.invalidate = tb_invalidate,
	.invalidate_object = tb_invalidate_object,
	.stats = tb_stats,
};

struct testbackend *testbackend_create(uint64_t capacity)
{
	struct testbackend *tb = calloc(1, sizeof(*tb));

	CHECK(tb != NULL);
	pthread_mutex_init(&tb->mutex, NULL);
	tb->capacity = capacity;
	tb->pages = calloc(capacity + 1, sizeof(struct stored *));
	CHECK(tb->pages != NULL);
	testbackend_set_faults(tb,
			       &(struct testbackend_faults){ -1, -1, -1, 0 });
	return tb;
}

void testbackend_destroy(struct testbackend *tb)
{
	testbackend_lose_all(tb);
	pthread_mutex_destroy(&tb->mutex);
	free(tb->pages);
	free(tb);
}

struct tmem_backend testbackend_backend(struct testbackend *tb)
{
	return (struct tmem_backend){ &tb_ops, tb };
}

void testbackend_set_faults(struct testbackend *tb,
			    const struct testbackend_faults *faults)
{
	pthread_mutex_lock(&tb->mutex);
	tb->faults = *faults;
	pthread_mutex_unlock(&tb->mutex);
}

uint64_t testbackend_pages(struct testbackend *tb)
{
	uint64_t nr;

	pthread_mutex_lock(&tb->mutex);
	nr = tb->nr;
	pthread_mutex_unlock(&tb->mutex);
	return nr;
}

void testbackend_lose_all(struct testbackend *tb)
{
	while (tb->nr != 0)
		drop(tb, tb->nr - 1);
}
