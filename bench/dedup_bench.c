/* SPDX-License-Identifier: MIT */
/*
 * dedup_bench [--pages N] [--rounds N] [--json]
 *
 * What deduplication costs where no two pages are equal, and what it saves
 * where many are.
 *   cost    the corpus of the other benches (bench/make-corpus), each page
 *           made unique by a word, into a new store and then over what is
 *           there: once with deduplication and once without, one right after
 *           the other, CPU time; the medians of the rounds' ratios;
 *   saved   of the same set, in random order, in three pools of one client:
 *           how many of the pages that were there already, in percent;
 *   python  the memory of three processes of one python3 program, without
 *           address randomization, in three pools likewise.
 * Same-filled pages are left out of what is counted.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <unistd.h>

#include <tmem/stats.h>
#include <tmem/store.h>

#include "bench.h"

enum {
	PAGE = TMEM_PAGE_SIZE,
	VECTOR = 16,
	COPIES = 3,
	MAX_ROUNDS = 101,
	MAX_IMAGE_PAGES = 65536
};

/* Pages that are stored, one after another. */
struct set {
	char *pages;
	unsigned nr;
	const unsigned *order; /* NULL: as they are */
};

struct target {
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pools[COPIES];
};

struct saving {
	double identical; /* pages that were there already */
	double saved;	  /* of these, in percent */
	double ratio;	  /* pages to memory held */
	double plain;	  /* the same without deduplication */
};

static const char job[] =
	"import random\n"
	"random.seed(11)\n"
	"words = [''.join(random.choices('etaoinshrdlu', k=6))"
	" for _ in range(4000)]\n"
	"records = [{'id': i, 'name': ' '.join(random.choices(words, k=3)),"
	" 'score': random.random()} for i in range(60000)]\n"
	"print('ready', flush=True)\n"
	"import sys\n"
	"sys.stdin.read()\n";

static void open_target(struct target *t, unsigned nr, int no_dedup)
{
	struct tmem_store_options o = {
		.limit_bytes = (uint64_t)nr * PAGE * 4 + (64u << 20),
		.no_dedup = no_dedup,
	};
	unsigned i;

	if (tmem_store_open(&o, &t->store) < 0)
		bench_die("tmem_store_open");
	t->backend = tmem_store_backend(t->store);
	for (i = 0; i < COPIES; i++)
		t->backend.ops->pool_create(t->backend.self, NULL,
					    &t->pools[i]);
}

static char *page_of(const struct set *set, unsigned i)
{
	return set->pages + (size_t)(set->order ? set->order[i] : i) * PAGE;
}

/* Nanoseconds a page. */
static double store_set(const struct target *t, const struct set *set,
			tmem_pool_id pool)
{
	double start = bench_now(CLOCK_THREAD_CPUTIME_ID);
	struct tmem_io io[VECTOR];
	unsigned i, j, n, done = 0;

	for (i = 0; i < set->nr; i += n) {
		n = set->nr - i < VECTOR ? set->nr - i : VECTOR;
		for (j = 0; j < n; j++) {
			unsigned key = set->order ? set->order[i + j] : i + j;

			io[j].object = (struct tmem_object_id){ { 7, 0, 0 } };
			io[j].index = key;
			io[j].page = page_of(set, i + j);
		}
		t->backend.ops->store(t->backend.self, pool, io, n);
		for (j = 0; j < n; j++)
			done += io[j].result == 0;
	}
	if (done != set->nr) {
		fprintf(stderr, "dedup_bench: %u pages of %u\n", done, set->nr);
		exit(1);
	}
	return (bench_now(CLOCK_THREAD_CPUTIME_ID) - start) * 1e9 / set->nr;
}

/* Cost. */

/* Each page differs from all that there ever was. */
static void make_unique(const struct set *set)
{
	static uint64_t stamp;
	unsigned i;

	for (i = 0; i < set->nr; i++) {
		stamp += 0x9e3779b97f4a7c15ull;
		memcpy(set->pages + (size_t)i * PAGE + 8, &stamp,
		       sizeof(stamp));
	}
}

struct cost {
	double fresh[2], again[2]; /* ns a page; without, with */
	double fresh_ratio, again_ratio;
};

static void cost_round(const struct set *set, unsigned round, struct cost *c)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		unsigned dedup = (i + round) % 2;
		struct target t;

		open_target(&t, set->nr, !dedup);
		make_unique(set);
		c->fresh[dedup] = store_set(&t, set, t.pools[0]);
		make_unique(set);
		c->again[dedup] = store_set(&t, set, t.pools[0]);
		tmem_store_close(t.store);
	}
	c->fresh_ratio = c->fresh[1] / c->fresh[0];
	c->again_ratio = c->again[1] / c->again[0];
}

static struct cost median_cost(const struct cost *rounds, unsigned nr)
{
	struct cost result;

	bench_medians(rounds, nr, sizeof(result) / sizeof(double), &result);
	return result;
}

/* Saving. */

static int by_content(const void *a, const void *b)
{
	return memcmp(*(char *const *)a, *(char *const *)b, PAGE);
}

static bool is_same_filled(const char *page)
{
	return !memcmp(page, page + 8, PAGE - 8);
}

/* Pages whose content another one of the sets before or itself has, too. */
static unsigned count_identical(const struct set *sets)
{
	char **pages;
	unsigned i, j, nr = 0, identical = 0;

	for (i = 0; i < COPIES; i++)
		nr += sets[i].nr;
	pages = malloc(nr * sizeof(*pages));
	if (!pages)
		bench_die("malloc");
	for (i = nr = 0; i < COPIES; i++)
		for (j = 0; j < sets[i].nr; j++) {
			char *page = sets[i].pages + (size_t)j * PAGE;

			if (!is_same_filled(page))
				pages[nr++] = page;
		}
	qsort(pages, nr, sizeof(*pages), by_content);
	for (i = 1; i < nr; i++)
		identical += !memcmp(pages[i - 1], pages[i], PAGE);
	free(pages);
	return identical;
}

static double held_ratio(const struct tmem_stats *s)
{
	return (double)s->pages * PAGE /
	       (double)(s->held_bytes - s->scratch_bytes - s->fixed_bytes);
}

static struct saving measure_saving(const struct set *sets)
{
	struct saving result = { .identical = count_identical(sets) };
	struct tmem_stats s;
	struct target t;
	unsigned i, no_dedup;

	for (no_dedup = 0; no_dedup < 2; no_dedup++) {
		open_target(&t, COPIES * sets[0].nr, (int)no_dedup);
		for (i = 0; i < COPIES; i++)
			store_set(&t, &sets[i], t.pools[i]);
		t.backend.ops->stats(t.backend.self, &s);
		tmem_store_check(t.store);
		tmem_store_close(t.store);
		if (no_dedup) {
			result.plain = held_ratio(&s);
		} else {
			result.ratio = held_ratio(&s);
			result.saved =
				(double)s.dedup_stores * 100 / result.identical;
		}
	}
	return result;
}

/* Three processes of one program. */

struct child {
	pid_t pid;
	int in, out;
};

static void start_child(struct child *child)
{
	int in[2], out[2];
	char byte;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		bench_die("pipe2");
	child->pid = fork();
	if (child->pid < 0)
		bench_die("fork");
	if (!child->pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		personality(ADDR_NO_RANDOMIZE);
		setenv("PYTHONHASHSEED", "0", 1);
		execlp("python3", "python3", "-c", job, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	child->in = in[1];
	child->out = out[0];
	if (read(child->out, &byte, 1) != 1)
		bench_die("python3");
}

static void end_child(const struct child *child)
{
	int status;

	close(child->in);
	waitpid(child->pid, &status, 0);
	close(child->out);
}

static int open_of(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		bench_die(path);
	return fd;
}

/* What is there of a mapping. */
static void read_mapping(int mem, int pagemap, const unsigned long *range,
			 struct set *set)
{
	unsigned long at;
	uint64_t entry;

	for (at = range[0]; at < range[1] && set->nr < MAX_IMAGE_PAGES;
	     at += PAGE) {
		char *page = set->pages + (size_t)set->nr * PAGE;

		if (pread(pagemap, &entry, sizeof(entry),
			  (off_t)(at / PAGE * sizeof(entry))) !=
			    sizeof(entry) ||
		    !(entry >> 63))
			continue;
		set->nr += pread(mem, page, PAGE, (off_t)at) == PAGE;
	}
}

/* The private writable memory of a process, as it is in memory. */
static void read_image(pid_t pid, struct set *set)
{
	int mem = open_of(pid, "mem"), pagemap = open_of(pid, "pagemap");
	FILE *maps = fdopen(open_of(pid, "maps"), "r");
	char line[512], mode[5];

	if (!maps)
		bench_die("maps");
	*set = (struct set){ .pages = bench_map((size_t)MAX_IMAGE_PAGES *
						PAGE) };
	while (fgets(line, sizeof(line), maps)) {
		unsigned long range[2];

		if (sscanf(line, "%lx-%lx %4s", &range[0], &range[1], mode) ==
			    3 &&
		    !strcmp(mode, "rw-p"))
			read_mapping(mem, pagemap, range, set);
	}
	fclose(maps);
	close(pagemap);
	close(mem);
}

static struct saving measure_python(unsigned *ret_nr)
{
	struct child children[COPIES];
	struct set images[COPIES];
	unsigned i;

	for (i = 0; i < COPIES; i++)
		start_child(&children[i]);
	for (i = *ret_nr = 0; i < COPIES; i++) {
		read_image(children[i].pid, &images[i]);
		*ret_nr += images[i].nr;
	}
	for (i = 0; i < COPIES; i++)
		end_child(&children[i]);
	return measure_saving(images);
}

static struct saving measure_corpus(const struct bench_corpus *corpus)
{
	struct set set = { corpus->pages, corpus->nr, corpus->order };
	struct set sets[COPIES] = { set, set, set };

	return measure_saving(sets);
}

static void print_saving(const char *what, unsigned nr, const struct saving *s)
{
	printf("%s: %u pages, %.0f were there already, %.1f %% of these saved;"
	       " pages to memory held %.2f, without %.2f\n",
	       what, nr, s->identical, s->saved, s->ratio, s->plain);
}

static void print_json(const struct cost *c, const struct saving *corpus,
		       const struct saving *python)
{
	printf("{\"bench\": \"dedup\", \"fresh_ns\": [%.1f, %.1f], "
	       "\"fresh_ratio\": %.4f, \"again_ns\": [%.1f, %.1f], "
	       "\"again_ratio\": %.4f, ",
	       c->fresh[0], c->fresh[1], c->fresh_ratio, c->again[0],
	       c->again[1], c->again_ratio);
	printf("\"saved_percent\": %.2f, \"held_ratio\": [%.3f, %.3f], "
	       "\"python_identical\": %.0f, \"python_saved_percent\": %.2f, "
	       "\"python_held_ratio\": [%.3f, %.3f]}\n",
	       corpus->saved, corpus->plain, corpus->ratio, python->identical,
	       python->saved, python->plain, python->ratio);
}

static bool parse(int argc, char **argv, unsigned *pages, unsigned *rounds)
{
	bool json = false;
	const struct bench_option options[] = {
		{ "--pages N", .number = pages, .min = 1000 },
		{ "--rounds N", .number = rounds, .min = 1, .max = MAX_ROUNDS },
		{ "--json", .flag = &json },
	};

	BENCH_TAKE_OPTIONS(argc, argv, options);
	return json;
}

int main(int argc, char **argv)
{
	static struct cost rounds[MAX_ROUNDS];
	unsigned pages = 20000, nr_rounds = 15, nr_python, i;
	bool json = parse(argc, argv, &pages, &nr_rounds);
	struct bench_corpus corpus = { 0 };
	struct saving same, python;
	struct cost cost;
	struct set set;

	bench_read_corpus(&corpus, NULL, pages);
	same = measure_corpus(&corpus);
	python = measure_python(&nr_python);
	set = (struct set){ .pages = corpus.pages, .nr = corpus.nr };
	for (i = 0; i < nr_rounds; i++)
		cost_round(&set, i, &rounds[i]);
	cost = median_cost(rounds, nr_rounds);
	if (json) {
		print_json(&cost, &same, &python);
		return 0;
	}
	print_saving("one set thrice", COPIES * corpus.nr, &same);
	print_saving("three python3 processes", nr_python, &python);
	printf("no two pages equal, ns a page without and with, %u rounds:\n"
	       "new pages   %6.0f %6.0f  %.3fx\n"
	       "overwritten %6.0f %6.0f  %.3fx\n",
	       nr_rounds, cost.fresh[0], cost.fresh[1], cost.fresh_ratio,
	       cost.again[0], cost.again[1], cost.again_ratio);
	return 0;
}
