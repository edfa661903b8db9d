/* SPDX-License-Identifier: MIT */
/*
 * Asserts that are always on: for programmer errors, O(1).
 *
 * A failed assert writes one line to descriptor 2 and traps.  No libc: it may
 * happen in the pager, whose thread block libc does not know.  A program that
 * has something to say first (the pager must tell its parent) sets the hook.
 */
#ifndef TMEM_BASE_ASSERT_H
#define TMEM_BASE_ASSERT_H

/* Called first, with the line that will be written; may not return. */
extern void (*tmem_assert_hook)(const char *line);

_Noreturn void tmem_assert_fail(const char *what, const char *file, int line);

#define TMEM_ASSERT(cond)              \
	(__builtin_expect(!!(cond), 1) \
		 ? (void)0             \
		 : tmem_assert_fail(#cond, __FILE__, __LINE__))

/* In tmem_<x>_check() only: invariant `id` of the structure's header. */
#define TMEM_INVARIANT(id, cond)                                          \
	(__builtin_expect(!!(cond), 1)                                    \
		 ? (void)0                                                \
		 : tmem_assert_fail("invariant " id ": " #cond, __FILE__, \
				    __LINE__))

#endif
