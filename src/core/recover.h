/* SPDX-License-Identifier: MIT */
/* A restartable store taken up from its image: see recover.c. */
#ifndef TMEM_CORE_RECOVER_H
#define TMEM_CORE_RECOVER_H

#include "core.h"

/*
 * Everything that the image has, in a store that has nothing yet.  0, or
 * -ENOMEM, -ENOSPC: nothing that counts was changed, another try may succeed.
 */
int tmem_recover(struct tmem_store *store);

#endif
