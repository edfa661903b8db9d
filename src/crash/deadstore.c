/* SPDX-License-Identifier: MIT */
/*
 * See deadstore.h.  Structures are copied out of the file before they are
 * looked at; the pointers in them are addresses there, never followed here.
 */
#include "deadstore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arena/geometry.h"
#include "core/core.h"
#include "frontends/frontswap_impl.h"

enum {
	OBJECTS = 4096 /* of which is remembered which they are */
};

struct found {
	uint64_t addr; /* of the slot; 0: two claimed the page */
	uint32_t offset;
	uint32_t bytes; /* of the slot */
};

/* An object's number, and the offset bits that it stands for. */
struct object {
	uint32_t nr; /* 0: none */
	uint32_t bits;
};

struct tmem_deadstore {
	const struct tmem_corefile *core;
	uint64_t addr;
	uint32_t pool;		  /* number */
	struct tmem_store *store; /* without its shards */
	struct found *found;	  /* by offset */
	size_t nr_found;
	size_t room;
	uint64_t nr_refs; /* seen in the index, good or not */
	struct object objects[OBJECTS];
	_Alignas(64) char slot[TMEM_SLOT_MAX_BYTES];
	_Alignas(64) char scratch[TMEM_ZSTD_DECOMPRESS_BYTES];
};

/* A record that is in use, copied. */
static bool read_record(const struct tmem_deadstore *ds,
			const struct tmem_records *records, uint32_t number,
			void *to, uint32_t bytes)
{
	uint32_t per_page = TMEM_RECORDS_PER_PAGE(bytes), i = number - 1;
	uint32_t nr = i / per_page, dir = nr / TMEM_RECORDS_PER_DIR;
	struct tmem_records_entry entry;
	uint64_t addr;

	if (number == 0 || nr >= TMEM_RECORDS_MAX_PAGES)
		return false;
	addr = (uintptr_t)records->tops[dir / TMEM_RECORDS_DIRS];
	addr += dir % TMEM_RECORDS_DIRS * sizeof(addr);
	if (!tmem_corefile_read(ds->core, addr, &addr, sizeof(addr)))
		return false;
	addr += nr % TMEM_RECORDS_PER_DIR * sizeof(entry);
	if (!tmem_corefile_read(ds->core, addr, &entry, sizeof(entry)) ||
	    !(entry.used >> i % per_page & 1))
		return false;
	addr = (uintptr_t)entry.page + (uint64_t)(i % per_page) * bytes;
	return tmem_corefile_read(ds->core, addr, to, bytes);
}

/* Where a handle's slot is; false: there is no such slot in use. */
static bool locate(const struct tmem_deadstore *ds, uint32_t handle,
		   struct found *ret)
{
	struct tmem_span span;
	unsigned i = handle % TMEM_SPAN_SLOTS;

	if (!read_record(ds, &ds->store->arena.spans, handle / TMEM_SPAN_SLOTS,
			 &span, sizeof(span)))
		return false;
	if (span.class == 0 || span.class >= TMEM_CLASSES ||
	    i >= tmem_span_slots(span.class) || span.free >> i & 1)
		return false;
	ret->bytes = span.class * (uint32_t)TMEM_SLOT_GRAIN;
	ret->addr = (uintptr_t)span.base + (uint64_t)i * ret->bytes;
	return true;
}

/* The low bits of the offsets whose pages that object has: frontswap_impl.h */
static bool read_object(struct tmem_deadstore *ds, uint32_t nr,
			uint32_t *ret_bits)
{
	struct object *known = &ds->objects[nr % OBJECTS];
	struct tmem_object o;

	if (nr != 0 && known->nr == nr) {
		*ret_bits = known->bits;
		return true;
	}
	if (!read_record(ds, &ds->store->objects, nr, &o, sizeof(o)) ||
	    o.pool != ds->pool || o.id.word[0] >= TMEM_FS_OBJECTS ||
	    o.id.word[1] || o.id.word[2])
		return false;
	known->nr = nr;
	known->bits = *ret_bits = (uint32_t)o.id.word[0];
	return true;
}

static int add_found(struct tmem_deadstore *ds, const struct found *f)
{
	if (ds->nr_found == ds->room) {
		size_t room = ds->room ? 2 * ds->room : 1024;
		struct found *more =
			reallocarray(ds->found, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		ds->found = more;
		ds->room = room;
	}
	ds->found[ds->nr_found++] = *f;
	return 0;
}

/* What the index of a shard refers to. */
static int take_ref(struct tmem_deadstore *ds, uint32_t shard, uint32_t handle)
{
	struct tmem_slot head;
	struct found f;
	uint32_t bits;

	if (!locate(ds, handle, &f) ||
	    !tmem_corefile_read(ds->core, f.addr, &head, sizeof(head)) ||
	    tmem_slot_shard(&head) != shard ||
	    tmem_slot_pool(&head) != ds->pool ||
	    head.index > UINT32_MAX >> TMEM_FS_OBJECT_BITS ||
	    !read_object(ds, head.object, &bits))
		return 0;
	f.offset = head.index << TMEM_FS_OBJECT_BITS | bits;
	return add_found(ds, &f);
}

static int take_segment(struct tmem_deadstore *ds, uint32_t shard,
			const struct tmem_segment *segment)
{
	unsigned b, i;
	int r = 0;

	for (b = 0; b < TMEM_SEGMENT_BUCKETS; b++) {
		const struct tmem_bucket *bucket = &segment->buckets[b];

		for (i = 0; i < TMEM_BUCKET_ENTRIES && r == 0; i++) {
			uint32_t ref = bucket->refs[i];

			if (!ref || ref & TMEM_REF_OBJECT)
				continue;
			/* No more slots than the file has room for. */
			if (ds->nr_refs++ > ds->core->bytes / TMEM_SLOT_GRAIN)
				return -EIO;
			r = take_ref(ds, shard, ref);
		}
	}
	return r;
}

/* The segment that the directory has at *at, which moves past its places. */
static int take_dir(struct tmem_deadstore *ds, uint32_t shard,
		    const struct tmem_index *index, uint32_t *at)
{
	struct tmem_segment segment;
	uint32_t i = (*at)++;
	unsigned depth;
	uint64_t addr;

	addr = (uintptr_t)index->dirs + i * sizeof(addr);
	/* An empty index has none. */
	if (!tmem_corefile_read(ds->core, addr, &addr, sizeof(addr)) || !addr ||
	    !tmem_corefile_read(ds->core, addr, &segment, sizeof(segment)))
		return 0;
	depth = segment.buckets[0].depth;
	if (depth > index->depth || i & ((1u << (index->depth - depth)) - 1))
		return 0;
	*at = i + (1u << (index->depth - depth));
	return take_segment(ds, shard, &segment);
}

static int take_shard(struct tmem_deadstore *ds, uint32_t nr)
{
	uint64_t addr = ds->addr + offsetof(struct tmem_store, shards) +
			nr * sizeof(struct tmem_shard);
	struct tmem_shard shard;
	uint32_t at = 0;
	int r = 0;

	if (!tmem_corefile_read(ds->core, addr, &shard, sizeof(shard)) ||
	    shard.index.depth > TMEM_INDEX_MAX_DEPTH)
		return 0;
	while (at < 1u << shard.index.depth && r == 0)
		r = take_dir(ds, nr, &shard.index, &at);
	return r;
}

static int by_offset(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int take_all(struct tmem_deadstore *ds)
{
	uint32_t nr;
	size_t i;
	int r = 0;

	for (nr = 0; nr < ds->store->nr_shards && r == 0; nr++)
		r = take_shard(ds, nr);
	if (r != 0 || !ds->nr_found)
		return r;
	qsort(ds->found, ds->nr_found, sizeof(*ds->found), by_offset);
	for (i = 1; i < ds->nr_found; i++)
		if (ds->found[i].offset == ds->found[i - 1].offset)
			ds->found[i].addr = ds->found[i - 1].addr = 0;
	return 0;
}

int tmem_deadstore_open(const struct tmem_corefile *core, uint64_t addr,
			tmem_pool_id pool, struct tmem_deadstore **ret)
{
	struct tmem_deadstore *ds = aligned_alloc(64, sizeof(*ds));
	int r = -EIO;

	if (!ds)
		return -ENOMEM;
	memset(ds, 0, sizeof(*ds));
	ds->core = core;
	ds->addr = addr;
	ds->pool = tmem_pool_number(pool);
	ds->store = aligned_alloc(64, sizeof(*ds->store));
	if (!ds->store)
		r = -ENOMEM;
	else if (tmem_corefile_read(core, addr, ds->store,
				    sizeof(*ds->store)) &&
		 ds->store->nr_shards <= TMEM_MAX_SHARDS &&
		 ds->store->pools[ds->pool].id == pool)
		r = take_all(ds);
	if (r < 0) {
		tmem_deadstore_close(ds);
		return r;
	}
	*ret = ds;
	return 0;
}

void tmem_deadstore_close(struct tmem_deadstore *ds)
{
	if (!ds)
		return;
	free(ds->found);
	free(ds->store);
	free(ds);
}

int tmem_deadstore_load(struct tmem_deadstore *ds, uint64_t offset,
			void *ret_page)
{
	const struct tmem_slot *slot = (const void *)ds->slot;
	const struct tmem_codec *codec;
	const struct found *f = NULL;
	size_t lo = 0, hi = ds->nr_found;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (ds->found[mid].offset < offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < ds->nr_found && ds->found[lo].offset == offset)
		f = &ds->found[lo];
	if (!f || !f->addr ||
	    !tmem_corefile_read(ds->core, f->addr, ds->slot, f->bytes) ||
	    !tmem_slot_is_whole(slot, f->bytes))
		return -EIO;
	/* The pager has no dictionaries, references or tiers. */
	codec = tmem_codec_of(tmem_slot_form(slot));
	if (!codec || codec->has_dict)
		return -EIO;
	return codec->decompress(ds->scratch, NULL, slot->data, slot->length,
				 ret_page);
}
