/* SPDX-License-Identifier: MIT */
/*
 * The torture programs' own test: each kind of wrong memory must be noticed.
 *
 *   wrong  children spoil a page in every way; each must exit with status 1
 *   mixed  contents differ by page, version, region and seed
 */
#include "torture.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum spoil {
	FLIP_BIT,
	ZERO,
	OLDER,
	OTHER_PAGE,
	NOT_DROPPED,
	NR_SPOILS
};

static void spoil(struct tt_region *r, enum spoil how)
{
	unsigned char *page = r->base + 5 * TT_PAGE;

	switch (how) {
	case FLIP_BIT:
		page[4095] ^= 1;
		break;
	case ZERO:
		memset(page, 0, TT_PAGE);
		break;
	case OLDER:
		tt_fill(page, r->id, 5, r->version[5] - 1u);
		break;
	case OTHER_PAGE:
		memcpy(page, page + TT_PAGE, TT_PAGE);
		break;
	default:
		tt_region_dropped(r, 5, 1);
		break;
	}
}

static void must_be_noticed(struct tt_region *r, enum spoil how)
{
	pid_t pid = tt_fork();
	int status;

	if (!pid) {
		/* What it says is expected, and would only alarm readers. */
		dup2((int)TT_SYS(open("/dev/null", O_WRONLY)), STDERR_FILENO);
		spoil(r, how);
		if (how % 2)
			tt_region_verify(r);
		else
			tt_region_verify_shuffled(r);
		_exit(0);
	}
	TT_SYS(waitpid(pid, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 1)
		tt_fail("spoiling number %d was not noticed", (int)how);
}

static void wrong(void)
{
	struct tt_region r;

	tt_region_map(&r, 64, 9);
	for (unsigned how = 0; how < NR_SPOILS; how++) {
		unsigned char zeros[TT_PAGE] = { 0 };

		/* Until page 5 and its neighbours are not all zeros. */
		do {
			tt_region_fill(&r);
			tt_fill(r.base, r.id, 5, r.version[5] - 1u);
		} while (!memcmp(r.base, zeros, TT_PAGE) ||
			 !memcmp(r.base + 5 * TT_PAGE, zeros, TT_PAGE));
		tt_fill(r.base, r.id, 0, r.version[0]);
		tt_region_verify(&r);
		must_be_noticed(&r, how);
	}
	tt_region_unmap(&r);
}

static void mixed(void)
{
	uint64_t a[TT_PAGE / 8], b[TT_PAGE / 8];
	unsigned same = 0;

	for (unsigned nr = 0; nr < 1000; nr++) {
		tt_fill(a, 1, nr, 1);
		tt_check(a, 1, nr, 1);
		tt_fill(b, 1, nr + 1, 1);
		same += !memcmp(a, b, TT_PAGE);
		tt_fill(b, 1, nr, 2);
		same += !memcmp(a, b, TT_PAGE);
		tt_fill(b, 2, nr, 1);
		same += !memcmp(a, b, TT_PAGE);
	}
	TT_ASSERT(same < 100); /* two zero pages are the same */
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "wrong", wrong },
						{ "mixed", mixed },
						{ NULL } };

	tt_main(argc, argv, 16, cases);
}
