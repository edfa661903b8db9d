/* SPDX-License-Identifier: MIT */
/* Chunks in a file; the model is in image.h. */
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/sys.h"
#include "map.h"
#include "pages.h"

#define IMAGE_MAGIC 0x6567616d692d6d74ull /* "tm-image" */

enum {
	VERSION = 1,
	SUPER_CHUNKS_AT = 1024, /* how many there are; 0: not known */
	SUPER_WORD_AT = 2048,
	SUPER_LABELS_AT = 3072,
	BOOT_BYTES = 40,
	CHUNKS_LEAST = 64,
	CHUNKS_MOST = 1 << 24,
	SLACK = 4096, /* records */
	/* Address space for each byte of the limit: spans may be sparse. */
	ROOM = 4,
	CLASS_BITS = 7,
	SPAN_BITS = 25
};

#define CHUNK ((uint64_t)TMEM_CHUNK_BYTES)

struct super {
	uint64_t magic;
	uint32_t version;
	uint32_t nr_shards;
	uint64_t clean;
	char boot[BOOT_BYTES];
	uint64_t sum;
};
_Static_assert(sizeof(struct super) == 72, "a format");

static uint64_t sum_of(const struct super *super)
{
	const char *p = (const char *)super;
	uint64_t sum = 0, word;
	size_t at;

	for (at = 0; at < offsetof(struct super, sum); at += sizeof(word)) {
		memcpy(&word, p + at, sizeof(word));
		sum = tmem_hash_more(sum, word);
	}
	return sum;
}

/* The kernel's name for the time since the machine started. */
static int read_boot(char *ret_boot)
{
	long fd = tmem_sys(SYS_openat, AT_FDCWD,
			   "/proc/sys/kernel/random/boot_id",
			   O_RDONLY | O_CLOEXEC);
	long n;

	if (fd < 0)
		return (int)fd;
	memset(ret_boot, 0, BOOT_BYTES);
	n = tmem_sys(SYS_read, fd, ret_boot, 36);
	tmem_sys_close((int)fd);
	return n == 36 ? 0 : -EIO;
}

static int write_super(struct tmem_image *image, bool clean)
{
	char page[4096] = { 0 };
	struct super super = { .magic = IMAGE_MAGIC,
			       .version = VERSION,
			       .nr_shards = image->nr_shards,
			       .clean = clean };
	/* A new one at once, so that it is never half there. */
	size_t bytes = image->is_new ? sizeof(page) : sizeof(super);
	long r = image->in_memory ? 0 : read_boot(super.boot);

	if (r < 0)
		return (int)r;
	super.sum = sum_of(&super);
	memcpy(page, &super, sizeof(super));
	r = tmem_sys(SYS_pwrite64, image->fd, page, bytes, 0);
	if (r >= 0 && (size_t)r != bytes)
		r = -EIO;
	if (r >= 0 && !image->in_memory)
		r = tmem_sys(SYS_fsync, image->fd);
	return r < 0 ? (int)r : 0;
}

static int read_super(struct tmem_image *image)
{
	struct super super = { 0 };
	char boot[BOOT_BYTES];
	long r = tmem_sys(SYS_pread64, image->fd, &super, sizeof(super), 0);

	if (r < 0)
		return (int)r;
	if (r != sizeof(super) || super.magic != IMAGE_MAGIC)
		return -EBADMSG;
	if (super.version != VERSION)
		return -EPROTONOSUPPORT;
	if (super.sum != sum_of(&super) ||
	    (super.nr_shards != 16 && super.nr_shards != 64))
		return -EBADMSG;
	image->nr_shards = super.nr_shards;
	image->is_open = !super.clean;
	if (image->in_memory || super.clean)
		return 0;
	r = read_boot(boot);
	if (r < 0)
		return (int)r;
	return memcmp(boot, super.boot, BOOT_BYTES) ? -ESTALE : 0;
}

/* In the file; it is that long already. */
static void note_chunks(struct tmem_image *image)
{
	uint64_t *word = (uint64_t *)(void *)(image->base + SUPER_CHUNKS_AT);

	__atomic_store_n(word, image->nr_chunks, __ATOMIC_RELAXED);
}

/* Is all there that was?  0 or -EBADMSG. */
static int check_chunks(const struct tmem_image *image, uint64_t file_bytes)
{
	uint64_t chunks = 0;
	long r = tmem_sys(SYS_pread64, image->fd, &chunks, sizeof(chunks),
			  SUPER_CHUNKS_AT);

	if (r < 0)
		return (int)r;
	return chunks > file_bytes / CHUNK ? -EBADMSG : 0;
}

/* Regular, ours, and what is in it. */
static int examine(struct tmem_image *image, uint64_t max_bytes)
{
	uint64_t chunks = max_bytes / CHUNK * ROOM + CHUNKS_LEAST;
	struct statfs fs = { 0 };
	struct stat st = { 0 };
	long r = tmem_sys(SYS_fstat, image->fd, &st);

	if (r == 0)
		r = tmem_sys(SYS_fstatfs, image->fd, &fs);
	if (r < 0)
		return (int)r;
	if (!S_ISREG(st.st_mode) || fs.f_type == HUGETLBFS_MAGIC)
		return -EINVAL;
	r = tmem_sys(SYS_flock, image->fd, LOCK_EX | LOCK_NB);
	if (r < 0)
		return r == -EWOULDBLOCK ? -EBUSY : (int)r;
	image->in_memory = fs.f_type == TMPFS_MAGIC;
	image->knows_holes = image->in_memory ||
			     fs.f_type == EXT4_SUPER_MAGIC ||
			     fs.f_type == XFS_SUPER_MAGIC;
	/* Again: it may have grown until it was locked. */
	r = tmem_sys(SYS_fstat, image->fd, &st);
	if (r < 0)
		return (int)r;
	image->is_new = st.st_size == 0;
	if (!image->is_new && (r = read_super(image)) < 0)
		return (int)r;
	if (!image->is_new &&
	    (r = check_chunks(image, (uint64_t)st.st_size)) < 0)
		return (int)r;
	image->nr_chunks =
		(uint32_t)(((uint64_t)st.st_size + CHUNK - 1) / CHUNK);
	if ((uint64_t)st.st_size > CHUNKS_MOST * CHUNK)
		return -EFBIG;
	if (image->nr_chunks == 0)
		image->nr_chunks = 1;
	if (chunks < image->nr_chunks)
		chunks = image->nr_chunks;
	image->max_chunks =
		chunks > CHUNKS_MOST ? CHUNKS_MOST : (uint32_t)chunks;
	return 0;
}

size_t tmem_image_private_bytes(const struct tmem_image *image)
{
	return (image->max_chunks / 8 + 4096) & ~(size_t)4095;
}

/* Address space aligned to a chunk, with the file in it. */
static int map_file(struct tmem_image *image)
{
	size_t bytes = (size_t)image->max_chunks * CHUNK;
	char *raw = tmem_sys_map_anon(bytes + CHUNK, PROT_NONE);
	size_t skip = -(uintptr_t)raw & (CHUNK - 1);
	long r;

	if (!raw)
		return -ENOMEM;
	if (skip)
		tmem_sys_unmap(raw, skip);
	tmem_sys_unmap(raw + skip + bytes, CHUNK - skip);
	r = tmem_sys(SYS_mmap, raw + skip, bytes, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_FIXED | MAP_NORESERVE, image->fd, 0);
	if (r < 0 && r > -4096) {
		tmem_sys_unmap(raw + skip, bytes);
		return (int)r;
	}
	image->base = raw + skip;
	tmem_sys_madvise(image->base, bytes, MADV_NOHUGEPAGE);
	/* A child must not write where its parent does. */
	tmem_sys_madvise(image->base, bytes, MADV_DONTFORK);
	image->used = tmem_map->map(tmem_image_private_bytes(image), 4096);
	if (!image->used)
		return -ENOMEM;
	image->used[0] = 1;
	image->hint = 1;
	return 0;
}

int tmem_image_open(struct tmem_image *image, int fd, uint64_t max_bytes,
		    uint32_t nr_shards)
{
	long r = tmem_sys_open_anew(fd);

	*image = (struct tmem_image){ .fd = (int)r, .nr_shards = nr_shards };
	if (r < 0)
		return (int)r;
	r = examine(image, max_bytes);
	if (r == 0)
		r = map_file(image);
	if (r < 0)
		tmem_image_close(image, false);
	return (int)r;
}

int tmem_image_begin(struct tmem_image *image)
{
	const int keep = FALLOC_FL_KEEP_SIZE;
	long r = image->is_open ? 0 : write_super(image, false);

	/* Whole chunks; and can it do what will be wanted of it? */
	if (r == 0)
		r = tmem_sys(SYS_ftruncate, image->fd,
			     image->nr_chunks * CHUNK);
	if (r == 0)
		r = tmem_sys(SYS_fallocate, image->fd, keep, 4096, 4096);
	if (r == 0)
		r = tmem_sys(SYS_fallocate, image->fd,
			     keep | FALLOC_FL_PUNCH_HOLE, 4096, 4096);
	if (r == 0)
		note_chunks(image);
	return (int)r;
}

void tmem_image_close(struct tmem_image *image, bool clean)
{
	if (image->fd < 0)
		return;
	if (clean && !image->in_memory && tmem_sys(SYS_fsync, image->fd) == 0) {
		image->is_new = false;
		write_super(image, true);
	}
	if (image->base)
		tmem_sys_unmap(image->base, image->max_chunks * CHUNK);
	if (image->used)
		tmem_map->unmap(image->used, tmem_image_private_bytes(image));
	tmem_sys_close(image->fd);
	*image = (struct tmem_image){ .fd = -1 };
}

static uint32_t number_of(const struct tmem_image *image, const void *start)
{
	return (uint32_t)((uint64_t)((const char *)start - image->base) /
			  CHUNK);
}

static uint64_t offset_of(const struct tmem_image *image, const void *start)
{
	return (uint64_t)((const char *)start - image->base);
}

static bool is_used(const struct tmem_image *image, uint32_t nr)
{
	return image->used[nr / 64] >> (nr % 64) & 1;
}

/* A number that no chunk has, within the file or at its end; or 0. */
static uint32_t free_number(struct tmem_image *image)
{
	uint32_t nr = image->hint;

	while (nr < image->nr_chunks && is_used(image, nr))
		nr++;
	if (nr >= image->max_chunks)
		return 0;
	if (nr == image->nr_chunks) {
		if (tmem_sys(SYS_ftruncate, image->fd, (nr + 1) * CHUNK) < 0)
			return 0;
		image->nr_chunks++;
		note_chunks(image);
	}
	image->hint = nr;
	return nr;
}

void *tmem_image_map(struct tmem_image *image)
{
	uint32_t nr = free_number(image);
	char *chunk = image->base + nr * CHUNK;

	if (!nr ||
	    !tmem_image_populate(image, chunk, TMEM_CHUNK_HEAD_PAGES * 4096ul))
		return NULL;
	tmem_image_adopt(image, chunk);
	return chunk;
}

void tmem_image_unmap(struct tmem_image *image, void *chunk)
{
	uint32_t nr = number_of(image, chunk);

	tmem_image_discard(image, chunk, CHUNK);
	image->used[nr / 64] &= ~(1ull << nr % 64);
	if (nr < image->hint)
		image->hint = nr;
}

void tmem_image_adopt(struct tmem_image *image, void *chunk)
{
	uint32_t nr = number_of(image, chunk);

	image->used[nr / 64] |= 1ull << nr % 64;
}

void *tmem_image_next(struct tmem_image *image, uint32_t *nr)
{
	if (image->knows_holes) {
		long at =
			tmem_sys(SYS_lseek, image->fd, *nr * CHUNK, SEEK_DATA);

		if (at < 0)
			return NULL;
		*nr = (uint32_t)((uint64_t)at / CHUNK);
	}
	return *nr < image->nr_chunks ? image->base + *nr * CHUNK : NULL;
}

uint64_t tmem_image_most(const struct tmem_image *image, unsigned per_page)
{
	return 2ull * image->nr_chunks * TMEM_CHUNK_PAGES * per_page + SLACK;
}

void tmem_image_find_data(const struct tmem_image *image, const void *chunk,
			  uint64_t *ret_pages)
{
	uint64_t start = offset_of(image, chunk), at = start;
	uint64_t end = start + CHUNK;

	/* Who does not know them gets them read, as zeroes. */
	memset(ret_pages, image->knows_holes ? 0 : 0xff, TMEM_CHUNK_PAGES / 8);
	while (image->knows_holes && at < end) {
		long data = tmem_sys(SYS_lseek, image->fd, at, SEEK_DATA);
		long hole;

		if (data < 0 || (uint64_t)data >= end)
			break;
		hole = tmem_sys(SYS_lseek, image->fd, data, SEEK_HOLE);
		at = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
		for (; (uint64_t)data < at; data += 4096) {
			uint64_t page = ((uint64_t)data - start) / 4096;

			ret_pages[page / 64] |= 1ull << page % 64;
		}
	}
}

bool tmem_image_populate(const struct tmem_image *image, void *start,
			 size_t bytes)
{
	long r;

	do
		r = tmem_sys(SYS_fallocate, image->fd, FALLOC_FL_KEEP_SIZE,
			     offset_of(image, start), bytes);
	while (r == -EINTR);
	return r == 0;
}

void tmem_image_discard(const struct tmem_image *image, void *start,
			size_t bytes)
{
	long r;

	do
		r = tmem_sys(SYS_fallocate, image->fd,
			     FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
			     offset_of(image, start), bytes);
	while (r == -EINTR);
	/* The memory stays; what was there must not. */
	if (r < 0)
		memset(start, 0, bytes);
}

/* Where the word lies of the run that begins at `start`, and its hash. */
static uint64_t *run_at(const struct tmem_image *image, const void *start)
{
	uint64_t offset = offset_of(image, start);

	return (uint64_t *)(image->base + offset / CHUNK * CHUNK +
			    TMEM_CHUNK_RUNS_AT) +
	       offset % CHUNK / 4096;
}

static uint64_t run_word(const struct tmem_image *image, const void *start,
			 uint64_t span, unsigned class)
{
	uint64_t low = span << CLASS_BITS | class;
	uint64_t hash = tmem_hash_word(offset_of(image, start) / 4096);

	return tmem_hash_more(hash, low) << 32 | low;
}

void tmem_image_set_run(const struct tmem_image *image, void *start,
			uint32_t span, unsigned class)
{
	uint64_t word = class ? run_word(image, start, span, class) : 0;

	TMEM_ASSERT(!(span >> SPAN_BITS));
	__atomic_store_n(run_at(image, start), word, __ATOMIC_RELEASE);
}

bool tmem_image_get_run(const struct tmem_image *image, const void *start,
			uint32_t *ret_span, unsigned *ret_class)
{
	uint64_t word = *run_at(image, start);
	uint32_t span = (uint32_t)word >> CLASS_BITS;
	unsigned class = word & ((1u << CLASS_BITS) - 1);

	if (!class || word != run_word(image, start, span, class))
		return false;
	*ret_span = span;
	*ret_class = class;
	return true;
}

static uint64_t *word_of(const struct tmem_image *image)
{
	return (uint64_t *)(image->base + SUPER_WORD_AT);
}

uint64_t tmem_image_word(const struct tmem_image *image)
{
	return __atomic_load_n(word_of(image), __ATOMIC_RELAXED);
}

void tmem_image_set_word(const struct tmem_image *image, uint64_t word)
{
	__atomic_store_n(word_of(image), word, __ATOMIC_RELEASE);
}

/* A tier's label, as it lies in the superblock's page. */
struct label {
	uint64_t words[2];
	uint64_t sum;
	uint64_t zero;
};
_Static_assert(sizeof(struct label) == 32, "a format");

static uint64_t label_sum(const struct label *label, unsigned nr)
{
	uint64_t sum = tmem_hash_more(tmem_hash_word(nr + 1), label->words[0]);

	return tmem_hash_more(sum, label->words[1]) | 1;
}

bool tmem_image_get_label(const struct tmem_image *image, unsigned nr,
			  uint8_t ret_label[TMEM_IMAGE_LABEL_BYTES])
{
	struct label label = { 0 };

	/* A new image has no page to be looked at yet. */
	if (tmem_sys(SYS_pread64, image->fd, &label, sizeof(label),
		     SUPER_LABELS_AT + nr * sizeof(label)) != sizeof(label) ||
	    label.sum != label_sum(&label, nr))
		return false;
	memcpy(ret_label, label.words, TMEM_IMAGE_LABEL_BYTES);
	return true;
}

void tmem_image_set_label(const struct tmem_image *image, unsigned nr,
			  const uint8_t label[TMEM_IMAGE_LABEL_BYTES])
{
	struct label new = { 0 };

	memcpy(new.words, label, sizeof(new.words));
	new.sum = label_sum(&new, nr);
	memcpy(image->base + SUPER_LABELS_AT + nr * sizeof(new), &new,
	       sizeof(new));
}
