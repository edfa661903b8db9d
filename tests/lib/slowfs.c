/* SPDX-License-Identifier: MIT */
/*
 * See slowfs.h.  One thread reads requests from /dev/fuse and answers them,
 * but for those that are held: these it keeps, whole, in a list, and answers
 * when the mood changes.
 *
 * The mount is in a name space of the test's own: nobody else can come upon it.
 * A test that is killed closes its file when nobody answers any more; so FLUSH
 * is answered ENOSYS once at first, and the kernel never asks again.
 *
 * The kernel makes a short answer to a direct write EIO.
 */
#include "slowfs.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "fstest.h"

enum {
	FILE_NODE = 2,
	MAX_HELD = 256,
	MAX_WRITE = 1 << 20,
	BUFFER_BYTES = MAX_WRITE + 4096
};

struct slowfs {
	char dir[64];
	int fd;
	int stop[2];
	uint64_t nr_bytes;
	unsigned char *bytes;
	char *buffer;
	pthread_t thread;
	pthread_mutex_t mutex;
	struct slowfs_mood mood;
	char *held[MAX_HELD];
	unsigned nr_held;
	unsigned nr_punched;
};

static void reply(struct slowfs *fs, const struct fuse_in_header *in, int error,
		  const void *data, size_t nr_bytes)
{
	struct fuse_out_header out = { .unique = in->unique, .error = -error };
	size_t bytes = sizeof(out) + (error ? 0 : nr_bytes);
	char *packet = malloc(bytes);

	CHECK(packet != NULL);
	out.len = (uint32_t)bytes;
	memcpy(packet, &out, sizeof(out));
	if (!error && nr_bytes)
		memcpy(packet + sizeof(out), data, nr_bytes);
	/* ENOENT: the request was given up. */
	CHECK(write(fs->fd, packet, bytes) == (ssize_t)bytes ||
	      errno == ENOENT || errno == ENODEV);
	free(packet);
}

static struct fuse_attr attr_of(const struct slowfs *fs, uint64_t node)
{
	bool is_file = node == FILE_NODE;

	return (struct fuse_attr){ .ino = node,
				   .size = is_file ? fs->nr_bytes : 0,
				   .mode = is_file ? S_IFREG | 0600
						   : S_IFDIR | 0700,
				   .nlink = 1,
				   .blksize = 4096 };
}

static void do_read(struct slowfs *fs, const struct fuse_in_header *in)
{
	const struct fuse_read_in *r = (const void *)(in + 1);
	uint64_t left = r->offset < fs->nr_bytes ? fs->nr_bytes - r->offset : 0;
	size_t n = r->size < left ? r->size : (size_t)left;

	if (fs->mood.shorten && n > fs->mood.shorten)
		n = fs->mood.shorten;
	reply(fs, in, fs->mood.read_error, fs->bytes + r->offset, n);
}

static void do_write(struct slowfs *fs, const struct fuse_in_header *in)
{
	const struct fuse_write_in *w = (const void *)(in + 1);
	struct fuse_write_out out = { .size = w->size };
	int error = fs->mood.write_error;

	if (fs->mood.shorten && out.size > fs->mood.shorten)
		out.size = fs->mood.shorten;
	if (fs->mood.full_above && w->offset + out.size > fs->mood.full_above) {
		/* Some of it is written even so. */
		if (w->offset < fs->mood.full_above)
			memcpy(fs->bytes + w->offset, w + 1,
			       fs->mood.full_above - w->offset);
		error = ENOSPC;
	}
	if (w->offset + out.size > fs->nr_bytes)
		error = EFBIG;
	if (!error)
		memcpy(fs->bytes + w->offset, w + 1, out.size);
	reply(fs, in, error, &out, sizeof(out));
}

static void do_fallocate(struct slowfs *fs, const struct fuse_in_header *in)
{
	const struct fuse_fallocate_in *f = (const void *)(in + 1);

	if (!fs->mood.no_punch && f->mode & 2) {
		memset(fs->bytes + f->offset, 0, f->length);
		fs->nr_punched++;
	}
	reply(fs, in, fs->mood.no_punch ? EOPNOTSUPP : 0, NULL, 0);
}

static void do_init(struct slowfs *fs, const struct fuse_in_header *in)
{
	const struct fuse_init_in *i = (const void *)(in + 1);
	struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION,
				     .minor = FUSE_KERNEL_MINOR_VERSION,
				     .max_readahead = i->max_readahead,
				     .flags = FUSE_MAX_PAGES | FUSE_BIG_WRITES |
					      FUSE_ASYNC_READ | FUSE_ASYNC_DIO,
				     .max_background = 64,
				     .congestion_threshold = 64,
				     .max_write = MAX_WRITE,
				     .max_pages = MAX_WRITE / 4096 };

	reply(fs, in, 0, &out, sizeof(out));
}

static void do_metadata(struct slowfs *fs, const struct fuse_in_header *in)
{
	struct fuse_entry_out entry = { .nodeid = FILE_NODE,
					.attr = attr_of(fs, FILE_NODE) };
	struct fuse_attr_out attr = { .attr = attr_of(fs, in->nodeid) };
	struct fuse_open_out open = { .fh = 1 };

	if (in->opcode == FUSE_LOOKUP)
		reply(fs, in, 0, &entry, sizeof(entry));
	else if (in->opcode == FUSE_OPEN)
		reply(fs, in, 0, &open, sizeof(open));
	else
		reply(fs, in, 0, &attr, sizeof(attr));
}

static void obey(struct slowfs *fs, const struct fuse_in_header *in)
{
	switch (in->opcode) {
	case FUSE_INIT:
		do_init(fs, in);
		break;
	case FUSE_LOOKUP:
	case FUSE_OPEN:
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		do_metadata(fs, in);
		break;
	case FUSE_READ:
		do_read(fs, in);
		break;
	case FUSE_WRITE:
		do_write(fs, in);
		break;
	case FUSE_FALLOCATE:
		do_fallocate(fs, in);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	case FUSE_RELEASE:
		reply(fs, in, 0, NULL, 0);
		break;
	default:
		reply(fs, in, ENOSYS, NULL, 0);
		break;
	}
}

static void take(struct slowfs *fs, size_t nr_bytes)
{
	const struct fuse_in_header *in = (const void *)fs->buffer;
	char *copy;

	pthread_mutex_lock(&fs->mutex);
	if (fs->mood.hold &&
	    (in->opcode == FUSE_READ || in->opcode == FUSE_WRITE)) {
		copy = malloc(nr_bytes);
		CHECK(copy != NULL && fs->nr_held < MAX_HELD);
		memcpy(copy, fs->buffer, nr_bytes);
		fs->held[fs->nr_held++] = copy;
	} else {
		obey(fs, in);
	}
	pthread_mutex_unlock(&fs->mutex);
}

static void *serve(void *arg)
{
	struct slowfs *fs = arg;
	struct pollfd p[2] = { { fs->fd, POLLIN, 0 },
			       { fs->stop[0], POLLIN, 0 } };

	for (;;) {
		ssize_t n;

		CHECK(poll(p, 2, -1) > 0);
		if (p[1].revents)
			return NULL;
		n = read(fs->fd, fs->buffer, BUFFER_BYTES);
		if (n > 0)
			take(fs, (size_t)n);
		else if (errno == ENODEV)
			return NULL;
	}
}

struct slowfs *slowfs_create(uint64_t bytes)
{
	struct slowfs *fs = calloc(1, sizeof(*fs));
	char options[128];

	CHECK(fs != NULL);
	strcpy(fs->dir, "/tmp/tmem-slowfs-XXXXXX");
	fs->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fs->fd < 0 || !mkdtemp(fs->dir)) {
		free(fs);
		return NULL;
	}
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40700,user_id=0,group_id=0", fs->fd);
	if (unshare(CLONE_NEWNS) ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("slowfs", fs->dir, "fuse", MS_NOSUID | MS_NODEV, options)) {
		rmdir(fs->dir);
		close(fs->fd);
		free(fs);
		return NULL;
	}
	fs->nr_bytes = bytes;
	fs->bytes = calloc(1, bytes);
	fs->buffer = malloc(BUFFER_BYTES);
	CHECK(fs->bytes && fs->buffer && pipe(fs->stop) == 0);
	pthread_mutex_init(&fs->mutex, NULL);
	CHECK_EQ(pthread_create(&fs->thread, NULL, serve, fs), 0);
	close(slowfs_file(fs));
	return fs;
}

void slowfs_destroy(struct slowfs *fs)
{
	static const struct slowfs_mood good;

	slowfs_set(fs, &good);
	umount2(fs->dir, MNT_DETACH);
	CHECK_EQ(write(fs->stop[1], "", 1), 1);
	pthread_join(fs->thread, NULL);
	rmdir(fs->dir);
	close(fs->stop[0]);
	close(fs->stop[1]);
	close(fs->fd);
	pthread_mutex_destroy(&fs->mutex);
	free(fs->bytes);
	free(fs->buffer);
	free(fs);
}

int slowfs_file(struct slowfs *fs)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "%s/f", fs->dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0);
	return fd;
}

void slowfs_set(struct slowfs *fs, const struct slowfs_mood *mood)
{
	pthread_mutex_lock(&fs->mutex);
	fs->mood = *mood;
	for (unsigned i = 0; !mood->hold && i < fs->nr_held; i++) {
		obey(fs, (const void *)fs->held[i]);
		free(fs->held[i]);
	}
	if (!mood->hold)
		fs->nr_held = 0;
	pthread_mutex_unlock(&fs->mutex);
}

unsigned slowfs_nr_held(struct slowfs *fs)
{
	unsigned n;

	pthread_mutex_lock(&fs->mutex);
	n = fs->nr_held;
	pthread_mutex_unlock(&fs->mutex);
	return n;
}

unsigned slowfs_nr_punched(struct slowfs *fs)
{
	unsigned n;

	pthread_mutex_lock(&fs->mutex);
	n = fs->nr_punched;
	pthread_mutex_unlock(&fs->mutex);
	return n;
}

void slowfs_get(struct slowfs *fs, uint64_t offset, void *to, size_t nr_bytes)
{
	pthread_mutex_lock(&fs->mutex);
	memcpy(to, fs->bytes + offset, nr_bytes);
	pthread_mutex_unlock(&fs->mutex);
}
