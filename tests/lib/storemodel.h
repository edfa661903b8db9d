/* SPDX-License-Identifier: MIT */
/*
 * The page store beside an oracle: what the model test, the fault loops and
 * the fuzzer share.
 *
 * The oracle is an array of cells, one for each (pool, object, index) of a
 * small key space: which page is there, or none.  Each step draws what it
 * does from a source of numbers (a generator, or a fuzzer's bytes), does it to
 * the store and to the array, and compares results, contents and counts.
 */
#ifndef STOREMODEL_H
#define STOREMODEL_H

#include <stdint.h>

#include <tmem/store.h>

struct storemodel;
struct testtier;

/* The next number; at the end of a fuzzer's bytes, zeroes. */
typedef uint32_t storemodel_draw(void *arg);

struct storemodel_options {
	uint64_t limit_bytes;
	uint64_t max_limit_bytes;
	int no_raw;
	storemodel_draw *draw;
	void *arg;
	int restartable; /* opened again now and then; no forks */
	/* Attached (the store's from then on), its moods drawn; or NULL. */
	struct testtier *tier;
};

/* NULL if the store could not be opened: mappings fail. */
struct storemodel *storemodel_open(const struct storemodel_options *options);
void storemodel_close(struct storemodel *m);

/* One operation, compared with the oracle. */
void storemodel_step(struct storemodel *m);
/* Every page of the oracle is there and no other; the store's invariants. */
void storemodel_check(struct storemodel *m);

struct tmem_store *storemodel_store(struct storemodel *m);

/* The content of page `tag`: same-filled, more or less compressible, random. */
void storemodel_fill(void *page, uint64_t tag);

/*
 * The map seam (arena/map.h), counted.  The n-th mapping from now on fails
 * (1: the next), and if `sticky` all after it; 0: none.
 */
void storemodel_maps_arm(unsigned long n, int sticky);
unsigned long storemodel_maps_struck(void);
/* Bytes mapped now. */
uint64_t storemodel_maps_bytes(void);

#endif
