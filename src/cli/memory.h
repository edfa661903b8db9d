/* SPDX-License-Identifier: MIT */
/*
 * A process's private anonymous memory, looked at from outside: what of it
 * tmem run could page, and samples of it.
 *
 * The process is not stopped, and nothing of it is changed: only pages that
 * are in memory are read, for reading a missing one would make it.  That tells
 * the kernel that these pages were used; whoever wants to know which ones the
 * process itself uses (track.h) clears that again first.
 */
#ifndef TMEM_CLI_MEMORY_H
#define TMEM_CLI_MEMORY_H

#include "cli/pages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tmem_memory_range {
	uint64_t start;
	uint64_t end;
};

struct tmem_memory {
	pid_t pid;
	char comm[16];
	int mem_fd;
	int pagemap_fd;
	/* The pages that are present, in order. */
	struct tmem_memory_range *ranges;
	size_t nr_ranges;
	size_t room;
	/* Of what can be paged. */
	uint64_t present_pages;
	uint64_t swapped_pages;
	/* All that counts against -m: that, and what stays resident. */
	uint64_t need_bytes;
	bool paged_by_tmem; /* its evicted pages are not to be seen */
};

/* One mapping, as /proc/PID/smaps has it. */
struct tmem_mapping {
	uint64_t start;
	uint64_t end;
	bool pageable; /* as region.c of the pager chooses, at first sight */
	uint64_t referenced_bytes;
	uint64_t swap_bytes;
};

/* 0, or an exit status after one line on standard error. */
int tmem_memory_open(pid_t pid, struct tmem_memory *ret);
void tmem_memory_close(struct tmem_memory *memory);

/*
 * Reads at most `max` of the present pages, one at a random place of each of
 * `max` equal parts; fewer if some go meanwhile.  ret_addresses (may be NULL)
 * has room for `max`.  0, or an exit status after one line.
 */
int tmem_memory_sample(const struct tmem_memory *memory, uint32_t max,
		       struct tmem_pages *ret, uint64_t *ret_addresses);

/* Calls fn for every mapping.  0 or -errno. */
int tmem_memory_for_each(pid_t pid,
			 void (*fn)(void *arg, const struct tmem_mapping *m),
			 void *arg);

#endif
