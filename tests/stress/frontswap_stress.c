/* SPDX-License-Identifier: MIT */
/*
 * Threads on one front end: each swaps its own pages out and in, queued and
 * at once, while one shrinks and one reaps; what a thread wrote it must find,
 * at every moment.  To be run under ThreadSanitizer too.
 *
 *	frontswap_stress STEPS [SEED]
 */
#include <pthread.h>
#include <stdatomic.h>

#include "fstest.h"
#include "testfile.h"
#include "tmem/store.h"

enum {
	THREADS = 4,
	OWN = 200,
	OFFSETS = THREADS * OWN,
	QUEUE = 6
};

static struct tmem_frontswap *fs;
static _Atomic bool stop;
static uint64_t steps;

struct queued {
	struct tmem_swapdev_request request;
	_Atomic bool busy;
	_Atomic int result;
};

struct worker {
	pthread_t thread;
	unsigned number;
	struct rng rng;
	uint64_t tags[OWN];
	struct queued queue[QUEUE];
	char *pages;
};

static void queued_done(struct tmem_swapdev_request *request, int result)
{
	struct queued *q = request->arg;

	CHECK_EQ(result, 0);
	/* The page is changed at once: nobody may read it any more. */
	memset(request->page, 0xdd, PAGE);
	q->busy = false;
}

static void swap_out_queued(struct worker *w, uint64_t offset, uint64_t tag)
{
	struct queued *q = &w->queue[rng_below(&w->rng, QUEUE)];
	int r;

	while (q->busy)
		tmem_frontswap_reap(fs, 0, true);
	page_fill(q->request.page, tag);
	if (tmem_frontswap_store(fs, 0, offset, q->request.page) == 0)
		return;
	q->request.offset = offset;
	q->request.done = queued_done;
	q->request.arg = q;
	q->busy = true;
	while ((r = tmem_frontswap_write(fs, 0, &q->request)) == -EAGAIN)
		tmem_frontswap_reap(fs, 0, true);
	CHECK_EQ(r, 0);
}

static void load(struct worker *w, unsigned own)
{
	uint64_t offset = own * THREADS + w->number;
	char page[PAGE];
	int r = tmem_frontswap_swap_in(fs, 0, offset, page);

	if (w->tags[own] == 0) {
		CHECK_EQ(r, -ENODATA);
		return;
	}
	CHECK_EQ(r, 0);
	CHECK(page_is(page, w->tags[own]));
}

static void *work(void *arg)
{
	struct worker *w = arg;

	for (uint64_t i = 1; i <= steps; i++) {
		unsigned own = (unsigned)rng_below(&w->rng, OWN);
		uint64_t offset = own * THREADS + w->number;
		uint64_t tag = i * THREADS + w->number;
		char page[PAGE];

		switch (rng_below(&w->rng, 8)) {
		case 0 ... 1:
			swap_out_queued(w, offset, tag);
			w->tags[own] = tag;
			break;
		case 2:
			page_fill(page, tag);
			CHECK_EQ(tmem_frontswap_swap_out(fs, 0, offset, page),
				 0);
			w->tags[own] = tag;
			break;
		case 3:
			tmem_frontswap_invalidate_page(fs, 0, offset);
			w->tags[own] = 0;
			break;
		case 4:
			tmem_frontswap_flush(fs, 0);
			break;
		default:
			break;
		}
		load(w, own);
		load(w, (unsigned)rng_below(&w->rng, OWN));
	}
	for (unsigned i = 0; i < QUEUE; i++)
		while (w->queue[i].busy)
			tmem_frontswap_reap(fs, 0, true);
	for (unsigned own = 0; own < OWN; own++)
		load(w, own);
	return NULL;
}

static void *shrink(void *arg)
{
	(void)arg;
	while (!stop) {
		CHECK(tmem_frontswap_shrink(fs, 3) >= 0);
		tmem_frontswap_reap(fs, 0, false);
	}
	return NULL;
}

static void run_threads(uint64_t seed)
{
	struct worker *workers = calloc(THREADS, sizeof(*workers));
	pthread_t shrinker;

	CHECK(workers != NULL);
	stop = false;
	for (unsigned i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];

		w->number = i;
		w->rng.state = seed + i;
		w->pages = pages_alloc(QUEUE);
		for (unsigned k = 0; k < QUEUE; k++)
			w->queue[k].request.page = w->pages + k * PAGE;
		CHECK_EQ(pthread_create(&w->thread, NULL, work, w), 0);
	}
	CHECK_EQ(pthread_create(&shrinker, NULL, shrink, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		CHECK_EQ(pthread_join(workers[i].thread, NULL), 0);
		pages_free(workers[i].pages, QUEUE);
	}
	stop = true;
	CHECK_EQ(pthread_join(shrinker, NULL), 0);
	free(workers);
}

static void print_stats(const char *name)
{
	struct tmem_frontswap_stats s;

	tmem_frontswap_get_stats(fs, &s);
	printf("%s: stored %llu, refused %llu, written %llu, read %llu, "
	       "shrunk %llu\n",
	       name, (unsigned long long)s.succ_stores,
	       (unsigned long long)s.failed_stores,
	       (unsigned long long)s.device_writes,
	       (unsigned long long)s.device_reads,
	       (unsigned long long)s.shrunk_pages);
}

static void run(uint64_t seed, bool no_uring)
{
	struct tmem_store_options so = { .limit_bytes = 1u << 20 };
	struct tmem_frontswap_options fo = { 0 };
	struct tmem_swapfile_options file = {
		.file_fd = testfile_disk(),
		.map_fd = testfile_map(2ul * OFFSETS, 1),
		.depth = 16,
		.nr_offsets = OFFSETS,
		.no_uring = no_uring,
	};
	struct tmem_store *store;
	struct tmem_swapfile *f;

	CHECK_EQ(tmem_store_open(&so, &store), 0);
	CHECK_EQ(tmem_swapfile_open(&file, &f), 0);
	fo.backend = tmem_store_backend(store);
	CHECK_EQ(tmem_frontswap_open(&fo, &fs), 0);
	CHECK_EQ(tmem_frontswap_init(fs, 0, OFFSETS, tmem_swapfile_device(f)),
		 0);
	run_threads(seed);
	tmem_frontswap_check(fs);
	tmem_swapfile_check(f);
	tmem_store_check(store);
	print_stats(no_uring ? "pwrite" : "io_uring");
	tmem_frontswap_close(fs);
	tmem_swapfile_device(f).ops->close(f);
	CHECK_EQ(tmem_swapmap_check(file.map_fd), 0);
	tmem_store_close(store);
	close(file.file_fd);
	close(file.map_fd);
}

int main(int argc, char **argv)
{
	uint64_t seed;

	steps = argc > 1 ? strtoull(argv[1], NULL, 0) : 5000;
	seed = seed_from(argc, argv, 2);
	run(seed, false);
	run(seed, true);
	return 0;
}
