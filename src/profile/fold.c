/* SPDX-License-Identifier: MIT */
/* See fold.h. */
#include "profile/fold.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "wire/tree.h"

enum {
	NS_PER_US = 1000,
	LENGTHS = 24 /* of stalls; the last is for all from half a second on */
};

struct group {
	double stall_ns[LENGTHS];
	double sampled_ns[LENGTHS];
};

struct stack {
	uint64_t samples;
	float ns[LENGTHS];
};

/* What a stack is found by; its places follow. */
struct stack_key {
	uint32_t group;
	uint32_t places[];
};

struct line {
	char *text;
	double us;
};

void tmem_fold_init(struct tmem_fold *fold)
{
	memset(fold, 0, sizeof(*fold));
	fold->groups.record_bytes = sizeof(struct group);
	fold->stacks.record_bytes = sizeof(struct stack);
}

void tmem_fold_fini(struct tmem_fold *fold)
{
	tmem_intern_fini(&fold->groups);
	tmem_intern_fini(&fold->stacks);
}

/* A name is bytes from outside; in it nothing may end a frame or a line. */
uint32_t tmem_fold_group(struct tmem_fold *fold, const char *name)
{
	char clean[64];
	size_t i;

	for (i = 0; name[i] && i < sizeof(clean) - 1; i++) {
		clean[i] = name[i];
		if (name[i] == ';')
			clean[i] = ':';
		else if (name[i] < ' ' || name[i] == 127)
			clean[i] = '?';
	}
	clean[i] = '\0';
	return tmem_intern_add(&fold->groups, clean, i + 1);
}

uint32_t tmem_fold_stack(struct tmem_fold *fold, uint32_t group,
			 const uint32_t *places, unsigned nr)
{
	uint32_t key[1 + TMEM_FOLD_DEPTH];

	TMEM_ASSERT(nr <= TMEM_FOLD_DEPTH);
	key[0] = group;
	memcpy(key + 1, places, nr * sizeof(*places));
	return tmem_intern_add(&fold->stacks, key, (1 + nr) * sizeof(*key));
}

static struct group *group_of(const struct tmem_fold *fold, uint32_t stack)
{
	const struct stack_key *key = fold->stacks.keys[stack].key;

	return tmem_intern_record(&fold->groups, key->group);
}

static unsigned length_of(uint64_t ns)
{
	unsigned length = tmem_stall_bucket(ns);

	return length < LENGTHS ? length : LENGTHS - 1;
}

void tmem_fold_stall(struct tmem_fold *fold, uint32_t group, uint64_t ns)
{
	struct group *g = tmem_intern_record(&fold->groups, group);

	g->stall_ns[length_of(ns)] += (double)ns;
}

void tmem_fold_sample(struct tmem_fold *fold, uint32_t stack, double nr,
		      uint64_t ns, bool again)
{
	struct group *g = group_of(fold, stack);
	struct stack *s = tmem_intern_record(&fold->stacks, stack);

	s->samples += !again;
	s->ns[length_of(ns)] += (float)(nr * (double)ns);
	g->sampled_ns[length_of(ns)] += nr * (double)ns;
}

static double sum(const double *lengths)
{
	double ns = 0;
	unsigned i;

	for (i = 0; i < LENGTHS; i++)
		ns += lengths[i];
	return ns;
}

/* Nanoseconds for each that is sampled: a length without goes with the next. */
static void find_rates(const struct group *g, double *ret_rates)
{
	unsigned i, last = LENGTHS;
	double rest = 0;

	for (i = 0; i < LENGTHS; i++) {
		ret_rates[i] = 0;
		rest += g->stall_ns[i];
		if (g->sampled_ns[i] > 0) {
			ret_rates[i] = rest / g->sampled_ns[i];
			rest = 0;
			last = i;
		}
	}
	if (last < LENGTHS)
		ret_rates[last] += rest / g->sampled_ns[last];
}

static double stack_us(const struct tmem_fold *fold, uint32_t stack)
{
	const struct stack *s = tmem_intern_record(&fold->stacks, stack);
	const struct group *g = group_of(fold, stack);
	double rates[LENGTHS], ns = 0;
	unsigned i;

	find_rates(g, rates);
	for (i = 0; i < LENGTHS; i++)
		ns += (double)s->ns[i] * rates[i];
	return ns / NS_PER_US;
}

static struct line line_of_stack(const struct tmem_fold *fold,
				 const struct tmem_names *names, uint32_t stack)
{
	const struct tmem_intern_key *k = &fold->stacks.keys[stack];
	const struct stack_key *key = k->key;
	struct line line = { NULL, stack_us(fold, stack) };
	size_t bytes;
	FILE *out = open_memstream(&line.text, &bytes);

	if (!out)
		return line;
	fputs(fold->groups.keys[key->group].key, out);
	tmem_names_write(names, key->places,
			 (unsigned)(k->bytes / sizeof(uint32_t) - 1), out);
	fclose(out);
	return line;
}

static struct line line_of_rest(const struct tmem_fold *fold, uint32_t group)
{
	const struct group *g = tmem_intern_record(&fold->groups, group);
	struct line line = { NULL, 0 };

	if (asprintf(&line.text, "%s;[no stack]",
		     (const char *)fold->groups.keys[group].key) < 0)
		line.text = NULL;
	if (sum(g->sampled_ns) <= 0)
		line.us = sum(g->stall_ns) / NS_PER_US;
	return line;
}

static int compare(const void *a, const void *b)
{
	const struct line *x = a, *y = b;

	return strcmp(x->text, y->text);
}

/* Stacks that have the same names are one line. */
static uint32_t merge(struct line *lines, uint32_t nr)
{
	uint32_t i, n = 0;

	qsort(lines, nr, sizeof(*lines), compare);
	for (i = 0; i < nr; i++) {
		if (n && strcmp(lines[n - 1].text, lines[i].text) == 0) {
			lines[n - 1].us += lines[i].us;
			free(lines[i].text);
		} else {
			lines[n++] = lines[i];
		}
	}
	return n;
}

/* Whole numbers that add up: what was rounded off goes to the next line. */
static void print(FILE *out, const struct line *lines, uint32_t nr,
		  struct tmem_fold_sums *sums)
{
	double rest = 0.5;
	uint64_t us;
	uint32_t i;

	for (i = 0; i < nr; i++) {
		rest += lines[i].us;
		us = (uint64_t)rest;
		if (!us)
			continue;
		rest -= (double)us;
		fprintf(out, "%s %" PRIu64 "\n", lines[i].text, us);
		sums->stacks++;
		sums->stall_us += us;
	}
}

/* False: no memory. */
static bool make_lines(const struct tmem_fold *fold,
		       const struct tmem_names *names, struct line *lines,
		       uint32_t *ret_nr)
{
	uint32_t i, nr = 0;

	for (i = 0; i < fold->stacks.nr + fold->groups.nr; i++) {
		lines[nr] = i < fold->stacks.nr
				    ? line_of_stack(fold, names, i)
				    : line_of_rest(fold, i - fold->stacks.nr);
		if (!lines[nr].text)
			break;
		*ret_nr = ++nr;
	}
	return i == fold->stacks.nr + fold->groups.nr;
}

char *tmem_fold_text(const struct tmem_fold *fold,
		     const struct tmem_names *names,
		     struct tmem_fold_sums *ret_sums)
{
	struct tmem_fold_sums sums = { 0 };
	size_t max = (size_t)fold->stacks.nr + fold->groups.nr + 1, bytes;
	struct line *lines = calloc(max, sizeof(*lines));
	char *text = NULL;
	uint32_t nr = 0, i;
	FILE *out = NULL;

	for (i = 0; i < fold->stacks.nr; i++) {
		const struct stack *s = tmem_intern_record(&fold->stacks, i);

		sums.samples += s->samples;
	}
	if (lines && make_lines(fold, names, lines, &nr))
		out = open_memstream(&text, &bytes);
	if (out) {
		nr = merge(lines, nr);
		print(out, lines, nr, &sums);
		fclose(out);
		*ret_sums = sums;
	}
	for (i = 0; i < nr; i++)
		free(lines[i].text);
	free(lines);
	return text;
}
