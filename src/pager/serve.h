/* SPDX-License-Identifier: MIT */
/*
 * Handlers: answering faults.
 *
 * One handler thread per CPU, pinned: the one on the CPU where the fault
 * happened runs as soon as the faulting thread sleeps, without an interrupt
 * to another CPU.  After an answer it evicts what the answer cost, so no
 * fault waits for a reclaim storm.
 *
 * Demand comes before read-ahead, and read-ahead before eviction: a handler
 * installs the page that was asked for and wakes its thread, then brings a
 * chunk of its neighbours (ahead.h), since that thread touches them next; then
 * it looks for faults after each further chunk and each batch of evictions.
 * Only when half of the budget's reserve is gone, it evicts at once.
 */
#ifndef TMEM_PAGER_SERVE_H
#define TMEM_PAGER_SERVE_H

#include "pager.h"

/*
 * Brings a page back that is out, from a thread that is no handler.  False:
 * it could not be (unmapped, lost, or fork mode).
 */
bool tmem_serve_fetch(struct tmem_pager *pager, uint64_t vpn, void *scratch);

/* Wakes every handler: it looks whether it is to wait for faults, and evicts.
 */
void tmem_serve_kick(struct tmem_pager *pager);

/* Body of a handler thread; returns when the program has ended. */
void tmem_serve_run(struct tmem_handler *me);

/*
 * Content of a page as the table and the notes have it, without changing
 * anything: 1 if copied to ret_page, 0 if it is zeros, -EOWNERDEAD if it has
 * been lost before, else a negative errno: it is lost now, tmem_lost_note().
 * For fork mode.
 */
int tmem_serve_peek(struct tmem_pager *pager, uint64_t vpn, void *ret_page);
/* The same by the table alone, at a place that the notes resolved to. */
int tmem_serve_peek_at(struct tmem_pager *pager, uint64_t at, void *ret_page);

#endif
