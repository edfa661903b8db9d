/* SPDX-License-Identifier: MIT */
/*
 * The caches that bench/evict_bench compares, so that its table can be
 * trusted: against cases worked out by hand, textbooks' reference strings, a
 * search through all choices for the optimum, and against each other where
 * two must agree.
 */
#include "../../bench/evict_ghost.h"
#include "../../bench/evict_policy.h"
#include "../../bench/evict_weight.h"
#include "fstest.h"

static const struct evict_rules fifo = { .kind = EVICT_FIFO };
static const struct evict_rules lru = { .kind = EVICT_LRU };
static const struct evict_rules clock_rules = { .kind = EVICT_CLOCK };
static const struct evict_rules sieve = { .kind = EVICT_SIEVE };

/* Requests, a digit each. */
static struct evict_stream digits(const char *text)
{
	struct evict_stream s = { .nr_keys = 10 };

	s.nr = s.asked = (uint32_t)strlen(text);
	s.keys = calloc(s.nr, sizeof(*s.keys));
	CHECK(s.keys);
	for (uint32_t i = 0; i < s.nr; i++)
		s.keys[i] = (uint32_t)(text[i] - '0');
	return s;
}

static uint32_t misses(const char *text, const struct evict_rules *rules,
		       uint32_t capacity)
{
	struct evict_stream s = digits(text);
	uint32_t hits = rules ? evict_run(&s, rules, capacity)
			      : evict_optimum(&s, capacity);

	free(s.keys);
	return s.nr - hits;
}

static void fifo_and_lru_miss_as_textbooks_say(void)
{
	static const char book[] = "70120304230321201701";
	static const char anomaly[] = "123412512345";

	CHECK_EQ(misses(book, &fifo, 3), 15);
	CHECK_EQ(misses(book, &lru, 3), 12);
	CHECK_EQ(misses(anomaly, &fifo, 3), 9);
	CHECK_EQ(misses(anomaly, &fifo, 4), 10);
	CHECK_EQ(misses(anomaly, &lru, 3), 10);
	CHECK_EQ(misses(anomaly, &lru, 4), 8);
}

/* 1 is hit; 4 passes it over and takes 2's place; then 1 is unmarked. */
static void clock_passes_over_a_page_once(void)
{
	struct evict_cache *c = evict_cache_create(&clock_rules, 10, 3);

	for (uint32_t k = 1; k <= 3; k++)
		evict_cache_put(c, k);
	CHECK(evict_cache_get(c, 1));
	evict_cache_put(c, 4); /* 3 1 4: 1 went behind 3 */
	CHECK(!evict_cache_get(c, 2));
	evict_cache_put(c, 5); /* 1 4 5 */
	CHECK(!evict_cache_get(c, 3));
	evict_cache_put(c, 6); /* 4 5 6 */
	CHECK(!evict_cache_get(c, 1));
	CHECK(evict_cache_get(c, 4));
	evict_cache_destroy(c);
}

/* The hand stays where it evicted: what it has passed is not seen again. */
static void sieve_keeps_what_the_hand_has_passed(void)
{
	struct evict_cache *c = evict_cache_create(&sieve, 10, 3);

	for (uint32_t k = 1; k <= 3; k++)
		evict_cache_put(c, k);
	CHECK(evict_cache_get(c, 1));
	evict_cache_put(c, 4); /* unmarks 1, evicts 2; hand at 3 */
	CHECK(!evict_cache_get(c, 2));
	evict_cache_put(c, 5); /* evicts 3; hand at 4 */
	CHECK(!evict_cache_get(c, 3));
	evict_cache_put(c, 6); /* evicts 4, not 1 */
	CHECK(!evict_cache_get(c, 4));
	CHECK(evict_cache_get(c, 1));
	CHECK(evict_cache_take(c, 5)); /* the hand was there; now at 6 */
	evict_cache_put(c, 7);
	evict_cache_put(c, 8); /* evicts 6 */
	CHECK(!evict_cache_get(c, 6));
	CHECK(evict_cache_get(c, 1) && evict_cache_get(c, 7));
	evict_cache_destroy(c);
}

static struct evict_rules s3(unsigned promote, unsigned table_percent)
{
	return (struct evict_rules){ .kind = EVICT_S3,
				     .small_percent = 10,
				     .promote = promote,
				     .ghost_percent = 90,
				     .table_percent = table_percent,
				     .taken = EVICT_NOTE };
}

/* Ten pages of room; small is evicted from while it has one page or more. */
static void s3_keeps_what_was_hit_through_a_scan(void)
{
	for (unsigned promote = 1; promote <= 2; promote++) {
		struct evict_rules rules = s3(promote, 0);
		struct evict_cache *c = evict_cache_create(&rules, 100, 10);

		for (uint32_t k = 0; k < 10; k++)
			evict_cache_put(c, k);
		CHECK(evict_cache_get(c, 0));
		CHECK(evict_cache_get(c, 1) && evict_cache_get(c, 1));
		for (uint32_t k = 10; k < 30; k++)
			evict_cache_put(c, k);
		CHECK_EQ(evict_cache_get(c, 0), promote == 1);
		CHECK(evict_cache_get(c, 1));
		CHECK(!evict_cache_get(c, 2));
		evict_cache_destroy(c);
	}
}

/* 0 is evicted unhit, remembered, put again into main: a scan spares it. */
static void s3_takes_a_remembered_page_into_main(void)
{
	for (unsigned table = 0; table <= 200; table += 200) {
		struct evict_rules rules = s3(1, table);
		struct evict_cache *c = evict_cache_create(&rules, 100, 10);

		for (uint32_t k = 0; k < 11; k++)
			evict_cache_put(c, k);
		CHECK(!evict_cache_get(c, 0));
		evict_cache_put(c, 0);
		for (uint32_t k = 20; k < 40; k++)
			evict_cache_put(c, k);
		CHECK(evict_cache_get(c, 0));
		CHECK(!evict_cache_get(c, 20));
		/* 20 left more than a ghost's length ago: a new page. */
		evict_cache_put(c, 20);
		for (uint32_t k = 50; k < 70; k++)
			evict_cache_put(c, k);
		CHECK(!evict_cache_get(c, 20));
		CHECK(evict_cache_get(c, 0));
		evict_cache_destroy(c);
	}
}

static void s3_takes_a_taken_page_into_main(void)
{
	for (int taken = EVICT_FORGET; taken <= EVICT_COUNT; taken++) {
		struct evict_rules rules = s3(1, 0);
		struct evict_cache *c;

		rules.taken = (enum evict_taken)taken;
		c = evict_cache_create(&rules, 100, 10);
		evict_cache_put(c, 0);
		CHECK(evict_cache_take(c, 0));
		CHECK(!evict_cache_take(c, 0));
		evict_cache_put(c, 0);
		for (uint32_t k = 1; k < 30; k++)
			evict_cache_put(c, k);
		CHECK_EQ(evict_cache_take(c, 0), taken != EVICT_FORGET);
		evict_cache_destroy(c);
	}
}

static void the_ghost_forgets_in_time(void)
{
	for (unsigned table = 0; table <= 400; table += 400) {
		struct evict_ghost g;
		unsigned hits = 0;

		evict_ghost_init(&g, 10000, 100, table);
		evict_ghost_note(&g, 1, 2);
		CHECK(evict_ghost_recall(&g, 1, &hits));
		CHECK_EQ(hits, 2);
		CHECK(!evict_ghost_recall(&g, 1, &hits));
		evict_ghost_note(&g, 2, 0);
		for (uint32_t k = 100; k < 199; k++)
			evict_ghost_note(&g, k, 0);
		CHECK(evict_ghost_recall(&g, 2, &hits));
		evict_ghost_note(&g, 3, 0);
		for (uint32_t k = 200; k < 300; k++)
			evict_ghost_note(&g, k, 0);
		CHECK(!evict_ghost_recall(&g, 3, &hits));
		evict_ghost_fini(&g);
	}
}

/* The most hits from event `at` on; `kept` is a set of keys. */
static uint32_t search(const struct evict_stream *s, uint32_t at, uint32_t kept,
		       uint32_t capacity)
{
	uint32_t key, hit, best = 0, n;

	if (at == s->nr)
		return 0;
	key = 1u << s->keys[at];
	hit = kept & key && (!s->what || s->what[at] == EVICT_TAKE);
	if (s->what && s->what[at] == EVICT_TAKE)
		return hit + search(s, at + 1, kept & ~key, capacity);
	kept |= key;
	if ((uint32_t)__builtin_popcount(kept) <= capacity)
		return hit + search(s, at + 1, kept, capacity);
	for (uint32_t left = kept; left; left &= left - 1) {
		n = search(s, at + 1, kept & ~(left & -left), capacity);
		if (n > best)
			best = n;
	}
	return hit + best;
}

static struct evict_stream random_requests(struct rng *rng, uint32_t nr,
					   uint32_t nr_keys)
{
	struct evict_stream s = { .nr = nr,
				  .nr_keys = nr_keys,
				  .second_pool = nr_keys / 3,
				  .asked = nr };

	s.keys = calloc(nr, sizeof(*s.keys));
	CHECK(s.keys);
	for (uint32_t i = 0; i < nr; i++)
		s.keys[i] =
			(uint32_t)rng_below(rng, 1 + rng_below(rng, nr_keys));
	return s;
}

static void the_optimum_is_the_best_of_all_choices(struct rng *rng)
{
	for (int i = 0; i < 200; i++) {
		struct evict_stream s = random_requests(rng, 12, 5), behind;

		for (uint32_t c = 1; c <= 3; c++) {
			evict_stream_behind(&s, 1, &behind);
			CHECK_EQ(evict_optimum(&s, c), search(&s, 0, 0, c));
			CHECK_EQ(evict_optimum(&behind, c),
				 search(&behind, 0, 0, c));
			free(behind.keys);
			free(behind.what);
		}
		free(s.keys);
	}
}

/* What is in neither has not been used for as long as in an LRU of both. */
static void fifo_behind_lru_is_an_lru_of_both_sizes(struct rng *rng)
{
	for (uint32_t front = 1; front < 60; front += 7) {
		struct evict_stream s = random_requests(rng, 5000, 200), behind;

		evict_stream_behind(&s, front, &behind);
		for (uint32_t c = 1; c < 100; c += 9)
			CHECK_EQ(s.nr - behind.asked +
					 evict_run(&behind, &fifo, c),
				 evict_run(&s, &lru, front + c));
		free(behind.keys);
		free(behind.what);
		free(s.keys);
	}
}

static void no_policy_beats_the_optimum(struct rng *rng)
{
	struct evict_rules all[] = { fifo,	 lru,	     clock_rules,
				     sieve,	 s3(1, 0),   s3(2, 0),
				     s3(1, 125), s3(1, 125), s3(1, 125) };
	struct evict_stream s = random_requests(rng, 20000, 2000), behind;

	all[7].nr_shards = 16;
	all[7].spread = EVICT_TURN;
	all[7].max_moves = 4;
	all[7].two_pools = true;
	all[8].nr_shards = 16;
	all[8].spread = EVICT_OWN;
	all[6].two_pools = true;
	all[6].spread = EVICT_EACH;
	evict_stream_behind(&s, 50, &behind);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		for (uint32_t c = 20; c < 1000; c += 190) {
			CHECK(evict_run(&s, &all[i], c) <=
			      evict_optimum(&s, c));
			CHECK(evict_run(&behind, &all[i], c) <=
			      evict_optimum(&behind, c));
		}
		/* A cache of everything misses only what is new. */
		CHECK_EQ(evict_run(&s, &all[i], 2000), evict_optimum(&s, 2000));
	}
	free(behind.keys);
	free(behind.what);
	free(s.keys);
}

/* Returns the phase after a second client has come beside a first one. */
static struct evict_phase second_client(enum evict_by by, uint32_t set_keys)
{
	struct evict_weights *w = evict_weights_create(by, 2, 4 << 20);
	struct evict_phase p;

	for (unsigned i = 0; i < 2; i++)
		*evict_weights_client(w, i) = (struct evict_client){
			.weight = 1 + 2 * i, .rate = !i, .set_keys = 20000
		};
	evict_weights_run(w, 50000, &p);
	evict_weights_client(w, 1)->rate = 1;
	evict_weights_client(w, 1)->set_keys = set_keys;
	evict_weights_run(w, 100000, &p);
	CHECK_EQ(evict_weights_client(w, 0)->bytes +
				 evict_weights_client(w, 1)->bytes >
			 (4 << 20) - 4096,
		 true);
	if (by == EVICT_BY_WEIGHT && set_keys == 20000)
		CHECK_EQ(evict_weights_client(w, 1)->share_bytes, 3 << 20);
	evict_weights_destroy(w);
	return p;
}

static void shares_converge_by_weight_only(void)
{
	struct evict_phase p = second_client(EVICT_BY_WEIGHT, 20000);

	CHECK(p.converged && p.worst <= 2);
	CHECK_EQ(p.wrong, 0);
	CHECK(p.stores <= p.least);
	p = second_client(EVICT_BY_WEIGHT, 100);
	CHECK(p.converged && p.worst <= 2);
	CHECK_EQ(p.wrong, 0);
	p = second_client(EVICT_BY_XEN, 20000);
	CHECK(!p.converged);
	CHECK(p.wrong > 0);
}

int main(int argc, char **argv)
{
	struct rng rng = { seed_from(argc, argv, 1) };

	RUN(fifo_and_lru_miss_as_textbooks_say);
	RUN(clock_passes_over_a_page_once);
	RUN(sieve_keeps_what_the_hand_has_passed);
	RUN(s3_keeps_what_was_hit_through_a_scan);
	RUN(s3_takes_a_remembered_page_into_main);
	RUN(s3_takes_a_taken_page_into_main);
	RUN(the_ghost_forgets_in_time);
	the_optimum_is_the_best_of_all_choices(&rng);
	fifo_behind_lru_is_an_lru_of_both_sizes(&rng);
	no_policy_beats_the_optimum(&rng);
	RUN(shares_converge_by_weight_only);
	return 0;
}
