/* SPDX-License-Identifier: MIT */
/*
 * A writer of segments is killed at random, again and again.  Whoever then
 * opens the file with the key, which outlived the writer in a memfd, finds
 * every segment that was answered, whole; of what was under way each record
 * is as it was written or is an error; and no dropped segment comes back
 * under a generation that the writer had left behind.
 *
 *	segment_kill [rounds [seed]]
 */
#include <signal.h>
#include <sys/wait.h>

#include "base/seal.h"
#include "base/sys.h"
#include "testfile.h"
#include "tiers/segment.h"

enum {
	SEG = TMEM_SEGMENT_BYTES,
	NR = 8
};

/* Shared with the writer: the generation that a number certainly has. */
struct shared {
	_Atomic uint32_t there[NR];   /* 0: dropped, or nothing is known */
	_Atomic uint32_t dropped[NR]; /* the newest that is certainly gone */
	_Atomic uint32_t written;
};

static struct shared *shared;
static const struct tmem_tier_ops *ops;
static int fd, key_fd;
static char *buffer;

static void *open_tier(bool keep)
{
	struct tmem_tier_options o = { .fd = fd,
				       .max_bytes = (uint64_t)NR * SEG,
				       .keep = keep };
	void *tier;

	CHECK_EQ(ops->open(&o, &tier), 0);
	return tier;
}

static uint64_t tag_of(uint32_t number, uint32_t generation, uint32_t index)
{
	return ((uint64_t)generation << 20) + (uint64_t)number * 1000 + index;
}

static void fill(struct tmem_segment_writer *w)
{
	uint32_t number = w->segment.number, at;
	char page[PAGE];

	for (uint32_t i = 0;; i++) {
		struct tmem_record_info info = {
			.index = i,
			.generation = w->segment.generation,
			.length = (uint16_t)(1000 + i * 31 % 3000),
			.form = 2,
		};

		page_fill(page, tag_of(number, w->segment.generation, i));
		at = tmem_segment_add(w, &info, page);
		if (at == 0)
			return;
	}
}

/* Until it is killed. */
static _Noreturn void write_for_ever(uint64_t seed)
{
	struct tmem_segment_writer w;
	struct tmem_tier_segment s;
	struct rng rng = { seed };
	struct tmem_seal *seal;
	void *tier = open_tier(true);

	CHECK_EQ(tmem_seal_restore(key_fd, &seal), 0);
	for (uint32_t n = 0; n < NR; n++)
		if (shared->there[n] == 0)
			ops->drop(tier, n);
	for (;;) {
		uint32_t n = (uint32_t)rng_below(&rng, NR);
		uint32_t generation = ++shared->written;
		struct tmem_tier_request q = { .segment = n, .buffer = buffer };

		if (shared->there[n] != 0) {
			uint32_t old = atomic_exchange(&shared->there[n], 0);

			CHECK_EQ(ops->drop(tier, n), 0);
			shared->dropped[n] = old;
		}
		CHECK_EQ(tmem_segment_begin(&w, seal, n, generation, buffer),
			 0);
		fill(&w);
		tmem_segment_end(&w, &s);
		q.bytes = s.bytes;
		CHECK_EQ(ops->write(tier, &q), 1);
		CHECK_EQ(tmem_tier_wait(ops, tier, &q), 0);
		shared->there[n] = generation;
	}
}

/* The records that can be read; each is right. */
static unsigned read_records(const struct tmem_tier_segment *s,
			     const struct tmem_seal *seal)
{
	struct tmem_record rec;
	unsigned n = 0;
	uint32_t at = 0;
	char page[PAGE];

	while ((at = tmem_segment_next(s, buffer, at)) != 0) {
		struct tmem_segment_range range = { buffer + at, at,
						    s->bytes - at };

		if (tmem_segment_read(s, seal, &range, &rec) < 0)
			continue;
		page_fill(page,
			  tag_of(s->number, s->generation, rec.info.index));
		CHECK(memcmp(page, rec.data, rec.info.length) == 0);
		CHECK(rec.info.generation == s->generation);
		n++;
	}
	return n;
}

static void check_segment(void *tier, const struct tmem_seal *seal, uint32_t n)
{
	struct tmem_tier_request q = { .segment = n,
				       .bytes = SEG,
				       .buffer = buffer },
				 *one = &q;
	uint32_t there = shared->there[n];
	struct tmem_tier_segment s;
	int r;

	CHECK_EQ(ops->read(tier, &one, 1), 1);
	CHECK_EQ(tmem_tier_wait(ops, tier, &q), 0);
	r = tmem_segment_read_header(buffer, seal, &s);
	if (r < 0) {
		CHECK_EQ(there, 0);
		return;
	}
	CHECK_EQ(s.number, n);
	CHECK(s.generation > shared->dropped[n]);
	CHECK(there == 0 || s.generation == there);
	r = tmem_segment_check_sum(&s, buffer);
	CHECK(r == 0 || there == 0);
	CHECK(read_records(&s, seal) == s.nr_records || r < 0);
}

static void play(uint64_t seed)
{
	struct rng rng = { seed };
	struct timespec ts = { 0, (long)rng_below(&rng, 12000000) };
	struct tmem_seal *seal;
	void *tier;
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid == 0)
		write_for_ever(seed);
	nanosleep(&ts, NULL);
	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(tmem_seal_restore(key_fd, &seal), 0);
	tier = open_tier(true);
	for (uint32_t n = 0; n < NR; n++)
		check_segment(tier, seal, n);
	ops->close(tier);
	tmem_seal_destroy(seal);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 40;
	uint64_t seed = seed_from(argc, argv, 2);
	struct tmem_seal_key key;
	struct tmem_seal *seal;

	CHECK_EQ(tmem_seal_draw(&key), 0);
	CHECK_EQ(tmem_seal_create(&key, &seal), 0);
	key_fd = tmem_seal_save(seal);
	CHECK(key_fd >= 0);
	tmem_seal_destroy(seal);
	buffer = pages_alloc(SEG / PAGE);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	for (unsigned t = 0; tmem_tiers[t]; t++) {
		ops = tmem_tiers[t];
		fd = testfile_disk();
		CHECK_EQ(ftruncate(fd, (off_t)NR * SEG), 0);
		memset(shared, 0, sizeof(*shared));
		for (unsigned i = 0; i < rounds; i++)
			play(seed + i);
		printf("%s: killed %u times, %u segments\n", ops->name, rounds,
		       shared->written);
		fflush(stdout);
		close(fd);
	}
	return 0;
}
