/* SPDX-License-Identifier: MIT */
/*
 * What is in a segment: stored pages that describe themselves, so that a
 * cleaner and a recovery need no index to read one.
 *
 *	header, 128 bytes | record | record | ... | zeros to a whole block
 *
 * Little-endian, version 1:
 *
 *	header	0 magic, 8 version, 12 cipher, 16 segment, 20 generation,
 *		24 bytes (all), 28 end (of the last record), 32 nr_records,
 *		40 salt[16], 104 XXH3 of everything after the header,
 *		112 tag[16] of bytes 0 to 112
 *	record	0 magic, 4 length of the data, 8 tag[16], then sealed:
 *		24 generation, 32 object[3], 56 index, 60 pool, 62 form, 64 data
 *
 * Records begin at multiples of 64 bytes.  One that would touch a block more
 * than it must begins at the next, if that wastes 512 bytes at the most: so a
 * record of up to 4 KiB is read with one block or two.
 *
 * SEALED.  With a seal each record's last 40 bytes and data are encrypted as
 * one text; the tag is the cipher's, over them, segment, generation, offset
 * and length: a record that is moved, within its segment or out of it, is
 * damaged.  The header is only authenticated.  Without a seal nothing is
 * encrypted, and the tags are XXH3-128 of the same.
 *
 * NONCES.  Each segment draws 128 random bits, its salt, when it is begun;
 * the nonce of a text is the salt with the text's offset worked in.  So
 * neither a fork nor a restart nor a number that is used again brings one
 * back: within 16 TiB written under one key two AES nonces, which have 80
 * bits of salt, are alike with a probability of 2^-33.  Within a segment each
 * offset is sealed once.
 *
 * A kill while a segment is written leaves one whose header is not there, is
 * torn, or whose sum is wrong; its records can be read one by one even so.
 */
#ifndef TMEM_TIERS_SEGMENT_H
#define TMEM_TIERS_SEGMENT_H

#include "tier.h"
#include "tmem/tmem.h"

struct tmem_seal;

enum {
	TMEM_SEGMENT_HEADER_BYTES = 128,
	TMEM_SEGMENT_SALT_AT = 40, /* in the header */
	TMEM_SEGMENT_SALT_BYTES = 16,
	TMEM_RECORD_HEADER_BYTES = 64,
	TMEM_RECORD_SEALED_BYTES = 40, /* of its header */
	TMEM_RECORD_ALIGN = 64
};

/* What has to be known of a segment to read its records. */
struct tmem_tier_segment {
	uint32_t number;
	uint32_t generation;
	uint32_t bytes; /* whole blocks */
	uint32_t end;
	uint32_t nr_records;
	uint32_t cipher; /* enum tmem_cipher */
	uint8_t salt[TMEM_SEGMENT_SALT_BYTES];
};

/* What a record says of its page. */
struct tmem_record_info {
	struct tmem_object_id object; /* or its number, in word[0] */
	uint64_t generation;
	uint32_t index;
	uint16_t pool;
	uint16_t length; /* of the data: 1 to TMEM_PAGE_SIZE */
	uint8_t form;	 /* 1 to 255 */
};

/* A record that was read. */
struct tmem_record {
	struct tmem_record_info info;
	unsigned char sealed[TMEM_RECORD_SEALED_BYTES];
	unsigned char data[TMEM_PAGE_SIZE];
};

/* Fills a caller's buffer of TMEM_SEGMENT_BYTES, 4 KiB aligned. */
struct tmem_segment_writer {
	struct tmem_tier_segment segment;
	const struct tmem_seal *seal; /* NULL: not encrypted */
	char *buffer;
	uint32_t at;
};

/* A generation that is new to this number.  0 or -errno (no random bits). */
int tmem_segment_begin(struct tmem_segment_writer *writer,
		       const struct tmem_seal *seal, uint32_t number,
		       uint32_t generation, void *buffer);
/* Where it is, or 0: there is no room for it. */
uint32_t tmem_segment_add(struct tmem_segment_writer *writer,
			  const struct tmem_record_info *info,
			  const void *data);
/* Seals it: segment.bytes of the buffer are to be written. */
void tmem_segment_end(struct tmem_segment_writer *writer,
		      struct tmem_tier_segment *ret_segment);

/* How much of a segment a record of that length takes. */
static inline uint32_t tmem_record_bytes(uint32_t length)
{
	return TMEM_RECORD_HEADER_BYTES + length;
}

/*
 * The header in the first TMEM_SEGMENT_HEADER_BYTES: 0, -ENODATA (nothing of
 * ours), -EPROTONOSUPPORT (another version), -EIO (torn, damaged, or sealed
 * with another key).
 */
int tmem_segment_read_header(const void *bytes, const struct tmem_seal *seal,
			     struct tmem_tier_segment *ret_segment);
/* 0 or -EIO: the whole segment is as it was written. */
int tmem_segment_check_sum(const struct tmem_tier_segment *segment,
			   const void *bytes);

/* A range of a segment that was read. */
struct tmem_segment_range {
	const void *bytes;
	uint32_t offset;
	uint32_t nr_bytes;
};

/*
 * The record that begins where the range does; -EIO if none does, whole and
 * as it was written.  *ret_record is scratch until then.
 */
int tmem_segment_read(const struct tmem_tier_segment *segment,
		      const struct tmem_seal *seal,
		      const struct tmem_segment_range *range,
		      struct tmem_record *ret_record);

/*
 * Walks a whole segment in memory: the offset of the first record (after 0)
 * or of the next after one; 0 at the end.  Believes no length before it is
 * checked against the segment's; a record's own is checked when it is read.
 */
uint32_t tmem_segment_next(const struct tmem_tier_segment *segment,
			   const void *bytes, uint32_t after);

#endif
