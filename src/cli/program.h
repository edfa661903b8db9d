/* SPDX-License-Identifier: MIT */
/* The program to be run: where it is, whether it can be paged, its
 * environment. */
#ifndef TMEM_CLI_PROGRAM_H
#define TMEM_CLI_PROGRAM_H

#include "base/exe.h"

#include <limits.h>

/*
 * Looks `name` up as execvp(3) does; the file goes to ret_path.  0, or
 * TMEM_EXE_DENIED or TMEM_EXE_MISSING (and no path).
 */
enum tmem_exe_kind tmem_program_find(const char *name, char *ret_path);
/* What it is, with a text file without #! counted as the shell's, as
 * execvp(3) has it. */
enum tmem_exe_kind tmem_program_classify(const char *path);
/* What to do about it; "" for TMEM_EXE_OK. */
const char *tmem_program_remedy(enum tmem_exe_kind kind);
/* 0, or an exit status after one line on standard error. */
int tmem_program_check(const char *name);

/*
 * The pager library beside this program, else where it is installed.  0, or
 * an exit status after one line on standard error.
 */
int tmem_program_find_pager(char *ret_path);
/* Puts TMEM_TREE and LD_PRELOAD into the environment.  0 or -errno. */
int tmem_program_set_environment(const char *pager_path, const char *tree_name);

#endif
