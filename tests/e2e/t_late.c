/* SPDX-License-Identifier: MIT */
/*
 * Events that are read in another order than they happened.
 *
 * munmap() queues its event after it has let go of the memory map.  A thread
 * that waited for the map, is more urgent, and moves memory to where the
 * unmapped was, queues its own first.  What was moved must stay.
 *
 *   moved   mremap() to the place that is being unmapped, by a real-time
 *           thread on the same CPU, at many moments of the munmap()
 */
#include "torture.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
	ROUNDS = 12,
	FILE_MIB = 192
};

static struct tt_region region;
static unsigned char *hole; /* being unmapped */
static size_t hole_bytes;
static struct timespec wake_at;
static unsigned nr_moved;

static void pin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	TT_SYS(sched_setaffinity(0, sizeof(set), &set));
}

/* Moves the region to where the hole was; not if it is still there. */
static void *mover(void *unused)
{
	const struct sched_param fifo = { .sched_priority = 1 };
	unsigned char present;
	void *at;

	TT_ZERO(pthread_setschedparam(pthread_self(), SCHED_FIFO, &fifo));
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake_at, NULL);
	if (mincore(hole, TT_PAGE, &present) == 0 || errno != ENOMEM)
		return unused;
	at = mremap(region.base, region.nr_pages * TT_PAGE,
		    region.nr_pages * TT_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		    hole);
	TT_ASSERT(at == hole);
	region.base = at;
	nr_moved++;
	return unused;
}

/* Private memory that is watched, then a file's, which takes long to unmap. */
static void make_hole(int fd)
{
	size_t front = region.nr_pages * TT_PAGE;
	void *file;

	hole_bytes = front + FILE_MIB * TT_MIB;
	hole = tt_map(hole_bytes);
	memset(hole, 1, front);
	file = mmap(hole + front, FILE_MIB * TT_MIB, PROT_READ,
		    MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0);
	TT_ASSERT(file != MAP_FAILED);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	TT_SYS(clock_gettime(CLOCK_MONOTONIC, &t));
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Unmaps the hole, with the mover to strike after `ns`. */
static void race(uint64_t ns)
{
	uint64_t start = now_ns() + 1000000;
	pthread_t thread;

	wake_at.tv_sec = (time_t)((start + ns) / 1000000000);
	wake_at.tv_nsec = (long)((start + ns) % 1000000000);
	thread = tt_thread(mover, NULL);
	while (now_ns() < start)
		;
	TT_SYS(munmap(hole, hole_bytes));
	tt_join(thread);
}

static void moved(void)
{
	const struct sched_param fifo = { .sched_priority = 1 };
	const struct sched_param none = { 0 };
	uint64_t took_ns;
	int fd = tt_temp_file(0);

	if (sched_setscheduler(0, SCHED_FIFO, &fifo) < 0)
		tt_skip("no real-time scheduling here");
	TT_SYS(sched_setscheduler(0, SCHED_OTHER, &none));
	TT_SYS(ftruncate(fd, FILE_MIB * TT_MIB));
	tt_region_begin(&region, tt_pages(20));
	pin();
	make_hole(fd);
	took_ns = now_ns();
	TT_SYS(munmap(hole, hole_bytes));
	took_ns = now_ns() - took_ns;
	for (unsigned i = 0; i < ROUNDS; i++) {
		make_hole(fd);
		tt_pressure(); /* the region is out, the hole is watched */
		race(took_ns * (i + 1) / (ROUNDS + 2));
		tt_region_verify(&region);
	}
	if (!nr_moved)
		tt_skip("no munmap() was met");
	TT_SYS(close(fd));
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "moved", moved }, { NULL } };

	tt_main(argc, argv, 64, cases);
}
