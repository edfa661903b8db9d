/* SPDX-License-Identifier: MIT */
/*
 * The trainer.  What it counts are *grams*, the hashes of each 8 bytes in a
 * row.  A gram's weight is the number of sample pages that have it: where a
 * page repeats itself a codec needs no dictionary, so once a page counts.
 * The table is small, so chance alone gives every hash some weight; what is
 * below one and a half times the mean counts for nothing.
 *
 * CHOICE.  The samples are cut into as many *epochs* as segments fit the
 * dictionary.  From each, round after round, the segment is taken whose grams
 * weigh most; then these weigh nothing any more, so that no later segment is
 * taken for them.  It ends when there are twice as many as needed, or a round
 * over all epochs found nothing.
 *
 * TRIAL.  Hashes deceive, noise most of all.  So the grams of the segments
 * that were chosen are looked for in all samples again, themselves this time.
 * Those that no other page has are dropped, the others ranked.
 *
 * ORDER.  The segments that weigh most come last: they are nearest to the
 * page, where an offset costs zstd the fewest bits; and in LZ4's table, which
 * has one place a hash, they displace the others.
 */
#include "train.h"

#include <errno.h>
#include <string.h>

#include "base/hash.h"
#include "tmem/tmem.h"

enum {
	GRAM = 8,
	SEGMENT = 96, /* bytes */
	ROUNDS = 4,   /* that it takes to fill the dictionary */
	HASH_BITS = 17,
	HASHES = 1 << HASH_BITS,
	MIN_SEGMENT = 16,
	CHOSEN_BYTES = 64 * 1024 - SEGMENT,
	MAX_SEGMENTS = CHOSEN_BYTES / MIN_SEGMENT,
	STEP_PAGES = 16,
	GRAMS_A_PAGE = TMEM_PAGE_SIZE - GRAM + 1,
	GRAMS_A_SEGMENT = SEGMENT - GRAM + 1
};

struct segment {
	const unsigned char *bytes;
	uint32_t length;
	uint32_t weight;
};

struct samples {
	const unsigned char *pages;
	unsigned nr;
};

enum stage {
	WEIGH,
	CHOOSE,
	TRIAL,
	DONE
};

struct work {
	struct samples samples;
	unsigned capacity;
	enum stage stage;
	unsigned at;	/* the next page, or epoch */
	unsigned found; /* in this round of epochs */
	union {
		uint16_t weights[HASHES];
		/* The trial: by place among the bytes chosen. */
		struct {
			uint16_t pages[HASHES / 2]; /* that have the gram */
			uint16_t last[HASHES / 2];  /* of them, + 1 */
		};
	};
	union {
		uint16_t last_page[HASHES]; /* with the gram, + 1 */
		uint16_t in_window[HASHES]; /* times */
		uint16_t places[HASHES];    /* the trial: + 1; 0: none */
	};
	struct segment segments[MAX_SEGMENTS];
	unsigned char chosen[CHOSEN_BYTES];
	unsigned nr_segments;
	unsigned bytes; /* of all segments */
};
_Static_assert(sizeof(struct work) <= TMEM_TRAIN_WORK_BYTES, "it must fit");
_Static_assert(CHOSEN_BYTES < HASHES / 2, "places have 16 bits");

static unsigned gram(const unsigned char *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return (unsigned)(word * TMEM_HASH_K0 >> (64 - HASH_BITS));
}

static const unsigned char *page_of(const struct samples *s, unsigned i)
{
	return s->pages + (size_t)i * TMEM_PAGE_SIZE;
}

/* The page after the last of this step. */
static unsigned step_end(const struct work *w)
{
	unsigned left = w->samples.nr - w->at;

	return w->at + (left < STEP_PAGES ? left : STEP_PAGES);
}

/* What chance alone gives is no weight. */
static void discount(struct work *w)
{
	uint64_t sum = 0;
	unsigned g, chance;

	for (g = 0; g < HASHES; g++)
		sum += w->weights[g];
	chance = (unsigned)(sum * 3 / 2 / HASHES) + 1;
	for (g = 0; g < HASHES; g++)
		w->weights[g] = (uint16_t)(w->weights[g] > chance
						   ? w->weights[g] - chance
						   : 0);
	memset(w->in_window, 0, sizeof(w->in_window));
}

/* Some pages; false if these were the last. */
static bool weigh(struct work *w)
{
	unsigned end = step_end(w), k, g;

	for (; w->at < end; w->at++) {
		for (k = 0; k < GRAMS_A_PAGE; k++) {
			g = gram(page_of(&w->samples, w->at) + k);
			w->weights[g] += w->last_page[g] != w->at + 1;
			w->last_page[g] = (uint16_t)(w->at + 1);
		}
	}
	if (w->at < w->samples.nr)
		return true;
	discount(w);
	return false;
}

/* The weight of a gram that enters the window, if it is new there. */
static unsigned enter(struct work *w, const unsigned char *bytes)
{
	unsigned g = gram(bytes);

	return w->in_window[g]++ == 0 ? w->weights[g] : 0;
}

static unsigned leave(struct work *w, const unsigned char *bytes)
{
	unsigned g = gram(bytes);

	return --w->in_window[g] == 0 ? w->weights[g] : 0;
}

static void best_of_page(struct work *w, const unsigned char *page,
			 struct segment *best)
{
	unsigned i, weight = 0;

	for (i = 0; i < GRAMS_A_PAGE; i++) {
		weight += enter(w, page + i);
		if (i >= GRAMS_A_SEGMENT)
			weight -= leave(w, page + i - GRAMS_A_SEGMENT);
		if (i + 1 >= GRAMS_A_SEGMENT && weight > best->weight) {
			best->bytes = page + i + 1 - GRAMS_A_SEGMENT;
			best->weight = weight;
		}
	}
	for (i = GRAMS_A_PAGE - GRAMS_A_SEGMENT; i < GRAMS_A_PAGE; i++)
		leave(w, page + i);
}

/* Cuts off what weighs nothing at both ends. */
static void trim(const struct work *w, struct segment *s)
{
	const unsigned char *end = s->bytes + GRAMS_A_SEGMENT;

	while (s->bytes < end && w->weights[gram(s->bytes)] == 0)
		s->bytes++;
	while (s->bytes < end && w->weights[gram(end - 1)] == 0)
		end--;
	s->length = (uint32_t)(end - s->bytes) + GRAM - 1;
}

/* False if these are enough. */
static bool take(struct work *w, struct segment *s, unsigned enough)
{
	unsigned i;

	trim(w, s);
	for (i = 0; i + GRAM <= s->length; i++)
		w->weights[gram(s->bytes + i)] = 0;
	if (s->length < MIN_SEGMENT)
		return true;
	if (s->length > enough - w->bytes)
		return false;
	memcpy(w->chosen + w->bytes, s->bytes, s->length);
	s->bytes = w->chosen + w->bytes;
	w->segments[w->nr_segments++] = *s;
	w->bytes += s->length;
	return true;
}

static unsigned nr_epochs(const struct work *w)
{
	unsigned nr = w->capacity / (SEGMENT * ROUNDS);

	if (nr < 1)
		return 1;
	return nr > w->samples.nr ? w->samples.nr : nr;
}

/* One epoch; false if there are enough, or a round found nothing. */
static bool choose(struct work *w)
{
	unsigned enough =
		2 * w->capacity < CHOSEN_BYTES ? 2 * w->capacity : CHOSEN_BYTES;
	unsigned nr = nr_epochs(w), i = w->samples.nr * w->at / nr;
	unsigned end = w->samples.nr * (w->at + 1) / nr;
	struct segment best = { 0 };

	for (; i < end; i++)
		best_of_page(w, page_of(&w->samples, i), &best);
	w->found += best.weight > 0;
	if (best.weight > 0 && !take(w, &best, enough))
		return false;
	if (++w->at < nr)
		return true;
	w->at = 0;
	i = w->found;
	w->found = 0;
	return i > 0;
}

/* Where each gram of the segments lies, by its hash and what follows it. */
static void place(struct work *w)
{
	unsigned i, k, h;

	memset(w->places, 0, sizeof(w->places));
	memset(w->weights, 0, sizeof(w->weights));
	for (i = 0; i < w->nr_segments; i++) {
		const struct segment *s = &w->segments[i];

		for (k = 0; k + GRAM <= s->length; k++) {
			h = gram(s->bytes + k);
			while (w->places[h])
				h = (h + 1) % HASHES;
			w->places[h] = (uint16_t)(s->bytes + k - w->chosen + 1);
		}
	}
}

static void look_up(struct work *w, const unsigned char *bytes, unsigned page)
{
	unsigned h = gram(bytes), at;

	for (; w->places[h]; h = (h + 1) % HASHES) {
		at = w->places[h] - 1u;
		if (memcmp(w->chosen + at, bytes, GRAM) != 0)
			continue;
		w->pages[at] += w->last[at] != page + 1;
		w->last[at] = (uint16_t)(page + 1);
		return;
	}
}

/* A segment's weight: on how many other pages a gram of it is, in 1/64. */
static void judge(struct work *w)
{
	unsigned i, k, nr = w->nr_segments;

	w->nr_segments = 0;
	for (i = 0; i < nr; i++) {
		struct segment t = w->segments[i];

		t.weight = 0;
		for (k = 0; k + GRAM <= t.length; k++) {
			unsigned pages = w->pages[t.bytes + k - w->chosen];

			t.weight += pages > 1 ? pages - 1 : 0;
		}
		t.weight = t.weight * 64 / (t.length - GRAM + 1);
		if (t.weight)
			w->segments[w->nr_segments++] = t;
	}
}

/* Some pages; false if these were the last. */
static bool put_to_trial(struct work *w)
{
	unsigned end = step_end(w), k;

	for (; w->at < end; w->at++)
		for (k = 0; k < GRAMS_A_PAGE; k++)
			look_up(w, page_of(&w->samples, w->at) + k, w->at);
	if (w->at < w->samples.nr)
		return true;
	judge(w);
	return false;
}

/* Shell's: the heaviest first. */
static void sort(struct segment *s, unsigned nr)
{
	unsigned gap, i, k;

	for (gap = 1; gap < nr / 3; gap = gap * 3 + 1)
		;
	for (; gap > 0; gap /= 3) {
		for (i = gap; i < nr; i++) {
			struct segment moved = s[i];

			for (k = i;
			     k >= gap && s[k - gap].weight < moved.weight;
			     k -= gap)
				s[k] = s[k - gap];
			s[k] = moved;
		}
	}
}

/* The heaviest that fit, at the content's end first; returns its bytes. */
static unsigned write_out(struct work *w, char *content, unsigned capacity)
{
	unsigned i, nr, bytes = 0;
	char *to = content;

	for (nr = 0; nr < w->nr_segments; nr++) {
		struct segment *s = &w->segments[nr];

		if (s->length > capacity - bytes)
			s->length = capacity - bytes;
		if (s->length < GRAM)
			break;
		bytes += s->length;
	}
	if (bytes < TMEM_DICT_MIN_BYTES)
		return 0;
	for (i = nr; i-- > 0;) {
		memcpy(to, w->segments[i].bytes, w->segments[i].length);
		to += w->segments[i].length;
	}
	return bytes;
}

int tmem_train_start(const void *pages, unsigned nr_pages, void *work,
		     unsigned capacity)
{
	struct work *w = work;

	if (nr_pages < TMEM_TRAIN_MIN_PAGES || nr_pages > TMEM_TRAIN_MAX_PAGES)
		return -EINVAL;
	if (capacity < TMEM_DICT_MIN_BYTES || capacity > TMEM_DICT_MAX_BYTES)
		return -EINVAL;
	memset(w, 0, sizeof(*w));
	w->samples = (struct samples){ pages, nr_pages };
	w->capacity = capacity;
	return 0;
}

bool tmem_train_step(void *work)
{
	struct work *w = work;

	switch (w->stage) {
	case WEIGH:
		if (weigh(w))
			return true;
		break;
	case CHOOSE:
		if (choose(w))
			return true;
		place(w);
		break;
	case TRIAL:
		if (put_to_trial(w))
			return true;
		sort(w->segments, w->nr_segments);
		break;
	case DONE:
		return false;
	}
	w->at = 0;
	w->stage++;
	return w->stage != DONE;
}

int tmem_train_finish(void *work, void *content)
{
	struct work *w = work;

	return (int)write_out(w, content, w->capacity);
}

int tmem_train(const void *pages, unsigned nr_pages, void *work, void *content,
	       unsigned capacity)
{
	int r = tmem_train_start(pages, nr_pages, work, capacity);

	if (r < 0)
		return r;
	while (tmem_train_step(work))
		;
	return tmem_train_finish(work, content);
}

struct tmem_train_sum tmem_train_sum(const struct tmem_codec *codec,
				     const struct tmem_dict *dict,
				     void *scratch, const void *pages,
				     unsigned nr_pages)
{
	char *out = (char *)scratch + codec->compress_bytes;
	struct tmem_train_sum sum = { 0 };
	const char *page = pages;
	unsigned i, n;

	for (i = 0; i < nr_pages; i++, page += TMEM_PAGE_SIZE) {
		if (tmem_codec_same.compress(NULL, NULL, page, out,
					     TMEM_PAGE_SIZE))
			continue;
		n = codec->compress(scratch, dict, page, out, TMEM_PAGE_SIZE);
		sum.bytes += tmem_slot_bytes(n ? n : TMEM_PAGE_SIZE);
		sum.nr_pages++;
	}
	return sum;
}
