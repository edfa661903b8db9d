/* SPDX-License-Identifier: MIT */
/*
 * The gate: how a thread of the program asks the pager for something.
 *
 * A program thread may fault on anything at any moment, so it must not hold
 * what a handler needs.  It writes a command, wakes the gate thread, and
 * waits on a futex for the answer.
 *
 * FORK.  The child gets a copy of our tables and of the store, which must be
 * whole, and its first touches (in libc, before we get to run) must be
 * answered.  So:
 *   1  the parent's wrapper asks for fork mode: nothing is in flight, nobody
 *      changes anything (P4);
 *   2  it calls the real fork; the kernel gives us the child's userfaultfd
 *      in an event, and does not let the child run before that is read;
 *   3  the gate answers the child's faults through it from the parent's
 *      store, which still is what it was at the fork;
 *   4  the child's wrapper starts a pager of its own, which when ready touches
 *      the *doorbell*, a page that is never there: a fault that says "yours
 *      no more".  The gate closes the child's userfaultfd, which lets the
 *      child go on with nothing watched, and it watches its memory itself,
 *      before any of its threads but the pager has run;
 *   5  the gate ends fork mode.
 * A child that can't have a pager touches the second doorbell page: "make me
 * whole".  The gate then puts all that is out into the child's memory, and
 * the child runs on unpaged.  A fork that came past the wrapper is made whole
 * the same way, at once.
 * Where the kernel does not tell of forks, birth.h says how it is done instead.
 */
#ifndef TMEM_PAGER_GATE_H
#define TMEM_PAGER_GATE_H

#include "pager.h"

enum tmem_gate_command {
	GATE_NONE = 0,
	GATE_FORK_BEGIN,
	GATE_FORK_END,	/* fork_pid is known: the child's, or -errno */
	GATE_PIN,	/* range_start, range_end */
	GATE_LEAVE_OUT, /* likewise */
	GATE_UNLOCK,	/* mlockall has locked our memory too */
	GATE_HOME,	/* not for children, or after all: region.h */
	GATE_NO_HOME,
	GATE_BIRTH_ASK,	  /* trap.h: is a window possible? */
	GATE_FORK_WHOLE,  /* it is not: fork mode, with nothing out */
	GATE_BIRTH_BEGIN, /* birth.h */
	GATE_BIRTH_FREEZE,
	GATE_BIRTH_DONE /* fork_pid is known */
};

/*
 * Program side.  begin and end hold off other askers in between; begin is
 * false if this very thread has begun already.
 */
bool tmem_gate_begin(struct tmem_pager *pager);
void tmem_gate_call(struct tmem_pager *pager, enum tmem_gate_command command);
void tmem_gate_end(struct tmem_pager *pager);

/* Pager side: a fork event brought a child's userfaultfd. */
void tmem_gate_child_locked(struct tmem_pager *pager, int child_uffd)
	TMEM_REQUIRES(&pager->lock);

/* Body of the gate thread. */
void tmem_gate_run(struct tmem_pager *pager);

/* In a fork's child: the gate as new. */
void tmem_gate_reset(struct tmem_pager *pager);

#endif
