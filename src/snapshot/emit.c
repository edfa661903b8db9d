/* SPDX-License-Identifier: MIT */
/* Records of a snapshot, written; see emit.h. */
#include "emit.h"

#include <string.h>

#include "core/dicts.h"

enum {
	STEP_BYTES = 5, /* of a step in base 128, at most */
	STEP_BITS = 7,
	STEP_MORE = 1 << STEP_BITS,
	MOST_KEPT = UINT16_MAX
};

void tmem_snap_emit_client(struct tmem_snap_emit *e, uint32_t weight)
{
	struct tmem_snap_client rec = { .type = TMEM_SNAP_CLIENT,
					.weight = weight };

	memcpy(tmem_snap_room(&e->writer, sizeof(rec)), &rec, sizeof(rec));
}

void tmem_snap_emit_pool(struct tmem_snap_emit *e,
			 const struct tmem_snap_pool *pool)
{
	memcpy(tmem_snap_room(&e->writer, sizeof(*pool)), pool, sizeof(*pool));
}

/*
 * Room for a record of the page's object; writes which one that is, if the
 * block does not say so already.
 */
static void *room_for(struct tmem_snap_emit *e,
		      const struct tmem_saving_name *name, unsigned bytes)
{
	struct tmem_snap_writer *w = &e->writer;
	struct tmem_snap_object rec = {
		.type = TMEM_SNAP_OBJECT,
		.pool = e->numbers[name->pool],
		.id = { name->object.word[0], name->object.word[1],
			name->object.word[2] },
	};
	bool same = memcmp(&rec, &e->object, sizeof(rec)) == 0;

	e->keep = NULL;
	/* A block that is begun anew has no object yet. */
	if (same && e->block == w->frame.head.number + 1 &&
	    tmem_snap_fits(w, bytes))
		return tmem_snap_room(w, bytes);
	bytes += (unsigned)sizeof(rec);
	memcpy(tmem_snap_room(w, bytes), &rec, sizeof(rec));
	e->object = rec;
	e->block = w->frame.head.number + 1;
	return w->frame.text + w->frame.head.length - bytes + sizeof(rec);
}

void tmem_snap_emit_dict(struct tmem_snap_emit *e,
			 const struct tmem_snap_dict *head, const void *content)
{
	unsigned bytes = (unsigned)sizeof(*head) + head->content_bytes;
	unsigned char *to = tmem_snap_room(&e->writer, bytes);

	memcpy(to, head, sizeof(*head));
	memcpy(to + sizeof(*head), content, head->content_bytes);
	e->keep = NULL;
}

void tmem_snap_emit_page(struct tmem_snap_emit *e,
			 const struct tmem_saving_name *name,
			 const struct tmem_slot *slot)
{
	struct tmem_snap_page rec = { .type = TMEM_SNAP_PAGE,
				      .form = (uint8_t)tmem_slot_form(slot),
				      .length = slot->length,
				      .index = name->index };
	unsigned char *to =
		room_for(e, name, (unsigned)sizeof(rec) + slot->length);

	memcpy(to, &rec, sizeof(rec));
	memcpy(to + sizeof(rec), slot->data, slot->length);
	if (tmem_form_has_dict(rec.form)) {
		uint16_t number =
			(uint16_t)tmem_dict_place(tmem_dict_name(slot->data));

		memcpy(to + sizeof(rec), &number, sizeof(number));
	}
	e->pages++;
	e->data_bytes += slot->length;
}

/* The record that is open goes on with this page, if it can. */
static bool goes_on(const struct tmem_snap_emit *e,
		    const struct tmem_saving_name *name)
{
	return e->keep && e->nr_kept < MOST_KEPT &&
	       name->index > e->keep_index &&
	       e->object.pool == e->numbers[name->pool] &&
	       memcmp(e->object.id, &name->object, sizeof(e->object.id)) == 0 &&
	       tmem_snap_fits(&e->writer, STEP_BYTES);
}

void tmem_snap_emit_keep(struct tmem_snap_emit *e,
			 const struct tmem_saving_name *name)
{
	struct tmem_snap_keep rec = { .type = TMEM_SNAP_KEEP,
				      .nr = 1,
				      .index = name->index };

	if (goes_on(e, name)) {
		uint32_t step = name->index - e->keep_index;

		while (step >= STEP_MORE) {
			*(uint8_t *)tmem_snap_room(&e->writer, 1) =
				(uint8_t)(step | STEP_MORE);
			step >>= STEP_BITS;
		}
		*(uint8_t *)tmem_snap_room(&e->writer, 1) = (uint8_t)step;
		e->nr_kept++;
		memcpy(e->keep + offsetof(struct tmem_snap_keep, nr),
		       &e->nr_kept, sizeof(e->nr_kept));
	} else {
		void *to = room_for(e, name, sizeof(rec));

		memcpy(to, &rec, sizeof(rec));
		e->keep = to;
		e->nr_kept = 1;
	}
	e->keep_index = name->index;
	e->kept_pages++;
}

int tmem_snap_emit_end(struct tmem_snap_emit *e)
{
	struct tmem_snap_end rec = { .type = TMEM_SNAP_END,
				     .pages = e->pages,
				     .kept_pages = e->kept_pages,
				     .data_bytes = e->data_bytes };

	memcpy(tmem_snap_room(&e->writer, sizeof(rec)), &rec, sizeof(rec));
	return tmem_snap_finish(&e->writer);
}
