/* SPDX-License-Identifier: MIT */
/*
 * See track.h.  Readings follow each other at growing distances, from 2 ms
 * on: the beginning of the curve says how often pages are touched, its end how
 * many of them there are.  The curve's time is the process's CPU time: when it
 * waits, or others have the CPU, it touches nothing.
 *
 * Clearing and reading take time themselves, in which the process goes on:
 * each counts for the middle of that.
 */
#include "cli/track.h"

#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_SECONDS 0.002
#define NEXT_FACTOR   1.4

enum {
	PFN_BITS = 55 /* of an entry of pagemap */
};

/* One way of counting the pages used since a moment. */
struct tracker {
	int (*begin)(struct tracker *t);
	int (*count)(struct tracker *t, double *ret_pages);
	const struct tmem_memory *memory;
	/* Idle page tracking. */
	int bitmap_fd;
	uint64_t *words; /* pfn / 64 of sampled pages, rising */
	uint64_t *masks; /* which bits of it */
	uint32_t nr_words;
	uint32_t nr_pages; /* bits in all masks */
};

static double seconds_since(uint64_t ns)
{
	return (double)(tmem_sys_now_ns() - ns) / 1e9;
}

static void wait_until(uint64_t start_ns, double seconds)
{
	double left = seconds - seconds_since(start_ns);
	struct timespec ts;

	if (left <= 0)
		return;
	ts.tv_sec = (time_t)left;
	ts.tv_nsec = (long)((left - (double)ts.tv_sec) * 1e9);
	nanosleep(&ts, NULL);
}

/* 0 or -ESRCH. */
static int read_cpu_seconds(clockid_t clock, double *ret_seconds)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		return -ESRCH;
	*ret_seconds = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
	return 0;
}

static int begin(struct tracker *t, clockid_t clock, double *ret_cpu_start)
{
	double before = 0, after = 0;
	int r;

	r = read_cpu_seconds(clock, &before);
	if (r == 0)
		r = t->begin(t);
	if (r == 0)
		r = read_cpu_seconds(clock, &after);
	*ret_cpu_start = (before + after) / 2;
	return r;
}

/* A reading that took longer than what it is to measure tells nothing. */
static int read_point(struct tracker *t, clockid_t clock, double cpu_start,
		      struct tmem_curve *curve)
{
	double before = 0, after = 0, pages = 0, seconds;
	int r;

	r = read_cpu_seconds(clock, &before);
	if (r == 0)
		r = t->count(t, &pages);
	if (r == 0)
		r = read_cpu_seconds(clock, &after);
	seconds = (before + after) / 2 - cpu_start;
	if (r == 0 && after - before < seconds)
		tmem_curve_add(curve, seconds, pages);
	return r;
}

static int watch(struct tracker *t, double seconds,
		 struct tmem_curve *ret_curve)
{
	struct tmem_curve curve = { .all_pages =
					    (double)t->memory->present_pages };
	double next = FIRST_SECONDS, cpu_start = 0;
	uint64_t start_ns;
	clockid_t clock;
	int r;

	if (clock_getcpuclockid(t->memory->pid, &clock))
		return -ESRCH;
	r = begin(t, clock, &cpu_start);
	if (r < 0)
		return r;
	start_ns = tmem_sys_now_ns();
	for (;;) {
		next = next < seconds ? next : seconds;
		wait_until(start_ns, next);
		r = read_point(t, clock, cpu_start, &curve);
		if (r < 0)
			return r;
		if (next >= seconds)
			break;
		next *= NEXT_FACTOR;
	}
	*ret_curve = curve;
	return 0;
}

/* Referenced bits. */

static void add_referenced(void *arg, const struct tmem_mapping *mapping)
{
	uint64_t *bytes = arg;

	if (mapping->pageable)
		*bytes += mapping->referenced_bytes;
}

static int count_referenced(struct tracker *t, double *ret_pages)
{
	uint64_t bytes = 0;
	int r = tmem_memory_for_each(t->memory->pid, add_referenced, &bytes);

	if (r < 0)
		return r;
	*ret_pages = (double)bytes / TMEM_PAGE_SIZE;
	return 0;
}

/* Of anonymous pages only: 2. */
static int clear_referenced(struct tracker *t)
{
	char path[64];
	int fd, r = 0;

	snprintf(path, sizeof(path), "/proc/%d/clear_refs",
		 (int)t->memory->pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, "2", 1) != 1)
		r = -errno;
	close(fd);
	return r;
}

int tmem_track_refs(const struct tmem_memory *memory, double seconds,
		    struct tmem_curve *ret_curve)
{
	struct tracker t = { .begin = clear_referenced,
			     .count = count_referenced,
			     .memory = memory };

	return watch(&t, seconds, ret_curve);
}

/* Idle page tracking. */

static int compare(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

/* The frames of sampled pages; those that moved or went are left out. */
static uint32_t find_frames(const struct tmem_memory *memory,
			    const struct tmem_track_sample *sample,
			    uint64_t *ret_frames)
{
	uint64_t entry, frame;
	uint32_t i, nr = 0;

	for (i = 0; i < sample->nr; i++) {
		off_t at = (off_t)(sample->addresses[i] / TMEM_PAGE_SIZE * 8);

		if (pread(memory->pagemap_fd, &entry, 8, at) != 8)
			continue;
		frame = entry & ((1ull << PFN_BITS) - 1);
		if (entry >> 63 && frame)
			ret_frames[nr++] = frame;
	}
	return nr;
}

static void collect_words(struct tracker *t, const uint64_t *frames,
			  uint32_t nr)
{
	uint32_t i;

	for (i = 0; i < nr; i++) {
		if (!t->nr_words || t->words[t->nr_words - 1] != frames[i] / 64)
			t->words[t->nr_words++] = frames[i] / 64;
		t->masks[t->nr_words - 1] |= 1ull << (frames[i] % 64);
	}
}

/*
 * Marks them idle.  What does not read as idle at once can't be tracked (the
 * inner pages of a huge one) and is left out.
 */
static int mark_idle(struct tracker *t)
{
	uint64_t word;
	uint32_t i;

	t->nr_pages = 0;
	for (i = 0; i < t->nr_words; i++) {
		off_t at = (off_t)(t->words[i] * 8);

		if (pwrite(t->bitmap_fd, &t->masks[i], 8, at) != 8 ||
		    pread(t->bitmap_fd, &word, 8, at) != 8)
			return -EOPNOTSUPP;
		t->masks[i] &= word;
		t->nr_pages += (uint32_t)__builtin_popcountll(t->masks[i]);
	}
	return t->nr_pages ? 0 : -EOPNOTSUPP;
}

static int count_busy(struct tracker *t, double *ret_pages)
{
	uint64_t word;
	uint32_t i, busy = 0;

	if (kill(t->memory->pid, 0) < 0 && errno == ESRCH)
		return -ESRCH;
	for (i = 0; i < t->nr_words; i++) {
		if (pread(t->bitmap_fd, &word, 8, (off_t)(t->words[i] * 8)) !=
		    8)
			return -EIO;
		busy += (uint32_t)__builtin_popcountll(t->masks[i] & ~word);
	}
	*ret_pages =
		(double)busy / t->nr_pages * (double)t->memory->present_pages;
	return 0;
}

int tmem_track_idle(const struct tmem_memory *memory,
		    const struct tmem_track_sample *sample, const char *bitmap,
		    double seconds, struct tmem_curve *ret_curve)
{
	struct tracker t = { .begin = mark_idle,
			     .count = count_busy,
			     .memory = memory };
	uint64_t *frames = calloc(sample->nr, sizeof(*frames));
	int r = -ENOMEM;

	t.words = calloc(sample->nr, sizeof(*t.words));
	t.masks = calloc(sample->nr, sizeof(*t.masks));
	t.bitmap_fd = open(bitmap, O_RDWR | O_CLOEXEC);
	if (t.bitmap_fd < 0) {
		r = -EOPNOTSUPP;
	} else if (frames && t.words && t.masks) {
		uint32_t nr = find_frames(memory, sample, frames);

		qsort(frames, nr, sizeof(*frames), compare);
		collect_words(&t, frames, nr);
		r = watch(&t, seconds, ret_curve);
	}
	if (t.bitmap_fd >= 0)
		close(t.bitmap_fd);
	free(frames);
	free(t.words);
	free(t.masks);
	return r;
}
