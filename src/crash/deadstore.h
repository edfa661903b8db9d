/* SPDX-License-Identifier: MIT */
/*
 * A store in a core dump: which pages it has, and their content.
 *
 * The index leads to the slots, as in a living store; slots that it does not
 * lead to may be of yesterday.  A slot counts if its span says that it is in
 * use, if it names a page of frontswap's pool and if its checksum is right. A
 * page that two slots claim has none.  What can't be read is passed by: whoever
 * looks for a page finds that it is not there.
 *
 * Any byte of it may be wrong: see corefile.h.
 */
#ifndef TMEM_CRASH_DEADSTORE_H
#define TMEM_CRASH_DEADSTORE_H

#include "corefile.h"

#include <tmem/frontswap.h>

struct tmem_deadstore;

/*
 * The store at that address, and in it the pages of frontswap's type 0 in that
 * pool.  0, -ENOMEM, or -EIO if it can't be read.
 */
int tmem_deadstore_open(const struct tmem_corefile *core, uint64_t addr,
			tmem_pool_id pool, struct tmem_deadstore **ret);
void tmem_deadstore_close(struct tmem_deadstore *ds);

/* The page at that offset.  0, or -EIO: it has none that is whole. */
int tmem_deadstore_load(struct tmem_deadstore *ds, uint64_t offset,
			void *ret_page);

#endif
