/* SPDX-License-Identifier: MIT */
/*
 * Snapshots when something is denied: the n-th mapping, write or read fails,
 * for n = 1, 2, 3 ... until the scenario needs no more of them; and the limit
 * strikes, page by page, while pages are kept for a save and while they are
 * restored.  After each: the answer, what the stores hold, the invariants.
 */
#include <tmem/stats.h>
#include <tmem/store.h>

#include "givedict.h"
#include "snapbuf.h"
#include "storemodel.h"

enum {
	PAGES = 500,
	MAX_FAULTS = 2000,
	SPARE_BYTES = 256 << 10
};

static struct tmem_store *from, *to;
static struct tmem_backend a, b;
static tmem_pool_id pool;
static struct tmem_snapshot first, there;
static struct snapbuf full, increment;
static unsigned hooked;
static unsigned long answers[5];
static bool restartable; /* the one that is restored to */

static struct tmem_store *open_one(uint64_t limit_bytes, bool lasts)
{
	int fd = lasts ? memfd_create("image", MFD_CLOEXEC) : -1;
	struct tmem_store_options o = { .limit_bytes = limit_bytes,
					.max_limit_bytes = 64u << 20,
					.arena_fd = lasts ? &fd : NULL };
	struct tmem_store *s;

	CHECK_EQ(tmem_store_open(&o, &s), 0);
	if (lasts)
		close(fd);
	return s;
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / 50 } },
				 .index = key,
				 .page = page };
}

static void put(unsigned key, uint64_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	page_fill(page, tag);
	CHECK_EQ(a.ops->store(a.self, pool, &io, 1), 0);
	CHECK(io.result == 0 || io.result == TMEM_REFUSED);
}

static void must_have(const struct tmem_backend *of, tmem_pool_id p,
		      unsigned key, uint64_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	CHECK_EQ(of->ops->load(of->self, p, &io, 1), 0);
	CHECK_EQ(io.result, 0);
	CHECK(page_is(page, tag));
}

static uint64_t nr_pages(const struct tmem_backend *of)
{
	struct tmem_stats s;

	CHECK_EQ(of->ops->stats(of->self, &s), 0);
	return s.pages;
}

/* In the middle of a save: many pages have to be kept. */
static void meanwhile(void *arg)
{
	(void)arg;
	if (hooked++ != 1)
		return;
	for (unsigned key = 0; key < PAGES; key += 2)
		put(key, 9000 + key);
}

static int save(struct snapbuf *buf, const struct tmem_snapshot *since,
		struct tmem_snapshot *ret)
{
	struct tmem_snapshot_options o = { .pool = pool, .since = since };
	struct tmem_snapshot_sink sink = snapbuf_sink(buf);

	hooked = 0;
	return tmem_snapshot_save(tmem_client_default(from), &o, &sink, ret);
}

static int restore(struct snapbuf *buf, const struct tmem_snapshot *since,
		   struct tmem_snapshot *ret)
{
	struct tmem_snapshot_options o = { .since = since };
	struct tmem_snapshot_source source = snapbuf_source(buf);

	return tmem_snapshot_restore(tmem_client_default(to), &o, &source, ret,
				     NULL);
}

/* Two stores: one with pages, saved twice, one with the first of these. */
static void begin(uint64_t limit_bytes)
{
	_Alignas(8) char content[PAGE];

	storemodel_maps_arm(0, 0);
	from = open_one(64u << 20, false);
	to = open_one(limit_bytes, restartable);
	a = tmem_store_backend(from);
	b = tmem_store_backend(to);
	CHECK_EQ(a.ops->pool_create(a.self, NULL, &pool), 0);
	page_fill(content, 7);
	CHECK(give_dict(from, pool, content, PAGE));
	for (unsigned key = 0; key < PAGES; key++)
		put(key, 1 + key);
	CHECK_EQ(save(&full, NULL, &first), 0);
	for (unsigned key = 0; key < PAGES; key += 5)
		put(key, 5000 + key);
	CHECK_EQ(save(&increment, &first, &there), 0);
}

static void end(void)
{
	tmem_store_check(from);
	tmem_store_check(to);
	tmem_store_close(from);
	tmem_store_close(to);
	snapbuf_free(&full);
	snapbuf_free(&increment);
	CHECK_EQ(storemodel_maps_bytes(), 0);
}

static void take_back(const struct tmem_snapshot *s)
{
	CHECK_EQ(b.ops->pool_destroy(b.self, s->pools[0].pool), 0);
	/* Its dictionary takes memory until then. */
	while (tmem_store_maintain(to, 1000000000))
		;
}

/* 0 or what is expected, and then nothing came. */
static int answer(int r, int expected, const struct tmem_snapshot *s,
		  uint64_t before)
{
	CHECK(r == 0 || r == expected);
	tmem_store_check(to);
	if (r == 0)
		take_back(s);
	CHECK_EQ(nr_pages(&b), before);
	return r;
}

static void the_nth_read_fails(void)
{
	static const int errors[] = { -EIO, 0 };
	struct tmem_snapshot s;

	begin(16u << 20);
	CHECK_EQ(restore(&full, NULL, &there), 0);
	for (unsigned e = 0; e < 2; e++)
		for (unsigned long n = 1; n < MAX_FAULTS; n++) {
			increment.error = errors[e];
			increment.left = n;
			increment.piece = 777;
			if (answer(restore(&increment, &there, &s),
				   e ? -EBADMSG : -EIO, &s, PAGES) == 0)
				break;
			answers[0]++;
		}
	CHECK(answers[0] > 100);
	end();
}

static void the_nth_write_fails(void)
{
	struct snapbuf buf = { .hook = meanwhile };
	struct tmem_snapshot s;
	int r = -1;

	begin(16u << 20);
	for (unsigned long n = 1; r && n < MAX_FAULTS; n++) {
		buf.nr = 0;
		buf.piece = 2999;
		buf.error = n % 2 ? -EPIPE : 0;
		buf.left = n;
		r = save(&buf, NULL, &s);
		CHECK(r == 0 || r == (n % 2 ? -EPIPE : -EIO));
		tmem_store_check(from);
		answers[1] += r != 0;
	}
	CHECK(r == 0 && answers[1] > 100);
	buf.left = 0;
	CHECK_EQ(restore(&buf, NULL, &s), 0);
	snapbuf_free(&buf);
	end();
}

static void the_nth_mapping_fails(void)
{
	struct snapbuf buf = { .hook = meanwhile };
	unsigned long struck = 1;
	struct tmem_snapshot s;
	int r = -1;

	for (unsigned long n = 0; struck && n < MAX_FAULTS; n++) {
		begin(16u << 20);
		storemodel_maps_arm(1 + n / 2, (int)(n % 2));
		buf.nr = 0;
		r = save(&buf, NULL, &s);
		CHECK(r == 0 || r == -ENOMEM);
		if (r == 0)
			r = answer(restore(&buf, NULL, &s), -ENOMEM, &s, 0);
		answers[2] += r != 0;
		struck = storemodel_maps_struck();
		storemodel_maps_arm(0, 0);
		end();
	}
	CHECK(r == 0 && answers[2] >= 4);
	snapbuf_free(&buf);
}

/* Where it is restored to; as an increment, too. */
static void the_limit_strikes(void)
{
	struct tmem_snapshot s;
	uint64_t limit = TMEM_STORE_MIN_BYTES;
	int r = -1;

	begin(limit);
	for (; r; limit += 4096) {
		CHECK_EQ(tmem_store_set_limit(to, limit), 0);
		r = answer(restore(&full, NULL, &s), -ENOMEM, &s, 0);
		answers[3] += r != 0;
	}
	/* What is kept for later counts too: a little more, the next time. */
	CHECK_EQ(tmem_store_set_limit(to, limit + SPARE_BYTES), 0);
	CHECK_EQ(restore(&full, NULL, &there), 0);
	for (r = -1; r; limit += 4096) {
		CHECK_EQ(tmem_store_set_limit(to, limit), 0);
		r = answer(restore(&increment, &there, &s), -ENOMEM, &s, PAGES);
		answers[3] += r != 0;
	}
	CHECK_EQ(tmem_store_set_limit(to, limit + SPARE_BYTES), 0);
	CHECK_EQ(restore(&increment, &there, &s), 0);
	for (unsigned key = 0; key < PAGES; key++)
		must_have(&b, s.pools[0].pool, key,
			  key % 5 ? 1 + key : 5000 + key);
	CHECK(answers[3] > 50);
	end();
}

/* Where it is saved from, in the midst of it: stores are not refused for it. */
static void the_limit_strikes_the_pins(void)
{
	struct snapbuf buf = { .hook = meanwhile };
	struct tmem_snapshot s;
	struct tmem_stats stats;
	uint64_t n = 0;
	int r = -1;

	for (; r && n < MAX_FAULTS; n += 2) {
		begin(16u << 20);
		CHECK_EQ(a.ops->stats(a.self, &stats), 0);
		CHECK_EQ(
			tmem_store_set_limit(from, stats.held_bytes + n * 4096),
			0);
		buf.nr = 0;
		r = save(&buf, NULL, &s);
		CHECK(r == 0 || r == -ENOMEM);
		if (r == 0)
			CHECK_EQ(restore(&buf, NULL, &s), 0);
		for (unsigned key = 0; r == 0 && key < PAGES; key++)
			must_have(&b, s.pools[0].pool, key,
				  key % 5 ? 1 + key : 5000 + key);
		answers[4] += r != 0;
		end();
	}
	CHECK(r == 0);
	snapbuf_free(&buf);
}

int main(void)
{
	RUN(the_nth_read_fails);
	RUN(the_nth_write_fails);
	RUN(the_nth_mapping_fails);
	RUN(the_limit_strikes);
	RUN(the_limit_strikes_the_pins);
	restartable = true;
	RUN(the_limit_strikes);
	printf("failed: %lu reads, %lu writes, %lu mappings, %lu limits, "
	       "%lu while saving\n",
	       answers[0], answers[1], answers[2], answers[3], answers[4]);
	return 0;
}
