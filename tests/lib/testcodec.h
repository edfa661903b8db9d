/* SPDX-License-Identifier: MIT */
/*
 * What the tests of codecs and dictionaries share: pages that have something
 * in common with each other, dictionaries made of them, and buffers that end
 * where memory ends, as the codecs' libraries know no sanitizer.
 */
#ifndef TESTCODEC_H
#define TESTCODEC_H

#include "codecs/dict.h"
#include "fstest.h"

/* Records of a few fields, with words from a small list and some noise. */
static inline void page_of_records(void *page, struct rng *rng)
{
	static const char *const words[] = {
		"session", "customer", "address",   "telephone",   "quantity",
		"invoice", "delivery", "reference", "example.org", "confirmed",
	};
	char *p = page, line[128];
	size_t at = 0, n;

	while (at < PAGE) {
		n = (size_t)snprintf(line, sizeof(line),
				     "{\"id\": %u, \"%s\": \"%s %s\", "
				     "\"token\": \"%llx\"}\n",
				     (unsigned)rng_below(rng, 1u << 20),
				     words[rng_below(rng, 10)],
				     words[rng_below(rng, 10)],
				     words[rng_below(rng, 10)],
				     (unsigned long long)rng_next(rng));
		if (n > PAGE - at)
			n = PAGE - at;
		memcpy(p + at, line, n);
		at += n;
	}
}

/* A dictionary of `bytes` made of records, in memory of its own. */
static inline const struct tmem_dict *dict_of_records(unsigned bytes,
						      uint64_t seed)
{
	unsigned nr = (unsigned)(bytes / PAGE + 1), i;
	void *memory = aligned_alloc(
		64, tmem_dict_bytes(bytes, TMEM_DICT_LZ4 | TMEM_DICT_ZSTD));
	char *content = pages_alloc(nr);
	const struct tmem_dict *dict;
	struct rng rng = { seed };

	CHECK(memory != NULL);
	for (i = 0; i < nr; i++)
		page_of_records(content + i * PAGE, &rng);
	CHECK_EQ(tmem_dict_build(memory, content, bytes,
				 TMEM_DICT_LZ4 | TMEM_DICT_ZSTD, &dict),
		 0);
	pages_free(content, nr);
	return dict;
}

/* It lies at the start of its memory. */
static inline void dict_free(const struct tmem_dict *dict)
{
	free((void *)dict);
}

/* Pages with an unmapped one before and after. */
static inline char *guarded_alloc(unsigned nr)
{
	char *p = pages_alloc(nr + 2);

	CHECK_EQ(munmap(p, PAGE), 0);
	CHECK_EQ(munmap(p + (nr + 1) * PAGE, PAGE), 0);
	return p + PAGE;
}

#endif
