/* SPDX-License-Identifier: MIT */
/* A restartable store taken up from its image: see recover.c. */
#ifndef TMEM_CORE_RECOVER_H
#define TMEM_CORE_RECOVER_H

#include "core.h"

/*
 * Everything that the image has, in a store that has nothing yet.  0, or
 * -ENOMEM, -ENOSPC, or what reading a tier said: nothing that counts was
 * changed, another try may succeed.  1: done, but pages are in a tier that the
 * store has not been given.
 */
int tmem_recover(struct tmem_store *store);

#endif
