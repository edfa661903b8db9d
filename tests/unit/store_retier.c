/* SPDX-License-Identifier: MIT */
/*
 * A restartable store with a tier: what is below outlives the process, with the
 * right file and the right key, and is told otherwise; what is damaged is -EIO,
 * never another page and never a miss.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <tmem/stats.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "core/tiering.h"
#include "testfile.h"
#include "testimage.h"

enum {
	MAX_PAGES = 8192,
	PER_OBJECT = 100,
	NR_SEGMENTS = 64,
	SEGMENT = TMEM_SEGMENT_BYTES
};

#define LIMIT	   (4ull << 20)
#define HIGH_LIMIT (8ull << 20)

/* The files that go from one process to the next. */
struct rig {
	int image;
	int tier;
	int key;
	int plain;
	uint32_t kind;
	uint64_t max_bytes;
};

static struct tmem_store *store;
static struct tmem_backend backend;
static tmem_pool_id pool;
/* What a killed process knew; 0: not there. */
static struct known {
	tmem_pool_id pool;
	tmem_pool_id clone;
	unsigned nr_pages;
	uint64_t versions[MAX_PAGES];
	uint64_t tier_pages;
} * known;

static struct rig make_rig(uint32_t kind, int plain, bool disk)
{
	struct rig rig = { .image = image_memfd(),
			   .tier = disk ? testfile_disk() : testfile_ram(),
			   .key = plain ? -1 : tmem_key_create(),
			   .plain = plain,
			   .kind = kind,
			   .max_bytes = (uint64_t)NR_SEGMENTS * SEGMENT };

	CHECK(plain || rig.key >= 0);
	memset(known, 0, sizeof(*known));
	return rig;
}

static void free_rig(const struct rig *rig)
{
	close(rig->image);
	close(rig->tier);
	if (rig->key >= 0)
		close(rig->key);
}

/* `what`: of the options, what is left out or added. */
enum {
	NO_TIER = 1,
	GIVE_UP = 2,
	NO_KEY = 4
};

static int try_open(const struct rig *rig, unsigned what)
{
	const struct tmem_tier_setup setup = {
		.kind = rig->kind,
		.fd = rig->tier,
		.max_bytes = rig->max_bytes,
		.plain = rig->plain,
		.key_fd = what & NO_KEY || rig->key < 0 ? NULL : &rig->key,
	};
	struct tmem_store_options o = {
		.limit_bytes = LIMIT,
		.max_limit_bytes = LIMIT,
		.arena_fd = &rig->image,
		.tiers = &setup,
		.nr_tiers = what & NO_TIER ? 0 : 1,
		.give_up_tiers = (what & GIVE_UP) != 0,
	};
	int r = tmem_store_open(&o, &store);

	if (r < 0)
		return r;
	tmem_store_check(store);
	backend = tmem_store_backend(store);
	pool = known->pool;
	if (store->tiering) {
		store->tiering->rest_step_ns = 0;
		store->tiering->backoff_step_ns = 1;
	}
	return 0;
}

static void open_store(const struct rig *rig)
{
	CHECK_EQ(try_open(rig, 0), 0);
}

static void close_store(void)
{
	tmem_store_check(store);
	tmem_store_close(store);
}

static struct tmem_stats stats(void)
{
	struct tmem_stats s;

	CHECK_EQ(backend.ops->stats(backend.self, &s), 0);
	return s;
}

static void fill(void *page, unsigned key, uint64_t version)
{
	struct rng rng = { key * 1000003ull + version };
	uint64_t *w = page;

	for (unsigned i = 0; i < PAGE / 8; i++)
		w[i] = i % 3 ? key : rng_next(&rng);
	w[0] = version;
}

static struct tmem_io io_of(unsigned key, void *page)
{
	return (struct tmem_io){ .object = { { key / PER_OBJECT } },
				 .index = key,
				 .page = page };
}

static int put(unsigned key, uint64_t version)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, key, version);
	CHECK_EQ(backend.ops->store(backend.self, pool, &io, 1), 0);
	known->versions[key] = io.result == 0 ? version : 0;
	return io.result;
}

/* What is right, or -EIO. */
static int get_from(tmem_pool_id from, unsigned key, uint64_t version)
{
	_Alignas(8) char page[PAGE], want[PAGE];
	struct tmem_io io = io_of(key, page);

	memset(page, 0x5a, PAGE);
	CHECK_EQ(backend.ops->load(backend.self, from, &io, 1), 0);
	if (version && io.result == 0)
		fill(want, key, version);
	else
		memset(want, 0x5a, PAGE);
	CHECK(io.result == (version ? 0 : TMEM_MISS) || io.result == -EIO);
	CHECK(memcmp(page, want, PAGE) == 0);
	return io.result;
}

static int get(unsigned key)
{
	return get_from(pool, key, known->versions[key]);
}

static void drop(unsigned key)
{
	struct tmem_io io = io_of(key, NULL);

	CHECK_EQ(backend.ops->invalidate(backend.self, pool, &io, 1), 0);
	CHECK_EQ(io.result, known->versions[key] ? 0 : TMEM_MISS);
	known->versions[key] = 0;
}

static unsigned get_all(void)
{
	unsigned lost = 0;

	for (unsigned key = 0; key < known->nr_pages; key++)
		lost += get(key) == -EIO;
	tmem_store_check(store);
	return lost;
}

static void maintain(void)
{
	unsigned n = 0;

	while (tmem_store_maintain(store, 1000000000))
		CHECK(++n < 100000);
	tmem_store_check(store);
}

static void begin_pool(void)
{
	CHECK_EQ(backend.ops->pool_create(backend.self, NULL, &pool), 0);
	known->pool = pool;
}

static void go_down(void)
{
	while (tmem_store_held_bytes(store) < LIMIT / 16 * 15) {
		CHECK(known->nr_pages < MAX_PAGES);
		CHECK_EQ(put(known->nr_pages, known->nr_pages + 1), 0);
		known->nr_pages++;
	}
	maintain();
	CHECK_EQ(stats().tier_write_errors, 0);
	known->tier_pages = stats().tier_pages;
	CHECK(known->tier_pages > 100);
}

/* fn() in a process that does not get to close its store. */
static void in_another(const struct rig *rig, void (*fn)(void))
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		open_store(rig);
		fn();
		kill(getpid(), SIGKILL);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void fill_first(void)
{
	begin_pool();
	go_down();
}

static void go_on(void)
{
	CHECK_EQ(get_all(), 0);
	for (unsigned key = 0; key < known->nr_pages; key += 5)
		CHECK_EQ(put(key, key + 100000), 0);
	for (unsigned key = 1; key < known->nr_pages; key += 5)
		drop(key);
	go_down();
}

static void pages_below_outlive_the_process(uint32_t kind, int plain, bool disk)
{
	struct rig rig = make_rig(kind, plain, disk);

	in_another(&rig, fill_first);
	open_store(&rig);
	CHECK_EQ(stats().tier_pages, known->tier_pages);
	CHECK_EQ(stats().recover_torn + stats().recover_lost, 0);
	CHECK_EQ(get_all(), 0);
	close_store();
	for (unsigned i = 0; i < 2; i++)
		in_another(&rig, go_on);
	open_store(&rig);
	CHECK_EQ(stats().recover_torn + stats().recover_lost, 0);
	CHECK_EQ(get_all(), 0);
	go_down();
	CHECK_EQ(get_all(), 0);
	close_store();
	free_rig(&rig);
}

static void every_kind_of_tier(void)
{
	for (int plain = 0; plain < 2; plain++) {
		pages_below_outlive_the_process(TMEM_TIER_KIND_FILE, plain,
						true);
		pages_below_outlive_the_process(TMEM_TIER_KIND_FILE, plain,
						false);
		pages_below_outlive_the_process(TMEM_TIER_KIND_MAPPED, plain,
						false);
	}
}

static void fill_and_clone(void)
{
	begin_pool();
	for (unsigned i = 0; i < 2; i++) {
		go_down();
		if (i == 0)
			CHECK_EQ(backend.ops->pool_clone(backend.self, pool,
							 &known->clone),
				 0);
	}
	/* What the clone refers to has no owner any more. */
	for (unsigned key = 0; key < known->nr_pages; key += 2)
		drop(key);
}

static void clones_of_pages_below_outlive_the_process(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false);
	unsigned lost = 0, misses = 0;

	in_another(&rig, fill_and_clone);
	for (unsigned i = 0; i < 2; i++) {
		open_store(&rig);
		CHECK_EQ(stats().recover_torn + stats().recover_lost, 0);
		CHECK_EQ(get_all(), 0);
		for (unsigned key = 0; key < known->nr_pages; key++) {
			_Alignas(8) char page[PAGE];
			struct tmem_io io = io_of(key, page);

			CHECK_EQ(backend.ops->load(backend.self, known->clone,
						   &io, 1),
				 0);
			lost += io.result < 0;
			misses += io.result == TMEM_MISS;
			if (io.result == 0)
				CHECK_EQ(get_from(known->clone, key, key + 1),
					 0);
		}
		CHECK_EQ(lost, 0);
		if (i == 0)
			CHECK(misses && misses < known->nr_pages / 2);
		close_store();
		lost = misses = 0;
	}
	open_store(&rig);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, known->clone), 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	maintain();
	CHECK_EQ(stats().tier_bytes, 0);
	CHECK_EQ(stats().tier_segments, 0);
	close_store();
	free_rig(&rig);
}

static void what_nobody_names_is_dropped(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false);
	struct stat st;

	in_another(&rig, fill_first);
	/* A segment that no place names yet, or any more. */
	CHECK_EQ(fstat(rig.tier, &st), 0);
	CHECK(st.st_blocks > 8);
	CHECK_EQ(pwrite(rig.tier, "abcd", 4, 50l * SEGMENT), 4);
	open_store(&rig);
	CHECK_EQ(lseek(rig.tier, 50l * SEGMENT, SEEK_DATA), -1);
	CHECK_EQ(get_all(), 0);
	for (unsigned key = 0; key < known->nr_pages; key++)
		drop(key);
	maintain();
	CHECK_EQ(stats().tier_segments, 0);
	CHECK_EQ(fstat(rig.tier, &st), 0);
	CHECK_EQ(st.st_blocks, 8); /* the label */
	close_store();
	free_rig(&rig);
}

static void a_wrong_key_or_tier_is_told_and_changes_nothing(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false), wrong = rig;
	int key = tmem_key_create(), other = testfile_ram();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	in_another(&rig, fill_first);
	wrong.key = key;
	CHECK_EQ(try_open(&wrong, 0), -EKEYREJECTED);
	wrong.key = other;
	CHECK_EQ(try_open(&wrong, 0), -EINVAL);
	wrong.key = null;
	CHECK(try_open(&wrong, 0) < 0);
	wrong = rig;
	wrong.plain = 1;
	CHECK_EQ(try_open(&wrong, 0), -EKEYREJECTED);
	wrong = rig;
	wrong.tier = other;
	CHECK_EQ(try_open(&wrong, 0), -ENODEV);
	CHECK_EQ(try_open(&rig, NO_KEY), -EINVAL);
	CHECK_EQ(try_open(&rig, NO_TIER), -ENXIO);
	wrong = rig;
	wrong.max_bytes = SEGMENT;
	CHECK_EQ(try_open(&wrong, 0), -EINVAL);
	wrong.max_bytes = 2ull * SEGMENT;
	CHECK_EQ(try_open(&wrong, 0), -ENXIO);
	open_store(&rig);
	CHECK_EQ(stats().recover_lost, 0);
	CHECK_EQ(get_all(), 0);
	close_store();
	close(key);
	close(other);
	close(null);
	free_rig(&rig);
}

/* What is in memory is there, what is below is -EIO; then all is there again.
 */
static void give_up(const struct rig *rig, const struct rig *wrong,
		    unsigned what)
{
	CHECK_EQ(try_open(wrong, what | GIVE_UP), 0);
	CHECK_EQ(stats().recover_lost, known->tier_pages);
	CHECK_EQ(get_all(), known->tier_pages);
	CHECK(known->tier_pages < known->nr_pages);
	for (unsigned key = 0; key < 10; key++)
		CHECK_EQ(put(key, key + 555), 0);
	for (unsigned key = 10; key < 20; key++)
		drop(key);
	known->tier_pages = stats().tier_pages;
	CHECK_EQ(get_all(), known->tier_pages);
	close_store();
	/* The label may be another's now. */
	CHECK_EQ(try_open(rig, GIVE_UP), 0);
	CHECK_EQ(stats().recover_lost, 0);
	CHECK_EQ(get_all(), 0);
	known->tier_pages = stats().tier_pages;
	close_store();
}

static void a_tier_that_is_given_up_can_come_back(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false), wrong = rig;

	wrong.key = tmem_key_create();
	wrong.tier = testfile_ram();
	in_another(&rig, fill_first);
	give_up(&rig, &rig, NO_TIER);
	give_up(&rig, &wrong, 0);
	open_store(&rig);
	CHECK_EQ(get_all(), 0);
	known->tier_pages = stats().tier_pages;
	close_store();
	wrong.tier = rig.tier;
	give_up(&rig, &wrong, 0);
	free_rig(&rig);
}

static void clones_without_a_tier_can_go(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false);

	in_another(&rig, fill_and_clone);
	CHECK_EQ(try_open(&rig, NO_TIER | GIVE_UP), 0);
	CHECK(get_all() > 0);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, known->clone), 0);
	tmem_store_check(store);
	CHECK_EQ(backend.ops->pool_destroy(backend.self, pool), 0);
	tmem_store_check(store);
	CHECK_EQ(stats().tier_bytes, 0);
	close_store();
	/* Nothing is in it now. */
	CHECK_EQ(try_open(&rig, NO_TIER), 0);
	close_store();
	free_rig(&rig);
}

/* Segments that there are, but the label; and their salts. */
static unsigned list_segments(int tier, unsigned *numbers, uint64_t *salts)
{
	char header[TMEM_SEGMENT_HEADER_BYTES];
	unsigned nr = 0;

	for (unsigned n = 1; n < NR_SEGMENTS; n++) {
		if (pread(tier, header, sizeof(header), (off_t)n * SEGMENT) !=
			    (ssize_t)sizeof(header) ||
		    memcmp(header, "tmemseg1", 8) != 0)
			continue;
		memcpy(&salts[nr], header + TMEM_SEGMENT_SALT_AT, 8);
		numbers[nr++] = n;
	}
	return nr;
}

/* A head, a whole segment, and one that is another. */
static void damage_segments(int tier, const unsigned *numbers)
{
	static char bytes[SEGMENT];

	CHECK_EQ(pwrite(tier, "x", 1, (off_t)numbers[0] * SEGMENT + 41), 1);
	CHECK_EQ(fallocate(tier, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
			   (off_t)numbers[1] * SEGMENT, SEGMENT),
		 0);
	CHECK(pread(tier, bytes, SEGMENT, (off_t)numbers[3] * SEGMENT) > 0);
	CHECK_EQ(pwrite(tier, bytes, SEGMENT, (off_t)numbers[2] * SEGMENT),
		 SEGMENT);
}

static void damage_records(int tier, const unsigned *numbers, unsigned nr)
{
	struct rng rng = { 7 };
	char byte;

	for (unsigned i = 0; i < 200; i++) {
		off_t at = (off_t)numbers[rng_below(&rng, nr)] * SEGMENT +
			   TMEM_SEGMENT_HEADER_BYTES +
			   (off_t)rng_below(&rng, 60000);

		CHECK_EQ(pread(tier, &byte, 1, at), 1);
		byte = (char)(byte ^ 1 << rng_below(&rng, 8));
		CHECK_EQ(pwrite(tier, &byte, 1, at), 1);
	}
}

static void damage_costs_only_what_is_damaged(int plain)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, plain, false);
	unsigned numbers[NR_SEGMENTS], nr, lost;
	uint64_t salts[NR_SEGMENTS];

	in_another(&rig, fill_first);
	nr = list_segments(rig.tier, numbers, salts);
	CHECK(nr > 4);
	damage_segments(rig.tier, numbers);
	open_store(&rig);
	lost = (unsigned)stats().recover_lost;
	CHECK(lost > 3 && lost < known->tier_pages);
	CHECK_EQ(get_all(), lost);
	close_store();
	/* This is told when they are loaded. */
	damage_records(rig.tier, numbers + 3, nr - 3);
	open_store(&rig);
	CHECK_EQ(stats().recover_lost, lost);
	CHECK(get_all() > lost);
	/* What is lost can be dropped, and the rest goes on. */
	for (unsigned key = 0; key < known->nr_pages; key++)
		if (get(key) == -EIO)
			drop(key);
	maintain();
	CHECK_EQ(get_all(), 0);
	go_down();
	CHECK_EQ(get_all(), 0);
	close_store();
	open_store(&rig);
	CHECK_EQ(stats().recover_lost, 0);
	CHECK_EQ(get_all(), 0);
	close_store();
	free_rig(&rig);
}

static void damage(void)
{
	damage_costs_only_what_is_damaged(0);
	damage_costs_only_what_is_damaged(1);
}

/* Two plain tiers of stores that did the same: alike in all but the salts. */
static void another_stores_segments_are_not_taken(void)
{
	struct rig a = make_rig(TMEM_TIER_KIND_FILE, 1, false), b = a;
	struct rig mixed;

	b.image = image_memfd();
	b.tier = testfile_ram();
	in_another(&a, fill_first);
	memset(known, 0, sizeof(*known));
	in_another(&b, fill_first);
	mixed = a;
	mixed.tier = b.tier;
	CHECK_EQ(try_open(&mixed, 0), -ENODEV);
	CHECK_EQ(try_open(&mixed, GIVE_UP), 0);
	CHECK_EQ(stats().recover_lost, known->tier_pages);
	CHECK_EQ(get_all(), known->tier_pages);
	close_store();
	free_rig(&a);
	free_rig(&b);
}

static void no_salt_comes_twice(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false);
	static uint64_t seen[4096];
	unsigned nr_seen = 0;

	in_another(&rig, fill_first);
	for (unsigned i = 0; i < 3; i++) {
		uint64_t salts[NR_SEGMENTS];
		unsigned numbers[NR_SEGMENTS], k, nr;

		nr = list_segments(rig.tier, numbers, salts);
		for (unsigned n = 0; n < nr; n++) {
			for (k = 0; k < nr_seen; k++)
				if (seen[k] == salts[n])
					break;
			/* Then it is that segment, not a new one. */
			if (k < nr_seen)
				continue;
			seen[nr_seen++] = salts[n];
			CHECK(nr_seen < 4096);
		}
		for (unsigned n = 0; n < nr; n++)
			for (k = 0; k < n; k++)
				CHECK(salts[k] != salts[n]);
		in_another(&rig, go_on);
	}
	CHECK(nr_seen > 10);
	free_rig(&rig);
}

static void one_store_at_a_time_has_a_tier(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_MAPPED, 0, false), other = rig;
	struct tmem_store *first;

	open_store(&rig);
	first = store;
	CHECK_EQ(try_open(&rig, 0), -EBUSY); /* the image */
	other.image = image_memfd();
	CHECK_EQ(try_open(&other, 0), -EBUSY);
	tmem_store_close(first);
	CHECK_EQ(try_open(&other, 0), 0);
	close_store();
	close(other.image);
	free_rig(&rig);
}

static void a_tier_can_be_added_to_what_is_there(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false);
	const struct tmem_tier_setup setup = { .fd = rig.tier,
					       .max_bytes = 64 << 20 };

	CHECK_EQ(try_open(&rig, NO_TIER), 0);
	CHECK_EQ(tmem_store_add_tier(store, &setup), -EOPNOTSUPP);
	begin_pool();
	for (; known->nr_pages < 100; known->nr_pages++)
		CHECK_EQ(put(known->nr_pages, 9), 0);
	close_store();
	open_store(&rig);
	CHECK_EQ(get_all(), 0);
	go_down();
	close_store();
	open_store(&rig);
	CHECK_EQ(get_all(), 0);
	close_store();
	free_rig(&rig);
}

/* Nothing is written any more: pages stay in memory, and are there later. */
static void a_tier_that_fails_costs_no_page(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 1, false);
	uint64_t before;

	close(rig.tier);
	rig.tier = memfd_create("tier", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(rig.tier >= 0);
	in_another(&rig, fill_first);
	open_store(&rig);
	before = stats().tier_pages;
	CHECK_EQ(fcntl(rig.tier, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	while (tmem_store_held_bytes(store) < LIMIT / 16 * 15) {
		CHECK_EQ(put(known->nr_pages, 3), 0);
		known->nr_pages++;
	}
	for (unsigned i = 0; i < 20; i++)
		tmem_store_maintain(store, 10000000);
	CHECK(stats().tier_write_errors > 0);
	CHECK(stats().tier_pages <= before);
	CHECK_EQ(get_all(), 0);
	close_store();
	open_store(&rig);
	CHECK_EQ(stats().recover_lost, 0);
	CHECK_EQ(get_all(), 0);
	close_store();
	free_rig(&rig);
}

static void with_a_lower_limit_old_segments_are_read(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false);
	const struct tmem_tier_setup setup = { .fd = rig.tier,
					       .max_bytes = rig.max_bytes,
					       .key_fd = &rig.key };
	struct tmem_store_options o = { .limit_bytes = HIGH_LIMIT,
					.max_limit_bytes = HIGH_LIMIT,
					.arena_fd = &rig.image,
					.tiers = &setup,
					.nr_tiers = 1 };

	/* Batches of 128 KiB, and then of 64. */
	CHECK_EQ(tmem_store_open(&o, &store), 0);
	backend = tmem_store_backend(store);
	store->tiering->rest_step_ns = 0;
	begin_pool();
	while (stats().tier_segments < NR_SEGMENTS * 3 / 4) {
		CHECK_EQ(put(known->nr_pages, 3), 0);
		known->nr_pages++;
		if (tmem_store_held_bytes(store) > HIGH_LIMIT / 16 * 15)
			maintain();
	}
	close_store();
	open_store(&rig);
	/* The cleaner is at work, and leaves what is too large for it. */
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned key = round; key < known->nr_pages; key += 4)
			drop(key);
		go_down();
	}
	CHECK_EQ(get_all(), 0);
	close_store();
	open_store(&rig);
	CHECK_EQ(get_all(), 0);
	close_store();
	free_rig(&rig);
}

/* Bytes of a file's mapping in smaps, and whether it is left out of dumps. */
static bool is_left_out_of_dumps(const char *name)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	bool here = false, found = false, all = true;
	char line[512];

	CHECK(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		unsigned long start, end;

		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = strstr(line, name) != NULL;
		if (here && strncmp(line, "VmFlags:", 8) == 0) {
			found = true;
			all = all && strstr(line, " dd") != NULL;
		}
	}
	fclose(f);
	return found && all;
}

static void the_key_is_sealed_and_not_dumped(void)
{
	struct rig rig = make_rig(TMEM_TIER_KIND_FILE, 0, false);
	char byte = 0;

	CHECK_EQ(pwrite(rig.key, &byte, 1, 20), -1);
	CHECK_EQ(errno, EPERM);
	CHECK_EQ(ftruncate(rig.key, 0), -1);
	CHECK_EQ(errno, EPERM);
	CHECK(fcntl(rig.key, F_GETFD) & FD_CLOEXEC);
	open_store(&rig);
	CHECK(is_left_out_of_dumps("tmem-key"));
	close_store();
	CHECK(!is_left_out_of_dumps("tmem-key"));
	free_rig(&rig);
}

int main(void)
{
	known = mmap(NULL, sizeof(*known), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(known != MAP_FAILED);
	RUN(every_kind_of_tier);
	RUN(clones_of_pages_below_outlive_the_process);
	RUN(what_nobody_names_is_dropped);
	RUN(a_wrong_key_or_tier_is_told_and_changes_nothing);
	RUN(a_tier_that_is_given_up_can_come_back);
	RUN(clones_without_a_tier_can_go);
	RUN(damage);
	RUN(another_stores_segments_are_not_taken);
	RUN(no_salt_comes_twice);
	RUN(a_tier_can_be_added_to_what_is_there);
	RUN(a_tier_that_fails_costs_no_page);
	RUN(with_a_lower_limit_old_segments_are_read);
	RUN(the_key_is_sealed_and_not_dumped);
	RUN(one_store_at_a_time_has_a_tier);
	return 0;
}
