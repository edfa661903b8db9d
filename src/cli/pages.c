/* SPDX-License-Identifier: MIT */
/*
 * The built-in pages are what programs' memory is made of, roughly: of each
 * sixteen pages five are text, four records (small numbers and pointers), two
 * measured values, two zeros or one word repeated, two half records and half
 * empty, and one is noise.  Page i depends on i only.
 */
#include "cli/pages.h"

#include "base/hash.h"
#include "base/sys.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PAGE = TMEM_PAGE_SIZE,
	WORDS = TMEM_PAGE_SIZE / 8
};

int tmem_pages_open(uint32_t room, struct tmem_pages *ret)
{
	size_t bytes = (size_t)room * PAGE;
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no memory for %" PRIu32 " pages: %s; "
				     "take fewer with --pages",
				     room, strerror(errno));
	*ret = (struct tmem_pages){ .bytes = p, .room = room };
	return 0;
}

void tmem_pages_close(struct tmem_pages *pages)
{
	if (pages->bytes)
		munmap(pages->bytes, (size_t)pages->room * PAGE);
	pages->bytes = NULL;
}

void tmem_pages_shuffle(uint32_t *order, uint32_t nr)
{
	uint32_t i, j, other;

	for (i = 0; i < nr; i++)
		order[i] = i;
	for (i = nr; i-- > 1;) {
		j = (uint32_t)(tmem_hash_word(i) % (i + 1));
		other = order[i];
		order[i] = order[j];
		order[j] = other;
	}
}

/* Files. */

static int fail_file(const char *path, int error)
{
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "--corpus %s: %s; name a file of 4 KiB pages "
			     "that you may read",
			     path, strerror(error));
}

static int check_file(const char *path, int fd, uint64_t *ret_pages)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail_file(path, errno);
	if (!S_ISREG(st.st_mode))
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--corpus %s: not a regular file; copy "
				     "the pages into one",
				     path);
	if (!st.st_size)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--corpus %s: empty; name a file of "
				     "4 KiB pages",
				     path);
	if (st.st_size % PAGE)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--corpus %s: %jd bytes are not a "
				     "multiple of 4096; pad or cut it, with "
				     "truncate(1) for example",
				     path, (intmax_t)st.st_size);
	*ret_pages = (uint64_t)st.st_size / PAGE;
	return 0;
}

static int read_page(int fd, char *page, uint64_t nr)
{
	size_t have = 0;
	ssize_t n;

	while (have < PAGE) {
		n = pread(fd, page + have, PAGE - have,
			  (off_t)(nr * PAGE + have));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		have += (size_t)n;
	}
	return 0;
}

static int read_pages(const char *path, int fd, uint64_t all,
		      struct tmem_pages *pages)
{
	int error;

	for (; pages->nr < pages->room; pages->nr++) {
		uint64_t nr = (uint64_t)((unsigned __int128)all * pages->nr /
					 pages->room);

		error = read_page(fd, tmem_pages_at(pages, pages->nr), nr);
		if (error)
			return fail_file(path, error);
	}
	return 0;
}

int tmem_pages_from_file(const char *path, uint32_t max, struct tmem_pages *ret,
			 uint64_t *ret_all)
{
	struct tmem_pages pages = { 0 };
	uint64_t all = 0;
	int fd, r;

	/* Not to wait for the other end of a pipe. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return fail_file(path, errno);
	r = check_file(path, fd, &all);
	if (!r)
		r = tmem_pages_open(all < max ? (uint32_t)all : max, &pages);
	if (!r)
		r = read_pages(path, fd, all, &pages);
	close(fd);
	if (r) {
		tmem_pages_close(&pages);
		return r;
	}
	*ret = pages;
	*ret_all = all;
	return 0;
}

/* Built in.  x: a random state, never used up. */

static uint64_t next(uint64_t *x)
{
	*x += TMEM_HASH_K0;
	return tmem_hash_word(*x);
}

static void make_noise(char *page, uint64_t x)
{
	uint64_t word;
	unsigned i;

	for (i = 0; i < WORDS; i++) {
		word = next(&x);
		memcpy(page + (size_t)i * 8, &word, 8);
	}
}

static void make_same(char *page, uint64_t x)
{
	uint64_t word = x & 1 ? 0 : 0x0101010101010101ull * (x >> 8 & 0xff);
	unsigned i;

	for (i = 0; i < WORDS; i++)
		memcpy(page + (size_t)i * 8, &word, 8);
}

static void make_text(char *page, uint64_t x)
{
	static const char words[] =
		"the of and to in is that for it as was with be by on not he "
		"his but at are this have from or had an they which one you "
		"were her all she there would their we him been has when who "
		"will more no if out so said what up its about into than them "
		"can only other new some could time these two may then do "
		"memory page store number answer process kernel machine ";
	const char *from;
	unsigned at = 0, length;

	while (at < PAGE) {
		from = words + next(&x) % (sizeof(words) - 1);
		while (from > words && from[-1] != ' ')
			from--;
		length = (unsigned)(strchr(from, ' ') - from) + 1;
		/* As phrases and markup do, some of it comes again. */
		if (at > 256 && next(&x) % 4 == 0) {
			from = page + next(&x) % (at - 64);
			length = 24 + (unsigned)(next(&x) % 40);
		}
		if (length > PAGE - at)
			length = PAGE - at;
		memcpy(page + at, from, length);
		at += length;
	}
}

/* As heaps have them: a count, a kind, two pointers, two small numbers. */
static void make_records(char *page, uint64_t x, unsigned bytes)
{
	uint64_t heap = 0x7f0000000000ull | (x & 0xffff) << 24;
	struct {
		uint64_t count, kind, left, right;
		uint32_t key, size, pad[2];
	} r = { 0 };
	unsigned at;

	memset(page, 0, PAGE);
	for (at = 0; at + sizeof(r) <= bytes; at += sizeof(r)) {
		r.count = 1 + next(&x) % 4;
		r.kind = heap + 0x40 * (next(&x) % 6);
		r.left = heap + 0x30 * (next(&x) & 0x7ffff);
		r.right = heap + 0x30 * (at + next(&x) % 64);
		r.key = (uint32_t)(next(&x) % 1000000);
		r.size = (uint32_t)(next(&x) % 100);
		memcpy(page + at, &r, sizeof(r));
	}
}

/* A walk of doubles with a few significant digits. */
static void make_values(char *page, uint64_t x)
{
	double value = (double)(x % 1000);
	unsigned i;

	for (i = 0; i < WORDS; i++) {
		value += (double)(next(&x) % 64) - 31.5;
		memcpy(page + (size_t)i * 8, &value, 8);
	}
}

static void make_page(char *page, uint32_t nr)
{
	uint64_t x = tmem_hash_word(nr + 1);

	switch (nr % 16) {
	case 0:
		make_noise(page, x);
		break;
	case 1:
	case 2:
		make_same(page, x);
		break;
	case 3:
	case 4:
		make_values(page, x);
		break;
	case 5:
	case 6:
		make_records(page, x, PAGE / 2);
		break;
	case 7:
	case 8:
	case 9:
	case 10:
		make_records(page, x, PAGE);
		break;
	default:
		make_text(page, x);
		break;
	}
}

int tmem_pages_built_in(uint32_t nr, struct tmem_pages *ret)
{
	int r = tmem_pages_open(nr, ret);

	if (r)
		return r;
	for (; ret->nr < nr; ret->nr++)
		make_page(tmem_pages_at(ret, ret->nr), ret->nr);
	return 0;
}
