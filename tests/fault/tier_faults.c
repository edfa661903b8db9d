/* SPDX-License-Identifier: MIT */
/*
 * The n-th system call fails, for n = 1, 2, 3... until the scenario gets
 * through: a tier is opened, segments of sealed records are written, read,
 * dropped and written again, and it is closed.  After each: what was answered
 * 0 reads back, what was not is not there, and neither memory nor descriptors
 * are left behind.
 */
#include "base/seal.h"
#include "faultsys.h"
#include "testfile.h"
#include "testproc.h"
#include "tiers/segment.h"

enum {
	SEG = TMEM_SEGMENT_BYTES,
	NR = 3,
	RECORDS = 40
};

struct scene {
	const struct tmem_tier_ops *ops;
	void *tier;
	struct tmem_seal *seal;
	int fd;
	struct tmem_tier_segment segments[NR];
	uint32_t at[NR][RECORDS];
	bool there[NR];
	uint32_t generation;
};

static char *buffer;

/* A result other than 0 has its reason. */
static bool went_well(int r)
{
	CHECK(r == 0 || faultsys_struck() != 0);
	return r == 0;
}

static void put(struct scene *s, uint32_t number)
{
	struct tmem_tier_request q = { .segment = number, .buffer = buffer };
	struct tmem_segment_writer w;
	char page[PAGE];

	if (!went_well(tmem_segment_begin(&w, s->seal, number, ++s->generation,
					  buffer)))
		return;
	for (unsigned i = 0; i < RECORDS; i++) {
		struct tmem_record_info info = { .index = i,
						 .length = PAGE,
						 .form = 1,
						 .generation = s->generation };

		page_fill(page, number * 1000 + i);
		s->at[number][i] = tmem_segment_add(&w, &info, page);
	}
	tmem_segment_end(&w, &s->segments[number]);
	q.bytes = s->segments[number].bytes;
	while (s->ops->write(s->tier, &q) == 0)
		s->ops->poll(s->tier, NULL, tmem_sys_now_ns() + 1000000);
	s->there[number] = went_well(tmem_tier_wait(s->ops, s->tier, &q));
}

static void get(struct scene *s, uint32_t number, unsigned i)
{
	char bytes[PAGE + TMEM_RECORD_HEADER_BYTES];
	struct tmem_tier_request q = { .segment = number,
				       .offset = s->at[number][i],
				       .bytes = sizeof(bytes),
				       .buffer = bytes },
				 *one = &q;
	struct tmem_segment_range range = { bytes, q.offset, q.bytes };
	struct tmem_record rec;
	int r;

	while (s->ops->read(s->tier, &one, 1) == 0)
		s->ops->poll(s->tier, NULL, tmem_sys_now_ns() + 1000000);
	r = tmem_tier_wait(s->ops, s->tier, &q);
	if (!s->there[number]) {
		CHECK(r == -ENODATA || faultsys_struck() != 0);
		return;
	}
	if (!went_well(r))
		return;
	CHECK_EQ(tmem_segment_read(&s->segments[number], s->seal, &range, &rec),
		 0);
	CHECK(rec.info.index == i && page_is(rec.data, number * 1000 + i));
}

static void get_all(struct scene *s)
{
	for (uint32_t number = 0; number < NR; number++)
		for (unsigned i = 0; i < RECORDS; i += 13)
			get(s, number, i);
}

static void use(struct scene *s)
{
	for (uint32_t number = 0; number < NR; number++)
		put(s, number);
	get_all(s);
	for (uint32_t number = 0; number < NR; number += 2) {
		int r = s->ops->drop(s->tier, number);

		CHECK_EQ(r, s->there[number] ? 0 : -ENODATA);
		s->there[number] = false;
	}
	put(s, 2);
	get_all(s);
}

/* True if a call was struck. */
static bool play(const struct tmem_tier_ops *ops, bool no_uring)
{
	struct scene s = { .ops = ops, .fd = testfile_ram() };
	struct tmem_tier_options o = { .fd = s.fd,
				       .max_bytes = (uint64_t)NR * SEG,
				       .depth = 2,
				       .no_uring = no_uring };
	struct tmem_seal_key key = { .cipher = 0 };
	bool opened = false;
	unsigned long struck;

	if (went_well(tmem_seal_draw(&key)) &&
	    went_well(tmem_seal_create(&key, &s.seal)))
		opened = went_well(ops->open(&o, &s.tier));
	if (opened)
		use(&s);
	struck = faultsys_struck();
	faultsys_arm(0, 0, 0);
	if (opened) {
		get_all(&s);
		ops->close(s.tier);
	}
	tmem_seal_destroy(s.seal);
	close(s.fd);
	return struck != 0;
}

static void loop(const struct tmem_tier_ops *ops, bool no_uring, int result,
		 int sticky)
{
	unsigned long n = 1, pages, descriptors;

	play(ops, no_uring);
	pages = address_space();
	descriptors = open_descriptors();
	for (;; n++) {
		faultsys_arm(n, result, sticky);
		if (!play(ops, no_uring))
			break;
		CHECK_EQ(open_descriptors(), descriptors);
		CHECK_EQ(address_space(), pages);
	}
	printf("%s%s, %s%s: %lu calls failed\n", ops->name,
	       no_uring ? ", pread" : "",
	       result < 0 ? strerror(-result) : "short",
	       sticky ? ", and all that follow" : "", n - 1);
	fflush(stdout);
	CHECK(n > 20);
}

int main(void)
{
	static const int results[] = { -EIO,   -ENOSPC, -ENOMEM,
				       -EPERM, -EINTR,	FAULTSYS_SHORT };

	buffer = pages_alloc(SEG / PAGE);
	for (unsigned i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
		for (unsigned way = 0; way < 3; way++) {
			const struct tmem_tier_ops *ops =
				way == 2 ? &tmem_tier_mapped : &tmem_tier_file;

			loop(ops, way == 1, results[i], 0);
			/* What is interrupted for ever never ends. */
			if (results[i] < 0 && results[i] != -EINTR)
				loop(ops, way == 1, results[i], 1);
		}
	}
	pages_free(buffer, SEG / PAGE);
	return 0;
}
