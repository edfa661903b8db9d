/* SPDX-License-Identifier: MIT */
/* Working memory to read forms that need some. */
#ifndef TMEM_CORE_UNZIP_H
#define TMEM_CORE_UNZIP_H

#include "core.h"

/*
 * Makes the first one, without which no page may have such a form, and more if
 * they are wanted.  The control lock is held.
 */
bool tmem_unzip_make(struct tmem_store *store);
/* Waits until one is free. */
struct tmem_unzip *tmem_unzip_acquire(struct tmem_store *store);
void tmem_unzip_release(struct tmem_unzip *unzip);

/*
 * Makes a slot's page of it, or a copy's; its dictionary, if it has one, is
 * held.  -EIO if it is damaged, told before the page is written.
 */
int tmem_unzip_slot(struct tmem_store *store, const struct tmem_slot *slot,
		    unsigned size, void *page);

void tmem_unzip_for_each(struct tmem_store *store,
			 void (*fn)(void *arg, void *start, size_t bytes),
			 void *arg);
void tmem_unzip_fini(struct tmem_store *store);

#endif
