/* SPDX-License-Identifier: MIT */
/*
 * A snapshot's stream is restored whole or not at all: what is on its way is
 * seen by nobody, and one that is cut short or damaged, at whatever byte, is
 * refused with the block's offset and leaves the store as it was: its counters,
 * its pages, those that the stream is based on.
 *
 *	snapshot_whole [PAGES [STRIDE]]
 *
 * PAGES in a stream, cut and damaged at every STRIDE-th byte.
 */
#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>

#include "givedict.h"
#include "snapbuf.h"
#include "testimage.h"

enum {
	PAGES = 18,
	STRIDE = 1,
	HEADER = 64, /* then blocks: head, text, sum */
	BLOCK_HEAD = 16,
	BLOCK_SUM = 16,
	CHECK_EVERY = 512,
	SPARE_BYTES = 1 << 20,
	DICT_BYTES = 500,
	MAX_IDS = 4 * 256
};

static unsigned nr_pages = PAGES, stride = STRIDE;
static struct tmem_store *from, *to;
static struct tmem_backend a, b;
static tmem_pool_id pool, cache;
static const char key[TMEM_SNAPSHOT_KEY_BYTES] = "not to be seen";
static const struct tmem_pool_options eph = { .flags = TMEM_POOL_EPHEMERAL };
static const struct tmem_pool_options sha = {
	TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED, { 3, 4 }
};

static struct tmem_store *open_one(const int *fd)
{
	struct tmem_store_options o = { .limit_bytes = 32u << 20,
					.cool_after_ns = 1,
					.dict_every_ns = 1,
					.arena_fd = fd };
	struct tmem_store *s;

	CHECK_EQ(tmem_store_open(&o, &s), 0);
	return s;
}

/* One word; or letters, for zstd to make less of. */
static void fill(unsigned char *page, unsigned nr, unsigned version)
{
	struct rng rng = { nr * 100ull + version };
	unsigned i;

	memset(page, (int)(nr + version), PAGE);
	for (i = 0; nr % 4 == 0 && i < 600; i++)
		page[i] = (unsigned char)"etaoin shrdlu"[rng_below(&rng, 13)];
}

static struct tmem_io io_of(unsigned nr, void *page)
{
	return (struct tmem_io){ .object = { { nr / 50, 6 } },
				 .index = nr,
				 .page = page };
}

static void put(const struct tmem_backend *to_whom, tmem_pool_id p, unsigned nr,
		unsigned version)
{
	unsigned char page[PAGE];
	struct tmem_io io = io_of(nr, page);

	fill(page, nr, version);
	CHECK_EQ(to_whom->ops->store(to_whom->self, p, &io, 1), 0);
	CHECK_EQ(io.result, 0);
}

/* version 0: it is not there. */
static void must_have(const struct tmem_backend *of, tmem_pool_id p,
		      unsigned nr, unsigned version)
{
	unsigned char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(nr, page);

	CHECK_EQ(of->ops->load(of->self, p, &io, 1), 0);
	CHECK_EQ(io.result, version ? 0 : TMEM_MISS);
	fill(want, nr, version);
	CHECK(!version || memcmp(page, want, PAGE) == 0);
}

static struct tmem_stats figures(const struct tmem_backend *of)
{
	struct tmem_stats s;

	CHECK_EQ(of->ops->stats(of->self, &s), 0);
	return s;
}

static struct tmem_snapshot save(const struct tmem_snapshot_options *o,
				 struct snapbuf *buf)
{
	struct tmem_snapshot_sink sink = snapbuf_sink(buf);
	struct tmem_snapshot s;

	buf->nr = 0;
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(from), o, &sink, &s),
		 0);
	return s;
}

static int try_restore(const struct tmem_snapshot_options *o,
		       struct snapbuf *buf, struct tmem_snapshot *ret,
		       struct tmem_snapshot_fault *fault)
{
	struct tmem_snapshot_source source = snapbuf_source(buf);

	return tmem_snapshot_restore(tmem_client_default(to), o, &source, ret,
				     fault);
}

/* Pages of all forms that a stream may have, in pools of all kinds. */
static void open_from(void)
{
	unsigned char letters[PAGE];
	tmem_pool_id e, s;
	unsigned i;

	from = open_one(NULL);
	from->dict_every_ns = 0; /* what is given below stays */
	a = tmem_store_backend(from);
	CHECK_EQ(tmem_client_allow(tmem_client_default(from), sha.uuid, 1), 0);
	CHECK_EQ(a.ops->pool_create(a.self, NULL, &pool), 0);
	fill(letters, 0, 3);
	CHECK(give_dict(from, pool, letters, DICT_BYTES));
	CHECK_EQ(a.ops->pool_create(a.self, &eph, &e), 0);
	CHECK_EQ(a.ops->pool_create(a.self, &sha, &s), 0);
	for (i = 0; i < nr_pages; i++) {
		put(&a, pool, i, 1);
		while (i == nr_pages / 2 && !figures(&a).zstd_dict_pages)
			tmem_store_maintain(from, 1000000000);
	}
	CHECK(figures(&a).lz4_dict_pages && figures(&a).zstd_dict_pages);
	put(&a, e, 1, 1);
	put(&a, s, 2, 1);
}

/* Has pages of its own already. */
static void open_to(const int *fd)
{
	unsigned i;

	to = open_one(fd);
	b = tmem_store_backend(to);
	CHECK_EQ(tmem_client_allow(tmem_client_default(to), sha.uuid, 1), 0);
	CHECK_EQ(b.ops->pool_create(b.self, NULL, &cache), 0);
	for (i = 0; i < 40; i++)
		put(&b, cache, i, 7);
}

static void close_both(void)
{
	tmem_store_check(from);
	tmem_store_check(to);
	tmem_store_close(from);
	tmem_store_close(to);
}

/* Where the block begins in which that byte is. */
static size_t block_at(const struct snapbuf *buf, size_t nr, size_t byte)
{
	size_t at = HEADER, next = HEADER;
	uint32_t length;

	while (next <= byte && next + BLOCK_HEAD <= nr) {
		at = next;
		memcpy(&length, buf->bytes + at, sizeof(length));
		next = at + BLOCK_HEAD + length + BLOCK_SUM;
	}
	return next <= byte ? next : at;
}

struct trial {
	struct snapbuf buf;
	struct tmem_snapshot_options options;
	tmem_pool_id base;   /* restored before; 0: none is needed */
	uint64_t held_bytes; /* at first */
	uint64_t done;
};

static void check_contents(const struct trial *t)
{
	unsigned i;

	tmem_store_check(to);
	for (i = 0; i < 40; i++)
		must_have(&b, cache, i, 7);
	for (i = 0; t->base && i < nr_pages; i++)
		must_have(&b, t->base, i, 1);
}

/* All but memory that is kept for the next time, which is not much. */
static void must_equal(const struct trial *t, const struct tmem_stats *before,
		       struct tmem_stats after)
{
	CHECK(after.held_bytes < t->held_bytes + SPARE_BYTES);
	after.held_bytes = before->held_bytes;
	after.data_bytes = before->data_bytes;
	after.idle_bytes = before->idle_bytes;
	after.meta_bytes = before->meta_bytes;
	after.dict_bytes = before->dict_bytes; /* their table stays */
	CHECK(memcmp(before, &after, sizeof(after)) == 0);
}

/* The stream as it is now, with the first thing wrong at that byte. */
static void must_be_refused(struct trial *t, size_t block, size_t byte)
{
	struct tmem_snapshot_fault fault = { ~0ull, NULL };
	struct tmem_stats before = figures(&b);
	struct tmem_client_pool pools[1];
	struct tmem_client *client = tmem_client_default(to);
	unsigned nr = tmem_client_pools(client, pools, 0);
	static struct tmem_snapshot s;
	int r = try_restore(&t->options, &t->buf, &s, &fault);

	CHECK(r == -EBADMSG || r == -EOPNOTSUPP || r == -ENOKEY ||
	      r == -EKEYREJECTED);
	CHECK(fault.why && *fault.why);
	if (byte < HEADER)
		CHECK(fault.offset <= HEADER);
	else
		CHECK_EQ(fault.offset, block);
	must_equal(t, &before, figures(&b));
	CHECK_EQ(tmem_client_pools(client, pools, 0), nr);
	if (t->done++ % CHECK_EVERY == 0)
		check_contents(t);
}

static void cut_and_damage(struct trial *t)
{
	struct snapbuf *buf = &t->buf;
	size_t whole = buf->nr, n;
	static struct tmem_snapshot s;

	t->held_bytes = figures(&b).held_bytes;
	for (n = 0; n < whole; n += stride) {
		buf->nr = n;
		must_be_refused(t, block_at(buf, whole, n), n);
		buf->nr = whole;
		buf->bytes[n] ^= (unsigned char)(1 + t->done % 255);
		/* Damage to a length does not move its block. */
		must_be_refused(t, block_at(buf, n, n), n);
		buf->bytes[n] ^= (unsigned char)(1 + (t->done - 1) % 255);
	}
	check_contents(t);
	CHECK_EQ(try_restore(&t->options, buf, &s, NULL), 0);
	for (n = 0; n < nr_pages; n++)
		must_have(&b, s.pools[0].pool, (unsigned)n,
			  t->options.since && n % 6 == 0 ? 2 : 1);
}

static void a_broken_stream_is_refused_whole(const void *seal)
{
	struct trial t = { .options = { .key = seal } };

	open_from();
	open_to(NULL);
	save(&t.options, &t.buf);
	cut_and_damage(&t);
	snapbuf_free(&t.buf);
	close_both();
}

static void a_broken_increment_is_refused_whole(const void *seal)
{
	struct trial t = { .options = { .key = seal } };
	static struct tmem_snapshot first, there;
	unsigned i;

	open_from();
	open_to(NULL);
	t.options.pool = pool;
	first = save(&t.options, &t.buf);
	CHECK_EQ(try_restore(&t.options, &t.buf, &there, NULL), 0);
	t.base = there.pools[0].pool;
	for (i = 0; i < nr_pages; i += 6)
		put(&a, pool, i, 2);
	t.options.since = &first;
	first = save(&t.options, &t.buf);
	CHECK(first.kept_pages > 0);
	t.options.since = &there;
	cut_and_damage(&t);
	snapbuf_free(&t.buf);
	close_both();
}

/* While it is read. */
struct meanwhile {
	struct snapbuf buf;
	unsigned reads;
	uint64_t staged; /* pages, seen on the way */
	int image;
	int copy;
};

/* Whatever the id is, it is nobody's. */
static void nobody_has_it(void)
{
	struct tmem_snapshot_sink sink;
	struct snapbuf buf = { 0 };
	struct tmem_client_pool pools[1];
	struct tmem_snapshot s;
	unsigned char page[PAGE];
	tmem_pool_id id, clone;

	CHECK_EQ(tmem_client_pools(tmem_client_default(to), pools, 1), 1);
	CHECK_EQ(pools[0].id, cache);
	for (id = 0; id < MAX_IDS; id++) {
		struct tmem_io io = io_of(1, page);

		if (id == cache)
			continue;
		CHECK_EQ(b.ops->load(b.self, id, &io, 1), -ENOENT);
		CHECK_EQ(b.ops->store(b.self, id, &io, 1), -ENOENT);
		CHECK_EQ(b.ops->pool_clone(b.self, id, &clone), -ENOENT);
		CHECK_EQ(b.ops->pool_destroy(b.self, id), -ENOENT);
	}
	sink = snapbuf_sink(&buf);
	CHECK_EQ(tmem_snapshot_save(tmem_client_default(to), NULL, &sink, &s),
		 0);
	CHECK_EQ(s.nr_pools, 1);
	CHECK_EQ(s.pages, 40);
	snapbuf_free(&buf);
}

/* A process that comes after this one was killed now. */
static void nobody_finds_it(const struct meanwhile *m)
{
	struct tmem_client_pool pools[1];
	struct tmem_store *other;

	image_copy(m->image, m->copy);
	other = open_one(&m->copy);
	tmem_store_check(other);
	CHECK_EQ(tmem_client_pools(tmem_client_default(other), pools, 1), 1);
	CHECK_EQ(pools[0].id, cache);
	tmem_store_close(other);
}

static int64_t read_meanwhile(void *arg, void *ret_bytes, size_t nr_bytes)
{
	struct meanwhile *m = arg;
	uint64_t pages = figures(&b).pages;

	if (pages > m->staged)
		m->staged = pages;
	if (m->reads++ % 50 == 0) {
		tmem_store_check(to);
		nobody_has_it();
		if (m->image >= 0)
			nobody_finds_it(m);
	}
	return snapbuf_read(&m->buf, ret_bytes, nr_bytes);
}

static void what_is_on_its_way_is_not_there(int image, int copy)
{
	struct tmem_snapshot_options o = { 0 };
	struct meanwhile m = { .image = image, .copy = copy };
	struct tmem_snapshot_source source = { read_meanwhile, &m };
	struct tmem_client_pool pools[4];
	static struct tmem_snapshot s;
	unsigned saved = nr_pages, i;

	nr_pages = 2000; /* several blocks */
	open_from();
	open_to(image < 0 ? NULL : &image);
	save(&o, &m.buf);
	m.buf.piece = 512;
	CHECK_EQ(tmem_snapshot_restore(tmem_client_default(to), &o, &source, &s,
				       NULL),
		 0);
	CHECK(m.staged > 40 + 100);
	CHECK_EQ(tmem_client_pools(tmem_client_default(to), pools, 4), 4);
	if (image >= 0) {
		tmem_store_close(to);
		to = open_one(&image);
		b = tmem_store_backend(to);
		CHECK_EQ(tmem_client_pools(tmem_client_default(to), pools, 4),
			 4);
	}
	for (i = 0; i < nr_pages; i++)
		must_have(&b, s.pools[0].pool, i, 1);
	snapbuf_free(&m.buf);
	close_both();
	nr_pages = saved;
}

static void what_is_being_restored_is_seen_by_nobody(void)
{
	int image = image_memfd(), copy = image_memfd();

	what_is_on_its_way_is_not_there(-1, -1);
	what_is_on_its_way_is_not_there(image, copy);
	close(image);
	close(copy);
}

int main(int argc, char **argv)
{
	int sealed;

	if (argc > 1)
		nr_pages = (unsigned)atoi(argv[1]);
	if (argc > 2)
		stride = (unsigned)atoi(argv[2]);
	RUN(what_is_being_restored_is_seen_by_nobody);
	for (sealed = 0; sealed < 2; sealed++) {
		a_broken_stream_is_refused_whole(sealed ? key : NULL);
		a_broken_increment_is_refused_whole(sealed ? key : NULL);
	}
	return 0;
}
