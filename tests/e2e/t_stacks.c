/* SPDX-License-Identifier: MIT */
/*
 * Stacks as ordinary memory.
 *
 *   deep      recursion through 64 MiB of the first thread's stack
 *   thread    recursion through a thread's stack of that size
 *   contexts  many small stacks of ucontext, all evicted in turn
 *   jumps     longjmp over deep frames, again and again
 */
#include "torture.h"

#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>

enum {
	NR_CONTEXTS = 64,
	CONTEXT_STACK = 64 << 10
};

static uint64_t stack_id;

/* Each frame holds a known page, checked on the way up. */
static __attribute__((noinline)) void descend(size_t depth, size_t deepest)
{
	unsigned char frame[TT_PAGE];

	tt_fill(frame, stack_id, depth, 1);
	if (depth < deepest)
		descend(depth + 1, deepest);
	else
		tt_pressure();
	tt_check(frame, stack_id, depth, 1);
}

static void deep(void)
{
	struct rlimit limit;
	size_t pages = tt_pages(33);

	TT_SYS(getrlimit(RLIMIT_STACK, &limit));
	limit.rlim_cur = 2 * pages * TT_PAGE;
	if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < limit.rlim_cur)
		tt_skip("RLIMIT_STACK is too low");
	TT_SYS(setrlimit(RLIMIT_STACK, &limit));
	tt_pressure_init(60);
	for (unsigned i = 0; i < 3; i++) {
		stack_id = 10 + i;
		descend(0, pages / (i + 1));
		tt_pressure();
	}
}

static void *deep_thread(void *argument)
{
	size_t pages = *(size_t *)argument;

	for (unsigned i = 0; i < 3; i++) {
		stack_id = 20 + i;
		descend(0, pages / (i + 1));
	}
	return NULL;
}

static void thread(void)
{
	size_t pages = tt_pages(33);
	pthread_attr_t attr;
	pthread_t t;

	tt_pressure_init(60);
	TT_ZERO(pthread_attr_init(&attr));
	TT_ZERO(pthread_attr_setstacksize(&attr, 2 * pages * TT_PAGE));
	TT_ZERO(pthread_create(&t, &attr, deep_thread, &pages));
	tt_join(t);
	TT_ZERO(pthread_attr_destroy(&attr));
}

static ucontext_t scheduler, contexts[NR_CONTEXTS];
static unsigned nr_rounds_done[NR_CONTEXTS];

static void context_main(int me)
{
	unsigned char frame[4 * TT_PAGE];

	for (unsigned round = 0; round < 6; round++) {
		for (unsigned p = 0; p < 4; p++)
			tt_fill(frame + p * TT_PAGE, 30 + round,
				(uint64_t)me * 4 + p, 1);
		TT_SYS(swapcontext(&contexts[me], &scheduler));
		for (unsigned p = 0; p < 4; p++)
			tt_check(frame + p * TT_PAGE, 30 + round,
				 (uint64_t)me * 4 + p, 1);
		nr_rounds_done[me]++;
	}
}

static void contexts_case(void)
{
	unsigned char *stacks = tt_map((size_t)NR_CONTEXTS * CONTEXT_STACK);

	tt_pressure_init(80);
	for (int i = 0; i < NR_CONTEXTS; i++) {
		TT_SYS(getcontext(&contexts[i]));
		contexts[i].uc_stack.ss_sp = stacks + (size_t)i * CONTEXT_STACK;
		contexts[i].uc_stack.ss_size = CONTEXT_STACK;
		contexts[i].uc_link = &scheduler;
		nr_rounds_done[i] = 0;
		makecontext(&contexts[i], (void (*)(void))context_main, 1, i);
	}
	for (unsigned round = 0; round < 7; round++) {
		for (unsigned i = 0; i < NR_CONTEXTS; i++)
			TT_SYS(swapcontext(&scheduler, &contexts[i]));
		tt_pressure();
	}
	for (unsigned i = 0; i < NR_CONTEXTS; i++)
		TT_ASSERT(nr_rounds_done[i] == 6);
	TT_SYS(munmap(stacks, (size_t)NR_CONTEXTS * CONTEXT_STACK));
}

static jmp_buf landing;
/* Through a pointer, so that the compiler thinks that it may return. */
static void (*volatile jump)(jmp_buf, int) = longjmp;

static __attribute__((noinline)) void fall_and_jump(size_t depth, size_t end)
{
	unsigned char frame[TT_PAGE];

	tt_fill(frame, stack_id, depth, 1);
	if (depth < end)
		fall_and_jump(depth + 1, end);
	else
		jump(landing, 1);
	tt_check(frame, stack_id, depth, 1); /* keeps the frame alive */
}

static void jumps(void)
{
	volatile unsigned landed = 0;
	unsigned char anchor[TT_PAGE];

	tt_pressure_init(90);
	tt_fill(anchor, 40, 0, 1);
	for (volatile unsigned i = 0; i < 40; i++) {
		stack_id = 41 + i;
		if (setjmp(landing))
			landed++;
		else
			fall_and_jump(0, 100 + i * 20);
		if (i % 10 == 9)
			tt_pressure();
		tt_check(anchor, 40, 0, 1);
	}
	TT_ASSERT(landed == 40);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "deep", deep },
						{ "thread", thread },
						{ "contexts", contexts_case },
						{ "jumps", jumps },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
