/* SPDX-License-Identifier: MIT */
/*
 * Caches that evict_bench compares.  They hold page numbers only, and count
 * in pages.
 *
 * Two ways to use one.  An ordinary cache: get; after a miss, put.  A victim
 * cache, as cleancache is: put what another cache in front of it has evicted;
 * take (an exclusive load: a hit removes the page) when that one misses.
 *
 * FIFO, LRU, CLOCK and SIEVE are in evict_policy.c, S3-FIFO in evict_s3.c, the
 * optimum, which must know the future, in evict_opt.c.
 */
#ifndef EVICT_POLICY_H
#define EVICT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum evict_kind {
	EVICT_FIFO,
	EVICT_LRU,
	EVICT_CLOCK,
	EVICT_SIEVE,
	EVICT_S3
};

/* What S3-FIFO remembers of a page that was taken. */
enum evict_taken {
	EVICT_FORGET, /* nothing: if it is put again, it is a new page */
	EVICT_NOTE,   /* noted in the ghost: put again, it goes to main */
	EVICT_COUNT   /* and how often that has happened, up to 3 times */
};

/* Which shard and pool must give up a page, and from which of its lists. */
enum evict_spread {
	/* Small or main is decided for all, then each in turn gives up pages
	   by what it has of that list. */
	EVICT_TURN,
	/* Each in turn by all that it has, and decides by itself. */
	EVICT_EACH,
	/* The one that gets a page. */
	EVICT_OWN
};

struct evict_rules {
	const char *name;
	enum evict_kind kind;
	/* The rest is for S3-FIFO. */
	unsigned small_percent; /* of the cache */
	unsigned promote;	/* hits in small that lead to main */
	unsigned ghost_percent; /* of the cache */
	unsigned table_percent; /* entries of the ghost table by ghost pages;
				   0: an exact ghost */
	unsigned nr_shards;	/* 0: 1 */
	bool two_pools;
	uint32_t second_pool; /* then its first key; evict_run() sets it */
	enum evict_spread spread;
	unsigned max_moves; /* of pages from tail to head for one eviction;
			       0: any number */
	enum evict_taken taken;
	unsigned adapt; /* looks at small's part that many times while as many
			   pages are evicted as there are; 0: never */
};

struct evict_cache;

/* Ends the program if there is no memory.  Keys are below nr_keys. */
struct evict_cache *evict_cache_create(const struct evict_rules *rules,
				       uint32_t nr_keys, uint32_t capacity);
void evict_cache_destroy(struct evict_cache *cache);
/* True: a hit, which the policy notes. */
bool evict_cache_get(struct evict_cache *cache, uint32_t key);
/* True: a hit; the page is there no more. */
bool evict_cache_take(struct evict_cache *cache, uint32_t key);
/* A page that is not there; evicts one if the cache is full. */
void evict_cache_put(struct evict_cache *cache, uint32_t key);

/* S3-FIFO, in evict_s3.c. */
struct evict_s3;
struct evict_s3 *evict_s3_create(const struct evict_rules *rules,
				 uint32_t nr_keys, uint32_t capacity);
void evict_s3_destroy(struct evict_s3 *s3);
bool evict_s3_get(struct evict_s3 *s3, uint32_t key);
bool evict_s3_take(struct evict_s3 *s3, uint32_t key);
void evict_s3_put(struct evict_s3 *s3, uint32_t key);

/* What happens to a cache, in order. */
enum evict_what {
	EVICT_GET,
	EVICT_TAKE,
	EVICT_PUT
};

struct evict_stream {
	uint32_t *keys;
	uint8_t *what; /* NULL: all EVICT_GET, and a put after a miss */
	uint32_t nr;
	uint32_t nr_keys;
	uint32_t second_pool; /* its first key */
	uint32_t asked;	      /* GETs or TAKEs */
};

/*
 * What a victim cache behind an LRU cache of `front` pages gets to see of
 * these requests; free its keys and what.
 */
void evict_stream_behind(const struct evict_stream *requests, uint32_t front,
			 struct evict_stream *ret_stream);
/* Hits of a cache of this size. */
uint32_t evict_run(const struct evict_stream *stream,
		   const struct evict_rules *rules, uint32_t capacity);
/* Hits of the best choice there is, which may be not to keep a page at all. */
uint32_t evict_optimum(const struct evict_stream *stream, uint32_t capacity);

#endif
