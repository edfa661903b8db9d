/* SPDX-License-Identifier: MIT */
/* See testimage.h. */
#include "testimage.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include "arena/pages.h"
#include "base/hash.h"

int image_memfd(void)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

int image_file(void)
{
	char name[] = "/var/tmp/tmem-image-XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);

	CHECK(fd >= 0);
	unlink(name);
	return fd;
}

bool image_in_memory(int fd)
{
	struct statfs fs;

	CHECK_EQ(fstatfs(fd, &fs), 0);
	return fs.f_type == TMPFS_MAGIC;
}

static void copy_bytes(int from, int to, off_t at, off_t end)
{
	static __thread char buffer[65536];

	while (at < end) {
		size_t want = end - at < (off_t)sizeof(buffer)
				      ? (size_t)(end - at)
				      : sizeof(buffer);
		ssize_t n = pread(from, buffer, want, at);

		CHECK(n > 0);
		CHECK_EQ(pwrite(to, buffer, (size_t)n, at), n);
		at += n;
	}
}

void image_copy(int from, int to)
{
	off_t end = lseek(from, 0, SEEK_END), at = 0, hole;

	CHECK_EQ(ftruncate(to, 0), 0);
	CHECK_EQ(ftruncate(to, end), 0);
	while (at < end && (at = lseek(from, at, SEEK_DATA)) >= 0) {
		hole = lseek(from, at, SEEK_HOLE);
		copy_bytes(from, to, at, hole);
		at = hole;
	}
}

/* A place in data, beyond the superblock. */
static off_t place_in(int fd, struct rng *rng)
{
	off_t end = lseek(fd, 0, SEEK_END), at;

	do
		at = lseek(fd, 4096 + (off_t)rng_below(rng, (uint64_t)end),
			   SEEK_DATA);
	while (at < 4096);
	return at + (off_t)rng_below(rng, 4096);
}

/* One in four in what says where spans and slots are. */
static off_t choose(int fd, struct rng *rng)
{
	off_t at = place_in(fd, rng);

	switch (rng_below(rng, 4)) {
	case 0:
		return at / TMEM_CHUNK_BYTES * TMEM_CHUNK_BYTES +
		       TMEM_CHUNK_RUNS_AT + (off_t)rng_below(rng, 512);
	case 1:
		return (at & ~63ll) + (off_t)rng_below(rng, 24);
	default:
		return at;
	}
}

void image_damage(int fd, struct rng *rng, unsigned nr)
{
	while (nr-- > 0) {
		off_t at = choose(fd, rng);
		uint64_t word;

		if (rng_below(rng, 4)) {
			CHECK_EQ(pread(fd, &word, 1, at), 1);
			word ^= 1u << rng_below(rng, 8);
			CHECK_EQ(pwrite(fd, &word, 1, at), 1);
		} else {
			word = rng_below(rng, 2) ? 0 : rng_next(rng);
			CHECK_EQ(pwrite(fd, &word, 8, at & ~7ll), 8);
		}
	}
}

/* image.c has the layout: eight words and their sum. */
void image_other_boot(int fd)
{
	uint64_t words[9], sum = 0;
	unsigned i;

	CHECK_EQ(pread(fd, words, sizeof(words), 0), sizeof(words));
	words[4] ^= 1;
	for (i = 0; i < 8; i++)
		sum = tmem_hash_more(sum, words[i]);
	words[8] = sum;
	CHECK_EQ(pwrite(fd, words, sizeof(words), 0), sizeof(words));
}
