/* SPDX-License-Identifier: MIT */
/*
 * A slot: one stored page, self-describing.
 *
 * The header names the page (pool, object number, index) and the shard of the
 * index where it is found, says how the data
 * is to be read (form, length), which of several is the newest (generation:
 * the epoch of its content, and a counter)
 * and whether it is whole (checksum over the header's other fields and the
 * data).  So an index is a cache: a scan of the slots can rebuild it.
 *
 * A slot whose form_generation is 0 holds nothing.  That word is stored last
 * when a slot is filled, and first when it is freed: where slots outlive their
 * process (image.h) a kill at any instruction leaves a whole slot or none.
 *
 * Slots lie at multiples of 64 bytes.
 */
#ifndef TMEM_ARENA_SLOT_H
#define TMEM_ARENA_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * How the data is to be read.  The numbers are a format: they never change.
 * A form that compresses has a codec of the same number (codecs/codec.h).
 */
enum tmem_form {
	TMEM_FORM_SAME = 1, /* one 8-byte word, repeated */
	TMEM_FORM_LZ4 = 2,
	TMEM_FORM_RAW = 3,
	TMEM_FORM_ZSTD = 4,
	TMEM_FORM_LZ4_DICT = 5,
	TMEM_FORM_ZSTD_DICT = 6,
	/* What a restartable store's slots of pages rest on: core/durable.h. */
	TMEM_FORM_DICT = 10, /* a part of a dictionary: core/dictslot.h */
	TMEM_FORM_CLIENT = 11,
	TMEM_FORM_POOL = 12,
	TMEM_FORM_OBJECT = 13,
	TMEM_FORM_TIER = 14, /* below RAM: where (core/tiering.h) */
	TMEM_FORM_REF = 15 /* a clone's: the handle of the slot with the data */
};

enum {
	TMEM_SLOT_FORM_SHIFT = 56,
	TMEM_SLOT_FORM_MASK = 0x1f,
	TMEM_SLOT_EPOCH_SHIFT = 32,
	TMEM_SLOT_EPOCHS = 1 << 24,
	/* No store comes so far: what is left is more than all its stores. */
	TMEM_SLOT_EPOCHS_END = TMEM_SLOT_EPOCHS / 4 * 3,
	TMEM_SLOT_POOL_BITS = 10,
	TMEM_SLOT_GRAIN = 64
};

/*
 * Marks beside the form, which no checksum covers: not stored or loaded since
 * it was last looked at; no other form is worth it; its owner has released it,
 * and only others refer to it (in a restartable store's image).
 */
#define TMEM_SLOT_ORPHAN     (1ull << 61)
#define TMEM_SLOT_COLD	     (1ull << 62)
#define TMEM_SLOT_TRIED	     (1ull << 63)
#define TMEM_SLOT_MARKS	     (TMEM_SLOT_ORPHAN | TMEM_SLOT_COLD | TMEM_SLOT_TRIED)
#define TMEM_SLOT_GENERATION ((1ull << TMEM_SLOT_FORM_SHIFT) - 1)

struct tmem_slot {
	uint32_t object;
	uint32_t index;
	uint32_t checksum;
	uint16_t place;		  /* pool, and shard above */
	uint16_t length;	  /* of data, in bytes */
	uint64_t form_generation; /* marks and form in the top 8 bits */
	unsigned char data[];
};
_Static_assert(sizeof(struct tmem_slot) == 24, "part of the format");

/* Of a slot that others refer to too: its owner may mark it meanwhile. */
static inline uint64_t tmem_slot_word(const struct tmem_slot *slot)
{
	return __atomic_load_n(&slot->form_generation, __ATOMIC_RELAXED);
}

static inline unsigned tmem_slot_form(const struct tmem_slot *slot)
{
	return (unsigned)(tmem_slot_word(slot) >> TMEM_SLOT_FORM_SHIFT) &
	       TMEM_SLOT_FORM_MASK;
}

static inline uint64_t tmem_slot_generation(const struct tmem_slot *slot)
{
	return slot->form_generation & TMEM_SLOT_GENERATION;
}

/* It holds nothing any more. */
static inline void tmem_slot_clear(struct tmem_slot *slot)
{
	__atomic_store_n(&slot->form_generation, 0, __ATOMIC_RELEASE);
}

/* When its content was stored: see core/saving.h. */
static inline uint32_t tmem_slot_epoch(const struct tmem_slot *slot)
{
	return (uint32_t)(slot->form_generation >> TMEM_SLOT_EPOCH_SHIFT) &
	       (TMEM_SLOT_EPOCHS - 1);
}

static inline uint16_t tmem_slot_place(uint32_t pool, uint32_t shard)
{
	return (uint16_t)(shard << TMEM_SLOT_POOL_BITS | pool);
}

static inline uint32_t tmem_slot_pool(const struct tmem_slot *slot)
{
	return slot->place & ((1u << TMEM_SLOT_POOL_BITS) - 1);
}

static inline uint32_t tmem_slot_shard(const struct tmem_slot *slot)
{
	return slot->place >> TMEM_SLOT_POOL_BITS;
}

/* What a slot takes with so many bytes of data. */
static inline unsigned tmem_slot_bytes(unsigned length)
{
	unsigned bytes = (unsigned)sizeof(struct tmem_slot) + length;

	return (bytes + TMEM_SLOT_GRAIN - 1) & ~(TMEM_SLOT_GRAIN - 1u);
}

/* Seals a slot that is otherwise filled in, with that word. */
void tmem_slot_publish(struct tmem_slot *slot, uint64_t form_generation);
/* A copy of a whole slot. */
void tmem_slot_copy(struct tmem_slot *to, const struct tmem_slot *from);
/* Computes the checksum of a slot that is otherwise filled in. */
void tmem_slot_seal(struct tmem_slot *slot);
/* True if the slot, of `size` bytes, is as it was sealed. */
bool tmem_slot_is_whole(const struct tmem_slot *slot, unsigned size);

#endif
