/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a snapshot, version 1.  Numbers are little-endian.
 *
 *	stream	header, blocks; the last one is marked so
 *	block	16 bytes: length of the text, flags, number (from 0);
 *		the text, at most 64 KiB; 16 bytes of sum
 *	text	records, whole ones: a record never spans blocks
 *
 * The sum of a plain block is XXH3-128, seeded with the snapshot's id, over
 * its 16 bytes and its text.  Of an encrypted one it is the tag of
 * XChaCha20-Poly1305: the text is encrypted, the header and the 16 bytes are
 * authenticated with it, the nonce is the header's salt (which makes a key of
 * the stream's own of the key given: that is what the X stands for) and the
 * block's number.  So no block can be left out, moved, or taken from another
 * stream, and the end can't be cut off.
 *
 * RECORDS, in this order:
 *
 *	CLIENT	its weight; not if one pool was saved
 *	POOL	each pool: its number here (from 0, in order) and where it was,
 *		flags, UUID, and the id of the snapshot that it is based on
 *	OBJECT	what the pages after it belong to, until the next one or the
 *		block's end: pool and 192 bits
 *	DICT	what pages after it were compressed with: content, and one of
 *		128 numbers, which is its until another DICT has that
 *	PAGE	index, form, length, data, which for a form with a dictionary
 *		begins with that one's number, 16 bits
 *	KEEP	pages that are as in the earlier snapshot: how many, the first
 *		index, and the steps to the next ones in base 128, low digits
 *		first, the top bit set in all but the last
 *	END	how much there was; the last record of the last block
 *
 * Each page of the pools at the snapshot's instant is in exactly one PAGE or
 * KEEP: what is not named is not there.  The id of pool n's part is the
 * stream's, n added to its second word.  A DICT comes anywhere between the
 * pools and the end, before the pages that need it.  All that is not used is
 * zero, and whatever is not as written here is refused.
 */
#ifndef TMEM_SNAPSHOT_FORMAT_H
#define TMEM_SNAPSHOT_FORMAT_H

#include <stdint.h>

#define TMEM_SNAP_MAGIC "TMEMSNAP"

enum {
	TMEM_SNAP_VERSION = 1,
	TMEM_SNAP_SEALED = 1, /* a feature; there are no others */
	TMEM_SNAP_LAST = 1,   /* a block's flag; there are no others */
	TMEM_SNAP_TEXT_BYTES = 1 << 16,
	TMEM_SNAP_SUM_BYTES = 16,
	TMEM_SNAP_DICTS = 128 /* numbers */
};

enum tmem_snap_type {
	TMEM_SNAP_CLIENT = 1,
	TMEM_SNAP_POOL = 2,
	TMEM_SNAP_OBJECT = 3,
	TMEM_SNAP_PAGE = 4,
	TMEM_SNAP_KEEP = 5,
	TMEM_SNAP_END = 6,
	TMEM_SNAP_DICT = 7
};

struct tmem_snap_header {
	char magic[8];
	uint16_t version;
	uint16_t header_bytes;
	uint32_t features;
	uint64_t id[2];
	uint8_t salt[16]; /* zeroes if plain */
	uint64_t zero;
	uint64_t sum; /* XXH3-64 of all before it */
};
_Static_assert(sizeof(struct tmem_snap_header) == 64, "part of the format");

struct tmem_snap_block {
	uint32_t length;
	uint32_t flags;
	uint64_t number;
};
_Static_assert(sizeof(struct tmem_snap_block) == 16, "part of the format");

struct tmem_snap_client {
	uint8_t type;
	uint8_t zero[3];
	uint32_t weight;
};
_Static_assert(sizeof(struct tmem_snap_client) == 8, "part of the format");

struct tmem_snap_pool {
	uint8_t type;
	uint8_t zero;
	uint16_t number;
	uint32_t flags;
	uint32_t source;
	uint32_t zeros;
	uint64_t uuid[2];
	uint64_t base[2]; /* zeroes: none */
};
_Static_assert(sizeof(struct tmem_snap_pool) == 48, "part of the format");

struct tmem_snap_object {
	uint8_t type;
	uint8_t zero;
	uint16_t pool;
	uint32_t zeros;
	uint64_t id[3];
};
_Static_assert(sizeof(struct tmem_snap_object) == 32, "part of the format");

struct tmem_snap_page {
	uint8_t type;
	uint8_t form;
	uint16_t length;
	uint32_t index;
};
_Static_assert(sizeof(struct tmem_snap_page) == 8, "part of the format");

/* Then the content. */
struct tmem_snap_dict {
	uint8_t type;
	uint8_t uses; /* enum tmem_dict_uses */
	uint16_t number;
	uint16_t pool; /* that it was made for, or else of a page that has it */
	uint16_t current; /* 1: what the pool goes on with */
	uint32_t content_bytes;
	uint32_t zero;
};
_Static_assert(sizeof(struct tmem_snap_dict) == 16, "part of the format");

struct tmem_snap_keep {
	uint8_t type;
	uint8_t zero;
	uint16_t nr;
	uint32_t index;
};
_Static_assert(sizeof(struct tmem_snap_keep) == 8, "part of the format");

struct tmem_snap_end {
	uint8_t type;
	uint8_t zero[7];
	uint64_t pages;
	uint64_t kept_pages;
	uint64_t data_bytes;
};
_Static_assert(sizeof(struct tmem_snap_end) == 32, "part of the format");

#endif
