/* SPDX-License-Identifier: MIT */
/*
 * O_DIRECT: the disk reads from and writes to the program's pages, which are
 * pinned while it does.
 *
 *   direct   one thread, evicted source and target
 *   threads  several threads with a file each, while one walks the pressure
 */
#include "torture.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	NR_THREADS = 3,
	MOST = 32
};

static _Atomic bool stop;

/* Random writes and reads of 1 to MOST pages, always in agreement. */
static void exercise(uint64_t id, size_t pages, unsigned steps)
{
	int fd = tt_temp_file(O_DIRECT);
	uint64_t rng = tt_rand_start(id);
	struct tt_region source;
	unsigned char *target = tt_map(pages * TT_PAGE);

	tt_region_map(&source, pages, id);
	tt_region_fill(&source);
	TT_ASSERT(pwrite(fd, source.base, pages * TT_PAGE, 0) ==
		  (ssize_t)(pages * TT_PAGE));
	for (unsigned i = 0; i < steps; i++) {
		size_t nr = 1 + (tt_rand(&rng) >> 16) % MOST;
		size_t first = (tt_rand(&rng) >> 16) % (pages - nr);
		off_t at = (off_t)(first * TT_PAGE);

		for (size_t p = first; p < first + nr; p += 2)
			tt_region_write(&source, p);
		TT_ASSERT(pwrite(fd, source.base + at, nr * TT_PAGE, at) ==
			  (ssize_t)(nr * TT_PAGE));
		first = (tt_rand(&rng) >> 16) % (pages - nr);
		at = (off_t)(first * TT_PAGE);
		TT_ASSERT(pread(fd, target + at, nr * TT_PAGE, at) ==
			  (ssize_t)(nr * TT_PAGE));
		for (size_t p = first; p < first + nr; p++)
			tt_check(target + p * TT_PAGE, id, p,
				 source.version[p]);
		tt_region_work(&source, &rng, 10, 0);
	}
	tt_region_verify(&source);
	tt_region_unmap(&source);
	TT_SYS(munmap(target, pages * TT_PAGE));
	close(fd);
}

static void direct(void)
{
	tt_pressure_init(60);
	tt_pressure();
	exercise(1, tt_pages(20), 1500);
}

static void *exerciser(void *argument)
{
	exercise(10 + (uintptr_t)argument, tt_pages(20) / NR_THREADS, 800);
	return NULL;
}

static void *presser(void *argument)
{
	(void)argument;
	while (!atomic_load(&stop))
		tt_pressure();
	return NULL;
}

static void threads(void)
{
	pthread_t thread[NR_THREADS], pressure;

	tt_pressure_init(60);
	atomic_store(&stop, false);
	pressure = tt_thread(presser, NULL);
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		thread[i] = tt_thread(exerciser, tt_argument(i));
	for (unsigned i = 0; i < NR_THREADS; i++)
		tt_join(thread[i]);
	atomic_store(&stop, true);
	tt_join(pressure);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "direct", direct },
						{ "threads", threads },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
