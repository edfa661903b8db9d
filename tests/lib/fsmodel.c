/* SPDX-License-Identifier: MIT */
/* See fsmodel.h. */
#include "fsmodel.h"

#include <signal.h>
#include <sys/wait.h>

#include "fstest.h"
#include "testdev.h"
#include "testfile.h"
#include "tmem/store.h"

enum {
	TYPES = 3,
	ASYNC = 12,
	USERS = 16,
	DEPTH = 8,
	MAX_CHILDREN = 4,
	CHILD_STEPS = 300
};

struct oracle {
	uint64_t tag; /* 0: nothing may be found */
	uint64_t generation;
};

struct async {
	struct tmem_swapdev_request request;
	struct fsmodel *model;
	unsigned type;
	uint64_t generation;
	bool busy;
};

struct fsmodel {
	struct fsmodel_options options;
	struct tmem_store *store;
	struct tmem_backend real; /* the store; faults come before it */
	struct tmem_frontswap *fs;
	struct tmem_swapfile *file;
	struct testdev *td;
	int file_fd, map_fd;
	unsigned user; /* of the slot map */
	bool is_child;
	struct oracle *oracles[TYPES];
	struct async async[ASYNC];
	char *pages; /* ASYNC of them */
	uint64_t next_tag;
	uint64_t steps;
	/* Faults armed and not struck: how many calls until they do. */
	long refuse_in, store_eio_in, load_eio_in;
	bool device_read_fault;
	struct {
		pid_t pid;
		unsigned user;
	} children[MAX_CHILDREN];
};

/* The store, with faults in front */

static bool strikes(long *in)
{
	return *in >= 0 && (*in)-- == 0;
}

static int shim_store(void *self, tmem_pool_id pool, struct tmem_io *io,
		      unsigned nr)
{
	struct fsmodel *m = self;

	if (strikes(&m->store_eio_in))
		return -EIO;
	if (strikes(&m->refuse_in)) {
		m->real.ops->invalidate(m->real.self, pool, io, nr);
		for (unsigned i = 0; i < nr; i++)
			io[i].result = TMEM_REFUSED;
		return 0;
	}
	return m->real.ops->store(m->real.self, pool, io, nr);
}

static int shim_load(void *self, tmem_pool_id pool, struct tmem_io *io,
		     unsigned nr)
{
	struct fsmodel *m = self;

	if (strikes(&m->load_eio_in))
		return -EIO;
	return m->real.ops->load(m->real.self, pool, io, nr);
}

static int shim_invalidate(void *self, tmem_pool_id pool, struct tmem_io *io,
			   unsigned nr)
{
	struct fsmodel *m = self;

	return m->real.ops->invalidate(m->real.self, pool, io, nr);
}

static int shim_invalidate_object(void *self, tmem_pool_id pool,
				  struct tmem_object_id object,
				  uint64_t *ret_pages)
{
	struct fsmodel *m = self;

	return m->real.ops->invalidate_object(m->real.self, pool, object,
					      ret_pages);
}

static int shim_pool_create(void *self, const struct tmem_pool_options *options,
			    tmem_pool_id *ret_pool)
{
	struct fsmodel *m = self;

	return m->real.ops->pool_create(m->real.self, options, ret_pool);
}

static int shim_pool_destroy(void *self, tmem_pool_id pool)
{
	struct fsmodel *m = self;

	return m->real.ops->pool_destroy(m->real.self, pool);
}

static int shim_pool_clone(void *self, tmem_pool_id pool,
			   tmem_pool_id *ret_pool)
{
	struct fsmodel *m = self;

	return m->real.ops->pool_clone(m->real.self, pool, ret_pool);
}

static int shim_stats(void *self, struct tmem_stats *ret_stats)
{
	struct fsmodel *m = self;

	return m->real.ops->stats(m->real.self, ret_stats);
}

static const struct tmem_backend_ops shim_ops = {
	.name = "store with faults",
	.pool_create = shim_pool_create,
	.pool_destroy = shim_pool_destroy,
	.pool_clone = shim_pool_clone,
	.store = shim_store,
	.load = shim_load,
	.invalidate = shim_invalidate,
	.invalidate_object = shim_invalidate_object,
	.stats = shim_stats,
};

/* Steps */

static void expect(struct fsmodel *m, unsigned type, uint64_t offset,
		   uint64_t tag)
{
	m->oracles[type][offset].tag = tag;
	m->oracles[type][offset].generation++;
}

/* True if the page was loaded; a fault may prevent it. */
static bool check_page(struct fsmodel *m, unsigned type, uint64_t offset)
{
	struct oracle *o = &m->oracles[type][offset];
	bool may_fail = m->load_eio_in >= 0 || m->device_read_fault;
	static _Alignas(PAGE) char pages[2 * PAGE];
	char *page = pages;
	struct tmem_swapdev_read two[2] = { { offset, page, 1 },
					    { offset, pages + PAGE, 1 } };
	int r;

	/* By turns alone and, if that changes nothing, twice at once. */
	if (m->steps % 2 || m->options.exclusive) {
		r = tmem_frontswap_swap_in(m->fs, type, offset, page);
	} else {
		tmem_frontswap_swap_in_many(m->fs, type, two, 2);
		r = two[0].result;
		if (r == 0 && two[1].result == 0)
			CHECK(memcmp(page, pages + PAGE, PAGE) == 0);
	}
	if (r == 0) {
		if (o->tag != 0 && page_is(page, o->tag))
			return true;
		fprintf(stderr, "step %llu: type %u offset %llu: %s\n",
			(unsigned long long)m->steps, type,
			(unsigned long long)offset,
			o->tag ? "wrong page" : "a page that is none");
		abort();
	}
	if (o->tag != 0 && !may_fail) {
		fprintf(stderr, "step %llu: type %u offset %llu: lost (%d)\n",
			(unsigned long long)m->steps, type,
			(unsigned long long)offset, r);
		abort();
	}
	return false;
}

static void swap_out(struct fsmodel *m, unsigned type, uint64_t offset)
{
	_Alignas(8) char page[PAGE];
	uint64_t tag = ++m->next_tag;
	int r;

	page_fill(page, tag);
	r = tmem_frontswap_swap_out(m->fs, type, offset, page);
	CHECK(r == 0 || r == -ENOSPC || r == -EIO);
	expect(m, type, offset, r == 0 ? tag : 0);
}

static void async_done(struct tmem_swapdev_request *request, int result)
{
	struct async *a = request->arg;
	struct oracle *o = &a->model->oracles[a->type][request->offset];

	CHECK(a->busy);
	if (result < 0 && o->generation == a->generation)
		o->tag = 0;
	/* It is the caller's again. */
	memset(request->page, 0xee, PAGE);
	a->busy = false;
}

static struct async *free_async(struct fsmodel *m)
{
	for (;;) {
		for (unsigned i = 0; i < ASYNC; i++)
			if (!m->async[i].busy)
				return &m->async[i];
		for (unsigned type = 0; type < 2; type++)
			tmem_frontswap_reap(m->fs, type, true);
	}
}

/* As the pager does it: offered, and queued if refused. */
static void swap_out_async(struct fsmodel *m, unsigned type, uint64_t offset)
{
	struct async *a = free_async(m);
	uint64_t tag = ++m->next_tag;
	int r;

	page_fill(a->request.page, tag);
	r = tmem_frontswap_store(m->fs, type, offset, a->request.page);
	expect(m, type, offset, r == 0 ? tag : 0);
	if (r == 0)
		return;
	CHECK_EQ(r, TMEM_REFUSED);
	a->request.offset = offset;
	a->request.done = async_done;
	a->request.arg = a;
	a->model = m;
	a->type = type;
	a->generation = m->oracles[type][offset].generation;
	a->busy = true;
	while ((r = tmem_frontswap_write(m->fs, type, &a->request)) == -EAGAIN)
		tmem_frontswap_reap(m->fs, type, true);
	a->busy = r == 0;
	CHECK(r == 0 || r == -ENOSPC);
	if (r == 0 || tmem_frontswap_test(m->fs, type, offset))
		m->oracles[type][offset].tag = tag;
}

static void store_only(struct fsmodel *m, unsigned type, uint64_t offset)
{
	_Alignas(8) char page[PAGE];
	uint64_t tag = ++m->next_tag;

	page_fill(page, tag);
	tmem_frontswap_store(m->fs, type, offset, page);
	expect(m, type, offset,
	       tmem_frontswap_test(m->fs, type, offset) ? tag : 0);
}

static void load(struct fsmodel *m, unsigned type, uint64_t offset)
{
	bool from_tmem = tmem_frontswap_test(m->fs, type, offset);
	bool fault = m->load_eio_in >= 0;
	bool loaded = check_page(m, type, offset);

	if (!loaded || !from_tmem || !m->options.exclusive)
		return;
	/* A fault may have sent it to the device, which has it too. */
	if (fault && tmem_frontswap_test(m->fs, type, offset))
		return;
	CHECK(!tmem_frontswap_test(m->fs, type, offset));
	/* What writethrough wrote is there only if the device had room. */
	if (m->options.writethrough)
		tmem_frontswap_invalidate_page(m->fs, type, offset);
	expect(m, type, offset, 0);
}

static void arm_fault(struct fsmodel *m, uint32_t arg)
{
	struct testdev_faults faults = { -1, 0, -1, -1, false };
	long in = arg / 8 % 16;

	if (!m->options.faults)
		return;
	switch (arg % 8) {
	case 0:
		m->refuse_in = in;
		break;
	case 1:
		m->store_eio_in = in;
		break;
	case 2:
		m->load_eio_in = in;
		break;
	case 3:
		faults.write_result_in = in;
		faults.write_result = arg & 1024 ? -EIO : -ENOSPC;
		break;
	case 4:
		faults.write_full_in = in;
		break;
	case 5:
		faults.read_in = in;
		break;
	default:
		m->refuse_in = m->store_eio_in = m->load_eio_in = -1;
		break;
	}
	m->device_read_fault = faults.read_in >= 0;
	testdev_set_faults(m->td, &faults);
}

static struct tmem_swapdev device_of(struct fsmodel *m, unsigned type)
{
	struct tmem_swapdev none = { NULL, NULL };

	if (type == 0)
		return tmem_swapfile_device(m->file);
	return type == 1 ? testdev_device(m->td) : none;
}

static void drain(struct fsmodel *m)
{
	for (unsigned i = 0; i < ASYNC; i++) {
		while (m->async[i].busy)
			tmem_frontswap_reap(m->fs, m->async[i].type, true);
	}
}

static void swap_off_and_on(struct fsmodel *m, unsigned type)
{
	tmem_frontswap_invalidate_area(m->fs, type);
	for (unsigned o = 0; o < m->options.nr_offsets; o++)
		expect(m, type, o, 0);
	CHECK_EQ(tmem_frontswap_init(m->fs, type, m->options.nr_offsets,
				     device_of(m, type)),
		 0);
}

static void change_limit(struct fsmodel *m, uint32_t arg)
{
	uint64_t spare = m->options.store_limit_bytes - TMEM_STORE_MIN_BYTES;
	uint64_t pages = m->options.swap_pages;

	if (arg & 1) {
		CHECK_EQ(tmem_store_set_limit(m->store,
					      TMEM_STORE_MIN_BYTES +
						      spare / 32 * (arg % 32)),
			 0);
	} else if (!m->is_child) {
		CHECK_EQ(tmem_swapmap_set_limit(
				 m->map_fd, pages - pages / 16 * (arg % 16)),
			 0);
	}
}

/* Between before_fork and after_fork only loads; nothing may change. */
static void fork_window(struct fsmodel *m, unsigned type, uint64_t offset)
{
	tmem_frontswap_before_fork(m->fs);
	tmem_store_before_fork(m->store);
	for (unsigned i = 0; i < 4; i++)
		check_page(m, type, (offset + i) % m->options.nr_offsets);
	tmem_store_after_fork(m->store, 0);
	tmem_frontswap_after_fork(m->fs);
}

/* Children */

static void check_all(struct fsmodel *m)
{
	/* An exclusive load would change what is checked. */
	tmem_frontswap_before_fork(m->fs);
	for (unsigned type = 0; type < TYPES; type++)
		for (unsigned o = 0; o < m->options.nr_offsets; o++)
			check_page(m, type, o);
	tmem_frontswap_after_fork(m->fs);
}

static void run_child(struct fsmodel *m, unsigned user, uint64_t seed)
{
	struct rng rng = { seed };

	tmem_store_after_fork(m->store, 1);
	tmem_frontswap_after_fork(m->fs);
	CHECK_EQ(tmem_swapfile_reopen(m->file, dup(m->file_fd), dup(m->map_fd),
				      user),
		 0);
	m->is_child = true;
	m->user = user;
	memset(m->children, 0, sizeof(m->children));
	check_all(m);
	for (unsigned i = 0; i < CHILD_STEPS; i++) {
		uint64_t r = rng_next(&rng);
		struct fsmodel_op op = { (uint8_t)r, (uint8_t)(r >> 8),
					 (uint16_t)(r >> 16),
					 (uint32_t)(r >> 32) };

		fsmodel_step(m, &op);
	}
	drain(m);
	check_all(m);
	tmem_swapfile_check(m->file);
	tmem_frontswap_check(m->fs);
	if (seed % 2)
		device_of(m, 0).ops->close(m->file);
	_exit(0);
}

static void bury(struct fsmodel *m, unsigned i, bool kill_it)
{
	int status;

	if (kill_it)
		CHECK_EQ(kill(m->children[i].pid, SIGKILL), 0);
	CHECK_EQ(waitpid(m->children[i].pid, &status, 0), m->children[i].pid);
	if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) &&
	    !(kill_it && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
		fprintf(stderr, "child failed: status %#x\n", status);
		abort();
	}
	CHECK_EQ(tmem_swapmap_reap(m->map_fd, m->children[i].user), 0);
	m->children[i].pid = 0;
	for (i = 0; i < MAX_CHILDREN; i++)
		if (m->children[i].pid != 0)
			return;
	tmem_store_thaw(m->store);
}

static void fork_child(struct fsmodel *m, uint32_t arg)
{
	unsigned i = arg % MAX_CHILDREN;
	pid_t pid;

	if (!m->options.forks || m->is_child)
		return;
	if (m->children[i].pid != 0) {
		bury(m, i, arg & 64);
		return;
	}
	drain(m);
	tmem_frontswap_before_fork(m->fs);
	tmem_store_before_fork(m->store);
	CHECK_EQ(tmem_swapfile_before_fork(m->file, i + 1), 0);
	fflush(stdout);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0)
		run_child(m, i + 1, arg);
	tmem_store_after_fork(m->store, 1);
	tmem_frontswap_after_fork(m->fs);
	m->children[i].pid = pid;
	m->children[i].user = i + 1;
}

static void check_invariants(struct fsmodel *m)
{
	long armed = m->load_eio_in;

	m->load_eio_in = -1;
	tmem_swapfile_check(m->file);
	tmem_frontswap_check(m->fs);
	tmem_store_check(m->store);
	m->load_eio_in = armed;
}

static void rare_step(struct fsmodel *m, const struct fsmodel_op *op,
		      unsigned type, uint64_t offset)
{
	switch (op->kind / 32) {
	case 0:
		arm_fault(m, op->arg);
		break;
	case 1:
		swap_off_and_on(m, type);
		break;
	case 2:
		change_limit(m, op->arg);
		break;
	case 3:
		fork_child(m, op->arg);
		break;
	case 4:
		CHECK(tmem_swapmap_trim(m->map_fd, m->file_fd) >= 0);
		break;
	case 5:
		fork_window(m, type, offset);
		break;
	default:
		/* Results differ with faults; what it did is checked. */
		tmem_frontswap_shrink(m->fs, op->arg % 64);
		break;
	}
}

void fsmodel_step(struct fsmodel *m, const struct fsmodel_op *op)
{
	unsigned type = op->type % TYPES;
	uint64_t offset = op->offset % m->options.nr_offsets;

	m->steps++;
	switch (op->kind % 32) {
	case 0 ... 4:
		swap_out(m, type, offset);
		break;
	case 5 ... 11:
		swap_out_async(m, type, offset);
		break;
	case 12 ... 21:
		load(m, type, offset);
		break;
	case 22 ... 25:
		tmem_frontswap_invalidate_page(m->fs, type, offset);
		expect(m, type, offset, 0);
		break;
	case 26:
		store_only(m, type, offset);
		break;
	case 27:
		tmem_frontswap_flush(m->fs, type);
		break;
	case 28 ... 29:
		tmem_frontswap_reap(m->fs, type, false);
		break;
	case 30:
		tmem_frontswap_reap(m->fs, type, true);
		break;
	default:
		rare_step(m, op, type, offset);
		break;
	}
	if (m->steps % m->options.check_every == 0)
		check_invariants(m);
}

struct fsmodel *fsmodel_open(const struct fsmodel_options *options)
{
	struct fsmodel *m = calloc(1, sizeof(*m));
	struct tmem_store_options store = {
		.limit_bytes = options->store_limit_bytes,
	};
	struct tmem_frontswap_options fs = {
		.writethrough = options->writethrough,
		.exclusive = options->exclusive,
	};
	struct tmem_swapfile_options file = {
		.depth = DEPTH,
		.nr_offsets = options->nr_offsets,
		.no_uring = options->no_uring,
	};

	CHECK(m != NULL);
	m->options = *options;
	m->refuse_in = m->store_eio_in = m->load_eio_in = -1;
	CHECK_EQ(tmem_store_open(&store, &m->store), 0);
	m->real = tmem_store_backend(m->store);
	fs.backend = (struct tmem_backend){ &shim_ops, m };
	CHECK_EQ(tmem_frontswap_open(&fs, &m->fs), 0);
	m->file_fd = options->on_disk ? testfile_disk() : testfile_ram();
	m->map_fd = testfile_map(options->swap_pages, USERS);
	file.file_fd = m->file_fd;
	file.map_fd = m->map_fd;
	CHECK_EQ(tmem_swapfile_open(&file, &m->file), 0);
	m->td = testdev_create(options->nr_offsets, options->swap_pages, DEPTH,
			       1);
	m->pages = pages_alloc(ASYNC);
	for (unsigned i = 0; i < ASYNC; i++)
		m->async[i].request.page = m->pages + i * PAGE;
	for (unsigned type = 0; type < TYPES; type++) {
		m->oracles[type] =
			calloc(options->nr_offsets, sizeof(struct oracle));
		CHECK(m->oracles[type] != NULL);
		CHECK_EQ(tmem_frontswap_init(m->fs, type, options->nr_offsets,
					     device_of(m, type)),
			 0);
	}
	return m;
}

void fsmodel_close(struct fsmodel *m)
{
	uint64_t used, limit;
	int64_t leaked;
	bool killed = m->options.forks;

	m->load_eio_in = -1;
	m->device_read_fault = false;
	testdev_set_faults(m->td,
			   &(struct testdev_faults){ -1, 0, -1, -1, false });
	drain(m);
	for (unsigned i = 0; i < MAX_CHILDREN; i++)
		if (m->children[i].pid != 0)
			bury(m, i, false);
	check_all(m);
	check_invariants(m);
	tmem_frontswap_close(m->fs);
	device_of(m, 0).ops->close(m->file);
	testdev_device(m->td).ops->close(m->td);
	leaked = tmem_swapmap_check(m->map_fd);
	CHECK_EQ(tmem_swapmap_usage(m->map_fd, &used, &limit), 0);
	CHECK(killed || (leaked == 0 && used == 0));
	tmem_store_close(m->store);
	close(m->file_fd);
	close(m->map_fd);
	pages_free(m->pages, ASYNC);
	for (unsigned type = 0; type < TYPES; type++)
		free(m->oracles[type]);
	free(m);
}
