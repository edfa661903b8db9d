/* SPDX-License-Identifier: MIT */
/*
 * io_uring into and out of evicted pages.
 *
 *   plain       READ and WRITE, many in flight
 *   vector      READV and WRITEV
 *   registered  buffers registered (and so pinned) while under eviction
 *               pressure: what the kernel writes later must be visible, and
 *               what the program writes later must reach the file
 *   late        buffers registered after their pages were evicted
 *   pipe        reads that wait until the pages are evicted, then complete
 *   sqpoll      a kernel thread submits for the program
 */
#include "torture.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	DEPTH = 64,
	PINNED = 256
};

static struct tt_region source;
static unsigned char *target;
static struct io_uring ring;
static int fd;

static void setup(size_t pages, unsigned flags)
{
	int r = io_uring_queue_init(DEPTH, &ring, flags);

	if (r == -ENOSYS || r == -EPERM)
		tt_skip("io_uring: %s", strerror(-r));
	TT_ZERO(-r);
	tt_pressure_init(60);
	tt_region_map(&source, pages, 1);
	tt_region_fill(&source);
	target = tt_map(pages * TT_PAGE);
	memset(target, 0xee, pages * TT_PAGE);
	fd = tt_temp_file(O_DIRECT);
	TT_SYS(ftruncate(fd, (off_t)(pages * TT_PAGE)));
	tt_pressure();
}

static void cleanup(void)
{
	io_uring_queue_exit(&ring);
	tt_region_verify(&source);
	TT_SYS(munmap(target, source.nr_pages * TT_PAGE));
	tt_region_unmap(&source);
	close(fd);
}

static void check_target(void)
{
	for (size_t nr = 0; nr < source.nr_pages; nr++)
		tt_check(target + nr * TT_PAGE, source.id, nr,
			 source.version[nr]);
}

static void reap(unsigned count)
{
	while (count--) {
		struct io_uring_cqe *cqe;
		int r;

		do
			r = io_uring_wait_cqe(&ring, &cqe);
		while (r == -EINTR);
		TT_ZERO(-r);
		if (cqe->res != (int)TT_PAGE)
			tt_fail("io_uring: result %d of page %llu", cqe->res,
				(unsigned long long)cqe->user_data);
		io_uring_cqe_seen(&ring, cqe);
	}
}

typedef void prepare_fn(struct io_uring_sqe *sqe, size_t nr, bool writes);

/* Every page once, DEPTH in flight, in a mixed order. */
static void run_all(prepare_fn *prepare, bool writes)
{
	size_t n = source.nr_pages, done = 0;

	while (done < n) {
		unsigned batch = 0;

		for (; batch < DEPTH && done < n; batch++, done++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
			size_t nr = done / 2 + (done % 2 ? (n + 1) / 2 : 0);

			TT_ASSERT(sqe != NULL);
			prepare(sqe, nr, writes);
			io_uring_sqe_set_data64(sqe, nr);
		}
		TT_ASSERT(io_uring_submit(&ring) >= 0);
		reap(batch);
	}
}

static void prepare_plain(struct io_uring_sqe *sqe, size_t nr, bool writes)
{
	if (writes)
		io_uring_prep_write(sqe, fd, source.base + nr * TT_PAGE,
				    TT_PAGE, nr * TT_PAGE);
	else
		io_uring_prep_read(sqe, fd, target + nr * TT_PAGE, TT_PAGE,
				   nr * TT_PAGE);
}

static void write_and_read(prepare_fn *prepare, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		run_all(prepare, true);
		tt_pressure();
		run_all(prepare, false);
		check_target();
		tt_region_fill(&source);
		memset(target, (int)i, source.nr_pages * TT_PAGE);
		tt_pressure();
	}
}

static void plain(void)
{
	setup(tt_pages(15), 0);
	write_and_read(prepare_plain, 3);
	cleanup();
}

static void sqpoll(void)
{
	setup(tt_pages(15), IORING_SETUP_SQPOLL);
	write_and_read(prepare_plain, 2);
	cleanup();
}

static struct iovec vectors[DEPTH * 2];
static unsigned next_vector;

static void prepare_vector(struct io_uring_sqe *sqe, size_t nr, bool writes)
{
	unsigned char *at = (writes ? source.base : target) + nr * TT_PAGE;
	struct iovec *v = &vectors[next_vector++ % DEPTH * 2ul];

	v[0] = (struct iovec){ at, 512 };
	v[1] = (struct iovec){ at + 512, TT_PAGE - 512 };
	if (writes)
		io_uring_prep_writev(sqe, fd, v, 2, nr * TT_PAGE);
	else
		io_uring_prep_readv(sqe, fd, v, 2, nr * TT_PAGE);
}

static void vector(void)
{
	setup(tt_pages(15), 0);
	write_and_read(prepare_vector, 2);
	cleanup();
}

/* Buffer 0 is the source, buffer 1 the target. */
static void prepare_fixed(struct io_uring_sqe *sqe, size_t nr, bool writes)
{
	if (writes)
		io_uring_prep_write_fixed(sqe, fd, source.base + nr * TT_PAGE,
					  TT_PAGE, nr * TT_PAGE, 0);
	else
		io_uring_prep_read_fixed(sqe, fd, target + nr * TT_PAGE,
					 TT_PAGE, nr * TT_PAGE, 1);
}

static void register_buffers(void)
{
	struct iovec both[2] = { { source.base, PINNED * TT_PAGE },
				 { target, PINNED * TT_PAGE } };

	TT_ZERO(-io_uring_register_buffers(&ring, both, 2));
}

static void registered(void)
{
	setup(PINNED, 0);
	tt_region_verify(&source);
	register_buffers();
	write_and_read(prepare_fixed, 4);
	TT_ZERO(-io_uring_unregister_buffers(&ring));
	tt_pressure();
	write_and_read(prepare_plain, 1);
	cleanup();
}

static void late(void)
{
	setup(PINNED, 0);
	for (unsigned i = 0; i < 3; i++) {
		tt_pressure();
		register_buffers();
		write_and_read(prepare_fixed, 2);
		TT_ZERO(-io_uring_unregister_buffers(&ring));
	}
	cleanup();
}

static void waiting_pipe(void)
{
	size_t nr;
	int ends[2];

	setup(tt_pages(15), 0);
	TT_SYS(pipe(ends));
	for (unsigned round = 0; round < 4; round++) {
		for (nr = 0; nr < 8; nr++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);

			io_uring_prep_read(sqe, ends[0],
					   target + nr * 5 * TT_PAGE, TT_PAGE,
					   0);
			sqe->flags |= IOSQE_IO_LINK; /* one after the other */
			if (nr == 7)
				sqe->flags = 0;
			io_uring_sqe_set_data64(sqe, nr);
		}
		TT_ASSERT(io_uring_submit(&ring) == 8);
		tt_pressure();
		tt_write_all(ends[1], source.base, 8 * TT_PAGE);
		reap(8);
		for (nr = 0; nr < 8; nr++)
			tt_check(target + nr * 5 * TT_PAGE, source.id, nr,
				 source.version[nr]);
		tt_region_fill(&source);
	}
	close(ends[0]);
	close(ends[1]);
	cleanup();
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "plain", plain },
						{ "vector", vector },
						{ "registered", registered },
						{ "late", late },
						{ "pipe", waiting_pipe },
						{ "sqpoll", sqpoll },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
