/* SPDX-License-Identifier: MIT */
/*
 * cleancache over pools of a backend.
 *
 * NAMES OF FILES.  An object id has 192 bits, which a handle of six words
 * fills.  Shorter ones and inode numbers take what the top word of six may
 * not be, one of three reserved values, so that no two names are the same:
 *
 *	word 5 (top)	words 4 ... 0
 *	TAG_FIVE	a handle of five words
 *	TAG_SHORT	kind; a handle of 1 to 4 words, which is its kind, or
 *			kind 0 and an inode number
 *	TAG_NONE	0: no file.  What cannot be named becomes this.
 *	else		a handle of six words
 *
 * A handle of six words whose last is reserved cannot be named: three of
 * 2^32.  It is never stored, so it is never found.  (Hashing would name every
 * handle, but make "never another file's page" a matter of chance; a pool for
 * each length would want a UUID for each.)
 *
 * NUMBERS.  A file system's number is its slot and a count of how often the
 * slot was used, 58 bits of it: a number never comes again.  A backend's pool
 * id may, at once.  So operations in flight are counted by slot; ending a
 * file system withdraws its number, waits until nobody is in flight who may
 * have seen it, and only then destroys the pool.
 *
 * STRIPES.  What operations count, themselves in flight and figures, is in 16
 * stripes that threads are spread over by their stacks; so threads share no
 * cache line here, as long as they are few.
 *
 * Invariants (while nothing is in flight):
 *  K1 No user is counted in any stripe.
 *  K2 The number of a live file system names its slot and its generation;
 *     that of another slot is 0.
 *  K3 stores == accepted + refused + store_errors; load_errors <=
 *     failed_loads; invalidated <= invalidates.
 */
#include <errno.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/lock.h"
#include "base/sys.h"
#include "tmem/cleancache.h"

#define TAG_NONE  0x9d5c3e70u
#define TAG_SHORT 0x9d5c3e71u
#define TAG_FIVE  0x9d5c3e72u

enum {
	MAX_FS = TMEM_CLEANCACHE_MAX_FS,
	STRIPES = 16,
	STACK_BITS = 14, /* of an address: threads' stacks differ above */
	BATCH = 16,	 /* pages that go to the backend at once */
	KIND_INODE = 0
};

enum counter {
#define COUNTER(name, unit, text) COUNT_##name,
#include <tmem/cleancache.def>
#undef COUNTER
	NR_COUNTERS
};

struct stripe {
	_Alignas(64) _Atomic uint32_t users[MAX_FS];
	_Alignas(64) _Atomic uint64_t counters[NR_COUNTERS];
};

struct filesystem {
	_Atomic uint64_t number; /* 0: not live */
	_Atomic bool disabled;
	tmem_pool_id pool; /* fixed while the number is not 0 */
	/* Control lock. */
	bool used;
	uint64_t generation;
};

struct tmem_cleancache {
	struct tmem_backend backend;
	struct tmem_lock control; /* file systems come and go */
	struct filesystem fs[MAX_FS];
	struct stripe stripes[STRIPES];
};

/* An operation in flight. */
struct use {
	const struct tmem_backend *backend;
	struct filesystem *fs;
	struct stripe *stripe;
};

/* Pages on their way to the backend, and whose they are. */
struct batch {
	unsigned nr;
	struct tmem_io io[BATCH];
	struct tmem_cleancache_io *of[BATCH];
};

typedef int backend_op(void *backend, tmem_pool_id pool, struct tmem_io *io,
		       unsigned nr);

static const struct tmem_counter table[] = {
#define COUNTER(name, unit, text) \
	{ #name, unit, text, offsetof(struct tmem_cleancache_stats, name) },
#include <tmem/cleancache.def>
#undef COUNTER
	{ NULL, NULL, NULL, 0 },
};

_Static_assert(sizeof(struct tmem_cleancache_stats) ==
		       NR_COUNTERS * sizeof(uint64_t),
	       "nothing but counters in the struct");

static size_t mapped_bytes(void)
{
	return (sizeof(struct tmem_cleancache) + TMEM_PAGE_SIZE - 1) &
	       ~(size_t)(TMEM_PAGE_SIZE - 1);
}

static void count(struct stripe *stripe, enum counter counter, uint64_t nr)
{
	atomic_fetch_add_explicit(&stripe->counters[counter], nr,
				  memory_order_relaxed);
}

static struct stripe *stripe_of(struct tmem_cleancache *cc)
{
	uint64_t stack = (uintptr_t)__builtin_frame_address(0) >> STACK_BITS;

	return &cc->stripes[tmem_hash_word(stack) % STRIPES];
}

/* Names of files */

static struct tmem_cleancache_file file_of(uint32_t top, uint32_t next,
					   uint64_t middle, uint64_t low)
{
	return (struct tmem_cleancache_file){
		.object = { { low, middle, (uint64_t)top << 32 | next } },
	};
}

static bool is_reserved(uint32_t word)
{
	return word == TAG_NONE || word == TAG_SHORT || word == TAG_FIVE;
}

struct tmem_cleancache_file tmem_cleancache_inode(uint64_t inode)
{
	return file_of(TAG_SHORT, KIND_INODE, 0, inode);
}

struct tmem_cleancache_file tmem_cleancache_handle(const uint32_t *words,
						   unsigned nr_words)
{
	uint32_t w[TMEM_CLEANCACHE_MAX_HANDLE] = { 0 };

	if (nr_words == 0 || nr_words > TMEM_CLEANCACHE_MAX_HANDLE)
		return file_of(TAG_NONE, 0, 0, 0);
	for (unsigned i = 0; i < nr_words; i++)
		w[i] = words[i];
	if (nr_words == 6 && is_reserved(w[5]))
		return file_of(TAG_NONE, 0, 0, 0);
	if (nr_words < 6)
		w[5] = nr_words == 5 ? TAG_FIVE : TAG_SHORT;
	if (nr_words < 5)
		w[4] = nr_words;
	return file_of(w[5], w[4], (uint64_t)w[3] << 32 | w[2],
		       (uint64_t)w[1] << 32 | w[0]);
}

static bool has_no_name(struct tmem_cleancache_file file)
{
	return file.object.word[2] >> 32 == TAG_NONE;
}

/* Operations in flight */

static void leave(const struct tmem_cleancache *cc, const struct use *use)
{
	atomic_fetch_sub(&use->stripe->users[use->fs - cc->fs], 1);
}

/*
 * True if there is such a file system, which then stays until leave().  First
 * counted, then looked at: who withdraws the number counts after that.
 */
static bool enter(struct tmem_cleancache *cc, tmem_cleancache_fs number,
		  struct use *ret_use)
{
	unsigned slot = (unsigned)(number % MAX_FS);
	struct use use = { &cc->backend, &cc->fs[slot], stripe_of(cc) };

	atomic_fetch_add(&use.stripe->users[slot], 1);
	if (number != 0 && atomic_load(&use.fs->number) == number) {
		*ret_use = use;
		return true;
	}
	leave(cc, &use);
	count(use.stripe, COUNT_ignored_fs, 1);
	return false;
}

static void wait_for_users(struct tmem_cleancache *cc, unsigned slot)
{
	for (unsigned i = 0; i < STRIPES; i++)
		while (atomic_load(&cc->stripes[i].users[slot]) != 0)
			tmem_sys_pause();
}

/* A page that is no longer true may be there: it is never asked for again. */
static void disable(const struct use *use)
{
	count(use->stripe, COUNT_invalidate_errors, 1);
	if (!atomic_exchange(&use->fs->disabled, true))
		count(use->stripe, COUNT_disabled, 1);
}

static void answer_all(struct tmem_cleancache_io *io, unsigned nr, int answer)
{
	for (unsigned i = 0; i < nr; i++)
		io[i].result = answer;
}

/*
 * Takes pages up to a batch; those that the backend can't name are ignored,
 * which is `answer`.  Returns how many it has dealt with.
 */
static unsigned fill(const struct use *use, struct batch *b,
		     struct tmem_cleancache_io *io, unsigned nr, int answer)
{
	unsigned i;

	b->nr = 0;
	for (i = 0; i < nr && b->nr < BATCH; i++) {
		io[i].result = answer;
		if (has_no_name(io[i].file)) {
			count(use->stripe, COUNT_ignored_files, 1);
		} else if (io[i].index > UINT32_MAX) {
			count(use->stripe, COUNT_ignored_indexes, 1);
		} else {
			b->of[b->nr] = &io[i];
			b->io[b->nr++] = (struct tmem_io){
				.object = io[i].file.object,
				.index = (uint32_t)io[i].index,
				.page = io[i].page,
				.result = -EIO,
			};
		}
	}
	return i;
}

static void run(const struct use *use, backend_op *op, struct batch *b)
{
	int r;

	if (b->nr == 0)
		return;
	r = op(use->backend->self, use->fs->pool, b->io, b->nr);
	for (unsigned i = 0; r < 0 && i < b->nr; i++)
		b->io[i].result = r;
}

/* 0, or the last error: the file system is disabled then. */
static int invalidate_batch(const struct use *use, struct batch *b)
{
	int r = 0;

	run(use, use->backend->ops->invalidate, b);
	for (unsigned i = 0; i < b->nr; i++)
		if (b->io[i].result < 0)
			r = b->io[i].result;
	if (r < 0)
		disable(use);
	return r;
}

/* Nobody knows what a fault has left behind: nothing, from now on. */
static void drop_faulty(const struct use *use, struct batch *b)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < b->nr; i++)
		if (b->io[i].result < 0)
			b->io[nr++] = b->io[i];
	b->nr = nr;
	if (nr != 0)
		invalidate_batch(use, b);
}

static void store_batch(const struct use *use, struct batch *b)
{
	uint64_t accepted = 0, errors = 0;

	run(use, use->backend->ops->store, b);
	for (unsigned i = 0; i < b->nr; i++) {
		int r = b->io[i].result;

		b->of[i]->result = r == 0 ? 0 : TMEM_REFUSED;
		accepted += r == 0;
		errors += r < 0;
	}
	count(use->stripe, COUNT_stores, b->nr);
	count(use->stripe, COUNT_accepted, accepted);
	if (accepted != b->nr)
		count(use->stripe, COUNT_refused, b->nr - accepted - errors);
	if (errors != 0) {
		count(use->stripe, COUNT_store_errors, errors);
		drop_faulty(use, b);
	}
}

static void load_batch(const struct use *use, struct batch *b)
{
	uint64_t found = 0, errors = 0;

	run(use, use->backend->ops->load, b);
	for (unsigned i = 0; i < b->nr; i++) {
		int r = b->io[i].result;

		b->of[i]->result = r == 0 ? 0 : TMEM_MISS;
		found += r == 0;
		errors += r < 0;
	}
	count(use->stripe, COUNT_succ_loads, found);
	if (found != b->nr)
		count(use->stripe, COUNT_failed_loads, b->nr - found);
	if (errors != 0) {
		count(use->stripe, COUNT_load_errors, errors);
		drop_faulty(use, b);
	}
}

/* Stores or loads; what is ignored is answered with `answer`. */
static void move_pages(const struct use *use, struct tmem_cleancache_io *io,
		       unsigned nr, int answer)
{
	struct batch b;
	unsigned n;

	for (; nr != 0; io += n, nr -= n) {
		if (atomic_load(&use->fs->disabled)) {
			answer_all(io, nr, answer);
			count(use->stripe, COUNT_ignored_disabled, nr);
			return;
		}
		n = fill(use, &b, io, nr, answer);
		if (answer == TMEM_REFUSED)
			store_batch(use, &b);
		else
			load_batch(use, &b);
	}
}

void tmem_cleancache_store(struct tmem_cleancache *cc, tmem_cleancache_fs fs,
			   struct tmem_cleancache_io *io, unsigned nr)
{
	struct use use;

	if (!enter(cc, fs, &use)) {
		answer_all(io, nr, TMEM_REFUSED);
		return;
	}
	move_pages(&use, io, nr, TMEM_REFUSED);
	leave(cc, &use);
}

void tmem_cleancache_load(struct tmem_cleancache *cc, tmem_cleancache_fs fs,
			  struct tmem_cleancache_io *io, unsigned nr)
{
	struct use use;

	if (!enter(cc, fs, &use)) {
		answer_all(io, nr, TMEM_MISS);
		return;
	}
	move_pages(&use, io, nr, TMEM_MISS);
	leave(cc, &use);
}

/*
 * Also in a file system that is disabled here: for the others, if it is
 * shared.
 */
static int invalidate_some(const struct use *use, struct batch *b)
{
	uint64_t found = 0;
	int r = invalidate_batch(use, b);

	for (unsigned i = 0; i < b->nr; i++) {
		b->of[i]->result = b->io[i].result;
		found += b->io[i].result == 0;
	}
	count(use->stripe, COUNT_invalidates, b->nr);
	count(use->stripe, COUNT_invalidated, found);
	return r;
}

int tmem_cleancache_invalidate_pages(struct tmem_cleancache *cc,
				     tmem_cleancache_fs fs,
				     struct tmem_cleancache_io *io, unsigned nr)
{
	struct batch b;
	struct use use;
	unsigned n;
	int r, answer = 0;

	if (!enter(cc, fs, &use)) {
		answer_all(io, nr, TMEM_MISS);
		return 0;
	}
	for (; nr != 0; io += n, nr -= n) {
		n = fill(&use, &b, io, nr, TMEM_MISS);
		r = invalidate_some(&use, &b);
		if (r < 0)
			answer = r;
	}
	leave(cc, &use);
	return answer;
}

int tmem_cleancache_invalidate_inode(struct tmem_cleancache *cc,
				     tmem_cleancache_fs fs,
				     struct tmem_cleancache_file file)
{
	uint64_t pages = 0;
	struct use use;
	int r;

	if (!enter(cc, fs, &use))
		return 0;
	if (has_no_name(file)) {
		count(use.stripe, COUNT_ignored_files, 1);
		leave(cc, &use);
		return 0;
	}
	r = cc->backend.ops->invalidate_object(cc->backend.self, use.fs->pool,
					       file.object, &pages);
	if (r < 0)
		disable(&use);
	else
		count(use.stripe, COUNT_inode_pages, pages);
	count(use.stripe, COUNT_inode_invalidates, 1);
	leave(cc, &use);
	return r < 0 ? r : 0;
}

/* File systems */

static int init_locked(struct tmem_cleancache *cc,
		       const struct tmem_pool_options *options,
		       tmem_cleancache_fs *ret_fs) TMEM_REQUIRES(&cc->control)
{
	struct filesystem *fs = cc->fs;
	int r;

	while (fs < cc->fs + MAX_FS && fs->used)
		fs++;
	if (fs == cc->fs + MAX_FS)
		return -ENOSPC;
	r = cc->backend.ops->pool_create(cc->backend.self, options, &fs->pool);
	if (r < 0)
		return r;
	if (r == TMEM_PRIVATE)
		count(stripe_of(cc), COUNT_made_private, 1);
	fs->used = true;
	fs->generation++;
	atomic_store(&fs->disabled, false);
	*ret_fs = fs->generation * MAX_FS + (uint64_t)(fs - cc->fs);
	atomic_store(&fs->number, *ret_fs);
	return r;
}

static int init(struct tmem_cleancache *cc,
		const struct tmem_pool_options *options, size_t page_bytes,
		tmem_cleancache_fs *ret_fs)
{
	int r;

	if (page_bytes != TMEM_PAGE_SIZE)
		return -EINVAL;
	tmem_lock_acquire(&cc->control);
	r = init_locked(cc, options, ret_fs);
	tmem_lock_release(&cc->control);
	return r;
}

int tmem_cleancache_init_fs(struct tmem_cleancache *cc, size_t page_bytes,
			    tmem_cleancache_fs *ret_fs)
{
	struct tmem_pool_options options = { .flags = TMEM_POOL_EPHEMERAL };

	return init(cc, &options, page_bytes, ret_fs);
}

int tmem_cleancache_init_shared_fs(struct tmem_cleancache *cc,
				   const uint64_t uuid[2], size_t page_bytes,
				   tmem_cleancache_fs *ret_fs)
{
	struct tmem_pool_options options = {
		.flags = TMEM_POOL_EPHEMERAL | TMEM_POOL_SHARED,
		.uuid = { uuid[0], uuid[1] },
	};

	return init(cc, &options, page_bytes, ret_fs);
}

/* Its pool is gone, or it is back as it was but disabled. */
static int end_locked(struct tmem_cleancache *cc, struct filesystem *fs)
	TMEM_REQUIRES(&cc->control)
{
	struct use use = { &cc->backend, fs, stripe_of(cc) };
	uint64_t number = atomic_exchange(&fs->number, 0);
	int r;

	wait_for_users(cc, (unsigned)(fs - cc->fs));
	r = cc->backend.ops->pool_destroy(cc->backend.self, fs->pool);
	if (r < 0 && r != -ENOENT) {
		disable(&use);
		atomic_store(&fs->number, number);
		return r;
	}
	count(use.stripe, COUNT_fs_invalidates, 1);
	fs->used = false;
	return 0;
}

int tmem_cleancache_invalidate_fs(struct tmem_cleancache *cc,
				  tmem_cleancache_fs fs)
{
	struct filesystem *f = &cc->fs[fs % MAX_FS];
	int r = 0;

	tmem_lock_acquire(&cc->control);
	if (fs != 0 && atomic_load(&f->number) == fs)
		r = end_locked(cc, f);
	else
		count(stripe_of(cc), COUNT_ignored_fs, 1);
	tmem_lock_release(&cc->control);
	return r;
}

int tmem_cleancache_open(struct tmem_backend backend,
			 struct tmem_cleancache **ret_cc)
{
	size_t bytes = mapped_bytes();
	struct tmem_cleancache *cc =
		tmem_sys_map_anon(bytes, PROT_READ | PROT_WRITE);

	if (!cc)
		return -ENOMEM;
	cc->backend = backend;
	tmem_lock_init(&cc->control, TMEM_RANK_CLEAN);
	*ret_cc = cc;
	return 0;
}

void tmem_cleancache_close(struct tmem_cleancache *cc)
{
	if (!cc)
		return;
	tmem_lock_acquire(&cc->control);
	for (unsigned i = 0; i < MAX_FS; i++)
		if (cc->fs[i].used)
			end_locked(cc, &cc->fs[i]);
	tmem_lock_release(&cc->control);
	tmem_sys_unmap(cc, mapped_bytes());
}

/* Figures and checks */

void tmem_cleancache_get_stats(struct tmem_cleancache *cc,
			       struct tmem_cleancache_stats *ret_stats)
{
	struct tmem_cleancache_stats stats = { 0 };
	uint64_t *figures = (uint64_t *)&stats;

	for (unsigned i = 0; i < STRIPES; i++)
		for (unsigned c = 0; c < NR_COUNTERS; c++)
			figures[c] += atomic_load_explicit(
				&cc->stripes[i].counters[c],
				memory_order_relaxed);
	for (unsigned i = 0; i < MAX_FS; i++)
		stats.filesystems += atomic_load(&cc->fs[i].number) != 0;
	*ret_stats = stats;
}

const struct tmem_counter *tmem_cleancache_stats_table(void)
{
	return table;
}

static void check_fs(struct tmem_cleancache *cc, unsigned slot)
{
	struct filesystem *fs = &cc->fs[slot];
	uint64_t number = fs->used ? fs->generation * MAX_FS + slot : 0;

	for (unsigned i = 0; i < STRIPES; i++)
		TMEM_INVARIANT("K1", cc->stripes[i].users[slot] == 0);
	TMEM_INVARIANT("K2", fs->number == number);
}

void tmem_cleancache_check(struct tmem_cleancache *cc)
{
	struct tmem_cleancache_stats s;

	for (unsigned slot = 0; slot < MAX_FS; slot++)
		check_fs(cc, slot);
	tmem_cleancache_get_stats(cc, &s);
	TMEM_INVARIANT("K3",
		       s.stores == s.accepted + s.refused + s.store_errors);
	TMEM_INVARIANT("K3", s.load_errors <= s.failed_loads &&
				     s.invalidated <= s.invalidates);
}
