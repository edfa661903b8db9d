/* SPDX-License-Identifier: MIT */
/*
 * An ELF core file: which bytes of it are which memory.
 *
 * Every byte may be damaged or chosen by an enemy: all that is read is checked
 * against the file, nothing is mapped, and the memory that this takes is
 * bounded by the file's size.  The file must not change meanwhile.
 *
 * A page that was evicted has zeros here, or a hole: the kernel leaves pages
 * out that it can't read.
 */
#ifndef TMEM_CRASH_COREFILE_H
#define TMEM_CRASH_COREFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tmem_corefile_why {
	TMEM_CORE_NO_ELF = 1, /* nor any other file that could be one */
	TMEM_CORE_COMPRESSED,
	TMEM_CORE_NO_CORE,   /* ELF, but a program or a library */
	TMEM_CORE_MACHINE,   /* of another machine */
	TMEM_CORE_TRUNCATED, /* its headers speak of more than there is */
	TMEM_CORE_DAMAGED    /* its headers make no sense */
};

/* A piece of memory; by address. */
struct tmem_corefile_segment {
	uint64_t start;
	uint64_t end;	   /* of the memory */
	uint64_t file_end; /* of what the file has of it */
	uint64_t offset;   /* in the file */
};

struct tmem_corefile {
	int fd;
	uint64_t bytes;
	int32_t pid; /* of the process, as it saw itself; 0: unknown */
	bool by_gdb; /* written by gdb, not by the kernel */
	struct tmem_corefile_segment *segments;
	size_t nr_segments;
};

/*
 * 0, enum tmem_corefile_why or -errno.  The descriptor stays the caller's, who
 * keeps it open.
 */
int tmem_corefile_open(struct tmem_corefile *core, int fd);
void tmem_corefile_close(struct tmem_corefile *core);

/* False if the file does not have all of it. */
bool tmem_corefile_read(const struct tmem_corefile *core, uint64_t addr,
			void *to, size_t bytes);

/* The piece that has that address, or NULL. */
const struct tmem_corefile_segment *
tmem_corefile_find(const struct tmem_corefile *core, uint64_t addr);

/* Where a page is in the file; false: nowhere, or not all of it. */
bool tmem_corefile_place(const struct tmem_corefile *core, uint64_t addr,
			 uint64_t *ret_offset);

#endif
