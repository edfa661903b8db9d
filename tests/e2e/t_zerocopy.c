/* SPDX-License-Identifier: MIT */
/*
 * Pages that the network or a pipe still refers to while they are evicted.
 *
 *   zerocopy  MSG_ZEROCOPY over loopback TCP with a full window: the peer
 *             reads late and verifies each byte; the sender waits for the
 *             completions before it writes the pages again
 *   uring     likewise by io_uring's SEND_ZC
 *   vmsplice  pages given to a pipe by reference, then evicted, then read
 *   gift      likewise with SPLICE_F_GIFT, and the pages unmapped at once
 */
#include "torture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	SEND_PAGES = 16,
	ROUNDS = 4
};

static struct tt_region region;
static unsigned nr_sends, nr_completed;
static struct io_uring ring;
static bool by_uring;

static void setup(size_t pages)
{
	tt_pressure_init(60);
	tt_region_map(&region, pages, 1);
	tt_region_fill(&region);
	tt_pressure();
}

static void connect_pair(int *ret_out, int *ret_in)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t length = sizeof(address);
	int one = 1, small = 16 << 10, large = 8 << 20, listener;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = (int)TT_SYS(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	TT_SYS(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small,
			  sizeof(small)));
	TT_SYS(bind(listener, (void *)&address, sizeof(address)));
	TT_SYS(listen(listener, 1));
	TT_SYS(getsockname(listener, (void *)&address, &length));
	*ret_out = (int)TT_SYS(socket(AF_INET, SOCK_STREAM, 0));
	TT_SYS(setsockopt(*ret_out, SOL_SOCKET, SO_SNDBUFFORCE, &large,
			  sizeof(large)));
	TT_SYS(connect(*ret_out, (void *)&address, sizeof(address)));
	if (setsockopt(*ret_out, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)))
		tt_skip("SO_ZEROCOPY: %s", strerror(errno));
	*ret_in = (int)TT_SYS(accept(listener, NULL, NULL));
	close(listener);
}

/* Like send(), with errno. */
static ssize_t uring_send(int out, const void *from, size_t bytes)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	struct io_uring_cqe *cqe;
	bool notification;
	int r;

	TT_ASSERT(sqe != NULL);
	io_uring_prep_send_zc(sqe, out, from, bytes, MSG_DONTWAIT, 0);
	TT_ASSERT(io_uring_submit(&ring) == 1);
	do {
		TT_ZERO(-io_uring_wait_cqe(&ring, &cqe));
		notification = cqe->flags & IORING_CQE_F_NOTIF;
		nr_completed += notification;
		r = cqe->res;
		nr_sends += !notification && (cqe->flags & IORING_CQE_F_MORE);
		io_uring_cqe_seen(&ring, cqe);
	} while (notification);
	if (r == -EINVAL || r == -EOPNOTSUPP)
		tt_skip("io_uring can't SEND_ZC");
	errno = r < 0 ? -r : 0;
	return r < 0 ? -1 : r;
}

static ssize_t plain_send(int out, const void *from, size_t bytes)
{
	ssize_t r = send(out, from, bytes, MSG_ZEROCOPY | MSG_DONTWAIT);

	nr_sends += r >= 0;
	return r;
}

/* As many pages as the window and the send buffer take. */
static size_t send_until_full(int out, size_t first)
{
	size_t bytes = region.nr_pages * TT_PAGE, at = first;

	while (at < bytes) {
		size_t n = bytes - at;
		ssize_t r;

		if (n > SEND_PAGES * TT_PAGE)
			n = SEND_PAGES * TT_PAGE;
		r = by_uring ? uring_send(out, region.base + at, n)
			     : plain_send(out, region.base + at, n);
		if (r < 0 &&
		    (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM))
			break;
		TT_SYS(r);
		at += (size_t)r;
	}
	return at;
}

/* True if a completion was read. */
static bool read_completion(int out)
{
	char control[256];
	struct msghdr message = { .msg_control = control,
				  .msg_controllen = sizeof(control) };
	struct sock_extended_err *error;
	struct cmsghdr *c;

	if (recvmsg(out, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
		TT_ASSERT(errno == EAGAIN);
		return false;
	}
	c = CMSG_FIRSTHDR(&message);
	TT_ASSERT(c != NULL);
	error = (void *)CMSG_DATA(c);
	TT_ASSERT(error->ee_origin == SO_EE_ORIGIN_ZEROCOPY);
	nr_completed += error->ee_data - error->ee_info + 1;
	return true;
}

static void await_completions(int out)
{
	struct pollfd poller = { out, 0, 0 };
	struct io_uring_cqe *cqe;

	while (by_uring && nr_completed < nr_sends) {
		TT_ZERO(-io_uring_wait_cqe(&ring, &cqe));
		TT_ASSERT(cqe->flags & IORING_CQE_F_NOTIF);
		nr_completed++;
		io_uring_cqe_seen(&ring, cqe);
	}
	while (nr_completed < nr_sends)
		if (!read_completion(out))
			TT_SYS(poll(&poller, 1, -1));
}

static void *send_rest(void *argument)
{
	int out = *(int *)argument;
	struct pollfd poller = { out, POLLOUT, 0 };
	size_t at = *((size_t *)argument + 1);

	while (at < region.nr_pages * TT_PAGE) {
		size_t now = send_until_full(out, at);

		while (!by_uring && read_completion(out))
			;
		if (now == at)
			TT_SYS(poll(&poller, 1, 100));
		at = now;
	}
	return NULL;
}

static void receive_and_check(int in)
{
	unsigned char page[TT_PAGE];

	for (size_t nr = 0; nr < region.nr_pages; nr++) {
		tt_read_all(in, page, TT_PAGE);
		tt_check(page, region.id, nr, region.version[nr]);
	}
}

static void send_rounds(void)
{
	size_t argument[2] = { 0 };
	int out, in;

	setup(tt_pages(15));
	connect_pair(&out, &in);
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_t thread;

		nr_sends = nr_completed = 0;
		argument[0] = (size_t)out;
		argument[1] = send_until_full(out, 0);
		TT_ASSERT(argument[1] > 64 * TT_PAGE);
		tt_pressure(); /* while the sent pages wait for the window */
		thread = tt_thread(send_rest, argument);
		receive_and_check(in);
		tt_join(thread);
		await_completions(out);
		tt_region_verify(&region);
		tt_region_fill(&region);
		if (round % 2)
			tt_pressure();
	}
	close(out);
	close(in);
	tt_region_unmap(&region);
}

static void zerocopy(void)
{
	by_uring = false;
	send_rounds();
}

static void uring(void)
{
	int r = io_uring_queue_init(16, &ring, 0);

	if (r)
		tt_skip("io_uring: %s", strerror(-r));
	by_uring = true;
	send_rounds();
	io_uring_queue_exit(&ring);
}

static size_t vmsplice_some(int pipe_in, size_t first, unsigned flags)
{
	size_t bytes = region.nr_pages * TT_PAGE, at = first;

	while (at < bytes) {
		struct iovec v = { region.base + at, TT_PAGE };
		ssize_t r = vmsplice(pipe_in, &v, 1, SPLICE_F_NONBLOCK | flags);

		if (r < 0 && errno == EAGAIN)
			break;
		TT_ASSERT(r == TT_PAGE);
		at += (size_t)r;
	}
	return at;
}

static void run_vmsplice(unsigned flags, bool unmap)
{
	unsigned char page[TT_PAGE];
	int ends[2];

	setup(tt_pages(4));
	TT_SYS(pipe(ends));
	TT_SYS(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20));
	for (size_t first = 0; first < region.nr_pages * TT_PAGE;) {
		size_t end = vmsplice_some(ends[1], first, flags);

		TT_ASSERT(end > first);
		if (unmap)
			TT_SYS(munmap(region.base + first, end - first));
		tt_pressure();
		for (; first < end; first += TT_PAGE) {
			size_t nr = first / TT_PAGE;

			tt_read_all(ends[0], page, TT_PAGE);
			tt_check(page, region.id, nr, region.version[nr]);
		}
	}
	if (!unmap)
		tt_region_verify_shuffled(&region);
	close(ends[0]);
	close(ends[1]);
	if (!unmap) /* else others may have mapped something there */
		tt_region_unmap(&region);
}

static void vmsplices(void)
{
	run_vmsplice(0, false);
}

static void gift(void)
{
	run_vmsplice(SPLICE_F_GIFT, true);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "zerocopy", zerocopy },
						{ "uring", uring },
						{ "vmsplice", vmsplices },
						{ "gift", gift },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
