/* SPDX-License-Identifier: MIT */
/* What -m says: a size, a part of the machine's memory, or "auto". */
#ifndef TMEM_CLI_AMOUNT_H
#define TMEM_CLI_AMOUNT_H

#include "wire/control.h"

#include <sys/types.h>

#define TMEM_MIN_LIMIT_BYTES (16ull << 20)

struct tmem_amount {
	enum tmem_amount_kind kind;
	uint64_t value; /* bytes or per cent */
};

/*
 * "512M", "60%" or "auto", as the argument of -m.  0, or an exit status after
 * one line on standard error.
 */
int tmem_amount_parse(const char *text, struct tmem_amount *ret_amount);
/*
 * In bytes, now, for a tree that runs in the memory cgroups of `pid` and
 * uses `tree_bytes`.  A per cent is one of the machine's memory, or of the
 * tightest of these cgroups' limits if that is less.  auto leaves a tenth of
 * each limit free, and what others use of it; never below the least that
 * tmem works in.  `root` is "" (or another file system root, for tests).
 */
uint64_t tmem_amount_bytes(const struct tmem_amount *amount, const char *root,
			   pid_t pid, uint64_t tree_bytes);
/* 0, or an exit status after a line: fewer bytes than tmem works in. */
int tmem_amount_check(const char *text, uint64_t bytes);

#endif
