/* SPDX-License-Identifier: MIT */
/*
 * Names and results that every part of tmem shares.
 *
 * The model: a *pool* holds *objects*, an object holds *pages* by *index*.
 * A page is 4 KiB, copied in by `store` and copied out by `load`; nobody
 * ever gets a pointer to a stored page.  (The papers on transcendent memory
 * say put, get and flush for store, load and invalidate.)
 *
 * THE PROMISE: after a store returns, whatever it returned, a load of that
 * key yields the new page or a miss: never an older page, never another's
 * page, never zeros for a page that was lost.
 *
 * Results: 0; a positive value of enum tmem_result is an answer that the
 * caller must handle; a negative errno is a fault.
 */
#ifndef TMEM_TMEM_H
#define TMEM_TMEM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TMEM_API __attribute__((visibility("default")))

#define TMEM_PAGE_SIZE 4096u

/* Answers.  Neither is an error: every caller has another way. */
enum tmem_result {
	TMEM_MISS = 1,	  /* nothing is stored under that key */
	TMEM_REFUSED = 2, /* not accepted; nothing is stored under that key */
	TMEM_PRIVATE = 3  /* the pool was made, but it is not shared */
};

/* 192-bit object id, word[2] the most significant. */
struct tmem_object_id {
	uint64_t word[3];
};

/* A pool's number within its backend. */
typedef uint32_t tmem_pool_id;

enum tmem_pool_flags {
	/* Pages may vanish at any moment; else the pool is persistent. */
	TMEM_POOL_EPHEMERAL = 1,
	/* Joined by its UUID, by who is authorised to; ephemeral only. */
	TMEM_POOL_SHARED = 2
};

struct tmem_pool_options {
	uint32_t flags;	  /* enum tmem_pool_flags */
	uint64_t uuid[2]; /* of a shared pool */
};

/*
 * One page of a vector operation.  `page` points to TMEM_PAGE_SIZE bytes,
 * read by store, written by load, unused by invalidate.  It need not be
 * aligned.  `result` is written for each element: 0, TMEM_MISS,
 * TMEM_REFUSED, or a negative errno (-EIO: the stored copy is damaged).
 */
struct tmem_io {
	struct tmem_object_id object;
	uint32_t index;
	int32_t result;
	void *page;
};

#ifdef __cplusplus
}
#endif
#endif
