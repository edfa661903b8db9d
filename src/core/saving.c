/* SPDX-License-Identifier: MIT */
/* Pages that a snapshot has yet to read are kept for it; see saving.h. */
#include "saving.h"

#include <errno.h>
#include <string.h>

#include "cool.h"
#include "object.h"

/* Of those that the saver is at: has it read the page? */
static bool name_is_sent(const struct tmem_saving *s, const void *id,
			 const struct tmem_slot *slot)
{
	uint32_t i;

	for (i = 0; i < s->nr_names; i++) {
		const struct tmem_saving_name *name = &s->names[i];

		if (name->index == slot->index &&
		    name->pool == tmem_slot_pool(slot) &&
		    memcmp(&name->object, id, sizeof(name->object)) == 0)
			return name->sent;
	}
	return false;
}

bool tmem_saving_wants_now(struct tmem_store *store, struct tmem_shard *shard,
			   uint32_t handle)
{
	const struct tmem_saving *s = shard->saving;
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	const struct tmem_saving_part *part = &s->parts[shard - store->shards];
	uint32_t pos;

	if (!tmem_saving_has(s->pinning, tmem_slot_pool(slot)) ||
	    tmem_slot_epoch(slot) >= s->epoch ||
	    atomic_load_explicit(&s->error, memory_order_relaxed))
		return false;
	pos = tmem_index_pos(tmem_slot_hash(store, slot));
	if (pos < part->begin)
		return false;
	return pos >= part->end ||
	       !name_is_sent(s, &tmem_object_nr(store, slot->object)->id, slot);
}

uint32_t tmem_saving_pin(struct tmem_store *store, struct tmem_shard *shard,
			 uint32_t handle)
{
	struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	uint32_t target = handle;

	(void)shard;
	if (tmem_slot_form(slot) == TMEM_FORM_REF)
		memcpy(&target, slot->data, sizeof(target));
	/* Shared slots are read without a lock: no mark changes. */
	tmem_cool_touch(tmem_arena_slot(&store->arena, target));
	target = tmem_arena_share(&store->arena, target);
	if (!target)
		return 0;
	atomic_fetch_add_explicit(&store->nr_pinned, 1, memory_order_relaxed);
	return target;
}

void tmem_saving_unpin(struct tmem_store *store, struct tmem_shard *shard,
		       uint32_t handle)
{
	tmem_object_unshare(store, shard, handle);
	atomic_fetch_sub_explicit(&store->nr_pinned, 1, memory_order_relaxed);
}

/* Room for one more entry in the shard's log, or NULL. */
static struct tmem_saving_entry *new_entry(struct tmem_store *store,
					   struct tmem_saving_part *part)
{
	struct tmem_saving_log *log = atomic_load(&part->log);

	if (!log || log->nr == TMEM_SAVING_LOG_ENTRIES) {
		struct tmem_saving_log *next = log;

		log = tmem_meta_alloc(&store->meta, 1);
		if (!log)
			return NULL;
		log->next = next;
		atomic_store(&part->log, log);
	}
	return &log->entries[log->nr++];
}

void tmem_saving_keep_now(struct tmem_store *store, struct tmem_shard *shard,
			  uint32_t handle)
{
	struct tmem_saving *s = shard->saving;
	const struct tmem_slot *slot = tmem_arena_slot(&store->arena, handle);
	uint32_t pool = tmem_slot_pool(slot), pinned = 0;
	bool changed = tmem_slot_epoch(slot) >= s->since[pool];
	struct tmem_saving_entry *entry;

	if (!tmem_saving_wants_now(store, shard, handle))
		return;
	if (changed)
		pinned = tmem_saving_pin(store, shard, handle);
	entry = !changed || pinned
			? new_entry(store, &s->parts[shard - store->shards])
			: NULL;
	if (!entry) {
		if (pinned)
			tmem_saving_unpin(store, shard, pinned);
		atomic_store(&s->error, -ENOMEM);
		return;
	}
	*entry = (struct tmem_saving_entry){
		.name = { .object = tmem_object_nr(store, slot->object)->id,
			  .index = slot->index,
			  .pool = (uint16_t)pool,
			  .changed = changed },
		.handle = pinned,
	};
}
