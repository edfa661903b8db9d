/* SPDX-License-Identifier: MIT */
/*
 * System calls whose buffers are evicted pages: the kernel itself faults
 * them in, in the middle of a read or a write.
 *
 *   file     write, pread, readv, pwritev of a file
 *   socket   send, recv, sendmsg, recvmsg over a socket pair
 *   results  calls that write small results: stat, clock_gettime, poll, ...
 *   strings  paths and vectors that are themselves evicted
 *   splice   pipe to file and file to pipe through evicted ends
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum {
	BATCH = 64
};

static struct tt_region source;
static unsigned char *target; /* as large as source */

static void setup(void)
{
	tt_pressure_init(60);
	tt_region_map(&source, tt_pages(15), 1);
	tt_region_fill(&source);
	target = tt_map(source.nr_pages * TT_PAGE);
	memset(target, 0xee, source.nr_pages * TT_PAGE);
	tt_pressure();
}

static void check_target(void)
{
	for (size_t nr = 0; nr < source.nr_pages; nr++)
		tt_check(target + nr * TT_PAGE, source.id, nr,
			 source.version[nr]);
}

static void cleanup(void)
{
	tt_region_verify(&source);
	TT_SYS(munmap(target, source.nr_pages * TT_PAGE));
	tt_region_unmap(&source);
}

/* Scatters the pages of `base` over a vector in a mixed order. */
static unsigned fill_vector(struct iovec *vector, unsigned char *base,
			    size_t first)
{
	unsigned n = 0;

	for (size_t nr = first; nr < source.nr_pages && n < BATCH; nr++, n++) {
		vector[n].iov_base = base + nr * TT_PAGE;
		vector[n].iov_len = TT_PAGE;
	}
	return n;
}

static void file_vectors(int fd)
{
	struct iovec vector[BATCH];

	memset(target, 0xdd, source.nr_pages * TT_PAGE);
	tt_pressure();
	for (size_t nr = 0; nr < source.nr_pages; nr += BATCH) {
		unsigned n = fill_vector(vector, source.base, nr);

		TT_ASSERT(pwritev(fd, vector, (int)n, (off_t)(nr * TT_PAGE)) ==
			  (ssize_t)(n * TT_PAGE));
		n = fill_vector(vector, target, nr);
		TT_ASSERT(preadv(fd, vector, (int)n, (off_t)(nr * TT_PAGE)) ==
			  (ssize_t)(n * TT_PAGE));
	}
	check_target();
}

static void file(void)
{
	int fd = tt_temp_file(0);

	setup();
	tt_write_all(fd, source.base, source.nr_pages * TT_PAGE);
	tt_pressure();
	TT_SYS(lseek(fd, 0, SEEK_SET));
	tt_read_all(fd, target, source.nr_pages * TT_PAGE);
	check_target();
	tt_region_fill(&source);
	tt_pressure();
	for (size_t nr = source.nr_pages; nr-- > 0;) {
		off_t at = (off_t)(nr * TT_PAGE);

		TT_ASSERT(pwrite(fd, source.base + at, TT_PAGE, at) == TT_PAGE);
		TT_ASSERT(pread(fd, target + at, TT_PAGE, at) == TT_PAGE);
	}
	check_target();
	tt_region_fill(&source);
	file_vectors(fd);
	close(fd);
	cleanup();
}

static int ends[2];

static void *sender(void *argument)
{
	struct iovec vector[BATCH];
	struct msghdr message = { .msg_iov = vector };

	(void)argument;
	for (size_t nr = 0; nr < source.nr_pages; nr++) {
		size_t sent = 0;

		while (nr % 2 && sent < TT_PAGE)
			sent += (size_t)TT_SYS(
				send(ends[0], source.base + nr * TT_PAGE + sent,
				     TT_PAGE - sent, 0));
		if (nr % 2)
			continue;
		message.msg_iovlen = 2;
		for (unsigned i = 0; i < 2; i++) {
			vector[i].iov_base =
				source.base + nr * TT_PAGE + i * 2048ul;
			vector[i].iov_len = 2048;
		}
		TT_ASSERT(sendmsg(ends[0], &message, 0) == TT_PAGE);
	}
	return NULL;
}

static void receive(int type)
{
	struct iovec vector[2];
	struct msghdr message = { .msg_iov = vector, .msg_iovlen = 2 };
	pthread_t thread;

	TT_SYS(socketpair(AF_UNIX, type, 0, ends));
	memset(target, 0xcc, source.nr_pages * TT_PAGE);
	tt_pressure();
	thread = tt_thread(sender, NULL);
	for (size_t nr = 0; nr < source.nr_pages; nr++) {
		unsigned char *at = target + nr * TT_PAGE;

		if (nr % 3) {
			TT_ASSERT(recv(ends[1], at, TT_PAGE, MSG_WAITALL) ==
				  TT_PAGE);
			continue;
		}
		vector[0] = (struct iovec){ at, 100 };
		vector[1] = (struct iovec){ at + 100, TT_PAGE - 100 };
		TT_ASSERT(recvmsg(ends[1], &message, MSG_WAITALL) == TT_PAGE);
	}
	tt_join(thread);
	check_target();
	close(ends[0]);
	close(ends[1]);
}

static void sockets(void)
{
	setup();
	receive(SOCK_STREAM);
	tt_region_fill(&source);
	receive(SOCK_SEQPACKET);
	cleanup();
}

/* Each call writes its result at the end of one evicted page. */
static void one_result(unsigned char *page, unsigned which)
{
	static const int fd = STDERR_FILENO;
	struct stat *status = (void *)(page + 64);
	struct timespec *now = (void *)(page + 64);
	struct utsname *name = (void *)(page + 64);
	struct rlimit *limit = (void *)(page + 64);
	fd_set *set = (void *)(page + 64);
	struct pollfd *poller = (void *)(page + 64);

	switch (which) {
	case 0:
		TT_SYS(stat("/", status));
		TT_ASSERT(S_ISDIR(status->st_mode));
		break;
	case 1:
		TT_SYS(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, now));
		TT_ASSERT(now->tv_sec >= 0 && now->tv_nsec < 1000000000);
		break;
	case 2:
		TT_SYS(uname(name));
		TT_ASSERT(!strcmp(name->sysname, "Linux"));
		break;
	case 3:
		TT_SYS(getrlimit(RLIMIT_NOFILE, limit));
		TT_ASSERT(limit->rlim_cur > 0);
		break;
	case 4:
		FD_ZERO(set);
		TT_SYS(select(1, NULL, NULL, set,
			      &(struct timeval){ .tv_usec = 0 }));
		break;
	case 5:
		*poller = (struct pollfd){ fd, POLLOUT, 0 };
		TT_SYS(poll(poller, 1, 0));
		break;
	case 6:
		TT_ASSERT(getcwd((char *)page + 64, 1000) != NULL);
		TT_ASSERT(page[64] == '/');
		break;
	default:
		TT_ASSERT(getrandom(page + 64, 900, 0) == 900);
		break;
	}
}

static void results(void)
{
	unsigned char expected[TT_PAGE];

	setup();
	for (size_t nr = 0; nr < source.nr_pages; nr++) {
		unsigned char *page = source.base + nr * TT_PAGE;

		one_result(page, nr % 8);
		/* What the call did not write is unchanged. */
		tt_fill(expected, source.id, nr, source.version[nr]);
		tt_same(page, expected, 64, "before a result");
		tt_same(page + 2048, expected + 2048, 2048, "after a result");
		tt_region_write(&source, nr);
	}
	cleanup();
}

static void strings(void)
{
	static const char name[] = "/proc/self/../self/status";
	char *path;
	char **vector;
	struct stat status;
	int fd = tt_temp_file(0);

	setup();
	for (size_t nr = 0; nr < source.nr_pages; nr += 10) {
		path = (char *)(target + nr * TT_PAGE);
		memcpy(path, name, sizeof(name));
	}
	tt_pressure();
	for (size_t nr = 0; nr < source.nr_pages; nr += 10) {
		path = (char *)(target + nr * TT_PAGE);
		TT_SYS(stat(path, &status));
		TT_ASSERT(S_ISREG(status.st_mode));
	}
	vector = (char **)(void *)target;
	vector[0] = (char *)(target + 20 * TT_PAGE);
	TT_SYS(access(vector[0], R_OK));
	tt_write_all(fd, source.base, 10 * TT_PAGE);
	tt_pressure();
	TT_ASSERT(pread(fd, target, 10 * TT_PAGE, 0) == 10 * TT_PAGE);
	for (size_t nr = 0; nr < 10; nr++)
		tt_check(target + nr * TT_PAGE, source.id, nr,
			 source.version[nr]);
	close(fd);
	cleanup();
}

static void splices(void)
{
	int fd = tt_temp_file(0), pipe_fd[2];

	setup();
	TT_SYS(pipe(pipe_fd));
	for (size_t nr = 0; nr < source.nr_pages; nr++) {
		tt_write_all(pipe_fd[1], source.base + nr * TT_PAGE, TT_PAGE);
		TT_ASSERT(splice(pipe_fd[0], NULL, fd, NULL, TT_PAGE, 0) ==
			  TT_PAGE);
	}
	tt_pressure();
	TT_SYS(lseek(fd, 0, SEEK_SET));
	for (size_t nr = 0; nr < source.nr_pages; nr++) {
		TT_ASSERT(splice(fd, NULL, pipe_fd[1], NULL, TT_PAGE, 0) ==
			  TT_PAGE);
		tt_read_all(pipe_fd[0], target + nr * TT_PAGE, TT_PAGE);
	}
	check_target();
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	close(fd);
	cleanup();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = {
		{ "file", file },	{ "socket", sockets },
		{ "results", results }, { "strings", strings },
		{ "splice", splices },	{ NULL }
	};

	tt_main(argc, argv, 192, cases);
}
