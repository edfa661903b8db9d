/* SPDX-License-Identifier: MIT */
/*
 * Pages that pagers could not read back.  Pagers note the first few of each
 * process in its slot (wire/tree.h); we collect them, name the first few of the
 * tree on standard error, and keep what the report lists.
 */
#include "cli/keeper.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
	SAID_MAX = 8
};

void tmem_lost_text(const struct tmem_keeper_lost *lost, char *buf,
		    size_t bytes)
{
	if (lost->place < 0)
		snprintf(buf, bytes, "its copy in the page store is damaged");
	else if (lost->error == -EBADMSG)
		snprintf(buf, bytes,
			 "its copy in the swap file, at byte %" PRId64
			 ", fails its checksum",
			 lost->place);
	else
		snprintf(buf, bytes,
			 "the swap file could not be read at byte %" PRId64
			 ": %s",
			 lost->place, strerror(-lost->error));
}

static void say(struct tmem_keeper *k, const struct tmem_keeper_lost *lost)
{
	char why[160];

	if (k->nr_lost == SAID_MAX + 1)
		tmem_keeper_say(k, "more pages are lost; the report counts "
				   "them (faults_lost)");
	if (k->nr_lost > SAID_MAX)
		return;
	tmem_lost_text(lost, why, sizeof(why));
	tmem_keeper_say(k,
			"process %d (%.15s) has lost the page at 0x%" PRIx64
			": %s; a touch of it raises SIGBUS",
			(int)lost->pid, lost->comm, lost->addr, why);
}

void tmem_lost_collect(struct tmem_keeper *k, int slot)
{
	struct tmem_keeper_slot *s = &k->slots[slot];
	struct tmem_tree_slot *t = &k->tree->slots[slot];
	struct tmem_keeper_lost *lost;
	uint64_t addr;

	/* Its parent's pager speaks for a child that has not come yet. */
	if (!atomic_load(&t->pid))
		return;
	while (s->nr_lost < TMEM_TREE_LOST_PAGES &&
	       k->nr_lost < TMEM_KEEPER_LOST) {
		addr = atomic_load(&t->lost[s->nr_lost].addr);
		if (!addr)
			return;
		lost = &k->lost[k->nr_lost++];
		*lost = (struct tmem_keeper_lost){
			.pid = atomic_load(&t->pid),
			.addr = addr,
			.place = t->lost[s->nr_lost].place,
			.error = t->lost[s->nr_lost].error,
		};
		memcpy(lost->comm, t->comm, sizeof(lost->comm));
		lost->comm[sizeof(lost->comm) - 1] = '\0';
		s->nr_lost++;
		say(k, lost);
	}
}

void tmem_lost_look(struct tmem_keeper *k)
{
	int i;

	for (i = 0; i < TMEM_TREE_SLOTS; i++)
		if (atomic_load(&k->tree->slots[i].state) != TMEM_SLOT_FREE &&
		    atomic_load(&k->tree->slots[i].nr_lost))
			tmem_lost_collect(k, i);
}
