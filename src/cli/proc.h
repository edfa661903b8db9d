/* SPDX-License-Identifier: MIT */
/* What /proc says about processes. */
#ifndef TMEM_CLI_PROC_H
#define TMEM_CLI_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct tmem_proc {
	pid_t pid;
	pid_t ppid;
	char state;
	char comm[16];
	uint64_t cpu_ticks;   /* its own and of children that it waited for */
	uint64_t start_time;  /* with pid: names one process for ever */
	uint64_t start_stack; /* differs after an exec; 0 or 1 if hidden */
};

/* 0 or -errno. */
int tmem_proc_read(pid_t pid, struct tmem_proc *ret_proc);
/* False once it has ended, reaped or not. */
bool tmem_proc_is_alive(pid_t pid);
/* Is `ancestor` pid itself, its parent, or a parent's parent...? */
bool tmem_proc_descends(pid_t pid, pid_t ancestor);
/*
 * The pid, here, of the process that calls itself `inner_pid` in the pid
 * namespace of `sibling`.  0 if there is none.
 */
pid_t tmem_proc_translate(pid_t inner_pid, pid_t sibling);
/* Do both run in one address space?  1, 0, or -errno if we may not know. */
int tmem_proc_same_memory(pid_t a, pid_t b);
/* Pss_Anon + Pss_Shmem; 0 if it cannot be read. */
uint64_t tmem_proc_memory_bytes(pid_t pid);
/* Calls fn for every process, until it returns false. */
void tmem_proc_for_each(bool (*fn)(void *arg, const struct tmem_proc *proc),
			void *arg);

#endif
