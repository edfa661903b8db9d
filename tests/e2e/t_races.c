/* SPDX-License-Identifier: MIT */
/*
 * One thread drops, unmaps or moves pieces of memory while others fault in
 * neighbouring pieces of the same mapping.
 *
 *   neighbours  a wrecker works on odd pieces, workers on even ones
 *   readers     readers look at the very piece that is being dropped: each
 *               word is the old one or zero, and never anything else
 *   remap       pieces move away and back while their neighbours fault
 *   protect     pieces become unreadable and readable again
 *   forks       all of it while the program forks
 */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	PIECE = 16,
	NR_WORKERS = 3,
	WORDS = TT_PAGE / 8
};

enum wreck {
	DROP,
	UNMAP,
	OVER,
	MOVE,
	PROTECT,
	NR_WRECKS
};

static unsigned char *arena;
static size_t nr_pieces;
static struct tt_region *pieces;
static _Atomic bool stop;

static void setup(unsigned percent)
{
	nr_pieces = tt_pages(percent) / PIECE;
	arena = tt_map(nr_pieces * PIECE * TT_PAGE);
	pieces = calloc(nr_pieces, sizeof(*pieces));
	TT_ASSERT(pieces);
	for (size_t i = 0; i < nr_pieces; i++) {
		tt_region_over(&pieces[i], arena + i * PIECE * TT_PAGE, PIECE,
			       i);
		tt_region_fill(&pieces[i]);
	}
	atomic_store(&stop, false);
}

static void cleanup(void)
{
	for (size_t i = 0; i < nr_pieces; i++) {
		tt_region_verify(&pieces[i]);
		TT_SYS(munmap(pieces[i].version, PIECE * sizeof(uint16_t)));
	}
	TT_SYS(munmap(arena, nr_pieces * PIECE * TT_PAGE));
	free(pieces);
}

/* Workers own the even pieces, each every NR_WORKERS-th of them. */
static void *worker(void *argument)
{
	size_t me = (uintptr_t)argument;
	uint64_t rng = tt_rand_start(50 + me);
	size_t n = nr_pieces / 2 / NR_WORKERS;

	while (!atomic_load(&stop)) {
		size_t k = (tt_rand(&rng) >> 16) % n * NR_WORKERS + me;

		tt_region_work(&pieces[2 * k], &rng, 8, 3);
	}
	return NULL;
}

static void map_over(void *at, size_t bytes, int how)
{
	TT_ASSERT(mmap(at, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | how, -1, 0) == at);
}

static void move_away_and_back(void *at, size_t bytes)
{
	void *away = mmap(NULL, bytes, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	TT_SYS(away == MAP_FAILED ? -1 : 0);
	TT_ASSERT(mremap(at, bytes, bytes, flags, away) == away);
	TT_ASSERT(mremap(away, bytes, bytes, flags, at) == at);
}

static void wreck(struct tt_region *piece, enum wreck kind)
{
	size_t bytes = PIECE * TT_PAGE;

	switch (kind) {
	case DROP:
		TT_SYS(madvise(piece->base, bytes, MADV_DONTNEED));
		tt_region_dropped(piece, 0, PIECE);
		break;
	case UNMAP:
		TT_SYS(munmap(piece->base, bytes));
		map_over(piece->base, bytes, MAP_FIXED_NOREPLACE);
		tt_region_dropped(piece, 0, PIECE);
		break;
	case OVER:
		map_over(piece->base, bytes, MAP_FIXED);
		tt_region_dropped(piece, 0, PIECE);
		break;
	case MOVE:
		move_away_and_back(piece->base, bytes);
		break;
	default:
		TT_SYS(mprotect(piece->base, bytes, PROT_NONE));
		TT_SYS(mprotect(piece->base, bytes, PROT_READ | PROT_WRITE));
		break;
	}
}

/* Owns the odd pieces. */
static void wrecker(unsigned rounds, unsigned only)
{
	uint64_t rng = tt_rand_start(60);

	for (unsigned i = 0; i < rounds; i++) {
		size_t k = (tt_rand(&rng) >> 16) % (nr_pieces / 2);
		struct tt_region *piece = &pieces[2 * k + 1];

		tt_region_work(piece, &rng, 2, 0);
		wreck(piece, only < NR_WRECKS ? only : i % NR_WRECKS);
		if (i % 3 == 0)
			tt_region_verify(piece);
		for (size_t nr = i % 2; nr < PIECE; nr += 2)
			tt_region_write(piece, nr);
		if (i % 5 == 0)
			tt_region_verify(piece);
	}
}

static void with_workers(unsigned rounds, unsigned only)
{
	pthread_t thread[NR_WORKERS];

	setup(90);
	for (uintptr_t i = 0; i < NR_WORKERS; i++)
		thread[i] = tt_thread(worker, tt_argument(i));
	wrecker(rounds, only);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		tt_join(thread[i]);
	cleanup();
}

static void neighbours(void)
{
	with_workers((unsigned)tt_mib * 32, NR_WRECKS);
}

static void remap(void)
{
	with_workers((unsigned)tt_mib * 16, MOVE);
}

static void protect(void)
{
	with_workers((unsigned)tt_mib * 20, PROTECT);
}

/* Racing reads: the odd pieces hold constant words of version 1. */
static void *racing_reader(void *argument)
{
	uint64_t rng = tt_rand_start(70 + (uintptr_t)argument);
	uint64_t old[WORDS];

	while (!atomic_load(&stop)) {
		size_t k = (tt_rand(&rng) >> 16) % (nr_pieces / 2) * 2 + 1;
		size_t nr = (tt_rand(&rng) >> 16) % PIECE;
		volatile uint64_t *page =
			(volatile void *)(pieces[k].base + nr * TT_PAGE);

		tt_fill(old, pieces[k].id, nr, 1);
		for (unsigned i = 0; i < WORDS; i += 37) {
			uint64_t found = page[i];

			if (found)
				tt_same(&found, &old[i], 8, "racing read");
		}
	}
	return NULL;
}

static void readers(void)
{
	uint64_t rng = tt_rand_start(80);
	pthread_t thread[NR_WORKERS];

	setup(90);
	for (uintptr_t i = 0; i < NR_WORKERS; i++)
		thread[i] = tt_thread(racing_reader, tt_argument(i));
	for (unsigned i = 0; i < 4000; i++) {
		size_t k = (tt_rand(&rng) >> 16) % (nr_pieces / 2) * 2;
		struct tt_region *odd = &pieces[k + 1], *even = &pieces[k];
		unsigned kind = i % 3 == 0 ? DROP : i % 3 == 1 ? OVER : PROTECT;

		if (kind != PROTECT)
			wreck(odd, kind);
		for (size_t nr = 0; nr < PIECE; nr++) {
			tt_region_check(odd, nr);
			if (!odd->version[nr])
				tt_region_write(odd, nr); /* version 1 */
		}
		tt_region_work(even, &rng, 4, 2);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		tt_join(thread[i]);
	cleanup();
}

static void forks(void)
{
	pthread_t thread[NR_WORKERS];

	setup(60);
	for (uintptr_t i = 0; i < NR_WORKERS; i++)
		thread[i] = tt_thread(worker, tt_argument(i));
	for (unsigned round = 0; round < 12; round++) {
		pid_t pid = tt_fork();

		if (!pid) {
			/* Only the odd pieces are at rest. */
			for (size_t i = 1; i < nr_pieces; i += 2)
				tt_region_verify(&pieces[i]);
			wrecker(200, NR_WRECKS);
			for (size_t i = 1; i < nr_pieces; i += 2)
				tt_region_verify(&pieces[i]);
			_exit(0);
		}
		wrecker(200, NR_WRECKS);
		tt_wait(pid);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < NR_WORKERS; i++)
		tt_join(thread[i]);
	cleanup();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "neighbours", neighbours }, { "readers", readers },
		{ "remap", remap },	      { "protect", protect },
		{ "forks", forks },	      { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
