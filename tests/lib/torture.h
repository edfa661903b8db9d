/* SPDX-License-Identifier: MIT */
/*
 * What the torture programs share: memory whose every byte is known.
 *
 * The model: a *region* is a run of pages with an id; each page has a
 * version.  A page's content is a function of (seed, id, page, version), so
 * an older page, another's page, or zeros for a lost page always differ from
 * what is expected; a failing check says which of them it found.  Version 0
 * is a page as the kernel hands it out: zeros.
 *
 * Contents are of mixed kind, as heaps are: zeros, one repeated word,
 * text-like (LZ4 about 3:1), half-random (1.5:1), random.
 *
 * *Pressure* is one more region, larger than the memory that the program will
 * be given; walking it pushes everything else out.
 *
 * A program is a table of cases.  Arguments: MIB SEED CASE; all cases run if
 * none is named.  Exit status 0: all bytes right; 1: the first wrong one was
 * printed; 77: this kernel or user can't do it, so nothing was tested.
 * Where standard error is closed, failures are appended to the file that the
 * environment variable TT_LOG names.
 *
 * Threads: a region belongs to one thread at a time, except that any number
 * may check pages that nobody writes.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define TT_PAGE	    ((size_t)4096)
#define TT_MIB	    ((size_t)1 << 20)
#define TT_SKIP	    77
#define TT_ARRAY(a) (sizeof(a) / sizeof((a)[0]))

struct tt_case {
	const char *name;
	void (*run)(void);
	/* Runs only when named: it needs its own limit, or ends the program. */
	bool alone;
};

struct tt_region {
	unsigned char *base;
	size_t nr_pages;
	uint64_t id;
	uint16_t *version; /* of each page */
	uint16_t bump;	   /* a write adds this to the version */
};

extern uint64_t tt_seed;
extern size_t tt_mib;	       /* what the program is to use in all */
extern const char *tt_name;    /* of the program */
extern const char *tt_self;    /* its path, for exec */
extern const char *tt_current; /* case that runs */

/* The program's main(): never returns. */
_Noreturn void tt_main(int argc, char **argv, size_t default_mib,
		       const struct tt_case *cases);

/* One line on standard error, then _exit(1). */
_Noreturn void tt_fail(const char *format, ...)
	__attribute__((format(printf, 1, 2)));
/* One line, then exit status 77. */
_Noreturn void tt_skip(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

/* The result of a system call that must succeed. */
#define TT_SYS(call) tt_sys((long)(call), #call, __FILE__, __LINE__)
/* A call that returns an error number, as pthread_* do. */
#define TT_ZERO(call)	tt_zero((int)(call), #call, __FILE__, __LINE__)
#define TT_ASSERT(cond) tt_assert(!!(cond), #cond, __FILE__, __LINE__)

/* Inline, so that clang's analyzer sees what holds afterwards. */
static inline long tt_sys(long result, const char *what, const char *file,
			  int line)
{
	if (result == -1)
		tt_fail("%s:%d: %s: %s", file, line, what, strerror(errno));
	return result;
}

static inline void tt_zero(int error, const char *what, const char *file,
			   int line)
{
	if (error)
		tt_fail("%s:%d: %s: %s", file, line, what, strerror(error));
}

static inline void tt_assert(bool ok, const char *what, const char *file,
			     int line)
{
	if (!ok)
		tt_fail("%s:%d: not true: %s", file, line, what);
}

uint64_t tt_mix(uint64_t x);
uint64_t tt_rand(uint64_t *state);
/* A generator's start, different for each number and seed. */
uint64_t tt_rand_start(uint64_t number);

/* Private anonymous memory; fails the program if there is none. */
void *tt_map(size_t bytes);
/* Pages that are `percent` of what the program is to use. */
size_t tt_pages(unsigned percent);

/* The content of one page. */
void tt_fill(void *page, uint64_t id, uint64_t nr, unsigned version);
/* Fails the program at the first byte of `got` that is not as expected. */
void tt_same(const void *got, const void *expected, size_t bytes,
	     const char *what);
/* Likewise for one page's content, wherever it is. */
void tt_check(const void *page, uint64_t id, uint64_t nr, unsigned version);
void tt_check_zero(const void *start, size_t bytes, const char *what);

/* A new mapping, not written yet: every page has version 0. */
void tt_region_map(struct tt_region *region, size_t nr_pages, uint64_t id);
/* Over memory that somebody else mapped, and which reads zero. */
void tt_region_over(struct tt_region *region, void *base, size_t nr_pages,
		    uint64_t id);
void tt_region_unmap(struct tt_region *region);
/* The pages read zero from now on: somebody dropped them. */
void tt_region_dropped(struct tt_region *region, size_t first, size_t nr);
void tt_region_write(struct tt_region *region, size_t nr);
void tt_region_check(const struct tt_region *region, size_t nr);
void tt_region_fill(struct tt_region *region);
/* Every page, in order; every page, out of order. */
void tt_region_verify(const struct tt_region *region);
void tt_region_verify_shuffled(const struct tt_region *region);
/* Random pages: each is checked, and one in `one_in` is written anew. */
void tt_region_work(struct tt_region *region, uint64_t *rng, size_t steps,
		    unsigned one_in);

/* Makes the pressure region: `percent` of what the program is to use. */
void tt_pressure_init(unsigned percent);
/* Walks and checks all of it.  One thread at a time. */
void tt_pressure(void);
/* A full region, most of which that has evicted. */
void tt_region_begin(struct tt_region *region, size_t nr_pages);
/* Drops the last quarter, and moves all of it to a new place. */
void tt_region_rearrange(struct tt_region *region);

/* fork() that must work; the child forgets the parent's page counts. */
pid_t tt_fork(void);
/* Waits for a child that must exit with status 0. */
void tt_wait(pid_t pid);
/* Reads or writes all of it, or fails the program. */
void tt_read_all(int fd, void *buffer, size_t bytes);
void tt_write_all(int fd, const void *buffer, size_t bytes);
/* An unlinked file in $TMPDIR or /var/tmp; `flags` besides O_RDWR. */
int tt_temp_file(int flags);

/* A number as a thread's argument. */
static inline void *tt_argument(uintptr_t number)
{
	return (void *)number; /* NOLINT(performance-no-int-to-ptr) */
}

pthread_t tt_thread(void *(*run)(void *), void *argument);
void tt_join(pthread_t thread);

#endif
