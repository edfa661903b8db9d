/* SPDX-License-Identifier: MIT */
/* See corefile.h. */
#include "corefile.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	PAGE = 4096,
	NOTES_MAX = 1 << 20, /* bytes of notes that are looked through */
	HEADERS_MAX = 1 << 22,
	MAGIC_BYTES = 6
};

/* What systemd-coredump, abrt and people make of a core. */
static const struct {
	unsigned char magic[MAGIC_BYTES];
	unsigned bytes;
} compressed[] = {
	{ { 0x28, 0xb5, 0x2f, 0xfd }, 4 },	/* zstd */
	{ { 0x04, 0x22, 0x4d, 0x18 }, 4 },	/* lz4 */
	{ { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6 }, /* xz */
	{ { 0x1f, 0x8b }, 2 },			/* gzip */
};

/* 0 if all was read, TMEM_CORE_TRUNCATED, or -errno. */
static int read_at(int fd, uint64_t offset, void *to, size_t bytes)
{
	char *p = to;

	if (offset > INT64_MAX - bytes)
		return TMEM_CORE_TRUNCATED;
	while (bytes) {
		ssize_t n = pread(fd, p, bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : TMEM_CORE_TRUNCATED;
		p += n;
		offset += (uint64_t)n;
		bytes -= (size_t)n;
	}
	return 0;
}

static int check_ident(const unsigned char *ident)
{
	size_t i;

	for (i = 0; i < sizeof(compressed) / sizeof(*compressed); i++)
		if (!memcmp(ident, compressed[i].magic, compressed[i].bytes))
			return TMEM_CORE_COMPRESSED;
	if (memcmp(ident, ELFMAG, SELFMAG) != 0)
		return TMEM_CORE_NO_ELF;
	if (ident[EI_CLASS] != ELFCLASS64 || ident[EI_DATA] != ELFDATA2LSB)
		return TMEM_CORE_MACHINE;
	return 0;
}

static int read_header(const struct tmem_corefile *core, Elf64_Ehdr *eh)
{
	int r;

	memset(eh, 0, sizeof(*eh));
	r = read_at(core->fd, 0, eh,
		    core->bytes < sizeof(*eh) ? core->bytes : sizeof(*eh));
	if (r == 0)
		r = check_ident(eh->e_ident);
	if (r != 0)
		return r;
	if (core->bytes < sizeof(*eh))
		return TMEM_CORE_TRUNCATED;
	if (eh->e_type != ET_CORE)
		return TMEM_CORE_NO_CORE;
	if (eh->e_machine != EM_X86_64)
		return TMEM_CORE_MACHINE;
	return eh->e_phentsize == sizeof(Elf64_Phdr) ? 0 : TMEM_CORE_DAMAGED;
}

/* How many program headers: from 65535 on in the first section header. */
static int count_headers(const struct tmem_corefile *core, const Elf64_Ehdr *eh,
			 size_t *ret_nr)
{
	Elf64_Shdr section;
	size_t nr = eh->e_phnum;
	int r;

	if (nr == PN_XNUM) {
		r = read_at(core->fd, eh->e_shoff, &section, sizeof(section));
		if (r != 0)
			return r;
		nr = section.sh_info;
	}
	if (nr == 0 || nr > HEADERS_MAX)
		return TMEM_CORE_DAMAGED;
	if (eh->e_phoff > core->bytes ||
	    nr > (core->bytes - eh->e_phoff) / sizeof(Elf64_Phdr))
		return TMEM_CORE_TRUNCATED;
	*ret_nr = nr;
	return 0;
}

/* One note, whose name, if it is any that matters, is at `at`. */
static void take_note(struct tmem_corefile *core, const Elf64_Nhdr *note,
		      uint64_t at)
{
	struct elf_prpsinfo info;
	char name[8] = "";

	if (note->n_namesz > sizeof(name) ||
	    read_at(core->fd, at, name, note->n_namesz) != 0)
		return;
	/* It describes the machine to itself there. */
	if (!memcmp(name, "GDB", 4))
		core->by_gdb = true;
	at += (note->n_namesz + 3) & ~3u;
	if (!memcmp(name, "CORE", 5) && note->n_type == NT_PRPSINFO &&
	    note->n_descsz == sizeof(info) &&
	    read_at(core->fd, at, &info, sizeof(info)) == 0)
		core->pid = info.pr_pid;
}

static void read_notes(struct tmem_corefile *core, const Elf64_Phdr *header)
{
	uint64_t at = header->p_offset, end;
	Elf64_Nhdr note;

	if (at > core->bytes)
		return;
	end = at +
	      (header->p_filesz < NOTES_MAX ? header->p_filesz : NOTES_MAX);
	while (at < end && end - at >= sizeof(note) &&
	       read_at(core->fd, at, &note, sizeof(note)) == 0) {
		take_note(core, &note, at + sizeof(note));
		at += sizeof(note) + (((uint64_t)note.n_namesz + 3) & ~3ull) +
		      (((uint64_t)note.n_descsz + 3) & ~3ull);
	}
}

static int add_segment(struct tmem_corefile *core, const Elf64_Phdr *h)
{
	struct tmem_corefile_segment *s = &core->segments[core->nr_segments];

	if (h->p_memsz > UINT64_MAX - h->p_vaddr || h->p_filesz > h->p_memsz)
		return TMEM_CORE_DAMAGED;
	if (h->p_filesz && (h->p_offset > core->bytes ||
			    h->p_filesz > core->bytes - h->p_offset))
		return TMEM_CORE_TRUNCATED;
	s->start = h->p_vaddr;
	s->end = h->p_vaddr + h->p_memsz;
	s->file_end = h->p_vaddr + h->p_filesz;
	s->offset = h->p_offset;
	core->nr_segments += s->end > s->start;
	return 0;
}

static int by_address(const void *a, const void *b)
{
	const struct tmem_corefile_segment *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* In order of their addresses, and none over another. */
static int sort_segments(struct tmem_corefile *core)
{
	size_t i;

	qsort(core->segments, core->nr_segments, sizeof(*core->segments),
	      by_address);
	for (i = 1; i < core->nr_segments; i++)
		if (core->segments[i].start < core->segments[i - 1].end)
			return TMEM_CORE_DAMAGED;
	return 0;
}

static int read_segments(struct tmem_corefile *core)
{
	Elf64_Ehdr eh;
	Elf64_Phdr h;
	bool noted = false;
	size_t nr = 0, i;
	int r = read_header(core, &eh);

	if (r == 0)
		r = count_headers(core, &eh, &nr);
	if (r != 0)
		return r;
	core->segments = calloc(nr, sizeof(*core->segments));
	if (!core->segments)
		return -ENOMEM;
	for (i = 0; i < nr && r == 0; i++) {
		r = read_at(core->fd, eh.e_phoff + i * sizeof(h), &h,
			    sizeof(h));
		if (r == 0 && h.p_type == PT_LOAD)
			r = add_segment(core, &h);
		if (r != 0 || h.p_type != PT_NOTE || noted)
			continue;
		noted = true; /* one is usual; no end of them would be slow */
		read_notes(core, &h);
	}
	return r == 0 ? sort_segments(core) : r;
}

int tmem_corefile_open(struct tmem_corefile *core, int fd)
{
	struct stat st;
	int r;

	*core = (struct tmem_corefile){ .fd = fd };
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -ESPIPE;
	core->bytes = (uint64_t)st.st_size;
	r = read_segments(core);
	if (r != 0)
		tmem_corefile_close(core);
	return r;
}

void tmem_corefile_close(struct tmem_corefile *core)
{
	free(core->segments);
	core->segments = NULL;
	core->nr_segments = 0;
}

const struct tmem_corefile_segment *
tmem_corefile_find(const struct tmem_corefile *core, uint64_t addr)
{
	size_t lo = 0, hi = core->nr_segments;

	while (lo < hi) { /* the first that ends after it */
		size_t mid = lo + (hi - lo) / 2;

		if (core->segments[mid].end <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == core->nr_segments || core->segments[lo].start > addr)
		return NULL;
	return &core->segments[lo];
}

bool tmem_corefile_read(const struct tmem_corefile *core, uint64_t addr,
			void *to, size_t bytes)
{
	char *p = to;

	while (bytes) {
		const struct tmem_corefile_segment *s =
			tmem_corefile_find(core, addr);
		size_t n;

		if (!s || addr >= s->file_end)
			return false;
		n = s->file_end - addr < bytes ? (size_t)(s->file_end - addr)
					       : bytes;
		if (read_at(core->fd, s->offset + (addr - s->start), p, n) != 0)
			return false;
		p += n;
		addr += n;
		bytes -= n;
	}
	return true;
}

bool tmem_corefile_place(const struct tmem_corefile *core, uint64_t addr,
			 uint64_t *ret_offset)
{
	const struct tmem_corefile_segment *s = tmem_corefile_find(core, addr);

	if (!s || s->file_end < PAGE || addr > s->file_end - PAGE)
		return false;
	*ret_offset = s->offset + (addr - s->start);
	return true;
}
