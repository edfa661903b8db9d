/* SPDX-License-Identifier: MIT */
/*
 * Each rule of tmem/frontswap.h, over a backend and a device that refuse and
 * fail on demand.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "fstest.h"
#include "testbackend.h"
#include "testdev.h"

enum {
	NR_PAGES = 2000,
	DEPTH = 16
};

static struct testbackend *tb;
static struct testdev *td;
static struct tmem_frontswap *fs;

static void open_fs(bool writethrough, bool exclusive, bool with_device)
{
	struct tmem_frontswap_options options = {
		.backend = testbackend_backend(tb),
		.writethrough = writethrough,
		.exclusive = exclusive,
	};
	struct tmem_swapdev none = { NULL, NULL };

	CHECK_EQ(tmem_frontswap_open(&options, &fs), 0);
	CHECK_EQ(tmem_frontswap_init(fs, 3, NR_PAGES,
				     with_device ? testdev_device(td) : none),
		 0);
}

static void refuse_next(void)
{
	testbackend_set_faults(
		tb, &(struct testbackend_faults){ 0, -1, -1, false });
}

static void refuse_all(void)
{
	testbackend_set_faults(tb,
			       &(struct testbackend_faults){ 0, -1, -1, true });
}

static int out(uint64_t offset, uint64_t tag)
{
	char page[PAGE];

	page_fill(page, tag);
	return tmem_frontswap_swap_out(fs, 3, offset, page);
}

static int store(uint64_t offset, uint64_t tag)
{
	char page[PAGE];

	page_fill(page, tag);
	return tmem_frontswap_store(fs, 3, offset, page);
}

static bool in_tmem(uint64_t offset)
{
	return tmem_frontswap_test(fs, 3, offset);
}

static bool on_device(uint64_t offset)
{
	struct tmem_swapdev dev = testdev_device(td);
	char page[PAGE];

	return dev.ops->read(dev.self, offset, page) == 0;
}

static bool holds(uint64_t offset, uint64_t tag)
{
	char page[PAGE];

	return tmem_frontswap_swap_in(fs, 3, offset, page) == 0 &&
	       page_is(page, tag);
}

/* The error of a lost page, whose bytes must not have been touched. */
static int lost(uint64_t offset)
{
	char page[PAGE];
	int r;

	memset(page, 0x77, sizeof(page));
	r = tmem_frontswap_swap_in(fs, 3, offset, page);
	CHECK(r < 0);
	for (unsigned i = 0; i < PAGE; i++)
		CHECK(page[i] == 0x77);
	return r;
}

static struct tmem_frontswap_stats stats(void)
{
	struct tmem_frontswap_stats s;

	tmem_frontswap_get_stats(fs, &s);
	return s;
}

static void a_page_goes_to_tmem_first(void)
{
	open_fs(false, false, true);
	CHECK_EQ(out(5, 50), 0);
	CHECK(in_tmem(5) && !on_device(5));
	CHECK(holds(5, 50));
	CHECK(holds(5, 50));
	CHECK_EQ(stats().succ_stores, 1);
	CHECK_EQ(stats().loads, 2);
	CHECK_EQ(stats().curr_pages, 1);
}

static void a_refused_page_goes_to_the_device(void)
{
	open_fs(false, false, true);
	refuse_next();
	CHECK_EQ(out(5, 50), 0);
	CHECK(!in_tmem(5) && on_device(5));
	CHECK(holds(5, 50));
	CHECK_EQ(stats().failed_stores, 1);
	CHECK_EQ(stats().device_writes, 1);
	CHECK_EQ(stats().device_reads, 1);
	CHECK_EQ(stats().loads, 0);
	CHECK_EQ(stats().curr_pages, 0);
}

static void a_refused_store_leaves_neither_old_page(void)
{
	open_fs(false, false, true);
	CHECK_EQ(out(5, 50), 0);
	refuse_next();
	CHECK_EQ(store(5, 51), TMEM_REFUSED);
	CHECK(!in_tmem(5));
	CHECK_EQ(lost(5), -ENODATA);
	/* The same over a page on the device. */
	refuse_next();
	CHECK_EQ(out(6, 60), 0);
	CHECK(on_device(6));
	refuse_next();
	CHECK_EQ(store(6, 61), TMEM_REFUSED);
	CHECK(!on_device(6));
	CHECK_EQ(lost(6), -ENODATA);
	CHECK_EQ(stats().lost_pages, 2);
}

static void a_store_that_failed_leaves_no_old_page(void)
{
	open_fs(false, false, true);
	CHECK_EQ(out(5, 50), 0);
	testbackend_set_faults(
		tb, &(struct testbackend_faults){ -1, 0, -1, false });
	CHECK_EQ(store(5, 51), TMEM_REFUSED);
	CHECK_EQ(lost(5), -ENODATA);
	CHECK_EQ(testbackend_pages(tb), 0);
}

static void a_stored_page_leaves_the_device(void)
{
	open_fs(false, false, true);
	refuse_next();
	CHECK_EQ(out(5, 50), 0);
	CHECK(on_device(5));
	CHECK_EQ(out(5, 51), 0);
	CHECK(in_tmem(5) && !on_device(5));
	CHECK(holds(5, 51));
}

static void written_without_an_offer_replaces_tmems_page(void)
{
	struct tmem_swapdev_request request = { .offset = 5 };

	open_fs(false, false, false);
	CHECK_EQ(out(5, 50), 0);
	CHECK_EQ(tmem_frontswap_write(fs, 3, &request), -ENOSPC);
	CHECK_EQ(lost(5), -ENODATA);
}

static void without_a_device_a_refusal_is_nospace(void)
{
	open_fs(false, false, false);
	CHECK_EQ(out(5, 50), 0);
	refuse_next();
	CHECK_EQ(out(5, 51), -ENOSPC);
	CHECK_EQ(lost(5), -ENODATA);
	CHECK_EQ(stats().device_full, 1);
	CHECK_EQ(tmem_frontswap_reap(fs, 3, true), 0);
	tmem_frontswap_flush(fs, 3);
	CHECK_EQ(out(6, 60), 0);
	CHECK_EQ(tmem_frontswap_shrink(fs, 10), -ENOSPC);
	CHECK(holds(6, 60));
}

static void a_device_that_is_full_or_fails_loses_only_the_new_page(void)
{
	open_fs(false, false, true);
	refuse_all();
	CHECK_EQ(out(5, 50), 0);
	testdev_set_faults(td, &(struct testdev_faults){ -1, 0, 0, -1, false });
	CHECK_EQ(out(5, 51), -ENOSPC);
	CHECK_EQ(lost(5), -ENODATA);
	CHECK_EQ(stats().device_full, 1);
	CHECK_EQ(out(6, 60), 0);
	testdev_set_faults(td,
			   &(struct testdev_faults){ 0, -EIO, -1, -1, false });
	CHECK_EQ(out(6, 61), -EIO);
	CHECK_EQ(lost(6), -ENODATA);
	CHECK_EQ(stats().device_errors, 1);
	testdev_set_faults(
		td, &(struct testdev_faults){ 0, -ENOSPC, -1, -1, false });
	CHECK_EQ(out(7, 70), -ENOSPC);
	CHECK_EQ(stats().device_full, 2);
	CHECK_EQ(lost(7), -ENODATA);
}

static void a_failing_read_is_a_lost_page(void)
{
	open_fs(false, false, true);
	CHECK_EQ(out(4, 40), 0);
	refuse_next();
	CHECK_EQ(out(5, 50), 0);
	testdev_set_faults(td, &(struct testdev_faults){ -1, 0, -1, 0, false });
	CHECK_EQ(lost(5), -EIO);
	CHECK(holds(5, 50));
	testbackend_set_faults(
		tb, &(struct testbackend_faults){ -1, -1, 0, false });
	CHECK_EQ(lost(4), -EIO);
	testbackend_lose_all(tb);
	CHECK_EQ(lost(4), -ENODATA);
	CHECK_EQ(stats().lost_pages, 3);
	tmem_frontswap_invalidate_page(fs, 3, 4);
}

static void invalidate_page_forgets_both(void)
{
	open_fs(false, false, true);
	CHECK_EQ(out(5, 50), 0);
	refuse_next();
	CHECK_EQ(out(6, 60), 0);
	tmem_frontswap_invalidate_page(fs, 3, 5);
	tmem_frontswap_invalidate_page(fs, 3, 6);
	tmem_frontswap_invalidate_page(fs, 3, 7);
	CHECK_EQ(lost(5), -ENODATA);
	CHECK_EQ(lost(6), -ENODATA);
	CHECK_EQ(testbackend_pages(tb), 0);
	CHECK(!on_device(6));
	CHECK_EQ(stats().invalidates, 1);
	CHECK_EQ(stats().curr_pages, 0);
}

static void invalidate_area_forgets_all_of_one_type(void)
{
	struct tmem_swapdev none = { NULL, NULL };
	char page[PAGE];

	open_fs(false, false, true);
	CHECK_EQ(tmem_frontswap_init(fs, 0, 50, none), 0);
	page_fill(page, 1);
	CHECK_EQ(tmem_frontswap_swap_out(fs, 0, 49, page), 0);
	for (uint64_t i = 0; i < 200; i++) {
		if (i % 3 == 0)
			refuse_next();
		CHECK_EQ(out(i * 7, i), 0);
	}
	tmem_frontswap_invalidate_area(fs, 3);
	CHECK_EQ(testbackend_pages(tb), 1);
	for (uint64_t i = 0; i < 200; i++)
		CHECK(!on_device(i * 7));
	CHECK_EQ(stats().curr_pages, 1);
	CHECK_EQ(store(1, 1), -EINVAL);
	CHECK_EQ(lost(0), -EINVAL);
	CHECK_EQ(tmem_frontswap_swap_in(fs, 0, 49, page), 0);
	CHECK(page_is(page, 1));
	CHECK_EQ(tmem_frontswap_init(fs, 3, 10, none), 0);
	CHECK_EQ(lost(7), -ENODATA);
}

static void types_and_offsets_are_checked(void)
{
	struct tmem_swapdev none = { NULL, NULL };
	struct tmem_swapdev_request request = { .offset = NR_PAGES };
	char page[PAGE];

	open_fs(false, false, true);
	CHECK_EQ(tmem_frontswap_init(fs, 3, 10, none), -EBUSY);
	CHECK_EQ(tmem_frontswap_init(fs, 4, 0, none), -EINVAL);
	CHECK_EQ(tmem_frontswap_init(fs, 4, UINT64_MAX, none), -EINVAL);
	CHECK_EQ(tmem_frontswap_init(fs, TMEM_FRONTSWAP_MAX_TYPES, 1, none),
		 -EINVAL);
	CHECK_EQ(out(NR_PAGES, 1), -EINVAL);
	CHECK_EQ(lost(NR_PAGES), -EINVAL);
	CHECK_EQ(tmem_frontswap_store(fs, 99, 0, page), -EINVAL);
	CHECK_EQ(tmem_frontswap_write(fs, 3, &request), -EINVAL);
	CHECK_EQ(tmem_frontswap_reap(fs, 99, true), 0);
	CHECK(!tmem_frontswap_test(fs, 99, 0));
	tmem_frontswap_invalidate_page(fs, 99, 0);
	tmem_frontswap_invalidate_area(fs, 99);
	CHECK_EQ(out(NR_PAGES - 1, 1), 0);
	CHECK(holds(NR_PAGES - 1, 1));
}

/* 32-bit index, many objects: far offsets must not meet each other. */
static void far_offsets_are_different_pages(void)
{
	const uint64_t max = 1ull << 36;
	struct tmem_swapdev none = { NULL, NULL };
	char page[PAGE];
	uint64_t o[] = { 0,	  1,	  15, 16, 1ull << 32, (1ull << 32) + 1,
			 max - 1, max / 2 };
	const unsigned n = sizeof(o) / sizeof(o[0]);

	open_fs(false, false, true);
	CHECK_EQ(tmem_frontswap_init(fs, 31, max, none), 0);
	CHECK_EQ(tmem_frontswap_init(fs, 30, max + 1, none), -EINVAL);
	for (unsigned i = 0; i < n; i++) {
		page_fill(page, 100 + i);
		CHECK_EQ(tmem_frontswap_swap_out(fs, 31, o[i], page), 0);
	}
	CHECK_EQ(testbackend_pages(tb), n);
	for (unsigned i = 0; i < n; i++) {
		CHECK_EQ(tmem_frontswap_swap_in(fs, 31, o[i], page), 0);
		CHECK(page_is(page, 100 + i));
	}
	/* check() would walk 8 GiB of bits. */
	tmem_frontswap_invalidate_area(fs, 31);
	CHECK_EQ(testbackend_pages(tb), 0);
}

static void writethrough_keeps_both(void)
{
	open_fs(true, false, true);
	CHECK_EQ(store(4, 40), TMEM_REFUSED);
	CHECK(in_tmem(4) && !on_device(4));
	CHECK_EQ(out(5, 50), 0);
	CHECK(in_tmem(5) && on_device(5));
	CHECK_EQ(stats().writethroughs, 1);
	CHECK_EQ(out(5, 51), 0);
	testbackend_lose_all(tb);
	CHECK(holds(5, 51));
	/* The device fails: tmem has it, and no old page is left there. */
	CHECK_EQ(out(6, 60), 0);
	testdev_set_faults(td,
			   &(struct testdev_faults){ 0, -EIO, -1, -1, false });
	CHECK_EQ(out(6, 61), 0);
	CHECK(!on_device(6));
	CHECK(holds(6, 61));
	testdev_set_faults(td, &(struct testdev_faults){ -1, 0, 0, -1, false });
	CHECK_EQ(out(7, 70), 0);
	CHECK(holds(7, 70));
	/* tmem refuses: the device has it. */
	refuse_next();
	CHECK_EQ(out(6, 62), 0);
	CHECK(!in_tmem(6) && holds(6, 62));
	tmem_frontswap_invalidate_area(fs, 3);
}

static void an_exclusive_load_invalidates(void)
{
	open_fs(false, true, true);
	CHECK_EQ(out(5, 50), 0);
	CHECK(holds(5, 50));
	CHECK(!in_tmem(5));
	CHECK_EQ(testbackend_pages(tb), 0);
	CHECK_EQ(lost(5), -ENODATA);
	CHECK_EQ(stats().exclusive_loads, 1);
	/* A page on the device stays there. */
	refuse_next();
	CHECK_EQ(out(6, 60), 0);
	CHECK(holds(6, 60));
	CHECK(holds(6, 60));
}

static void a_fork_leaves_all_as_it_is(void)
{
	struct tmem_frontswap_stats before, after;

	open_fs(false, true, true);
	CHECK_EQ(out(5, 50), 0);
	refuse_next();
	CHECK_EQ(out(6, 60), 0);
	tmem_frontswap_before_fork(fs);
	before = stats();
	CHECK(holds(5, 50));
	CHECK(holds(6, 60));
	CHECK(in_tmem(5));
	CHECK_EQ(lost(7), -ENODATA);
	after = stats();
	CHECK(memcmp(&before, &after, sizeof(before)) == 0);
	tmem_frontswap_after_fork(fs);
	CHECK(holds(5, 50));
	CHECK(!in_tmem(5));
}

static void shrink_moves_pages_to_the_device(void)
{
	open_fs(false, false, true);
	for (uint64_t i = 0; i < 300; i++)
		CHECK_EQ(out(i * 3, i), 0);
	CHECK_EQ(tmem_frontswap_shrink(fs, 0), 0);
	CHECK_EQ(tmem_frontswap_shrink(fs, 1), 1);
	CHECK_EQ(tmem_frontswap_shrink(fs, 99), 99);
	CHECK_EQ(stats().curr_pages, 200);
	CHECK_EQ(stats().shrunk_pages, 100);
	CHECK_EQ(testbackend_pages(tb), 200);
	for (uint64_t i = 0; i < 300; i++) {
		CHECK(in_tmem(i * 3) != on_device(i * 3));
		CHECK(holds(i * 3, i));
	}
	/* It goes round: pages stored behind where it stopped come too. */
	CHECK_EQ(out(0, 1000), 0);
	CHECK_EQ(tmem_frontswap_shrink(fs, 1000), 201);
	CHECK_EQ(tmem_frontswap_shrink(fs, 1000), 0);
	CHECK_EQ(testbackend_pages(tb), 0);
	CHECK(holds(0, 1000));
	for (uint64_t i = 1; i < 300; i++)
		CHECK(holds(i * 3, i));
}

static void shrink_that_fails_leaves_pages_in_tmem(void)
{
	open_fs(false, false, true);
	for (unsigned i = 0; i < 100; i++)
		CHECK_EQ(out(i, i), 0);
	testdev_set_faults(td, &(struct testdev_faults){ -1, 0, 10, -1, true });
	CHECK_EQ(tmem_frontswap_shrink(fs, 100), 10);
	CHECK_EQ(tmem_frontswap_shrink(fs, 100), -ENOSPC);
	testdev_set_faults(td,
			   &(struct testdev_faults){ 3, -EIO, -1, -1, true });
	CHECK_EQ(tmem_frontswap_shrink(fs, 100), 3);
	CHECK_EQ(tmem_frontswap_shrink(fs, 100), -EIO);
	CHECK_EQ(stats().curr_pages, 87);
	for (unsigned i = 0; i < 100; i++)
		CHECK(holds(i, i));
	testdev_set_faults(td,
			   &(struct testdev_faults){ -1, 0, -1, -1, false });
	CHECK_EQ(tmem_frontswap_shrink(fs, 100), 87);
	for (unsigned i = 0; i < 100; i++)
		CHECK(holds(i, i));
}

static _Atomic bool stop;

static void *shrinker(void *arg)
{
	(void)arg;
	while (!stop)
		CHECK(tmem_frontswap_shrink(fs, 50) >= 0);
	return NULL;
}

/* Every page is the newest, at each moment, while pages move away. */
static void pages_may_be_used_while_they_move(void)
{
	uint64_t tags[200] = { 0 };
	struct rng rng = { 11 };
	pthread_t thread;

	open_fs(false, false, true);
	stop = false;
	CHECK_EQ(pthread_create(&thread, NULL, shrinker, NULL), 0);
	for (unsigned i = 1; i < 20000; i++) {
		uint64_t o = rng_below(&rng, 200);

		if (rng_below(&rng, 10) == 0) {
			tmem_frontswap_invalidate_page(fs, 3, o);
			tags[o] = 0;
		} else if (rng_below(&rng, 2)) {
			CHECK_EQ(out(o, i), 0);
			tags[o] = i;
		}
		o = rng_below(&rng, 200);
		if (tags[o])
			CHECK(holds(o, tags[o]));
		else
			CHECK_EQ(lost(o), -ENODATA);
	}
	stop = true;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK(stats().shrunk_pages != 0);
}

struct async {
	struct tmem_swapdev_request request;
	int result;
};

static void async_done(struct tmem_swapdev_request *request, int result)
{
	struct async *a = request->arg;

	CHECK(request->done == async_done);
	a->result = result;
}

/* The pager's way: offer, then queue, then reap. */
static void refused_pages_are_written_at_depth(void)
{
	static struct async a[DEPTH];
	char *pages = pages_alloc(DEPTH);
	unsigned done = 0;

	open_fs(false, false, true);
	refuse_all();
	for (unsigned i = 0; i < DEPTH; i++) {
		a[i] = (struct async){ { .offset = i,
					 .page = pages + i * PAGE,
					 .arg = &a[i],
					 .done = async_done },
				       1 };
		page_fill(a[i].request.page, i);
		CHECK_EQ(tmem_frontswap_store(fs, 3, i, a[i].request.page),
			 TMEM_REFUSED);
		CHECK_EQ(tmem_frontswap_write(fs, 3, &a[i].request), 0);
		CHECK(holds(i, i));
	}
	/* One of them is needed no more, one is stored anew. */
	tmem_frontswap_invalidate_page(fs, 3, 1);
	testbackend_set_faults(
		tb, &(struct testbackend_faults){ -1, -1, -1, false });
	CHECK_EQ(store(2, 200), 0);
	tmem_frontswap_flush(fs, 3);
	while (done < DEPTH)
		done += (unsigned)tmem_frontswap_reap(fs, 3, true);
	CHECK_EQ(stats().device_writes, DEPTH);
	for (unsigned i = 0; i < DEPTH; i++) {
		CHECK_EQ(a[i].result, 0);
		if (i == 1)
			CHECK_EQ(lost(i), -ENODATA);
		else
			CHECK(holds(i, i == 2 ? 200 : i));
	}
	pages_free(pages, DEPTH);
}

struct mappings {
	unsigned nr;
};

static void count_mapping(void *arg, void *start, size_t bytes)
{
	struct mappings *m = arg;

	CHECK(start != NULL && bytes != 0);
	m->nr++;
}

static void mappings_are_listed(void)
{
	struct mappings m = { 0 };

	open_fs(false, false, true);
	tmem_frontswap_for_each_mapping(fs, count_mapping, &m);
	CHECK_EQ(m.nr, 2);
}

static void a_new_device_takes_over(void)
{
	struct testdev *other = testdev_create(NR_PAGES, 10, 4, 2);

	open_fs(false, false, true);
	refuse_next();
	CHECK_EQ(out(5, 50), 0);
	tmem_frontswap_set_device(fs, 3, testdev_device(other));
	CHECK_EQ(lost(5), -ENODATA);
	refuse_next();
	CHECK_EQ(out(5, 51), 0);
	CHECK(holds(5, 51));
	tmem_frontswap_set_device(fs, 3, testdev_device(td));
	testdev_device(other).ops->close(other);
}

static void run(void (*test)(void), const char *name)
{
	fprintf(stderr, "  %s\n", name);
	tb = testbackend_create(NR_PAGES);
	td = testdev_create(NR_PAGES, NR_PAGES, DEPTH, 1);
	test();
	testbackend_set_faults(
		tb, &(struct testbackend_faults){ -1, -1, -1, false });
	testdev_set_faults(td,
			   &(struct testdev_faults){ -1, 0, -1, -1, false });
	tmem_frontswap_check(fs);
	tmem_frontswap_close(fs);
	CHECK_EQ(testbackend_pages(tb), 0);
	testdev_device(td).ops->close(td);
	testbackend_destroy(tb);
}

#define RUN_FS(test) run(test, #test)

int main(void)
{
	RUN_FS(a_page_goes_to_tmem_first);
	RUN_FS(a_refused_page_goes_to_the_device);
	RUN_FS(a_refused_store_leaves_neither_old_page);
	RUN_FS(a_store_that_failed_leaves_no_old_page);
	RUN_FS(a_stored_page_leaves_the_device);
	RUN_FS(written_without_an_offer_replaces_tmems_page);
	RUN_FS(without_a_device_a_refusal_is_nospace);
	RUN_FS(a_device_that_is_full_or_fails_loses_only_the_new_page);
	RUN_FS(a_failing_read_is_a_lost_page);
	RUN_FS(invalidate_page_forgets_both);
	RUN_FS(invalidate_area_forgets_all_of_one_type);
	RUN_FS(types_and_offsets_are_checked);
	RUN_FS(far_offsets_are_different_pages);
	RUN_FS(writethrough_keeps_both);
	RUN_FS(an_exclusive_load_invalidates);
	RUN_FS(a_fork_leaves_all_as_it_is);
	RUN_FS(shrink_moves_pages_to_the_device);
	RUN_FS(shrink_that_fails_leaves_pages_in_tmem);
	RUN_FS(pages_may_be_used_while_they_move);
	RUN_FS(refused_pages_are_written_at_depth);
	RUN_FS(mappings_are_listed);
	RUN_FS(a_new_device_takes_over);
	return 0;
}
