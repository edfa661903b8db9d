/* SPDX-License-Identifier: MIT */
/*
 * What `tmem top` and `tmem set` say to a keeper, on the same socket that the
 * pagers of its tree use; here, to bytes and back.  One request, one answer,
 * and the keeper hangs up.
 *
 *   SHOW                        ->
 *                               <-   status, filled
 *   SET {kind, value, pid}      ->   changes -m, if pid is of this tree
 *                               <-   status: result and what changed
 *
 * A request differs in length from every message of a pager (tree.h).  The
 * keeper answers root and its own user; who asks checks by SO_PEERCRED whose
 * socket it is, for anybody may bind one of such a name.
 *
 * Both ends are mostly of one build; version and length say if they are not.
 */
#ifndef TMEM_WIRE_CONTROL_H
#define TMEM_WIRE_CONTROL_H

#include "wire/tree.h"

#include <stddef.h>

#define TMEM_CONTROL_VERSION 1u
/* The socket's abstract name begins so; 32 hexadecimal digits follow. */
#define TMEM_TREE_PREFIX "tmem-"

enum {
	TMEM_CONTROL_NAME = 64,
	TMEM_TREE_DIGITS = 32
};

enum tmem_control_type {
	TMEM_CONTROL_SHOW = 0x636f6e01, /* no type of tree.h */
	TMEM_CONTROL_SET
};

/* How -m is meant. */
enum tmem_amount_kind {
	TMEM_AMOUNT_NONE = 0,
	TMEM_AMOUNT_BYTES,   /* value: bytes */
	TMEM_AMOUNT_PERCENT, /* value: 1..100, of the machine's memory */
	TMEM_AMOUNT_AUTO     /* follows the memory cgroup's limit */
};

struct tmem_control_request {
	uint32_t type; /* enum tmem_control_type */
	uint32_t version;
	int32_t pid;   /* SET: of the tree, in the sender's pid namespace */
	uint32_t kind; /* SET: enum tmem_amount_kind */
	uint64_t value;
	uint64_t reserved;
};

/* The figures of a whole tree. */
struct tmem_control_status {
	uint32_t type; /* of the request */
	uint32_t version;
	int32_t result;	  /* 0 or -errno: ESRCH, not of this tree; EPERM; ERANGE
			   */
	int32_t main_pid; /* the program, as the keeper sees it */
	uint32_t kind;	  /* enum tmem_amount_kind: how -m is meant */
	uint32_t nr_programs;
	uint64_t age_ns;       /* of the tree */
	uint64_t limit_bytes;  /* -m now */
	uint64_t old_bytes;    /* SET: before */
	uint64_t usage_bytes;  /* resident, with the store and the keeper */
	uint64_t held_bytes;   /* by the stores, metadata included */
	uint64_t stored_bytes; /* compressed */
	uint64_t stored_pages;
	uint64_t swapped_pages;
	char name[TMEM_CONTROL_NAME];	    /* of the program */
	struct tmem_tree_counters counters; /* of the living and the dead */
};

_Static_assert(sizeof(struct tmem_control_request) == 32, "wire format");

/*
 * Bytes from whoever connects.  0; -ENOMSG: no request at all, but perhaps a
 * pager's message; -EBADMSG: one with a field out of its range.
 */
int tmem_control_decode(const void *bytes, size_t len,
			struct tmem_control_request *ret_request);
/*
 * A keeper's answer to a request of that type.  0, or -EBADMSG.  In
 * ret_status the name is NUL-ended and holds printable characters only.
 */
int tmem_control_decode_status(const void *bytes, size_t len, uint32_t type,
			       struct tmem_control_status *ret_status);

#endif
