/* SPDX-License-Identifier: MIT */
/*
 * evict_bench [--json] [--only WHAT] [--front PERCENT]
 *
 * Which ephemeral page should go: hit rates of policies on the traces of
 * evict_trace.c, and the convergence of clients' shares (evict_weight.c).
 * Everything is counted in pages, and is the same on each run and machine.
 *
 * WHAT is one of:
 *   ordinary  a cache: a miss inserts the page, a hit leaves it
 *   victim    a victim cache, as cleancache is: behind an LRU cache of PERCENT
 *             (10) of the footprint, which is the guest's own; the rate is that
 *             of the guest's misses that the victim cache answers
 *   weights   clients with weights in a full store
 * Cache sizes are percents of the footprint, the distinct pages of the trace.
 *
 * "S3 store" is what the store is to do (docs/decisions, 0011): lists in 64
 * shards, a ghost table, at most 16 pages moved for one evicted, small's part
 * by what is hit; in a victim cache a longer ghost.  "the store itself" is the
 * real one, with a limit such that it holds about as many pages; how many it
 * held, in percent of that, is in the line below.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evict_policy.h"
#include "evict_store.h"
#include "evict_trace.h"
#include "evict_weight.h"

enum {
	NR_SIZES = 5,
	MAX_ROWS = 32,
	STORE_BYTES = 32 << 20
};

static const unsigned sizes[NR_SIZES] = { 1, 5, 10, 25, 50 };

#define S3(label, ...)                                         \
	{                                                      \
		.name = (label), .kind = EVICT_S3, __VA_ARGS__ \
	}
/* Small's percent, hits that promote, the ghost's percent. */
#define PARTS(small, hits, ghost) \
	.small_percent = (small), .promote = (hits), .ghost_percent = (ghost)
#define SHARDS(nr, how) .nr_shards = (nr), .spread = (how)
/* As the store has it, but for the ghost's length and what is taken. */
#define STORE                                                          \
	.table_percent = 100, SHARDS(64, EVICT_TURN), .max_moves = 16, \
	.adapt = 64

static const struct evict_rules ordinary[] = {
	{ .name = "FIFO", .kind = EVICT_FIFO },
	{ .name = "LRU", .kind = EVICT_LRU },
	{ .name = "CLOCK", .kind = EVICT_CLOCK },
	{ .name = "SIEVE", .kind = EVICT_SIEVE },
	S3("S3 promote 1", PARTS(10, 1, 90)),
	S3("S3 promote 2", PARTS(10, 2, 90)),
	S3("  ghost x 2", PARTS(10, 1, 200)),
	S3("  ghost table", PARTS(10, 1, 100), .table_percent = 100),
	S3("  16 moves at most", PARTS(10, 1, 90), .max_moves = 16),
	S3("  16 shards, turns", PARTS(10, 1, 90), SHARDS(16, EVICT_TURN)),
	S3("  64 shards, turns", PARTS(10, 1, 90), SHARDS(64, EVICT_TURN)),
	S3("  64 shards, own", PARTS(10, 1, 90), SHARDS(64, EVICT_OWN)),
	S3("  2 pools, turns", PARTS(10, 1, 90), .two_pools = true),
	S3("  2 pools, each", PARTS(10, 1, 90), .two_pools = true,
	   .spread = EVICT_EACH),
	S3("  adapting", PARTS(10, 1, 90), .adapt = 64),
	S3("S3 store", PARTS(10, 1, 100), STORE),
	S3("S3 store, 2 pools", PARTS(10, 1, 100), STORE, .two_pools = true),
};

static const struct evict_rules victim[] = {
	{ .name = "FIFO = LRU", .kind = EVICT_FIFO },
	S3("S3 forget", PARTS(10, 1, 90)),
	S3("S3 note", PARTS(10, 1, 90), .taken = EVICT_NOTE),
	S3("S3 count", PARTS(10, 1, 90), .taken = EVICT_COUNT),
	S3("  ghost x 2", PARTS(10, 1, 200), .taken = EVICT_NOTE),
	S3("  ghost x 4", PARTS(10, 1, 400), .taken = EVICT_NOTE),
	S3("  x 2, small 50 %", PARTS(50, 1, 200), .taken = EVICT_NOTE),
	S3("  x 2, adapting", PARTS(10, 1, 200), .taken = EVICT_NOTE,
	   .adapt = 64),
	S3("S3 store", PARTS(10, 1, 200), STORE, .taken = EVICT_NOTE),
	S3("S3 store, 2 pools", PARTS(10, 1, 200), STORE, .taken = EVICT_NOTE,
	   .two_pools = true),
};

struct options {
	bool json;
	const char *only;
	unsigned front_percent;
};

/* One line of a table: a policy's hits at each size; in JSON an object. */
static void print_row(const struct options *o, const struct evict_trace *t,
		      const char *mode, const char *policy,
		      const double rates[NR_SIZES])
{
	unsigned i;

	if (o->json) {
		while (*policy == ' ')
			policy++;
		printf("{\"bench\": \"evict\", \"mode\": \"%s\", "
		       "\"trace\": \"%s\", \"policy\": \"%s\"",
		       mode, t->name, policy);
		for (i = 0; i < NR_SIZES; i++)
			printf(", \"hit_percent_at_%u\": %.3f", sizes[i],
			       rates[i]);
		printf("}\n");
		return;
	}
	printf("  %-18s", policy);
	for (i = 0; i < NR_SIZES; i++)
		printf(" %7.2f", rates[i]);
	printf("\n");
}

static uint32_t capacity(const struct evict_trace *t, unsigned percent)
{
	return (uint32_t)((uint64_t)t->footprint * percent / 100);
}

static void one_policy(const struct options *o, const struct evict_trace *t,
		       const struct evict_stream *s,
		       const struct evict_rules *rules)
{
	double rates[NR_SIZES];
	unsigned i;

	for (i = 0; i < NR_SIZES; i++) {
		uint32_t c = capacity(t, sizes[i]);
		uint32_t hits =
			rules ? evict_run(s, rules, c) : evict_optimum(s, c);

		rates[i] = hits * 100.0 / s->asked;
	}
	print_row(o, t, s->what ? "victim" : "ordinary",
		  rules ? rules->name : "optimum", rates);
}

static void the_store(const struct options *o, const struct evict_trace *t,
		      const struct evict_stream *s)
{
	const char *mode = s->what ? "victim" : "ordinary";
	double rates[NR_SIZES], held[NR_SIZES], pages;
	unsigned i;

	for (i = 0; i < NR_SIZES; i++) {
		uint32_t c = capacity(t, sizes[i]);

		rates[i] = evict_store_run(s, c, &pages) * 100.0 / s->asked;
		held[i] = pages * 100.0 / c;
	}
	print_row(o, t, mode, "the store itself", rates);
	print_row(o, t, mode, "  held", held);
}

static void one_trace(const struct options *o, const struct evict_trace *t,
		      bool as_victim)
{
	struct evict_stream requests = { .keys = t->keys,
					 .nr = t->nr,
					 .nr_keys = t->nr_keys,
					 .second_pool = t->second_pool,
					 .asked = t->nr };
	struct evict_stream s = requests;
	const struct evict_rules *rules = as_victim ? victim : ordinary;
	unsigned nr = as_victim ? sizeof(victim) / sizeof(victim[0])
				: sizeof(ordinary) / sizeof(ordinary[0]);
	unsigned i;

	if (as_victim)
		evict_stream_behind(&requests, capacity(t, o->front_percent),
				    &s);
	if (!o->json)
		printf("%s, %s: %u pages, %.0f %% of them once, %u asked for\n",
		       t->name, as_victim ? "victim cache" : "ordinary cache",
		       t->footprint, t->once * 100.0 / t->footprint, s.asked);
	for (i = 0; i < nr; i++)
		one_policy(o, t, &s, &rules[i]);
	the_store(o, t, &s);
	one_policy(o, t, &s, NULL);
	if (as_victim) {
		free(s.keys);
		free(s.what);
	}
}

static void hit_rates(const struct options *o, bool as_victim)
{
	struct evict_trace trace;
	unsigned i;

	if (!o->json)
		printf("hits, %%, of caches of 1, 5, 10, 25, 50 %% of the "
		       "footprint\n");
	for (i = 0; i < evict_nr_traces(); i++) {
		evict_trace_make(i, &trace);
		one_trace(o, &trace, as_victim);
		evict_trace_fini(&trace);
	}
}

/* Weights. */

static void print_phase(const struct options *o, struct evict_weights *w,
			const char *name, const struct evict_phase *p)
{
	unsigned i;

	if (o->json) {
		printf("{\"bench\": \"evict\", \"mode\": \"weights\", "
		       "\"phase\": \"%s\", \"converged\": %s, "
		       "\"evictions\": %llu, \"least\": %llu, "
		       "\"stores_under\": %llu, \"worst_percent\": %.2f, "
		       "\"wrong\": %llu}\n",
		       name, p->converged ? "true" : "false",
		       (unsigned long long)p->evictions,
		       (unsigned long long)p->least,
		       (unsigned long long)p->stores, p->worst,
		       (unsigned long long)p->wrong);
		return;
	}
	printf("  %-32s", name);
	if (p->converged)
		printf("%7llu evictions (%llu stores by clients under their "
		       "share; least possible %llu), then within %.2f %%",
		       (unsigned long long)p->evictions,
		       (unsigned long long)p->stores,
		       (unsigned long long)p->least, p->worst);
	else
		printf("never; at the end off by %.1f %%", p->worst);
	printf("; %llu of clients under their share\n%34s",
	       (unsigned long long)p->wrong, "");
	for (i = 0; i < 4; i++)
		printf("%s%.1f %%", i ? ", " : "have/share: ",
		       (double)evict_weights_client(w, i)->bytes * 100 /
			       (double)evict_weights_client(w, i)->share_bytes);
	printf("\n");
}

static void set(struct evict_weights *w, unsigned i, uint32_t weight,
		uint32_t rate, uint32_t set_keys)
{
	struct evict_client *c = evict_weights_client(w, i);

	c->weight = weight;
	c->rate = rate;
	c->set_keys = set_keys;
}

static void weights(const struct options *o, enum evict_by by, const char *name)
{
	struct evict_weights *w = evict_weights_create(by, 4, STORE_BYTES);
	struct evict_phase p;
	unsigned i;

	if (!o->json)
		printf("shares of a store of %u MiB, 4 clients: %s\n",
		       STORE_BYTES >> 20, name);
	set(w, 0, 1, 1, 60000);
	for (i = 1; i < 4; i++)
		set(w, i, i + 1, 0, 60000);
	evict_weights_run(w, 200000, &p); /* all of it is the first one's */
	for (i = 0; i < 4; i++)
		set(w, i, i + 1, 8u >> i, 60000);
	evict_weights_run(w, 400000, &p);
	print_phase(o, w, "weights 1 2 3 4, rates 8 4 2 1", &p);
	for (i = 0; i < 4; i++)
		set(w, i, 4 - i, 8u >> i, 60000);
	evict_weights_run(w, 400000, &p);
	print_phase(o, w, "weights 4 3 2 1", &p);
	evict_weights_invalidate(w, 0);
	set(w, 0, 4, 8, 500);
	evict_weights_run(w, 400000, &p);
	print_phase(o, w, "the first needs 500 pages only", &p);
	set(w, 0, 4, 8, 60000);
	evict_weights_run(w, 400000, &p);
	print_phase(o, w, "the first needs much again", &p);
	evict_weights_destroy(w);
}

static void usage(void)
{
	fprintf(stderr, "usage: evict_bench [--json] [--front PERCENT]"
			" [--only ordinary|victim|weights]\n");
	exit(2);
}

static void parse(int argc, char **argv, struct options *o)
{
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			o->json = true;
		else if (!strcmp(argv[i], "--only") && i + 1 < argc)
			o->only = argv[++i];
		else if (!strcmp(argv[i], "--front") && i + 1 < argc)
			o->front_percent =
				(unsigned)strtoul(argv[++i], NULL, 10);
		else
			usage();
	}
	if (o->front_percent < 1 || o->front_percent > 100)
		usage();
}

static bool wanted(const struct options *o, const char *what)
{
	return !o->only || !strcmp(o->only, what);
}

int main(int argc, char **argv)
{
	struct options o = { .front_percent = 10 };

	parse(argc, argv, &o);
	if (wanted(&o, "ordinary"))
		hit_rates(&o, false);
	if (wanted(&o, "victim"))
		hit_rates(&o, true);
	if (wanted(&o, "weights")) {
		weights(&o, EVICT_BY_WEIGHT, "the most bytes by weight evicts");
		weights(&o, EVICT_BY_XEN, "Xen's test, which was inverted");
		weights(&o, EVICT_BY_XEN_RIGHT,
			"Xen's test the right way round");
	}
	return 0;
}
