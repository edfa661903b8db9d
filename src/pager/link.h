/* SPDX-License-Identifier: MIT */
/*
 * The connection to the keeper: see wire/tree.h for what is said.
 *
 * The calls run in the pager process, except tmem_link_not_paged(), which any
 * process may use: it needs nothing but the socket's name.
 */
#ifndef TMEM_PAGER_LINK_H
#define TMEM_PAGER_LINK_H

#include "pager.h"

/*
 * Says hello and gets the budget page, the swap file and map, and a
 * userfaultfd with its API agreed.  0 or -errno; pager->fail_reason is set.
 */
int tmem_link_open(struct tmem_pager *pager);

/* Neither store nor swap file took a page. */
void tmem_link_swap_full(struct tmem_pager *pager);
/* We would take more than there is: divide. */
void tmem_link_want(struct tmem_pager *pager);

/* Tells the keeper that a process runs on without us, and why. */
void tmem_link_not_paged(const char *tree_name, int pid, uint32_t reason,
			 const char *comm);

/*
 * A slot for a child that is about to be forked, in state CLAIMED;
 * TMEM_TREE_NO_SLOT if there is none.
 */
int32_t tmem_link_claim(struct tmem_pager *pager);
/* The claim is not needed: the fork failed. */
void tmem_link_unclaim(struct tmem_pager *pager, int32_t slot);

#endif
