/* SPDX-License-Identifier: MIT */
/*
 * Reserves of address space far beyond any memory, as runtimes make them.
 *
 *   commit   64 GiB PROT_NONE, scattered pieces committed by mprotect and
 *            given back by mprotect + madvise or by mapping over
 *   mapped   the same, committed by mapping over
 *   sparse   64 GiB writable without reserve, touched here and there
 */
#include "torture.h"

#include <stdlib.h>
#include <sys/mman.h>

enum {
	PIECE = 32
};
static const size_t reserve_bytes = (size_t)64 << 30;

static unsigned char *reserve;

static void make_reserve(int protection)
{
	reserve = mmap(NULL, reserve_bytes, protection,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	TT_SYS(reserve == MAP_FAILED ? -1 : 0);
}

static void decommit(unsigned char *at, bool map_over)
{
	size_t bytes = PIECE * TT_PAGE;

	if (map_over) {
		TT_ASSERT(mmap(at, bytes, PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
				       MAP_FIXED,
			       -1, 0) == at);
		return;
	}
	TT_SYS(madvise(at, bytes, MADV_DONTNEED));
	TT_SYS(mprotect(at, bytes, PROT_NONE));
}

static void commit_by(bool map_over)
{
	size_t nr = tt_pages(90) / PIECE;
	struct tt_region *piece = calloc(nr, sizeof(*piece));
	uint64_t rng = tt_rand_start(1);

	TT_ASSERT(piece);
	make_reserve(PROT_NONE);
	for (size_t i = 0; i < nr * 3; i++) {
		/* Pieces are spread evenly, and each moves within its part. */
		size_t k = (tt_rand(&rng) >> 16) % nr, part, offset;
		struct tt_region *p = &piece[k];

		if (p->base) {
			tt_region_verify_shuffled(p);
			if (i % 2) {
				tt_region_work(p, &rng, PIECE, 2);
				continue;
			}
			decommit(p->base, i % 4);
			TT_SYS(munmap(p->version, PIECE * sizeof(*p->version)));
		}
		part = reserve_bytes / nr / TT_PAGE;
		offset = k * part + (tt_rand(&rng) >> 16) % 2 * PIECE;
		tt_region_over(p, reserve + offset * TT_PAGE, PIECE, i);
		if (map_over)
			TT_ASSERT(mmap(p->base, PIECE * TT_PAGE,
				       PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
				       -1, 0) == p->base);
		else
			TT_SYS(mprotect(p->base, PIECE * TT_PAGE,
					PROT_READ | PROT_WRITE));
		tt_region_verify(p); /* reads zero */
		tt_region_fill(p);
	}
	for (size_t k = 0; k < nr; k++)
		if (piece[k].base)
			tt_region_verify(&piece[k]);
	TT_SYS(munmap(reserve, reserve_bytes));
	free(piece);
}

static void commit(void)
{
	commit_by(false);
}

static void mapped(void)
{
	commit_by(true);
}

static void sparse(void)
{
	size_t nr = tt_pages(85);
	size_t stride = reserve_bytes / nr / TT_PAGE * TT_PAGE;

	make_reserve(PROT_READ | PROT_WRITE);
	for (size_t i = 0; i < nr; i++)
		tt_fill(reserve + i * stride, 7, i, 1);
	for (unsigned round = 0; round < 2; round++) {
		for (size_t i = 0; i < nr; i++) {
			size_t k = i * 7919 % nr;

			tt_check(reserve + k * stride, 7, k, 1);
			if (i % 64 == 0) /* the neighbour was never touched */
				tt_check_zero(reserve + k * stride + TT_PAGE,
					      TT_PAGE, "never touched");
		}
	}
	TT_SYS(munmap(reserve, reserve_bytes));
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "commit", commit },
						{ "mapped", mapped },
						{ "sparse", sparse },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
