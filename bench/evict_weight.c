/* SPDX-License-Identifier: MIT */
/*
 * The simulation of weights.
 *
 * Why the rule converges.  Let b be a client's bytes, w its weight; all demand
 * more than they get.  The largest b/w is at least sum(b)/sum(w), so whoever
 * is below its share sum(b) w/sum(w) is never chosen: it only grows, with each
 * of its stores, and each eviction takes from an excess.  The sum of excesses
 * falls by a page with each page that is stored by a client under its share,
 * and never grows.  A client that demands less than its share is below it, so
 * it keeps all its pages, and the rest are as if alone with what it leaves.
 *
 * Each client's pages are a list, oldest last; each page has the number of its
 * store, for Xen's rule, which needs the oldest of all.
 */
#include "evict_weight.h"

#include <stdlib.h>
#include <string.h>

#include "evict_list.h"
#include "evict_trace.h"

struct pages {
	struct evict_list list;
	struct evict_node *nodes;
	uint64_t *stored; /* the number of the store */
};

struct evict_weights {
	enum evict_by by;
	unsigned nr;
	uint64_t limit_bytes;
	uint64_t bytes;
	uint64_t stores;
	uint64_t evictions;
	uint64_t wrong;
	struct evict_random random;
	struct evict_client clients[EVICT_MAX_CLIENTS];
	struct pages pages[EVICT_MAX_CLIENTS];
};

/* 512 to 2496 bytes, as slots are: 64 bytes apart. */
static uint32_t page_bytes(unsigned client, uint32_t key)
{
	uint64_t hash = evict_mix((uint64_t)client << 32 | (key + 1));

	return 64 * (8 + (uint32_t)(hash % 32));
}

enum {
	MEAN_BYTES = 64 * 8 + 64 * 31 / 2
};

struct evict_weights *evict_weights_create(enum evict_by by, unsigned nr,
					   uint64_t limit_bytes)
{
	struct evict_weights *w = evict_alloc(1, sizeof(*w));
	unsigned i;

	w->by = by;
	w->nr = nr;
	w->limit_bytes = limit_bytes;
	w->random.state = 5;
	for (i = 0; i < nr; i++) {
		w->pages[i].nodes = evict_alloc(EVICT_WEIGHT_KEYS + 1,
						sizeof(struct evict_node));
		w->pages[i].stored =
			evict_alloc(EVICT_WEIGHT_KEYS + 1, sizeof(uint64_t));
	}
	return w;
}

void evict_weights_destroy(struct evict_weights *w)
{
	unsigned i;

	for (i = 0; i < w->nr; i++) {
		free(w->pages[i].nodes);
		free(w->pages[i].stored);
	}
	free(w);
}

struct evict_client *evict_weights_client(struct evict_weights *w, unsigned i)
{
	return &w->clients[i];
}

/* The oldest page of a client that has one. */
static void drop_oldest(struct evict_weights *w, unsigned i)
{
	struct pages *p = &w->pages[i];
	uint32_t n = p->list.tail, bytes = page_bytes(i, n - 1);

	evict_unlink(p->nodes, &p->list, n);
	p->nodes[n].list = 0;
	w->clients[i].pages--;
	w->clients[i].bytes -= bytes;
	w->bytes -= bytes;
}

void evict_weights_invalidate(struct evict_weights *w, unsigned i)
{
	while (w->clients[i].pages)
		drop_oldest(w, i);
}

/* True if a's bytes by weight are more than b's. */
static bool more(const struct evict_client *a, const struct evict_client *b)
{
	return a->bytes * b->weight > b->bytes * a->weight;
}

static unsigned largest(const struct evict_weights *w)
{
	unsigned i, best = 0;

	for (i = 1; i < w->nr; i++)
		if (more(&w->clients[i], &w->clients[best]))
			best = i;
	return best;
}

static unsigned oldest(const struct evict_weights *w)
{
	uint64_t best = UINT64_MAX;
	unsigned i, answer = 0;

	for (i = 0; i < w->nr; i++) {
		const struct pages *p = &w->pages[i];

		if (p->list.nr && p->stored[p->list.tail] < best) {
			best = p->stored[p->list.tail];
			answer = i;
		}
	}
	return answer;
}

/* Xen: all / mine > all weights / my weight, said to mean "over quota". */
static bool xen_over_quota(const struct evict_weights *w, unsigned i)
{
	const struct evict_client *c = &w->clients[i];
	uint64_t weights = 0, left, right;
	unsigned k;

	for (k = 0; k < w->nr; k++)
		weights += w->clients[k].weight;
	if (!c->bytes)
		return false;
	left = w->bytes * c->weight;
	right = weights * c->bytes;
	return w->by == EVICT_BY_XEN ? left > right : left < right;
}

/* A page of client i has just come. */
static unsigned victim(const struct evict_weights *w, unsigned i)
{
	if (w->by == EVICT_BY_WEIGHT)
		return largest(w);
	return xen_over_quota(w, i) ? i : oldest(w);
}

static void request(struct evict_weights *w, unsigned i)
{
	struct evict_client *c = &w->clients[i];
	struct pages *p = &w->pages[i];
	uint32_t n = 1 + evict_below(&w->random, c->set_keys);
	uint32_t bytes = page_bytes(i, n - 1);

	if (p->nodes[n].list)
		return;
	evict_push(p->nodes, &p->list, n);
	p->nodes[n].list = 1;
	p->stored[n] = ++w->stores;
	c->pages++;
	c->bytes += bytes;
	w->bytes += bytes;
	while (w->bytes > w->limit_bytes) {
		unsigned v = victim(w, i);

		w->wrong += w->clients[v].bytes < w->clients[v].share_bytes;
		w->evictions++;
		drop_oldest(w, v);
	}
}

static uint64_t demand(unsigned client, uint32_t set_keys)
{
	uint64_t sum = 0;
	uint32_t key;

	for (key = 0; key < set_keys; key++)
		sum += page_bytes(client, key);
	return sum;
}

/* Gives the satisfied their demand, and shares the rest, until none is new. */
void evict_weights_shares(struct evict_weights *w)
{
	uint64_t demands[EVICT_MAX_CLIENTS], left = w->limit_bytes, weights = 0;
	bool satisfied[EVICT_MAX_CLIENTS] = { false }, again = true;
	unsigned i;

	for (i = 0; i < w->nr; i++) {
		demands[i] = demand(i, w->clients[i].set_keys);
		weights += w->clients[i].weight;
	}
	while (again) {
		again = false;
		for (i = 0; i < w->nr; i++) {
			struct evict_client *c = &w->clients[i];

			if (satisfied[i])
				continue;
			c->share_bytes = left * c->weight / weights;
			if (demands[i] > c->share_bytes)
				continue;
			c->share_bytes = demands[i];
			left -= demands[i];
			weights -= c->weight;
			satisfied[i] = again = true;
			break;
		}
	}
}

/* The largest deviation from a share, in percent of it. */
static double deviation(const struct evict_weights *w)
{
	double worst = 0, d;
	unsigned i;

	for (i = 0; i < w->nr; i++) {
		const struct evict_client *c = &w->clients[i];

		d = (double)c->bytes - (double)c->share_bytes;
		d = (d < 0 ? -d : d) * 100 / (double)c->share_bytes;
		if (d > worst)
			worst = d;
	}
	return worst;
}

static uint64_t excess(const struct evict_weights *w)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < w->nr; i++)
		if (w->clients[i].bytes > w->clients[i].share_bytes)
			sum += w->clients[i].bytes - w->clients[i].share_bytes;
	return sum;
}

/* By rate. */
static unsigned draw_client(struct evict_weights *w)
{
	uint32_t sum = 0, at;
	unsigned i;

	for (i = 0; i < w->nr; i++)
		sum += w->clients[i].rate;
	at = evict_below(&w->random, sum);
	for (i = 0; at >= w->clients[i].rate; i++)
		at -= w->clients[i].rate;
	return i;
}

void evict_weights_run(struct evict_weights *w, uint64_t requests,
		       struct evict_phase *ret_phase)
{
	uint64_t before = w->evictions, wrong = w->wrong, k, stores;
	struct evict_phase p = { 0 };

	evict_weights_shares(w);
	p.least = excess(w) / MEAN_BYTES;
	for (k = 0; k < requests; k++) {
		unsigned i = draw_client(w);
		const struct evict_client *c = &w->clients[i];
		bool under = c->bytes < c->share_bytes;

		stores = w->stores;
		request(w, i);
		if (p.converged) {
			if (deviation(w) > p.worst)
				p.worst = deviation(w);
			continue;
		}
		p.stores += under ? w->stores - stores : 0;
		p.evictions = w->evictions - before;
		p.converged = deviation(w) <= 2;
	}
	if (!p.converged)
		p.worst = deviation(w);
	p.wrong = w->wrong - wrong;
	*ret_phase = p;
}
