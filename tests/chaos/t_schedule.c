/* SPDX-License-Identifier: MIT */
/*
 * Races of the pager, each forced to happen in the order that is worst.
 *
 * Run under the pager of this folder, whose threads stop at points
 * (base/chaos.h).  A case has a handler stop there with one page, the *target*,
 * does something to that page, lets the handler go on, and then checks every
 * byte, twice: as it is found, and after all was evicted once more.
 *
 *   evict-*    the target is on its way out: in its frame, or stored already
 *   load-*     it is on its way back, for a thread that waits for it
 *   ahead-*    it is read ahead
 *   *-packed   the store has it;  *-swapped  the swap file has it
 *   *-kept     it was read from the swap file, not written, and goes again
 *   fork-later     the parent drops what its new child is still to read
 *   fork-drops     the same just as the child was made
 *   fork-notes     more events than can be noted, while a fork waits for a load
 *   leave-out      a raw fork while a range is to be left out
 *   exit, exec     while pages are on their way to the disk; exit-child: of a
 *                  child that shares the swap file's pages
 *
 * What is done: read, write, madvise, a new mapping in its place, mremap, fork,
 * fork and write before it is made.
 */
#include "base/chaos.h"
#include "torture.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	PAGES = 768, /* enough for the pager to look for more memory */
	FIRST = 96,  /* what an action is about, and how much at once */
	SOME = 8,
	TARGET = FIRST + 2,
	ROUNDS = 200,
	ATTEMPTS = 20,
	PACKED_WORDS = 16,
	NOTES = 140
};

enum act {
	READ = 0,
	WRITE,
	DROP,
	OVER,
	MOVE,
	FORK,
	FORK_WRITE,
	NR_ACTS
};

static const char *const act_names[NR_ACTS] = {
	"read", "write", "drop", "over", "move", "fork", "fork and write"
};

static struct tmem_chaos_page *chaos;
static unsigned char *arena, *away;
static unsigned version[PAGES], away_version[PAGES];
static unsigned last_version;
static bool is_random; /* contents: nothing compresses them */
static struct tt_region others;
static int pagemap_fd;
static size_t others_at;

/* Points */

static uint32_t arrived_before[TMEM_CHAOS_PLACES];

static void arm(enum tmem_chaos_place place, const void *start, size_t pages)
{
	struct tmem_chaos_point *p = &chaos->point[place];

	arrived_before[place] = atomic_load(&p->arrived);
	atomic_store(&p->start, (uintptr_t)start / TT_PAGE);
	atomic_store(&p->end, (uintptr_t)start / TT_PAGE + pages);
	atomic_store(&p->left, 1);
}

static bool has_arrived(enum tmem_chaos_place place)
{
	return atomic_load(&chaos->point[place].arrived) !=
	       arrived_before[place];
}

static void let_go(enum tmem_chaos_place place)
{
	struct tmem_chaos_point *p = &chaos->point[place];

	atomic_store(&p->left, 0);
	atomic_store(&p->passed, atomic_load(&p->arrived));
	syscall(SYS_futex, &p->passed, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void wait_to_arrive(enum tmem_chaos_place place)
{
	while (!has_arrived(place))
		usleep(100);
}

/* Contents */

static void make(void *page, size_t nr, unsigned v)
{
	uint64_t rng = tt_rand_start(nr * 100000 + v), *word = page;

	for (size_t i = 0; i < TT_PAGE / sizeof(*word); i++)
		word[i] = !v				       ? 0
			  : is_random || i % PACKED_WORDS == 0 ? tt_rand(&rng)
							       : v;
}

static void check_one(const void *page, size_t nr, unsigned v)
{
	uint64_t expected[TT_PAGE / sizeof(uint64_t)];
	char what[64];

	make(expected, nr, v);
	snprintf(what, sizeof(what), "page %zu, version %u", nr, v);
	tt_same(page, expected, TT_PAGE, what);
}

static void write_one(size_t nr)
{
	version[nr] = ++last_version;
	make(arena + nr * TT_PAGE, nr, version[nr]);
}

static void check_all(void)
{
	for (size_t nr = 0; nr < PAGES; nr++) {
		check_one(arena + nr * TT_PAGE, nr, version[nr]);
		if (away_version[nr])
			check_one(away + nr * TT_PAGE, nr, away_version[nr]);
	}
}

/* Pressure */

static bool is_out(const void *page)
{
	uint64_t word;

	TT_ASSERT(pread(pagemap_fd, &word, sizeof(word),
			(off_t)((uintptr_t)page / TT_PAGE * sizeof(word))) ==
		  sizeof(word));
	return !(word >> 63);
}

static bool all_out(void)
{
	for (size_t nr = 0; nr < PAGES; nr++)
		if (version[nr] && !is_out(arena + nr * TT_PAGE))
			return false;
	return true;
}

static void *glance(void *argument)
{
	return tt_argument(*(volatile unsigned char *)argument);
}

/* Walks over other memory for a while. */
static void push(size_t pages)
{
	while (pages-- > 0) {
		tt_region_check(&others, others_at);
		others_at = (others_at + 1) % others.nr_pages;
	}
}

/* The pager is to evict these first; none, if there are no pages. */
static void want(const void *start, size_t pages)
{
	atomic_store(&chaos->wanted_end, 0);
	atomic_store(&chaos->wanted_start, (uintptr_t)start / TT_PAGE);
	atomic_store(&chaos->wanted_end, (uintptr_t)start / TT_PAGE + pages);
}

static void push_all_out(void)
{
	want(arena, PAGES);
	for (unsigned i = 0; !all_out(); i++) {
		if (i == ROUNDS)
			tt_fail("it is never out");
		push(others.nr_pages / 8);
	}
	want(NULL, 0);
}

/* What is out may still be in its frame: frames are used anew meanwhile. */
static void settle(void)
{
	push(others.nr_pages / 4);
	usleep(1000);
}

/* Until a handler stops there with the target, which is to go. */
static void push_until(enum tmem_chaos_place place)
{
	want(arena + TARGET * TT_PAGE, 1);
	for (size_t i = 0; !has_arrived(place); i++) {
		if (i == ROUNDS / 10 * others.nr_pages)
			tt_fail("no handler comes by");
		/* It went before the point was armed. */
		if (is_out(arena + TARGET * TT_PAGE))
			glance(arena + TARGET * TT_PAGE);
		push(1);
	}
	want(NULL, 0);
}

static void check_twice(void)
{
	check_all();
	want(arena, PAGES);
	push(others.nr_pages / 2);
	want(NULL, 0);
	check_all();
}

/* Two processes that want all of it would do little else than wait. */
static void check_in_child(void)
{
	TT_SYS(munmap(others.base, others.nr_pages * TT_PAGE));
	check_all();
	check_all();
}

/* Threads that touch and fork */

static unsigned char seen[TT_PAGE];
static _Atomic size_t walked;

static void *touch(void *argument)
{
	memcpy(seen, argument, TT_PAGE);
	return NULL;
}

static void *walk(void *argument)
{
	for (size_t nr = 0; nr < FIRST; nr++) {
		(void)*(volatile unsigned char *)(arena + nr * TT_PAGE);
		atomic_store(&walked, nr + 1);
	}
	return argument;
}

static void *fork_and_check(void *argument)
{
	pid_t pid = tt_fork();

	if (!pid) {
		check_in_child();
		_exit(0);
	}
	tt_wait(pid);
	return argument;
}

/* What is done meanwhile */

static void map_over(unsigned char *at, size_t pages)
{
	TT_ASSERT(mmap(at, pages * TT_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at);
}

/* A thread waits for one of them: the place stays mapped. */
static void move_away(size_t first, size_t pages, bool is_watched)
{
	unsigned char *from = arena + first * TT_PAGE;
	unsigned char *to = away + first * TT_PAGE;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	if (is_watched)
		flags |= 4; /* MREMAP_DONTUNMAP */
	TT_ASSERT(mremap(from, pages * TT_PAGE, pages * TT_PAGE, flags, to) ==
		  to);
	if (!is_watched)
		map_over(from, pages);
	for (size_t nr = first; nr < first + pages; nr++) {
		away_version[nr] = version[nr];
		version[nr] = 0;
	}
}

static void zero_now(size_t first, size_t pages)
{
	memset(version + first, 0, pages * sizeof(*version));
}

/* The fork waits for whoever is at `place`. */
static void fork_meanwhile(enum tmem_chaos_place place, bool write)
{
	struct tmem_chaos_point *p = &chaos->point[TMEM_AT_FORK_SETTLES];
	uint32_t before = atomic_load(&p->seen);
	pthread_t thread = tt_thread(fork_and_check, NULL);

	while (atomic_load(&p->seen) - before < 3)
		usleep(100);
	if (write)
		write_one(TARGET);
	let_go(place);
	tt_join(thread);
}

static void act_on(enum act act, enum tmem_chaos_place place, size_t first,
		   size_t pages, bool is_watched)
{
	unsigned char *start = arena + first * TT_PAGE;

	switch (act) {
	case READ:
		break;
	case WRITE:
		write_one(TARGET);
		break;
	case DROP:
		TT_SYS(madvise(start, pages * TT_PAGE, MADV_DONTNEED));
		zero_now(first, pages);
		break;
	case OVER:
		map_over(start, pages);
		zero_now(first, pages);
		break;
	case MOVE:
		move_away(first, pages, is_watched);
		break;
	default:
		fork_meanwhile(place, act == FORK_WRITE);
		break;
	}
}

/* The cases */

static void *sleep_on(void *argument)
{
	for (;;)
		pause();
	return argument;
}

static void set_up(bool random)
{
	const char *file = getenv("TMEM_CHAOS_FILE");
	cpu_set_t cpus;
	int fd;

	TT_SYS(sched_getaffinity(0, sizeof(cpus), &cpus));
	if (!file || CPU_COUNT(&cpus) < 2)
		tt_skip("it takes the pager of tests/chaos, and 2 CPUs");
	fd = (int)TT_SYS(open(file, O_RDWR | O_CLOEXEC));
	chaos = mmap(NULL, sizeof(*chaos), PROT_READ | PROT_WRITE, MAP_SHARED,
		     fd, 0);
	TT_ASSERT(chaos != MAP_FAILED);
	pagemap_fd = (int)TT_SYS(open("/proc/self/pagemap", O_RDONLY));
	is_random = random;
	arena = tt_map(PAGES * TT_PAGE);
	away = tt_map(PAGES * TT_PAGE);
	tt_region_map(&others, tt_pages(110), 1);
	tt_region_fill(&others);
	/* A program of one thread has one handler, which is to stop. */
	tt_thread(sleep_on, NULL);
}

static void write_all(void)
{
	for (size_t nr = 0; nr < PAGES; nr++)
		write_one(nr);
}

static void begin(void)
{
	map_over(arena, PAGES); /* as one mapping again */
	map_over(away, PAGES);
	memset(away_version, 0, sizeof(away_version));
	write_all();
}

static void evict_and(enum tmem_chaos_place place, enum act act, bool kept)
{
	begin();
	/* A page that compresses poorly may stay the first time. */
	if (is_random) {
		push_all_out();
		settle();
	}
	if (kept)
		check_all();
	else if (is_random)
		write_all();
	arm(place, arena + TARGET * TT_PAGE, 1);
	push_until(place);
	if (act == READ || act == WRITE) /* it is in its frame */
		check_one(arena + TARGET * TT_PAGE, TARGET, version[TARGET]);
	act_on(act, place, TARGET, 1, false);
	let_go(place);
	check_twice();
}

static void evict_all(bool kept)
{
	for (unsigned act = 0; act < NR_ACTS; act++) {
		tt_current = act_names[act];
		evict_and(TMEM_AT_EVICT_MOVED, (enum act)act, kept);
		evict_and(TMEM_AT_EVICT_SENT, (enum act)act, kept);
	}
}

/* A thread that touches the target waits for the loader, which has stopped. */
static void load_and(enum tmem_chaos_place place, enum act act)
{
	unsigned char *target = arena + TARGET * TT_PAGE;
	pthread_t thread, second;

	begin();
	push_all_out();
	settle();
	arm(place, target, 1);
	thread = tt_thread(touch, target);
	wait_to_arrive(place);
	second = tt_thread(glance, target);
	act_on(act, place, TARGET, 1, true);
	let_go(place);
	tt_join(thread);
	tt_join(second);
	check_one(seen, TARGET, version[TARGET]);
	check_twice();
}

static void load_all(void)
{
	static const enum act acts[] = { READ, DROP, OVER, MOVE, FORK };

	for (size_t i = 0; i < TT_ARRAY(acts); i++) {
		tt_current = act_names[acts[i]];
		load_and(TMEM_AT_LOAD_CLAIMED, acts[i]);
		load_and(TMEM_AT_LOAD_READ, acts[i]);
	}
}

/* False: the walker came to its end, and nobody has read ahead that far. */
static bool ahead_and(enum tmem_chaos_place place, enum act act)
{
	pthread_t thread;
	bool arrived;

	begin();
	push_all_out();
	settle();
	atomic_store(&walked, 0);
	arm(place, arena + TARGET * TT_PAGE, 1);
	thread = tt_thread(walk, NULL);
	while (!has_arrived(place) && atomic_load(&walked) < FIRST)
		usleep(100);
	usleep(1000);
	arrived = has_arrived(place);
	if (arrived)
		act_on(act, place, FIRST, SOME, false);
	let_go(place);
	tt_join(thread);
	check_twice();
	return arrived;
}

static void ahead_all(void)
{
	static const enum act acts[] = { READ, DROP, OVER, MOVE, FORK };

	for (size_t i = 0; i < TT_ARRAY(acts); i++) {
		unsigned tries = 0;

		tt_current = act_names[acts[i]];
		while (!ahead_and(TMEM_AT_LOAD_CLAIMED, acts[i]) ||
		       !ahead_and(TMEM_AT_LOAD_READ, acts[i]))
			if (tries++ == ATTEMPTS)
				tt_fail("nothing is read ahead");
	}
}

static void evict_packed(void)
{
	set_up(false);
	evict_all(false);
}

static void evict_swapped(void)
{
	set_up(true);
	evict_all(false);
}

static void evict_kept(void)
{
	set_up(true);
	evict_all(true);
}

static void load_packed(void)
{
	set_up(false);
	load_all();
}

static void load_swapped(void)
{
	set_up(true);
	load_all();
}

static void ahead_packed(void)
{
	set_up(false);
	ahead_all();
}

static void ahead_swapped(void)
{
	set_up(true);
	ahead_all();
}

/* 1: the child is there; 2: its parent has dropped the page. */
static _Atomic uint32_t *turn;

static void in_new_child(void)
{
	atomic_store(turn, 1);
	while (atomic_load(turn) != 2)
		usleep(100);
	check_one(arena + TARGET * TT_PAGE, TARGET, version[TARGET]);
}

static void *drop_for_parent(void *argument)
{
	while (atomic_load(turn) != 1)
		usleep(100);
	TT_SYS(madvise(argument, TT_PAGE, MADV_DONTNEED));
	atomic_store(turn, 2);
	return NULL;
}

static void fork_later(void)
{
	unsigned char *target;
	pthread_t dropper;
	pid_t pid;

	set_up(false);
	target = arena + TARGET * TT_PAGE;
	turn = mmap(NULL, TT_PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	TT_ASSERT(turn != MAP_FAILED);
	TT_ZERO(pthread_atfork(NULL, NULL, in_new_child));
	for (unsigned i = 0; i < 3; i++) {
		begin();
		push_all_out();
		settle();
		atomic_store(turn, 0);
		dropper = tt_thread(drop_for_parent, target);
		pid = tt_fork();
		if (!pid) {
			check_in_child();
			_exit(0);
		}
		tt_join(dropper);
		version[TARGET] = 0;
		check_twice();
		tt_wait(pid);
	}
}

static void *drop(void *argument)
{
	TT_SYS(madvise(argument, TT_PAGE, MADV_DONTNEED));
	return argument;
}

/* The parent's thread drops the page when the child is there already. */
static void fork_drops(void)
{
	pthread_t dropper, forker;

	set_up(false);
	for (unsigned i = 0; i < 3; i++) {
		begin();
		push_all_out();
		settle();
		arm(TMEM_AT_FORK_HEARD, NULL, 1);
		forker = tt_thread(fork_and_check, NULL);
		wait_to_arrive(TMEM_AT_FORK_HEARD);
		dropper = tt_thread(drop, arena + TARGET * TT_PAGE);
		usleep(20000);
		let_go(TMEM_AT_FORK_HEARD);
		tt_join(dropper);
		tt_join(forker);
		version[TARGET] = 0;
		check_twice();
	}
}

/* Each munmap() is one event. */
static void fork_notes(void)
{
	struct tmem_chaos_point *settles;
	pthread_t thread, forker;
	unsigned char *pieces;
	uint32_t before;

	set_up(false);
	settles = &chaos->point[TMEM_AT_FORK_SETTLES];
	pieces = tt_map(TT_PAGE * 2 * NOTES);
	memset(pieces, 1, TT_PAGE * 2 * NOTES);
	begin();
	push_all_out();
	settle();
	arm(TMEM_AT_LOAD_READ, arena + TARGET * TT_PAGE, 1);
	thread = tt_thread(touch, arena + TARGET * TT_PAGE);
	wait_to_arrive(TMEM_AT_LOAD_READ);
	before = atomic_load(&settles->seen);
	forker = tt_thread(fork_and_check, NULL);
	while (atomic_load(&settles->seen) - before < 3)
		usleep(100);
	for (size_t i = 0; i < NOTES; i++) {
		if (i == NOTES / 2)
			let_go(TMEM_AT_LOAD_READ);
		TT_SYS(munmap(pieces + 2 * i * TT_PAGE, TT_PAGE));
	}
	tt_join(thread);
	tt_join(forker);
	check_one(seen, TARGET, version[TARGET]);
	check_twice();
}

static void *fork_raw(void *argument)
{
	pid_t pid = (pid_t)TT_SYS(syscall(SYS_fork));
	size_t nr;

	if (!pid) {
		for (nr = 0; nr < PAGES; nr++)
			check_one(arena + nr * TT_PAGE, nr, version[nr]);
		_exit(0);
	}
	tt_wait(pid);
	return argument;
}

static void *leave_out_range(void *argument)
{
	TT_SYS(madvise(argument, SOME * TT_PAGE, MADV_WIPEONFORK));
	return NULL;
}

static void leave_out(void)
{
	uint32_t forks;
	pthread_t thread, forker;

	set_up(false);
	begin();
	push_all_out();
	settle();
	arm(TMEM_AT_LEAVES_OUT, arena + FIRST * TT_PAGE, 1);
	thread = tt_thread(leave_out_range, arena + FIRST * TT_PAGE);
	wait_to_arrive(TMEM_AT_LEAVES_OUT);
	forks = atomic_load(&chaos->point[TMEM_AT_FORK_HEARD].seen);
	forker = tt_thread(fork_raw, NULL);
	while (atomic_load(&chaos->point[TMEM_AT_FORK_HEARD].seen) == forks)
		usleep(100);
	let_go(TMEM_AT_LEAVES_OUT);
	tt_join(thread);
	tt_join(forker);
	check_twice();
}

/* A handler has stopped with pages on their way to the disk. */
static void stop_writing(void)
{
	begin();
	push_all_out();
	settle();
	write_all();
	arm(TMEM_AT_EVICT_SENT, arena + TARGET * TT_PAGE, 1);
	push_until(TMEM_AT_EVICT_SENT);
}

static void exit_writing(void)
{
	set_up(true);
	stop_writing();
}

static void after(void)
{
	set_up(true);
	begin();
	push_all_out();
	check_twice();
}

static void exec_writing(void)
{
	char mib[24], seed[24];

	set_up(true);
	stop_writing();
	snprintf(mib, sizeof(mib), "%zu", tt_mib);
	snprintf(seed, sizeof(seed), "%llu", (unsigned long long)tt_seed);
	execl(tt_self, tt_self, mib, seed, "after", NULL);
	tt_fail("exec %s: %s", tt_self, strerror(errno));
}

static void exit_child(void)
{
	pid_t pid;

	set_up(true);
	begin();
	push_all_out();
	TT_SYS(munmap(others.base, others.nr_pages * TT_PAGE));
	pid = tt_fork();
	tt_region_map(&others, others.nr_pages, 1);
	if (!pid) {
		tt_thread(sleep_on, NULL);
		check_all();
		tt_region_fill(&others);
		stop_writing();
		_exit(0);
	}
	tt_wait(pid);
	tt_region_fill(&others);
	check_twice();
}

static const struct tt_case cases[] = {
	{ "evict-packed", evict_packed, true },
	{ "evict-swapped", evict_swapped, true },
	{ "evict-kept", evict_kept, true },
	{ "load-packed", load_packed, true },
	{ "load-swapped", load_swapped, true },
	{ "ahead-packed", ahead_packed, true },
	{ "ahead-swapped", ahead_swapped, true },
	{ "fork-later", fork_later, true },
	{ "fork-drops", fork_drops, true },
	{ "fork-notes", fork_notes, true },
	{ "leave-out", leave_out, true },
	{ "exit", exit_writing, true },
	{ "exec", exec_writing, true },
	{ "exit-child", exit_child, true },
	{ "after", after, true },
	{ NULL, NULL, false }
};

int main(int argc, char **argv)
{
	tt_main(argc, argv, 32, cases);
}
