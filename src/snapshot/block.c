/* SPDX-License-Identifier: MIT */
/* See block.h; the bytes are in format.h. */
#include "block.h"

#include <errno.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/seal.h"
#include "base/sys.h"

enum {
	BLOCK_BYTES = sizeof(struct tmem_snap_block),
	AD_BYTES = sizeof(struct tmem_snap_header) + BLOCK_BYTES
};

_Static_assert((int)TMEM_SNAPSHOT_KEY_BYTES == (int)TMEM_SEAL_KEY_BYTES &&
		       (int)TMEM_SNAP_SUM_BYTES == (int)TMEM_SEAL_TAG_BYTES,
	       "as the cipher has it");

int64_t tmem_snapshot_write_fd(void *arg, const void *bytes, size_t nr_bytes)
{
	long r;

	do
		r = tmem_sys(SYS_write, *(const int *)arg, bytes, nr_bytes);
	while (r == -EINTR);
	return r;
}

int64_t tmem_snapshot_read_fd(void *arg, void *ret_bytes, size_t nr_bytes)
{
	long r;

	do
		r = tmem_sys(SYS_read, *(const int *)arg, ret_bytes, nr_bytes);
	while (r == -EINTR);
	return r;
}

static uint64_t header_sum(const struct tmem_snap_header *header)
{
	return XXH3_64bits(header, offsetof(struct tmem_snap_header, sum));
}

static int make_seal(const void *key, struct tmem_seal **ret_seal)
{
	struct tmem_seal_key k = { .cipher = TMEM_CIPHER_XCHACHA20POLY1305 };
	int r;

	memcpy(k.key, key, sizeof(k.key));
	r = tmem_seal_create(&k, ret_seal);
	tmem_seal_wipe(&k, sizeof(k));
	return r;
}

/* What is sealed, in place; ad has AD_BYTES. */
static struct tmem_seal_text text_of(const struct tmem_snap_header *header,
				     struct tmem_snap_frame *frame, char *ad)
{
	struct tmem_seal_text t = { .ad = ad,
				    .ad_bytes = AD_BYTES,
				    .from = frame->text,
				    .to = frame->text,
				    .bytes = frame->head.length };

	memcpy(ad, header, sizeof(*header));
	memcpy(ad + sizeof(*header), &frame->head, BLOCK_BYTES);
	memcpy(t.nonce, header->salt, sizeof(header->salt));
	memcpy(t.nonce + sizeof(header->salt), &frame->head.number,
	       sizeof(frame->head.number));
	return t;
}

/* Of a plain block. */
static void sum_of(const struct tmem_snap_header *header,
		   const struct tmem_snap_frame *frame,
		   uint8_t sum[TMEM_SNAP_SUM_BYTES])
{
	XXH128_hash_t h =
		XXH3_128bits_withSeed(frame, BLOCK_BYTES + frame->head.length,
				      header->id[0] ^ header->id[1]);

	memcpy(sum, &h.low64, sizeof(h.low64));
	memcpy(sum + sizeof(h.low64), &h.high64, sizeof(h.high64));
}

/* Writing. */

static void write_all(struct tmem_snap_writer *w, const void *bytes,
		      size_t nr_bytes)
{
	const char *from = bytes;

	while (nr_bytes && !w->error) {
		int64_t r = w->sink->write(w->sink->arg, from, nr_bytes);

		if (r <= 0 || (uint64_t)r > nr_bytes) {
			w->error = r < 0 ? (int)r : -EIO;
			return;
		}
		from += r;
		nr_bytes -= (size_t)r;
		w->bytes += (uint64_t)r;
	}
}

int tmem_snap_begin(struct tmem_snap_writer *w,
		    const struct tmem_snapshot_sink *sink, const void *key,
		    const struct tmem_snap_chance *chance)
{
	int r = key ? make_seal(key, &w->seal) : 0;

	if (r < 0)
		return r;
	w->sink = sink;
	w->header = (struct tmem_snap_header){
		.version = TMEM_SNAP_VERSION,
		.header_bytes = sizeof(w->header),
		.features = key ? TMEM_SNAP_SEALED : 0,
		.id = { chance->id[0], chance->id[1] },
	};
	memcpy(w->header.magic, TMEM_SNAP_MAGIC, sizeof(w->header.magic));
	if (key)
		memcpy(w->header.salt, chance->salt, sizeof(chance->salt));
	w->header.sum = header_sum(&w->header);
	write_all(w, &w->header, sizeof(w->header));
	return w->error;
}

static void flush(struct tmem_snap_writer *w, uint32_t flags)
{
	struct tmem_snap_frame *frame = &w->frame;
	uint8_t sum[TMEM_SNAP_SUM_BYTES];
	char ad[AD_BYTES];

	frame->head.flags = flags;
	if (w->seal) {
		struct tmem_seal_text t = text_of(&w->header, frame, ad);

		tmem_seal_encrypt(w->seal, &t, sum);
	} else {
		sum_of(&w->header, frame, sum);
	}
	memcpy(frame->text + frame->head.length, sum, sizeof(sum));
	write_all(w, frame, BLOCK_BYTES + frame->head.length + sizeof(sum));
	frame->head.length = 0;
	frame->head.number++;
}

void *tmem_snap_room(struct tmem_snap_writer *w, unsigned bytes)
{
	void *room;

	if (!tmem_snap_fits(w, bytes))
		flush(w, 0);
	room = w->frame.text + w->frame.head.length;
	w->frame.head.length += bytes;
	return room;
}

int tmem_snap_finish(struct tmem_snap_writer *w)
{
	flush(w, TMEM_SNAP_LAST);
	return w->error;
}

void tmem_snap_writer_fini(struct tmem_snap_writer *w)
{
	tmem_seal_destroy(w->seal);
}

/* Reading. */

static int refuse(struct tmem_snap_reader *r, int error, const char *why)
{
	r->why = why;
	return error;
}

static int read_all(struct tmem_snap_reader *r, void *ret_bytes,
		    size_t nr_bytes)
{
	char *to = ret_bytes;

	while (nr_bytes) {
		int64_t n = r->source->read(r->source->arg, to, nr_bytes);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return refuse(r, -EBADMSG, "cut short");
		if ((uint64_t)n > nr_bytes)
			return -EIO;
		to += n;
		nr_bytes -= (size_t)n;
		r->next_offset += (uint64_t)n;
	}
	return 0;
}

static int check_header(struct tmem_snap_reader *r, const void *key)
{
	const struct tmem_snap_header *h = &r->header;
	static const uint8_t zeros[sizeof(h->salt)];
	bool sealed = h->features & TMEM_SNAP_SEALED;

	if (memcmp(h->magic, TMEM_SNAP_MAGIC, sizeof(h->magic)) != 0)
		return refuse(r, -EBADMSG, "not a snapshot");
	/* A version to come may have another header. */
	if (h->version != TMEM_SNAP_VERSION)
		return refuse(r, -EOPNOTSUPP, "of an unknown version");
	if (h->sum != header_sum(h))
		return refuse(r, -EBADMSG, "the header is damaged");
	if (h->features & ~(uint32_t)TMEM_SNAP_SEALED)
		return refuse(r, -EOPNOTSUPP, "has unknown features");
	if (h->header_bytes != sizeof(*h) || h->zero ||
	    (!sealed && memcmp(h->salt, zeros, sizeof(zeros)) != 0))
		return refuse(r, -EBADMSG, "the header is wrong");
	if (sealed && !key)
		return refuse(r, -ENOKEY, "encrypted, and there is no key");
	if (!sealed && key)
		return refuse(r, -EKEYREJECTED, "not encrypted");
	return 0;
}

int tmem_snap_open(struct tmem_snap_reader *r,
		   const struct tmem_snapshot_source *source, const void *key)
{
	int error;

	r->source = source;
	error = read_all(r, &r->header, sizeof(r->header));
	if (error == 0)
		error = check_header(r, key);
	if (error == 0 && key)
		error = make_seal(key, &r->seal);
	return error;
}

static int verify(struct tmem_snap_reader *r)
{
	struct tmem_snap_frame *frame = &r->frame;
	uint8_t got[TMEM_SNAP_SUM_BYTES], sum[TMEM_SNAP_SUM_BYTES];
	char ad[AD_BYTES];

	memcpy(got, frame->text + frame->head.length, sizeof(got));
	if (r->seal) {
		struct tmem_seal_text t = text_of(&r->header, frame, ad);

		if (tmem_seal_decrypt(r->seal, &t, got) < 0)
			return refuse(r, -EBADMSG, "damaged, or another key's");
		return 0;
	}
	sum_of(&r->header, frame, sum);
	if (memcmp(got, sum, sizeof(sum)) != 0)
		return refuse(r, -EBADMSG, "damaged");
	return 0;
}

int tmem_snap_next(struct tmem_snap_reader *r)
{
	struct tmem_snap_frame *frame = &r->frame;
	int error;

	r->offset = r->next_offset;
	error = read_all(r, &frame->head, BLOCK_BYTES);
	if (error < 0)
		return error;
	if (frame->head.length > TMEM_SNAP_TEXT_BYTES ||
	    (frame->head.flags & ~(uint32_t)TMEM_SNAP_LAST) ||
	    frame->head.number != r->next_number)
		return refuse(r, -EBADMSG, "a block's head is damaged");
	error = read_all(r, frame->text,
			 frame->head.length + TMEM_SNAP_SUM_BYTES);
	if (error == 0)
		error = verify(r);
	if (error < 0)
		return error;
	r->next_number++;
	r->last = frame->head.flags & TMEM_SNAP_LAST;
	return 0;
}

void tmem_snap_reader_fini(struct tmem_snap_reader *r)
{
	tmem_seal_destroy(r->seal);
}
