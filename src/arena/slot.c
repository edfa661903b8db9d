/* SPDX-License-Identifier: MIT */
/* Checksums of slots: XXH3 of the data, folded with a hash of the header. */
#include "slot.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/hash.h"

static uint32_t checksum(const struct tmem_slot *slot)
{
	uint64_t name = (uint64_t)slot->object << 32 | slot->index;
	uint64_t shape = (uint64_t)slot->place << 16 | slot->length;
	uint64_t h = XXH3_64bits(slot->data, slot->length);

	h ^= tmem_hash_mix(
		name ^ TMEM_HASH_K0,
		((slot->form_generation & ~TMEM_SLOT_MARKS) + shape) ^
			TMEM_HASH_K1);
	return (uint32_t)(h ^ h >> 32);
}

void tmem_slot_seal(struct tmem_slot *slot)
{
	slot->checksum = checksum(slot);
}

bool tmem_slot_is_whole(const struct tmem_slot *slot, unsigned size)
{
	/* A damaged length must not lead beyond the slot. */
	return sizeof(*slot) + slot->length <= size &&
	       slot->checksum == checksum(slot);
}
