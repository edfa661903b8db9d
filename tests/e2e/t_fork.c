/* SPDX-License-Identifier: MIT */
/*
 * fork(): parent and child both go on, with evicted, refaulted and
 * swapped-out pages, and write different things to the same addresses.
 *
 *   both      parent and child at the same time, several generations
 *   nested    each child forks its own child before it verifies
 *   writers   fork while other threads write: the child sees each page as it
 *             was at one moment
 *   thread    a thread that is not the first one forks
 *   atfork    handlers of pthread_atfork touch evicted memory
 *   vfork     the child writes into the parent's memory
 *   moves     such a handler moves and drops evicted memory in the child
 *   behind    memory behind a file that was mapped later, as dlopen() does
 */
#include "torture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	NR_WRITERS = 3,
	WORDS = TT_PAGE / 8,
	CHILD_BUMP = 100
};

static struct tt_region region;

static void setup(void)
{
	uint64_t rng = tt_rand_start(1);

	tt_pressure_init(60);
	tt_region_map(&region, tt_pages(30), 1);
	tt_region_fill(&region);
	tt_region_work(&region, &rng, region.nr_pages / 2, 2);
	tt_pressure();
}

static void child_both(unsigned round)
{
	uint64_t rng = tt_rand_start(1000 + round);

	region.bump = CHILD_BUMP;
	tt_region_work(&region, &rng, region.nr_pages / 2, 2);
	tt_pressure();
	tt_region_verify_shuffled(&region);
	_exit(0);
}

static void both(void)
{
	setup();
	for (unsigned round = 0; round < 4; round++) {
		uint64_t rng = tt_rand_start(10 + round);
		pid_t pid = tt_fork();

		if (!pid)
			child_both(round);
		tt_region_work(&region, &rng, region.nr_pages / 2, 2);
		if (round % 2)
			tt_pressure();
		tt_region_verify_shuffled(&region);
		tt_wait(pid);
		tt_region_verify(&region);
	}
	tt_region_unmap(&region);
}

static void descend(unsigned depth)
{
	uint64_t rng = tt_rand_start(2000 + depth);
	pid_t pid;

	if (depth == 4)
		return;
	pid = tt_fork();
	if (!pid) {
		region.bump = (uint16_t)(CHILD_BUMP * (depth + 1));
		tt_region_work(&region, &rng, region.nr_pages / 8, 1);
		descend(depth + 1);
		tt_region_verify_shuffled(&region);
		_exit(0);
	}
	tt_region_work(&region, &rng, region.nr_pages / 8, 1);
	tt_wait(pid);
	tt_region_verify(&region);
}

static void nested(void)
{
	setup();
	descend(0);
	tt_region_unmap(&region);
}

struct writer {
	volatile uint64_t *words;
	size_t nr_pages;
	_Atomic bool stop;
};

/*
 * Writes a growing number from the first word of a page to its last, so that
 * at any moment a page's words never grow and differ by one at the most.
 */
static void *writer_thread(void *argument)
{
	struct writer *me = argument;

	for (uint64_t n = 1; !atomic_load(&me->stop); n++)
		for (size_t page = 0; page < me->nr_pages; page++)
			for (unsigned i = 0; i < WORDS; i++)
				me->words[page * WORDS + i] = n;
	return NULL;
}

static void check_writer(const struct writer *w)
{
	for (size_t page = 0; page < w->nr_pages; page++) {
		volatile uint64_t *at = w->words + page * WORDS;
		uint64_t previous = at[0], first = previous;

		for (unsigned i = 1; i < WORDS; i++) {
			uint64_t now = at[i];

			if (now > previous || now + 1 < first)
				tt_fail("WRONG BYTE at %p: a page of two "
					"moments: word 0 is %llu, word %u is "
					"%llu after %llu",
					(void *)&at[i],
					(unsigned long long)first, i,
					(unsigned long long)now,
					(unsigned long long)previous);
			previous = now;
		}
	}
}

static void writers(void)
{
	struct writer writer[NR_WRITERS] = { 0 };
	pthread_t thread[NR_WRITERS];

	setup();
	for (unsigned i = 0; i < NR_WRITERS; i++) {
		writer[i].nr_pages = tt_pages(10) / NR_WRITERS;
		writer[i].words = tt_map(writer[i].nr_pages * TT_PAGE);
		thread[i] = tt_thread(writer_thread, &writer[i]);
	}
	for (unsigned round = 0; round < 10; round++) {
		uint64_t rng = tt_rand_start(30 + round);
		pid_t pid = tt_fork();

		if (!pid) {
			for (unsigned i = 0; i < NR_WRITERS; i++)
				check_writer(&writer[i]);
			tt_region_verify_shuffled(&region);
			_exit(0);
		}
		tt_region_work(&region, &rng, 2000, 2);
		if (round % 4 == 3)
			tt_pressure();
		tt_wait(pid);
	}
	for (unsigned i = 0; i < NR_WRITERS; i++) {
		atomic_store(&writer[i].stop, true);
		tt_join(thread[i]);
		TT_SYS(munmap((void *)writer[i].words,
			      writer[i].nr_pages * TT_PAGE));
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void *forking_thread(void *argument)
{
	uint64_t rng = tt_rand_start(40);
	struct tt_region mine;
	pid_t pid;

	(void)argument;
	tt_region_map(&mine, tt_pages(10), 40);
	tt_region_fill(&mine);
	tt_pressure();
	pid = tt_fork();
	tt_region_verify_shuffled(&mine);
	mine.bump = pid ? 1 : CHILD_BUMP;
	tt_region_work(&mine, &rng, mine.nr_pages, 2);
	if (!pid) {
		/* The child's only thread is this one: it may make others. */
		tt_region_verify(&region);
		tt_join(tt_thread(writer_thread,
				  &(struct writer){ .stop = true }));
		_exit(0);
	}
	tt_wait(pid);
	tt_region_verify(&mine);
	tt_region_unmap(&mine);
	return NULL;
}

static void thread(void)
{
	setup();
	for (unsigned i = 0; i < 3; i++)
		tt_join(tt_thread(forking_thread, NULL));
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static bool atfork_armed;

static void atfork_prepare(void)
{
	if (atfork_armed)
		tt_region_check(&region, 1);
}

static void atfork_parent(void)
{
	if (atfork_armed)
		tt_region_check(&region, region.nr_pages / 2);
}

static void atfork_child(void)
{
	if (!atfork_armed)
		return;
	for (size_t i = 0; i < region.nr_pages; i += 100)
		tt_region_write(&region, i);
}

static void atfork(void)
{
	setup();
	TT_ZERO(pthread_atfork(atfork_prepare, atfork_parent, atfork_child));
	atfork_armed = true;
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid;

		tt_pressure();
		pid = tt_fork();
		if (!pid) {
			tt_region_verify_shuffled(&region);
			_exit(0);
		}
		tt_wait(pid);
		tt_region_verify(&region);
	}
	atfork_armed = false;
	tt_region_unmap(&region);
}

static void vfork_child(void)
{
	uint64_t rng = tt_rand_start(60);
	pid_t pid;

	setup();
	for (unsigned i = 0; i < 20; i++) {
		size_t nr = tt_rand(&rng) % region.nr_pages;

		if (i % 10 == 0)
			tt_pressure();
		/* NOLINTNEXTLINE(*insecureAPI.vfork): what is tested */
		pid = vfork();
		if (!pid) {
			/* NOLINTNEXTLINE(*unix.Vfork): it is to fault */
			tt_region_write(&region, nr);
			_exit(0);
		}
		TT_SYS(pid);
		tt_wait(pid);
		tt_region_work(&region, &rng, 500, 3);
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

/* A page of a file ends where the region begins. */
static void put_file_in_front(void)
{
	FILE *f = tmpfile();
	unsigned char *at = region.base - TT_PAGE;

	TT_ASSERT(f && ftruncate(fileno(f), TT_PAGE) == 0);
	TT_ASSERT(mmap(at, TT_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_FIXED, fileno(f), 0) == at);
	fclose(f);
}

static void behind(void)
{
	size_t pages = 64;
	unsigned char *room;

	/* Alone: with others it would be more than a library's data. */
	room = tt_map((pages + 2) * TT_PAGE);
	TT_SYS(mprotect(room, TT_PAGE, PROT_NONE));
	TT_SYS(mprotect(room + (pages + 1) * TT_PAGE, TT_PAGE, PROT_NONE));
	region.base = room + TT_PAGE;
	region.nr_pages = pages;
	region.id = 1;
	region.version = tt_map(pages * sizeof(*region.version));
	tt_region_fill(&region);
	tt_pressure_init(90); /* now it is watched */
	tt_pressure();
	put_file_in_front();
	tt_pressure();
	for (unsigned round = 0; round < 4; round++) {
		pid_t pid = tt_fork();

		if (!pid) {
			tt_region_verify(&region);
			tt_pressure();
			tt_region_verify(&region);
			_exit(0);
		}
		tt_wait(pid);
		tt_region_verify(&region);
		tt_pressure();
	}
}

static void rearrange(void)
{
	if (atfork_armed)
		tt_region_rearrange(&region);
}

/* Before the child has a pager of its own. */
static void handler_moves(void)
{
	setup();
	TT_ZERO(pthread_atfork(NULL, NULL, rearrange));
	atfork_armed = true;
	for (unsigned i = 0; i < 3; i++) {
		pid_t pid;

		tt_pressure();
		pid = tt_fork();
		if (!pid) {
			tt_region_verify_shuffled(&region);
			tt_region_verify(&region);
			_exit(0);
		}
		tt_wait(pid);
	}
	atfork_armed = false;
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "both", both },
						{ "nested", nested },
						{ "writers", writers },
						{ "thread", thread },
						{ "atfork", atfork },
						{ "vfork", vfork_child },
						{ "behind", behind },
						{ "moves", handler_moves },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
