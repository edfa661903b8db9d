/* SPDX-License-Identifier: MIT */
/*
 * Processes that share memory by fork.
 *
 * While a relative lives, what both have inherited is shared copy-on-write:
 * the store's old spans stay frozen, loads keep the stored copy, and shared
 * pages are left alone: evicting one frees nothing as long as the other has
 * it.  busy.h says when they go.
 */
#ifndef TMEM_PAGER_RELATED_H
#define TMEM_PAGER_RELATED_H

#include "pager.h"

/* Looks whether a relative still lives; thaws the store when none does. */
void tmem_related_update(struct tmem_pager *pager);

#endif
