/* SPDX-License-Identifier: MIT */
/* A test's store, seen by its default client, and a pool of that. */
#ifndef STORETEST_H
#define STORETEST_H

#include <tmem/stats.h>
#include <tmem/store.h>

#include "fstest.h"

static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;

static inline void open_with(const struct tmem_store_options *options)
{
	CHECK_EQ(tmem_store_open(options, &store), 0);
	backend = tmem_store_backend(store);
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
}

static inline void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static inline struct tmem_stats stats(void)
{
	struct tmem_stats s;

	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	return s;
}

#endif
