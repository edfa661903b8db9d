/* SPDX-License-Identifier: MIT */
/*
 * Watching a process use its pages: this one.  Idle page tracking with a file
 * in place of the kernel's bitmap, for few kernels have it: what was marked in
 * it is idle until it is unmarked there.
 */
#include "base/assert.h"
#include "cli/track.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	NR = 4096,
	PAGE = TMEM_PAGE_SIZE,
	EXIT_SKIP = 77
};

/* More than are flushed one by one. */
static const size_t other_bytes = 64ul * TMEM_PAGE_SIZE;

static char *memory;
static _Atomic bool stop;
static char bitmap[] = "/tmp/tmem-idle-XXXXXX";

static struct tmem_memory look(void)
{
	struct tmem_memory m;

	TMEM_ASSERT(!tmem_memory_open(getpid(), &m));
	TMEM_ASSERT(m.present_pages >= NR && m.swapped_pages == 0);
	TMEM_ASSERT(m.need_bytes >= m.present_pages * PAGE);
	TMEM_ASSERT(!m.paged_by_tmem);
	return m;
}

static void samples_are_what_is_there(void)
{
	static uint64_t addresses[NR / 2];
	struct tmem_memory m = look();
	struct tmem_pages pages;
	uint32_t i;

	TMEM_ASSERT(!tmem_memory_sample(&m, NR / 2, &pages, addresses));
	TMEM_ASSERT(pages.nr > NR / 2 - 16);
	for (i = 0; i < pages.nr; i++) {
		uint64_t offset = addresses[i] - (uintptr_t)memory;

		TMEM_ASSERT(i == 0 || addresses[i] > addresses[i - 1]);
		if (offset < (uint64_t)NR * PAGE)
			TMEM_ASSERT(!memcmp(tmem_pages_at(&pages, i),
					    memory + offset, PAGE));
	}
	tmem_pages_close(&pages);
	tmem_memory_close(&m);
}

/*
 * Uses the first quarter of the memory, over and over.  What the processor
 * remembers of a page it does not mark again, so it is made to forget: for a
 * change of many mappings the kernel flushes them all.
 */
static void *use_a_quarter(void *arg)
{
	char *other = mmap(NULL, other_bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	volatile char *at = arg;
	unsigned i, pass;

	TMEM_ASSERT(other != MAP_FAILED);
	for (pass = 0; !atomic_load(&stop); pass++) {
		for (i = 0; i < NR / 4; i++)
			(void)at[(size_t)i * PAGE];
		TMEM_ASSERT(!mprotect(other, other_bytes,
				      pass % 2 ? PROT_READ | PROT_WRITE
					       : PROT_READ));
	}
	munmap(other, other_bytes);
	return NULL;
}

static void referenced_bits_tell_what_is_used(void)
{
	struct tmem_memory m = look();
	struct tmem_curve curve;
	pthread_t thread;
	double used;
	int r;

	TMEM_ASSERT(!pthread_create(&thread, NULL, use_a_quarter, memory));
	r = tmem_track_refs(&m, 0.5, &curve);
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	TMEM_ASSERT(r == 0);
	used = curve.pages[curve.nr - 1];
	/* What the processor remembers is not always marked again. */
	TMEM_ASSERT(curve.nr > 0 && used > NR / 8.0 && used < NR / 2.0);
	tmem_memory_close(&m);
}

/* After half of the time, the even ones of the marked pages are used. */
static void *use_the_even(void *arg)
{
	int fd = open(bitmap, O_RDWR);
	off_t at = 0, end;
	uint64_t word;

	usleep(250000);
	end = lseek(fd, 0, SEEK_END);
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0 && at < end) {
		off_t hole = lseek(fd, at, SEEK_HOLE);

		for (; at < hole; at += 8) {
			TMEM_ASSERT(pread(fd, &word, 8, at) == 8);
			word &= 0xaaaaaaaaaaaaaaaaull;
			TMEM_ASSERT(pwrite(fd, &word, 8, at) == 8);
		}
	}
	close(fd);
	return arg;
}

static void idle_pages_tell_what_is_used(void)
{
	static uint64_t addresses[NR];
	struct tmem_memory m = look();
	struct tmem_track_sample sample = { addresses, NR };
	struct tmem_curve curve;
	pthread_t thread;
	double part;
	uint32_t i;

	for (i = 0; i < NR; i++)
		addresses[i] = (uintptr_t)memory + (uint64_t)i * PAGE;
	TMEM_ASSERT(!pthread_create(&thread, NULL, use_the_even, NULL));
	TMEM_ASSERT(!tmem_track_idle(&m, &sample, bitmap, 0.5, &curve));
	pthread_join(thread, NULL);
	part = curve.pages[curve.nr - 1] / (double)m.present_pages;
	TMEM_ASSERT(part > 0.2 && part < 0.8);
	TMEM_ASSERT(tmem_track_idle(&m, &sample, "/nonexistent", 0.1, &curve) ==
		    -EOPNOTSUPP);
	tmem_memory_close(&m);
}

static bool shows_frames(void)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (pread(fd, &entry, 8, (off_t)((uintptr_t)memory / PAGE * 8)) != 8)
		entry = 0;
	close(fd);
	return entry << 9 != 0;
}

int main(void)
{
	uint32_t i;
	int fd;

	memory = mmap(NULL, (size_t)NR * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TMEM_ASSERT(memory != MAP_FAILED);
	madvise(memory, (size_t)NR * PAGE, MADV_NOHUGEPAGE);
	for (i = 0; i < NR; i++)
		memory[(size_t)i * PAGE + i % PAGE] = (char)(1 + i % 100);
	if (!shows_frames()) {
		puts("skipped: not root, or no pagemap");
		return EXIT_SKIP;
	}
	samples_are_what_is_there();
	referenced_bits_tell_what_is_used();
	fd = mkstemp(bitmap);
	TMEM_ASSERT(fd >= 0);
	/* Frames of any machine: sparse. */
	TMEM_ASSERT(!ftruncate(fd, 1ll << 36));
	close(fd);
	idle_pages_tell_what_is_used();
	unlink(bitmap);
	return 0;
}
