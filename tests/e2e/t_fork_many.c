/* SPDX-License-Identifier: MIT */
/*
 * Many children over one heap.
 *
 *   readers  32 children that only read, all alive at the same time: what
 *            they share with the parent must count once
 *   bomb     200 short-lived children
 *   workers  4 children, each of which works over its share
 *   chain    each child forks the next and ends
 */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	NR_READERS = 32,
	NR_BOMB = 200,
	NR_WORKERS = 4,
	BLOCK = 64
};

static struct tt_region region;

/* A heap as programs have: blocks from malloc, small and large. */
static unsigned char **make_heap(size_t nr_blocks)
{
	unsigned char **heap = malloc(nr_blocks * sizeof(*heap));

	TT_ASSERT(heap);
	for (size_t i = 0; i < nr_blocks; i++) {
		size_t pages = i % 50 ? 1 : BLOCK;

		heap[i] = malloc(pages * TT_PAGE);
		TT_ASSERT(heap[i]);
		for (size_t p = 0; p < pages; p++)
			tt_fill(heap[i] + p * TT_PAGE, i, p, 1);
	}
	return heap;
}

static void check_heap(unsigned char **heap, size_t nr_blocks, size_t step)
{
	size_t at = step % nr_blocks;

	for (size_t n = 0; n < nr_blocks; n++, at = (at + 1) % nr_blocks)
		for (size_t p = 0; p < (at % 50 ? 1 : BLOCK); p++)
			tt_check(heap[at] + p * TT_PAGE, at, p, 1);
}

static void readers(void)
{
	/* A block is 1 + 63/50 pages on average. */
	size_t nr_blocks = tt_pages(100) * 50 / (50 + BLOCK - 1);
	unsigned char **heap = make_heap(nr_blocks);
	pid_t pid[NR_READERS];
	int ready[2], go[2];
	char byte;

	TT_SYS(pipe(ready));
	TT_SYS(pipe(go));
	for (unsigned i = 0; i < NR_READERS; i++) {
		pid[i] = tt_fork();
		if (pid[i])
			continue;
		close(go[1]);
		check_heap(heap, nr_blocks, i * nr_blocks / NR_READERS);
		tt_write_all(ready[1], "r", 1);
		/* Stay until all of them have read all of it. */
		TT_ASSERT(read(go[0], &byte, 1) == 0);
		_exit(0);
	}
	for (unsigned i = 0; i < NR_READERS; i++)
		tt_read_all(ready[0], &byte, 1);
	check_heap(heap, nr_blocks, 0);
	close(go[1]);
	for (unsigned i = 0; i < NR_READERS; i++)
		tt_wait(pid[i]);
	check_heap(heap, nr_blocks, 1);
	for (size_t i = 0; i < nr_blocks; i++)
		free(heap[i]);
	free(heap);
	close(ready[0]);
	close(ready[1]);
	close(go[0]);
}

static void setup(unsigned percent)
{
	tt_region_map(&region, tt_pages(percent), 1);
	tt_region_fill(&region);
}

static void bomb(void)
{
	enum {
		AT_ONCE = 8
	};
	pid_t pid[AT_ONCE] = { 0 };
	uint64_t rng = tt_rand_start(1);

	setup(90);
	for (unsigned i = 0; i < NR_BOMB; i++) {
		if (pid[i % AT_ONCE])
			tt_wait(pid[i % AT_ONCE]);
		pid[i % AT_ONCE] = tt_fork();
		if (!pid[i % AT_ONCE]) {
			rng += 2ul * i;
			region.bump = (uint16_t)(i + 2);
			tt_region_work(&region, &rng, i % 200, 3);
			_exit(0);
		}
		tt_region_work(&region, &rng, 100, 3);
	}
	for (unsigned i = 0; i < AT_ONCE; i++)
		tt_wait(pid[i]);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void work_share(unsigned me)
{
	size_t share = region.nr_pages / NR_WORKERS;
	uint64_t rng = tt_rand_start(20 + me);

	region.bump = (uint16_t)(2 + me);
	for (size_t i = 0; i < share; i++) {
		size_t nr = me * share + (tt_rand(&rng) >> 16) % share;

		tt_region_check(&region, nr);
		if (i % 2)
			tt_region_write(&region, nr);
		/* And a look at what the others own in their own copy. */
		if (i % 8 == 0)
			tt_region_check(&region, (tt_rand(&rng) >> 16) %
							 region.nr_pages);
	}
	tt_region_verify(&region);
}

static void workers(void)
{
	pid_t pid[NR_WORKERS];

	setup(60);
	for (unsigned i = 0; i < NR_WORKERS; i++) {
		pid[i] = tt_fork();
		if (!pid[i]) {
			work_share(i);
			_exit(0);
		}
	}
	tt_region_verify_shuffled(&region);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		tt_wait(pid[i]);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

/* Status 0 travels up: each waits for the next. */
static void chain_link(unsigned depth)
{
	uint64_t rng = tt_rand_start(40 + depth);
	pid_t pid;

	tt_region_work(&region, &rng, region.nr_pages / 10, 2);
	if (depth < 12) {
		pid = tt_fork();
		if (!pid) {
			chain_link(depth + 1);
			_exit(0);
		}
		tt_region_verify_shuffled(&region);
		tt_wait(pid);
	}
	tt_region_verify(&region);
}

static void chain(void)
{
	setup(60);
	chain_link(0);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "readers", readers },
						{ "bomb", bomb },
						{ "workers", workers },
						{ "chain", chain },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
