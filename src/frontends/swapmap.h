/* SPDX-License-Identifier: MIT */
/*
 * The slot map of a swap file, as its users see it: swapmap.c says how it
 * works and what holds when a user is killed.
 *
 * Threads: one struct is used by one thread at a time; processes need no
 * lock among each other.
 */
#ifndef TMEM_FRONTENDS_SWAPMAP_H
#define TMEM_FRONTENDS_SWAPMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	TMEM_SWAPMAP_CHUNK = 256, /* slots that are allocated from in a row */
	TMEM_SWAPMAP_NOBODY = 0x3fff /* a user number that refers to nothing */
};

struct tmem_seal_key;
struct tmem_swapmap_header;

struct tmem_swapmap {
	struct tmem_swapmap_header *header;
	_Atomic uint64_t *full; /* a bit per chunk: nothing free, it seems */
	_Atomic uint16_t *refs; /* a word per slot */
	_Atomic uint64_t *bits; /* own references, a bit per slot */
	size_t map_bytes;	/* header, full and refs: one mapping */
	size_t bits_bytes;
	uint64_t capacity; /* slots */
	unsigned user;
	/* Where the next slot is looked for. */
	uint64_t next;
	uint64_t chunk_end;
};

/* Maps it for `user`, or for TMEM_SWAPMAP_NOBODY.  0 or -errno. */
int tmem_swapmap_open(struct tmem_swapmap *map, int fd, unsigned user);
void tmem_swapmap_close(struct tmem_swapmap *map);
/* After a fork: the mapping goes on, for another user.  0 or -errno. */
int tmem_swapmap_become(struct tmem_swapmap *map, int fd, unsigned user);

/* The key of the file's pages: secret.  And another one, for tests. */
void tmem_swapmap_get_key(const struct tmem_swapmap *map,
			  struct tmem_seal_key *ret_key);
int tmem_swapmap_set_key(int fd, const struct tmem_seal_key *key);
/*
 * The first of `nr` numbers that nobody has had, nor will, as long as the map
 * lives: for nonces.
 */
uint64_t tmem_swapmap_draw_numbers(struct tmem_swapmap *map, unsigned nr);

/* A free slot in *ret_slot, for a write that is about to begin, or -ENOSPC. */
int tmem_swapmap_alloc(struct tmem_swapmap *map, uint32_t *ret_slot);
/* The write into an allocated slot has ended: well or not. */
void tmem_swapmap_written(struct tmem_swapmap *map, uint32_t slot);
/* Drops the own reference to a slot that is written. */
void tmem_swapmap_drop(struct tmem_swapmap *map, uint32_t slot);
/* Drops all own references. */
void tmem_swapmap_drop_all(struct tmem_swapmap *map);
/* Gives `child` a reference to every slot that this user refers to. */
int tmem_swapmap_share(struct tmem_swapmap *map, int fd, unsigned child);

/* Less than half of the limit is in use. */
bool tmem_swapmap_is_roomy(const struct tmem_swapmap *map);
int tmem_swapmap_has(const struct tmem_swapmap *map, uint32_t slot);
uint64_t tmem_swapmap_count_own(const struct tmem_swapmap *map);

#endif
