/* SPDX-License-Identifier: MIT */
/*
 * The policy for pages that compress poorly.
 *
 *  - Up to half of the limit there is room to spare: a page whose compressed
 *    form is longer than 7/8 of a page is stored raw (unless the store was
 *    opened with `no_raw`), anything shorter compressed.
 *  - Beyond, no page is stored raw, and the longest accepted form shrinks in
 *    proportion, from 7/8 of a page at half full to 5/8 at full: the space
 *    that is left goes to the pages that gain most from it.
 *  - A page that was too long is remembered by a fingerprint of sampled words
 *    together with the length that it exceeds, in a small table.  Offered
 *    again, unchanged or elsewhere, it is not compressed until the store
 *    would take that length.  A new page overwrites an old one's entry, so
 *    the memory decays.
 *
 * The table is read and written without a lock, one word an entry.  A wrong
 * hit (two pages with equal samples and equal fingerprints) refuses a page
 * that would have compressed: allowed, and rare.
 */
#ifndef TMEM_CORE_POLICY_H
#define TMEM_CORE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum {
	TMEM_POLICY_ENTRIES = 2048,
	TMEM_POLICY_MAX_LENGTH = 3584
};

struct tmem_policy {
	/* Fingerprint in the upper 24 bits, length / 16 below; 0: none. */
	_Atomic uint32_t hopeless[TMEM_POLICY_ENTRIES];
};

/* The longest compressed form that is accepted now. */
unsigned tmem_policy_max_length(uint64_t held_bytes, uint64_t limit_bytes);
/* Whether a page that does not compress may be stored raw now. */
bool tmem_policy_takes_raw(uint64_t held_bytes, uint64_t limit_bytes);

/* A fingerprint of the page, from words all over it. */
uint64_t tmem_policy_sample(const void *page);
/* True if that page is known to be longer than `length` when compressed. */
bool tmem_policy_is_hopeless(const struct tmem_policy *policy, uint64_t sample,
			     unsigned length);
void tmem_policy_remember(struct tmem_policy *policy, uint64_t sample,
			  unsigned length);

#endif
