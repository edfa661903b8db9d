/* SPDX-License-Identifier: MIT */
/*
 * tier_bench [--dir DIR] [--segments N] [--rounds N] [--json]
 *
 * What a tier costs, with encryption and without, paired in one run: each
 * round measures every row once, and the figures are medians of the rounds.
 *   seal    encrypting and decrypting one 4 KiB page, by both ciphers (ns of
 *           CPU time), and a checksum of it (XXH3) for scale;
 *   write   N segments of 1 MiB of sealed records, four in flight, from pages
 *           to the last answer (MiB/s of the clock), making them included;
 *   read    one record of 2 KiB at random, made a page again (us, p50, p99);
 *   batch   16 records in a row, one call (us for each).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/seal.h"
#include "base/sys.h"
#include "tiers/segment.h"

enum {
	SEG = TMEM_SEGMENT_BYTES,
	PAGE = TMEM_PAGE_SIZE,
	MAX_ROUNDS = 51,
	MAX_SEGMENTS = 4096,
	RECORD_BYTES = 2048,
	IN_FLIGHT = 4,
	READS = 400,
	BATCH = 16,
	MAX_RECORDS = SEG / RECORD_BYTES
};

/* What was written: where the records are. */
static struct tmem_tier_segment segments[MAX_SEGMENTS];
static uint32_t record_at[MAX_RECORDS];
static unsigned nr_records;
static unsigned nr_segments = 64;
static bool json;
static uint64_t state = 1;

static _Noreturn void fail(const char *what, int r)
{
	fprintf(stderr, "tier_bench: %s: %s\n", what, strerror(-r));
	exit(1);
}

static uint64_t next_random(void)
{
	uint64_t z = state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	return z ^ z >> 29;
}

static double cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double percentile(double *values, unsigned nr, double part)
{
	qsort(values, nr, sizeof(*values), compare);
	return values[(unsigned)((nr - 1) * part)];
}

static struct tmem_seal *seal_of(enum tmem_cipher cipher)
{
	struct tmem_seal_key key = { .cipher = cipher };
	struct tmem_seal *seal = NULL;

	if (tmem_seal_can(cipher) < 0 ||
	    tmem_seal_random(key.key, sizeof(key.key)) < 0 ||
	    tmem_seal_create(&key, &seal) < 0)
		return NULL;
	return seal;
}

/* ns a page: encrypted, or decrypted. */
static double time_seal(const struct tmem_seal *seal, bool decrypt)
{
	static char page[PAGE], to[PAGE];
	struct tmem_seal_text text = { .from = page, .to = to, .bytes = PAGE };
	uint8_t tag[TMEM_SEAL_TAG_BYTES];
	const unsigned times = 2000;
	double start;

	tmem_seal_encrypt(seal, &text, tag);
	if (decrypt) {
		text.from = to;
		text.to = page;
	}
	start = cpu_ns();
	for (unsigned i = 0; i < times; i++) {
		if (!decrypt)
			tmem_seal_encrypt(seal, &text, tag);
		else if (tmem_seal_decrypt(seal, &text, tag) < 0)
			fail("decrypt", -EIO);
	}
	return (cpu_ns() - start) / times;
}

static double time_sum(void)
{
	static char page[PAGE];
	const unsigned times = 2000;
	double start = cpu_ns();
	uint64_t sum = 0;

	for (unsigned i = 0; i < times; i++)
		sum += page[i % PAGE] = (char)XXH3_64bits(page, PAGE);
	__asm__ volatile("" : : "r"(sum));
	return (cpu_ns() - start) / times;
}

static void bench_seal(unsigned rounds)
{
	static const char *const names[] = { "", "AES-256-GCM",
					     "XChaCha20-Poly1305" };
	double e[MAX_ROUNDS], d[MAX_ROUNDS];

	for (unsigned c = 1; c <= 2; c++) {
		struct tmem_seal *seal = seal_of(c);

		for (unsigned i = 0; seal && i < rounds; i++) {
			e[i] = time_seal(seal, false);
			d[i] = time_seal(seal, true);
		}
		if (seal)
			printf(json ? "\"%s\": {\"encrypt_ns\": %.0f, "
				      "\"decrypt_ns\": %.0f}, "
				    : "%-20s encrypt %6.0f ns, decrypt %6.0f "
				      "ns a page\n",
			       names[c], percentile(e, rounds, 0.5),
			       percentile(d, rounds, 0.5));
		tmem_seal_destroy(seal);
	}
	for (unsigned i = 0; i < rounds; i++)
		e[i] = time_sum();
	printf(json ? "\"%s\": {\"ns\": %.0f}"
		    : "%-20s         %6.0f ns a page\n",
	       "XXH3-64", percentile(e, rounds, 0.5));
}

static uint32_t make_segment(const struct tmem_seal *seal, uint32_t number,
			     void *buffer, const char *page)
{
	struct tmem_record_info info = { .length = RECORD_BYTES, .form = 2 };
	struct tmem_segment_writer w;
	uint32_t at;

	if (tmem_segment_begin(&w, seal, number, 1, buffer) < 0)
		fail("getrandom", -EIO);
	nr_records = 0;
	while ((at = tmem_segment_add(&w, &info, page)) != 0) {
		record_at[nr_records++] = at;
		info.index++;
	}
	tmem_segment_end(&w, &segments[number]);
	return segments[number].bytes;
}

static void end_write(const struct tmem_tier_ops *ops, void *tier,
		      const struct tmem_tier_request *q)
{
	int r;

	if (q->state == TMEM_TIER_IDLE)
		return;
	r = tmem_tier_wait(ops, tier, q);
	if (r < 0)
		fail("write", r);
}

/* MiB/s. */
static double write_all(const struct tmem_tier_ops *ops, void *tier,
			const struct tmem_seal *seal)
{
	static char buffers[IN_FLIGHT][SEG] __attribute__((aligned(4096)));
	struct tmem_tier_request q[IN_FLIGHT] = { 0 };
	uint64_t start = tmem_sys_now_ns(), bytes = 0;
	char page[RECORD_BYTES];

	memset(page, 0x5a, sizeof(page));
	for (unsigned n = 0; n < nr_segments; n++) {
		unsigned i = n % IN_FLIGHT;

		end_write(ops, tier, &q[i]);
		q[i] = (struct tmem_tier_request){ .segment = n,
						   .buffer = buffers[i] };
		q[i].bytes = make_segment(seal, n, buffers[i], page);
		bytes += q[i].bytes;
		while (ops->write(tier, &q[i]) == 0)
			ops->poll(tier, NULL, tmem_sys_now_ns() + 1000000);
	}
	for (unsigned i = 0; i < IN_FLIGHT; i++)
		end_write(ops, tier, &q[i]);
	return (double)bytes / SEG /
	       ((double)(tmem_sys_now_ns() - start) / 1e9);
}

/* us for each of `nr` records in a row. */
static double read_some(const struct tmem_tier_ops *ops, void *tier,
			const struct tmem_seal *seal, unsigned nr)
{
	static char bytes[BATCH][RECORD_BYTES + TMEM_RECORD_HEADER_BYTES];
	struct tmem_tier_request q[BATCH] = { 0 }, *p[BATCH];
	uint32_t segment = (uint32_t)(next_random() % nr_segments);
	unsigned first = (unsigned)(next_random() % (nr_records - nr));
	uint64_t start = tmem_sys_now_ns();
	struct tmem_record rec;

	for (unsigned i = 0; i < nr; i++) {
		q[i].segment = segment;
		q[i].offset = record_at[first + i];
		q[i].bytes = sizeof(bytes[i]);
		q[i].buffer = bytes[i];
		p[i] = &q[i];
	}
	if (ops->read(tier, p, nr) != (int)nr)
		fail("read", -EAGAIN);
	for (unsigned i = 0; i < nr; i++) {
		struct tmem_segment_range range = { bytes[i], q[i].offset,
						    q[i].bytes };
		int r = tmem_tier_wait(ops, tier, &q[i]);

		if (r == 0)
			r = tmem_segment_read(&segments[segment], seal, &range,
					      &rec);
		if (r < 0)
			fail("read", r);
	}
	return (double)(tmem_sys_now_ns() - start) / 1e3 / nr;
}

struct row {
	const char *name;
	const struct tmem_tier_ops *ops;
	enum tmem_cipher cipher;
	bool no_uring;
	struct tmem_seal *seal;
	double write[MAX_ROUNDS];
	double read50[MAX_ROUNDS];
	double read99[MAX_ROUNDS];
	double batch[MAX_ROUNDS];
};

static void measure(struct row *row, int fd, unsigned round)
{
	struct tmem_tier_options o = { .fd = fd,
				       .max_bytes = (uint64_t)nr_segments * SEG,
				       .no_uring = row->no_uring };
	double us[READS], batch[READS / BATCH];
	void *tier;
	int r = row->ops->open(&o, &tier);

	if (r < 0)
		fail("open", r);
	row->write[round] = write_all(row->ops, tier, row->seal);
	for (unsigned i = 0; i < READS; i++)
		us[i] = read_some(row->ops, tier, row->seal, 1);
	for (unsigned i = 0; i < READS / BATCH; i++)
		batch[i] = read_some(row->ops, tier, row->seal, BATCH);
	row->read50[round] = percentile(us, READS, 0.5);
	row->read99[round] = percentile(us, READS, 0.99);
	row->batch[round] = percentile(batch, READS / BATCH, 0.5);
	for (uint32_t n = 0; n < nr_segments; n++)
		row->ops->drop(tier, n);
	row->ops->close(tier);
}

static void bench_tiers(const char *dir, unsigned rounds)
{
	static struct row rows[] = {
		{ "file, plain", &tmem_tier_file, TMEM_CIPHER_NONE, false },
		{ "file, AES", &tmem_tier_file, TMEM_CIPHER_AES256GCM, false },
		{ "file, XChaCha", &tmem_tier_file,
		  TMEM_CIPHER_XCHACHA20POLY1305, false },
		{ "file, pread, plain", &tmem_tier_file, TMEM_CIPHER_NONE,
		  true },
		{ "file, pread, AES", &tmem_tier_file, TMEM_CIPHER_AES256GCM,
		  true },
		{ "mapped, plain", &tmem_tier_mapped, TMEM_CIPHER_NONE, false },
		{ "mapped, AES", &tmem_tier_mapped, TMEM_CIPHER_AES256GCM,
		  false },
	};
	const unsigned nr = sizeof(rows) / sizeof(rows[0]);
	int fd = tmem_tier_create(dir);

	if (fd < 0)
		fail(dir, fd);
	for (unsigned i = 0; i < nr; i++)
		if (rows[i].cipher != TMEM_CIPHER_NONE)
			rows[i].seal = seal_of(rows[i].cipher);
	for (unsigned round = 0; round < rounds; round++)
		for (unsigned i = 0; i < nr; i++)
			measure(&rows[i], fd, round);
	for (unsigned i = 0; i < nr; i++) {
		struct row *r = &rows[i];

		printf(json ? ", \"%s\": {\"write_mib_s\": %.0f, "
			      "\"read_us\": %.1f, \"read_p99_us\": %.1f, "
			      "\"batch_read_us\": %.1f}"
			    : "%-20s write %6.0f MiB/s, read %6.1f us (p99 "
			      "%6.1f), in a batch %6.1f us\n",
		       r->name, percentile(r->write, rounds, 0.5),
		       percentile(r->read50, rounds, 0.5),
		       percentile(r->read99, rounds, 0.5),
		       percentile(r->batch, rounds, 0.5));
		tmem_seal_destroy(r->seal);
	}
	close(fd);
}

static unsigned number(const char *text, unsigned max)
{
	unsigned long n = text ? strtoul(text, NULL, 10) : 0;

	if (n == 0 || n > max) {
		fprintf(stderr, "tier_bench: 1 to %u\n", max);
		exit(2);
	}
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	const char *dir = "/var/tmp";
	unsigned rounds = 5;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			json = true;
		} else if (strcmp(argv[i], "--dir") == 0 && argv[i + 1]) {
			dir = argv[++i];
		} else if (strcmp(argv[i], "--segments") == 0) {
			nr_segments = number(argv[++i], MAX_SEGMENTS);
		} else if (strcmp(argv[i], "--rounds") == 0) {
			rounds = number(argv[++i], MAX_ROUNDS);
		} else {
			fprintf(stderr, "usage: tier_bench [--dir DIR] "
					"[--segments N] [--rounds N] "
					"[--json]\n");
			return 2;
		}
	}
	if (json)
		printf("{");
	bench_seal(rounds);
	bench_tiers(dir, rounds);
	if (json)
		printf("}\n");
	return 0;
}
