/* SPDX-License-Identifier: MIT */
/* What a store needs to keep a corpus; see density.h. */
#include "density.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tmem/store.h>

enum {
	PAGE = TMEM_PAGE_SIZE,
	MAX_PARTS = 16,
	ROUNDS = 12 /* of maintenance: learning, migration, marks, cooling */
};

struct parts {
	unsigned nr;
	unsigned first[MAX_PARTS + 1]; /* page */
};

static const struct density ways[DENSITY_WAYS] = {
	{ "lz4", "as stored", 1.02, { 0 }, 0 },
	{ "lz4_dict", "LZ4 dictionaries, a pool a program", 0.97, { 0 }, 0 },
	{ "lz4_dict_one", "LZ4 dictionary, one pool", 0.97, { 0 }, 0 },
	{ "cold", "all cold, no dictionary", 0.70, { 0 }, 0 },
	{ "cold_dict", "all cold, dictionaries", 0.70, { 0 }, 0 },
};

static void read_parts(struct parts *p, const char *path, unsigned nr_pages)
{
	char name[64];
	unsigned nr;
	FILE *f;

	p->nr = 1;
	p->first[1] = nr_pages;
	if (!path)
		return;
	f = fopen(path, "re");
	if (!f)
		bench_die(path);
	for (p->nr = 0; p->nr < MAX_PARTS; p->nr++) {
		if (fscanf(f, "%63s %u", name, &nr) != 2)
			break;
		p->first[p->nr + 1] = p->first[p->nr] + nr;
	}
	fclose(f);
	if (!p->nr || p->first[p->nr] != nr_pages) {
		fprintf(stderr, "the parts are not the corpus's\n");
		exit(1);
	}
}

struct density_store {
	struct tmem_store *store;
	struct tmem_backend backend;
	tmem_pool_id pools[MAX_PARTS];
};

static void open_store(struct density_store *s, unsigned nr_pages,
		       enum density_way way)
{
	struct tmem_store_options o = { 0 };
	unsigned i;

	/* Never near full: the policy for that is not what is measured. */
	o.limit_bytes = (uint64_t)nr_pages * PAGE * 4 + (64u << 20);
	if (way == DENSITY_COLD || way == DENSITY_COLD_DICT)
		o.cool_after_ns = 1;
	if (way != DENSITY_LZ4 && way != DENSITY_COLD)
		o.dict_every_ns = 1;
	if (tmem_store_open(&o, &s->store) < 0)
		bench_die("tmem_store_open");
	s->backend = tmem_store_backend(s->store);
	for (i = 0; i < MAX_PARTS; i++)
		s->backend.ops->pool_create(s->backend.self, NULL,
					    &s->pools[i]);
}

/* Stores all pages, or loads and compares them. */
static void each_page(const struct density_store *s,
		      const struct bench_corpus *c, const struct parts *p,
		      bool load)
{
	char page[PAGE];
	unsigned part, i;

	for (part = 0; part < p->nr; part++) {
		for (i = p->first[part]; i < p->first[part + 1]; i++) {
			char *want = c->pages + (size_t)i * PAGE;
			struct tmem_io io = { .object = { { i >> 12 } },
					      .index = i,
					      .page = load ? page : want };
			const struct tmem_backend_ops *ops = s->backend.ops;

			(load ? ops->load : ops->store)(s->backend.self,
							s->pools[part], &io, 1);
			if (io.result == 0 &&
			    (!load || memcmp(page, want, PAGE) == 0))
				continue;
			fprintf(stderr, "density: page %u is wrong\n", i);
			exit(1);
		}
	}
}

static void measure(const struct bench_corpus *corpus, const struct parts *p,
		    enum density_way way, struct density *d)
{
	struct density_store s = { 0 };
	unsigned i;

	open_store(&s, corpus->nr, way);
	each_page(&s, corpus, p, false);
	d->wall_s = bench_now(CLOCK_MONOTONIC);
	for (i = 0; i < ROUNDS; i++)
		while (tmem_store_maintain(s.store, 1000000000))
			;
	d->wall_s = bench_now(CLOCK_MONOTONIC) - d->wall_s;
	s.backend.ops->stats(s.backend.self, &d->stats);
	each_page(&s, corpus, p, true);
	tmem_store_close(s.store);
}

void density_measure(const struct bench_corpus *corpus, const char *parts,
		     struct density ret[DENSITY_WAYS])
{
	struct parts p = { 0 }, one = { 0 };
	unsigned way;

	read_parts(&p, parts, corpus->nr);
	read_parts(&one, NULL, corpus->nr);
	for (way = 0; way < DENSITY_WAYS; way++) {
		ret[way] = ways[way];
		measure(corpus, way == DENSITY_DICT_ONE ? &one : &p,
			(enum density_way)way, &ret[way]);
	}
}
