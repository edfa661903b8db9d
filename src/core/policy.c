/* SPDX-License-Identifier: MIT */
/* Poorly compressible pages; the policy is in policy.h. */
#include "policy.h"

#include <stdatomic.h>
#include <string.h>

#include "base/hash.h"
#include "tmem/tmem.h"

enum {
	FULL_MAX_LENGTH = 2560,
	SAMPLES = 16,
	SAMPLE_STEP = TMEM_PAGE_SIZE / SAMPLES,
	LENGTH_UNIT = 16,
	LENGTH_MASK = 0xff
};

unsigned tmem_policy_max_length(uint64_t held_bytes, uint64_t limit_bytes)
{
	uint64_t half = limit_bytes / 2, beyond;

	if (held_bytes <= half)
		return TMEM_POLICY_MAX_LENGTH;
	beyond = held_bytes >= limit_bytes ? half : held_bytes - half;
	/* In 1/1024 of the upper half: no overflow for any real limit. */
	beyond = beyond * 1024 / (half ? half : 1);
	return (unsigned)(TMEM_POLICY_MAX_LENGTH -
			  beyond * (TMEM_POLICY_MAX_LENGTH - FULL_MAX_LENGTH) /
				  1024);
}

bool tmem_policy_takes_raw(uint64_t held_bytes, uint64_t limit_bytes)
{
	return held_bytes <= limit_bytes / 2;
}

uint64_t tmem_policy_sample(const void *page)
{
	const char *p = page;
	uint64_t hash = 0, word;
	unsigned i;

	/* Not at one place in each step: columns of a table must not decide. */
	for (i = 0; i < SAMPLES; i++) {
		memcpy(&word, p + (size_t)i * SAMPLE_STEP + i * 8 % SAMPLE_STEP,
		       sizeof(word));
		hash = tmem_hash_more(hash, word);
	}
	return hash;
}

static _Atomic uint32_t *entry_of(const struct tmem_policy *policy,
				  uint64_t sample)
{
	size_t i = sample % TMEM_POLICY_ENTRIES;

	return (_Atomic uint32_t *)&policy->hopeless[i];
}

static uint32_t fingerprint(uint64_t sample)
{
	return (uint32_t)(sample >> 32) & ~(uint32_t)LENGTH_MASK;
}

bool tmem_policy_is_hopeless(const struct tmem_policy *policy, uint64_t sample,
			     unsigned length)
{
	uint32_t entry = atomic_load_explicit(entry_of(policy, sample),
					      memory_order_relaxed);

	return entry &&
	       (entry & ~(uint32_t)LENGTH_MASK) == fingerprint(sample) &&
	       (entry & LENGTH_MASK) * LENGTH_UNIT >= length;
}

void tmem_policy_remember(struct tmem_policy *policy, uint64_t sample,
			  unsigned length)
{
	/* At least 1, so that no entry is 0; rounded down: a longer form may
	 * just fit. */
	uint32_t units = length / LENGTH_UNIT;

	atomic_store_explicit(entry_of(policy, sample),
			      fingerprint(sample) | (units ? units : 1),
			      memory_order_relaxed);
}
