/* SPDX-License-Identifier: MIT */
/*
 * Tiers opened, and opened again by a process that takes up a restartable
 * store.  The model is in tiering.h.
 *
 * LABEL.  Segment 0 of such a store's tier holds no records: it is its label,
 * known by its salt, which the image has, too (image.h).  So a tier is known to
 * be the right one, and its key to be the right one, before anything is done.
 * A label is written to the tier first; until it is in the image as well, no
 * place can name that tier, and it gets another.
 *
 * WHO.  Such a tier's file is opened anew and locked.  The lock is on that
 * description, which I/O in flight holds, too: so who has it need not fear that
 * a write of a process that was killed arrives after his own.
 *
 * FINDING.  Recovery asks for each slot with a place what it leads to.  The
 * first that names a segment has its header read: if it is sound the lot is
 * live, else lost.  Whether a place goes with the lot (generation, salt, end)
 * is looked at here, to count it, and at each load.  A lot counts all places
 * that name it, so its number is not used again before all of these are gone:
 * nothing is overwritten that another attempt might read.  What nobody names is
 * dropped in the end.
 *
 * Nothing that is read here is trusted before it was checked.
 */
#include <errno.h>
#include <string.h>
#include <sys/file.h>

#include "arena/image.h"
#include "base/seal.h"
#include "base/sys.h"
#include "dicts.h"
#include "tiering.h"

enum {
	LEAST_SEGMENTS = 2 /* one is the label */
};

#define LOCK_NS	 1000000000ull
#define WRITE_NS 30000000000ull

_Static_assert((int)TMEM_MAX_TIERS == (int)TMEM_IMAGE_LABELS &&
		       (int)TMEM_SEGMENT_SALT_BYTES ==
			       (int)TMEM_IMAGE_LABEL_BYTES,
	       "as the image has it");

/* Opening */

static int draw_seal(struct tmem_seal **ret_seal)
{
	struct tmem_seal_key key;
	int r = tmem_seal_draw(&key);

	if (r == 0)
		r = tmem_seal_create(&key, ret_seal);
	tmem_seal_wipe(&key, sizeof(key));
	return r;
}

int tmem_key_create(void)
{
	struct tmem_seal *seal = NULL;
	int r = draw_seal(&seal);

	if (r < 0 || !seal)
		return r;
	r = tmem_seal_save(seal);
	tmem_seal_destroy(seal);
	return r;
}

/* Waits for what a process that was killed has in flight. */
static int lock_file(int fd)
{
	const struct timespec ts = { 0, 1000000 };
	uint64_t until = tmem_sys_now_ns() + LOCK_NS;

	for (;;) {
		long r = tmem_sys(SYS_flock, fd, LOCK_EX | LOCK_NB);

		if (r != -EWOULDBLOCK)
			return (int)r;
		if (tmem_sys_now_ns() >= until)
			return -EBUSY;
		tmem_sys(SYS_nanosleep, &ts, 0);
	}
}

static int open_own(int fd, int *ret_own)
{
	long own = tmem_sys_open_anew(fd);
	int r;

	if (own < 0)
		return (int)own;
	r = lock_file((int)own);
	if (r < 0)
		tmem_sys_close((int)own);
	else
		*ret_own = (int)own;
	return r;
}

static int make_seal(const struct tmem_tier_setup *setup,
		     struct tmem_seal **ret_seal)
{
	if (setup->plain)
		return 0;
	return setup->key_fd ? tmem_seal_restore(*setup->key_fd, ret_seal)
			     : draw_seal(ret_seal);
}

static void close_below(struct tmem_below *below)
{
	if (below->self)
		below->ops->close(below->self);
	tmem_seal_destroy(below->seal);
	if (below->own_fd >= 0)
		tmem_sys_close(below->own_fd);
}

/* What the file of a restartable store's tier holds is looked at first. */
static int open_tier(struct tmem_store *store,
		     const struct tmem_tier_setup *setup)
{
	const struct tmem_tier_ops *const kinds[] = { &tmem_tier_file,
						      &tmem_tier_mapped };
	struct tmem_tier_options o = { .fd = setup->fd,
				       .max_bytes = setup->max_bytes,
				       .keep = store->image != NULL };
	struct tmem_below below = { .own_fd = -1 };
	int r = 0;

	if (setup->kind > TMEM_TIER_KIND_MAPPED)
		return -EINVAL;
	below.ops = kinds[setup->kind];
	if (store->image) {
		r = open_own(setup->fd, &below.own_fd);
		o.fd = below.own_fd;
	}
	/* Each costs 64 KiB. */
	o.depth =
		tmem_tiering_batch_bytes(store) == TMEM_SEGMENT_BYTES ? 16 : 2;
	if (r == 0)
		r = make_seal(setup, &below.seal);
	if (r == 0)
		r = below.ops->open(&o, &below.self);
	if (r == 0)
		r = tmem_tiering_attach_opened(store, &below);
	if (r < 0)
		close_below(&below);
	return r;
}

int tmem_store_add_tier(struct tmem_store *store,
			const struct tmem_tier_setup *setup)
{
	/* Its pages could be in a tier before it has one. */
	return store->image ? -EOPNOTSUPP : open_tier(store, setup);
}

/* Lots */

/* The reserve is for slots: here there is the limit. */
static struct tmem_lot *new_lot(struct tmem_store *store,
				struct tmem_below *tier, uint32_t number)
{
	struct tmem_lot **page = &tier->pages[number / TMEM_LOTS_PER_PAGE];

	if (!*page)
		*page = tmem_meta_alloc(&store->meta, 1);
	return tmem_tiering_lot(tier, number);
}

/* The header's bytes. */
static int read_header(struct tmem_below *tier, uint32_t number,
		       void *ret_bytes)
{
	struct tmem_tier_request q = {
		.segment = number,
		.bytes = TMEM_SEGMENT_HEADER_BYTES,
		.buffer = ret_bytes,
	};

	return tmem_tiering_read(tier, &q);
}

static int parse_header(const struct tmem_below *tier, uint32_t number,
			const char *bytes,
			struct tmem_tier_segment *ret_segment)
{
	struct tmem_tier_segment segment;
	int r = tmem_segment_read_header(bytes, tier->seal, &segment);

	if (r == 0 && segment.number != number)
		r = -EIO;
	if (r == 0)
		*ret_segment = segment;
	return r;
}

/* Labels */

/* Is it the tier that the image knows, with its key?  0, or what is wrong. */
static int check_label(struct tmem_below *tier,
		       const uint8_t label[TMEM_IMAGE_LABEL_BYTES],
		       struct tmem_tier_segment *ret_segment)
{
	char bytes[TMEM_SEGMENT_HEADER_BYTES];
	int r = read_header(tier, 0, bytes);

	if (r < 0)
		return r == -ENODATA ? -ENODEV : r;
	if (memcmp(bytes + TMEM_SEGMENT_SALT_AT, label,
		   TMEM_IMAGE_LABEL_BYTES) != 0)
		return -ENODEV;
	return parse_header(tier, 0, bytes, ret_segment) < 0 ? -EKEYREJECTED
							     : 0;
}

/* Its lot, which no page is ever put in; without bytes if it is to be written.
 */
static int find_label(struct tmem_store *store, unsigned nr, bool give_up)
{
	struct tmem_below *tier = &store->tiering->tiers[nr];
	uint8_t label[TMEM_IMAGE_LABEL_BYTES];
	struct tmem_lot *lot;
	int r;

	if (tier->nr_lots < LEAST_SEGMENTS)
		return -EINVAL;
	lot = new_lot(store, tier, 0);
	if (!lot)
		return -ENOMEM;
	lot->state = TMEM_LOT_LABEL;
	tier->nr_held++;
	if (!tmem_image_get_label(store->image, nr, label))
		return 0;
	r = check_label(tier, label, &lot->segment);
	return r < 0 && give_up ? 0 : r;
}

static int write_label(struct tmem_store *store, unsigned nr)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_below *tier = &t->tiers[nr];
	struct tmem_lot *lot = tmem_tiering_lot(tier, 0);
	struct tmem_segment_writer writer;
	struct tmem_tier_request q = { 0 };
	int r;

	r = tmem_segment_begin(&writer, tier->seal, 0, ++t->first_generation,
			       t->batch.buffer);
	if (r < 0)
		return r;
	tmem_segment_end(&writer, &lot->segment);
	q.bytes = lot->segment.bytes;
	q.buffer = t->batch.buffer;
	q.deadline_ns = tmem_sys_now_ns() + WRITE_NS;
	tier->ops->drop(tier->self, 0);
	if (tier->ops->write(tier->self, &q) != 1)
		return -EIO; /* nothing else is in flight */
	r = tmem_tier_wait(tier->ops, tier->self, &q);
	/* The record is ours only then. */
	while (q.state == TMEM_TIER_HELD)
		tier->ops->poll(tier->self, NULL, tmem_sys_now_ns() + LOCK_NS);
	if (r == 0)
		tmem_image_set_label(store->image, nr, lot->segment.salt);
	return r;
}

/* So that no number's generation comes again; half of them are left. */
static int draw_generation(struct tmem_tiering *t)
{
	int r = tmem_seal_random(&t->first_generation,
				 sizeof(t->first_generation));

	t->first_generation >>= 1;
	return r;
}

int tmem_tiering_open(struct tmem_store *store,
		      const struct tmem_store_options *options)
{
	unsigned i;
	int r = 0;

	if (options->nr_tiers > TMEM_MAX_TIERS)
		return -EINVAL;
	for (i = 0; r == 0 && i < options->nr_tiers; i++) {
		const struct tmem_tier_setup *setup = &options->tiers[i];

		/* A key that nobody else can have opens it once only. */
		if (store->image && !setup->plain && !setup->key_fd)
			return -EINVAL;
		r = open_tier(store, setup);
		if (r == 0 && store->image)
			r = find_label(store, i, options->give_up_tiers != 0);
	}
	if (r == 0 && store->image && store->tiering)
		r = draw_generation(store->tiering);
	return r;
}

int tmem_tiering_label(struct tmem_store *store)
{
	const struct tmem_tiering *t = store->tiering;
	unsigned i;
	int r = 0;

	for (i = 0; t && r == 0 && i < t->nr_tiers; i++)
		if (!tmem_tiering_lot(&t->tiers[i], 0)->segment.bytes)
			r = write_label(store, i);
	return r;
}

/* Recovery */

/* Can there be such a place? */
static bool is_place(const struct tmem_store *store,
		     const struct tmem_place *place)
{
	const struct tmem_codec *codec = tmem_codec_of(place->form);

	return codec && place->form != TMEM_FORM_SAME &&
	       codec->has_dict == (place->dict != 0) &&
	       (!place->dict || tmem_dicts_get(store, place->dict)) &&
	       place->tier < TMEM_MAX_TIERS && place->segment &&
	       place->length && place->length <= TMEM_PAGE_SIZE &&
	       place->generation <= TMEM_GENERATION_MASK &&
	       place->offset >= TMEM_SEGMENT_HEADER_BYTES &&
	       place->offset < TMEM_SEGMENT_BYTES;
}

/* The first place that names it: is there such a segment? */
static int look_at(struct tmem_tiering *t, struct tmem_below *tier,
		   struct tmem_lot *lot, uint32_t number)
{
	char bytes[TMEM_SEGMENT_HEADER_BYTES];
	int r = read_header(tier, number, bytes);

	if (r == 0)
		r = parse_header(tier, number, bytes, &lot->segment);
	/* Anything else may be better next time. */
	if (r < 0 && r != -EIO && r != -ENODATA && r != -EPROTONOSUPPORT)
		return r;
	lot->state = r == 0 ? TMEM_LOT_LIVE : TMEM_LOT_LOST;
	lot->generation = r == 0 ? lot->segment.generation : 0;
	tier->nr_held++;
	t->counts.segments++;
	return 0;
}

int tmem_tiering_find(struct tmem_store *store, const struct tmem_slot *slot)
{
	struct tmem_tiering *t = store->tiering;
	struct tmem_place place;
	struct tmem_below *tier;
	struct tmem_lot *lot;
	int r;

	if (slot->length != sizeof(place))
		return TMEM_FOUND_NOTHING;
	memcpy(&place, slot->data, sizeof(place));
	if (!is_place(store, &place))
		return TMEM_FOUND_NOTHING;
	if (!t || place.tier >= t->nr_tiers ||
	    place.segment >= t->tiers[place.tier].nr_lots)
		return TMEM_FOUND_MISSING;
	tier = &t->tiers[place.tier];
	lot = new_lot(store, tier, place.segment);
	if (!lot)
		return -ENOMEM;
	r = lot->state == TMEM_LOT_FREE ? look_at(t, tier, lot, place.segment)
					: 0;
	if (r < 0)
		return r;
	/* More than that no segment has, even if slots are there twice. */
	if (lot->live_bytes + tmem_record_bytes(place.length) >
	    2 * TMEM_SEGMENT_BYTES)
		return TMEM_FOUND_NOTHING;
	return tmem_tiering_segment(store, &place) ? TMEM_FOUND_LIVE
						   : TMEM_FOUND_LOST;
}

void tmem_tiering_recovered(struct tmem_store *store)
{
	struct tmem_tiering *t = store->tiering;
	uint32_t i, n;

	for (i = 0; t && i < t->nr_tiers; i++) {
		struct tmem_below *tier = &t->tiers[i];

		for (n = 1; n < tier->nr_lots; n++) {
			const struct tmem_lot *lot = tmem_tiering_lot(tier, n);

			if (!lot || lot->state == TMEM_LOT_FREE)
				tier->ops->drop(tier->self, n);
		}
		/* Of some all places were stale. */
		atomic_store(&tier->emptied, 1);
	}
}
