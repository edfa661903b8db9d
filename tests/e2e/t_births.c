/* SPDX-License-Identifier: MIT */
/*
 * Forks while other threads map, unmap and move memory, and each takes
 * addresses that another has just left: what a child inherits is what was there
 * when it was made, never zeros instead of it, nor what was there before.
 *
 * A block is FRESH (mapped, not touched: zeros), LIVE (filled, and not written
 * to until it is unmapped) or BUSY.  The states that a child finds are not
 * older than what they speak of: a page that fork has copied can't be written
 * to before the fork is over, nor can memory be unmapped in between.
 *
 *   churn   whole blocks, unmapped and mapped
 *   pieces  ends of blocks, too, which leave the rest where it is
 *   moves   blocks that grow and move
 *   alone   the same, and nobody forks
 */
#include "torture.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	THREADS = 3,
	BLOCKS = 24,
	FORKS = 24
};

enum state {
	NONE = 0,
	BUSY,
	FRESH,
	LIVE
};

struct block {
	_Atomic uint32_t state;
	uint32_t nr_pages;
	uint32_t nr_filled; /* the first ones; the others are zeros */
	char *base;
	uint64_t id;
};

static struct block blocks[THREADS][BLOCKS];
static _Atomic uint64_t ids;
static _Atomic uint32_t stop;
static size_t most_pages;
static bool in_pieces, in_moves, alone;

static void verify(struct block *b)
{
	uint32_t nr, state = atomic_load(&b->state);

	if (state < FRESH)
		return;
	for (nr = 0; nr < b->nr_filled; nr++)
		tt_check(b->base + nr * TT_PAGE, b->id, nr, 1);
	tt_check_zero(b->base + nr * TT_PAGE, (b->nr_pages - nr) * TT_PAGE,
		      "a part that nobody wrote to");
}

static void map_block(struct block *b, uint64_t *rng)
{
	b->nr_pages = (uint32_t)(1 + tt_rand(rng) % most_pages);
	b->nr_filled = 0;
	b->id = atomic_fetch_add(&ids, 1);
	b->base = tt_map(b->nr_pages * TT_PAGE);
	atomic_store(&b->state, FRESH);
}

static void fill_block(struct block *b)
{
	atomic_store(&b->state, BUSY);
	for (; b->nr_filled < b->nr_pages; b->nr_filled++)
		tt_fill(b->base + b->nr_filled * TT_PAGE, b->id, b->nr_filled,
			1);
	atomic_store(&b->state, LIVE);
}

/* All of it, or its end. */
static void unmap_block(struct block *b, uint64_t *rng)
{
	uint32_t keep = 0;

	verify(b);
	atomic_store(&b->state, BUSY);
	if (in_pieces && b->nr_pages > 1 && tt_rand(rng) % 4)
		keep = b->nr_pages / 2;
	TT_SYS(munmap(b->base + keep * TT_PAGE,
		      (b->nr_pages - keep) * TT_PAGE));
	b->nr_pages = keep;
	if (b->nr_filled > keep)
		b->nr_filled = keep;
	atomic_store(&b->state, keep ? LIVE : NONE);
}

static void move_block(struct block *b)
{
	uint32_t more = b->nr_pages + 1 + b->nr_pages / 4;
	char *to;

	atomic_store(&b->state, BUSY);
	to = mremap(b->base, b->nr_pages * TT_PAGE, more * TT_PAGE,
		    MREMAP_MAYMOVE);
	if (to != MAP_FAILED) {
		b->base = to;
		b->nr_pages = more;
	} else if (errno != EFAULT) {
		tt_fail("mremap: errno %d", errno);
	}
	atomic_store(&b->state, LIVE);
}

static void *churn_blocks(void *argument)
{
	size_t me = (size_t)(uintptr_t)argument;
	uint64_t rng = tt_rand_start(me);

	while (!atomic_load(&stop)) {
		struct block *b = &blocks[me][tt_rand(&rng) % BLOCKS];
		uint32_t state = atomic_load(&b->state);

		if (state == NONE)
			map_block(b, &rng);
		else if (state == FRESH)
			fill_block(b);
		else if (in_moves && tt_rand(&rng) % 2 &&
			 b->nr_pages < 2 * most_pages)
			move_block(b);
		else
			unmap_block(b, &rng);
	}
	return NULL;
}

static void verify_all(void)
{
	for (size_t i = 0; i < THREADS; i++)
		for (size_t k = 0; k < BLOCKS; k++)
			verify(&blocks[i][k]);
}

static void run(void)
{
	pthread_t thread[THREADS];

	/* Half of them are there at a time, half as large as they may be. */
	most_pages = tt_pages(100) / ((size_t)THREADS * BLOCKS) * 2;
	for (size_t i = 0; i < THREADS; i++)
		thread[i] = tt_thread(churn_blocks, tt_argument(i));
	for (unsigned round = 0; round < FORKS; round++) {
		pid_t pid;

		if (alone) {
			usleep(100000);
			continue;
		}
		pid = tt_fork();
		if (!pid) {
			verify_all();
			_exit(0);
		}
		tt_wait(pid);
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < THREADS; i++)
		tt_join(thread[i]);
	verify_all();
}

static void pieces(void)
{
	in_pieces = true;
	run();
}

static void moves(void)
{
	in_moves = true;
	run();
}

static void moves_alone(void)
{
	alone = true;
	moves();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "alone", moves_alone },
						{ "churn", run },
						{ "pieces", pieces },
						{ "moves", moves },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
