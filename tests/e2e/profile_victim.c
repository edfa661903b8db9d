/* SPDX-License-Identifier: MIT */
/*
 * Programs whose stalls are known: functions that touch evicted pages, so many
 * times each.  Usage: profile_victim MIB CASE
 *
 *   parts    three_parts() touches three pages, one_part() one, by turns
 *   threads  two threads, each in its function
 *   fork     the child in one function, the parent in another
 *   syscall  write(2) reads the pages
 *   traced   parts, in a child that is being traced
 *   signals  parts, while it is stopped, continued and sent counted signals
 *   daemon   a child that lives on, and what it is for
 *
 * MIB is a power of two.  All pages are touched again and again, always in the
 * same order: so nearly every touch is a fault, and those of different
 * functions follow each other with a short period, which a sample must not fall
 * in with. Each page is checked.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	ROUNDS = 6,
	STEP = 7919, /* pages; odd, as the pages are a power of two */
	SIGNALS = 400
};

static unsigned char *memory;
static size_t nr_pages;
static volatile sig_atomic_t nr_heard;

static void fail(const char *what)
{
	fprintf(stderr, "profile_victim: %s: %s\n", what, strerror(errno));
	_exit(1);
}

static void check(size_t i)
{
	volatile uint64_t *page = (void *)(memory + i * PAGE);

	if (page[0] != i || page[100] != i * 3)
		fail("a page is wrong");
}

static void fill(void)
{
	size_t i;

	memory = mmap(NULL, nr_pages * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	for (i = 0; i < nr_pages; i++) {
		uint64_t *page = (void *)(memory + i * PAGE);

		page[0] = i;
		page[100] = i * 3;
	}
}

/* The n-th page of a walk to all, by steps too large to be read ahead. */
static size_t scattered(size_t n)
{
	return n * STEP % nr_pages;
}

#define APART __attribute__((noinline))

APART void one_part(size_t n);
APART void one_part(size_t n)
{
	check(scattered(n));
}

APART void three_parts(size_t n);
APART void three_parts(size_t n)
{
	check(scattered(n));
	check(scattered(n + 1));
	check(scattered(n + 2));
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Says how long the two took: stalls are nearly all of it. */
static void parts(void)
{
	uint64_t one = 0, three = 0, t0, t1;
	size_t n;

	for (n = 0; n < ROUNDS * nr_pages; n += 4) {
		t0 = now_ns();
		one_part(n);
		t1 = now_ns();
		three_parts(n + 1);
		one += t1 - t0;
		three += now_ns() - t1;
	}
	printf("%.3f\n", (double)three / (double)one);
}

APART void *in_one_thread(void *arg);
APART void *in_one_thread(void *arg)
{
	size_t n;

	for (n = 0; n < ROUNDS * nr_pages; n += 2)
		check(scattered(n));
	return arg;
}

APART void *in_other_thread(void *arg);
APART void *in_other_thread(void *arg)
{
	size_t n;

	for (n = 1; n < ROUNDS * nr_pages; n += 2)
		check(scattered(n));
	return arg;
}

static void threads(void)
{
	pthread_t other;

	if (pthread_create(&other, NULL, in_other_thread, NULL) != 0)
		fail("pthread_create");
	in_one_thread(NULL);
	pthread_join(other, NULL);
}

static void wait_well(pid_t pid)
{
	int status = -1;

	if (waitpid(pid, &status, 0) != pid || status != 0)
		fail("the child ended badly");
}

static void forks(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		in_other_thread(NULL);
		_exit(0);
	}
	in_one_thread(NULL);
	wait_well(pid);
}

APART void by_write(int fd);
APART void by_write(int fd)
{
	size_t n;

	for (n = 0; n < ROUNDS * nr_pages; n++)
		if (pwrite(fd, memory + scattered(n) * PAGE, PAGE, 0) != PAGE)
			fail("pwrite");
}

static void syscalls(void)
{
	int fd = memfd_create("profile_victim", 0);

	if (fd < 0)
		fail("memfd_create");
	by_write(fd);
}

/* The tracer is of this tree, and stops the child again and again. */
static void traced(void)
{
	pid_t pid = fork();
	int status, sig;

	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			fail("PTRACE_TRACEME");
		raise(SIGSTOP);
		parts();
		_exit(0);
	}
	for (;;) {
		if (waitpid(pid, &status, 0) != pid)
			fail("waitpid");
		if (!WIFSTOPPED(status))
			break;
		sig = WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status);
		if (ptrace(PTRACE_CONT, pid, NULL, sig) < 0)
			fail("PTRACE_CONT");
		usleep(2000);
		kill(pid, SIGSTOP);
	}
	if (status != 0)
		fail("the traced child ended badly");
}

static void hear(int sig)
{
	(void)sig;
	nr_heard++;
}

/* Queued signals are counted: each must come, once. */
static void signals(void)
{
	const struct sigaction action = { .sa_handler = hear };
	const union sigval none = { 0 };
	pid_t pid;
	int i;

	sigaction(SIGRTMIN, &action, NULL);
	pid = fork();
	if (pid == 0) {
		while (nr_heard < SIGNALS)
			parts();
		_exit(nr_heard == SIGNALS ? 0 : 1);
	}
	for (i = 0; i < SIGNALS; i++) {
		while (sigqueue(pid, SIGRTMIN, none) < 0)
			if (errno != EAGAIN)
				fail("sigqueue");
		kill(pid, SIGSTOP);
		usleep(500);
		kill(pid, SIGCONT);
		usleep(500);
	}
	wait_well(pid);
}

static void lives_on(void)
{
	pid_t pid = fork();

	if (pid)
		_exit(0);
	setsid();
	in_other_thread(NULL);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = { { "parts", parts },    { "threads", threads },
		      { "fork", forks },     { "syscall", syscalls },
		      { "traced", traced },  { "signals", signals },
		      { "daemon", lives_on } };
	size_t i;

	if (argc != 3)
		return 2;
	nr_pages = strtoul(argv[1], NULL, 10) << 8;
	fill();
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (!strcmp(cases[i].name, argv[2]))
			cases[i].run();
	return 0;
}
