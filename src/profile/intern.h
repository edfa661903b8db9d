/* SPDX-License-Identifier: MIT */
/*
 * Numbers for bytes: equal bytes have the same one, from 0 on, and with each
 * goes a record of the owner's, zero at first.
 *
 *   N1  The slots hold the numbers + 1 of all entries, each once; at least half
 *       of the slots are free.
 */
#ifndef TMEM_PROFILE_INTERN_H
#define TMEM_PROFILE_INTERN_H

#include <stddef.h>
#include <stdint.h>

enum {
	TMEM_INTERN_NONE = UINT32_MAX,
	TMEM_INTERN_MAX = 1 << 17 /* entries */
};

struct tmem_intern_key {
	void *key;
	size_t bytes;
	uint64_t hash;
};

/* All zero but `record_bytes`: empty. */
struct tmem_intern {
	size_t record_bytes;
	struct tmem_intern_key *keys;
	uint8_t *records;
	uint32_t *slots;
	uint32_t nr_slots;
	uint32_t nr;
};

void tmem_intern_fini(struct tmem_intern *intern);

/* The number of these bytes; TMEM_INTERN_NONE: no memory, or too many. */
uint32_t tmem_intern_add(struct tmem_intern *intern, const void *key,
			 size_t bytes);

/* Good until the next number is given. */
static inline void *tmem_intern_record(const struct tmem_intern *intern,
				       uint32_t nr)
{
	return intern->records + nr * intern->record_bytes;
}

#endif
