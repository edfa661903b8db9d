/* SPDX-License-Identifier: MIT */
/*
 * Read-ahead: pages that a thread will want next come back before it asks.
 *
 * Each fault is shown to the streams (stream.h), which may say what to read.
 * The handler that answered the fault notes that as its *job* and does it in
 * chunks, whenever no fault waits: demand comes before read-ahead, and
 * read-ahead before paying for either (serve.c).  A newer job replaces what is
 * left of an older one.
 *
 * A chunk is claimed, read without the lock, and installed: neighbours with
 * one ioctl, others one by one, the lock let go in between.  Whatever stands in
 * the way (an event, a page gone, fork mode, a copy that can't be read) only
 * means that the page is not read ahead: it is STORED as before, and a touch
 * finds out why.  So read-ahead can lose nothing (L3), and does not wait.
 *
 * Pages read ahead count against the budget like others; where there is no
 * room, or an eighth of the resident pages are of unknown use, none are read.
 * They are marked in the table (T5) until the stream shows that they were used
 * (counter readahead_hits) or they are gone (readahead_wasted); the proportion
 * bounds the windows.
 */
#ifndef TMEM_PAGER_AHEAD_H
#define TMEM_PAGER_AHEAD_H

#include "pager.h"

/* Nothing known yet: at the start, and in a fork's child. */
void tmem_ahead_start(struct tmem_pager *pager);

/* A fault, with the thread in its low bits (event.h): may set a new job. */
void tmem_ahead_note_locked(struct tmem_pager *pager, struct tmem_handler *me,
			    uint64_t fault) TMEM_REQUIRES(&pager->lock);

/* Does one chunk of the job; how many pages that were, -1: there is none. */
int tmem_ahead_step(struct tmem_handler *me);

#endif
