/* SPDX-License-Identifier: MIT */
/* Checksums of slots: XXH3 of the data, folded with a hash of the header. */
#include "slot.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/hash.h"

static uint32_t checksum(const struct tmem_slot *slot, uint64_t word)
{
	uint64_t name = (uint64_t)slot->object << 32 | slot->index;
	uint64_t shape = (uint64_t)slot->place << 16 | slot->length;
	uint64_t h = XXH3_64bits(slot->data, slot->length);

	h ^= tmem_hash_mix(name ^ TMEM_HASH_K0,
			   ((word & ~TMEM_SLOT_MARKS) + shape) ^ TMEM_HASH_K1);
	return (uint32_t)(h ^ h >> 32);
}

void tmem_slot_seal(struct tmem_slot *slot)
{
	slot->checksum = checksum(slot, slot->form_generation);
}

void tmem_slot_publish(struct tmem_slot *slot, uint64_t form_generation)
{
	slot->checksum = checksum(slot, form_generation);
	__atomic_store_n(&slot->form_generation, form_generation,
			 __ATOMIC_RELEASE);
}

void tmem_slot_copy(struct tmem_slot *to, const struct tmem_slot *from)
{
	memcpy(to, from, offsetof(struct tmem_slot, form_generation));
	memcpy(to->data, from->data, from->length);
	__atomic_store_n(&to->form_generation, tmem_slot_word(from),
			 __ATOMIC_RELEASE);
}

bool tmem_slot_is_whole(const struct tmem_slot *slot, unsigned size)
{
	/* A damaged length must not lead beyond the slot. */
	return sizeof(*slot) + slot->length <= size &&
	       slot->checksum == checksum(slot, tmem_slot_word(slot));
}
