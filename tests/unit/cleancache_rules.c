/* SPDX-License-Identifier: MIT */
/*
 * Each rule of tmem/cleancache.h, over the store with faults before it, and
 * over the refusing backend.
 */
#include "tmem/cleancache.h"

#include "faultbackend.h"
#include "fstest.h"
#include "tmem/client.h"
#include "tmem/store.h"

static struct tmem_store *store;
static struct tmem_client *clients[2];
static struct faultbackend *fb;
static struct tmem_cleancache *cc, *other; /* of client 0 and 1 */
static tmem_cleancache_fs fs;
static const uint64_t uuid[2] = { 0x1234, 0x5678 };

/* fs: a private file system of cc. */
static void open_all(uint64_t limit_bytes)
{
	struct tmem_store_options o = { .limit_bytes = limit_bytes };

	CHECK_EQ(tmem_store_open(&o, &store), 0);
	CHECK_EQ(tmem_client_create(store, 0, &clients[0]), 0);
	CHECK_EQ(tmem_client_create(store, 0, &clients[1]), 0);
	fb = faultbackend_create(tmem_client_backend(clients[0]));
	CHECK_EQ(tmem_cleancache_open(faultbackend_backend(fb), &cc), 0);
	CHECK_EQ(tmem_cleancache_open(tmem_client_backend(clients[1]), &other),
		 0);
	CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &fs), 0);
}

static void close_all(void)
{
	tmem_cleancache_check(cc);
	tmem_cleancache_check(other);
	tmem_store_check(store);
	tmem_cleancache_close(cc);
	tmem_cleancache_close(other);
	faultbackend_destroy(fb);
	tmem_store_close(store);
}

static struct tmem_cleancache_stats stats(void)
{
	struct tmem_cleancache_stats s;

	tmem_cleancache_get_stats(cc, &s);
	return s;
}

static uint64_t stored_pages(void)
{
	struct tmem_backend be = tmem_store_backend(store);
	struct tmem_stats s;

	CHECK_EQ(be.ops->stats(be.self, &s), 0);
	return s.pages;
}

static int put_at(struct tmem_cleancache *c, tmem_cleancache_fs f,
		  struct tmem_cleancache_file file, uint64_t index,
		  uint64_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_cleancache_io io = { file, index, page, 77 };

	page_fill(page, tag);
	tmem_cleancache_store(c, f, &io, 1);
	CHECK(io.result == 0 || io.result == TMEM_REFUSED);
	return io.result;
}

/* What was found: its tag, or 0, and then the page is as it was. */
static uint64_t get_at(struct tmem_cleancache *c, tmem_cleancache_fs f,
		       struct tmem_cleancache_file file, uint64_t index,
		       uint64_t tag)
{
	char page[PAGE];
	struct tmem_cleancache_io io = { file, index, page, 77 };

	memset(page, 0x5a, PAGE);
	tmem_cleancache_load(c, f, &io, 1);
	CHECK(io.result == 0 || io.result == TMEM_MISS);
	if (io.result == 0) {
		CHECK(page_is(page, tag));
		return tag;
	}
	for (unsigned i = 0; i < PAGE; i++)
		CHECK_EQ(page[i], 0x5a);
	return 0;
}

static int forget_at(struct tmem_cleancache *c, tmem_cleancache_fs f,
		     struct tmem_cleancache_file file, uint64_t index)
{
	struct tmem_cleancache_io io = { file, index, NULL, 77 };
	int r = tmem_cleancache_invalidate_pages(c, f, &io, 1);

	CHECK(r == (io.result < 0 ? io.result : 0));
	return io.result;
}

static int put(uint64_t index, uint64_t tag)
{
	return put_at(cc, fs, tmem_cleancache_inode(7), index, tag);
}

static uint64_t get(uint64_t index, uint64_t tag)
{
	return get_at(cc, fs, tmem_cleancache_inode(7), index, tag);
}

static int forget(uint64_t index)
{
	return forget_at(cc, fs, tmem_cleancache_inode(7), index);
}

static void fail(unsigned long n, unsigned kinds, int error, enum faulthow how)
{
	faultbackend_set_error(fb, error, how, false);
	faultbackend_arm(fb, n, kinds);
}

static void only_pages_of_4096_bytes(void)
{
	tmem_cleancache_fs f = 5;

	open_all(8u << 20);
	CHECK_EQ(tmem_cleancache_init_fs(cc, 8192, &f), -EINVAL);
	CHECK_EQ(tmem_cleancache_init_fs(cc, 0, &f), -EINVAL);
	CHECK_EQ(tmem_cleancache_init_shared_fs(cc, uuid, 65536, &f), -EINVAL);
	CHECK_EQ(f, 5);
	CHECK_EQ(stats().filesystems, 1);
	close_all();
}

static void sixty_four_file_systems_at_a_time(void)
{
	tmem_cleancache_fs all[TMEM_CLEANCACHE_MAX_FS], more = 5;

	open_all(8u << 20);
	all[0] = fs;
	for (unsigned i = 1; i < TMEM_CLEANCACHE_MAX_FS; i++) {
		CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &all[i]), 0);
		for (unsigned k = 0; k < i; k++)
			CHECK(all[k] != all[i]);
	}
	CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &more), -ENOSPC);
	CHECK_EQ(more, 5);
	CHECK_EQ(tmem_cleancache_invalidate_fs(cc, all[30]), 0);
	CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &more), 0);
	CHECK(more != all[30]);
	close_all();
}

static void a_load_takes_the_page_away(void)
{
	open_all(8u << 20);
	CHECK_EQ(get(3, 30), 0);
	CHECK_EQ(put(3, 30), 0);
	CHECK_EQ(get(3, 30), 30);
	CHECK_EQ(get(3, 30), 0);
	CHECK_EQ(stored_pages(), 0);
	CHECK_EQ(stats().stores, 1);
	CHECK_EQ(stats().succ_loads, 1);
	CHECK_EQ(stats().failed_loads, 2);
	close_all();
}

static void the_newest_page_is_found(void)
{
	open_all(8u << 20);
	CHECK_EQ(put(3, 30), 0);
	CHECK_EQ(put(3, 31), 0);
	CHECK_EQ(get(3, 31), 31);
	CHECK_EQ(get(3, 31), 0);
	close_all();
}

static void a_refused_store_leaves_a_miss(void)
{
	struct tmem_cleancache *hooks;
	tmem_cleancache_fs f;
	struct tmem_cleancache_stats s;

	/* Noise in a tiny store: refused some day, whatever was there before.
	 */
	open_all(TMEM_STORE_MIN_BYTES);
	for (uint64_t i = 0; i < 100; i++) {
		int r;

		CHECK_EQ(put(i, 3 * i), 0);
		r = put(i, 3 * i + 2);
		CHECK_EQ(get(i, 3 * i + 2), r == 0 ? 3 * i + 2 : 0);
	}
	close_all();
	CHECK_EQ(tmem_cleancache_open(tmem_backend_refusing(), &hooks), 0);
	CHECK_EQ(tmem_cleancache_init_fs(hooks, PAGE, &f), 0);
	CHECK_EQ(put_at(hooks, f, tmem_cleancache_inode(1), 1, 1),
		 TMEM_REFUSED);
	CHECK_EQ(get_at(hooks, f, tmem_cleancache_inode(1), 1, 1), 0);
	CHECK_EQ(forget_at(hooks, f, tmem_cleancache_inode(1), 1), TMEM_MISS);
	tmem_cleancache_get_stats(hooks, &s);
	CHECK(s.stores == 1 && s.refused == 1 && s.failed_loads == 1);
	CHECK(s.invalidates == 1 && s.invalidated == 0);
	tmem_cleancache_check(hooks);
	tmem_cleancache_close(hooks);
}

static void invalidated_is_gone(void)
{
	open_all(8u << 20);
	for (uint64_t i = 0; i < 10; i++)
		CHECK_EQ(put(i, i + 1), 0);
	CHECK_EQ(put_at(cc, fs, tmem_cleancache_inode(8), 1, 100), 0);
	CHECK_EQ(forget(4), 0);
	CHECK_EQ(forget(4), TMEM_MISS);
	CHECK_EQ(get(4, 5), 0);
	CHECK_EQ(stats().invalidates, 2);
	CHECK_EQ(stats().invalidated, 1);
	CHECK_EQ(tmem_cleancache_invalidate_inode(cc, fs,
						  tmem_cleancache_inode(7)),
		 0);
	for (uint64_t i = 0; i < 10; i++)
		CHECK_EQ(get(i, i + 1), 0);
	CHECK_EQ(stats().inode_invalidates, 1);
	CHECK_EQ(stats().inode_pages, 9);
	CHECK_EQ(get_at(cc, fs, tmem_cleancache_inode(8), 1, 100), 100);
	close_all();
}

static void an_ended_file_system_answers_nothing(void)
{
	struct tmem_cleancache_file file = tmem_cleancache_inode(7);
	tmem_cleancache_fs old;

	open_all(8u << 20);
	old = fs;
	CHECK_EQ(put(1, 10), 0);
	CHECK_EQ(tmem_cleancache_invalidate_fs(cc, fs), 0);
	CHECK_EQ(stored_pages(), 0);
	CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &fs), 0);
	CHECK_EQ(put(1, 11), 0);
	/* The old number does not name the new one, nor 0 or what never was. */
	for (unsigned i = 0; i < 3; i++) {
		tmem_cleancache_fs none = i == 0 ? old : i == 1 ? 0 : 1000;

		CHECK_EQ(get_at(cc, none, file, 1, 10), 0);
		CHECK_EQ(put_at(cc, none, file, 1, 12), TMEM_REFUSED);
		CHECK_EQ(forget_at(cc, none, file, 1), TMEM_MISS);
		CHECK_EQ(tmem_cleancache_invalidate_inode(cc, none, file), 0);
		CHECK_EQ(tmem_cleancache_invalidate_fs(cc, none), 0);
	}
	CHECK_EQ(stats().ignored_fs, 15);
	CHECK_EQ(stats().fs_invalidates, 1);
	CHECK_EQ(get(1, 11), 11);
	close_all();
}

static void an_index_beyond_32_bits_is_ignored(void)
{
	open_all(8u << 20);
	CHECK_EQ(put(5, 50), 0);
	CHECK_EQ(put((1ull << 32) + 5, 51), TMEM_REFUSED);
	CHECK_EQ(get((1ull << 32) + 5, 51), 0);
	CHECK_EQ(forget((1ull << 32) + 5), TMEM_MISS);
	CHECK_EQ(forget(UINT64_MAX), TMEM_MISS);
	CHECK_EQ(stats().ignored_indexes, 4);
	CHECK_EQ(stats().stores, 1);
	CHECK_EQ(get(5, 50), 50);
	CHECK_EQ(put(UINT32_MAX, 52), 0);
	CHECK_EQ(get(UINT32_MAX, 52), 52);
	close_all();
}

static bool same_file(struct tmem_cleancache_file a,
		      struct tmem_cleancache_file b)
{
	return memcmp(&a, &b, sizeof(a)) == 0;
}

static int compare_files(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct tmem_cleancache_file));
}

static void names_of_files_differ(void)
{
	enum {
		WORDS = 6,
		VALUES = 5,
		NR = 12000
	};
	static const uint32_t values[VALUES] = { 0, 1, 5, 0x9d5c3e6f,
						 UINT32_MAX };
	struct tmem_cleancache_file *files = calloc(NR, sizeof(*files));
	struct rng rng = { 1 };
	unsigned nr = 0;

	/* Every inode number and every handle of a few values, by length. */
	CHECK(files != NULL);
	for (unsigned i = 0; i < VALUES * VALUES; i++)
		files[nr++] = tmem_cleancache_inode((uint64_t)values[i / VALUES]
							    << 32 |
						    values[i % VALUES]);
	for (unsigned length = 1, all = VALUES; length <= 5;
	     length++, all *= VALUES) {
		for (unsigned i = 0; i < all; i++) {
			uint32_t w[WORDS] = { 0 };

			for (unsigned k = 0, rest = i; k < length;
			     k++, rest /= VALUES)
				w[k] = values[rest % VALUES];
			files[nr++] = tmem_cleancache_handle(w, length);
		}
	}
	while (nr < NR) {
		uint32_t w[WORDS];

		for (unsigned k = 0; k < WORDS; k++)
			w[k] = (uint32_t)rng_next(&rng);
		files[nr++] = tmem_cleancache_handle(w, WORDS);
	}
	qsort(files, nr, sizeof(*files), compare_files);
	for (unsigned i = 1; i < nr; i++)
		CHECK(!same_file(files[i - 1], files[i]));
	free(files);
}

static void what_cannot_be_named_is_not_cached(void)
{
	uint32_t w[7] = { 7 };
	struct tmem_cleancache_file none[5];

	open_all(8u << 20);
	none[0] = tmem_cleancache_handle(w, 0);
	none[1] = tmem_cleancache_handle(w, 7);
	for (unsigned i = 0; i < 3; i++) {
		w[5] = 0x9d5c3e70 + i;
		none[2 + i] = tmem_cleancache_handle(w, 6);
	}
	CHECK_EQ(put_at(cc, fs, tmem_cleancache_inode(7), 1, 1), 0);
	for (unsigned i = 0; i < 5; i++) {
		CHECK(same_file(none[i], none[0]));
		CHECK_EQ(put_at(cc, fs, none[i], 1, 2), TMEM_REFUSED);
		CHECK_EQ(get_at(cc, fs, none[i], 1, 1), 0);
		CHECK_EQ(forget_at(cc, fs, none[i], 1), TMEM_MISS);
		CHECK_EQ(tmem_cleancache_invalidate_inode(cc, fs, none[i]), 0);
	}
	CHECK_EQ(stats().ignored_files, 20);
	CHECK_EQ(stored_pages(), 1);
	/* Their neighbours can be. */
	w[5] = 0x9d5c3e73;
	CHECK_EQ(put_at(cc, fs, tmem_cleancache_handle(w, 6), 1, 3), 0);
	w[5] = 0x9d5c3e6f;
	CHECK_EQ(put_at(cc, fs, tmem_cleancache_handle(w, 6), 1, 4), 0);
	CHECK_EQ(get_at(cc, fs, tmem_cleancache_handle(w, 6), 1, 4), 4);
	w[5] = 0x9d5c3e73;
	CHECK_EQ(get_at(cc, fs, tmem_cleancache_handle(w, 6), 1, 3), 3);
	close_all();
}

static void vectors_of_any_length_in_order(void)
{
	enum {
		NR = 70
	};
	struct tmem_cleancache_io io[NR];
	char *pages = pages_alloc(NR);

	open_all(8u << 20);
	/* Each key twice, the later wins; and every seventh beyond. */
	for (unsigned i = 0; i < NR; i++) {
		io[i] = (struct tmem_cleancache_io){ tmem_cleancache_inode(7),
						     i / 2, pages + i * PAGE,
						     77 };
		if (i % 7 == 6)
			io[i].index += 1ull << 40;
		page_fill(io[i].page, i + 1);
	}
	tmem_cleancache_store(cc, fs, io, NR);
	for (unsigned i = 0; i < NR; i++)
		CHECK_EQ(io[i].result, i % 7 == 6 ? TMEM_REFUSED : 0);
	CHECK_EQ(stats().stores, NR - NR / 7);
	tmem_cleancache_store(cc, fs, io, 0);
	tmem_cleancache_load(cc, fs, io, NR);
	for (unsigned i = 0; i < NR; i++) {
		unsigned first = i / 2 * 2;
		unsigned newest = (first + 1) % 7 == 6 ? first : first + 1;
		bool taken = i % 2 == 1 && (i - 1) % 7 != 6;

		CHECK_EQ(io[i].result, i % 7 == 6 || taken ? TMEM_MISS : 0);
		if (io[i].result == 0)
			CHECK(page_is(io[i].page, newest + 1));
	}
	CHECK_EQ(stored_pages(), 0);
	close_all();
	pages_free(pages, NR);
}

static void sharers_find_each_others_pages(void)
{
	struct tmem_cleancache_file file = tmem_cleancache_inode(7);
	tmem_cleancache_fs a, b;

	open_all(8u << 20);
	CHECK_EQ(tmem_client_allow(clients[0], uuid, 1), 0);
	CHECK_EQ(tmem_client_allow(clients[1], uuid, 1), 0);
	CHECK_EQ(tmem_cleancache_init_shared_fs(cc, uuid, PAGE, &a), 0);
	CHECK_EQ(tmem_cleancache_init_shared_fs(other, uuid, PAGE, &b), 0);
	CHECK_EQ(put_at(cc, a, file, 1, 10), 0);
	CHECK_EQ(get_at(other, b, file, 1, 10), 10);
	CHECK_EQ(get_at(cc, a, file, 1, 10), 10);
	CHECK_EQ(forget_at(other, b, file, 1), 0);
	CHECK_EQ(get_at(cc, a, file, 1, 10), 0);
	CHECK_EQ(put_at(other, b, file, 1, 11), 0);
	CHECK_EQ(tmem_cleancache_invalidate_fs(cc, a), 0);
	CHECK_EQ(get_at(other, b, file, 1, 11), 11);
	CHECK_EQ(get_at(cc, a, file, 1, 11), 0);
	CHECK_EQ(tmem_cleancache_invalidate_fs(other, b), 0);
	CHECK_EQ(stored_pages(), 0);
	close_all();
}

static void who_may_not_share_is_told(void)
{
	struct tmem_cleancache_file file = tmem_cleancache_inode(7);
	tmem_cleancache_fs a, b;

	open_all(8u << 20);
	CHECK_EQ(tmem_client_allow(clients[1], uuid, 1), 0);
	CHECK_EQ(tmem_cleancache_init_shared_fs(other, uuid, PAGE, &b), 0);
	CHECK_EQ(tmem_cleancache_init_shared_fs(cc, uuid, PAGE, &a),
		 TMEM_PRIVATE);
	CHECK_EQ(stats().made_private, 1);
	CHECK_EQ(put_at(other, b, file, 1, 10), 0);
	CHECK_EQ(get_at(cc, a, file, 1, 10), 0);
	CHECK_EQ(put_at(cc, a, file, 1, 11), 0);
	CHECK_EQ(get_at(other, b, file, 1, 10), 10);
	CHECK_EQ(get_at(cc, a, file, 1, 11), 11);
	CHECK_EQ(get_at(cc, a, file, 1, 11), 0);
	close_all();
}

static void a_backend_without_room_is_passed_on(void)
{
	tmem_cleancache_fs f = 5;

	open_all(8u << 20);
	fail(1, FAULT_CREATE, -ENOMEM, FAULT_BEFORE);
	CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &f), -ENOMEM);
	CHECK_EQ(f, 5);
	CHECK_EQ(stats().filesystems, 1);
	CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &f), 0);
	close_all();
}

static void a_store_that_fails_leaves_a_miss(void)
{
	for (unsigned how = 0; how < FAULT_HOWS; how++) {
		open_all(8u << 20);
		CHECK_EQ(put(3, 30), 0);
		fail(1, FAULT_STORE, -EIO, (enum faulthow)how);
		CHECK_EQ(put(3, 31), TMEM_REFUSED);
		CHECK_EQ(get(3, 30), 0);
		CHECK_EQ(stats().store_errors, 1);
		CHECK_EQ(stats().refused, 0);
		/* And it goes on. */
		CHECK_EQ(put(3, 32), 0);
		CHECK_EQ(get(3, 32), 32);
		CHECK_EQ(stats().disabled, 0);
		close_all();
	}
}

static void a_load_that_fails_is_a_miss(void)
{
	for (unsigned how = 0; how < FAULT_HOWS; how++) {
		open_all(8u << 20);
		CHECK_EQ(put(3, 30), 0);
		fail(1, FAULT_LOAD, -EIO, (enum faulthow)how);
		CHECK_EQ(get(3, 30), 0);
		CHECK_EQ(stats().load_errors, 1);
		CHECK_EQ(stats().failed_loads, 1);
		/* What has missed misses. */
		CHECK_EQ(get(3, 30), 0);
		CHECK_EQ(put(3, 31), 0);
		CHECK_EQ(get(3, 31), 31);
		close_all();
	}
}

/* Every way to find that page or another one in it. */
static void expect_disabled(void)
{
	CHECK_EQ(stats().disabled, 1);
	CHECK_EQ(get(3, 30), 0);
	CHECK_EQ(get(4, 40), 0);
	CHECK_EQ(put(5, 50), TMEM_REFUSED);
	CHECK_EQ(get(5, 50), 0);
	CHECK_EQ(stats().ignored_disabled, 4);
}

static void a_failed_invalidation_disables_the_file_system(void)
{
	struct tmem_cleancache_file file = tmem_cleancache_inode(7);
	static const unsigned kinds[] = { FAULT_INVALIDATE, FAULT_OBJECT };
	tmem_cleancache_fs sane;

	for (unsigned how = 0; how < 2 * FAULT_HOWS; how++) {
		unsigned kind = kinds[how % 2];
		int r;

		open_all(8u << 20);
		CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &sane), 0);
		CHECK_EQ(put_at(cc, sane, file, 3, 60), 0);
		CHECK_EQ(put(3, 30), 0);
		CHECK_EQ(put(4, 40), 0);
		fail(1, kind, -EPIPE, (enum faulthow)(how / 2));
		r = kind == FAULT_OBJECT
			    ? tmem_cleancache_invalidate_inode(cc, fs, file)
			    : forget(3);
		CHECK_EQ(r, -EPIPE);
		CHECK_EQ(stats().invalidate_errors, 1);
		expect_disabled();
		/* Invalidations go on, for others who may share it. */
		r = forget(4);
		CHECK(r == 0 || r == TMEM_MISS);
		CHECK_EQ(get_at(cc, sane, file, 3, 60), 60);
		/* Ended and begun anew it is well. */
		CHECK_EQ(tmem_cleancache_invalidate_fs(cc, fs), 0);
		CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &fs), 0);
		CHECK_EQ(get(3, 30), 0);
		CHECK_EQ(put(3, 31), 0);
		CHECK_EQ(get(3, 31), 31);
		close_all();
	}
}

static void a_fault_that_cannot_be_cleaned_up_disables(void)
{
	open_all(8u << 20);
	CHECK_EQ(put(3, 30), 0);
	CHECK_EQ(put(4, 40), 0);
	faultbackend_set_error(fb, -EIO, FAULT_BEFORE, true);
	faultbackend_arm(fb, 1, FAULT_STORE | FAULT_INVALIDATE);
	CHECK_EQ(put(3, 31), TMEM_REFUSED);
	faultbackend_arm(fb, 0, 0);
	expect_disabled();
	close_all();
}

static void an_end_that_fails_can_be_tried_again(void)
{
	tmem_cleancache_fs old;

	open_all(8u << 20);
	CHECK_EQ(put(3, 30), 0);
	CHECK_EQ(put(4, 40), 0);
	fail(1, FAULT_DESTROY, -EPIPE, FAULT_BEFORE);
	CHECK_EQ(tmem_cleancache_invalidate_fs(cc, fs), -EPIPE);
	CHECK_EQ(stats().filesystems, 1);
	expect_disabled();
	CHECK_EQ(tmem_cleancache_invalidate_fs(cc, fs), 0);
	CHECK_EQ(stats().filesystems, 0);
	CHECK_EQ(stored_pages(), 0);
	old = fs;
	CHECK_EQ(tmem_cleancache_init_fs(cc, PAGE, &fs), 0);
	CHECK(fs != old);
	close_all();
}

static void counters_have_names_and_texts(void)
{
	const struct tmem_counter *c = tmem_cleancache_stats_table();
	unsigned nr = 0;

	for (; c[nr].name; nr++) {
		CHECK(c[nr].unit[0] && c[nr].text[0]);
		CHECK_EQ(c[nr].offset, nr * sizeof(uint64_t));
	}
	CHECK_EQ(nr * sizeof(uint64_t), sizeof(struct tmem_cleancache_stats));
	tmem_cleancache_close(NULL);
}

int main(void)
{
	RUN(only_pages_of_4096_bytes);
	RUN(sixty_four_file_systems_at_a_time);
	RUN(a_load_takes_the_page_away);
	RUN(the_newest_page_is_found);
	RUN(a_refused_store_leaves_a_miss);
	RUN(invalidated_is_gone);
	RUN(an_ended_file_system_answers_nothing);
	RUN(an_index_beyond_32_bits_is_ignored);
	RUN(names_of_files_differ);
	RUN(what_cannot_be_named_is_not_cached);
	RUN(vectors_of_any_length_in_order);
	RUN(sharers_find_each_others_pages);
	RUN(who_may_not_share_is_told);
	RUN(a_backend_without_room_is_passed_on);
	RUN(a_store_that_fails_leaves_a_miss);
	RUN(a_load_that_fails_is_a_miss);
	RUN(a_failed_invalidation_disables_the_file_system);
	RUN(a_fault_that_cannot_be_cleaned_up_disables);
	RUN(an_end_that_fails_can_be_tried_again);
	RUN(counters_have_names_and_texts);
	return 0;
}
