/* SPDX-License-Identifier: MIT */
/*
 * Can this executable be paged?  That is: will the kernel start it with a
 * dynamic loader that honours LD_PRELOAD and is of our own C library?
 *
 * Raw system calls only, no malloc, no errno, less than 1 KiB of stack: the
 * pager asks this in a vfork child just before an exec.
 */
#ifndef TMEM_BASE_EXE_H
#define TMEM_BASE_EXE_H

enum tmem_exe_kind {
	TMEM_EXE_OK = 0,
	TMEM_EXE_STATIC,  /* no dynamic loader: static, Go without libc */
	TMEM_EXE_SETUID,  /* set-user-ID, set-group-ID or capabilities */
	TMEM_EXE_MUSL,	  /* another C library: musl */
	TMEM_EXE_LOADER,  /* another dynamic loader, unknown to us */
	TMEM_EXE_MACHINE, /* another architecture or word size */
	TMEM_EXE_FORMAT,  /* neither ELF nor a #! script */
	TMEM_EXE_DENIED,  /* not executable for us, or a directory */
	TMEM_EXE_MISSING  /* it, or its #! interpreter, does not exist */
};

/*
 * Follows #! lines as the kernel does (at most four).  An executable that
 * may be run but not read counts as TMEM_EXE_OK: only running it would tell.
 */
enum tmem_exe_kind tmem_exe_classify(const char *path);
/* The same for fexecve(3) and execveat(2): `path` relative to dir_fd; an
 * empty path means dir_fd itself. */
enum tmem_exe_kind tmem_exe_classify_at(int dir_fd, const char *path);
/* "statically linked", ...: what it is, as part of a sentence. */
const char *tmem_exe_kind_text(enum tmem_exe_kind kind);

#endif
