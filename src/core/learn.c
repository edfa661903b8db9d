/* SPDX-License-Identifier: MIT */
/*
 * Pools learn what their pages have in common.
 *
 * SURVEY.  Now and then (dict_every_ns) one segment of each shard's index is
 * looked at.  Pages lie there by their hash, so these are pages drawn at
 * random, and tell how much each pool has, whatever the size of the store.  Of
 * the private pools with enough to save something the one with most is chosen
 * that has not learned yet, has grown twofold since, or was not asked for some
 * surveys: so many more each time that nothing came of it.  Shared pools do
 * not learn: what one client's pages have in common is not for the others.
 *
 * TRIAL.  Some hundred of its pages are gathered all over the index and copied,
 * the first three quarters train (codecs/train.h), the rest are compressed in
 * every form that the pool could have, with the new dictionary, the one that
 * it has and none.  What these figures say is done:
 *
 *  - A form gets the new dictionary if that saves 1/50 of the form's memory,
 *    and of the pool's size twice of what the dictionary itself takes.
 *  - If the pool has a dictionary, the new one must save 1/50 more than that.
 *    So it stays until the pages have drifted away from it.
 *  - One that saves nothing any more is dropped.
 *
 * What changes is written to the pool's word; then cool.c gives the pages
 * that have the old form the new one, and what is unused is freed.  While two
 * old ones are still in use (by clones, say) their pool does not learn.
 *
 * Everything that a trial needs is one mapping of 2 to 3 MiB, accounted, there
 * only as long as it takes, and wiped by fork: the child finds no trial.
 * Every step is short: 16 pages of training, 1 page of measuring.
 */
#include "learn.h"

#include <string.h>

#include "arena/map.h"
#include "base/sys.h"
#include "codecs/train.h"
#include "cool.h"
#include "dictslot.h"
#include "unzip.h"

enum {
	LEAST_BYTES = 128 * 1024, /* a pool's, in slots */
	LEAST_SAMPLES = 64,
	MOST_SAMPLES = 512,
	STAGED = 16,  /* pages that are copied under a lock at a time */
	MOST_OLD = 2, /* dictionaries of a pool that are still in use */
	WAIT = 8,     /* surveys */
	MOST_WAIT = 1024,
	GAIN = 50,     /* the least part of a form's memory */
	PAID_BACK = 2, /* times a dictionary's own memory */
	SMALL_DICT = 16 * 1024,
	LARGE_DICT = 32 * 1024,
	LARGE_POOL = 4 << 20,	    /* bytes in slots */
	LARGE_COLD_POOL = 16 << 20, /* zstd's tables grow with it */
	DICT_BYTES = 288 * 1024
};

enum stage {
	BEGIN = 0, /* so it is in the child of a fork */
	GATHER,
	TRAIN,
	MEASURE
};

/* What is compared: with the new dictionary, the current one, and none. */
enum {
	LZ4,
	LZ4_NEW,
	LZ4_NOW,
	ZSTD,
	ZSTD_NEW,
	ZSTD_NOW,
	NR_SUMS
};

struct note {
	tmem_pool_id id; /* whose it is */
	uint32_t wait;	 /* surveys between trials */
	uint32_t left;	 /* of them */
	uint32_t pages;	 /* this survey's */
	uint64_t bytes;
	uint64_t tried_bytes;
};

/* Of pools, by number; kept as long as the store. */
struct tmem_notes {
	uint64_t survey_ns;
	uint64_t seen, entries; /* of the index, this survey */
	uint64_t random;
	struct note pools[TMEM_MAX_POOLS];
};

#define NOTES_PAGES ((unsigned)((sizeof(struct tmem_notes) + 4095) / 4096))

struct staged {
	_Alignas(64) char bytes[TMEM_SLOT_MAX_BYTES];
	unsigned size;
};

struct measuring {
	_Alignas(64) char zip[TMEM_ZSTD_COMPRESS_BYTES];
	_Alignas(64) char lz4[TMEM_LZ4_COMPRESS_BYTES];
	_Alignas(64) char dict[DICT_BYTES];
	char out[TMEM_PAGE_SIZE];
};

struct tmem_learn {
	enum stage stage;
	tmem_pool_id pool;
	uint64_t pool_bytes;
	uint32_t shard, pos, nr_shards; /* where gathering is */
	uint32_t stride, skipped;
	unsigned nr_pages, nr_wanted, nr_training, nr_measured;
	unsigned nr_staged;
	unsigned content_bytes;
	const struct tmem_dict *dict; /* new */
	uint32_t now;		      /* the current one's name, 0: none */
	uint64_t sums[NR_SUMS];
	union {
		struct staged staged[STAGED];
		char work[TMEM_TRAIN_WORK_BYTES];
		struct measuring m;
	};
	char content[LARGE_DICT];
	char pages[];
};

/* The survey. */

struct visit {
	struct tmem_store *store;
	struct tmem_notes *notes;
	struct tmem_learn *learn;
};

static void count_entry(void *arg, uint32_t ref)
{
	const struct visit *v = arg;
	const struct tmem_slot *slot;
	struct note *note;

	v->notes->seen++;
	if (ref & TMEM_REF_OBJECT)
		return;
	slot = tmem_arena_slot(&v->store->arena, ref);
	if (!tmem_form_has_page(tmem_slot_form(slot)))
		return;
	note = &v->notes->pools[tmem_slot_pool(slot)];
	note->pages++;
	note->bytes += tmem_slot_bytes(slot->length);
}

static uint32_t random_pos(struct tmem_notes *notes)
{
	notes->random = tmem_hash_word(notes->random + TMEM_HASH_K0);
	return notes->random >> (64 - TMEM_INDEX_TAG_BITS);
}

static void survey(struct tmem_store *store)
{
	struct tmem_notes *notes = store->notes;
	struct visit v = { store, notes, NULL };
	uint32_t i, pos;

	notes->seen = notes->entries = 0;
	for (i = 0; i < TMEM_MAX_POOLS; i++) {
		notes->pools[i].pages = 0;
		notes->pools[i].bytes = 0;
	}
	for (i = 0; i < store->nr_shards; i++) {
		struct tmem_shard *shard = &store->shards[i];

		pos = random_pos(notes);
		tmem_lock_acquire(&shard->lock);
		notes->entries += shard->index.nr_entries;
		tmem_index_visit(&shard->index, &pos, count_entry, &v);
		tmem_lock_release(&shard->lock);
	}
}

static uint64_t scaled(const struct tmem_notes *notes, uint64_t seen)
{
	return notes->seen ? seen * notes->entries / notes->seen : 0;
}

/* Whether it is that pool's turn; the waiting goes on if not. */
static bool is_due(struct tmem_store *store, uint32_t number)
{
	struct note *note = &store->notes->pools[number];
	tmem_pool_id id = atomic_load(&store->pools[number].id);
	uint64_t bytes = scaled(store->notes, note->bytes);

	if (!id || tmem_pool_has(store, number, TMEM_POOL_SHARED))
		return false;
	if (note->id != id)
		*note = (struct note){ .id = id,
				       .wait = WAIT,
				       .pages = note->pages,
				       .bytes = note->bytes };
	if (bytes < LEAST_BYTES ||
	    scaled(store->notes, note->pages) < LEAST_SAMPLES)
		return false;
	if (bytes < 2 * note->tried_bytes && note->left) {
		note->left--;
		return false;
	}
	return tmem_dicts_old(store, number) < MOST_OLD;
}

/* The number of the pool that is to learn, or -1. */
static int choose_pool(struct tmem_store *store)
{
	const struct note *notes = store->notes->pools;
	int best = -1;
	uint32_t i;

	for (i = 0; i < TMEM_MAX_POOLS; i++)
		if (is_due(store, i) &&
		    (best < 0 || notes[i].bytes > notes[best].bytes))
			best = (int)i;
	return best;
}

/* The trial's memory. */

static void end(struct tmem_store *store)
{
	struct tmem_learn *learn;
	size_t bytes;

	if (!tmem_lock_acquire_unless_closed(&store->control))
		return; /* a fork is on: the next time */
	learn = atomic_load(&store->learn);
	bytes = store->learn_bytes;
	atomic_store(&store->learn, NULL);
	if (learn) {
		tmem_map->unmap(learn, bytes);
		tmem_account_give(&store->account, bytes);
	}
	tmem_lock_release(&store->control);
}

static struct tmem_learn *map_locked(struct tmem_store *store, unsigned nr)
	TMEM_REQUIRES(&store->control)
{
	size_t bytes = sizeof(struct tmem_learn) + (size_t)nr * TMEM_PAGE_SIZE;
	struct tmem_learn *learn;

	bytes = (bytes + 4095) & ~4095ul;
	if (!tmem_account_take(&store->account, bytes))
		return NULL;
	learn = tmem_map->map(bytes, 4096);
	if (learn && tmem_sys_madvise(learn, bytes, MADV_WIPEONFORK) < 0) {
		tmem_map->unmap(learn, bytes);
		learn = NULL;
	}
	if (!learn) {
		tmem_account_give(&store->account, bytes);
		return NULL;
	}
	store->learn_bytes = bytes;
	learn->nr_wanted = nr;
	atomic_store(&store->learn, learn);
	return learn;
}

/* As many samples as there is memory for; none: NULL. */
static struct tmem_learn *make(struct tmem_store *store, unsigned nr)
{
	struct tmem_learn *learn = NULL;

	if (!tmem_lock_acquire_unless_closed(&store->control))
		return NULL;
	for (; !learn && nr >= LEAST_SAMPLES; nr /= 2)
		learn = map_locked(store, nr);
	tmem_lock_release(&store->control);
	return learn;
}

/* Nothing came of it, or something did: when is the next trial? */
static void note_trial(struct tmem_store *store, tmem_pool_id id, bool changed)
{
	struct note *note = &store->notes->pools[tmem_pool_number(id)];

	if (note->id != id)
		return;
	note->tried_bytes = scaled(store->notes, note->bytes);
	if (changed)
		note->wait = WAIT;
	else if (note->wait < MOST_WAIT)
		note->wait *= 2;
	note->left = note->wait;
}

static bool begin(struct tmem_store *store, uint32_t number)
{
	const struct note *note = &store->notes->pools[number];
	uint64_t pages = scaled(store->notes, note->pages);
	uint64_t nr = pages < MOST_SAMPLES ? pages : MOST_SAMPLES;
	struct tmem_learn *learn = make(store, (unsigned)nr);

	if (!learn) {
		note_trial(store, note->id, false);
		return false;
	}
	learn->pool = note->id;
	learn->pool_bytes = scaled(store->notes, note->bytes);
	learn->shard = random_pos(store->notes) % store->nr_shards;
	learn->stride = (uint32_t)(pages / (learn->nr_wanted + 1ul) / 2 + 1);
	learn->stage = GATHER;
	return true;
}

/* Gathering. */

static void stage_entry(void *arg, uint32_t ref)
{
	const struct visit *v = arg;
	struct tmem_learn *learn = v->learn;
	const struct tmem_slot *slot;
	struct staged *to;

	if ((ref & TMEM_REF_OBJECT) || learn->nr_staged == STAGED)
		return;
	slot = tmem_arena_slot(&v->store->arena, ref);
	if (tmem_slot_pool(slot) != tmem_pool_number(learn->pool) ||
	    !tmem_form_has_page(tmem_slot_form(slot)) ||
	    learn->skipped++ % learn->stride)
		return;
	to = &learn->staged[learn->nr_staged];
	to->size = tmem_arena_size_of(&v->store->arena, ref);
	if (sizeof(*slot) + slot->length > to->size)
		return; /* damaged */
	memcpy(to->bytes, slot, sizeof(*slot) + slot->length);
	learn->nr_staged++;
}

static bool is_live(struct tmem_store *store, tmem_pool_id id)
{
	return atomic_load(&store->pools[tmem_pool_number(id)].id) == id;
}

/*
 * Some pages of one segment.  While the pool is live under the shard's lock no
 * other pool's pages have its number.
 */
static void gather_some(struct tmem_store *store, struct tmem_learn *learn)
{
	struct tmem_shard *shard = &store->shards[learn->shard];
	struct visit v = { store, NULL, learn };
	bool more = false;
	unsigned i;

	learn->nr_staged = 0;
	tmem_lock_acquire(&shard->lock);
	if (is_live(store, learn->pool))
		more = tmem_index_visit(&shard->index, &learn->pos, stage_entry,
					&v);
	tmem_lock_release(&shard->lock);
	for (i = 0; i < learn->nr_staged && learn->nr_pages < learn->nr_wanted;
	     i++) {
		const struct staged *s = &learn->staged[i];

		/* Only who maintains frees a dictionary: none need be held. */
		if (!tmem_unzip_slot(store, (const struct tmem_slot *)s->bytes,
				     s->size,
				     learn->pages + (size_t)learn->nr_pages *
							    TMEM_PAGE_SIZE))
			learn->nr_pages++;
	}
	if (more)
		return;
	learn->pos = 0;
	learn->shard = (learn->shard + 1) % store->nr_shards;
	learn->nr_shards++;
}

static bool gather(struct tmem_store *store, struct tmem_learn *learn)
{
	uint64_t large = store->cool_after_ns ? LARGE_COLD_POOL : LARGE_POOL;
	unsigned capacity = learn->pool_bytes < large ? SMALL_DICT : LARGE_DICT;

	gather_some(store, learn);
	if (learn->nr_pages < learn->nr_wanted &&
	    learn->nr_shards < store->nr_shards)
		return true;
	learn->nr_training = learn->nr_pages / 4 * 3;
	if (tmem_train_start(learn->pages, learn->nr_training, learn->work,
			     capacity) < 0)
		return false; /* too few */
	learn->stage = TRAIN;
	return true;
}

/* Training. */

static bool train(struct tmem_store *store, struct tmem_learn *learn)
{
	unsigned uses = TMEM_DICT_LZ4;
	int n;

	if (tmem_train_step(learn->work))
		return true;
	atomic_fetch_add_explicit(&store->work.trainings, 1,
				  memory_order_relaxed);
	n = tmem_train_finish(learn->work, learn->content);
	if (store->cool_after_ns)
		uses |= TMEM_DICT_ZSTD;
	if (n <= 0 || tmem_dict_bytes((unsigned)n, uses) > DICT_BYTES)
		return false;
	learn->content_bytes = (unsigned)n;
	if (tmem_dict_build(learn->m.dict, learn->content, (unsigned)n, uses,
			    &learn->dict) < 0)
		return false;
	memset(learn->m.zip, 0, sizeof(learn->m.zip));
	learn->now =
		atomic_load(&store->pools[tmem_pool_number(learn->pool)].dict) &
		0xffff;
	learn->nr_measured = learn->nr_training;
	learn->stage = MEASURE;
	return true;
}

/* Measuring. */

static void add_size(struct tmem_learn *learn, unsigned sum,
		     const struct tmem_codec *codec,
		     const struct tmem_dict *dict)
{
	const char *page =
		learn->pages + (size_t)learn->nr_measured * TMEM_PAGE_SIZE;
	void *scratch = codec->decompress_bytes ? learn->m.zip : learn->m.lz4;
	unsigned n = codec->compress(scratch, dict, page, learn->m.out,
				     TMEM_PAGE_SIZE);

	if (n && codec->has_dict)
		n += TMEM_DICT_NAME_BYTES;
	learn->sums[sum] += tmem_slot_bytes(n ? n : TMEM_PAGE_SIZE);
}

static void measure_page(struct tmem_store *store, struct tmem_learn *learn)
{
	const struct tmem_dict *now = tmem_dicts_get(store, learn->now);
	bool lz4 = now && (now->uses & TMEM_DICT_LZ4);
	bool zstd = now && (now->uses & TMEM_DICT_ZSTD);

	add_size(learn, LZ4, &tmem_codec_lz4, NULL);
	add_size(learn, LZ4_NEW, &tmem_codec_lz4_dict, learn->dict);
	if (lz4)
		add_size(learn, LZ4_NOW, &tmem_codec_lz4_dict, now);
	if (store->cool_after_ns) {
		add_size(learn, ZSTD, &tmem_codec_zstd, NULL);
		add_size(learn, ZSTD_NEW, &tmem_codec_zstd_dict, learn->dict);
		if (zstd)
			add_size(learn, ZSTD_NOW, &tmem_codec_zstd_dict, now);
	}
	learn->nr_measured++;
}

/* What a form saves by a dictionary of these bytes is worth that. */
static bool pays(const struct tmem_learn *learn, unsigned plain, unsigned with,
		 uint64_t bytes)
{
	const uint64_t *sums = learn->sums;
	uint64_t saved;

	if (sums[with] >= sums[plain] ||
	    (sums[plain] - sums[with]) * GAIN < sums[plain])
		return false;
	saved = learn->pool_bytes * (sums[plain] - sums[with]) / sums[LZ4];
	return saved >= PAID_BACK * bytes;
}

/* The uses that pay for a dictionary of that size. */
static unsigned uses_of(const struct tmem_store *store, unsigned lz4,
			unsigned zstd, unsigned content_bytes)
{
	const struct tmem_learn *learn = atomic_load(&store->learn);
	size_t slots = tmem_dictslot_bytes(store, content_bytes);
	size_t both = slots + tmem_dict_bytes(content_bytes,
					      TMEM_DICT_LZ4 | TMEM_DICT_ZSTD);
	size_t one = slots + tmem_dict_bytes(content_bytes, TMEM_DICT_LZ4);
	unsigned uses = 0;

	if (learn->sums[lz4] && pays(learn, LZ4, lz4, one))
		uses |= TMEM_DICT_LZ4;
	if (learn->sums[zstd] &&
	    pays(learn, ZSTD, zstd, uses ? both - one : both))
		uses |= TMEM_DICT_ZSTD;
	return uses;
}

/* What the pages measured take, as the pool would have them. */
static uint64_t total(const struct tmem_learn *learn, unsigned uses,
		      unsigned lz4, unsigned zstd)
{
	return learn->sums[uses & TMEM_DICT_LZ4 ? lz4 : LZ4] +
	       learn->sums[uses & TMEM_DICT_ZSTD ? zstd : ZSTD];
}

static bool adopt_locked(struct tmem_store *store,
			 const struct tmem_learn *learn, unsigned uses)
	TMEM_REQUIRES(&store->control)
{
	struct tmem_dict_spec spec = {
		.pool = tmem_pool_number(learn->pool),
		.uses = uses,
		.content_bytes = learn->content_bytes,
		.content = learn->content,
	};
	uint32_t name;

	if (!is_live(store, learn->pool))
		return false;
	if (!uses)
		tmem_dicts_retire(store, spec.pool);
	else if (tmem_dicts_add(store, &spec, &name) < 0)
		return false;
	else
		tmem_dicts_make_current(store, name);
	store->cool_again = 1;
	atomic_fetch_add_explicit(&store->work.adopted, uses != 0,
				  memory_order_relaxed);
	return true;
}

/* Whether the pool changes its dictionary, and if so does it. */
static bool decide(struct tmem_store *store, const struct tmem_learn *learn)
{
	const struct tmem_dict *now = tmem_dicts_get(store, learn->now);
	unsigned uses = uses_of(store, LZ4_NEW, ZSTD_NEW, learn->content_bytes);
	uint64_t with_new = total(learn, uses, LZ4_NEW, ZSTD_NEW);
	uint64_t with_now;
	bool changed;

	if (!now && !uses)
		return false;
	if (now) {
		unsigned keep = now->uses & uses_of(store, LZ4_NOW, ZSTD_NOW,
						    now->content_bytes);

		with_now = total(learn, now->uses, LZ4_NOW, ZSTD_NOW);
		if (uses ? (with_now - with_now / GAIN < with_new) : keep)
			return false;
	}
	if (!tmem_lock_acquire_unless_closed(&store->control))
		return false;
	changed = adopt_locked(store, learn, uses);
	tmem_lock_release(&store->control);
	return changed;
}

static bool measure(struct tmem_store *store, struct tmem_learn *learn)
{
	if (learn->nr_measured < learn->nr_pages) {
		measure_page(store, learn);
		return true;
	}
	note_trial(store, learn->pool, decide(store, learn));
	learn->pool = 0; /* noted */
	return false;
}

static bool step(struct tmem_store *store, struct tmem_learn *learn)
{
	switch (learn->stage) {
	case GATHER:
		return gather(store, learn);
	case TRAIN:
		return train(store, learn);
	case MEASURE:
		return measure(store, learn);
	default: /* wiped by a fork */
		return false;
	}
}

/* Notes, and what is to be freed.  Not while the store is at rest. */
static bool is_ready(struct tmem_store *store)
{
	bool ready;

	if (!tmem_lock_acquire_unless_closed(&store->control))
		return false;
	tmem_dicts_sweep(store);
	if (!store->notes && store->dict_every_ns)
		store->notes = tmem_meta_alloc(&store->meta, NOTES_PAGES);
	/* What a fork's child shares stays as it is, and so do the forms. */
	ready = store->notes && store->dict_every_ns &&
		!store->arena.frozen_before;
	tmem_lock_release(&store->control);
	return ready;
}

/* True if a trial has begun. */
static bool look_around(struct tmem_store *store)
{
	struct tmem_notes *notes = store->notes;
	uint64_t now = tmem_sys_now_ns();
	int pool;

	if (notes->survey_ns && now - notes->survey_ns < store->dict_every_ns)
		return false;
	notes->survey_ns = now;
	survey(store);
	pool = choose_pool(store);
	return pool >= 0 && begin(store, (uint32_t)pool);
}

bool tmem_learn_some(struct tmem_store *store, uint64_t until_ns)
{
	struct tmem_learn *learn;

	if ((!store->dict_every_ns && !atomic_load(&store->dicts)) ||
	    !is_ready(store))
		return false;
	if (!atomic_load(&store->learn) && !look_around(store))
		return false;
	learn = atomic_load(&store->learn);
	do {
		if (step(store, learn))
			continue;
		if (learn->pool)
			note_trial(store, learn->pool, false);
		learn->pool = 0;
		learn->stage = BEGIN;
		end(store);
		return store->cool_again;
	} while (tmem_sys_now_ns() < until_ns);
	return true;
}

void tmem_learn_for_each(struct tmem_store *store,
			 void (*fn)(void *arg, void *start, size_t bytes),
			 void *arg)
{
	struct tmem_learn *learn = atomic_load(&store->learn);

	if (learn)
		fn(arg, learn, store->learn_bytes);
}

static void unmap(void *arg, void *start, size_t bytes)
{
	(void)arg;
	tmem_map->unmap(start, bytes);
}

void tmem_learn_fini(struct tmem_store *store)
{
	tmem_learn_for_each(store, unmap, NULL);
}
