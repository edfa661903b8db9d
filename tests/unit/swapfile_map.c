/* SPDX-License-Identifier: MIT */
/*
 * The slot map by itself: slots are given out once, shared, reaped, put into
 * quarantine and trimmed; processes killed at random leave nothing in use
 * twice.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/sys.h"
#include "frontends/swapmap.h"
#include "fstest.h"
#include "testfile.h"

enum {
	MAX_PAGES = 3000,
	USERS = 8
};

static int fd;

static struct tmem_swapmap open_map(unsigned user)
{
	struct tmem_swapmap map;

	CHECK_EQ(tmem_swapmap_open(&map, fd, user), 0);
	return map;
}

static uint32_t take(struct tmem_swapmap *map)
{
	uint32_t slot;

	CHECK_EQ(tmem_swapmap_alloc(map, &slot), 0);
	CHECK(tmem_swapmap_has(map, slot));
	return slot;
}

static uint32_t take_written(struct tmem_swapmap *map)
{
	uint32_t slot = take(map);

	tmem_swapmap_written(map, slot);
	return slot;
}

static uint64_t used(void)
{
	uint64_t pages, limit;

	CHECK_EQ(tmem_swapmap_usage(fd, &pages, &limit), 0);
	return pages;
}

static void wrong_sizes_are_refused(void)
{
	CHECK_EQ(tmem_swapmap_create(0, 1), -EINVAL);
	CHECK_EQ(tmem_swapmap_create(1, 0), -EINVAL);
	CHECK_EQ(tmem_swapmap_create(1, TMEM_SWAPFILE_MAX_USERS + 1), -EINVAL);
	CHECK_EQ(tmem_swapmap_create(1ull << 40, 1), -EINVAL);
}

static void what_is_no_map_is_refused(void)
{
	struct tmem_swapmap map;
	uint64_t a, b;
	int other = testfile_ram();

	CHECK_EQ(tmem_swapmap_open(&map, other, 0), -EINVAL);
	CHECK_EQ(ftruncate(other, 1 << 20), 0);
	CHECK_EQ(tmem_swapmap_open(&map, other, 0), -EINVAL);
	CHECK_EQ(tmem_swapmap_usage(other, &a, &b), -EINVAL);
	CHECK_EQ(tmem_swapmap_reap(other, 0), -EINVAL);
	CHECK_EQ(tmem_swapmap_open(&map, -1, 0), -EBADF);
	CHECK_EQ(tmem_swapmap_open(&map, fd, USERS), -EINVAL);
	close(other);
}

/* A header that claims more than the file has would be read past its end. */
static void a_map_of_another_length_is_refused(void)
{
	struct tmem_swapmap map;
	int other = testfile_ram();
	char header[4096];

	CHECK_EQ(pread(fd, header, sizeof(header), 0), sizeof(header));
	CHECK_EQ(pwrite(other, header, sizeof(header), 0), sizeof(header));
	CHECK_EQ(tmem_swapmap_open(&map, other, 0), -EINVAL);
	close(other);
	CHECK_EQ(ftruncate(fd, 4096), -1);
}

static void slots_come_in_a_row(void)
{
	struct tmem_swapmap map = open_map(0);

	for (unsigned i = 0; i < 1000; i++)
		CHECK_EQ(take_written(&map), i);
	CHECK_EQ(used(), 1000);
	CHECK_EQ(tmem_swapmap_count_own(&map), 1000);
	tmem_swapmap_drop_all(&map);
	CHECK_EQ(used(), 0);
	tmem_swapmap_close(&map);
}

static void all_slots_can_be_had_and_no_more(void)
{
	struct tmem_swapmap map = open_map(0);
	char *seen = calloc(MAX_PAGES, 1);
	uint32_t slot;

	for (unsigned i = 0; i < MAX_PAGES; i++) {
		slot = take_written(&map);
		CHECK(slot < MAX_PAGES && !seen[slot]);
		seen[slot] = 1;
	}
	CHECK_EQ(tmem_swapmap_alloc(&map, &slot), -ENOSPC);
	/* Each slot that becomes free, anywhere, is found again. */
	for (unsigned i = 0; i < MAX_PAGES; i += 7) {
		tmem_swapmap_drop(&map, i);
		CHECK_EQ(take_written(&map), i);
	}
	CHECK_EQ(used(), MAX_PAGES);
	tmem_swapmap_drop_all(&map);
	tmem_swapmap_close(&map);
	free(seen);
}

static void the_limit_holds(void)
{
	struct tmem_swapmap map = open_map(0);
	uint64_t pages, limit;
	uint32_t slot;

	CHECK_EQ(tmem_swapmap_set_limit(fd, MAX_PAGES + 1), -EINVAL);
	CHECK_EQ(tmem_swapmap_set_limit(fd, 2), 0);
	CHECK_EQ(tmem_swapmap_usage(fd, &pages, &limit), 0);
	CHECK_EQ(limit, 2);
	take_written(&map);
	take_written(&map);
	CHECK_EQ(tmem_swapmap_alloc(&map, &slot), -ENOSPC);
	CHECK_EQ(used(), 2);
	CHECK_EQ(tmem_swapmap_set_limit(fd, 1), 0);
	CHECK_EQ(used(), 2);
	CHECK_EQ(tmem_swapmap_set_limit(fd, 3), 0);
	take_written(&map);
	CHECK_EQ(tmem_swapmap_alloc(&map, &slot), -ENOSPC);
	CHECK_EQ(tmem_swapmap_set_limit(fd, MAX_PAGES), 0);
	tmem_swapmap_drop_all(&map);
	tmem_swapmap_close(&map);
}

/* What was freed is used again before the file grows. */
static void the_file_stays_near_its_peak(void)
{
	struct tmem_swapmap map = open_map(0);
	uint32_t slots[512], highest = 0;

	for (unsigned i = 0; i < 512; i++)
		slots[i] = take_written(&map);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = round % 3; i < 512; i += 3) {
			tmem_swapmap_drop(&map, slots[i]);
			slots[i] = take_written(&map);
			if (slots[i] > highest)
				highest = slots[i];
		}
	}
	CHECK(highest < 512 * 4 / 3 + 2 * TMEM_SWAPMAP_CHUNK);
	tmem_swapmap_drop_all(&map);
	tmem_swapmap_close(&map);
}

static void a_shared_slot_is_free_when_nobody_has_it(void)
{
	struct tmem_swapmap parent = open_map(1), child;
	uint32_t a = take_written(&parent), b = take_written(&parent);

	CHECK_EQ(tmem_swapmap_share(&parent, fd, 1), -EINVAL);
	CHECK_EQ(tmem_swapmap_share(&parent, fd, USERS), -EINVAL);
	CHECK_EQ(tmem_swapmap_share(&parent, fd, 2), 0);
	child = open_map(2);
	CHECK(tmem_swapmap_has(&child, a) && tmem_swapmap_has(&child, b));
	tmem_swapmap_drop(&parent, a);
	CHECK(!tmem_swapmap_has(&parent, a));
	CHECK(tmem_swapmap_has(&child, a));
	CHECK_EQ(used(), 2);
	tmem_swapmap_drop(&child, a);
	CHECK_EQ(used(), 1);
	tmem_swapmap_drop(&child, b);
	CHECK_EQ(used(), 1);
	tmem_swapmap_drop(&parent, b);
	CHECK_EQ(used(), 0);
	tmem_swapmap_close(&parent);
	tmem_swapmap_close(&child);
}

static void reap_drops_what_the_dead_had(void)
{
	struct tmem_swapmap a = open_map(1), b = open_map(2);
	uint32_t kept;

	for (unsigned i = 0; i < 300; i++)
		take_written(&a);
	CHECK_EQ(tmem_swapmap_share(&a, fd, 2), 0);
	kept = take_written(&b);
	CHECK_EQ(tmem_swapmap_reap(fd, 1), 0);
	CHECK_EQ(used(), 301);
	CHECK_EQ(tmem_swapmap_check(fd), 0);
	CHECK_EQ(tmem_swapmap_reap(fd, 1), 0);
	CHECK_EQ(used(), 301);
	CHECK(tmem_swapmap_has(&b, kept));
	tmem_swapmap_close(&a);
	tmem_swapmap_close(&b);
	CHECK_EQ(tmem_swapmap_reap(fd, 2), 0);
	CHECK_EQ(used(), 0);
	CHECK_EQ(tmem_swapmap_check(fd), 0);
}

/* The disk may still write what the dead process had begun. */
static void a_slot_with_a_dead_writer_is_not_reused(void)
{
	struct tmem_swapmap dead = open_map(1), other = open_map(2);
	uint32_t slot = take(&dead);
	int file = testfile_disk();

	tmem_swapmap_close(&dead);
	CHECK_EQ(tmem_swapmap_reap(fd, 1), 0);
	CHECK_EQ(used(), 1);
	for (unsigned i = 0; i < MAX_PAGES - 1; i++)
		CHECK(take_written(&other) != slot);
	tmem_swapmap_drop_all(&other);
	CHECK_EQ(ftruncate(file, (off_t)MAX_PAGES * PAGE), 0);
	CHECK(tmem_swapmap_trim(fd, file) > 0);
	CHECK_EQ(used(), 0);
	CHECK_EQ(tmem_swapmap_check(fd), 0);
	tmem_swapmap_close(&other);
	close(file);
}

static void trim_gives_space_back_and_keeps_pages(void)
{
	struct tmem_swapmap map = open_map(1);
	int file = testfile_disk();
	char *page = pages_alloc(1), *back = pages_alloc(1);
	struct stat before, after;

	for (unsigned i = 0; i < 1000; i++) {
		page_fill(page, i);
		CHECK_EQ(pwrite(file, page, PAGE,
				(off_t)take_written(&map) * PAGE),
			 PAGE);
	}
	for (unsigned i = 0; i < 1000; i++)
		if (i % 100)
			tmem_swapmap_drop(&map, i);
	CHECK_EQ(fsync(file), 0);
	CHECK_EQ(fstat(file, &before), 0);
	CHECK(tmem_swapmap_trim(fd, file) >= 990);
	CHECK_EQ(fstat(file, &after), 0);
	CHECK(after.st_blocks * 512 < before.st_blocks * 512 / 4);
	for (unsigned i = 0; i < 1000; i += 100) {
		CHECK_EQ(pread(file, back, PAGE, (off_t)i * PAGE), PAGE);
		CHECK(page_is(back, i));
	}
	CHECK_EQ(used(), 10);
	CHECK_EQ(tmem_swapmap_check(fd), 0);
	/* What can't be punched is left as it was. */
	CHECK_EQ(tmem_swapmap_trim(fd, -1), -EBADF);
	for (unsigned i = 0; i < MAX_PAGES - 10; i++)
		take_written(&map);
	tmem_swapmap_drop_all(&map);
	CHECK_EQ(used(), 0);
	tmem_swapmap_close(&map);
	pages_free(page, 1);
	pages_free(back, 1);
	close(file);
}

static void a_big_map_costs_little(void)
{
	int big = tmem_swapmap_create(1u << 24, TMEM_SWAPFILE_MAX_USERS);
	struct tmem_swapmap map;
	struct stat st;

	CHECK(big >= 0);
	CHECK_EQ(tmem_swapmap_open(&map, big, 300), 0);
	for (unsigned i = 0; i < 1000; i++)
		take_written(&map);
	CHECK_EQ(fstat(big, &st), 0);
	CHECK(st.st_blocks * 512 <= 16 * 4096l);
	tmem_swapmap_drop_all(&map);
	tmem_swapmap_close(&map);
	CHECK_EQ(tmem_swapmap_reap(big, 300), 0);
	close(big);
}

/* Who has a slot, seen by all: nobody may find another's number in it. */
static _Atomic uint32_t *owners;

struct owner {
	struct tmem_swapmap map;
	struct rng rng;
	unsigned nr;
	uint32_t slots[600];
};

static void own(struct owner *o)
{
	uint32_t slot, free_word = 0;

	if (o->nr == 600 || tmem_swapmap_alloc(&o->map, &slot) != 0)
		return;
	if (!atomic_compare_exchange_strong(&owners[slot], &free_word,
					    o->map.user + 1)) {
		fprintf(stderr, "slot %u: user %u has user %u's\n", slot,
			o->map.user, free_word - 1);
		abort();
	}
	tmem_swapmap_written(&o->map, slot);
	o->slots[o->nr++] = slot;
}

static void disown(struct owner *o)
{
	unsigned i;
	uint32_t slot, mine = o->map.user + 1;

	if (o->nr == 0)
		return;
	i = (unsigned)rng_below(&o->rng, o->nr);
	slot = o->slots[i];
	o->slots[i] = o->slots[--o->nr];
	CHECK(atomic_compare_exchange_strong(&owners[slot], &mine, 0));
	tmem_swapmap_drop(&o->map, slot);
}

static void own_and_disown(unsigned user, uint64_t seed, unsigned steps)
{
	struct owner o = { .map = open_map(user), .rng.state = seed };

	for (unsigned i = 0; i < steps; i++) {
		if (rng_below(&o.rng, 100) < 50)
			own(&o);
		else
			disown(&o);
	}
	while (o.nr != 0)
		disown(&o);
	tmem_swapmap_close(&o.map);
}

static void *own_thread(void *arg)
{
	own_and_disown((unsigned)(uintptr_t)arg, (uintptr_t)arg, 30000);
	return NULL;
}

static void users_never_get_the_same_slot(void)
{
	pthread_t threads[USERS];

	CHECK_EQ(tmem_swapmap_set_limit(fd, MAX_PAGES), 0);
	for (uintptr_t i = 0; i < USERS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, own_thread,
					tmem_sys_pointer(i)),
			 0);
	for (unsigned i = 0; i < USERS; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(used(), 0);
	CHECK_EQ(tmem_swapmap_check(fd), 0);
}

/* Only once a user is known to be dead may its slots go to others. */
static void bury(pid_t pid, unsigned user)
{
	int status;

	CHECK_EQ(kill(pid, SIGKILL), 0);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	for (unsigned i = 0; i < MAX_PAGES; i++)
		if (owners[i] == user + 1)
			owners[i] = 0;
	CHECK_EQ(tmem_swapmap_reap(fd, user), 0);
}

/* Processes killed at any instruction. */
static void killed_users_leave_nothing_in_use_twice(void)
{
	struct rng rng = { 7 };
	pid_t pids[4] = { 0 };
	int64_t leaked;
	unsigned kills = 0;

	for (unsigned round = 0; round < 200; round++) {
		unsigned user = (unsigned)rng_below(&rng, 4);

		if (pids[user] != 0) {
			usleep((useconds_t)rng_below(&rng, 300));
			bury(pids[user], user);
			pids[user] = 0;
			kills++;
			continue;
		}
		pids[user] = fork();
		CHECK(pids[user] >= 0);
		if (pids[user] == 0) {
			own_and_disown(user, round, UINT32_MAX);
			_exit(0);
		}
	}
	for (unsigned user = 0; user < 4; user++) {
		if (pids[user] == 0)
			continue;
		bury(pids[user], user);
		kills++;
	}
	leaked = tmem_swapmap_check(fd);
	printf("  %u kills, %lld slots in quarantine or leaked, %llu used\n",
	       kills, (long long)leaked, (unsigned long long)used());
	CHECK(leaked <= kills && used() <= kills);
}

static void run(void (*test)(void), const char *name)
{
	fprintf(stderr, "  %s\n", name);
	fd = testfile_map(MAX_PAGES, USERS);
	owners = mmap(NULL, MAX_PAGES * sizeof(*owners), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK((void *)owners != MAP_FAILED);
	test();
	munmap((void *)owners, MAX_PAGES * sizeof(*owners));
	close(fd);
}

#define RUN_MAP(test) run(test, #test)

int main(void)
{
	RUN_MAP(wrong_sizes_are_refused);
	RUN_MAP(what_is_no_map_is_refused);
	RUN_MAP(a_map_of_another_length_is_refused);
	RUN_MAP(slots_come_in_a_row);
	RUN_MAP(all_slots_can_be_had_and_no_more);
	RUN_MAP(the_limit_holds);
	RUN_MAP(the_file_stays_near_its_peak);
	RUN_MAP(a_shared_slot_is_free_when_nobody_has_it);
	RUN_MAP(reap_drops_what_the_dead_had);
	RUN_MAP(a_slot_with_a_dead_writer_is_not_reused);
	RUN_MAP(trim_gives_space_back_and_keeps_pages);
	RUN_MAP(a_big_map_costs_little);
	RUN_MAP(users_never_get_the_same_slot);
	RUN_MAP(killed_users_leave_nothing_in_use_twice);
	return 0;
}
