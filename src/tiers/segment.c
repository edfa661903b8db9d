/* SPDX-License-Identifier: MIT */
/* See segment.h. */
#include "segment.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/seal.h"

#define SEGMENT_MAGIC 0x316765736d656d74ull /* "tmemseg1" */

enum {
	VERSION = 1,
	RECORD_MAGIC = 0x63657274, /* "trec" */
	BLOCK = TMEM_TIER_BLOCK,
	WASTE_MAX = 512,
	AES_SALT_BYTES = 10
};

struct header {
	uint64_t magic;
	uint32_t version;
	uint32_t cipher;
	uint32_t number;
	uint32_t generation;
	uint32_t bytes;
	uint32_t end;
	uint32_t nr_records;
	uint32_t zero;
	uint8_t salt[TMEM_SEGMENT_SALT_BYTES];
	uint64_t zeros[6];
	uint64_t sum;
	uint8_t tag[TMEM_SEAL_TAG_BYTES];
};
_Static_assert(sizeof(struct header) == TMEM_SEGMENT_HEADER_BYTES &&
		       offsetof(struct header, salt) == TMEM_SEGMENT_SALT_AT &&
		       offsetof(struct header, tag) == 112,
	       "part of the format");

struct sealed {
	uint64_t generation;
	uint64_t object[3];
	uint32_t index;
	uint16_t pool;
	uint8_t form;
	uint8_t zero;
};
_Static_assert(sizeof(struct sealed) == TMEM_RECORD_SEALED_BYTES,
	       "part of the format");

struct record {
	uint32_t magic;
	uint32_t length;
	uint8_t tag[TMEM_SEAL_TAG_BYTES];
	struct sealed sealed;
	unsigned char data[];
};
_Static_assert(sizeof(struct record) == TMEM_RECORD_HEADER_BYTES,
	       "part of the format");
_Static_assert(offsetof(struct tmem_record, data) -
			       offsetof(struct tmem_record, sealed) ==
		       TMEM_RECORD_SEALED_BYTES,
	       "opened as one text");

/* What binds a text to its place; authenticated with it. */
struct place {
	uint32_t number;
	uint32_t generation;
	uint32_t offset;
	uint32_t length;
};

static uint32_t round_up(uint32_t bytes, uint32_t to)
{
	return (bytes + to - 1) & ~(to - 1);
}

/* Sealing: with a seal its cipher, else a checksum. */

static void make_nonce(const struct tmem_tier_segment *s, uint32_t offset,
		       struct tmem_seal_text *text)
{
	uint32_t unit = offset / TMEM_RECORD_ALIGN;

	memset(text->nonce, 0, sizeof(text->nonce));
	memcpy(text->nonce, s->salt, AES_SALT_BYTES);
	text->nonce[AES_SALT_BYTES] = (uint8_t)unit;
	text->nonce[AES_SALT_BYTES + 1] = (uint8_t)(unit >> 8);
	memcpy(text->nonce + AES_SALT_BYTES + 2, s->salt + AES_SALT_BYTES,
	       TMEM_SEGMENT_SALT_BYTES - AES_SALT_BYTES);
}

static void checksum(const void *bytes, size_t nr_bytes, uint64_t seed,
		     uint8_t ret_tag[TMEM_SEAL_TAG_BYTES])
{
	XXH128_hash_t h = XXH3_128bits_withSeed(bytes, nr_bytes, seed);

	memcpy(ret_tag, &h.low64, 8);
	memcpy(ret_tag + 8, &h.high64, 8);
}

static uint64_t seed_of(const struct place *p)
{
	uint64_t hash =
		tmem_hash_word((uint64_t)p->number << 32 | p->generation);

	return tmem_hash_more(hash, (uint64_t)p->offset << 32 | p->length);
}

static struct place place_of(const struct tmem_tier_segment *s, uint32_t offset,
			     uint32_t length)
{
	return (struct place){ s->number, s->generation, offset, length };
}

static void seal_header(const struct tmem_tier_segment *s,
			const struct tmem_seal *seal, struct header *h)
{
	struct tmem_seal_text text = { .ad = h,
				       .ad_bytes = offsetof(struct header, tag),
				       .from = h,
				       .to = h };

	if (!seal) {
		checksum(h, offsetof(struct header, tag), 0, h->tag);
		return;
	}
	make_nonce(s, 0, &text);
	tmem_seal_encrypt(seal, &text, h->tag);
}

static bool is_header_whole(const struct tmem_tier_segment *s,
			    const struct tmem_seal *seal,
			    const struct header *h)
{
	struct tmem_seal_text text = {
		.ad = h,
		.ad_bytes = offsetof(struct header, tag),
	};
	uint8_t tag[TMEM_SEAL_TAG_BYTES];

	if (!seal) {
		checksum(h, offsetof(struct header, tag), 0, tag);
		return memcmp(tag, h->tag, sizeof(tag)) == 0;
	}
	text.from = text.to = tag; /* of no bytes */
	make_nonce(s, 0, &text);
	return tmem_seal_decrypt(seal, &text, h->tag) == 0;
}

static void seal_record(const struct tmem_tier_segment *s,
			const struct tmem_seal *seal, uint32_t offset,
			struct record *rec)
{
	struct place place = place_of(s, offset, rec->length);
	struct tmem_seal_text text = { .ad = &place,
				       .ad_bytes = sizeof(place),
				       .from = &rec->sealed,
				       .to = &rec->sealed,
				       .bytes = sizeof(rec->sealed) +
						rec->length };

	if (!seal) {
		checksum(text.from, text.bytes, seed_of(&place), rec->tag);
		return;
	}
	make_nonce(s, offset, &text);
	tmem_seal_encrypt(seal, &text, rec->tag);
}

/* Writing */

int tmem_segment_begin(struct tmem_segment_writer *w,
		       const struct tmem_seal *seal, uint32_t number,
		       uint32_t generation, void *buffer)
{
	struct tmem_tier_segment s = { .number = number,
				       .generation = generation };
	int r = tmem_seal_random(s.salt, sizeof(s.salt));

	if (r < 0)
		return r;
	if (seal)
		s.cipher = tmem_seal_cipher(seal);
	w->segment = s;
	w->seal = seal;
	w->buffer = buffer;
	w->at = TMEM_SEGMENT_HEADER_BYTES;
	return 0;
}

/* Where a record of that many bytes goes that may begin at `at`. */
static uint32_t place_record(uint32_t at, uint32_t bytes)
{
	uint32_t in_block = at % BLOCK;
	uint32_t touches = (in_block + bytes + BLOCK - 1) / BLOCK;

	if (touches > (bytes + BLOCK - 1) / BLOCK &&
	    BLOCK - in_block <= WASTE_MAX)
		return round_up(at, BLOCK);
	return at;
}

uint32_t tmem_segment_add(struct tmem_segment_writer *w,
			  const struct tmem_record_info *info, const void *data)
{
	uint32_t bytes = tmem_record_bytes(info->length);
	uint32_t at = place_record(w->at, bytes);
	struct record *rec = (struct record *)(w->buffer + at);

	TMEM_ASSERT(info->length != 0 && info->length <= TMEM_PAGE_SIZE &&
		    info->form != 0);
	if (at + bytes > TMEM_SEGMENT_BYTES)
		return 0;
	memset(w->buffer + w->at, 0, at - w->at);
	rec->magic = RECORD_MAGIC;
	rec->length = info->length;
	rec->sealed = (struct sealed){ .generation = info->generation,
				       .index = info->index,
				       .pool = info->pool,
				       .form = info->form };
	memcpy(rec->sealed.object, info->object.word, sizeof(info->object));
	memcpy(rec->data, data, info->length);
	seal_record(&w->segment, w->seal, at, rec);
	w->segment.nr_records++;
	w->segment.end = at + bytes;
	w->at = round_up(at + bytes, TMEM_RECORD_ALIGN);
	memset(w->buffer + at + bytes, 0, w->at - (at + bytes));
	return at;
}

void tmem_segment_end(struct tmem_segment_writer *w,
		      struct tmem_tier_segment *ret_segment)
{
	struct header *h = (struct header *)w->buffer;
	struct tmem_tier_segment *s = &w->segment;

	if (s->end == 0)
		s->end = TMEM_SEGMENT_HEADER_BYTES;
	s->bytes = round_up(s->end, BLOCK);
	memset(w->buffer + s->end, 0, s->bytes - s->end);
	*h = (struct header){ .magic = SEGMENT_MAGIC,
			      .version = VERSION,
			      .cipher = s->cipher,
			      .number = s->number,
			      .generation = s->generation,
			      .bytes = s->bytes,
			      .end = s->end,
			      .nr_records = s->nr_records };
	memcpy(h->salt, s->salt, sizeof(h->salt));
	h->sum = XXH3_64bits(w->buffer + sizeof(*h), s->bytes - sizeof(*h));
	seal_header(s, w->seal, h);
	*ret_segment = *s;
}

/* Reading */

int tmem_segment_read_header(const void *bytes, const struct tmem_seal *seal,
			     struct tmem_tier_segment *ret_segment)
{
	struct tmem_tier_segment s;
	struct header h;

	memcpy(&h, bytes, sizeof(h));
	if (h.magic != SEGMENT_MAGIC)
		return -ENODATA;
	if (h.version != VERSION)
		return -EPROTONOSUPPORT;
	s = (struct tmem_tier_segment){ .number = h.number,
					.generation = h.generation,
					.bytes = h.bytes,
					.end = h.end,
					.nr_records = h.nr_records,
					.cipher = h.cipher };
	memcpy(s.salt, h.salt, sizeof(s.salt));
	if (h.cipher != (seal ? tmem_seal_cipher(seal) : TMEM_CIPHER_NONE) ||
	    !is_header_whole(&s, seal, &h))
		return -EIO;
	if (h.end < TMEM_SEGMENT_HEADER_BYTES || h.end > TMEM_SEGMENT_BYTES ||
	    h.bytes != round_up(h.end, BLOCK) ||
	    h.nr_records > h.end / TMEM_RECORD_HEADER_BYTES)
		return -EIO;
	*ret_segment = s;
	return 0;
}

int tmem_segment_check_sum(const struct tmem_tier_segment *s, const void *bytes)
{
	const char *start = bytes;
	uint64_t sum;

	memcpy(&sum, start + offsetof(struct header, sum), sizeof(sum));
	return XXH3_64bits(start + sizeof(struct header),
			   s->bytes - sizeof(struct header)) == sum
		       ? 0
		       : -EIO;
}

/* The sealed part and the data into *ret. */
static int open_record(const struct tmem_tier_segment *s,
		       const struct tmem_seal *seal,
		       const struct tmem_segment_range *range,
		       const struct record *head, struct tmem_record *ret)
{
	struct place place = place_of(s, range->offset, head->length);
	struct tmem_seal_text text = {
		.ad = &place,
		.ad_bytes = sizeof(place),
		.from = (const char *)range->bytes +
			offsetof(struct record, sealed),
		.to = (char *)ret + offsetof(struct tmem_record, sealed),
		.bytes = sizeof(head->sealed) + head->length
	};
	uint8_t tag[TMEM_SEAL_TAG_BYTES];

	if (seal) {
		make_nonce(s, range->offset, &text);
		return tmem_seal_decrypt(seal, &text, head->tag);
	}
	checksum(text.from, text.bytes, seed_of(&place), tag);
	if (memcmp(tag, head->tag, sizeof(tag)) != 0)
		return -EIO;
	memcpy(text.to, text.from, text.bytes);
	return 0;
}

int tmem_segment_read(const struct tmem_tier_segment *s,
		      const struct tmem_seal *seal,
		      const struct tmem_segment_range *range,
		      struct tmem_record *ret)
{
	struct sealed sealed;
	struct record head;
	int r;

	if (range->nr_bytes < sizeof(head))
		return -EIO;
	memcpy(&head, range->bytes, sizeof(head));
	if (head.magic != RECORD_MAGIC || head.length == 0 ||
	    head.length > TMEM_PAGE_SIZE ||
	    tmem_record_bytes(head.length) > range->nr_bytes)
		return -EIO;
	r = open_record(s, seal, range, &head, ret);
	if (r < 0)
		return r;
	memcpy(&sealed, ret->sealed, sizeof(sealed));
	if (sealed.form == 0)
		return -EIO;
	ret->info = (struct tmem_record_info){
		.generation = sealed.generation,
		.index = sealed.index,
		.pool = sealed.pool,
		.length = (uint16_t)head.length,
		.form = sealed.form,
	};
	memcpy(ret->info.object.word, sealed.object, sizeof(sealed.object));
	return 0;
}

/* The length of the record at that offset, 0 if there can't be one. */
static uint32_t length_at(const struct tmem_tier_segment *s, const char *bytes,
			  uint32_t at)
{
	uint32_t head[2];

	if (at % TMEM_RECORD_ALIGN != 0 || at >= s->end ||
	    s->end - at < TMEM_RECORD_HEADER_BYTES)
		return 0;
	memcpy(head, bytes + at, sizeof(head));
	if (head[0] != RECORD_MAGIC || head[1] > TMEM_PAGE_SIZE ||
	    tmem_record_bytes(head[1]) > s->end - at)
		return 0;
	return head[1];
}

uint32_t tmem_segment_next(const struct tmem_tier_segment *s, const void *bytes,
			   uint32_t after)
{
	uint32_t at = TMEM_SEGMENT_HEADER_BYTES;

	if (after != 0) {
		uint32_t length = length_at(s, bytes, after);

		if (length == 0)
			return 0;
		at = round_up(after + tmem_record_bytes(length),
			      TMEM_RECORD_ALIGN);
	}
	if (length_at(s, bytes, at) == 0)
		at = round_up(at, BLOCK);
	return length_at(s, bytes, at) == 0 ? 0 : at;
}
