/* SPDX-License-Identifier: MIT */
/*
 * What the benches share; see bench.h.  A corpus that is made on the spot is
 * in $TMPDIR or /var/tmp for as long as it takes to read it.
 */
#include "bench.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	PAGES_MIN = 32
};

double bench_now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

void bench_die(const char *what)
{
	perror(what);
	exit(1);
}

void *bench_map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		bench_die("mmap");
	madvise(p, bytes, MADV_NOHUGEPAGE);
	return p;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *values, unsigned nr)
{
	qsort(values, nr, sizeof(double), compare);
	return values[nr / 2];
}

void bench_make_corpus(char *path, char *parts, unsigned nr_pages)
{
	char command[2048], option[BENCH_PATH_BYTES + 16] = "";
	int fd;

	snprintf(path, BENCH_PATH_BYTES, "%.200s/tmem-corpus-XXXXXX",
		 getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp");
	fd = mkstemp(path);
	if (fd < 0)
		bench_die(path);
	close(fd);
	if (parts) {
		snprintf(parts, BENCH_PATH_BYTES, "%.240s.parts", path);
		snprintf(option, sizeof(option), "--parts '%s'", parts);
	}
	snprintf(command, sizeof(command), "'%s' '%s' --pages %u %s >&2",
		 TMEM_MAKE_CORPUS, path, nr_pages, option);
	if (system(command) != 0) {
		unlink(path);
		fprintf(stderr, "no corpus\n");
		exit(1);
	}
}

static void shuffle(struct bench_corpus *corpus)
{
	uint64_t x = 88172645463325252ull;
	unsigned i;

	corpus->order = malloc(corpus->nr * sizeof(unsigned));
	if (!corpus->order)
		bench_die("order");
	for (i = 0; i < corpus->nr; i++)
		corpus->order[i] = i;
	for (i = corpus->nr; i-- > 1;) {
		unsigned j, tmp = corpus->order[i];

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		j = (unsigned)(x % (i + 1));
		corpus->order[i] = corpus->order[j];
		corpus->order[j] = tmp;
	}
}

void bench_read_corpus(struct bench_corpus *corpus, const char *path,
		       unsigned nr_pages)
{
	char made[BENCH_PATH_BYTES] = "";
	struct stat st;
	size_t at = 0;
	ssize_t n;
	int fd;

	if (!path)
		bench_make_corpus(made, NULL, nr_pages);
	fd = open(path ? path : made, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		bench_die(path ? path : made);
	if (!path)
		unlink(made);
	corpus->nr = (unsigned)(st.st_size / PAGE);
	if (corpus->nr < PAGES_MIN) {
		fprintf(stderr, "corpus too small\n");
		exit(1);
	}
	corpus->pages = bench_map((size_t)corpus->nr * PAGE);
	while (at < (size_t)corpus->nr * PAGE) {
		n = read(fd, corpus->pages + at,
			 (size_t)corpus->nr * PAGE - at);
		if (n <= 0)
			bench_die("read");
		at += (size_t)n;
	}
	close(fd);
	shuffle(corpus);
}

void bench_heap_pages(char *pages, unsigned nr)
{
	uint64_t x = 88172645463325252ull;
	unsigned k, record, i;

	for (k = 0; k < nr; k++)
		for (record = 0; record < PAGE / 128; record++) {
			char *p =
				pages + (size_t)k * PAGE + (size_t)record * 128;
			uint64_t type = 0x7f1200401000ull + (k & 63) * 64ull;

			memcpy(p, &type, 8);
			memcpy(p + 16, &type, 8);
			for (i = 0; i < 2 + k % 6; i++) {
				x ^= x << 13;
				x ^= x >> 7;
				x ^= x << 17;
				p[32 + i] = (char)x;
			}
		}
}
