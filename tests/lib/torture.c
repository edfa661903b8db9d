/* SPDX-License-Identifier: MIT */
/*
 * Memory whose every byte is known: see torture.h.
 *
 * Invariants:
 *   1  Nothing here writes to a descriptor while it faults: messages are
 *      formatted on the stack first.
 *   2  A check makes the expected page on the stack, so a check never
 *      compares two pages that may both have been evicted wrongly.
 *   3  A program that checked no page fails: it proved nothing.
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	CHUNK = 16,
	NR_CHUNKS = 64,
	PRESSURE_ID = 0x9e55
};

uint64_t tt_seed = 1;
size_t tt_mib;
const char *tt_name = "?";
const char *tt_self = "/proc/self/exe";
const char *tt_current = "";

static unsigned char chunks[NR_CHUNKS][CHUNK];
static struct tt_region pressure;
static _Atomic uint64_t nr_checked;

/* Messages */

static void say_line(const char *line, size_t length)
{
	const char *path;
	int fd;

	if (write(STDERR_FILENO, line, length) == (ssize_t)length)
		return;
	path = getenv("TT_LOG");
	fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT, 0600) : -1;
	if (fd >= 0 && write(fd, line, length) < 0)
		_exit(2);
}

static void say(const char *verdict, const char *format, va_list arguments)
{
	char text[400], line[600];
	int length;

	vsnprintf(text, sizeof(text), format, arguments);
	length = snprintf(line, sizeof(line),
			  "%s %s %s (pid %d, seed %llu, %zu MiB): %s\n",
			  verdict, tt_name, tt_current, (int)getpid(),
			  (unsigned long long)tt_seed, tt_mib, text);
	say_line(line, (size_t)length);
}

void tt_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say("FAILED", format, arguments);
	va_end(arguments);
	_exit(1);
}

void tt_skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	say("SKIPPED", format, arguments);
	va_end(arguments);
	_exit(TT_SKIP);
}

/* Random numbers */

uint64_t tt_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

uint64_t tt_rand(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x * 0x2545f4914f6cdd1du;
}

uint64_t tt_rand_start(uint64_t number)
{
	return tt_mix(tt_seed ^ tt_mix(number)) | 1;
}

static void make_chunks(void)
{
	uint64_t rng = tt_rand_start(0xc4);

	for (size_t i = 0; i < NR_CHUNKS; i++)
		for (size_t j = 0; j < CHUNK; j++)
			chunks[i][j] =
				(unsigned char)('a' + tt_rand(&rng) % 26);
}

/* Contents */

/* Lines of which `fresh` words are random and the rest is known text. */
static void fill_lines(uint64_t *word, uint64_t rng, unsigned fresh)
{
	const unsigned per_chunk = CHUNK / sizeof(*word);

	for (unsigned line = 0; line < TT_PAGE / 64; line++, word += 8) {
		uint64_t pick = tt_rand(&rng);
		unsigned i;

		for (i = 0; i < fresh; i++)
			word[i] = tt_rand(&rng);
		for (; i < 8; i += per_chunk, pick >>= 6)
			memcpy(&word[i], chunks[pick % NR_CHUNKS],
			       i + per_chunk <= 8 ? CHUNK : sizeof(*word));
		if (!fresh) /* a number, so that no two lines are the same */
			memcpy(word, &pick, 2);
	}
}

void tt_fill(void *page, uint64_t id, uint64_t nr, unsigned version)
{
	uint64_t rng = tt_mix(tt_seed ^ tt_mix(id ^ tt_mix(nr))) ^
		       tt_mix((uint64_t)version << 32);
	uint64_t *word = page;
	unsigned dice;

	rng = tt_mix(rng) | 1;
	dice = (unsigned)(tt_rand(&rng) >> 40) % 100;
	if (!version || dice < 8) {
		memset(page, 0, TT_PAGE);
	} else if (dice < 16) {
		for (unsigned i = 0; i < TT_PAGE / sizeof(*word); i++)
			word[i] = rng;
	} else if (dice < 66) {
		fill_lines(word, rng, 0);
	} else if (dice < 86) {
		fill_lines(word, rng, 4);
	} else {
		fill_lines(word, rng, 8);
	}
}

static bool all_zero(const unsigned char *bytes, size_t count)
{
	return !count || (!bytes[0] && !memcmp(bytes, bytes + 1, count - 1));
}

_Noreturn static void wrong_byte(const unsigned char *got,
				 const unsigned char *expected, size_t bytes,
				 const char *what)
{
	size_t first = 0, wrong = 0;
	bool zero = all_zero(got, bytes);

	for (size_t i = bytes; i-- > 0;) {
		if (got[i] != expected[i]) {
			first = i;
			wrong++;
		}
	}
	/* 0 if it is right now: somebody repaired it behind our back. */
	tt_fail("WRONG BYTE at %p (%s, offset %zu): expected 0x%02x, got "
		"0x%02x; %zu of %zu bytes wrong%s",
		(const void *)(got + first), what, first, expected[first],
		got[first], wrong, bytes, zero ? ", all of it zeros" : "");
}

void tt_same(const void *got, const void *expected, size_t bytes,
	     const char *what)
{
	if (memcmp(got, expected, bytes) != 0)
		wrong_byte(got, expected, bytes, what);
	atomic_fetch_add_explicit(&nr_checked, 1, memory_order_relaxed);
}

void tt_check(const void *page, uint64_t id, uint64_t nr, unsigned version)
{
	uint64_t expected[TT_PAGE / sizeof(uint64_t)];
	char what[80];

	tt_fill(expected, id, nr, version);
	if (memcmp(page, expected, TT_PAGE) != 0) {
		snprintf(what, sizeof(what), "region %llx page %llu version %u",
			 (unsigned long long)id, (unsigned long long)nr,
			 version);
		wrong_byte(page, (unsigned char *)expected, TT_PAGE, what);
	}
	atomic_fetch_add_explicit(&nr_checked, 1, memory_order_relaxed);
}

void tt_check_zero(const void *start, size_t bytes, const char *what)
{
	static const unsigned char zeros[TT_PAGE];
	const unsigned char *at = start;

	for (size_t n; bytes; at += n, bytes -= n) {
		n = bytes < TT_PAGE ? bytes : TT_PAGE;
		tt_same(at, zeros, n, what);
	}
}

/* Regions */

void *tt_map(size_t bytes)
{
	void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (start == MAP_FAILED)
		tt_fail("mmap of %zu bytes: %s", bytes, strerror(errno));
	return start;
}

size_t tt_pages(unsigned percent)
{
	size_t pages = tt_mib * TT_MIB / TT_PAGE * percent / 100;

	return pages > 16 ? pages : 16;
}

void tt_region_over(struct tt_region *region, void *base, size_t nr_pages,
		    uint64_t id)
{
	region->base = base;
	region->nr_pages = nr_pages;
	region->id = id;
	region->version = tt_map(nr_pages * sizeof(*region->version));
	region->bump = 1;
}

void tt_region_map(struct tt_region *region, size_t nr_pages, uint64_t id)
{
	tt_region_over(region, tt_map(nr_pages * TT_PAGE), nr_pages, id);
}

void tt_region_unmap(struct tt_region *region)
{
	TT_SYS(munmap(region->base, region->nr_pages * TT_PAGE));
	TT_SYS(munmap(region->version,
		      region->nr_pages * sizeof(*region->version)));
	region->base = NULL;
}

void tt_region_dropped(struct tt_region *region, size_t first, size_t nr)
{
	memset(region->version + first, 0, nr * sizeof(*region->version));
}

void tt_region_write(struct tt_region *region, size_t nr)
{
	uint16_t version = (uint16_t)(region->version[nr] + region->bump);

	if (!version) /* wrapped round; 0 means never written */
		version = 1;
	region->version[nr] = version;
	tt_fill(region->base + nr * TT_PAGE, region->id, nr, version);
}

/* Says whether the wrong content is another page's or an older version. */
static void name_content(const struct tt_region *region, const void *page)
{
	uint64_t made[TT_PAGE / sizeof(uint64_t)];

	for (size_t nr = 0; nr < region->nr_pages; nr++) {
		unsigned now = region->version[nr];
		unsigned from = now > 8 ? now - 8 : 1;

		for (unsigned v = from; v <= now; v++) {
			char line[120];
			int length;

			tt_fill(made, region->id, nr, v);
			if (all_zero((unsigned char *)made, TT_PAGE) ||
			    memcmp(made, page, TT_PAGE) != 0)
				continue;
			length = snprintf(line, sizeof(line),
					  "the content is that of page %zu, "
					  "version %u (now %u)\n",
					  nr, v, now);
			say_line(line, (size_t)length);
			return;
		}
	}
}

void tt_region_check(const struct tt_region *region, size_t nr)
{
	const unsigned char *page = region->base + nr * TT_PAGE;
	uint64_t expected[TT_PAGE / sizeof(uint64_t)];

	tt_fill(expected, region->id, nr, region->version[nr]);
	if (memcmp(page, expected, TT_PAGE) != 0)
		name_content(region, page);
	tt_check(page, region->id, nr, region->version[nr]);
}

void tt_region_fill(struct tt_region *region)
{
	for (size_t nr = 0; nr < region->nr_pages; nr++)
		tt_region_write(region, nr);
}

void tt_region_verify(const struct tt_region *region)
{
	for (size_t nr = 0; nr < region->nr_pages; nr++)
		tt_region_check(region, nr);
}

static size_t gcd(size_t a, size_t b)
{
	while (b) {
		size_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

void tt_region_verify_shuffled(const struct tt_region *region)
{
	size_t n = region->nr_pages, step = n * 5 / 13 + 1, at = n / 3;

	while (gcd(step, n) != 1)
		step++;
	for (size_t i = 0; i < n; i++, at = (at + step) % n)
		tt_region_check(region, at);
}

void tt_region_work(struct tt_region *region, uint64_t *rng, size_t steps,
		    unsigned one_in)
{
	for (size_t i = 0; i < steps; i++) {
		size_t nr = (tt_rand(rng) >> 16) % region->nr_pages;

		tt_region_check(region, nr);
		if (one_in && (tt_rand(rng) >> 16) % one_in == 0)
			tt_region_write(region, nr);
	}
}

/* Pressure */

void tt_pressure_init(unsigned percent)
{
	if (pressure.base)
		return;
	tt_region_map(&pressure, tt_pages(percent), PRESSURE_ID);
	tt_region_fill(&pressure);
}

void tt_pressure(void)
{
	TT_ASSERT(pressure.base != NULL);
	tt_region_verify(&pressure);
}

void tt_region_begin(struct tt_region *region, size_t nr_pages)
{
	tt_pressure_init(60);
	tt_region_map(region, nr_pages, 1);
	tt_region_fill(region);
	tt_pressure();
}

void tt_region_rearrange(struct tt_region *region)
{
	size_t bytes = region->nr_pages * TT_PAGE, quarter;
	void *to = mmap(NULL, bytes, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	quarter = region->nr_pages / 4;
	TT_ASSERT(to != MAP_FAILED);
	TT_SYS(madvise(region->base + (region->nr_pages - quarter) * TT_PAGE,
		       quarter * TT_PAGE, MADV_DONTNEED));
	tt_region_dropped(region, region->nr_pages - quarter, quarter);
	TT_ASSERT(mremap(region->base, bytes, bytes,
			 MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
	region->base = to;
}

/* Processes, files, threads */

pid_t tt_fork(void)
{
	pid_t pid = (pid_t)TT_SYS(fork());

	if (!pid)
		atomic_store(&nr_checked, 0);
	return pid;
}

void tt_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			tt_fail("waitpid %d: %s", (int)pid, strerror(errno));
	if (WIFSIGNALED(status))
		tt_fail("child %d died of signal %d (%s)", (int)pid,
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status) == TT_SKIP)
		_exit(TT_SKIP);
	if (WEXITSTATUS(status))
		tt_fail("child %d exited with status %d", (int)pid,
			WEXITSTATUS(status));
}

void tt_read_all(int fd, void *buffer, size_t bytes)
{
	unsigned char *at = buffer;

	while (bytes) {
		ssize_t n = read(fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			tt_fail("read into %p: %s", (void *)at,
				n ? strerror(errno) : "end of file");
		at += n;
		bytes -= (size_t)n;
	}
}

void tt_write_all(int fd, const void *buffer, size_t bytes)
{
	const unsigned char *at = buffer;

	while (bytes) {
		ssize_t n = write(fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			tt_fail("write from %p: %s", (const void *)at,
				strerror(errno));
		at += n;
		bytes -= (size_t)n;
	}
}

int tt_temp_file(int flags)
{
	const char *dir = getenv("TMPDIR");

	return (int)TT_SYS(open(dir ? dir : "/var/tmp",
				O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600));
}

pthread_t tt_thread(void *(*run)(void *), void *argument)
{
	pthread_t thread;

	TT_ZERO(pthread_create(&thread, NULL, run, argument));
	return thread;
}

void tt_join(pthread_t thread)
{
	TT_ZERO(pthread_join(thread, NULL));
}

/* The program */

static void run_case(const struct tt_case *c)
{
	uint64_t before = atomic_load(&nr_checked);

	tt_current = c->name;
	c->run();
	if (atomic_load(&nr_checked) == before)
		tt_fail("no page was checked");
}

void tt_main(int argc, char **argv, size_t default_mib,
	     const struct tt_case *cases)
{
	const char *slash = strrchr(argv[0], '/'), *seed = getenv("TMEM_SEED");
	const char *only = argc > 3 ? argv[3] : NULL;
	bool found = false;

	tt_self = argv[0];
	tt_name = slash ? slash + 1 : argv[0];
	tt_mib = argc > 1 ? strtoul(argv[1], NULL, 0) : default_mib;
	if (argc > 2)
		seed = argv[2];
	if (seed)
		tt_seed = strtoull(seed, NULL, 0);
	if (tt_mib < 16)
		tt_fail("usage: %s [MIB (16 or more) [SEED [CASE]]]", tt_name);
	make_chunks();
	for (const struct tt_case *c = cases; c->name; c++) {
		if (only ? strcmp(c->name, only) != 0 : c->alone)
			continue;
		found = true;
		run_case(c);
	}
	if (!found)
		tt_fail("no such case: %s", only);
	printf("ok %s %s: %llu checks, seed %llu, %zu MiB\n", tt_name,
	       only ? only : "", (unsigned long long)atomic_load(&nr_checked),
	       (unsigned long long)tt_seed, tt_mib);
	exit(0);
}
