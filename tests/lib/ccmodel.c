/* SPDX-License-Identifier: MIT */
/* See ccmodel.h. */
#include "ccmodel.h"

#include "faultbackend.h"
#include "fstest.h"
#include "tmem/cleancache.h"
#include "tmem/client.h"
#include "tmem/store.h"

enum {
	FRONTS = 2,
	VOLUMES = 5,
	MEMBERS = 2,
	FILES = 12,
	NAMED_FILES = 10,
	INDEXES = 32,
	NAMED_INDEXES = 28,
	CELLS = FILES * INDEXES,
	STRIDE = 7,	/* coprime to that */
	MAX_VECTOR = 40 /* more than the front end's batch */
};

/* A file system of a front end. */
struct member {
	unsigned front;
	bool live, disabled;
	tmem_cleancache_fs fs, stale;
};

struct volume {
	bool shared;
	unsigned nr_members;
	struct member members[MEMBERS];
	uint64_t cells[CELLS]; /* tag, 0: must not be found */
};

struct front {
	struct faultbackend *fb;
	struct tmem_cleancache *cc;
	uint64_t disabled; /* as counted, when last looked at */
};

struct ccmodel {
	struct ccmodel_options o;
	struct tmem_store *store;
	struct front fronts[FRONTS];
	struct volume volumes[VOLUMES];
	uint64_t next_tag;
	uint64_t hits, invalidated; /* as answered */
	char *pages;		    /* MAX_VECTOR */
};

/* Who shares which volume. */
static const struct {
	bool shared;
	unsigned nr_members, fronts[MEMBERS];
} layout[VOLUMES] = {
	{ false, 1, { 0 } },   { false, 1, { 0 } },   { false, 1, { 1 } },
	{ true, 2, { 0, 1 } }, { true, 2, { 0, 0 } },
};

static uint32_t draw(struct ccmodel *m, uint32_t below)
{
	return m->o.draw(m->o.arg) % below;
}

/* Keys and pages */

/* Names that a careless mapping would confuse; the last two are none. */
static struct tmem_cleancache_file file_of(unsigned file)
{
	static const uint32_t w[7] = { 5 };
	uint32_t reserved[6] = { 5, 0, 0, 0, 0, 0x9d5c3e71 };

	if (file < 6)
		return tmem_cleancache_handle(w, file + 1);
	if (file < NAMED_FILES)
		return tmem_cleancache_inode(file == 6	 ? 0
					     : file == 7 ? 5
					     : file == 8 ? 5ull << 32
							 : UINT64_MAX);
	if (file == NAMED_FILES)
		return tmem_cleancache_handle(reserved, 6);
	return tmem_cleancache_handle(w, 7);
}

/* Dense, far apart, the highest; then beyond: the low words of others. */
static uint64_t index_of(unsigned i)
{
	if (i < 16)
		return i;
	if (i < NAMED_INDEXES - 2)
		return i * 0x01000193ull;
	if (i < NAMED_INDEXES)
		return UINT32_MAX - (NAMED_INDEXES - 1 - i);
	return (i < INDEXES - 1 ? 1ull << 32 : 1ull << 63) + i % 4;
}

static bool has_name(unsigned cell)
{
	return cell / INDEXES < NAMED_FILES && cell % INDEXES < NAMED_INDEXES;
}

/* Some pages; with faults no page twice, which would be two answers to one. */
static unsigned draw_vector(struct ccmodel *m, struct tmem_cleancache_io *io,
			    unsigned *cells)
{
	unsigned nr = 1 + draw(m, draw(m, 8) ? 4 : MAX_VECTOR);
	unsigned cell = draw(m, CELLS);

	for (unsigned i = 0; i < nr; i++) {
		cells[i] = cell;
		io[i] = (struct tmem_cleancache_io){
			.file = file_of(cell / INDEXES),
			.index = index_of(cell % INDEXES),
			.page = m->pages + i * PAGE,
			.result = 77,
		};
		cell = m->o.faults ? (cell + STRIDE) % CELLS : draw(m, CELLS);
	}
	return nr;
}

/* File systems */

static struct tmem_cleancache *cc_of(struct ccmodel *m,
				     const struct member *member)
{
	return m->fronts[member->front].cc;
}

static void begin_member(struct ccmodel *m, struct volume *v,
			 struct member *member)
{
	uint64_t uuid[2] = { 1, (uint64_t)(v - m->volumes) };
	struct tmem_cleancache *cc = cc_of(m, member);
	int r;

	if (v->shared)
		r = tmem_cleancache_init_shared_fs(cc, uuid, PAGE, &member->fs);
	else
		r = tmem_cleancache_init_fs(cc, PAGE, &member->fs);
	CHECK(r == 0 || r == -ENOMEM || m->o.faults);
	if (r != 0)
		return;
	CHECK(member->fs != 0 && member->fs != member->stale);
	member->live = true;
	member->disabled = false;
}

static bool is_live(const struct volume *v)
{
	for (unsigned i = 0; i < v->nr_members; i++)
		if (v->members[i].live)
			return true;
	return false;
}

/* Since this was asked last. */
static bool newly_disabled(struct ccmodel *m, const struct member *member)
{
	struct front *front = &m->fronts[member->front];
	uint64_t before = front->disabled;
	struct tmem_cleancache_stats s;

	tmem_cleancache_get_stats(front->cc, &s);
	front->disabled = s.disabled;
	CHECK(s.disabled - before <= 1);
	CHECK(m->o.faults || s.disabled == 0);
	return s.disabled != before;
}

static void end_member(struct ccmodel *m, struct volume *v,
		       struct member *member)
{
	int r = tmem_cleancache_invalidate_fs(cc_of(m, member), member->fs);

	CHECK(r == 0 || m->o.faults);
	if (r != 0) {
		CHECK(newly_disabled(m, member) != member->disabled);
		member->disabled = true;
		return;
	}
	member->live = false;
	member->stale = member->fs;
	/* The last one takes all pages with it. */
	if (!is_live(v))
		memset(v->cells, 0, sizeof(v->cells));
}

static void end_volume(struct ccmodel *m, struct volume *v)
{
	for (unsigned i = 0; i < v->nr_members; i++) {
		struct member *member = &v->members[i];

		if (member->live)
			end_member(m, v, member);
		if (member->live) {
			faultbackend_arm(m->fronts[member->front].fb, 0, 0);
			end_member(m, v, member);
		}
		CHECK(!member->live);
	}
}

/*
 * After each operation: was the file system disabled?  Then nobody goes on
 * with a shared one, as the header demands.
 */
static void look_at_disabled(struct ccmodel *m, struct volume *v,
			     struct member *member, int result)
{
	if (newly_disabled(m, member))
		member->disabled = true;
	CHECK(result == 0 || (result < 0 && member->disabled));
	if (member->disabled && v->shared)
		end_volume(m, v);
}

/* Steps */

static void store_step(struct ccmodel *m, struct volume *v,
		       struct member *member)
{
	struct tmem_cleancache_io io[MAX_VECTOR];
	unsigned cells[MAX_VECTOR], nr = draw_vector(m, io, cells);
	uint64_t tag = m->next_tag;

	m->next_tag += nr;
	for (unsigned i = 0; i < nr; i++)
		page_fill(io[i].page, tag + i);
	tmem_cleancache_store(cc_of(m, member), member->fs, io, nr);
	for (unsigned i = 0; i < nr; i++) {
		CHECK(io[i].result == 0 || io[i].result == TMEM_REFUSED);
		CHECK(io[i].result != 0 ||
		      (has_name(cells[i]) && !member->disabled));
		v->cells[cells[i]] = io[i].result == 0 ? tag + i : 0;
	}
	look_at_disabled(m, v, member, 0);
}

static void check_untouched(const char *page)
{
	CHECK(page[0] == 0x5a && memcmp(page, page + 1, PAGE - 1) == 0);
}

static void load_some(struct ccmodel *m, struct volume *v,
		      struct member *member, struct tmem_cleancache_io *io,
		      const unsigned *cells, unsigned nr)
{
	memset(m->pages, 0x5a, nr * PAGE);
	tmem_cleancache_load(cc_of(m, member), member->fs, io, nr);
	for (unsigned i = 0; i < nr; i++) {
		uint64_t *cell = &v->cells[cells[i]];

		if (io[i].result == 0) {
			CHECK(!member->disabled);
			CHECK(*cell != 0);
			CHECK(page_is(io[i].page, *cell));
			m->hits++;
		} else {
			CHECK_EQ(io[i].result, TMEM_MISS);
			check_untouched(io[i].page);
		}
		if (io[i].result != 0 || !v->shared)
			*cell = 0;
	}
	look_at_disabled(m, v, member, 0);
}

static void load_step(struct ccmodel *m, struct volume *v,
		      struct member *member)
{
	struct tmem_cleancache_io io[MAX_VECTOR];
	unsigned cells[MAX_VECTOR], nr = draw_vector(m, io, cells);

	load_some(m, v, member, io, cells, nr);
}

static void invalidate_step(struct ccmodel *m, struct volume *v,
			    struct member *member)
{
	struct tmem_cleancache_io io[MAX_VECTOR];
	unsigned cells[MAX_VECTOR], nr = draw_vector(m, io, cells);
	int r = tmem_cleancache_invalidate_pages(cc_of(m, member), member->fs,
						 io, nr);

	for (unsigned i = 0; i < nr; i++) {
		CHECK(io[i].result <= 0 || io[i].result == TMEM_MISS);
		CHECK(io[i].result >= 0 || r < 0);
		CHECK(io[i].result != 0 || v->cells[cells[i]] != 0 ||
		      m->o.faults);
		m->invalidated += io[i].result == 0;
		v->cells[cells[i]] = 0;
	}
	look_at_disabled(m, v, member, r);
}

static void inode_step(struct ccmodel *m, struct volume *v,
		       struct member *member)
{
	unsigned file = draw(m, FILES);
	int r = tmem_cleancache_invalidate_inode(cc_of(m, member), member->fs,
						 file_of(file));

	for (unsigned i = 0; i < INDEXES; i++)
		v->cells[file * INDEXES + i] = 0;
	look_at_disabled(m, v, member, r);
}

/* A number of the past finds nothing and does nothing. */
static void stale_step(struct ccmodel *m, const struct member *member)
{
	struct tmem_cleancache *cc = cc_of(m, member);
	struct tmem_cleancache_io io[MAX_VECTOR];
	unsigned cells[MAX_VECTOR], nr = draw_vector(m, io, cells);

	memset(m->pages, 0x5a, nr * PAGE);
	tmem_cleancache_load(cc, member->stale, io, nr);
	for (unsigned i = 0; i < nr; i++) {
		CHECK_EQ(io[i].result, TMEM_MISS);
		check_untouched(io[i].page);
	}
	tmem_cleancache_store(cc, member->stale, io, nr);
	for (unsigned i = 0; i < nr; i++)
		CHECK_EQ(io[i].result, TMEM_REFUSED);
	CHECK_EQ(tmem_cleancache_invalidate_pages(cc, member->stale, io, nr),
		 0);
	CHECK_EQ(
		tmem_cleancache_invalidate_inode(cc, member->stale, io[0].file),
		0);
	CHECK_EQ(tmem_cleancache_invalidate_fs(cc, member->stale), 0);
}

static void arm_step(struct ccmodel *m)
{
	static const int errors[] = { -EIO, -ENOENT, -ENOMEM, -EPIPE };
	unsigned front = draw(m, FRONTS), how = draw(m, FAULT_HOWS);

	if (!m->o.strikes)
		return;
	faultbackend_set_error(m->fronts[front].fb, errors[draw(m, 4)],
			       (enum faulthow)how, draw(m, 4) == 0);
	faultbackend_arm(m->fronts[front].fb, draw(m, 30), draw(m, 64));
}

static void rare_step(struct ccmodel *m, struct volume *v,
		      struct member *member)
{
	uint64_t spare = m->o.limit_bytes - TMEM_STORE_MIN_BYTES;

	switch (draw(m, 8)) {
	case 0 ... 1:
		if (member->live)
			end_member(m, v, member);
		break;
	case 2:
		CHECK_EQ(tmem_store_set_limit(m->store,
					      TMEM_STORE_MIN_BYTES +
						      spare / 16 * draw(m, 17)),
			 0);
		break;
	case 3 ... 4:
		arm_step(m);
		break;
	default:
		stale_step(m, member);
		break;
	}
}

void ccmodel_step(struct ccmodel *m)
{
	struct volume *v = &m->volumes[draw(m, VOLUMES)];
	struct member *member = &v->members[draw(m, v->nr_members)];
	unsigned what = draw(m, 256);

	if (what < 6) {
		rare_step(m, v, member);
		return;
	}
	if (!member->live)
		begin_member(m, v, member);
	if (!member->live)
		return;
	if (what < 110)
		store_step(m, v, member);
	else if (what < 210)
		load_step(m, v, member);
	else if (what < 245)
		invalidate_step(m, v, member);
	else
		inode_step(m, v, member);
}

void ccmodel_check(struct ccmodel *m)
{
	struct ccmodel_seen seen = ccmodel_seen(m);
	uint64_t live = 0, there = 0, invalidated = 0;

	for (unsigned i = 0; i < VOLUMES; i++)
		for (unsigned k = 0; k < m->volumes[i].nr_members; k++)
			live += m->volumes[i].members[k].live;
	for (unsigned i = 0; i < FRONTS; i++) {
		struct tmem_cleancache_stats s;

		tmem_cleancache_check(m->fronts[i].cc);
		tmem_cleancache_get_stats(m->fronts[i].cc, &s);
		there += s.filesystems;
		invalidated += s.invalidated;
	}
	CHECK_EQ(there, live);
	CHECK_EQ(seen.hits, m->hits);
	CHECK_EQ(invalidated, m->invalidated);
	tmem_store_check(m->store);
}

/* Opening and closing */

static bool open_front(struct ccmodel *m, struct front *front)
{
	struct tmem_client *client;

	if (tmem_client_create(m->store, 0, &client) < 0)
		return false;
	for (unsigned i = 0; i < VOLUMES; i++) {
		uint64_t uuid[2] = { 1, i };

		CHECK_EQ(tmem_client_allow(client, uuid, 1), 0);
	}
	front->fb = faultbackend_create(tmem_client_backend(client));
	CHECK_EQ(tmem_cleancache_open(faultbackend_backend(front->fb),
				      &front->cc),
		 0);
	return true;
}

static void close_all(struct ccmodel *m)
{
	for (unsigned i = 0; i < FRONTS; i++) {
		if (!m->fronts[i].fb)
			continue;
		tmem_cleancache_close(m->fronts[i].cc);
		faultbackend_destroy(m->fronts[i].fb);
	}
	tmem_store_close(m->store);
	pages_free(m->pages, MAX_VECTOR);
	free(m);
}

struct ccmodel *ccmodel_open(const struct ccmodel_options *options)
{
	struct tmem_store_options store = {
		.limit_bytes = options->limit_bytes,
	};
	struct ccmodel *m = calloc(1, sizeof(*m));

	CHECK(m != NULL);
	m->o = *options;
	m->next_tag = 1;
	m->pages = pages_alloc(MAX_VECTOR);
	for (unsigned i = 0; i < VOLUMES; i++) {
		struct volume *v = &m->volumes[i];

		v->shared = layout[i].shared;
		v->nr_members = layout[i].nr_members;
		for (unsigned k = 0; k < v->nr_members; k++)
			v->members[k].front = layout[i].fronts[k];
	}
	if (tmem_store_open(&store, &m->store) < 0 ||
	    !open_front(m, &m->fronts[0]) || !open_front(m, &m->fronts[1])) {
		close_all(m);
		return NULL;
	}
	return m;
}

void ccmodel_close(struct ccmodel *m)
{
	for (unsigned i = 0; i < FRONTS; i++)
		faultbackend_arm(m->fronts[i].fb, 0, 0);
	for (unsigned i = 0; i < VOLUMES; i++) {
		struct volume *v = &m->volumes[i];
		struct member *member = &v->members[v->nr_members - 1];

		for (unsigned cell = 0; cell < CELLS && member->live; cell++) {
			struct tmem_cleancache_io io = {
				.file = file_of(cell / INDEXES),
				.index = index_of(cell % INDEXES),
				.page = m->pages,
			};

			load_some(m, v, member, &io, &cell, 1);
		}
	}
	ccmodel_check(m);
	close_all(m);
}

void ccmodel_arm(struct ccmodel *m, unsigned front, unsigned long n,
		 unsigned kinds)
{
	faultbackend_arm(m->fronts[front].fb, n, kinds);
}

void ccmodel_set_error(struct ccmodel *m, int error, unsigned how, bool sticky)
{
	for (unsigned i = 0; i < FRONTS; i++)
		faultbackend_set_error(m->fronts[i].fb, error,
				       (enum faulthow)how, sticky);
}

unsigned long ccmodel_struck(struct ccmodel *m, unsigned front)
{
	return faultbackend_struck(m->fronts[front].fb);
}

struct ccmodel_seen ccmodel_seen(struct ccmodel *m)
{
	struct tmem_backend be = tmem_store_backend(m->store);
	struct ccmodel_seen seen = { 0 };
	struct tmem_stats store;

	for (unsigned i = 0; i < FRONTS; i++) {
		struct tmem_cleancache_stats s;

		tmem_cleancache_get_stats(m->fronts[i].cc, &s);
		seen.hits += s.succ_loads;
		seen.misses += s.failed_loads;
		seen.errors +=
			s.store_errors + s.load_errors + s.invalidate_errors;
		seen.disabled += s.disabled;
		seen.ignored += s.ignored_fs + s.ignored_files +
				s.ignored_indexes + s.ignored_disabled;
	}
	CHECK_EQ(be.ops->stats(be.self, &store), 0);
	seen.evicted = store.evicted;
	return seen;
}
