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

void bench_medians(const void *structs, unsigned nr, unsigned nr_fields,
		   void *ret_struct)
{
	const char *from = structs;
	char *to = ret_struct;
	double *values = malloc(nr * sizeof(double)), median;
	unsigned i, k;

	if (!values)
		bench_die("malloc");
	for (i = 0; i < nr_fields; i++) {
		for (k = 0; k < nr; k++)
			memcpy(&values[k],
			       from + ((size_t)k * nr_fields + i) *
					       sizeof(double),
			       sizeof(double));
		median = bench_median(values, nr);
		memcpy(to + i * sizeof(double), &median, sizeof(median));
	}
	free(values);
}

static _Noreturn void usage(const char *program,
			    const struct bench_option *options, unsigned nr)
{
	const char *slash = strrchr(program, '/');
	unsigned i;

	fprintf(stderr, "usage: %s", slash ? slash + 1 : program);
	for (i = 0; i < nr; i++)
		fprintf(stderr, " [%s]", options[i].name);
	fputc('\n', stderr);
	exit(2);
}

/* Is it what that argument names, or will take as it is? */
static bool is_option(const struct bench_option *o, const char *arg)
{
	size_t length = strcspn(o->name, " ");

	if (o->name[0] != '-')
		return arg[0] != '-' && o->text && !*o->text;
	return strlen(arg) == length && !memcmp(o->name, arg, length);
}

static bool take_number(const struct bench_option *o, const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 0);

	if (end == text || *end || n < o->min ||
	    n > (o->max ? o->max : UINT32_MAX))
		return false;
	*o->number = (unsigned)n;
	return true;
}

void bench_take_options(int argc, char **argv,
			const struct bench_option *options, unsigned nr)
{
	const struct bench_option *o;
	int i;

	for (i = 1; i < argc; i++) {
		for (o = options; o < options + nr; o++)
			if (is_option(o, argv[i]))
				break;
		if (o == options + nr)
			usage(argv[0], options, nr);
		if (o->flag) {
			*o->flag = true;
			continue;
		}
		i += o->name[0] == '-'; /* its value */
		if (i == argc || (o->number && !take_number(o, argv[i])))
			usage(argv[0], options, nr);
		if (o->text)
			*o->text = argv[i];
	}
}
