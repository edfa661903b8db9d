/* SPDX-License-Identifier: MIT */
/*
 * Thread exit and join while everything else is evicted: the kernel writes
 * to thread descriptors and walks robust lists where no fault is served.
 *
 *   cached   hundreds of threads on stacks that the C library caches
 *   owned    threads on stacks of the program's own, from malloc
 *   c11      thrd_create and thrd_join
 *   robust   owners of robust mutexes die; the mutexes tell
 *   detached threads that nobody joins
 *   cancel   cancelled threads run their cleanup handlers
 *   keys     destructors of thread-specific data
 */
#include "torture.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <threads.h>
#include <unistd.h>

enum {
	ROUNDS = 4,
	AT_ONCE = 48,
	STACK = 128 << 10
};

static sem_t arrived, leave, gone;
static pthread_key_t key;

static void start_round(void)
{
	tt_pressure_init(80);
	TT_SYS(sem_init(&arrived, 0, 0));
	TT_SYS(sem_init(&leave, 0, 0));
	TT_SYS(sem_init(&gone, 0, 0));
}

static void wait_all(sem_t *sem, unsigned count)
{
	while (count--)
		while (sem_wait(sem))
			TT_ASSERT(errno == EINTR);
}

static void post_all(sem_t *sem, unsigned count)
{
	while (count--)
		TT_SYS(sem_post(sem));
}

/* Has a frame of its own to verify after everything was evicted. */
static void live_through_eviction(uint64_t me)
{
	unsigned char frame[2 * TT_PAGE];

	tt_fill(frame, 500, me, 1);
	tt_fill(frame + TT_PAGE, 501, me, 1);
	TT_SYS(sem_post(&arrived));
	wait_all(&leave, 1);
	tt_check(frame, 500, me, 1);
	tt_check(frame + TT_PAGE, 501, me, 1);
}

static void *plain_thread(void *argument)
{
	live_through_eviction((uintptr_t)argument);
	return argument;
}

static void cached(void)
{
	pthread_t thread[AT_ONCE];

	for (unsigned round = 0; round < ROUNDS; round++) {
		start_round();
		for (uintptr_t i = 0; i < AT_ONCE; i++)
			thread[i] = tt_thread(plain_thread, tt_argument(i));
		wait_all(&arrived, AT_ONCE);
		tt_pressure();
		post_all(&leave, AT_ONCE);
		for (uintptr_t i = 0; i < AT_ONCE; i++) {
			void *result;

			TT_ZERO(pthread_join(thread[i], &result));
			TT_ASSERT((uintptr_t)result == i);
		}
		tt_pressure(); /* with nothing but cached stacks */
	}
}

static void owned(void)
{
	unsigned char *stack[AT_ONCE];
	pthread_t thread[AT_ONCE];
	pthread_attr_t attr;

	for (unsigned i = 0; i < AT_ONCE; i++)
		TT_ASSERT(!posix_memalign((void **)&stack[i], 64, STACK));
	for (unsigned round = 0; round < ROUNDS; round++) {
		start_round();
		for (uintptr_t i = 0; i < AT_ONCE; i++) {
			TT_ZERO(pthread_attr_init(&attr));
			TT_ZERO(pthread_attr_setstack(&attr, stack[i], STACK));
			TT_ZERO(pthread_create(&thread[i], &attr, plain_thread,
					       tt_argument(i)));
			TT_ZERO(pthread_attr_destroy(&attr));
		}
		wait_all(&arrived, AT_ONCE);
		tt_pressure();
		post_all(&leave, AT_ONCE);
		if (round % 2) /* they exit while all else is pushed out */
			tt_pressure();
		for (unsigned i = 0; i < AT_ONCE; i++)
			tt_join(thread[i]);
		/* Now the stacks are the program's memory again. */
		for (unsigned i = 0; i < AT_ONCE; i++)
			memset(stack[i], (int)i + 1, STACK);
		tt_pressure();
		for (unsigned i = 0; i < AT_ONCE; i++)
			for (unsigned p = 0; p + TT_PAGE <= STACK; p += TT_PAGE)
				TT_ASSERT(stack[i][p] == i + 1 &&
					  !memcmp(stack[i] + p,
						  stack[i] + p + 1,
						  TT_PAGE - 1));
	}
	for (unsigned i = 0; i < AT_ONCE; i++)
		free(stack[i]);
}

static int c11_thread(void *argument)
{
	live_through_eviction((uintptr_t)argument);
	return (int)(uintptr_t)argument;
}

static void c11(void)
{
	thrd_t thread[AT_ONCE];
	int result;

	for (unsigned round = 0; round < ROUNDS; round++) {
		start_round();
		for (uintptr_t i = 0; i < AT_ONCE; i++)
			TT_ASSERT(thrd_create(&thread[i], c11_thread,
					      tt_argument(i)) == thrd_success);
		wait_all(&arrived, AT_ONCE);
		tt_pressure();
		post_all(&leave, AT_ONCE);
		for (unsigned i = 0; i < AT_ONCE; i++) {
			TT_ASSERT(thrd_join(thread[i], &result) ==
				  thrd_success);
			TT_ASSERT(result == (int)i);
		}
	}
}

/* Mutexes a page apart, so that each is evicted by itself. */
static pthread_mutex_t *robust_mutex(void *pages, size_t i)
{
	return (void *)((unsigned char *)pages + i * TT_PAGE + 128);
}

static void *robust_pages;

static void *dying_owner(void *argument)
{
	uintptr_t me = (uintptr_t)argument;

	TT_ZERO(pthread_mutex_lock(robust_mutex(robust_pages, me)));
	TT_ZERO(pthread_mutex_lock(robust_mutex(robust_pages, me + AT_ONCE)));
	live_through_eviction(me);
	return NULL; /* holding both */
}

static void *waiting_heir(void *argument)
{
	pthread_mutex_t *mutex =
		robust_mutex(robust_pages, (uintptr_t)argument);

	TT_ASSERT(pthread_mutex_lock(mutex) == EOWNERDEAD);
	TT_ZERO(pthread_mutex_consistent(mutex));
	TT_ZERO(pthread_mutex_unlock(mutex));
	return NULL;
}

static void robust_round(pthread_mutexattr_t *attr)
{
	pthread_t thread[AT_ONCE], heir[AT_ONCE];

	for (unsigned i = 0; i < 2 * AT_ONCE; i++)
		TT_ZERO(pthread_mutex_init(robust_mutex(robust_pages, i),
					   attr));
	for (uintptr_t i = 0; i < AT_ONCE; i++)
		thread[i] = tt_thread(dying_owner, tt_argument(i));
	wait_all(&arrived, AT_ONCE);
	for (uintptr_t i = 0; i < AT_ONCE; i++)
		heir[i] = tt_thread(waiting_heir, tt_argument(i));
	tt_pressure();
	post_all(&leave, AT_ONCE);
	for (unsigned i = 0; i < AT_ONCE; i++) {
		tt_join(heir[i]);
		tt_join(thread[i]);
	}
	tt_pressure();
	for (unsigned i = AT_ONCE; i < 2 * AT_ONCE; i++)
		TT_ASSERT(pthread_mutex_lock(robust_mutex(robust_pages, i)) ==
			  EOWNERDEAD);
}

static void robust(void)
{
	pthread_mutexattr_t attr;

	TT_ZERO(pthread_mutexattr_init(&attr));
	TT_ZERO(pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST));
	TT_ZERO(pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED));
	for (unsigned round = 0; round < ROUNDS; round++) {
		start_round();
		/* Not unmapped: the list of this thread points into it. */
		robust_pages = tt_map(2 * TT_PAGE * AT_ONCE);
		robust_round(&attr);
	}
}

static void *detached_thread(void *argument)
{
	live_through_eviction((uintptr_t)argument);
	TT_SYS(sem_post(&gone));
	return NULL;
}

static void detached(void)
{
	for (unsigned round = 0; round < ROUNDS; round++) {
		start_round();
		for (uintptr_t i = 0; i < AT_ONCE; i++)
			TT_ZERO(pthread_detach(
				tt_thread(detached_thread, tt_argument(i))));
		wait_all(&arrived, AT_ONCE);
		tt_pressure();
		post_all(&leave, AT_ONCE);
		wait_all(&gone, AT_ONCE);
	}
	tt_pressure();
}

static void posted(void *argument)
{
	(void)argument;
	TT_SYS(sem_post(&gone));
}

static void *cancelled_thread(void *argument)
{
	struct tt_region mine;

	tt_region_map(&mine, 8, 600 + (uintptr_t)argument);
	tt_region_fill(&mine);
	pthread_cleanup_push(posted, NULL);
	TT_SYS(sem_post(&arrived));
	for (;;)
		pause();
	pthread_cleanup_pop(1);
	return NULL;
}

static void cancel(void)
{
	pthread_t thread[AT_ONCE];

	start_round();
	for (uintptr_t i = 0; i < AT_ONCE; i++)
		thread[i] = tt_thread(cancelled_thread, tt_argument(i));
	wait_all(&arrived, AT_ONCE);
	tt_pressure();
	for (unsigned i = 0; i < AT_ONCE; i++)
		TT_ZERO(pthread_cancel(thread[i]));
	wait_all(&gone, AT_ONCE);
	for (unsigned i = 0; i < AT_ONCE; i++) {
		void *result;

		TT_ZERO(pthread_join(thread[i], &result));
		TT_ASSERT(result == PTHREAD_CANCELED);
	}
}

static void check_and_free(void *value)
{
	unsigned char *page = value;

	tt_check(page, 700, page[TT_PAGE], 1);
	free(page);
	TT_SYS(sem_post(&gone));
}

static void *keyed_thread(void *argument)
{
	unsigned char *page = malloc(TT_PAGE + 1);

	TT_ASSERT(page);
	page[TT_PAGE] = (unsigned char)(uintptr_t)argument;
	tt_fill(page, 700, page[TT_PAGE], 1);
	TT_ZERO(pthread_setspecific(key, page));
	live_through_eviction((uintptr_t)argument);
	return NULL;
}

static void keys(void)
{
	pthread_t thread[AT_ONCE];

	start_round();
	TT_ZERO(pthread_key_create(&key, check_and_free));
	for (uintptr_t i = 0; i < AT_ONCE; i++)
		thread[i] = tt_thread(keyed_thread, tt_argument(i));
	wait_all(&arrived, AT_ONCE);
	tt_pressure();
	post_all(&leave, AT_ONCE);
	wait_all(&gone, AT_ONCE);
	for (unsigned i = 0; i < AT_ONCE; i++)
		tt_join(thread[i]);
	TT_ZERO(pthread_key_delete(key));
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "cached", cached },	  { "owned", owned },
		{ "c11", c11 },		  { "robust", robust },
		{ "detached", detached }, { "cancel", cancel },
		{ "keys", keys },	  { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
