/* SPDX-License-Identifier: MIT */
/*
 * Processes that work through pipes with buffers in evicted memory.
 *
 *   pair      parent and child send all they have to each other and back
 *   pipeline  three stages: make, transform, verify
 *   threads   many threads write to one pipe while they fault: the pipe's
 *             lock is held by whoever faults
 */
#include "torture.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	NR_WRITERS = 4,
	CHUNK = 16
};

static struct tt_region region;

static void setup(void)
{
	tt_region_begin(&region, tt_pages(15) / CHUNK * CHUNK);
}

static void check_copy(const unsigned char *copy)
{
	for (size_t nr = 0; nr < region.nr_pages; nr++)
		tt_check(copy + nr * TT_PAGE, region.id, nr,
			 region.version[nr]);
}

/* Receives the region into memory of its own, and sends it back. */
static void echo(int in, int out)
{
	unsigned char *copy = tt_map(region.nr_pages * TT_PAGE);

	memset(copy, 0x33, region.nr_pages * TT_PAGE);
	tt_pressure();
	tt_read_all(in, copy, region.nr_pages * TT_PAGE);
	tt_pressure();
	check_copy(copy);
	tt_write_all(out, copy, region.nr_pages * TT_PAGE);
	_exit(0);
}

static void pair(void)
{
	unsigned char *copy;
	int there[2], back[2];
	pid_t pid;

	setup();
	copy = tt_map(region.nr_pages * TT_PAGE);
	memset(copy, 0x44, region.nr_pages * TT_PAGE);
	TT_SYS(pipe(there));
	TT_SYS(pipe(back));
	pid = tt_fork();
	if (!pid)
		echo(there[0], back[1]);
	tt_write_all(there[1], region.base, region.nr_pages * TT_PAGE);
	tt_pressure();
	tt_read_all(back[0], copy, region.nr_pages * TT_PAGE);
	check_copy(copy);
	tt_wait(pid);
	tt_region_verify(&region);
	for (unsigned i = 0; i < 2; i++) {
		close(there[i]);
		close(back[i]);
	}
	TT_SYS(munmap(copy, region.nr_pages * TT_PAGE));
	tt_region_unmap(&region);
}

/* Every byte inverted, chunk by chunk, through evicted memory. */
static void transform(int in, int out)
{
	unsigned char *all = tt_map(region.nr_pages * TT_PAGE);

	for (size_t nr = 0; nr < region.nr_pages; nr += CHUNK) {
		unsigned char *at = all + nr * TT_PAGE;

		tt_read_all(in, at, CHUNK * TT_PAGE);
		for (size_t i = 0; i < CHUNK * TT_PAGE; i++)
			at[i] = (unsigned char)~at[i];
	}
	tt_pressure();
	for (size_t nr = 0; nr < region.nr_pages; nr += CHUNK)
		tt_write_all(out, all + nr * TT_PAGE, CHUNK * TT_PAGE);
	_exit(0);
}

static void verify_inverted(int in)
{
	unsigned char *all = tt_map(region.nr_pages * TT_PAGE);

	tt_read_all(in, all, region.nr_pages * TT_PAGE);
	tt_pressure();
	for (size_t i = 0; i < region.nr_pages * TT_PAGE; i++)
		all[i] = (unsigned char)~all[i];
	check_copy(all);
	_exit(0);
}

static void pipeline(void)
{
	int first[2], second[2];
	pid_t middle, last;

	setup();
	TT_SYS(pipe(first));
	TT_SYS(pipe(second));
	middle = tt_fork();
	if (!middle)
		transform(first[0], second[1]);
	last = tt_fork();
	if (!last)
		verify_inverted(second[0]);
	tt_write_all(first[1], region.base, region.nr_pages * TT_PAGE);
	tt_region_verify_shuffled(&region);
	tt_wait(middle);
	tt_wait(last);
	for (unsigned i = 0; i < 2; i++) {
		close(first[i]);
		close(second[i]);
	}
	tt_region_unmap(&region);
}

static int shared_pipe[2];

/* A message of at most PIPE_BUF is never torn: page number, then its bytes. */
static void *pipe_writer(void *argument)
{
	for (size_t nr = (uintptr_t)argument; nr < region.nr_pages;
	     nr += NR_WRITERS) {
		unsigned char *at = region.base + nr * TT_PAGE;

		memcpy(at, &nr, sizeof(nr));
		TT_ASSERT(write(shared_pipe[1], at, PIPE_BUF) == PIPE_BUF);
	}
	return NULL;
}

static void threads(void)
{
	unsigned char message[TT_PAGE], expected[TT_PAGE];
	pthread_t thread[NR_WRITERS];
	size_t number;

	_Static_assert(PIPE_BUF == TT_PAGE, "a page is one message");
	setup();
	TT_SYS(pipe(shared_pipe));
	for (uintptr_t i = 0; i < NR_WRITERS; i++)
		thread[i] = tt_thread(pipe_writer, tt_argument(i));
	for (size_t nr = 0; nr < region.nr_pages; nr++) {
		tt_read_all(shared_pipe[0], message, TT_PAGE);
		memcpy(&number, message, sizeof(number));
		TT_ASSERT(number < region.nr_pages);
		tt_fill(expected, region.id, number, region.version[number]);
		memcpy(expected, &number, sizeof(number));
		tt_same(message, expected, TT_PAGE, "message of a thread");
		if (nr % 2048 == 1000)
			tt_pressure();
	}
	for (unsigned i = 0; i < NR_WRITERS; i++)
		tt_join(thread[i]);
	close(shared_pipe[0]);
	close(shared_pipe[1]);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "pair", pair },
						{ "pipeline", pipeline },
						{ "threads", threads },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
