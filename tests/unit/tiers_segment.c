/* SPDX-License-Identifier: MIT */
/*
 * Segments: records read back one by one and by a walk, each bit counts, a
 * record moved or from another time is damaged, and the bytes of version 1
 * stay what they are.
 */
#include <xxhash.h>

#include "base/seal.h"
#include "fstest.h"
#include "tiers/segment.h"

enum {
	SEG = TMEM_SEGMENT_BYTES,
	MAX_RECORDS = SEG / TMEM_RECORD_HEADER_BYTES
};

static struct tmem_seal *seal;
static char *buffer;

struct filled {
	struct tmem_tier_segment segment;
	uint32_t at[MAX_RECORDS];
	unsigned nr;
};

static struct filled filled;

static struct tmem_record_info info_of(uint64_t tag)
{
	return (struct tmem_record_info){
		.object = { { tag, ~tag, tag * 3 } },
		.generation = tag << 20,
		.index = (uint32_t)tag * 7,
		.pool = (uint16_t)tag,
		.length = (uint16_t)(1 + tag * 2654435761u % TMEM_PAGE_SIZE),
		.form = (uint8_t)(1 + tag % 255),
	};
}

static bool same_info(const struct tmem_record_info *a,
		      const struct tmem_record_info *b)
{
	return memcmp(&a->object, &b->object, sizeof(a->object)) == 0 &&
	       a->generation == b->generation && a->index == b->index &&
	       a->pool == b->pool && a->length == b->length &&
	       a->form == b->form;
}

/* As full as it gets, or `max` records. */
static void fill(uint32_t number, uint32_t generation, unsigned max)
{
	struct tmem_segment_writer w;
	char page[PAGE];

	memset(buffer, 0xdb, SEG);
	filled.nr = 0;
	CHECK_EQ(tmem_segment_begin(&w, seal, number, generation, buffer), 0);
	while (filled.nr < max) {
		struct tmem_record_info info = info_of(filled.nr);
		uint32_t at;

		page_fill(page, filled.nr);
		at = tmem_segment_add(&w, &info, page);
		if (at == 0)
			break;
		CHECK(at % TMEM_RECORD_ALIGN == 0);
		filled.at[filled.nr++] = at;
	}
	tmem_segment_end(&w, &filled.segment);
	CHECK_EQ(filled.segment.nr_records, filled.nr);
	CHECK(filled.segment.bytes % 4096 == 0 && filled.segment.bytes <= SEG);
}

static int read_at(const struct tmem_tier_segment *s, uint32_t at,
		   struct tmem_record *rec)
{
	struct tmem_segment_range range = { buffer + at, at, s->bytes - at };

	return tmem_segment_read(s, seal, &range, rec);
}

static void records_read_back(void)
{
	struct tmem_tier_segment s;
	struct tmem_record rec;
	char page[PAGE];
	uint32_t at = 0;

	fill(5, 6, MAX_RECORDS);
	CHECK(filled.nr > 400);
	CHECK_EQ(tmem_segment_read_header(buffer, seal, &s), 0);
	CHECK(memcmp(&s, &filled.segment, sizeof(s)) == 0);
	CHECK_EQ(s.number, 5);
	CHECK_EQ(s.generation, 6);
	CHECK_EQ(tmem_segment_check_sum(&s, buffer), 0);
	for (unsigned i = 0; i < filled.nr; i++) {
		struct tmem_record_info info = info_of(i);

		at = tmem_segment_next(&s, buffer, at);
		CHECK_EQ(at, filled.at[i]);
		CHECK_EQ(read_at(&s, at, &rec), 0);
		CHECK(same_info(&rec.info, &info));
		page_fill(page, i);
		CHECK(memcmp(rec.data, page, info.length) == 0);
	}
	CHECK_EQ(tmem_segment_next(&s, buffer, at), 0);
}

/* Only what the record needs has to be read, at its own place. */
static void a_record_reads_from_its_own_bytes(void)
{
	struct tmem_record rec;
	char *copy = malloc(2 * PAGE);

	CHECK(copy != NULL);
	fill(1, 1, 50);
	for (unsigned i = 0; i < filled.nr; i++) {
		uint32_t n = tmem_record_bytes(info_of(i).length);
		struct tmem_segment_range range = { copy, filled.at[i], n };

		memcpy(copy, buffer + filled.at[i], n);
		CHECK_EQ(tmem_segment_read(&filled.segment, seal, &range, &rec),
			 0);
		range.nr_bytes--;
		CHECK_EQ(tmem_segment_read(&filled.segment, seal, &range, &rec),
			 -EIO);
		range.nr_bytes = 10;
		CHECK_EQ(tmem_segment_read(&filled.segment, seal, &range, &rec),
			 -EIO);
	}
	free(copy);
}

static void few_blocks_are_read_for_a_record(void)
{
	unsigned blocks = 0;

	fill(1, 1, MAX_RECORDS);
	for (unsigned i = 0; i < filled.nr; i++) {
		uint32_t n = tmem_record_bytes(info_of(i).length);
		uint32_t first = filled.at[i] / 4096;
		uint32_t last = (filled.at[i] + n - 1) / 4096;

		CHECK(last - first <= (n > 4096 ? 2 : 1));
		blocks += last - first + 1;
	}
	/* Padding costs less than a tenth. */
	CHECK(filled.nr * (2048 + 64) > SEG / 10 * 9);
	CHECK(blocks < filled.nr * 16 / 10);
}

static void every_byte_of_a_record_counts(void)
{
	struct tmem_record rec;

	fill(2, 3, 4);
	for (unsigned i = 0; i < filled.nr; i++) {
		uint32_t end =
			filled.at[i] + tmem_record_bytes(info_of(i).length);

		for (uint32_t at = filled.at[i]; at < end; at++) {
			buffer[at] ^= 0x40;
			CHECK_EQ(read_at(&filled.segment, filled.at[i], &rec),
				 -EIO);
			CHECK_EQ(
				tmem_segment_check_sum(&filled.segment, buffer),
				-EIO);
			buffer[at] ^= 0x40;
		}
		CHECK_EQ(read_at(&filled.segment, filled.at[i], &rec), 0);
	}
}

static void every_byte_of_the_header_counts(void)
{
	struct tmem_tier_segment s;

	fill(2, 3, 4);
	for (unsigned at = 0; at < TMEM_SEGMENT_HEADER_BYTES; at++) {
		buffer[at] ^= 0x40;
		CHECK(tmem_segment_read_header(buffer, seal, &s) < 0);
		buffer[at] ^= 0x40;
	}
	CHECK_EQ(tmem_segment_read_header(buffer, seal, &s), 0);
	buffer[0] ^= 1;
	CHECK_EQ(tmem_segment_read_header(buffer, seal, &s), -ENODATA);
	buffer[0] ^= 1;
	buffer[8] = 2;
	CHECK_EQ(tmem_segment_read_header(buffer, seal, &s), -EPROTONOSUPPORT);
	memset(buffer, 0, SEG);
	CHECK_EQ(tmem_segment_read_header(buffer, seal, &s), -ENODATA);
}

static void a_record_elsewhere_is_damaged(void)
{
	struct tmem_tier_segment first, other;
	struct tmem_record rec;
	char *copy = malloc(SEG);

	CHECK(copy != NULL);
	fill(2, 3, 200);
	first = filled.segment;
	memcpy(copy, buffer, SEG);
	/* Within its segment. */
	memcpy(buffer + filled.at[1], copy + filled.at[0],
	       tmem_record_bytes(info_of(0).length));
	CHECK_EQ(read_at(&first, filled.at[1], &rec), -EIO);
	memcpy(buffer, copy, SEG);
	/* As another segment's, or an older one's of that number. */
	other = first;
	other.number++;
	CHECK_EQ(read_at(&other, filled.at[0], &rec), -EIO);
	other = first;
	other.generation++;
	CHECK_EQ(read_at(&other, filled.at[0], &rec), -EIO);
	if (seal) {
		other = first;
		other.salt[9]++;
		CHECK_EQ(read_at(&other, filled.at[0], &rec), -EIO);
		/* The same again has other bytes. */
		fill(2, 3, 200);
		CHECK(memcmp(buffer + filled.at[0] + 24,
			     copy + filled.at[0] + 24, 40) != 0);
	}
	free(copy);
}

static void a_seal_is_not_taken_for_none(void)
{
	struct tmem_seal *saved = seal;
	struct tmem_tier_segment s;
	struct tmem_record rec;

	if (!seal)
		return;
	fill(2, 3, 3);
	s = filled.segment;
	seal = NULL;
	CHECK_EQ(tmem_segment_read_header(buffer, seal, &s), -EIO);
	CHECK_EQ(read_at(&filled.segment, filled.at[0], &rec), -EIO);
	seal = saved;
}

static void an_empty_segment_is_one(void)
{
	struct tmem_tier_segment s;

	fill(9, 9, 0);
	CHECK_EQ(tmem_segment_read_header(buffer, seal, &s), 0);
	CHECK_EQ(s.bytes, 4096);
	CHECK_EQ(s.nr_records, 0);
	CHECK_EQ(tmem_segment_check_sum(&s, buffer), 0);
	CHECK_EQ(tmem_segment_next(&s, buffer, 0), 0);
}

/* No byte of what was in the buffer before gets into the file. */
static void what_was_in_the_buffer_is_not_written(void)
{
	unsigned run = 0;

	fill(1, 1, 300);
	for (uint32_t i = 0; i < filled.segment.bytes; i++) {
		run = (unsigned char)buffer[i] == 0xdb ? run + 1 : 0;
		CHECK(run < 8);
	}
}

/* Neither of what a page is nor of what it is called. */
static void nothing_sealed_can_be_read(void)
{
	static const char words[] = "words of a page!";
	struct tmem_record_info info = info_of(3);
	struct tmem_segment_writer w;
	struct tmem_tier_segment s;
	char page[PAGE];

	memset(page, 'x', sizeof(page));
	memcpy(page + 500, words, 16);
	info.length = PAGE;
	info.object.word[1] = 0x1122334455667788ull;
	CHECK_EQ(tmem_segment_begin(&w, seal, 1, 1, buffer), 0);
	CHECK(tmem_segment_add(&w, &info, page) != 0);
	tmem_segment_end(&w, &s);
	CHECK_EQ(memmem(buffer, s.bytes, words, 16) == NULL, seal != NULL);
	CHECK_EQ(memmem(buffer, s.bytes, &info.object.word[1], 8) == NULL,
		 seal != NULL);
}

/* With fixed key and salt the bytes are the format's. */
static void version_one_has_these_bytes(uint64_t expected)
{
	struct tmem_segment_writer w;
	struct tmem_tier_segment s;
	char page[PAGE];

	memset(buffer, 0, SEG);
	CHECK_EQ(tmem_segment_begin(&w, seal, 11, 12, buffer), 0);
	for (unsigned i = 0; i < sizeof(w.segment.salt); i++)
		w.segment.salt[i] = (uint8_t)(200 + i);
	for (unsigned i = 0; i < 100; i++) {
		struct tmem_record_info info = info_of(i);

		page_fill(page, i);
		CHECK(tmem_segment_add(&w, &info, page) != 0);
	}
	tmem_segment_end(&w, &s);
	if (XXH3_64bits(buffer, s.bytes) != expected)
		fprintf(stderr, "bytes: %#llx\n",
			(unsigned long long)XXH3_64bits(buffer, s.bytes));
	CHECK(XXH3_64bits(buffer, s.bytes) == expected);
}

static void run_all(uint64_t golden)
{
	RUN(records_read_back);
	RUN(a_record_reads_from_its_own_bytes);
	RUN(few_blocks_are_read_for_a_record);
	RUN(every_byte_of_a_record_counts);
	RUN(every_byte_of_the_header_counts);
	RUN(a_record_elsewhere_is_damaged);
	RUN(a_seal_is_not_taken_for_none);
	RUN(an_empty_segment_is_one);
	RUN(what_was_in_the_buffer_is_not_written);
	RUN(nothing_sealed_can_be_read);
	version_one_has_these_bytes(golden);
}

int main(void)
{
	static const uint64_t golden[3] = { 0xafd7024336ba5d07ull,
					    0x7420a4e78dbfe05bull,
					    0xf20ca8feb554f26ull };
	struct tmem_seal_key key = { .cipher = TMEM_CIPHER_NONE };

	buffer = aligned_alloc(4096, SEG);
	CHECK(buffer != NULL);
	for (unsigned i = 0; i < sizeof(key.key); i++)
		key.key[i] = (uint8_t)i;
	run_all(golden[0]);
	for (key.cipher = 1; key.cipher <= 2; key.cipher++) {
		if (tmem_seal_can(key.cipher) < 0)
			continue;
		fprintf(stderr, "  cipher %u\n", key.cipher);
		CHECK_EQ(tmem_seal_create(&key, &seal), 0);
		run_all(golden[key.cipher]);
		tmem_seal_destroy(seal);
	}
	free(buffer);
	return 0;
}
