/* SPDX-License-Identifier: MIT */
/*
 * Segments as an enemy of the disk would have them.  The first byte of the
 * input says how:
 *
 *	0	the rest is a segment's bytes, and is read as such;
 *	1, 2	a segment (plain, sealed) is made, then patched: three bytes
 *		each say where and what;
 *	3	likewise, plain, and its end is what the input says: what a
 *		header that lies, but with the right sum, would do.
 *
 * Whatever is read is what was written there, or an error.
 */
#include "base/seal.h"
#include "fstest.h"
#include "tiers/segment.h"

enum {
	NR_RECORDS = 12,
	MAX_BYTES = 16384
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct made {
	struct tmem_tier_segment segment;
	uint32_t at[NR_RECORDS];
	char bytes[TMEM_SEGMENT_BYTES] __attribute__((aligned(4096)));
};

static struct tmem_record_info info_of(unsigned i)
{
	return (struct tmem_record_info){ .object = { { i, 2, 3 } },
					  .generation = i,
					  .index = i,
					  .length = (uint16_t)(1 + i * 97),
					  .form = 3 };
}

static void make(struct made *m, const struct tmem_seal *seal)
{
	struct tmem_segment_writer w;
	char page[PAGE];

	CHECK_EQ(tmem_segment_begin(&w, seal, 1, 2, m->bytes), 0);
	memset(w.segment.salt, 7, sizeof(w.segment.salt));
	for (unsigned i = 0; i < NR_RECORDS; i++) {
		struct tmem_record_info info = info_of(i);

		page_fill(page, i);
		m->at[i] = tmem_segment_add(&w, &info, page);
		CHECK(m->at[i] != 0);
	}
	tmem_segment_end(&w, &m->segment);
	CHECK(m->segment.bytes <= MAX_BYTES);
}

/* It read: then it is the one that was written there. */
static void must_be(const struct made *m, uint32_t at,
		    const struct tmem_record *rec)
{
	char page[PAGE];
	unsigned i = 0;

	while (i < NR_RECORDS && m->at[i] != at)
		i++;
	CHECK(i < NR_RECORDS);
	page_fill(page, i);
	CHECK(rec->info.length == info_of(i).length && rec->info.index == i &&
	      rec->info.object.word[0] == i);
	CHECK(memcmp(rec->data, page, rec->info.length) == 0);
}

/* By the walk, and at every place where one might be. */
static void read_all(const struct tmem_tier_segment *s,
		     const struct tmem_seal *seal, const char *bytes,
		     const struct made *m)
{
	struct tmem_record rec;
	uint32_t at = 0, n = 0;

	while ((at = tmem_segment_next(s, bytes, at)) != 0) {
		CHECK(at < s->end && n++ < s->end / TMEM_RECORD_ALIGN);
	}
	for (at = 0; at < s->end; at += TMEM_RECORD_ALIGN) {
		struct tmem_segment_range range = { bytes + at, at,
						    s->end - at };

		if (tmem_segment_read(s, seal, &range, &rec) == 0 && m)
			must_be(m, at, &rec);
	}
}

static void read_raw(const uint8_t *data, size_t size)
{
	struct tmem_tier_segment s;
	char *bytes;

	if (size < TMEM_SEGMENT_HEADER_BYTES)
		return;
	bytes = malloc(size);
	CHECK(bytes != NULL);
	memcpy(bytes, data, size);
	if (tmem_segment_read_header(bytes, NULL, &s) == 0 && s.bytes <= size) {
		tmem_segment_check_sum(&s, bytes);
		read_all(&s, NULL, bytes, NULL);
	}
	/* As if the header had been right. */
	s = (struct tmem_tier_segment){ .bytes = (uint32_t)size,
					.end = (uint32_t)size };
	read_all(&s, NULL, bytes, NULL);
	free(bytes);
}

static void read_patched(const struct made *m, const struct tmem_seal *seal,
			 const uint8_t *data, size_t size, bool lie)
{
	struct tmem_tier_segment s = m->segment, read;
	char *bytes;

	if (lie && size >= 2) {
		s.end = (uint32_t)(data[0] | data[1] << 8) % (s.bytes + 1);
		s.bytes = s.end;
		data += 2;
		size -= 2;
	}
	/* No more than there is, for ASan to see. */
	bytes = malloc(s.bytes + 1);
	CHECK(bytes != NULL);
	memcpy(bytes, m->bytes, s.bytes);
	for (; size >= 3; data += 3, size -= 3)
		if (s.bytes != 0)
			bytes[(data[0] | data[1] << 8) % s.bytes] =
				(char)data[2];
	if (!lie && tmem_segment_read_header(bytes, seal, &read) == 0)
		CHECK(memcmp(&read, &s, sizeof(s)) == 0);
	read_all(&s, seal, bytes, m);
	free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct made plain, sealed;
	static struct tmem_seal *seal;

	if (!seal) {
		struct tmem_seal_key key = {
			.cipher = TMEM_CIPHER_XCHACHA20POLY1305
		};

		CHECK_EQ(tmem_seal_create(&key, &seal), 0);
		make(&plain, NULL);
		make(&sealed, seal);
	}
	if (size == 0)
		return 0;
	switch (data[0] % 4) {
	case 0:
		read_raw(data + 1, size - 1);
		break;
	case 1:
		read_patched(&plain, NULL, data + 1, size - 1, false);
		break;
	case 2:
		read_patched(&sealed, seal, data + 1, size - 1, false);
		break;
	default:
		read_patched(&plain, NULL, data + 1, size - 1, true);
		break;
	}
	return 0;
}
