/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/smaps says which mappings there are, PAGEMAP_SCAN which of their
 * pages are present or swapped (it skips what is empty, so reserves of
 * terabytes cost nothing, and leaves out the shared page of zeros, which is
 * no memory), and /proc/PID/mem what is in them.
 *
 * What can be paged is what the pager's region.c takes: writable private
 * anonymous mappings, but for small ones, stacks, locked ones and the ends of
 * libraries' data.
 */
#include "cli/memory.h"

#include "base/hash.h"
#include "base/uffd.h"
#include "cli/cli.h"
#include "cli/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
	PAGE = TMEM_PAGE_SIZE,
	SMALL_BYTES = 64 << 10,
	BSS_BYTES = 1 << 20,
	REGIONS = 512,
	NAME_BYTES = 64
};

/* smaps. */

struct parser {
	void (*fn)(void *arg, const struct tmem_mapping *m);
	void *arg;
	struct tmem_mapping mapping;
	bool have; /* one is being read */
	uint64_t file_end;
};

static void finish(struct parser *p)
{
	if (p->have)
		p->fn(p->arg, &p->mapping);
	p->have = false;
}

static bool is_pageable_name(const char *name)
{
	return *name != '[' || !strncmp(name, "[heap]", 6) ||
	       !strncmp(name, "[anon:", 6);
}

/* False if the line is no mapping's first. */
static bool parse_first(struct parser *p, const char *line)
{
	char perms[8] = "", name[NAME_BYTES] = "";
	uint64_t start, end, inode;
	bool bss;

	if (sscanf(line,
		   "%" SCNx64 "-%" SCNx64 " %7s %*x %*x:%*x %" SCNu64
		   " %63[^\n]",
		   &start, &end, perms, &inode, name) < 4)
		return false;
	finish(p);
	if (inode)
		p->file_end = end;
	bss = start == p->file_end && end - start < BSS_BYTES;
	p->have = true;
	p->mapping = (struct tmem_mapping){
		.start = start,
		.end = end,
		.pageable = !inode && !bss && perms[1] == 'w' &&
			    perms[3] == 'p' && is_pageable_name(name) &&
			    end - start >= SMALL_BYTES,
	};
	return true;
}

static void parse_line(struct parser *p, const char *line)
{
	uint64_t kib;

	if (parse_first(p, line))
		return;
	if (sscanf(line, "Referenced: %" SCNu64, &kib) == 1)
		p->mapping.referenced_bytes = kib << 10;
	else if (sscanf(line, "Swap: %" SCNu64, &kib) == 1)
		p->mapping.swap_bytes = kib << 10;
	else if (!strncmp(line, "VmFlags:", 8) && strstr(line, " lo"))
		p->mapping.pageable = false;
}

int tmem_memory_for_each(pid_t pid,
			 void (*fn)(void *arg, const struct tmem_mapping *m),
			 void *arg)
{
	struct parser p = { .fn = fn, .arg = arg };
	char path[64], *line = NULL;
	size_t room = 0;
	FILE *in;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	in = fopen(path, "re");
	if (!in)
		return -errno;
	while (getline(&line, &room, in) > 0)
		parse_line(&p, line);
	finish(&p);
	r = ferror(in) ? -EIO : 0;
	free(line);
	fclose(in);
	return r;
}

/* Which pages there are. */

struct collection {
	struct tmem_memory *memory;
	uint64_t swap_bytes; /* of all mappings */
	int result;	     /* 0 or -errno */
};

static int add_range(struct tmem_memory *m, uint64_t start, uint64_t end)
{
	size_t room = m->room ? m->room * 2 : 256;
	void *bigger;

	m->present_pages += (end - start) / PAGE;
	if (m->nr_ranges && m->ranges[m->nr_ranges - 1].end == start) {
		m->ranges[m->nr_ranges - 1].end = end;
		return 0;
	}
	if (m->nr_ranges == m->room) {
		bigger = realloc(m->ranges, room * sizeof(*m->ranges));
		if (!bigger)
			return -ENOMEM;
		m->ranges = bigger;
		m->room = room;
	}
	m->ranges[m->nr_ranges++] = (struct tmem_memory_range){ start, end };
	return 0;
}

static int add_regions(struct tmem_memory *m, const struct page_region *regions,
		       int nr)
{
	int i, r;

	for (i = 0; i < nr; i++) {
		const struct page_region *region = &regions[i];

		if (!(region->categories & PAGE_IS_PRESENT)) {
			m->swapped_pages +=
				(region->end - region->start) / PAGE;
			continue;
		}
		r = add_range(m, region->start, region->end);
		if (r < 0)
			return r;
	}
	return 0;
}

static int scan(struct tmem_memory *m, uint64_t start, uint64_t end)
{
	struct page_region regions[REGIONS];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)regions,
		.vec_len = REGIONS,
		/* Neither of these: */
		.category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	};
	int n, r;

	while (arg.start < end) {
		n = ioctl(m->pagemap_fd, PAGEMAP_SCAN, &arg);
		if (n < 0)
			return -errno;
		r = add_regions(m, regions, n);
		if (r < 0)
			return r;
		if (arg.walk_end <= arg.start)
			break;
		arg.start = arg.walk_end;
	}
	return 0;
}

static void collect(void *arg, const struct tmem_mapping *mapping)
{
	struct collection *c = arg;

	c->swap_bytes += mapping->swap_bytes;
	if (mapping->pageable && c->result == 0)
		c->result = scan(c->memory, mapping->start, mapping->end);
}

static bool is_paged_by_tmem(pid_t pid)
{
	char path[64], *line = NULL;
	bool found = false;
	size_t room = 0;
	FILE *in;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	in = fopen(path, "re");
	if (!in)
		return false;
	while (!found && getline(&line, &room, in) > 0)
		found = strstr(line, "/libtmem-pager.so") != NULL;
	free(line);
	fclose(in);
	return found;
}

/* Open and close. */

static int fail_process(pid_t pid, int error)
{
	int id = (int)pid;

	switch (error) {
	case ENOENT:
	case ESRCH:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: no such process; `ps -e' "
				     "lists those there are",
				     id);
	case ENODATA:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: has no private memory that "
				     "could be paged (a kernel thread, a "
				     "zombie, or small); take another",
				     id);
	case EACCES:
	case EPERM:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: you may not read its "
				     "memory; run as root (CAP_SYS_PTRACE)",
				     id);
	case ENOTTY:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: no PAGEMAP_SCAN here; use "
				     "Linux 6.7 or newer, or --corpus FILE",
				     id);
	default:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "process %d: cannot be looked at: %s; "
				     "try again, or as root",
				     id, strerror(error));
	}
}

/* ret_fd: a file of /proc/PID.  0 or -errno. */
static int open_file(pid_t pid, const char *name, int *ret_fd)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	*ret_fd = open(path, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

static int open_files(struct tmem_memory *m)
{
	struct tmem_proc proc;
	char *c;
	int r;

	r = tmem_proc_read(m->pid, &proc);
	if (r < 0)
		return r;
	memcpy(m->comm, proc.comm, sizeof(m->comm));
	/* Its owner chose it; ours is the terminal. */
	for (c = m->comm; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	r = open_file(m->pid, "mem", &m->mem_fd);
	if (r == 0)
		r = open_file(m->pid, "pagemap", &m->pagemap_fd);
	/* It is there, but its memory is not. */
	return r == -ESRCH ? -ENODATA : r;
}

int tmem_memory_open(pid_t pid, struct tmem_memory *ret)
{
	struct tmem_memory m = { .pid = pid, .mem_fd = -1, .pagemap_fd = -1 };
	struct collection c = { .memory = &m };
	uint64_t pageable_bytes;
	int r;

	r = open_files(&m);
	if (r == 0)
		r = tmem_memory_for_each(pid, collect, &c);
	if (r == 0)
		r = c.result;
	if (r == 0 && !m.present_pages)
		r = -ENODATA;
	if (r < 0) {
		tmem_memory_close(&m);
		return fail_process(pid, -r);
	}
	m.paged_by_tmem = is_paged_by_tmem(pid);
	m.need_bytes = tmem_proc_memory_bytes(pid) + c.swap_bytes;
	pageable_bytes = (m.present_pages + m.swapped_pages) * PAGE;
	/* What is shared by fork counts in part there, and whole here. */
	if (m.need_bytes < pageable_bytes)
		m.need_bytes = pageable_bytes;
	*ret = m;
	return 0;
}

void tmem_memory_close(struct tmem_memory *memory)
{
	if (memory->mem_fd >= 0)
		close(memory->mem_fd);
	if (memory->pagemap_fd >= 0)
		close(memory->pagemap_fd);
	free(memory->ranges);
	*memory = (struct tmem_memory){ .mem_fd = -1, .pagemap_fd = -1 };
}

/* Samples. */

struct cursor {
	const struct tmem_memory *memory;
	size_t range;
	uint64_t before; /* pages in the ranges before that */
};

/* The nr-th present page; nr must not fall. */
static uint64_t address_of(struct cursor *c, uint64_t nr)
{
	const struct tmem_memory_range *r = &c->memory->ranges[c->range];

	while (nr - c->before >= (r->end - r->start) / PAGE) {
		c->before += (r->end - r->start) / PAGE;
		r++;
		c->range++;
	}
	return r->start + (nr - c->before) * PAGE;
}

static uint64_t pick(uint64_t all, uint32_t nr, uint32_t parts)
{
	uint64_t first = (uint64_t)((unsigned __int128)all * nr / parts);
	uint64_t end = (uint64_t)((unsigned __int128)all * (nr + 1) / parts);

	return first + tmem_hash_word(nr) % (end - first);
}

int tmem_memory_sample(const struct tmem_memory *memory, uint32_t max,
		       struct tmem_pages *ret, uint64_t *ret_addresses)
{
	struct cursor c = { .memory = memory };
	struct tmem_pages pages;
	uint32_t i;
	int r;

	if (memory->present_pages < max)
		max = (uint32_t)memory->present_pages;
	r = tmem_pages_open(max, &pages);
	if (r)
		return r;
	for (i = 0; i < max; i++) {
		uint64_t at =
			address_of(&c, pick(memory->present_pages, i, max));

		if (pread(memory->mem_fd, tmem_pages_at(&pages, pages.nr), PAGE,
			  (off_t)at) != PAGE)
			continue;
		if (ret_addresses)
			ret_addresses[pages.nr] = at;
		pages.nr++;
	}
	if (!pages.nr) {
		tmem_pages_close(&pages);
		return fail_process(memory->pid, ESRCH);
	}
	*ret = pages;
	return 0;
}
