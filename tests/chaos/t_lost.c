/* SPDX-License-Identifier: MIT */
/*
 * Pages that can't be read back: whoever touches one gets SIGBUS, a system
 * call EFAULT, and nobody ever zeros or anything else that was not written.
 * Run under the pager of this folder with damage or failing reads of the swap
 * file (base/chaos.h): some pages are lost, and the rest is right.
 *
 *   touch      reads in order (read-ahead) and out of order
 *   calls      write(2) from such pages, read(2) into them
 *   fork       the child's copy, of pages lost before and after the fork
 *   raw        a child that can't be paged
 *   leaveout   pages that are to be fetched: madvise(MADV_WIPEONFORK)
 *   move       a lost page is lost where mremap(2) has moved it, and new memory
 *              in place of one is zeros
 *
 * Prints the address of each page that it found lost.
 */
#include "torture.h"

#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	AROUND = 64
};

static unsigned char *pages;
static size_t nr_pages;
static bool *is_lost;
static sigjmp_buf back;
static unsigned nr_lost;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	(void)context;
	siglongjmp(back, 1);
}

static void make(void *page, size_t nr)
{
	uint64_t rng = tt_rand_start(nr), *word = page;

	for (size_t i = 0; i < TT_PAGE / sizeof(*word); i++)
		word[i] = tt_rand(&rng);
}

static void check(const void *page, size_t nr)
{
	uint64_t expected[TT_PAGE / sizeof(uint64_t)];

	make(expected, nr);
	tt_same(page, expected, TT_PAGE, "a page that is not lost");
}

static bool touch(const unsigned char *at)
{
	if (sigsetjmp(back, 1))
		return false;
	(void)*(const volatile unsigned char *)at;
	return true;
}

static void note_lost(size_t nr, const void *at)
{
	if (is_lost[nr])
		return;
	is_lost[nr] = true;
	nr_lost++;
	printf("lost 0x%lx\n", (unsigned long)(uintptr_t)at);
	fflush(stdout);
}

/* Once lost, a page stays lost. */
static void look_at(size_t nr)
{
	unsigned char *at = pages + nr * TT_PAGE;

	if (touch(at)) {
		TT_ASSERT(!is_lost[nr]);
		check(at, nr);
	} else {
		note_lost(nr, at);
	}
}

static void look_at_all(void)
{
	for (size_t nr = 0; nr < nr_pages; nr++)
		look_at(nr);
}

/*
 * What the program itself lives in is not to be lost: locked, it stays.  A
 * child does not inherit that.
 */
static void lock_own(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512];

	TT_ASSERT(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx rw", &start, &end) == 2 &&
		    strstr(line, " rw") &&
		    (strstr(line, "t_lost") || strstr(line, "[heap]") ||
		     strstr(line, "[stack]") || strstr(line, "libc")))
			syscall(SYS_mlock, start, end - start);
	fclose(maps);
}

static void set_up(void)
{
	struct sigaction act = { .sa_flags = SA_SIGINFO };

	act.sa_sigaction = on_sigbus;
	TT_SYS(sigaction(SIGBUS, &act, NULL));
	nr_pages = tt_pages(100);
	is_lost = calloc(nr_pages, sizeof(*is_lost));
	TT_ASSERT(is_lost);
	lock_own();
	pages = tt_map(nr_pages * TT_PAGE);
	for (size_t nr = 0; nr < nr_pages; nr++)
		make(pages + nr * TT_PAGE, nr);
}

static void must_have_lost(void)
{
	if (!nr_lost)
		tt_fail("no page was lost: proves nothing");
}

static void touch_them(void)
{
	uint64_t rng = tt_rand_start(1);

	set_up();
	look_at_all();
	for (size_t i = 0; i < nr_pages; i++)
		look_at((tt_rand(&rng) >> 16) % nr_pages);
	look_at_all();
	must_have_lost();
}

static void calls(void)
{
	unsigned char buffer[TT_PAGE];
	int fds[2];

	set_up();
	TT_SYS(pipe(fds));
	for (size_t nr = 0; nr < nr_pages; nr++) {
		unsigned char *at = pages + nr * TT_PAGE;
		ssize_t n = write(fds[1], at, TT_PAGE);

		if (n > 0) {
			TT_ASSERT(n == (ssize_t)TT_PAGE);
			tt_read_all(fds[0], buffer, TT_PAGE);
			check(buffer, nr);
			continue;
		}
		TT_ASSERT(n == -1 && errno == EFAULT);
		note_lost(nr, at);
		TT_ASSERT(!touch(at));
		tt_write_all(fds[1], buffer, 8);
		n = read(fds[0], at, 8);
		TT_ASSERT(n == -1 && errno == EFAULT);
		/* What a pipe could not hand over stays in it. */
		tt_read_all(fds[0], buffer, 8);
	}
	must_have_lost();
}

static void in_child(bool is_raw)
{
	pid_t pid = is_raw ? (pid_t)TT_SYS(syscall(SYS_fork)) : tt_fork();

	if (!pid) {
		lock_own();
		look_at_all();
		_exit(0);
	}
	tt_wait(pid);
}

static void forks(void)
{
	set_up();
	in_child(false);
	for (size_t nr = 0; nr < nr_pages / 2; nr++)
		look_at(nr);
	in_child(false);
	look_at_all();
	must_have_lost();
}

static void raw(void)
{
	set_up();
	in_child(true);
	look_at_all();
	must_have_lost();
}

static void leave_out(void)
{
	set_up();
	for (size_t nr = 0; nr < nr_pages / 2; nr += AROUND)
		TT_SYS(madvise(pages + nr * TT_PAGE, AROUND / 2 * TT_PAGE,
			       MADV_WIPEONFORK));
	look_at_all();
	must_have_lost();
}

/* A page that is lost, or nr_pages. */
static size_t next_lost(size_t nr)
{
	while (nr < nr_pages && !is_lost[nr])
		nr++;
	return nr;
}

static void move(void)
{
	unsigned char *away;
	size_t nr;

	set_up();
	away = tt_map(nr_pages * TT_PAGE);
	look_at_all();
	must_have_lost();
	for (nr = next_lost(0); nr < nr_pages; nr = next_lost(nr + 1)) {
		unsigned char *at = pages + nr * TT_PAGE;
		unsigned char *to = away + nr * TT_PAGE;

		if (nr % 2) {
			TT_SYS(madvise(at, TT_PAGE, MADV_DONTNEED));
			tt_check_zero(at, TT_PAGE, "a page that was dropped");
			continue;
		}
		TT_ASSERT(mremap(at, TT_PAGE, TT_PAGE,
				 MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
		TT_ASSERT(!touch(to));
	}
}

static const struct tt_case cases[] = { { "touch", touch_them, true },
					{ "calls", calls, true },
					{ "fork", forks, true },
					{ "raw", raw, true },
					{ "leaveout", leave_out, true },
					{ "move", move, true },
					{ NULL, NULL, false } };

int main(int argc, char **argv)
{
	tt_main(argc, argv, 32, cases);
}
