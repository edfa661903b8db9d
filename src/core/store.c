/* SPDX-License-Identifier: MIT */
/* The public face of the local store: open, close, limit, vectors. */
#include <errno.h>
#include <string.h>

#include <tmem/store.h>

#include "arena/image.h"
#include "arena/map.h"
#include "base/sys.h"
#include "compact.h"
#include "dedup.h"
#include "evict.h"
#include "learn.h"
#include "near.h"
#include "page.h"
#include "pool.h"
#include "recover.h"
#include "tiering.h"
#include "unzip.h"

#define STORE_MAGIC 0x65726f74732d6d74ull /* "tm-store" */

/* -ENOENT into every element, as the contract wants. */
static int no_pool(struct tmem_io *io, unsigned nr)
{
	unsigned i;

	for (i = 0; i < nr; i++)
		io[i].result = -ENOENT;
	return -ENOENT;
}

static unsigned group_of(unsigned nr)
{
	return nr < TMEM_NEAR_GROUP ? nr : TMEM_NEAR_GROUP;
}

/* Before page i of a vector: brings the next pages near, if that pays. */
static void near_pages(const struct tmem_client *client, tmem_pool_id id,
		       const struct tmem_io *io, unsigned nr,
		       enum tmem_near_for what)
{
	if (tmem_near_pays(client->store) && nr > 1)
		tmem_near_pages(client->store, tmem_pool_number(id), io,
				group_of(nr), what);
}

/* The same before stores, and what equal pages are looked for by. */
static void near_stores(const struct tmem_client *client, tmem_pool_id id,
			const struct tmem_io *io, unsigned nr,
			uint64_t *ret_hashes)
{
	uint32_t pool = tmem_pool_number(id);

	memset(ret_hashes, 0, TMEM_NEAR_GROUP * sizeof(*ret_hashes));
	if (!tmem_near_pays(client->store))
		return;
	if (tmem_dedup_wants(client->store, pool))
		tmem_dedup_near(client, io, group_of(nr), ret_hashes);
	tmem_near_pages(client->store, pool, io, group_of(nr), TMEM_NEAR_STORE);
}

static int pool_create(void *self, const struct tmem_pool_options *options,
		       tmem_pool_id *ret_pool)
{
	return tmem_pool_create(tmem_client_of(self), options, ret_pool);
}

static int pool_destroy(void *self, tmem_pool_id pool)
{
	return tmem_pool_destroy(tmem_client_of(self), pool);
}

static int pool_clone(void *self, tmem_pool_id pool, tmem_pool_id *ret_pool)
{
	return tmem_pool_clone(tmem_client_of(self), pool, ret_pool);
}

static int store_pages(void *self, tmem_pool_id id, struct tmem_io *io,
		       unsigned nr)
{
	const struct tmem_client *client = tmem_client_of(self);
	uint64_t hashes[TMEM_NEAR_GROUP];
	struct tmem_scratch *scratch;
	unsigned i;

	if (!tmem_pool_of(client, id))
		return no_pool(io, nr);
	scratch = tmem_scratch_acquire(client->store);
	for (i = 0; i < nr; i++) {
		if (i % TMEM_NEAR_GROUP == 0)
			near_stores(client, id, &io[i], nr - i, hashes);
		io[i].result =
			tmem_page_store(client, id, &io[i],
					hashes[i % TMEM_NEAR_GROUP], scratch);
	}
	tmem_scratch_release(scratch);
	return 0;
}

static int load_pages(void *self, tmem_pool_id id, struct tmem_io *io,
		      unsigned nr)
{
	const struct tmem_client *client = tmem_client_of(self);
	unsigned i;

	if (!tmem_pool_of(client, id))
		return no_pool(io, nr);
	for (i = 0; i < nr; i++) {
		if (i % TMEM_NEAR_GROUP == 0)
			near_pages(client, id, &io[i], nr - i, TMEM_NEAR_LOAD);
		io[i].result = tmem_page_load(client, id, &io[i]);
	}
	return 0;
}

static int invalidate_pages(void *self, tmem_pool_id id, struct tmem_io *io,
			    unsigned nr)
{
	const struct tmem_client *client = tmem_client_of(self);
	unsigned i;

	if (!tmem_pool_of(client, id))
		return no_pool(io, nr);
	for (i = 0; i < nr; i++) {
		if (i % TMEM_NEAR_GROUP == 0)
			near_pages(client, id, &io[i], nr - i,
				   TMEM_NEAR_INVALIDATE);
		io[i].result = tmem_page_invalidate(client, id, &io[i]);
	}
	return 0;
}

static int invalidate_object(void *self, tmem_pool_id id,
			     struct tmem_object_id object, uint64_t *ret_pages)
{
	const struct tmem_client *client = tmem_client_of(self);

	if (!tmem_pool_of(client, id))
		return -ENOENT;
	*ret_pages = tmem_page_invalidate_object(client, id, &object);
	return 0;
}

static int stats(void *self, struct tmem_stats *ret_stats)
{
	tmem_store_stats(tmem_client_of(self)->store, ret_stats);
	return 0;
}

/* Everything but the memory that may be refused. */
static void init(struct tmem_store *store, uint32_t nr_shards)
{
	uint32_t i;

	store->magic = STORE_MAGIC;
	store->nr_shards = nr_shards;
	store->sweep.worth_part = TMEM_SWEEP_WORTH;
	tmem_lock_init(&store->control, TMEM_RANK_STORE);
	tmem_meta_init(&store->meta, &store->account);
	tmem_records_init(&store->objects, &store->meta,
			  sizeof(struct tmem_object));
	tmem_records_init(&store->clients, &store->meta,
			  sizeof(struct tmem_client));
	tmem_arena_init(&store->arena, &store->meta, &store->account);
	for (i = 0; i < TMEM_MAX_SCRATCHES; i++)
		tmem_lock_init(&store->scratches[i].lock, TMEM_RANK_SCRATCH);
	for (i = 0; i < nr_shards; i++) {
		tmem_lock_init(&store->shards[i].lock, TMEM_RANK_SHARD);
		tmem_index_init(&store->shards[i].index, tmem_near_hashes,
				store);
	}
}

static struct tmem_quiet *map_quiet(void)
{
	struct tmem_quiet *quiet = tmem_map->map(4096, 4096);

	if (quiet && tmem_sys_madvise(quiet, 4096, MADV_WIPEONFORK) < 0) {
		tmem_map->unmap(quiet, 4096);
		quiet = NULL;
	}
	return quiet;
}

/* The image of a restartable store; it knows better how many shards. */
static int open_image(const struct tmem_store_options *options, uint64_t max,
		      struct tmem_image *image, uint32_t *nr_shards)
{
	int r;

	*image = (struct tmem_image){ .fd = -1 };
	if (!options->arena_fd)
		return 0;
	r = tmem_image_open(image, *options->arena_fd, max, *nr_shards);
	if (r == 0)
		*nr_shards = image->nr_shards;
	return r;
}

/* The struct, in memory of its own; the image is the store's then. */
static struct tmem_store *map_store(const struct tmem_image *image,
				    uint32_t nr_shards)
{
	size_t image_bytes = image->fd < 0 ? 0 : sizeof(*image);
	struct tmem_store *store;
	size_t bytes;

	bytes = sizeof(*store) + nr_shards * sizeof(struct tmem_shard);
	bytes = (bytes + image_bytes + 4095) & ~(size_t)4095;
	store = tmem_map->map(bytes, 4096);
	if (!store)
		return NULL;
	init(store, nr_shards);
	store->mapped_bytes = bytes;
	store->fixed_bytes = bytes + 4096;
	if (image_bytes) {
		store->image = (struct tmem_image *)&store->shards[nr_shards];
		*store->image = *image;
		store->arena.pages.image = store->image;
		store->fixed_bytes += tmem_image_private_bytes(image) + 4096;
	}
	store->account.held_bytes = store->fixed_bytes;
	return store;
}

static void set_options(struct tmem_store *store,
			const struct tmem_store_options *options, uint64_t max)
{
	store->max_limit_bytes = max;
	store->no_raw = options->no_raw != 0;
	store->cool_after_ns = options->cool_after_ns;
	store->marks_cold = options->cool_after_ns != 0;
	tmem_dedup_init(store, !options->no_dedup);
	store->dict_every_ns = options->dict_every_ns;
	store->work.percent = options->maintain_percent;
	if (options->cool_after_ns || options->dict_every_ns ||
	    options->arena_fd)
		tmem_codecs_check();
	store->account.limit_bytes = options->limit_bytes;
}

/* What the store begins with, and what its image has: 1 as tmem_recover(). */
static int fill(struct tmem_store *store,
		const struct tmem_store_options *options)
{
	int r, missing = 0;

	store->quiet = map_quiet();
	if (!store->quiet || !tmem_scratch_make(store, &store->scratches[0]))
		return -ENOMEM;
	r = tmem_tiering_open(store, options);
	if (r == 0 && store->image)
		r = tmem_image_begin(store->image);
	if (r == 0 && store->image)
		r = tmem_tiering_label(store);
	if (r == 0 && store->image)
		r = missing = tmem_recover(store);
	if (r >= 0)
		r = tmem_client_init_default(store);
	return r < 0 ? r : missing;
}

static void close_store(struct tmem_store *store, bool clean)
{
	struct tmem_image image = { .fd = -1 };

	tmem_tiering_fini(store);
	store->magic = 0;
	if (store->image) {
		tmem_lock_acquire(&store->control);
		tmem_sweep_fini(store);
		tmem_lock_release(&store->control);
	}
	if (store->image)
		image = *store->image;
	tmem_unzip_fini(store);
	tmem_learn_fini(store);
	tmem_arena_fini(&store->arena);
	tmem_meta_fini(&store->meta);
	if (store->quiet)
		tmem_map->unmap(store->quiet, 4096);
	tmem_map->unmap(store, store->mapped_bytes);
	tmem_image_close(&image, clean);
}

int tmem_store_open(const struct tmem_store_options *options,
		    struct tmem_store **ret_store)
{
	uint64_t max = options->max_limit_bytes;
	uint32_t nr_shards = TMEM_FEW_SHARDS;
	struct tmem_store *store;
	struct tmem_image image;
	int r;

	if (!max)
		max = options->limit_bytes;
	if (options->limit_bytes < TMEM_STORE_MIN_BYTES ||
	    max < options->limit_bytes)
		return -EINVAL;
	if (max >= TMEM_MANY_SHARDS_BYTES)
		nr_shards = TMEM_MAX_SHARDS;
	r = open_image(options, max, &image, &nr_shards);
	if (r < 0)
		return r;
	store = map_store(&image, nr_shards);
	if (!store) {
		tmem_image_close(&image, false);
		return -ENOMEM;
	}
	set_options(store, options, max);
	r = fill(store, options);
	if (r < 0 || (r > 0 && !options->give_up_tiers)) {
		close_store(store, r > 0);
		return r < 0 ? r : -ENXIO;
	}
	*ret_store = store;
	return 0;
}

void tmem_store_close(struct tmem_store *store)
{
	if (!store)
		return;
	TMEM_ASSERT(store->magic == STORE_MAGIC);
	close_store(store, true);
}

int tmem_store_set_limit(struct tmem_store *store, uint64_t limit_bytes)
{
	if (limit_bytes < TMEM_STORE_MIN_BYTES ||
	    limit_bytes > store->max_limit_bytes)
		return -EINVAL;
	atomic_store_explicit(&store->account.limit_bytes, limit_bytes,
			      memory_order_relaxed);
	if (tmem_account_held(&store->account) <= limit_bytes)
		return 0;
	/* Not during a fork: then nothing may be written. */
	if (tmem_lock_acquire_unless_closed(&store->control)) {
		tmem_arena_trim(&store->arena);
		tmem_evict_to_limit(store);
		while (tmem_dedup_trim(store))
			;
		tmem_meta_trim(&store->meta);
		tmem_lock_release(&store->control);
	}
	return 0;
}

uint64_t tmem_store_held_bytes(const struct tmem_store *store)
{
	return tmem_account_held(&store->account);
}

void tmem_store_for_each_mapping(struct tmem_store *store,
				 void (*fn)(void *arg, void *start,
					    size_t bytes),
				 void *arg)
{
	fn(arg, store, store->mapped_bytes);
	fn(arg, store->quiet, 4096);
	tmem_unzip_for_each(store, fn, arg);
	if (store->tiering)
		fn(arg, store->tiering, store->tiering->map_bytes);
	if (tmem_lock_acquire_unless_closed(&store->control)) {
		tmem_learn_for_each(store, fn, arg);
		tmem_pages_for_each(&store->meta.pages, fn, arg);
		tmem_pages_for_each(&store->arena.pages, fn, arg);
		tmem_lock_release(&store->control);
	} else {
		tmem_learn_for_each(store, fn, arg);
		tmem_pages_for_each_quiet(&store->meta.pages, fn, arg);
		tmem_pages_for_each_quiet(&store->arena.pages, fn, arg);
	}
}

static const struct tmem_backend_ops store_backend = {
	.name = "store",
	.pool_create = pool_create,
	.pool_destroy = pool_destroy,
	.pool_clone = pool_clone,
	.store = store_pages,
	.load = load_pages,
	.invalidate = invalidate_pages,
	.invalidate_object = invalidate_object,
	.stats = stats,
};

struct tmem_backend tmem_store_backend(struct tmem_store *store)
{
	return tmem_client_backend(store->client);
}

struct tmem_backend tmem_client_backend(struct tmem_client *client)
{
	return (struct tmem_backend){ &store_backend, client };
}
