/* SPDX-License-Identifier: MIT */
/*
 * The few figures the pager reads from /proc, without libc.  "self" is the
 * pager process: it shares the program's memory, so its memory figures are
 * the program's.
 */
#ifndef TMEM_PAGER_PROCFS_H
#define TMEM_PAGER_PROCFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pager.h"

/* Resident pages, and those of files and shmem among them.  0 or -errno. */
int tmem_procfs_statm(int fd, uint64_t *ret_rss, uint64_t *ret_file_shmem);
/*
 * Calls fn(arg, tid) for each thread of a process, until it returns true,
 * which this then does too.
 */
typedef bool tmem_procfs_task_fn(void *arg, int tid);
bool tmem_procfs_tasks(int pid, tmem_procfs_task_fn *fn, void *arg);
/*
 * The arguments of the system call that a thread of the process sleeps in: 0
 * if it is number `nr`.  -ENOENT: another or none.  -EAGAIN: the thread does
 * not sleep.  Else -errno: it takes the right to trace it.
 */
int tmem_procfs_syscall(int pid, int tid, uint64_t nr, uint64_t ret_args[6]);
/* Is this Linux major.minor or later? */
bool tmem_procfs_linux(unsigned major, unsigned minor);
/* Mapped pages of a process; 0 if unknown. */
uint64_t tmem_procfs_mapped_pages(int pid);
/* A field of /proc/PID/stat, numbered as in proc(5); 0 if unknown. */
enum {
	PROCFS_STAT_MINFLT = 10,
	PROCFS_STAT_CPU = 39
};
uint64_t tmem_procfs_stat(int pid, int field);
/*
 * In pages: by how much our share of this memory's anonymous pages (Pss_Anon)
 * is less than their number, both from one walk, as eviction goes on meanwhile;
 * and Pss_Shmem.
 */
int tmem_procfs_shares(int64_t *ret_anon_less, uint64_t *ret_shmem);
/* Threads of the whole machine that run or could; 0: unknown. */
unsigned tmem_procfs_runnable(void);
/* RssShmem of this memory, in pages. */
int tmem_procfs_shmem_pages(uint64_t *ret_pages);
/* A number after `key` in the /proc file `path`; -ENOENT if it is not there. */
int tmem_procfs_value(const char *path, const char *key, uint64_t *ret_value);

/*
 * Which of this memory in [start, end) is registered with a userfaultfd for
 * missing pages, in order; at most PROCFS_WATCHED.  Reads all of smaps: slow.
 */
enum {
	PROCFS_WATCHED = 16
};
unsigned tmem_procfs_watched(uint64_t start, uint64_t end, char *buffer,
			     size_t room,
			     struct tmem_range ret_there[PROCFS_WATCHED]);
/* Where the mapping ends that covers `addr`; 0: none does, or unknown. */
uint64_t tmem_procfs_mapping_end(int maps_fd, uint64_t addr, char *buffer,
				 size_t room);
/* Is anything mapped there?  `maps_fd` may be -1: then it may be. */
bool tmem_procfs_is_mapped(int maps_fd, uint64_t start, uint64_t end);

/* Writes "prefix<nr>suffix" into out; NUL-terminated. */
void tmem_procfs_path(char *out, const char *prefix, uint64_t nr,
		      const char *suffix);
/* Decimal or hexadecimal digits at *text; advances it. */
uint64_t tmem_procfs_decimal(const char **text);
uint64_t tmem_procfs_hex(const char **text);

#endif
