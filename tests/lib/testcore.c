/* SPDX-License-Identifier: MIT */
/* See testcore.h. */
#include "testcore.h"

#include <elf.h>
#include <sys/procfs.h>

#include <tmem/store.h>

#include "pager/offsets.h"

enum {
	MAX_PIECES = 128,
	HEAD_BYTES = 64 << 10,
	NR_OFFSETS = 1024
};

/* Memory of this process, and the address that the core says it has. */
struct piece {
	const uint8_t *start;
	uint64_t addr;
	size_t bytes;
};

struct pieces {
	struct piece piece[MAX_PIECES];
	unsigned nr;
};

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

enum testcore_kind testcore_kind(unsigned page)
{
	static const enum testcore_kind kinds[] = {
		TESTCORE_LOADING, TESTCORE_LEAVING, TESTCORE_RESIDENT,
		TESTCORE_KEPT,	  TESTCORE_LOST,    TESTCORE_NEWER,
		TESTCORE_LOOSE,	  TESTCORE_NONE
	};

	if (page % 3 == 1) /* page_fill() makes noise of these */
		return TESTCORE_SWAPPED;
	if (page % 4 == 0)
		return kinds[page / 4 % 8];
	return TESTCORE_STORED;
}

enum tmem_page_fate testcore_fate(enum testcore_kind kind)
{
	static const enum tmem_page_fate fates[] = {
		[TESTCORE_STORED] = TMEM_FATE_REBUILT,
		[TESTCORE_SWAPPED] = TMEM_FATE_SWAPPED,
		[TESTCORE_LOADING] = TMEM_FATE_REBUILT,
		[TESTCORE_LEAVING] = TMEM_FATE_REBUILT,
		[TESTCORE_RESIDENT] = TMEM_FATES, /* not told of */
		[TESTCORE_KEPT] = TMEM_FATES,
		[TESTCORE_LOST] = TMEM_FATE_LOST,
		[TESTCORE_NEWER] = TMEM_FATE_PRESENT,
		[TESTCORE_LOOSE] = TMEM_FATE_UNSURE,
		[TESTCORE_NONE] = TMEM_FATES,
	};

	return fates[kind];
}

uint32_t testcore_handle(const struct testcore *tc, unsigned page)
{
	return tmem_table_find(&tc->pager->table,
			       tmem_vpn(TESTCORE_PROGRAM) + page);
}

/* Stored at an offset of its own; what is refused counts as swapped. */
static void store_page(struct testcore *tc, unsigned i, const void *content)
{
	struct tmem_pager *pager = tc->pager;
	uint32_t offset = (i * 7 + 3) % NR_OFFSETS;

	pager->offsets_used[offset / 64] |= 1ull << offset % 64;
	pager->stored_pages++;
	tc->offset[i] = offset;
	tmem_frontswap_store(pager->frontswap, PAGER_FRONTSWAP_TYPE, offset,
			     content);
	CHECK_EQ(tmem_frontswap_test(pager->frontswap, PAGER_FRONTSWAP_TYPE,
				     offset),
		 testcore_kind(i) != TESTCORE_SWAPPED);
}

/* In the frame of its number. */
static void leave_page(struct testcore *tc, unsigned i, uint32_t handle,
		       const void *content)
{
	static unsigned next;
	unsigned nr = next++ * 37 % FRAMES;
	struct tmem_frame *f = tmem_frame(&tc->pager->frames, nr);
	uint32_t offset = (i * 7 + 3) % NR_OFFSETS;

	tc->offset[i] = offset;
	tc->pager->offsets_used[offset / 64] |= 1ull << offset % 64;
	*f = (struct tmem_frame){ .handle = handle,
				  .offset = offset,
				  .used = true };
	memcpy(tmem_frame_page(&tc->pager->frames, nr), content, PAGE);
	tmem_table_set(&tc->pager->table, handle, PAGE_LEAVING, nr);
}

static void make_page(struct testcore *tc, unsigned i)
{
	static const enum tmem_page_state states[] = {
		[TESTCORE_STORED] = PAGE_STORED,
		[TESTCORE_SWAPPED] = PAGE_STORED,
		[TESTCORE_LOADING] = PAGE_LOADING,
		[TESTCORE_LEAVING] = PAGE_LEAVING,
		[TESTCORE_RESIDENT] = PAGE_RESIDENT,
		[TESTCORE_KEPT] = PAGE_KEPT,
		[TESTCORE_LOST] = PAGE_LOST,
		[TESTCORE_NEWER] = PAGE_STORED,
		[TESTCORE_LOOSE] = PAGE_STORED,
	};
	struct tmem_table *table = &tc->pager->table;
	enum testcore_kind kind = testcore_kind(i);
	uint32_t handle =
		tmem_table_make(table, tmem_vpn(TESTCORE_PROGRAM) + i);
	uint8_t *page = tc->program + i * PAGE;
	uint8_t content[PAGE];

	page_fill(content, i + 1);
	if (kind == TESTCORE_RESIDENT || kind == TESTCORE_KEPT)
		memcpy(page, content, PAGE);
	if (kind == TESTCORE_NEWER)
		memset(page, 0x5a, 8);
	if (kind == TESTCORE_LEAVING) {
		leave_page(tc, i, handle, content);
		return;
	}
	if (kind == TESTCORE_NONE)
		return;
	if (kind != TESTCORE_RESIDENT && kind != TESTCORE_LOST)
		store_page(tc, i, content);
	tmem_table_set(table, handle, states[kind], tc->offset[i]);
	if (kind == TESTCORE_LOOSE)
		tmem_table_set_loose(table, handle);
}

static void make_store(struct testcore *tc)
{
	struct tmem_store_options so = { .limit_bytes = 8u << 20,
					 .no_raw = 1,
					 .no_dedup = 1 };
	struct tmem_frontswap_options fo = { 0 };
	struct tmem_swapdev none = { 0 };
	struct tmem_pager *pager = tc->pager;

	CHECK_EQ(tmem_store_open(&so, &pager->store), 0);
	fo.backend = tmem_store_backend(pager->store);
	CHECK_EQ(tmem_frontswap_open(&fo, &pager->frontswap), 0);
	CHECK_EQ(tmem_frontswap_init(pager->frontswap, PAGER_FRONTSWAP_TYPE,
				     NR_OFFSETS, none),
		 0);
}

static void make_frames(struct tmem_pager *pager)
{
	uint32_t first = 0;

	for (unsigned i = 0; i < FRAME_GROUPS; i++) {
		struct tmem_frame_group *group = &pager->frames.group[i];

		group->nr_pages =
			i < FRAME_GROUPS_SMALL ? FRAME_GROUP : FRAME_ZEROS;
		group->first = first;
		group->pages = map(group->nr_pages * PAGE);
		first += group->nr_pages;
	}
}

void testcore_make(struct testcore *tc)
{
	struct tmem_pager *pager = map(sizeof(*pager));

	memset(tc, 0, sizeof(*tc));
	tc->pager = pager;
	tc->program = map(TESTCORE_PAGES * PAGE);
	tc->anchor = map(TMEM_ANCHOR_BYTES);
	tc->deferred = pager->deferred = map(sizeof(*pager->deferred));
	tmem_lock_init(&pager->lock, TMEM_RANK_PAGER);
	pager->state = PAGER_SERVING;
	pager->program_pid = TESTCORE_PID;
	memcpy(pager->comm, "te\033st", 6);
	pager->nr_offsets = NR_OFFSETS;
	pager->offsets_used = map(NR_OFFSETS / 8);
	CHECK_EQ(tmem_table_init(&pager->table), 0);
	make_frames(pager);
	make_store(tc);
	tc->store = pager->store;
	for (unsigned i = 0; i < TESTCORE_PAGES; i++)
		make_page(tc, i);
	pager->nr_taken = 5000;
	tc->anchor->nr_taken = 5000;
	memcpy(tc->anchor->version, TMEM_VERSION, sizeof(TMEM_VERSION));
	memcpy(tc->anchor->source, tmem_source_id, sizeof(tc->anchor->source));
	memcpy(tc->anchor->magic, TMEM_ANCHOR_MAGIC, sizeof(tc->anchor->magic));
	tc->anchor->pager = (uintptr_t)pager;
}

void testcore_free(struct testcore *tc)
{
	tmem_frontswap_close(tc->pager->frontswap);
	tmem_store_close(tc->store);
	/* The rest goes with the process. */
}

/* Writing it. */

static void add_piece(void *arg, void *start, size_t bytes)
{
	struct pieces *p = arg;

	CHECK(p->nr < MAX_PIECES);
	p->piece[p->nr++] = (struct piece){ start, (uintptr_t)start,
					    (bytes + PAGE - 1) & ~(PAGE - 1) };
}

static void collect(const struct testcore *tc, struct pieces *p)
{
	const struct tmem_pager *pager = tc->pager;

	p->nr = 0;
	add_piece(p, tc->pager, sizeof(*tc->pager));
	add_piece(p, tc->deferred, sizeof(*tc->deferred));
	add_piece(p, pager->offsets_used, NR_OFFSETS / 8);
	add_piece(p, pager->table.l1, TABLE_L1 * sizeof(void *));
	tmem_table_for_each_mapping(&pager->table, add_piece, p);
	tmem_frontswap_for_each_mapping(pager->frontswap, add_piece, p);
	tmem_store_for_each_mapping(pager->store, add_piece, p);
	for (unsigned i = 0; i < FRAME_GROUPS; i++)
		add_piece(p, pager->frames.group[i].pages,
			  pager->frames.group[i].nr_pages * PAGE);
	add_piece(p, tc->anchor, TMEM_ANCHOR_BYTES);
	p->piece[p->nr - 1].addr = TMEM_ANCHOR_ADDR;
	add_piece(p, tc->program, TESTCORE_PAGES * PAGE);
	p->piece[p->nr - 1].addr = TESTCORE_PROGRAM;
}

static void write_page(struct testcore *tc, int fd, const uint8_t *page,
		       uint64_t at)
{
	static const uint8_t zeros[4096];

	if (memcmp(page, zeros, PAGE) == 0)
		return;
	CHECK(tc->nr_data < TESTCORE_MAX_DATA);
	tc->data[tc->nr_data++] = at;
	CHECK_EQ(pwrite(fd, page, PAGE, (off_t)at), (long long)PAGE);
}

static size_t write_note(uint8_t *to)
{
	Elf64_Nhdr note = { .n_namesz = 5,
			    .n_descsz = sizeof(struct elf_prpsinfo),
			    .n_type = NT_PRPSINFO };
	struct elf_prpsinfo info = { .pr_pid = TESTCORE_PID };

	memcpy(to, &note, sizeof(note));
	memcpy(to + sizeof(note), "CORE", 5);
	memcpy(to + sizeof(note) + 8, &info, sizeof(info));
	return sizeof(note) + 8 + sizeof(info);
}

void testcore_write(struct testcore *tc, int fd)
{
	static uint8_t head[HEAD_BYTES];
	static struct pieces p;
	Elf64_Ehdr *eh = (void *)head;
	Elf64_Phdr *ph = (void *)(head + sizeof(*eh));
	uint64_t at = HEAD_BYTES;

	collect(tc, &p);
	memset(head, 0, sizeof(head));
	memcpy(eh->e_ident, ELFMAG, SELFMAG);
	eh->e_ident[EI_CLASS] = ELFCLASS64;
	eh->e_ident[EI_DATA] = ELFDATA2LSB;
	eh->e_type = ET_CORE;
	eh->e_machine = EM_X86_64;
	eh->e_phoff = sizeof(*eh);
	eh->e_phentsize = sizeof(*ph);
	eh->e_phnum = (uint16_t)(p.nr + 1);
	ph->p_type = PT_NOTE;
	ph->p_offset = HEAD_BYTES / 2;
	ph->p_filesz = write_note(head + HEAD_BYTES / 2);
	tc->nr_data = 0;
	for (unsigned i = 0; i < p.nr; i++) {
		*++ph = (Elf64_Phdr){ .p_type = PT_LOAD,
				      .p_offset = at,
				      .p_vaddr = p.piece[i].addr,
				      .p_filesz = p.piece[i].bytes,
				      .p_memsz = p.piece[i].bytes };
		for (size_t k = 0; k < p.piece[i].bytes; k += PAGE)
			write_page(tc, fd, p.piece[i].start + k, at + k);
		at += p.piece[i].bytes;
	}
	for (size_t k = 0; k < HEAD_BYTES; k += PAGE)
		write_page(tc, fd, head + k, k);
	CHECK_EQ(ftruncate(fd, (off_t)at), 0);
	tc->bytes = at;
}

int testcore_memfd(struct testcore *tc)
{
	int fd = memfd_create("core", MFD_CLOEXEC);

	CHECK(fd >= 0);
	testcore_write(tc, fd);
	return fd;
}

uint64_t testcore_place(int fd, const void *addr)
{
	struct tmem_corefile core;
	uint64_t offset = 0;

	CHECK_EQ(tmem_corefile_open(&core, fd), 0);
	const struct tmem_corefile_segment *s =
		tmem_corefile_find(&core, (uintptr_t)addr);
	CHECK(s != NULL);
	offset = s->offset + ((uintptr_t)addr - s->start);
	tmem_corefile_close(&core);
	return offset;
}
