/* SPDX-License-Identifier: MIT */
/*
 * Putting pages into the program's memory, and its waiting threads back to
 * work: the userfaultfd ioctls that do so, with plain results.
 *
 * Each returns the number of pages now present because of the call (the
 * first `nr` of them, or fewer), or a negative errno if none is:
 *   -EAGAIN  an event waits to be read      -EEXIST  something is there
 *   -ENOENT  nothing (registered) is mapped  -ESRCH  the memory is gone
 * With ENOENT the page may have moved, and the event wait to be read: who would
 * lose it calls tmem_install_sure().
 */
#ifndef TMEM_PAGER_INSTALL_H
#define TMEM_PAGER_INSTALL_H

#include <stdbool.h>
#include <stdint.h>

/* nr pages in a row; all in one mapping, else -ENOENT. */
long tmem_install_pages(int uffd, uint64_t vpn, const void *pages, unsigned nr);
long tmem_install_copy(int uffd, uint64_t vpn, const void *page);
long tmem_install_zero(int uffd, uint64_t vpn, unsigned nr);
/* Whoever touches the page gets SIGBUS: it is lost. */
long tmem_install_poison(int uffd, uint64_t vpn);
/*
 * A page, or with NULL poison, that would be lost if it was not put there:
 * -ENOENT only if nothing is there and no event is on its way, else -EAGAIN.
 */
long tmem_install_sure(int uffd, uint64_t vpn, const void *page_or_null);
void tmem_install_wake(int uffd, uint64_t vpn, unsigned nr);

/*
 * Is an event on its way, so that each of the above would be refused?  Those
 * of all changes that were begun before the call count, and faults do not.
 */
bool tmem_install_is_refused(int uffd);

/* Is this page mapped, and watched by this userfaultfd?  1, 0, -errno. */
int tmem_install_is_watched(int uffd, uint64_t vpn);

#endif
