/* SPDX-License-Identifier: MIT */
/* The lock: exclusion, order, closing; and what a failed assert does. */
#include "base/lock.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

#include "fstest.h"

enum {
	THREADS = 4,
	ROUNDS = 50000
};

static struct tmem_lock lock = TMEM_LOCK_INIT(TMEM_RANK_SHARD);
static unsigned counter;

static void *count(void *arg)
{
	unsigned i;

	(void)arg;
	for (i = 0; i < ROUNDS; i++) {
		tmem_lock_acquire(&lock);
		counter++;
		tmem_lock_release(&lock);
	}
	return NULL;
}

static void one_at_a_time(void)
{
	pthread_t threads[THREADS];
	unsigned i;

	counter = 0;
	for (i = 0; i < THREADS; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, count, NULL), 0);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(counter, THREADS * ROUNDS);
	CHECK_EQ(tmem_lock_ranks_held, 0);
}

static void trying_does_not_wait(void) TMEM_UNANALYSED
{
	struct tmem_lock other = TMEM_LOCK_INIT(TMEM_RANK_CLASS);

	CHECK(tmem_lock_try_acquire(&other));
	CHECK(!tmem_lock_try_acquire(&other));
	tmem_lock_release(&other);
	CHECK(tmem_lock_try_acquire(&other));
	tmem_lock_release(&other);
}

/* What the child's last words were; it must have died. */
static void dies(void (*fn)(void), char *ret_words, size_t bytes)
{
	int fds[2], status;
	ssize_t n;
	pid_t pid;

	CHECK_EQ(pipe(fds), 0);
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		dup2(fds[1], 2);
		fn();
		_exit(0);
	}
	close(fds[1]);
	n = read(fds[0], ret_words, bytes - 1);
	CHECK(n >= 0);
	ret_words[n] = '\0';
	close(fds[0]);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	/* A sanitizer turns the trap into an exit of its own. */
	CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

static void wrong_order(void) TMEM_UNANALYSED
{
	struct tmem_lock outer = TMEM_LOCK_INIT(TMEM_RANK_STORE);

	tmem_lock_acquire(&lock);
	tmem_lock_acquire(&outer);
}

static void twice(void) TMEM_UNANALYSED
{
	tmem_lock_acquire(&lock);
	tmem_lock_acquire(&lock);
}

static void not_held(void) TMEM_UNANALYSED
{
	tmem_lock_release(&lock);
}

static void wrong_use_is_found_at_once(void)
{
	char words[1024];

	dies(wrong_order, words, sizeof(words));
	CHECK(strstr(words, "tmem_lock_ranks_held"));
	CHECK(strstr(words, "tmem: ") == words);
	dies(twice, words, sizeof(words));
	dies(not_held, words, sizeof(words));
}

static void say_it_loud(const char *line)
{
	fprintf(stderr, "HOOK %s", line);
	_exit(1);
}

static void hooked(void)
{
	tmem_assert_hook = say_it_loud;
	TMEM_INVARIANT("Q7", counter == 12345);
}

static void a_hook_hears_of_a_failed_assert(void)
{
	char words[1024];

	dies(hooked, words, sizeof(words));
	CHECK(strstr(words, "HOOK tmem: ") == words);
	CHECK(strstr(words, "invariant Q7: counter == 12345"));
}

static void *wait_for_open(void *arg) TMEM_UNANALYSED
{
	(void)arg;
	tmem_lock_acquire(&lock);
	counter = 2;
	tmem_lock_release(&lock);
	return NULL;
}

static void a_closed_lock_lets_nobody_in(void) TMEM_UNANALYSED
{
	pthread_t thread;

	tmem_lock_acquire(&lock);
	counter = 1;
	CHECK(!tmem_lock_is_closed(&lock));
	tmem_lock_close(&lock);
	tmem_lock_pop_rank(&lock);
	CHECK(tmem_lock_is_closed(&lock));
	CHECK(!tmem_lock_acquire_unless_closed(&lock));
	CHECK(!tmem_lock_try_acquire(&lock));
	CHECK_EQ(pthread_create(&thread, NULL, wait_for_open, NULL), 0);
	sched_yield();
	CHECK_EQ(counter, 1);
	CHECK(tmem_lock_is_closed(&lock));
	tmem_lock_reopen(&lock);
	CHECK_EQ(counter, 1);
	tmem_lock_release_also(&lock);
	pthread_join(thread, NULL);
	CHECK_EQ(counter, 2);
	CHECK(tmem_lock_acquire_unless_closed(&lock));
	tmem_lock_release(&lock);
}

static uint64_t shard_sleeps(uint64_t *ret_contended)
{
	struct tmem_lock_waits waits;

	tmem_lock_waits_of(TMEM_RANK_SHARD, &waits);
	*ret_contended = waits.contended;
	CHECK(!waits.sleeps == !waits.slept_ns);
	return waits.sleeps;
}

static void waits_are_counted_and_nothing_else(void) TMEM_UNANALYSED
{
	uint64_t sleeps, contended, before, before_contended;
	pthread_t thread;

	before = shard_sleeps(&before_contended);
	tmem_lock_acquire(&lock);
	tmem_lock_release(&lock);
	CHECK_EQ(shard_sleeps(&contended), before);
	CHECK_EQ(contended, before_contended);
	tmem_lock_acquire(&lock);
	CHECK_EQ(pthread_create(&thread, NULL, wait_for_open, NULL), 0);
	while ((tmem_lock_word(&lock) & TMEM_LOCK_STATE_MASK) !=
	       TMEM_LOCK_HELD_WAITED)
		sched_yield();
	tmem_lock_release(&lock);
	pthread_join(thread, NULL);
	sleeps = shard_sleeps(&contended);
	CHECK_EQ(sleeps, before + 1);
	CHECK_EQ(contended, before_contended + 1);
}

int main(void)
{
	RUN(one_at_a_time);
	RUN(trying_does_not_wait);
	RUN(wrong_use_is_found_at_once);
	RUN(a_hook_hears_of_a_failed_assert);
	RUN(a_closed_lock_lets_nobody_in);
	RUN(waits_are_counted_and_nothing_else);
	return 0;
}
