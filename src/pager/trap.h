/* SPDX-License-Identifier: MIT */
/*
 * Traps: how a fork is caught in a program whose forks the kernel does not
 * tell of (UFFD_FEATURE_EVENT_FORK needs CAP_SYS_PTRACE).
 *
 * There the child of a fork reads zeros wherever a page is out, and libc reads
 * a lot before it returns from fork().  So we have to be there at once: while a
 * thread is on its way to fork, syscall user dispatch (prctl(2)) sends it a
 * SIGSYS for each system call that is not made by our own code, and where that
 * is the clone, birth.h makes it, on a stack of our own.  The other calls of
 * this *window* (libc takes its locks and blocks signals) are made as they are.
 *
 * The window opens in the last atfork handler before the clone, for whoever in
 * libc forks (daemon(3), forkpty(3)), or in the wrapper of _Fork(), clone() and
 * syscall(); it closes with the clone.  Within it
 *   W1  all signals are blocked but SIGSYS and those that a fault raises: with
 *       SIGSYS blocked the kernel would kill.  What the program asks for of its
 *       mask is kept beside, and comes true when the window closes;
 *   W2  the gate is ours: there is one window at a time.
 *
 * What cannot be trapped (a filter of the program's own might kill for the
 * prctl, or the kernel has no such thing) forks with nothing out, and the child
 * goes unpaged.  A clone that comes past all this finds no memory in the child,
 * and dies: what is watched is marked MADV_DONTFORK but while birth.h forks.
 */
#ifndef TMEM_PAGER_TRAP_H
#define TMEM_PAGER_TRAP_H

#include "pager.h"

/* Are this pager's forks to be caught?  NULL: nothing is paged. */
static inline bool tmem_trap_wanted(const struct tmem_pager *pager)
{
	return pager && pager->trapped;
}

/*
 * Opens the window of the calling thread, or makes the next fork one that needs
 * none.  Nothing if it is open already, or if nothing is paged.
 */
void tmem_trap_open(void);

/* In the parent: if the window is still open, nothing was cloned. */
void tmem_trap_close(void);

/* In a child that was cloned without a window. */
void tmem_trap_child(void);

#endif
