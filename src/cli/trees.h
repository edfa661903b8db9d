/* SPDX-License-Identifier: MIT */
/*
 * The trees of `tmem run` that are there: their sockets, found in
 * /proc/net/unix, and what their keepers answer.
 */
#ifndef TMEM_CLI_TREES_H
#define TMEM_CLI_TREES_H

#include "wire/control.h"

#include <sys/types.h>

/* One answer, and by whom: the kernel says so, not the answer. */
struct tmem_trees_answer {
	uid_t uid;	  /* of whoever made the socket */
	pid_t pid;	  /* `tmem run`; it may have ended */
	const char *name; /* of the socket, unique; for this call only */
	struct tmem_control_status status;
};

/*
 * Sends the request to all trees at once, and calls fn for each valid answer
 * that comes in time.  Those who say nothing are not waited for longer than
 * that.  The number of trees asked, or -errno.
 *
 * Anybody may bind a socket of such a name and answer as it likes: fn looks
 * at the uid first.
 */
int tmem_trees_ask(const struct tmem_control_request *request,
		   void (*fn)(void *arg, const struct tmem_trees_answer *a),
		   void *arg);

#endif
