/* SPDX-License-Identifier: MIT */
/*
 * The index of one shard: hash to 32-bit reference.
 *
 * Extendible hashing.  A *segment* is one page of 64 buckets, a bucket one
 * cache line of ten entries.  A directory of 2^depth pointers, indexed by the
 * top bits of the hash's 21-bit tag, says which segment; a segment of local
 * depth d is pointed at by 2^(depth - d) neighbours.  A full segment splits
 * in two: one page is touched, nothing else moves.  Two buddies that are
 * nearly empty merge.  So growing and shrinking are steps of a few
 * microseconds, and the memory follows the number of entries: tags are skewed
 * (base/hash.h), so at any number of entries some segments have just split
 * and others are about to, in all shards, and an entry costs 10.5 to 11 bytes.
 *
 * An entry is 13 bits of the tag and a reference.  3 more bits say how far
 * the entry lies from its home bucket (linear probing, 8 buckets at the
 * most), so an entry tells its home bucket and its directory bits without a
 * look at what it refers to.  A bucket counts the entries that passed it by
 * because it was full: a search goes on while that is not zero.
 *
 * Which 13 bits: a *window* that moves down the tag by 4 bits with every
 * fourth doubling.  The bits above it are those of the segment's place in the
 * directory, so they are known; of those within it at least 8 tell the
 * segment's entries apart, however many there are, and hardly any reference is
 * looked at in vain.  (Each such look costs two misses in a large store.)  A
 * segment whose window moves down asks for the hashes of its entries again.
 *
 * What a reference means, and whether it is the one looked for, is the
 * caller's: references with equal tags are put to its match function.
 *
 * The lock is the shard's.
 *
 *   X1  Every entry is found from its hash's home bucket.
 *   X2  `passed` of a bucket is the number of entries that were put beyond it.
 *   X3  A segment's count is the number of its entries, and its local depth
 *       tells which directory slots point to it.
 *   X4  nr_entries is the sum; nr_deepest the segments of local depth ==
 *       depth; an empty index has no segment.
 */
#ifndef TMEM_CORE_INDEX_H
#define TMEM_CORE_INDEX_H

#include "arena/meta.h"
#include "base/hash.h"

enum {
	TMEM_BUCKET_ENTRIES = 10,
	TMEM_SEGMENT_BUCKETS = 64,
	TMEM_INDEX_WINDOW_BITS = 13,
	TMEM_INDEX_TAG_BITS = 21,
	TMEM_INDEX_MAX_DEPTH = 13,
	TMEM_SEGMENT_PARTS = 8,
	TMEM_SEGMENT_PARTS_MAX = 16,
	TMEM_INDEX_HOME_BITS = 6,
	TMEM_INDEX_NAME_BITS = 22,
	TMEM_INDEX_INLINE_DEPTH = 2
};

struct tmem_bucket {
	uint16_t tags[TMEM_BUCKET_ENTRIES];
	uint32_t refs[TMEM_BUCKET_ENTRIES]; /* 0: free */
	uint8_t passed;
	uint8_t depth;	/* the segment's; in each bucket */
	uint16_t count; /* the segment's; in bucket 0 */
};
_Static_assert(sizeof(struct tmem_bucket) == 64, "a cache line");

struct tmem_segment {
	struct tmem_bucket buckets[TMEM_SEGMENT_BUCKETS];
};
_Static_assert(sizeof(struct tmem_segment) == 4096, "a page");

/* The hashes of what nr references (of one bucket) stand for. */
typedef void tmem_index_hashes(void *arg, const uint32_t *refs, unsigned nr,
			       uint64_t *ret_hashes);

struct tmem_index {
	struct tmem_segment **dirs;
	tmem_index_hashes *hashes;
	void *arg;
	uint32_t depth;
	uint32_t nr_deepest;
	uint64_t nr_entries;
	struct tmem_segment *inline_dirs[1 << TMEM_INDEX_INLINE_DEPTH];
};

/* A hash's tag: where it lies in the order of tmem_index_visit().  Skewed. */
static inline uint32_t tmem_index_pos(uint64_t hash)
{
	return tmem_hash_skew(hash >> 6 & ((1u << TMEM_INDEX_TAG_BITS) - 1),
			      TMEM_INDEX_TAG_BITS);
}

/* The part of a hash that tmem_index_find_name() needs. */
static inline uint32_t tmem_index_name(uint64_t hash)
{
	const unsigned left_out = TMEM_INDEX_HOME_BITS + TMEM_INDEX_TAG_BITS -
				  TMEM_INDEX_NAME_BITS;

	return tmem_index_pos(hash) >> left_out << TMEM_INDEX_HOME_BITS |
	       (uint32_t)(hash & (TMEM_SEGMENT_BUCKETS - 1));
}

typedef bool tmem_index_match(void *arg, uint32_t ref);

void tmem_index_init(struct tmem_index *index, tmem_index_hashes *hashes,
		     void *arg);

/* Where the matching reference is, to be read or overwritten; or NULL. */
uint32_t *tmem_index_find(const struct tmem_index *index, uint64_t hash,
			  tmem_index_match *match, void *arg);

/* The same by the name of a hash; more references are put to `match`. */
uint32_t *tmem_index_find_name(const struct tmem_index *index, uint32_t name,
			       tmem_index_match *match, void *arg);

/* The bucket where a search for that hash begins, to be prefetched. */
const void *tmem_index_home(const struct tmem_index *index, uint64_t hash);

/* The first reference that a search would ask about, unasked; 0: none. */
uint32_t tmem_index_guess(const struct tmem_index *index, uint64_t hash);

/*
 * fn(arg, ref) for each entry of one segment, the one at *pos (0 at first);
 * *pos moves on to the next.  False if that was the last.  Between calls
 * entries may come and go, and segments split and merge.
 */
bool tmem_index_visit(const struct tmem_index *index, uint32_t *pos,
		      void (*fn)(void *arg, uint32_t ref), void *arg);

/*
 * The same for about one of so many parts (a power of two, at most
 * TMEM_SEGMENT_PARTS_MAX) of a segment, and only for entries that lie there: no
 * entry is met twice, and none that is there all the time is left out,
 * whatever splits and merges.
 */
bool tmem_index_visit_part(const struct tmem_index *index, uint32_t *pos,
			   unsigned parts, void (*fn)(void *arg, uint32_t ref),
			   void *arg);

/* False if there is no memory for it (or no room, under a hostile hash). */
bool tmem_index_insert(struct tmem_index *index, struct tmem_meta *meta,
		       uint64_t hash, uint32_t ref);
/* It must be there. */
void tmem_index_remove(struct tmem_index *index, struct tmem_meta *meta,
		       uint64_t hash, uint32_t ref);

/* Walks X1-X4; fn(arg, ref) returns the hash that an entry should have. */
void tmem_index_check(const struct tmem_index *index,
		      uint64_t (*fn)(void *arg, uint32_t ref), void *arg);

#endif
