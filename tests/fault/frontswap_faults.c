/* SPDX-License-Identifier: MIT */
/*
 * The n-th system call fails, for n = 1, 2, 3... until the scenario gets
 * through: frontswap over the store and a swap file is opened, used, forked
 * on paper and closed.  After each: never a wrong page, a page that was
 * accepted is there, invariants hold, and neither memory, descriptors nor
 * slots are left behind.
 */
#include "faultsys.h"
#include "fstest.h"
#include "testfile.h"
#include "testproc.h"
#include "tmem/store.h"

enum {
	OFFSETS = 48,
	SLOTS = 64,
	STEPS = 160,
	BATCH = 6
};

struct scene {
	struct tmem_store *store;
	struct tmem_frontswap *fs;
	struct tmem_swapfile *file;
	int file_fd, map_fd;
	uint64_t tags[OFFSETS];
};

static void load(struct scene *s, uint64_t offset)
{
	unsigned long before = faultsys_struck();
	char page[PAGE];
	int r = tmem_frontswap_swap_in(s->fs, 1, offset, page);

	if (r == 0)
		CHECK(s->tags[offset] != 0 && page_is(page, s->tags[offset]));
	else
		CHECK(s->tags[offset] == 0 || faultsys_struck() != before);
}

static void swap_out(struct scene *s, uint64_t offset, uint64_t tag)
{
	char page[PAGE];
	int r;

	page_fill(page, tag);
	r = tmem_frontswap_swap_out(s->fs, 1, offset, page);
	CHECK(r <= 0);
	CHECK(r == 0 || r == -ENOSPC || faultsys_struck() != 0);
	s->tags[offset] = r == 0 ? tag : 0;
}

struct batch_write {
	struct tmem_swapdev_request request;
	int result;
};

static void batch_done(struct tmem_swapdev_request *request, int result)
{
	struct batch_write *w = request->arg;

	w->result = result;
}

/* Pages beside each other, straight to the device: one vectored write. */
static void swap_out_batch(struct scene *s, uint64_t offset, uint64_t tag)
{
	struct batch_write w[BATCH];
	char *pages = pages_alloc(BATCH);

	for (unsigned i = 0; i < BATCH; i++) {
		uint64_t o = (offset + i) % OFFSETS;

		w[i] = (struct batch_write){ { .offset = o,
					       .page = pages + i * PAGE,
					       .done = batch_done,
					       .arg = &w[i] },
					     1 };
		page_fill(w[i].request.page, tag + i);
		while ((w[i].result = tmem_frontswap_write(
				s->fs, 1, &w[i].request)) == -EAGAIN)
			tmem_frontswap_reap(s->fs, 1, true);
		s->tags[o] = 0;
		if (w[i].result == 0) {
			s->tags[o] = tag + i;
			w[i].result = 1;
		}
	}
	tmem_frontswap_flush(s->fs, 1);
	for (unsigned i = 0; i < BATCH; i++) {
		while (w[i].result == 1)
			tmem_frontswap_reap(s->fs, 1, true);
		if (w[i].result < 0)
			s->tags[w[i].request.offset] = 0;
	}
	pages_free(pages, BATCH);
}

static void fork_on_paper(struct scene *s)
{
	int r = tmem_swapfile_before_fork(s->file, 3);

	CHECK(r == 0 || faultsys_struck() != 0);
	/* Whoever gives the slot away reaps until it works. */
	while (tmem_swapmap_reap(s->map_fd, 3) != 0)
		if (faultsys_struck() > 5)
			faultsys_arm(0, 0, 0);
}

static void use(struct scene *s)
{
	struct rng rng = { 5 };

	for (unsigned i = 1; i <= STEPS; i++) {
		uint64_t o = rng_below(&rng, OFFSETS);

		switch (rng_below(&rng, 8)) {
		case 0 ... 2:
			swap_out(s, o, 1000 + i);
			break;
		case 3:
			swap_out_batch(s, o, 2000 + i * 10);
			break;
		case 4:
			tmem_frontswap_invalidate_page(s->fs, 1, o);
			s->tags[o] = 0;
			break;
		case 5:
			tmem_frontswap_shrink(s->fs, 5);
			break;
		default:
			load(s, o);
			break;
		}
	}
	fork_on_paper(s);
	tmem_swapmap_trim(s->map_fd, s->file_fd);
	tmem_swapmap_set_limit(s->map_fd, SLOTS / 2);
	for (unsigned o = 0; o < OFFSETS; o++)
		load(s, o);
}

static bool open_file(struct scene *s, bool no_uring)
{
	struct tmem_swapfile_options o = {
		.file_fd = s->file_fd,
		.user = 2,
		.depth = 8,
		.nr_offsets = OFFSETS,
		.no_uring = no_uring,
	};

	s->map_fd = tmem_swapmap_create(SLOTS, 4);
	if (s->map_fd < 0)
		return false;
	o.map_fd = s->map_fd;
	if (tmem_swapfile_open(&o, &s->file) == 0)
		return true;
	close(s->map_fd);
	return false;
}

static bool open_frontswap(struct scene *s)
{
	struct tmem_frontswap_options o = {
		.backend = tmem_store_backend(s->store),
	};

	if (tmem_frontswap_open(&o, &s->fs) != 0)
		return false;
	if (tmem_frontswap_init(s->fs, 1, OFFSETS,
				tmem_swapfile_device(s->file)) == 0)
		return true;
	tmem_frontswap_close(s->fs);
	return false;
}

static void end_scene(struct scene *s)
{
	struct tmem_swapdev dev = tmem_swapfile_device(s->file);
	uint64_t used, limit;

	/* With the fault gone, all that was accepted is there. */
	faultsys_arm(0, 0, 0);
	for (unsigned o = 0; o < OFFSETS; o++)
		load(s, o);
	tmem_frontswap_check(s->fs);
	tmem_swapfile_check(s->file);
	tmem_frontswap_close(s->fs);
	CHECK_EQ(dev.ops->used_pages(dev.self), 0);
	CHECK_EQ(tmem_swapmap_usage(s->map_fd, &used, &limit), 0);
	CHECK_EQ(used, 0);
	CHECK_EQ(tmem_swapmap_check(s->map_fd), 0);
}

/* False if it could not even open; that is right if a call was struck. */
static bool play(bool no_uring)
{
	struct tmem_store_options store = { .limit_bytes = 1u << 20 };
	struct scene s = { 0 };
	bool opened = false;
	unsigned long struck;

	CHECK_EQ(tmem_store_open(&store, &s.store), 0);
	s.file_fd = testfile_ram();
	if (open_file(&s, no_uring)) {
		opened = open_frontswap(&s);
		if (opened) {
			use(&s);
			struck = faultsys_struck();
			end_scene(&s);
		} else {
			struck = faultsys_struck();
		}
		faultsys_arm(0, 0, 0);
		tmem_swapfile_device(s.file).ops->close(s.file);
		close(s.map_fd);
	} else {
		struck = faultsys_struck();
	}
	CHECK(opened || struck != 0);
	close(s.file_fd);
	tmem_store_close(s.store);
	return struck != 0;
}

static void loop(bool no_uring, int result, int sticky)
{
	unsigned long n = 1, pages, descriptors;

	play(no_uring);
	pages = address_space();
	descriptors = open_descriptors();
	for (;; n++) {
		faultsys_arm(n, result, sticky);
		if (!play(no_uring))
			break;
		CHECK_EQ(open_descriptors(), descriptors);
		CHECK_EQ(address_space(), pages);
	}
	printf("%s, %s%s: %lu calls failed\n", no_uring ? "pwrite" : "io_uring",
	       result < 0 ? strerror(-result) : "short",
	       sticky ? ", and all that follow" : "", n - 1);
	fflush(stdout);
	CHECK(n > 30);
}

int main(void)
{
	static const int results[] = { -EIO,   -ENOSPC, -ENOMEM,
				       -EPERM, -EINTR,	FAULTSYS_SHORT };

	for (unsigned i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
		for (int no_uring = 0; no_uring < 2; no_uring++) {
			loop(no_uring, results[i], 0);
			/* What is interrupted for ever never ends. */
			if (results[i] < 0 && results[i] != -EINTR)
				loop(no_uring, results[i], 1);
		}
	}
	return 0;
}
