/* SPDX-License-Identifier: MIT */
/*
 * Which of the program's memory is paged: read from /proc/self/maps.
 *
 * Private anonymous memory is, whoever allocated it: heaps, stacks of
 * threads, arenas, reserves that are not accessible yet.  Left out: our own,
 * files and shared memory, the main stack, ranges that the program wants
 * wiped in children, the anonymous end of a library's data (libc's must stay),
 * and small ranges (hot by nature) unless there are very many of them.
 *
 * A scan registers what is new and puts pages that were filled before into
 * the table.  It also pins what the kernel touches where no fault can be
 * served: the thread descriptors (a thread's exit writes there).
 */
#ifndef TMEM_PAGER_REGION_H
#define TMEM_PAGER_REGION_H

#include "pager.h"

int tmem_region_init(struct tmem_pager *pager);

/* Scans; the first call arms the pager.  The ticker only. */
void tmem_region_scan(struct tmem_pager *pager);

/*
 * [start, end) (addresses) was unmapped: registers what has been put in its
 * place.  A program that commits parts of a reserve by mapping over them would
 * else outrun the scans.
 */
void tmem_region_refill_locked(struct tmem_pager *pager, uint64_t start,
			       uint64_t end) TMEM_REQUIRES(&pager->lock);

/*
 * In a fork's child: forgets pages that are not mapped here, and registers.  0,
 * or where forks are trapped -EAGAIN: something that is out is not as it was.
 */
int tmem_region_adopt(struct tmem_pager *pager);

/*
 * Where forks are trapped, what is registered is kept from children
 * (MADV_DONTFORK); lets it go to one that is to be made, and takes that back.
 * What the program itself keeps from children (*homes*) stays with it.
 */
void tmem_region_let_go_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock);
void tmem_region_keep_locked(struct tmem_pager *pager)
	TMEM_REQUIRES(&pager->lock);

/* The program wants to keep [start, end) (addresses) from its children. */
void tmem_region_home_locked(struct tmem_pager *pager, uint64_t start,
			     uint64_t end) TMEM_REQUIRES(&pager->lock);
/* It does not, or it was unmapped. */
void tmem_region_no_home_locked(struct tmem_pager *pager, uint64_t start,
				uint64_t end) TMEM_REQUIRES(&pager->lock);

/* Pins the descriptors of all threads; notes real-time ones. */
void tmem_region_pin_threads(struct tmem_pager *pager);

/* Keeps [start, end) (addresses) out for good. */
void tmem_region_leave_out_locked(struct tmem_pager *pager, uint64_t start,
				  uint64_t end) TMEM_REQUIRES(&pager->lock);

#endif
