/* SPDX-License-Identifier: MIT */
/* See intern.h. */
#include "profile/intern.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum {
	FIRST_SLOTS = 256
};

void tmem_intern_fini(struct tmem_intern *intern)
{
	uint32_t i;

	for (i = 0; i < intern->nr; i++)
		free(intern->keys[i].key);
	free(intern->keys);
	free(intern->records);
	free(intern->slots);
}

/* Where the number of this key is, or belongs. */
static uint32_t *slot_of(const struct tmem_intern *t, const void *key,
			 size_t bytes, uint64_t hash)
{
	uint32_t i = (uint32_t)hash & (t->nr_slots - 1);
	const struct tmem_intern_key *k;

	for (; t->slots[i]; i = (i + 1) & (t->nr_slots - 1)) {
		k = &t->keys[t->slots[i] - 1];
		if (k->hash == hash && k->bytes == bytes &&
		    memcmp(k->key, key, bytes) == 0)
			break;
	}
	return &t->slots[i];
}

/* Room for one more: N1. */
static bool has_room(struct tmem_intern *t)
{
	uint32_t i, max = t->nr_slots ? 2 * t->nr_slots : FIRST_SLOTS;
	uint32_t *slots;
	void *more;

	if (2 * (t->nr + 1) <= t->nr_slots)
		return true;
	more = realloc(t->keys, max / 2 * sizeof(*t->keys));
	if (!more)
		return false;
	t->keys = more;
	/* Never of no bytes, which would free it. */
	more = realloc(t->records, max / 2 * t->record_bytes + 1);
	if (!more)
		return false;
	t->records = more;
	slots = calloc(max, sizeof(*slots));
	if (!slots)
		return false;
	free(t->slots);
	t->slots = slots;
	t->nr_slots = max;
	for (i = 0; i < t->nr; i++)
		*slot_of(t, t->keys[i].key, t->keys[i].bytes, t->keys[i].hash) =
			i + 1;
	return true;
}

static uint64_t hash_of(const void *key, size_t bytes)
{
	const uint8_t *at = key;
	uint64_t h = bytes;

	while (bytes--)
		h = tmem_hash_more(h, *at++);
	return h;
}

uint32_t tmem_intern_add(struct tmem_intern *intern, const void *key,
			 size_t bytes)
{
	uint64_t hash = hash_of(key, bytes);
	uint32_t nr = intern->nr, *slot;
	void *copy;

	if (!has_room(intern))
		return TMEM_INTERN_NONE;
	slot = slot_of(intern, key, bytes, hash);
	if (*slot)
		return *slot - 1;
	copy = nr < TMEM_INTERN_MAX ? malloc(bytes) : NULL;
	if (!copy)
		return TMEM_INTERN_NONE;
	memcpy(copy, key, bytes);
	intern->keys[nr] = (struct tmem_intern_key){ copy, bytes, hash };
	memset(tmem_intern_record(intern, nr), 0, intern->record_bytes);
	*slot = nr + 1;
	intern->nr++;
	return nr;
}
