/* SPDX-License-Identifier: MIT */
/*
 * Programs that expect signals from their own memory: they must get exactly
 * those that are theirs, with the right address and code.
 *
 *   none      PROT_NONE pages between evicted ones: SEGV_ACCERR
 *   unmapped  holes between evicted ones: SEGV_MAPERR
 *   readonly  a write to a page that was evicted while read-only
 *   beyond    SIGBUS past the end of a mapped file
 *   overflow  a thread runs into the guard page of its stack
 */
#include "torture.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct tt_region region;
static sigjmp_buf escape;
static volatile sig_atomic_t got_signal, got_code;
static void *volatile got_address;

static void caught(int number, siginfo_t *info, void *context)
{
	(void)context;
	got_signal = number;
	got_code = info->si_code;
	got_address = info->si_addr;
	siglongjmp(escape, 1);
}

/* Handlers run on a stack that may itself be evicted. */
static void install(void)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t stack = { .ss_size = 64 << 10 };

	stack.ss_sp = malloc(stack.ss_size);
	TT_ASSERT(stack.ss_sp);
	memset(stack.ss_sp, 0x77, stack.ss_size);
	TT_SYS(sigaltstack(&stack, NULL));
	action.sa_sigaction = caught;
	TT_SYS(sigaction(SIGSEGV, &action, NULL));
	TT_SYS(sigaction(SIGBUS, &action, NULL));
}

static void setup(void)
{
	install();
	tt_pressure_init(60);
	tt_region_map(&region, tt_pages(30), 1);
	tt_region_fill(&region);
}

/* A touch that must end in the handler. */
static void must_fault(volatile unsigned char *at, bool write, int number,
		       int code)
{
	got_signal = 0;
	if (!sigsetjmp(escape, 1)) {
		if (write)
			*at = 1;
		else
			(void)*at;
		tt_fail("no signal from %p", (void *)at);
	}
	if (got_signal != number || got_code != code ||
	    got_address != (void *)at)
		tt_fail("expected signal %d code %d at %p, got %d code %d "
			"at %p",
			number, code, (void *)at, (int)got_signal,
			(int)got_code, got_address);
}

static void none(void)
{
	setup();
	for (size_t nr = 3; nr < region.nr_pages; nr += 10)
		TT_SYS(mprotect(region.base + nr * TT_PAGE, TT_PAGE,
				PROT_NONE));
	tt_pressure();
	for (size_t nr = 0; nr < region.nr_pages; nr++) {
		if (nr % 10 != 3)
			tt_region_check(&region, nr);
		else
			must_fault(region.base + nr * TT_PAGE + nr % TT_PAGE,
				   nr % 20 == 3, SIGSEGV, SEGV_ACCERR);
	}
	TT_SYS(mprotect(region.base, region.nr_pages * TT_PAGE,
			PROT_READ | PROT_WRITE));
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
}

static void unmapped(void)
{
	setup();
	for (size_t nr = 3; nr < region.nr_pages; nr += 10)
		TT_SYS(munmap(region.base + nr * TT_PAGE, TT_PAGE));
	tt_pressure();
	for (size_t nr = 0; nr < region.nr_pages; nr++) {
		unsigned char *at = region.base + nr * TT_PAGE;

		if (nr % 10 != 3) {
			tt_region_check(&region, nr);
			continue;
		}
		must_fault(at + nr % TT_PAGE, nr % 20 == 3, SIGSEGV,
			   SEGV_MAPERR);
		TT_ASSERT(
			mmap(at, TT_PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			     -1, 0) == at);
		tt_region_dropped(&region, nr, 1);
	}
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
}

static void readonly(void)
{
	setup();
	TT_SYS(mprotect(region.base, region.nr_pages * TT_PAGE, PROT_READ));
	tt_pressure();
	for (size_t nr = 0; nr < region.nr_pages; nr++) {
		must_fault(region.base + nr * TT_PAGE + 9, true, SIGSEGV,
			   SEGV_ACCERR);
		tt_region_check(&region, nr);
	}
	TT_SYS(mprotect(region.base, region.nr_pages * TT_PAGE,
			PROT_READ | PROT_WRITE));
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
}

static void beyond(void)
{
	int fd = tt_temp_file(0);
	unsigned char *map;

	setup();
	TT_SYS(ftruncate(fd, 2 * TT_PAGE));
	map = mmap(NULL, 8 * TT_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
		   0);
	TT_SYS(map == MAP_FAILED ? -1 : 0);
	tt_pressure();
	for (unsigned i = 2; i < 8; i++)
		must_fault(map + i * TT_PAGE + 5, i % 2, SIGBUS, BUS_ADRERR);
	tt_check_zero(map, 2 * TT_PAGE, "within the file");
	tt_region_verify_shuffled(&region);
	TT_SYS(munmap(map, 8 * TT_PAGE));
	tt_region_unmap(&region);
	close(fd);
}

static unsigned char *stack_guard;

/* Each frame is a page; the guard comes long before the last one. */
static unsigned fall(unsigned depth)
{
	volatile unsigned char frame[TT_PAGE];

	frame[0] = (unsigned char)depth;
	frame[TT_PAGE - 1] = frame[0];
	return depth < 1u << 20 ? fall(depth + 1) + frame[0] : 0;
}

static void *falling_thread(void *argument)
{
	(void)argument;
	install();
	got_signal = 0;
	if (!sigsetjmp(escape, 1))
		fall(1);
	TT_ASSERT(got_signal == SIGSEGV && got_code == SEGV_ACCERR);
	TT_ASSERT((unsigned char *)got_address >= stack_guard &&
		  (unsigned char *)got_address < stack_guard + 4 * TT_PAGE);
	return NULL;
}

static void overflow(void)
{
	enum {
		STACK = 1 << 20,
		GUARD = 4
	};
	pthread_attr_t attr;
	pthread_t thread;

	setup();
	stack_guard = tt_map(STACK + GUARD * TT_PAGE);
	TT_SYS(mprotect(stack_guard, GUARD * TT_PAGE, PROT_NONE));
	for (unsigned i = 0; i < 3; i++) {
		TT_ZERO(pthread_attr_init(&attr));
		TT_ZERO(pthread_attr_setstack(
			&attr, stack_guard + GUARD * TT_PAGE, STACK));
		tt_pressure();
		TT_ZERO(pthread_create(&thread, &attr, falling_thread, NULL));
		tt_join(thread);
		TT_ZERO(pthread_attr_destroy(&attr));
	}
	tt_region_verify_shuffled(&region);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "none", none },	  { "unmapped", unmapped },
		{ "readonly", readonly }, { "beyond", beyond },
		{ "overflow", overflow }, { NULL }
	};

	tt_main(argc, argv, 192, cases);
}
