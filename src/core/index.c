/* SPDX-License-Identifier: MIT */
/* The index of a shard; the model is in index.h. */
#include "index.h"

#include <string.h>

#include "base/hash.h"

enum {
	PROBES = 8, /* 3 bits of an entry's tag */
	PROBE_BITS = 3,
	BUCKET_MASK = TMEM_SEGMENT_BUCKETS - 1,
	WINDOW_MASK = (1 << TMEM_INDEX_WINDOW_BITS) - 1,
	WINDOW_STEP = 4,
	/* Merge below this, split at about 550: far enough apart. */
	MERGE_COUNT = 256
};

static unsigned home_of(uint64_t hash)
{
	return hash & BUCKET_MASK;
}

static unsigned tag_of(uint64_t hash)
{
	return tmem_index_pos(hash);
}

static size_t dir_of(const struct tmem_index *index, unsigned tag)
{
	return tag >> (TMEM_INDEX_TAG_BITS - index->depth);
}

/* The tag's bits above the window of a segment of that depth. */
static unsigned above(unsigned depth)
{
	return depth < 6 ? 0 : (depth - 2) / WINDOW_STEP * WINDOW_STEP;
}

/* What of a tag such a segment's entries have. */
static unsigned window(unsigned tag, unsigned depth)
{
	unsigned below =
		TMEM_INDEX_TAG_BITS - TMEM_INDEX_WINDOW_BITS - above(depth);

	return tag >> below & WINDOW_MASK;
}

static unsigned depth_of(const struct tmem_segment *segment)
{
	return segment->buckets[0].depth;
}

static unsigned count_of(const struct tmem_segment *segment)
{
	return segment->buckets[0].count;
}

static void set_depth(struct tmem_segment *segment, unsigned depth)
{
	unsigned b;

	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		segment->buckets[b].depth = (uint8_t)depth;
}

/*
 * Bit nr `depth` of the tag, which tells the halves of a segment of that depth
 * apart; from an entry of a segment of depth `at`.
 */
static bool upper_half(unsigned windowed, unsigned depth, unsigned at)
{
	unsigned bit = TMEM_INDEX_WINDOW_BITS - 1 - (depth - above(at));

	return windowed >> bit & 1;
}

/* Adds `by` to the counts of the buckets that an entry passed. */
static void pass(struct tmem_segment *segment, unsigned home, unsigned probe,
		 int by)
{
	unsigned i;

	for (i = 0; i < probe; i++) {
		struct tmem_bucket *bucket;

		bucket = &segment->buckets[(home + i) & BUCKET_MASK];
		bucket->passed = (uint8_t)(bucket->passed + by);
	}
}

/* Puts an entry at a free place that is known. */
static void put_at(struct tmem_segment *segment, unsigned b, unsigned i,
		   uint16_t tagged, uint32_t ref)
{
	unsigned probe = tagged & (PROBES - 1);

	segment->buckets[b].tags[i] = tagged;
	segment->buckets[b].refs[i] = ref;
	segment->buckets[0].count++;
	pass(segment, b - probe, probe, 1);
}

static void clear_at(struct tmem_segment *segment, unsigned b, unsigned i)
{
	unsigned probe = segment->buckets[b].tags[i] & (PROBES - 1);

	segment->buckets[b].refs[i] = 0;
	segment->buckets[0].count--;
	pass(segment, b - probe, probe, -1);
}

/* False if the home bucket and its followers are full. */
static bool put(struct tmem_segment *segment, unsigned home, unsigned windowed,
		uint32_t ref)
{
	unsigned probe, i;

	for (probe = 0; probe < PROBES; probe++) {
		unsigned b = (home + probe) & BUCKET_MASK;

		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++)
			if (!segment->buckets[b].refs[i]) {
				put_at(segment, b, i,
				       (uint16_t)(windowed << PROBE_BITS |
						  probe),
				       ref);
				return true;
			}
	}
	return false;
}

/* The directory. */

static unsigned dir_pages(unsigned depth)
{
	if (depth <= TMEM_INDEX_INLINE_DEPTH)
		return 0;
	return (unsigned)(((sizeof(void *) << depth) + 4095) / 4096);
}

static bool double_dirs(struct tmem_index *index, struct tmem_meta *meta)
{
	size_t i, nr = (size_t)1 << index->depth;
	unsigned pages = dir_pages(index->depth + 1);
	struct tmem_segment **old = index->dirs, **dirs = old;

	/* Within a page, or inline, it doubles where it is. */
	if (pages != dir_pages(index->depth))
		dirs = tmem_meta_alloc(meta, pages);
	if (!dirs)
		return false;
	for (i = nr; i-- > 0;)
		dirs[2 * i] = dirs[2 * i + 1] = old[i];
	if (dirs != old && dir_pages(index->depth))
		tmem_meta_free(meta, old, dir_pages(index->depth));
	index->dirs = dirs;
	index->depth++;
	index->nr_deepest = 0;
	return true;
}

static void halve_dirs(struct tmem_index *index, struct tmem_meta *meta)
{
	size_t i, nr = (size_t)1 << (index->depth - 1);
	unsigned old_pages = dir_pages(index->depth);
	unsigned pages = dir_pages(index->depth - 1);
	struct tmem_segment **dirs = pages ? index->dirs : index->inline_dirs;

	for (i = 0; i < nr; i++)
		dirs[i] = index->dirs[2 * i];
	if (old_pages > pages)
		tmem_meta_free(meta, (char *)index->dirs + pages * 4096ul,
			       old_pages - pages);
	index->dirs = dirs;
	index->depth--;
	index->nr_deepest = 0;
	for (i = 0; i < nr; i++)
		index->nr_deepest += depth_of(dirs[i]) == index->depth;
}

/* Points the directory slots of `segment` (its depth and tag) to it. */
static void point_at(struct tmem_index *index, struct tmem_segment *segment,
		     unsigned tag)
{
	size_t span = (size_t)1 << (index->depth - depth_of(segment));
	size_t first = dir_of(index, tag) & ~(span - 1), i;

	for (i = 0; i < span; i++)
		index->dirs[first + i] = segment;
}

/* Splitting and merging. */

static void move_upper_half(struct tmem_segment *from, struct tmem_segment *to)
{
	unsigned depth = depth_of(from), b, i;

	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++) {
			struct tmem_bucket *bucket = &from->buckets[b];

			if (!bucket->refs[i] ||
			    !upper_half(bucket->tags[i] >> PROBE_BITS, depth,
					depth))
				continue;
			put_at(to, b, i, bucket->tags[i], bucket->refs[i]);
			clear_at(from, b, i);
		}
}

/* The window has moved down: the entries' tags anew, from their hashes. */
static void move_window_down(const struct tmem_index *index,
			     struct tmem_segment *segment)
{
	unsigned depth = depth_of(segment), b, i, k, nr;
	uint32_t refs[TMEM_BUCKET_ENTRIES];
	uint64_t hashes[TMEM_BUCKET_ENTRIES];

	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++) {
		struct tmem_bucket *bucket = &segment->buckets[b];

		for (i = nr = 0; i < TMEM_BUCKET_ENTRIES; i++)
			if (bucket->refs[i])
				refs[nr++] = bucket->refs[i];
		index->hashes(index->arg, refs, nr, hashes);
		for (i = k = 0; i < TMEM_BUCKET_ENTRIES; i++) {
			unsigned probe = bucket->tags[i] & (PROBES - 1);

			if (bucket->refs[i])
				bucket->tags[i] =
					(uint16_t)(window(tag_of(hashes[k++]),
							  depth)
							   << PROBE_BITS |
						   probe);
		}
	}
}

/* The window has moved up: the bits that come in are known from a tag. */
static void move_window_up(struct tmem_segment *segment, unsigned tag)
{
	unsigned known = window(tag, depth_of(segment)), b, i;

	known &= WINDOW_MASK & ~(WINDOW_MASK >> WINDOW_STEP);
	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++) {
			uint16_t *tagged = &segment->buckets[b].tags[i];
			unsigned windowed = *tagged >> PROBE_BITS;

			windowed = known | windowed >> WINDOW_STEP;
			*tagged = (uint16_t)(windowed << PROBE_BITS |
					     (*tagged & (PROBES - 1)));
		}
}

static bool split(struct tmem_index *index, struct tmem_meta *meta,
		  struct tmem_segment *segment, unsigned tag)
{
	unsigned depth = depth_of(segment);
	struct tmem_segment *upper;

	if (depth == TMEM_INDEX_MAX_DEPTH)
		return false;
	upper = tmem_meta_alloc(meta, 1);
	if (!upper)
		return false;
	if (depth == index->depth && !double_dirs(index, meta)) {
		tmem_meta_free(meta, upper, 1);
		return false;
	}
	move_upper_half(segment, upper);
	set_depth(segment, depth + 1);
	set_depth(upper, depth + 1);
	if (above(depth + 1) != above(depth)) {
		move_window_down(index, segment);
		move_window_down(index, upper);
	}
	if (depth + 1 == index->depth)
		index->nr_deepest += 2;
	point_at(index, upper, tag | 1u << (TMEM_INDEX_TAG_BITS - 1 - depth));
	return true;
}

/* All of `from` into `to`; if they do not fit, nothing. */
static bool move_all(struct tmem_segment *from, struct tmem_segment *to,
		     bool from_is_upper)
{
	unsigned depth = depth_of(to), b, i;

	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++) {
			unsigned tagged = from->buckets[b].tags[i];
			unsigned probe = tagged & (PROBES - 1);

			if (from->buckets[b].refs[i] &&
			    !put(to, (b - probe) & BUCKET_MASK,
				 tagged >> PROBE_BITS,
				 from->buckets[b].refs[i]))
				goto undo;
		}
	return true;
undo:
	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++)
			if (to->buckets[b].refs[i] &&
			    upper_half(to->buckets[b].tags[i] >> PROBE_BITS,
				       depth - 1, depth) == from_is_upper)
				clear_at(to, b, i);
	return false;
}

/* Merges the segment of that tag with its buddy if both are nearly empty. */
static bool merge(struct tmem_index *index, struct tmem_meta *meta,
		  unsigned tag)
{
	struct tmem_segment *segment = index->dirs[dir_of(index, tag)], *buddy;
	unsigned depth = depth_of(segment), bit;

	if (!depth || count_of(segment) > MERGE_COUNT / 2)
		return false;
	bit = 1u << (TMEM_INDEX_TAG_BITS - depth);
	buddy = index->dirs[dir_of(index, tag ^ bit)];
	if (depth_of(buddy) != depth ||
	    count_of(segment) + count_of(buddy) > MERGE_COUNT)
		return false;
	if (!move_all(buddy, segment, !(tag & bit)))
		return false;
	if (depth == index->depth)
		index->nr_deepest -= 2;
	set_depth(segment, depth - 1);
	if (above(depth - 1) != above(depth))
		move_window_up(segment, tag);
	point_at(index, segment, tag);
	tmem_meta_free(meta, buddy, 1);
	while (index->depth && !index->nr_deepest)
		halve_dirs(index, meta);
	return true;
}

void tmem_index_init(struct tmem_index *index, tmem_index_hashes *hashes,
		     void *arg)
{
	*index = (struct tmem_index){ .hashes = hashes, .arg = arg };
	index->dirs = index->inline_dirs;
}

const void *tmem_index_home(const struct tmem_index *index, uint64_t hash)
{
	const struct tmem_segment *segment;

	segment = index->dirs[dir_of(index, tag_of(hash))];
	return segment ? &segment->buckets[home_of(hash)] : NULL;
}

struct search {
	unsigned tag;
	unsigned home;
	unsigned unknown; /* bits of the tag, the lowest */
};

static inline uint32_t *find(const struct tmem_index *index,
			     const struct search *s, tmem_index_match *match,
			     void *arg)
{
	struct tmem_segment *segment = index->dirs[dir_of(index, s->tag)];
	unsigned probe, i;

	if (!segment)
		return NULL;
	for (probe = 0; probe < PROBES; probe++) {
		struct tmem_bucket *bucket;
		uint16_t want, mask;

		bucket = &segment->buckets[(s->home + probe) & BUCKET_MASK];
		want = (uint16_t)(window(s->tag, bucket->depth) << PROBE_BITS |
				  probe);
		mask = (uint16_t) ~(
			window((1u << s->unknown) - 1, bucket->depth)
			<< PROBE_BITS);
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++)
			if ((bucket->tags[i] & mask) == want &&
			    bucket->refs[i] && match(arg, bucket->refs[i]))
				return &bucket->refs[i];
		if (!bucket->passed)
			break;
	}
	return NULL;
}

uint32_t *tmem_index_find(const struct tmem_index *index, uint64_t hash,
			  tmem_index_match *match, void *arg)
{
	const struct search s = { tag_of(hash), home_of(hash), 0 };

	return find(index, &s, match, arg);
}

uint32_t *tmem_index_find_name(const struct tmem_index *index, uint32_t name,
			       tmem_index_match *match, void *arg)
{
	const unsigned unknown = TMEM_INDEX_HOME_BITS + TMEM_INDEX_TAG_BITS -
				 TMEM_INDEX_NAME_BITS;
	const struct search s = { name >> TMEM_INDEX_HOME_BITS << unknown,
				  name & BUCKET_MASK, unknown };

	return find(index, &s, match, arg);
}

static bool is_any(void *arg, uint32_t ref)
{
	(void)arg;
	return ref != 0;
}

uint32_t tmem_index_guess(const struct tmem_index *index, uint64_t hash)
{
	const uint32_t *entry = tmem_index_find(index, hash, is_any, NULL);

	return entry ? *entry : 0;
}

bool tmem_index_insert(struct tmem_index *index, struct tmem_meta *meta,
		       uint64_t hash, uint32_t ref)
{
	unsigned tag = tag_of(hash);
	struct tmem_segment *segment;

	if (!index->dirs[0]) {
		index->dirs[0] = tmem_meta_alloc(meta, 1);
		if (!index->dirs[0])
			return false;
		index->nr_deepest = 1;
	}
	for (;;) {
		segment = index->dirs[dir_of(index, tag)];
		if (put(segment, home_of(hash), window(tag, depth_of(segment)),
			ref)) {
			index->nr_entries++;
			return true;
		}
		if (!split(index, meta, segment, tag))
			return false;
	}
}

static bool is_ref(void *arg, uint32_t ref)
{
	const uint32_t *want = arg;

	return *want == ref;
}

void tmem_index_remove(struct tmem_index *index, struct tmem_meta *meta,
		       uint64_t hash, uint32_t ref)
{
	unsigned tag = tag_of(hash);
	struct tmem_segment *segment = index->dirs[dir_of(index, tag)];
	uint32_t *at = tmem_index_find(index, hash, is_ref, &ref);
	size_t offset;
	unsigned b, i;

	TMEM_ASSERT(at);
	offset = (size_t)((char *)at - (char *)segment);
	b = (unsigned)(offset / sizeof(struct tmem_bucket));
	i = (unsigned)(at - segment->buckets[b].refs);
	clear_at(segment, b, i);
	index->nr_entries--;
	while (merge(index, meta, tag))
		;
	segment = index->dirs[dir_of(index, tag)];
	if (!index->depth && !count_of(segment)) {
		tmem_meta_free(meta, segment, 1);
		index->dirs[0] = NULL;
		index->nr_deepest = 0;
	}
}

/* Checking. */

static void check_segment(const struct tmem_segment *segment, size_t prefix,
			  uint64_t (*fn)(void *arg, uint32_t ref), void *arg)
{
	unsigned passed[TMEM_SEGMENT_BUCKETS] = { 0 };
	unsigned depth = depth_of(segment), b, i, p, count = 0;

	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++) {
			const struct tmem_bucket *bucket;
			unsigned tagged, probe, tag, home;
			uint64_t hash;

			bucket = &segment->buckets[b];
			if (!bucket->refs[i])
				continue;
			tagged = bucket->tags[i];
			probe = tagged & (PROBES - 1);
			tag = tagged >> PROBE_BITS;
			home = (b - probe) & BUCKET_MASK;
			hash = fn(arg, bucket->refs[i]);
			TMEM_INVARIANT("X1", home == home_of(hash));
			TMEM_INVARIANT("X1",
				       tag == window(tag_of(hash), depth));
			TMEM_INVARIANT(
				"X3",
				tag_of(hash) >> (TMEM_INDEX_TAG_BITS - depth) ==
					prefix);
			for (p = 0; p < probe; p++)
				passed[(home + p) & BUCKET_MASK]++;
			count++;
		}
	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++) {
		TMEM_INVARIANT("X2", segment->buckets[b].passed == passed[b]);
		TMEM_INVARIANT("X3", segment->buckets[b].depth == depth);
	}
	TMEM_INVARIANT("X3", count == count_of(segment));
}

void tmem_index_check(const struct tmem_index *index,
		      uint64_t (*fn)(void *arg, uint32_t ref), void *arg)
{
	size_t i = 0, j, nr = (size_t)1 << index->depth;
	uint64_t entries = 0;
	uint32_t deepest = 0;

	TMEM_INVARIANT("X4", !index->dirs[0] == !index->nr_entries);
	while (index->dirs[0] && i < nr) {
		const struct tmem_segment *segment = index->dirs[i];
		unsigned shift = index->depth - depth_of(segment);

		TMEM_INVARIANT("X3", depth_of(segment) <= index->depth);
		TMEM_INVARIANT("X3", !(i & (((size_t)1 << shift) - 1)));
		for (j = 0; j < (size_t)1 << shift; j++)
			TMEM_INVARIANT("X3", index->dirs[i + j] == segment);
		check_segment(segment, i >> shift, fn, arg);
		entries += count_of(segment);
		deepest += depth_of(segment) == index->depth;
		i += (size_t)1 << shift;
	}
	TMEM_INVARIANT("X4", entries == index->nr_entries);
	TMEM_INVARIANT("X4", deepest == index->nr_deepest);
}

/* An entry's tag as far as it is known: what is below the window is zero. */
static uint32_t known_tag(uint32_t pos, unsigned depth, uint16_t entry)
{
	unsigned bits = TMEM_INDEX_TAG_BITS - above(depth);

	return pos >> bits << bits | (uint32_t)(entry >> PROBE_BITS)
					     << (bits - TMEM_INDEX_WINDOW_BITS);
}

/*
 * Where an entry lies, as far as `pos` must be told from it: by its hash if a
 * deeper segment was there when `pos` was set.
 */
static uint32_t pos_of(const struct tmem_index *index, uint32_t pos,
		       unsigned depth, const struct tmem_bucket *bucket,
		       unsigned i)
{
	unsigned below =
		TMEM_INDEX_TAG_BITS - TMEM_INDEX_WINDOW_BITS - above(depth);
	uint64_t hash;

	if (!(pos & ((1u << below) - 1)))
		return known_tag(pos, depth, bucket->tags[i]);
	index->hashes(index->arg, &bucket->refs[i], 1, &hash);
	return tag_of(hash);
}

bool tmem_index_visit_part(const struct tmem_index *index, uint32_t *pos,
			   unsigned parts, void (*fn)(void *arg, uint32_t ref),
			   void *arg)
{
	const struct tmem_segment *segment;
	const struct tmem_bucket *bucket;
	uint32_t step, end, tag;
	unsigned b, i, depth;

	if (!index->nr_entries || *pos >> TMEM_INDEX_TAG_BITS)
		return false;
	segment = index->dirs[dir_of(index, *pos)];
	depth = depth_of(segment);
	/* The window reaches beyond the bits that tell the parts. */
	step = (1u << (TMEM_INDEX_TAG_BITS - depth)) / parts;
	end = (*pos / step + 1) * step;
	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++) {
			bucket = &segment->buckets[b];
			if (!bucket->refs[i])
				continue;
			tag = pos_of(index, *pos, depth, bucket, i);
			if (tag >= *pos && tag < end)
				fn(arg, bucket->refs[i]);
		}
	*pos = end;
	return !(end >> TMEM_INDEX_TAG_BITS);
}

bool tmem_index_visit(const struct tmem_index *index, uint32_t *pos,
		      void (*fn)(void *arg, uint32_t ref), void *arg)
{
	const uint32_t tags = 1u << TMEM_INDEX_TAG_BITS;
	const struct tmem_segment *segment;
	unsigned b, i, depth;

	if (!index->nr_entries || *pos >= tags)
		return false;
	segment = index->dirs[dir_of(index, *pos)];
	depth = depth_of(segment);
	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++)
		for (i = 0; i < TMEM_BUCKET_ENTRIES; i++)
			if (segment->buckets[b].refs[i])
				fn(arg, segment->buckets[b].refs[i]);
	*pos = ((*pos >> (TMEM_INDEX_TAG_BITS - depth)) + 1)
	       << (TMEM_INDEX_TAG_BITS - depth);
	return *pos < tags;
}
