/* SPDX-License-Identifier: MIT */
/*
 * Messages of the tree to bytes and back: no socket, no malloc.  What comes
 * in is checked here once; behind this everybody may rely on its ranges.
 */
#ifndef TMEM_WIRE_MESSAGE_H
#define TMEM_WIRE_MESSAGE_H

#include "wire/tree.h"

#include <stddef.h>

/* All zero but type and version; no slot. */
void tmem_tree_message_init(struct tmem_tree_message *message,
			    enum tmem_tree_type type);
/*
 * Bytes from a pager.  0, or -EBADMSG: wrong length, version, type or a
 * field out of its range; then nothing is written.  In ret_message `comm` is
 * NUL-ended and holds printable characters only.
 */
int tmem_tree_message_from_pager(const void *bytes, size_t len,
				 struct tmem_tree_message *ret_message);
/* The same for the keeper's answers, as a pager reads them. */
int tmem_tree_message_from_keeper(const void *bytes, size_t len,
				  struct tmem_tree_message *ret_message);
/* "statically linked", ...: why a process is not paged. */
const char *tmem_not_paged_text(uint32_t reason);

#endif
