/* SPDX-License-Identifier: MIT */
/*
 * hand_sim [PAGES [TOUCHES]]: how often a program would fault under several
 * rules for what the pager's hand takes, on made traces, without any paging.
 *
 * The pager sees no touch of a resident page: all it knows is which pages came
 * back and when.  So the rules are compared with two that see every touch, the
 * kernel's clock with accessed bits and exact LRU.  Misses in percent of the
 * touches, after a warm-up as long.
 *
 *   fifo      round the memory, the hand takes what it comes to
 *   young     the same, but passes by once what came back
 *   ghost     2Q: what came back within a round is kept apart, and the rest,
 *             a quarter at least, is taken first
 *   stage     fifo, but what it took stays in one frame of ten for a while, as
 *             it is: touched there it comes back at little cost (counted as a
 *             quarter of a miss), and is passed by once
 *   random    visits 64 neighbours at a time, at random
 *   round     random, and passes by 2^h - 1 times: h grows to 5 with each
 *             return within a round, and falls with each later one
 *   heat      the same for returns sooner than two of five (src/pager/heat.h)
 *   bits      the kernel's clock
 *   lru       nearly exact
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum trace {
	ZIPF,
	UNIFORM,
	SCAN_ZIPF,
	LOOP,
	SHIFT,
	TRACES
};
static const char *const trace_names[] = { "zipf", "uniform", "scan+zipf",
					   "loop", "shift" };

enum rule {
	FIFO,
	YOUNG,
	GHOST,
	STAGE,
	RANDOM,
	ROUND,
	HEAT,
	BITS,
	LRU,
	RULES
};
static const char *const rule_names[] = { "fifo",  "young",  "ghost",
					  "stage", "random", "round",
					  "heat",  "bits",   "lru" };

enum {
	LEAF = 64,
	HEAT_MAX = 5
};

static uint64_t seed = 88172645463325252ull;

static uint64_t random64(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static double random_unit(void)
{
	return (double)(random64() >> 11) / (double)(1ull << 53);
}

static uint32_t nr_pages, *popular;
static double *zipf_sum;

static void init_zipf(void)
{
	double sum = 0;
	uint32_t i;

	zipf_sum = calloc(nr_pages, sizeof(*zipf_sum));
	popular = calloc(nr_pages, sizeof(*popular));
	for (i = 0; i < nr_pages; i++) {
		sum += 1 / pow(i + 1, 0.99);
		zipf_sum[i] = sum;
		popular[i] = i;
	}
	for (i = nr_pages - 1; i > 0; i--) {
		uint32_t k = (uint32_t)(random64() % (i + 1)), t = popular[i];

		popular[i] = popular[k];
		popular[k] = t;
	}
}

static uint32_t zipf(void)
{
	double x = random_unit() * zipf_sum[nr_pages - 1];
	uint32_t low = 0, high = nr_pages - 1;

	while (low < high) {
		uint32_t mid = (low + high) / 2;

		if (zipf_sum[mid] < x)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static uint32_t next_touch(enum trace trace, uint64_t n)
{
	switch (trace) {
	case ZIPF:
		return popular[zipf()];
	case UNIFORM:
		return (uint32_t)(random64() % nr_pages);
	case SCAN_ZIPF:
		return n % 4 == 3 ? (uint32_t)(n / 4 % nr_pages)
				  : popular[zipf()];
	case LOOP:
		return (uint32_t)(n % nr_pages);
	default: /* the popular ones change */
		return popular[(zipf() + n / (16ull * nr_pages) * 977) %
			       nr_pages];
	}
}

struct page {
	bool resident;
	bool staged;
	bool seen; /* was there ever */
	bool hot;  /* ghost */
	bool touched;
	uint8_t spare;
	uint8_t heat;
	uint64_t out; /* when it left, in evictions */
	uint64_t used;
};

struct sim {
	enum rule rule;
	struct page *page;
	uint32_t room, nr_resident, hand, nr_hot, nr_staged;
	uint64_t evictions;
	double misses;
	double usual;	 /* heat */
	uint32_t *queue; /* staged, and lru: oldest first */
	uint64_t queue_head, queue_tail;
};

static void leave(struct sim *s, uint32_t i)
{
	struct page *p = &s->page[i];

	p->resident = false;
	p->out = s->evictions++;
	s->nr_hot -= p->hot;
	p->hot = false;
	s->nr_resident--;
}

static uint32_t turn(struct sim *s)
{
	bool at_random = s->rule >= RANDOM && s->rule <= HEAT;
	uint32_t i;

	do {
		i = s->hand;
		s->hand = s->hand + 1 == nr_pages ? 0 : s->hand + 1;
		if (at_random && s->hand % LEAF == 0)
			s->hand = (uint32_t)((random64() >> 32) *
						     (nr_pages / LEAF) >>
					     32) *
				  LEAF;
	} while (!s->page[i].resident);
	return i;
}

static void evict_oldest(struct sim *s)
{
	uint32_t i, best = 0;
	uint64_t used = UINT64_MAX;
	unsigned k;

	/* Exact enough: the oldest of 64 at random. */
	for (k = 0; k < 64; k++) {
		do {
			i = (uint32_t)(random64() % nr_pages);
		} while (!s->page[i].resident);
		if (s->page[i].used < used) {
			used = s->page[i].used;
			best = i;
		}
	}
	leave(s, best);
}

static void stage(struct sim *s, uint32_t i)
{
	s->page[i].staged = true;
	s->queue[s->queue_tail++ % nr_pages] = i;
	s->nr_staged++;
	while (s->nr_staged > s->room / 10) {
		uint32_t old = s->queue[s->queue_head++ % nr_pages];

		if (!s->page[old].staged)
			continue;
		s->page[old].staged = false;
		s->nr_staged--;
		leave(s, old);
	}
}

static void evict(struct sim *s)
{
	uint32_t i, looked = 0;
	struct page *p;

	if (s->rule == LRU) {
		evict_oldest(s);
		return;
	}
	for (;;) {
		i = turn(s);
		p = &s->page[i];
		if (p->staged)
			continue;
		if (s->rule == BITS && p->touched) {
			p->touched = false;
			continue;
		}
		if (s->rule == GHOST && p->hot &&
		    s->nr_resident - s->nr_hot > s->room / 4 &&
		    looked++ < 2 * s->room)
			continue;
		if (p->spare) {
			p->spare--;
			continue;
		}
		break;
	}
	if (s->rule == STAGE)
		stage(s, i);
	else
		leave(s, i);
}

static void heat_up(struct sim *s, struct page *p)
{
	double out = (double)(s->evictions - p->out);
	bool soon = out < (s->rule == HEAT ? s->usual : s->room);

	if (!p->seen)
		return;
	s->usual *= soon ? 1 - 3.0 / 2048 : 1 + 2.0 / 2048;
	if (soon && p->heat < HEAT_MAX)
		p->heat++;
	else if (!soon && p->heat)
		p->heat--;
	p->spare = (uint8_t)((1u << p->heat) - 1);
}

static void arrive(struct sim *s, struct page *p)
{
	p->resident = true;
	p->touched = true;
	s->nr_resident++;
	switch (s->rule) {
	case YOUNG:
	case STAGE:
		p->spare = p->seen;
		break;
	case ROUND:
	case HEAT:
		heat_up(s, p);
		break;
	case GHOST:
		p->hot = p->seen && s->evictions - p->out < s->room;
		s->nr_hot += p->hot;
		break;
	default:
		break;
	}
	p->seen = true;
}

static double simulate(enum rule rule, enum trace trace, double part,
		       uint64_t touches)
{
	struct sim s = { .rule = rule,
			 .room = (uint32_t)(part * nr_pages),
			 .usual = part * nr_pages };
	uint64_t n;

	s.page = calloc(nr_pages, sizeof(*s.page));
	s.queue = calloc(nr_pages, sizeof(*s.queue));
	for (n = 0; n < 2 * touches; n++) {
		struct page *p = &s.page[next_touch(trace, n)];

		if (n == touches)
			s.misses = 0;
		p->touched = true;
		p->used = n;
		if (p->staged) {
			p->staged = false;
			s.nr_staged--;
			p->spare = 1;
			s.misses += 0.25;
		}
		if (p->resident)
			continue;
		s.misses++;
		while (s.nr_resident >= s.room)
			evict(&s);
		arrive(&s, p);
	}
	free(s.page);
	free(s.queue);
	return 100 * s.misses / (double)touches;
}

int main(int argc, char **argv)
{
	const double parts[] = { 0.8, 0.5, 0.25 };
	uint64_t touches;
	unsigned i, t, r;

	nr_pages = argc > 1 ? (uint32_t)atoi(argv[1]) : 8192;
	touches = argc > 2 ? (uint64_t)atoll(argv[2]) : 128ull * nr_pages;
	init_zipf();
	printf("%-16s", "misses, percent");
	for (r = 0; r < RULES; r++)
		printf("%9s", rule_names[r]);
	puts("");
	for (t = 0; t < TRACES; t++)
		for (i = 0; i < 3; i++) {
			printf("%-9s %3.0f %% ", trace_names[t],
			       100 * parts[i]);
			for (r = 0; r < RULES; r++)
				printf("%9.2f",
				       simulate(r, t, parts[i], touches));
			puts("");
			fflush(stdout);
		}
	return 0;
}
