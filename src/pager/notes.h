/* SPDX-License-Identifier: MIT */
/*
 * Notes: what the program did to its memory while the table stands still
 * (event.h), one page of them, in order; and the way from a place by these
 * notes to the table and back.
 */
#ifndef TMEM_PAGER_NOTES_H
#define TMEM_PAGER_NOTES_H

#include <stdatomic.h>
#include <stdint.h>

enum tmem_note_kind {
	NOTE_GONE = 1,
	NOTE_UNMAPPED,
	NOTE_MOVED
};

struct tmem_note {
	uint64_t kind; /* enum tmem_note_kind */
	uint64_t from; /* vpns */
	uint64_t to;   /* end, or for NOTE_MOVED the new place */
	uint64_t nr;
};

enum {
	EVENT_NOTES = (4096 - 64) / 32
};

struct tmem_deferred {
	_Atomic uint64_t nr;
	uint64_t reserved[7];
	struct tmem_note note[EVENT_NOTES];
};

/*
 * Where, by these notes, the content of vpn is in the table; UINT64_MAX: gone.
 */
uint64_t tmem_notes_resolve(const struct tmem_deferred *notes, uint64_t vpn);

/* The other way: where what the table has at vpn is now; likewise. */
uint64_t tmem_notes_follow(const struct tmem_deferred *notes, uint64_t vpn);

#endif
