/* SPDX-License-Identifier: MIT */
/*
 * Images of restartable stores as an enemy would have them.  The first byte of
 * the input says how:
 *
 *	0	the rest is the file;
 *	1	a good image, patched: three bytes each say where and what;
 *	else	an image of spans and slots that the input describes, their
 *		hashes and checksums right: what lies, but is whole;
 *	+ 128	the same, and tiers may be given up.
 *
 * The store has a tier, in which the good image has pages; slots that the input
 * describes may name records there.  Whatever it is, a store is opened on it or
 * not; then its invariants hold, it works, and what it leaves can be opened
 * again.
 */
#include <tmem/client.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "arena/image.h"
#include "core/dictslot.h"
#include "core/durable.h"
#include "core/tiering.h"
#include "testfile.h"
#include "testimage.h"

enum {
	CHUNK = TMEM_CHUNK_BYTES,
	IMAGE_BYTES = 2 * CHUNK,
	PATCH_BYTES = 65536, /* that two bytes reach */
	PAGES = 40,
	SEGMENTS = 4,
	SEGMENT_PART = 64 << 10 /* of one, that is used */
};

#define TIER_BYTES ((uint64_t)SEGMENTS * TMEM_SEGMENT_BYTES)

/* Before the first page of data. */
#define FIRST (image + CHUNK + (TMEM_CHUNK_HEAD_PAGES - 1) * PAGE)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *image; /* the one that is made */
static char *good;  /* a store's */
static char super[TMEM_PAGE_SIZE];
static char good_tier[SEGMENTS][SEGMENT_PART];
static int tier_fd;
static int give_up; /* the input says so */
static const struct tmem_object_id ids[2] = { { { 1, 2, 3 } }, { { 4 } } };

static struct tmem_store *open_store(int fd)
{
	const struct tmem_tier_setup tier = { .kind = TMEM_TIER_KIND_MAPPED,
					      .fd = tier_fd,
					      .max_bytes = TIER_BYTES,
					      .plain = 1 };
	struct tmem_store_options options = { .limit_bytes = 2u << 20,
					      .cool_after_ns = 1,
					      .dict_every_ns = 1,
					      .arena_fd = &fd,
					      .tiers = &tier,
					      .nr_tiers = 1,
					      .give_up_tiers = give_up };
	struct tmem_store *store;

	return tmem_store_open(&options, &store) == 0 ? store : NULL;
}

static struct tmem_io io_of(uint32_t i, void *page)
{
	return (struct tmem_io){ .object = ids[i & 1],
				 .index = i,
				 .page = page };
}

/* All that there is to do with a store, once. */
static void use(struct tmem_store *store, uint32_t client_nr)
{
	struct tmem_client_pool pools[4];
	struct tmem_client *client;
	struct tmem_backend b;
	_Alignas(8) char page[PAGE];
	tmem_pool_id clone;
	unsigned nr, i;

	if (tmem_client_find(store, client_nr, &client) < 0)
		return;
	b = tmem_client_backend(client);
	nr = tmem_client_pools(client, pools, 4);
	for (i = 0; i < PAGES * (nr < 4 ? nr : 4); i++) {
		struct tmem_io io = io_of(i / 4, page);

		b.ops->load(b.self, pools[i % 4 % nr].id, &io, 1);
		page_fill(page, i);
		if (i % 3 == 0)
			b.ops->store(b.self, pools[i % nr].id, &io, 1);
		else if (i % 3 == 1)
			b.ops->invalidate(b.self, pools[i % nr].id, &io, 1);
	}
	tmem_store_check(store);
	if (nr && b.ops->pool_clone(b.self, pools[0].id, &clone) == 0)
		b.ops->pool_destroy(b.self, pools[0].id);
	tmem_store_maintain(store, 1000000);
	tmem_store_maintain(store, 1000000);
	tmem_store_check(store);
}

static void make_tier(void)
{
	unsigned i;

	tier_fd = testfile_ram();
	for (i = 0; i < SEGMENTS; i++)
		CHECK_EQ(pwrite(tier_fd, good_tier[i], SEGMENT_PART,
				(off_t)i * TMEM_SEGMENT_BYTES),
			 SEGMENT_PART);
}

static void try_file(int fd)
{
	struct tmem_store *store;

	make_tier();
	store = open_store(fd);
	if (!store) {
		close(tier_fd);
		return;
	}
	tmem_store_check(store);
	use(store, 0);
	use(store, 1);
	tmem_store_close(store);
	store = open_store(fd);
	CHECK(store != NULL);
	tmem_store_check(store);
	tmem_store_close(store);
	close(tier_fd);
}

/* Its pages that are not zeroes, after the superblock. */
static void try_image(const char *bytes)
{
	static const char zeroes[PAGE];
	int fd = image_memfd();
	size_t at;

	CHECK_EQ(pwrite(fd, super, sizeof(super), 0), sizeof(super));
	for (at = CHUNK; at < IMAGE_BYTES; at += PAGE)
		if (memcmp(bytes + at, zeroes, PAGE) != 0)
			CHECK_EQ(pwrite(fd, bytes + at, PAGE, (off_t)at), PAGE);
	try_file(fd);
	close(fd);
}

/* Three parts of a dictionary, the pool's current one. */
static void add_dict(struct tmem_store *store, tmem_pool_id pool)
{
	static _Alignas(8) char content[2 * PAGE];
	struct tmem_dict_spec spec = { .pool = tmem_pool_number(pool),
				       .uses = TMEM_DICT_LZ4,
				       .content_bytes = 5000,
				       .content = content };
	uint32_t name;

	page_fill(content, 1);
	page_fill(content + PAGE, 4);
	tmem_lock_acquire(&store->control);
	CHECK_EQ(tmem_dicts_add(store, &spec, &name), 0);
	tmem_dicts_make_current(store, name);
	tmem_lock_release(&store->control);
}

/* What may go down does; clones keep some where they are. */
static void go_down(struct tmem_store *store)
{
	unsigned i;

	atomic_store(&store->account.limit_bytes,
		     tmem_store_held_bytes(store) + 65536);
	for (i = 0; i < 20; i++)
		tmem_store_maintain(store, 100000000);
	for (i = 0; i < SEGMENTS; i++)
		CHECK(pread(tier_fd, good_tier[i], SEGMENT_PART,
			    (off_t)i * TMEM_SEGMENT_BYTES) >= 0);
	CHECK(!memcmp(good_tier[1], "tmemseg1", 8));
	CHECK_EQ(tmem_store_set_limit(store, 2u << 20), 0);
}

/*
 * Some of everything: classes, forms, a clone, an orphan, an ephemeral pool,
 * pages with a dictionary, pages below.
 */
static void make_good(void)
{
	struct tmem_pool_options ephemeral = { .flags = TMEM_POOL_EPHEMERAL };
	int fd = image_memfd();
	struct tmem_store *store;
	_Alignas(8) char page[PAGE];
	struct tmem_stats stats;
	struct tmem_backend b;
	tmem_pool_id pools[3];
	uint32_t i;

	tier_fd = testfile_ram();
	store = open_store(fd);
	CHECK(store != NULL);
	CHECK_EQ(pread(fd, super, sizeof(super), 0), sizeof(super));
	b = tmem_store_backend(store);
	CHECK_EQ(b.ops->pool_create(b.self, NULL, &pools[0]), 0);
	CHECK_EQ(b.ops->pool_create(b.self, &ephemeral, &pools[1]), 0);
	for (i = 0; i < PAGES; i++) {
		struct tmem_io io = io_of(i / 2, page);

		/* Two in ten of the last are equal to others. */
		page_fill(page, i > PAGES / 2 && i % 10 < 2 ? i - 10 : i);
		if (i == PAGES / 4)
			add_dict(store, pools[0]);
		if (i == PAGES / 2)
			go_down(store);
		if (i == PAGES / 2)
			CHECK_EQ(b.ops->pool_clone(b.self, pools[0], &pools[2]),
				 0);
		b.ops->store(b.self, pools[i & 1], &io, 1);
	}
	for (i = 0; i < PAGES / 4; i += 2) {
		struct tmem_io io = io_of(i, page);

		b.ops->invalidate(b.self, pools[0], &io, 1);
	}
	CHECK_EQ(b.ops->stats(b.self, &stats), 0);
	CHECK(stats.dedup_stores > 0);
	go_down(store);
	good = malloc(IMAGE_BYTES);
	image = calloc(1, IMAGE_BYTES);
	CHECK(good && image);
	memset(good, 0, IMAGE_BYTES);
	CHECK(pread(fd, good, IMAGE_BYTES, 0) > CHUNK);
	tmem_store_close(store);
	close(fd);
	close(tier_fd);
}

static void try_patched(const uint8_t *data, size_t size)
{
	memcpy(image, good, IMAGE_BYTES);
	for (; size >= 3; data += 3, size -= 3)
		image[CHUNK + (data[0] | data[1] << 8)] = (char)data[2];
	try_image(image);
}

struct input {
	const uint8_t *data;
	size_t size;
};

static unsigned byte(struct input *in)
{
	if (!in->size)
		return 0;
	in->size--;
	return *in->data++;
}

static void add_run(const struct tmem_image *fake, struct input *in)
{
	unsigned page = byte(in), span = byte(in), class = byte(in) % 128;

	if (span == 255)
		span = byte(in) << 17 | byte(in) << 8;
	if (page && class)
		tmem_image_set_run(fake, FIRST + page * PAGE, span, class);
}

/* A dictionary's part: small numbers are right ones. */
static unsigned add_part(struct tmem_slot *slot, struct input *in)
{
	unsigned content = byte(in) * 64, part = slot->index, bytes;
	struct tmem_dict_part head = { .content_bytes = content };

	head.pool = byte(in) * TMEM_MAX_POOLS + tmem_slot_pool(slot);
	head.uses = 1 + byte(in) % 4;
	slot->object = (1 + byte(in) % 4) << TMEM_DICT_PLACE_BITS;
	slot->object |= byte(in) % 4;
	slot->place = tmem_slot_place(tmem_slot_pool(slot), byte(in) / 128);
	bytes = content - part * TMEM_DICT_PART_BYTES;
	if (bytes > TMEM_DICT_PART_BYTES)
		bytes = TMEM_DICT_PART_BYTES;
	memcpy(slot->data, &head, sizeof(head));
	memset(slot->data + sizeof(head), (int)part, bytes);
	return (unsigned)sizeof(head) + bytes - byte(in) / 128;
}

/* A record's place, right in all that the input does not give. */
static unsigned add_place(struct tmem_slot *slot, struct input *in)
{
	unsigned flags = byte(in), n = byte(in) % (SEGMENTS + 2);
	struct tmem_place place = { .tier = flags & 1 ? byte(in) : 0,
				    .dict = flags & 2 ? byte(in) : 0,
				    .segment = n };
	const char *segment = good_tier[n % SEGMENTS];
	uint64_t end = TMEM_SEGMENT_HEADER_BYTES + byte(in) * 64u;

	memcpy(&place.segment_generation, segment + 20, 4);
	memcpy(place.salt, segment + TMEM_SEGMENT_SALT_AT, sizeof(place.salt));
	place.offset = (uint32_t)end;
	memcpy(&place.length, segment + end + 4, sizeof(place.length));
	if (flags & 4)
		place.length = (uint16_t)(byte(in) * 17);
	memcpy(&place.generation, segment + end + 24, 8);
	place.form = (uint8_t)segment[end + 62];
	if (flags & 8)
		place.form = (uint8_t)byte(in);
	if (flags & 16)
		place.segment_generation ^= byte(in);
	if (flags & 32)
		place.offset = byte(in) << 24 | byte(in) << 12;
	memcpy(slot->data, &place, sizeof(place));
	return flags & 64 ? byte(in) : sizeof(place);
}

/* What a slot of that form may have; the rest is the input's. */
static unsigned add_data(struct tmem_slot *slot, unsigned form,
			 struct input *in)
{
	struct tmem_durable_pool pool = { 0 };
	struct tmem_durable_client client = { .weight = byte(in) };
	uint32_t target;

	switch (form) {
	case TMEM_FORM_POOL:
		pool.id = (1 + byte(in) % 4) * TMEM_MAX_POOLS + slot->object;
		pool.flags = byte(in);
		pool.clients = byte(in);
		pool.joins[0] = (uint16_t)byte(in);
		memcpy(slot->data, &pool, sizeof(pool));
		return sizeof(pool);
	case TMEM_FORM_CLIENT:
		client.nr_uuids = byte(in);
		memcpy(slot->data, &client, sizeof(client));
		return sizeof(client);
	case TMEM_FORM_DICT:
		return add_part(slot, in);
	case TMEM_FORM_OBJECT:
		memcpy(slot->data, &ids[byte(in) & 1], sizeof(ids[0]));
		return sizeof(ids[0]);
	case TMEM_FORM_TIER:
		return add_place(slot, in);
	case TMEM_FORM_REF:
		target = byte(in) << 6 | byte(in) % 64;
		memcpy(slot->data, &target, sizeof(target));
		return sizeof(target);
	case TMEM_FORM_SAME:
		memset(slot->data, (int)byte(in), 8);
		return 8;
	default:
		for (target = byte(in); target > 0; target--)
			slot->data[target] = (unsigned char)byte(in);
		return byte(in) * 17;
	}
}

/* The pool's shard for that object and index, unless it is to be wrong. */
static uint16_t place_of(unsigned pool, unsigned id, uint32_t index, bool right)
{
	uint64_t hash =
		tmem_block_hash(tmem_object_hash(pool, &ids[id]), index);

	return tmem_slot_place(pool, right ? hash >> 32 & 15 : id);
}

static void add_slot(struct input *in)
{
	size_t page = byte(in), grain = byte(in) % 64;
	char *at = FIRST + page * PAGE + grain * 64;
	struct tmem_slot *slot = (struct tmem_slot *)at;
	unsigned form = byte(in) % 32, flags = byte(in), pool = byte(in);
	uint64_t word;

	if (at < FIRST + PAGE || at > image + IMAGE_BYTES - 2 * PAGE)
		return;
	slot->object = form == TMEM_FORM_POOL ? pool : byte(in);
	slot->index = byte(in);
	slot->place = place_of(pool, flags & 1, slot->index, !(flags & 2));
	slot->length = (uint16_t)add_data(slot, form, in);
	word = (uint64_t)form << TMEM_SLOT_FORM_SHIFT | byte(in);
	if (flags & 4)
		word |= TMEM_SLOT_ORPHAN;
	if (flags & 8) /* late ones */
		word ^= TMEM_SLOT_GENERATION >> (flags >> 4 & 3);
	if (slot->length > TMEM_PAGE_SIZE)
		slot->length = TMEM_PAGE_SIZE;
	tmem_slot_publish(slot, word);
}

static void try_described(const uint8_t *data, size_t size)
{
	struct input in = { data, size };
	struct tmem_image fake = { .base = image };

	memset(image, 0, IMAGE_BYTES);
	while (in.size)
		if (byte(&in) % 4 == 0)
			add_run(&fake, &in);
		else
			add_slot(&in);
	try_image(image);
}

static void try_raw(const uint8_t *data, size_t size)
{
	int fd = image_memfd();

	CHECK_EQ(pwrite(fd, data, size, 0), size);
	try_file(fd);
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!good)
		make_good();
	if (size == 0)
		return 0;
	give_up = data[0] >> 7;
	switch (data[0] & 127) {
	case 0:
		try_raw(data + 1, size - 1);
		break;
	case 1:
		try_patched(data + 1, size - 1);
		break;
	default:
		try_described(data + 1, size - 1);
		break;
	}
	return 0;
}
