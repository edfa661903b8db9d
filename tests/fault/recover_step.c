/* SPDX-License-Identifier: MIT */
/*
 * A restartable store as it would be found after each instruction that writes
 * to its image.
 *
 *	recover_step ROUNDS [tier] [SEED]
 *
 * The image is mapped read-only.  A store into it faults; the handler lets
 * that one instruction through, by a single step, and then has another process
 * open a copy of the image and compare it with the two states that are right:
 * before the operation that is under way, and after it.  Now and then that
 * process is itself watched while it recovers.  With `tier` the store moves
 * pages to one, of which the other process has a copy, too.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <ucontext.h>

#include <tmem/client.h>
#include <tmem/stats.h>
#include <tmem/store.h>
#include <tmem/tiers.h>

#include "arena/image.h"
#include "arena/map.h"
#include "base/sys.h"
#include "core/compact.h"
#include "core/dicts.h"
#include "core/tiering.h"
#include "fstest.h"
#include "testfile.h"
#include "testimage.h"

enum {
	POOLS = 4,
	KEYS = 40,
	PER_OBJECT = 8,
	EPHEMERAL = 1,
	DICT_BYTES = 2048 + 256, /* two parts */
	STEP_FLAG = 0x100,
	RECOVER_ONE_IN = 64,
	TIER_BYTES = 16 << 20
};

#define LIMIT (16ull << 20)

struct state {
	uint32_t ids[POOLS];
	uint32_t tags[POOLS][KEYS];
};

/* Shared with the process that looks. */
static struct {
	struct state before;
	struct state after;
	bool any_of_each; /* the operation consists of several */
	_Atomic uint64_t looks;
	_Atomic uint64_t nested;
	_Atomic uint64_t below; /* pages seen there */
} * shared;

static struct state now; /* the child's */
static struct tmem_store *the_store;
static struct tmem_backend b;
static int image_fd, copy_fd;
static int tier_fd = -1, tier_copy_fd; /* -1: the store has none */
static int key_fd;
static char *image_start;
static size_t image_bytes;
static bool nested; /* it is a recovery that is watched */
/* Most instructions of an operation do the same: one in so many is enough. */
static unsigned one_in = 1;
static struct rng one_in_rng;

static struct tmem_io io_of(uint32_t key, void *page)
{
	return (struct tmem_io){ .object = { { key / PER_OBJECT, 1, 2 } },
				 .index = key,
				 .page = page };
}

static struct tmem_store *open_store(int fd, int tier)
{
	const struct tmem_tier_setup setup = { .kind = TMEM_TIER_KIND_MAPPED,
					       .fd = tier,
					       .max_bytes = TIER_BYTES,
					       .key_fd = &key_fd };
	struct tmem_store_options options = { .limit_bytes = LIMIT,
					      .cool_after_ns = 1,
					      .dict_every_ns = 1,
					      .arena_fd = &fd,
					      .tiers = &setup,
					      .nr_tiers = tier >= 0 };
	struct tmem_store *store;

	CHECK_EQ(tmem_store_open(&options, &store), 0);
	tmem_compact_eagerly(store);
	return store;
}

static uint32_t small_part(uint32_t tag)
{
	return tag % 6;
}

/* Small slots: few instructions, many of a span. */
static void fill(void *page, uint32_t tag)
{
	uint32_t *w = page, random = small_part(tag) * 24, i;
	struct rng rng = { tag };

	for (i = 0; i < PAGE / 4; i++)
		w[i] = i < random ? (uint32_t)rng_next(&rng) : tag;
}

/* What is in an opened store. */
static void read_state(struct tmem_backend be, struct state *s)
{
	struct tmem_client_pool pools[POOLS];
	unsigned nr, i, p;
	uint32_t key;

	memset(s, 0, sizeof(*s));
	nr = tmem_client_pools(be.self, pools, POOLS);
	CHECK(nr <= POOLS);
	for (i = 0; i < nr; i++) {
		p = tmem_pool_number(pools[i].id);
		s->ids[p] = pools[i].id;
		for (key = 0; key < KEYS; key++) {
			_Alignas(8) char page[PAGE], want[PAGE];
			struct tmem_io io = io_of(key, page);

			be.ops->load(be.self, pools[i].id, &io, 1);
			CHECK(io.result >= 0);
			if (io.result)
				continue;
			memcpy(&s->tags[p][key], page + PAGE - 4, 4);
			fill(want, s->tags[p][key]);
			CHECK(memcmp(page, want, PAGE) == 0);
		}
	}
}

static bool is_one_of_each(const struct state *s)
{
	const struct state *x = &shared->before, *y = &shared->after;
	unsigned p, key;

	for (p = 0; p < POOLS; p++) {
		if (s->ids[p] != x->ids[p] && s->ids[p] != y->ids[p])
			return false;
		for (key = 0; key < KEYS; key++)
			if (s->tags[p][key] != x->tags[p][key] &&
			    s->tags[p][key] != y->tags[p][key])
				return false;
	}
	return true;
}

static void protect(int prot)
{
	CHECK_EQ(mprotect(image_start, image_bytes, prot), 0);
}

static void catch_recovery(void);

static _Noreturn void look(bool watched)
{
	struct tmem_store *store;
	struct tmem_backend be;
	struct tmem_stats stats;
	struct state s;

	if (watched)
		catch_recovery();
	store = open_store(watched ? image_fd : copy_fd,
			   tier_fd < 0 ? -1
			   : watched   ? tier_fd
				       : tier_copy_fd);
	if (watched)
		protect(PROT_READ | PROT_WRITE);
	be = tmem_store_backend(store);
	tmem_store_check(store);
	be.ops->stats(be.self, &stats);
	CHECK_EQ(stats.recover_torn, 0);
	CHECK_EQ(stats.recover_lost, 0);
	atomic_fetch_add(&shared->below, stats.tier_pages);
	read_state(be, &s);
	CHECK(memcmp(&s, &shared->before, sizeof(s)) == 0 ||
	      memcmp(&s, &shared->after, sizeof(s)) == 0 ||
	      (shared->any_of_each && is_one_of_each(&s)));
	_exit(0);
}

/*
 * Another process opens the image as it is now; one in some is watched while
 * it recovers, by others.
 */
static void have_a_look(void)
{
	bool watched =
		!nested &&
		atomic_fetch_add(&shared->looks, 1) % RECOVER_ONE_IN == 0;
	sigset_t none;
	int status;
	pid_t pid;

	image_copy(image_fd, copy_fd);
	if (tier_fd >= 0)
		image_copy(tier_fd, tier_copy_fd);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL);
		signal(SIGTRAP, SIG_DFL);
		/* We may be in a handler. */
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		tmem_lock_ranks_held = 0;
		look(watched);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	atomic_fetch_add(&shared->nested, nested);
}

static void on_write(int nr, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	char *at = info->si_addr;

	if (at < image_start || at >= image_start + image_bytes) {
		signal(nr, SIG_DFL);
		return;
	}
	protect(PROT_READ | PROT_WRITE);
	uc->uc_mcontext.gregs[REG_EFL] |= STEP_FLAG;
}

static void on_step(int nr, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)nr;
	(void)info;
	uc->uc_mcontext.gregs[REG_EFL] &= ~STEP_FLAG;
	if (rng_below(&one_in_rng, one_in) == 0)
		have_a_look();
	protect(PROT_READ);
}

static void catch_writes(void)
{
	struct sigaction segv = { .sa_sigaction = on_write,
				  .sa_flags = SA_SIGINFO };
	struct sigaction trap = { .sa_sigaction = on_step,
				  .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGTRAP, &trap, NULL);
}

/*
 * Recovery maps the image and then, by the map seam, what it keeps of it: from
 * there on its writes are caught, and the copy is what others look at.
 */
static void *map_then_watch(size_t bytes, size_t align)
{
	char line[512];
	FILE *maps;

	tmem_map = &tmem_map_kernel;
	maps = fopen("/proc/self/maps", "re");
	CHECK(maps != NULL);
	while (fgets(line, sizeof(line), maps))
		if (strstr(line, "rw-s") && strstr(line, "memfd:image")) {
			unsigned long start, end;

			CHECK_EQ(sscanf(line, "%lx-%lx", &start, &end), 2);
			image_start = tmem_sys_pointer(start);
			image_bytes = end - start;
		}
	fclose(maps);
	CHECK(image_start != NULL);
	catch_writes();
	protect(PROT_READ);
	return tmem_map->map(bytes, align);
}

static struct tmem_map_ops watching;

static void catch_recovery(void)
{
	watching = tmem_map_kernel;
	watching.map = map_then_watch;
	tmem_map = &watching;
	image_fd = copy_fd;
	copy_fd = image_memfd();
	if (tier_fd >= 0) {
		tier_fd = tier_copy_fd;
		tier_copy_fd = testfile_ram();
	}
	image_start = NULL;
	nested = true;
}

/* Operations: each does it to the store, and to `after` or `now`. */

static int do_store(unsigned p, uint32_t key, uint32_t tag)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);

	fill(page, tag);
	b.ops->store(b.self, now.ids[p], &io, 1);
	return io.result;
}

/* What it becomes is known before, so that the looks can know. */
static void begin(const struct state *after, bool any_of_each)
{
	shared->before = now;
	shared->after = *after;
	shared->any_of_each = any_of_each;
	protect(PROT_READ);
}

static void end(void)
{
	protect(PROT_READ | PROT_WRITE);
	have_a_look();
	now = shared->after;
	shared->before = now;
	have_a_look();
}

static void store_one(unsigned p, uint32_t key, uint32_t tag)
{
	struct state after = now;

	after.tags[p][key] = tag;
	begin(&after, false);
	CHECK_EQ(do_store(p, key, tag), 0);
	end();
}

static void drop_one(unsigned p, uint32_t key)
{
	struct tmem_io io = io_of(key, NULL);
	struct state after = now;

	after.tags[p][key] = 0;
	begin(&after, false);
	b.ops->invalidate(b.self, now.ids[p], &io, 1);
	end();
}

static void load_one(unsigned p, uint32_t key)
{
	_Alignas(8) char page[PAGE];
	struct tmem_io io = io_of(key, page);
	struct state after = now;

	if (p == EPHEMERAL)
		after.tags[p][key] = 0;
	begin(&after, false);
	b.ops->load(b.self, now.ids[p], &io, 1);
	CHECK_EQ(io.result, now.tags[p][key] ? 0 : TMEM_MISS);
	end();
}

static void drop_object(unsigned p, uint32_t key)
{
	struct state after = now;
	uint64_t pages;
	uint32_t i;

	key -= key % PER_OBJECT;
	for (i = key; i < key + PER_OBJECT; i++)
		after.tags[p][i] = 0;
	begin(&after, true);
	b.ops->invalidate_object(b.self, now.ids[p], io_of(key, NULL).object,
				 &pages);
	end();
}

/* Its number and generation are known: the first that is free, the next. */
static void make_pool(unsigned p, bool clone)
{
	struct tmem_pool_options options = {
		.flags = p == EPHEMERAL ? TMEM_POOL_EPHEMERAL : 0
	};
	struct state after = now;
	tmem_pool_id id;

	after.ids[p] =
		(the_store->pools[p].generation + 1) * TMEM_MAX_POOLS + p;
	if (clone)
		memcpy(after.tags[p], now.tags[0], sizeof(after.tags[p]));
	begin(&after, false);
	if (clone)
		CHECK_EQ(b.ops->pool_clone(b.self, now.ids[0], &id), 0);
	else
		CHECK_EQ(b.ops->pool_create(b.self, &options, &id), 0);
	CHECK_EQ(id, after.ids[p]);
	end();
}

static void destroy_pool(unsigned p)
{
	struct state after = now;

	after.ids[p] = 0;
	memset(after.tags[p], 0, sizeof(after.tags[p]));
	begin(&after, false);
	CHECK_EQ(b.ops->pool_destroy(b.self, now.ids[p]), 0);
	end();
}

/* All that may go down does, if there is a tier. */
static void maintain(void)
{
	/* Then all pages of a pool are compressed anew. */
	one_in = the_store->cool_again ? 32 : 1;
	begin(&now, false);
	/* Not below what is held: ephemeral pages would go. */
	if (tier_fd >= 0)
		tmem_store_set_limit(the_store,
				     tmem_store_held_bytes(the_store) + 65536);
	while (tmem_store_maintain(the_store, 1000000000))
		;
	if (tier_fd < 0)
		tmem_store_set_limit(the_store, TMEM_STORE_MIN_BYTES);
	tmem_store_set_limit(the_store, LIMIT);
	one_in = 1;
	end();
}

/*
 * The pool's dictionary changes, or it has none any more; what it had goes with
 * the next maintenance, when all pages were compressed anew.
 */
static void change_dict(unsigned p, uint32_t tag)
{
	static _Alignas(8) char content[PAGE];
	struct tmem_dict_spec spec = { .pool = tmem_pool_number(now.ids[p]),
				       .uses = 1 + tag % 3,
				       .content_bytes = DICT_BYTES,
				       .content = content };
	uint32_t name;

	fill(content, tag);
	one_in_rng.state += tag;
	one_in = 8;
	begin(&now, false);
	tmem_lock_acquire(&the_store->control);
	if (tag % 4 == 0) {
		tmem_dicts_retire(the_store, spec.pool);
	} else {
		CHECK_EQ(tmem_dicts_add(the_store, &spec, &name), 0);
		tmem_dicts_make_current(the_store, name);
	}
	the_store->cool_again = 1;
	tmem_lock_release(&the_store->control);
	one_in = 1;
	end();
}

/* Many pages go at once, unwatched: spans become sparse. */
static void thin_out(struct rng *rng)
{
	uint32_t key;

	for (key = 0; key < KEYS; key++) {
		struct tmem_io io = io_of(key, NULL);

		if (!now.ids[0] || !rng_below(rng, 4))
			continue;
		b.ops->invalidate(b.self, now.ids[0], &io, 1);
		now.tags[0][key] = 0;
	}
}

static void step(struct rng *rng, uint32_t tag)
{
	unsigned p = (unsigned)rng_below(rng, POOLS);
	uint32_t key = (uint32_t)rng_below(rng, KEYS), first = 0;
	unsigned k = (unsigned)rng_below(rng, 100);

	while (first < POOLS && now.ids[first])
		first++;
	if (!now.ids[p]) {
		make_pool(first, first > EPHEMERAL && k < 70);
		return;
	}
	if (tier_fd >= 0 && k % 4 == 0)
		k = 85;
	if (k < 10 && now.tags[0][key]) /* equal to that */
		store_one(p, (uint32_t)rng_below(rng, KEYS), now.tags[0][key]);
	else if (k < 45)
		store_one(p, key, tag);
	else if (k < 55)
		load_one(p, key);
	else if (k < 75)
		drop_one(p, key);
	else if (k < 82)
		drop_object(p, key);
	else if (k < 88)
		maintain();
	else if (k < 91)
		thin_out(rng);
	else if (k < 94)
		change_dict(p, tag);
	else if (p > EPHEMERAL || k < 97)
		destroy_pool(p);
}

/* Some of them equal to their neighbours. */
static void fill_up(struct rng *rng)
{
	uint32_t key;
	unsigned p;

	for (p = 0; p < POOLS; p++)
		for (key = 0; key < KEYS; key++)
			if (now.ids[p] && rng_below(rng, 2)) {
				now.tags[p][key] =
					1000000 + key / 3 * POOLS + p;
				CHECK_EQ(do_store(p, key, now.tags[p][key]), 0);
			}
}

static void run(unsigned rounds, uint64_t seed)
{
	struct rng rng = { seed };
	struct tmem_stats stats;
	unsigned i;

	the_store = open_store(image_fd, tier_fd);
	b = tmem_store_backend(the_store);
	image_start = the_store->image->base;
	image_bytes = (size_t)the_store->image->max_chunks * TMEM_CHUNK_BYTES;
	catch_writes();
	for (i = 0; i < rounds; i++) {
		step(&rng, 1 + i);
		if (i == 20)
			fill_up(&rng);
		if (i == 20 && now.ids[0])
			change_dict(0, 1);
		tmem_store_check(the_store);
	}
	CHECK_EQ(b.ops->stats(b.self, &stats), 0);
	printf("%llu stores of equal pages\n",
	       (unsigned long long)stats.dedup_stores);
	tmem_store_close(the_store);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 60;
	bool tier = argc > 2 && strcmp(argv[2], "tier") == 0;
	uint64_t seed = seed_from(argc, argv, tier ? 3 : 2);

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED);
	image_fd = image_memfd();
	copy_fd = image_memfd();
	if (tier) {
		tier_fd = testfile_ram();
		tier_copy_fd = testfile_ram();
		key_fd = tmem_key_create();
		CHECK(key_fd >= 0);
	}
	run(rounds, seed);
	printf("%u operations; looked at %llu times, and %llu in recovery; "
	       "%llu pages below\n",
	       rounds, (unsigned long long)atomic_load(&shared->looks),
	       (unsigned long long)atomic_load(&shared->nested),
	       (unsigned long long)atomic_load(&shared->below));
	return 0;
}
