/* SPDX-License-Identifier: MIT */
/*
 * Births: a fork of a program whose forks the kernel does not tell of.
 *
 * The child has its parent's memory without what is out, and nothing is watched
 * there: who touches such a page reads zeros.  So the child is born in our own
 * code, on a stack of our own, and touches nothing of the program's before it
 * has a userfaultfd and a pager of its own:
 *   1  BIRTH_BEGIN: fork mode (pager.h, P4): nothing is in flight;
 *   2  the thread touches what the kernel touches in a new child: thread-local
 *      storage, the robust list and rseq in it.  In fork mode it stays;
 *   3  BIRTH_FREEZE: the gate takes the pager's lock, with no event on its way,
 *      and memory that is watched is let go to the child (MADV_DOFORK);
 *   4  the clone;
 *   5  BIRTH_DONE: the gate tells the child which events came meanwhile, gives
 *      the lock back, and the parent's pager goes on;
 *   6  the child starts a pager, which watches what the parent's watched, and
 *      goes on once that serves; so long its parent waits.
 *
 *   N1  From 3 to 5 nothing is installed, evicted or noted in the parent.  So
 *       the child's table is what its memory was like, but for what the
 *       program's other threads unmapped or moved just then.
 *   N2  Each of these is in 5's list: the kernel refuses ioctls (EAGAIN) from
 *       before a munmap or mremap until its event was read.  Whether it came
 *       before the clone, the child's maps tell; if not for sure, the child
 *       gives up.
 *   N3  A page that is out is not present in the child before its pager
 *       watches: PAGEMAP_SCAN says so, or the child gives up.
 *   N4  A child gives up before it has touched anything: it ends, is reaped by
 *       us, and the fork is tried again, at last with nothing out at all
 *       (*whole*), when there is nothing to go wrong; that child is not paged.
 */
#ifndef TMEM_PAGER_BIRTH_H
#define TMEM_PAGER_BIRTH_H

#include "event.h"
#include "pager.h"

enum tmem_birth_state {
	BIRTH_OPEN = 0,
	BIRTH_READY,
	BIRTH_GAVE_UP
};

enum tmem_birth_verdict {
	BIRTH_UNTOLD = 0,
	BIRTH_TOLD,
	BIRTH_UNSURE
};

/* A page that parent and child share; each child has a new one for its own. */
struct tmem_birth {
	_Atomic uint32_t state;	  /* futex: enum tmem_birth_state */
	_Atomic uint32_t verdict; /* futex: enum tmem_birth_verdict */
	uint64_t nr;
	struct tmem_note note[EVENT_NOTES];
};

_Static_assert(sizeof(struct tmem_birth) <= 4096, "one page");

/* A clone, without stack and without what only its child is to do. */
struct tmem_birth_call {
	uint64_t flags; /* with the signal for its end */
	uint64_t stack; /* 0: goes on where the parent is */
	uint64_t parent_tid;
	uint64_t child_tid;
	uint64_t tls;
	uint64_t pidfd;
};

/* Once, at the start and in each child.  0 or -errno. */
int tmem_birth_init(struct tmem_pager *pager);

/*
 * The clone; the gate is ours.  Returns what it gives to parent and child; in
 * the child, after its pager serves.
 */
long tmem_birth(struct tmem_pager *pager, const struct tmem_birth_call *call);

/* In the child, when its pager serves (or not): says so, or ends. */
void tmem_birth_report(struct tmem_pager *pager);

#endif
