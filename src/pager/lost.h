/* SPDX-License-Identifier: MIT */
/*
 * Pages that could not be read back: their toucher gets SIGBUS, and the keeper
 * is told which they were and why (wire/tree.h).
 */
#ifndef TMEM_PAGER_LOST_H
#define TMEM_PAGER_LOST_H

#include "pager.h"

/*
 * The page at vpn is lost to the process of `slot`: a load of its copy, which
 * frontswap still has at `offset`, ended with `error`.
 */
void tmem_lost_note(struct tmem_pager *pager, struct tmem_tree_slot *slot,
		    uint64_t vpn, uint32_t offset, int error);

#endif
