/* SPDX-License-Identifier: MIT */
/*
 * mprotect() of evicted memory, and pages evicted under each protection.
 *
 *   none      PROT_NONE and back: content unchanged
 *   readonly  evicted and verified while read-only, then written
 *   exec      RX and RWX: code that was evicted still runs
 *   pieces    alternating protections of one mapping
 *   cycle     one page made read-only and writable between writes, as
 *             snapshotting runtimes do
 */
#include "torture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static struct tt_region region;

static void setup(unsigned percent)
{
	tt_region_begin(&region, tt_pages(percent));
}

static void protect_all(int protection)
{
	TT_SYS(mprotect(region.base, region.nr_pages * TT_PAGE, protection));
}

static void none(void)
{
	uint64_t rng = tt_rand_start(1);

	setup(30);
	for (unsigned i = 0; i < 4; i++) {
		protect_all(PROT_NONE);
		tt_pressure();
		protect_all(i % 2 ? PROT_READ : PROT_READ | PROT_WRITE);
		tt_region_verify_shuffled(&region);
		protect_all(PROT_READ | PROT_WRITE);
		tt_region_work(&region, &rng, region.nr_pages, 2);
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void readonly(void)
{
	uint64_t rng = tt_rand_start(2);

	setup(30);
	for (unsigned i = 0; i < 3; i++) {
		protect_all(PROT_READ);
		tt_region_verify_shuffled(&region);
		tt_pressure();
		tt_region_verify(&region);
		protect_all(PROT_READ | PROT_WRITE);
		tt_region_work(&region, &rng, region.nr_pages, 2);
		tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

enum {
	CODE_BYTES = 11
};

/* mov rax, imm64; ret: returns the page's own number. */
static void write_code(unsigned char *at, uint64_t number)
{
	at[0] = 0x48;
	at[1] = 0xb8;
	memcpy(at + 2, &number, 8);
	at[10] = 0xc3;
}

static void check_code(size_t nr)
{
	unsigned char *at = region.base + nr * TT_PAGE;
	unsigned char made[TT_PAGE];
	uint64_t (*code)(void);
	uint64_t got, want = nr * 3 + 1;

	memcpy(&code, &at, sizeof(code));
	got = code();
	tt_same(&got, &want, 8, "result of evicted code");
	tt_fill(made, region.id, nr, region.version[nr]);
	write_code(made, want);
	tt_same(at, made, TT_PAGE, "page of code");
}

static void exec_pages(void)
{
	static const int after[] = { PROT_READ | PROT_EXEC,
				     PROT_READ | PROT_WRITE | PROT_EXEC };

	for (unsigned i = 0; i < TT_ARRAY(after); i++) {
		setup(20);
		protect_all(PROT_READ | PROT_WRITE | (i ? PROT_EXEC : 0));
		for (size_t nr = 0; nr < region.nr_pages; nr++)
			write_code(region.base + nr * TT_PAGE, nr * 3 + 1);
		protect_all(after[i]);
		for (unsigned round = 0; round < 3; round++) {
			tt_pressure();
			for (size_t nr = 0; nr < region.nr_pages; nr++)
				check_code((nr * 7 + round) % region.nr_pages);
		}
		tt_region_unmap(&region);
	}
}

static void pieces(void)
{
	static const int kinds[] = { PROT_READ | PROT_WRITE, PROT_READ,
				     PROT_NONE, PROT_READ | PROT_EXEC };
	enum {
		PIECE = 8
	};

	setup(20);
	for (unsigned i = 0; i < 6; i++) {
		for (size_t nr = 0; nr + PIECE <= region.nr_pages; nr += PIECE)
			TT_SYS(mprotect(region.base + nr * TT_PAGE,
					PIECE * TT_PAGE,
					kinds[(nr / PIECE + i) % 4]));
		tt_pressure();
		for (size_t nr = 0; nr < region.nr_pages; nr++)
			if (kinds[(nr / PIECE + i) % 4] & PROT_READ)
				tt_region_check(&region, nr);
		for (size_t nr = 0; nr + PIECE <= region.nr_pages; nr += 3)
			if (kinds[(nr / PIECE + i) % 4] & PROT_WRITE)
				tt_region_write(&region, nr);
	}
	protect_all(PROT_READ | PROT_WRITE);
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

static void cycle(void)
{
	uint64_t rng = tt_rand_start(5);

	setup(30);
	for (unsigned i = 0; i < 8000; i++) {
		size_t nr = (tt_rand(&rng) >> 16) % region.nr_pages;
		void *page = region.base + nr * TT_PAGE;

		TT_SYS(mprotect(page, TT_PAGE, PROT_READ));
		tt_region_check(&region, nr);
		TT_SYS(mprotect(page, TT_PAGE, PROT_READ | PROT_WRITE));
		tt_region_write(&region, nr);
		if (i % 2000 == 1999)
			tt_pressure();
	}
	tt_region_verify(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "none", none },	{ "readonly", readonly },
		{ "exec", exec_pages }, { "pieces", pieces },
		{ "cycle", cycle },	{ NULL }
	};

	tt_main(argc, argv, 192, cases);
}
