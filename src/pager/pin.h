/* SPDX-License-Identifier: MIT */
/*
 * Pins: pages that are never evicted, because the kernel touches them where
 * no fault is served, above all a thread's descriptor at its exit.
 *
 * A descriptor is found through the thread's robust list, whose head lies in
 * it.  Pins stay until the memory is unmapped: libc uses the stacks of dead
 * threads again, descriptors in the same place.
 */
#ifndef TMEM_PAGER_PIN_H
#define TMEM_PAGER_PIN_H

#include <stdint.h>

#include "pager.h"

/* Pins [start, end) (addresses); pages that are out come back in a moment. */
void tmem_pin_range_locked(struct tmem_pager *pager, uint64_t start,
			   uint64_t end) TMEM_REQUIRES(&pager->lock);

/* Brings back pinned pages that are out.  Not for handlers. */
void tmem_pin_fetch(struct tmem_pager *pager, void *scratch);

/*
 * A write touch that changes nothing, cannot crash and never waits: the
 * kernel's atomic OR of nothing.  -EFAULT if the page is not there.
 */
long tmem_pin_touch(struct tmem_pager *pager, uint64_t addr);

#endif
