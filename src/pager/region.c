/* SPDX-License-Identifier: MIT */
/* See region.h. */
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/assert.h"
#include "base/chaos.h"
#include "base/sys.h"
#include "base/uffd.h"
#include "budget.h"
#include "event.h"
#include "install.h"
#include "late.h"
#include "offsets.h"
#include "pin.h"
#include "procfs.h"
#include "wire/anchor.h"

enum {
	MAX_EXCLUDED = PAGER_MAX_LEFT_OUT + 3,
	SMALL_BYTES = 64 << 10,
	BSS_BYTES = 1 << 20,
	SCAN_REGIONS = 256,
	MAX_RUNS = 32768 /* more mappings than that stay out */
};

/* Set by the linker: our own data, which lies in anonymous memory in part. */
extern char __bss_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));

struct scan {
	struct tmem_pager *pager;
	/* Sorted, not to be paged. */
	struct tmem_range *excluded;
	unsigned nr_excluded;
	uint64_t small_bytes; /* left out as small */
	uint64_t file_end;    /* where the last file's mapping ended */
	/*
	 * Adjacent pieces as one.  Collected first and registered when the
	 * whole map was read: registering changes it.
	 */
	struct tmem_range *runs;
	unsigned nr_runs;
	struct page_region *regions;
	bool all; /* whatever might be registered */
	/* Adopting: everything up to here is known to be mapped or dropped. */
	bool adopt;
	bool unsure; /* something that is out is not as it was */
	bool lost;   /* something that is out is mapped, and not watched */
	uint64_t adopted;
	uint64_t zeros; /* pages found that are the kernel's of zeros */
};

int tmem_region_init(struct tmem_pager *pager)
{
	pager->maps_buffer = tmem_pager_map(pager, PAGER_MAPS_BUFFER + 4096);
	pager->excluded =
		tmem_pager_map(pager, MAX_EXCLUDED * sizeof(*pager->excluded));
	pager->regions = tmem_pager_map(
		pager, SCAN_REGIONS * sizeof(struct page_region));
	pager->runs = tmem_pager_map(pager, MAX_RUNS * sizeof(*pager->runs));
	return pager->maps_buffer && pager->excluded && pager->regions &&
			       pager->runs
		       ? 0
		       : -ENOMEM;
}

static void exclude(struct scan *s, uint64_t start, uint64_t end)
{
	TMEM_ASSERT(s->nr_excluded < MAX_EXCLUDED);
	s->excluded[s->nr_excluded++] =
		(struct tmem_range){ start & ~4095ull,
				     (end + 4095) & ~4095ull };
}

static void sort_ranges(struct tmem_range *r, unsigned nr)
{
	unsigned gap, i, j;

	for (gap = nr / 2; gap > 0; gap /= 2) {
		for (i = gap; i < nr; i++) {
			struct tmem_range x = r[i];

			for (j = i; j >= gap && r[j - gap].start > x.start;
			     j -= gap)
				r[j] = r[j - gap];
			r[j] = x;
		}
	}
}

static void collect_excluded(struct scan *s)
{
	struct tmem_pager *pager = s->pager;
	unsigned i;

	s->nr_excluded = 0;
	exclude(s, TMEM_WINDOW_START, TMEM_WINDOW_END);
	exclude(s, TMEM_ANCHOR_ADDR, TMEM_ANCHOR_ADDR + TMEM_ANCHOR_BYTES);
	exclude(s, (uintptr_t)__bss_start, (uintptr_t)_end);
	for (i = 0; i < pager->nr_left_out; i++)
		exclude(s, pager->left_out[i].start, pager->left_out[i].end);
	sort_ranges(s->excluded, s->nr_excluded);
}

/*
 * A page that is present, whatever the table says: filled before we looked,
 * or in fork mode, when nothing is noted (P4).  False: no memory to note it.
 */
static bool found_present_locked(struct tmem_pager *pager, struct scan *s,
				 uint64_t vpn) TMEM_REQUIRES(&pager->lock)
{
	uint32_t handle = tmem_table_make(&pager->table, vpn), entry;

	if (handle == TABLE_NO_HANDLE)
		return false;
	entry = tmem_table_entry(&pager->table, handle);
	if (tmem_entry_state(entry) >= PAGE_STORED &&
	    tmem_install_is_refused(pager->uffd)) /* late.h, E4 */
		return true;
	switch (tmem_entry_state(entry)) {
	case PAGE_NONE:
		tmem_table_set(&pager->table, handle, PAGE_RESIDENT, 0);
		break;
	case PAGE_STORED:
		/* birth.h, N3 */
		s->unsure |=
			s->adopt && !tmem_table_is_loose(&pager->table, handle);
		tmem_offset_drop_locked(pager, tmem_entry_value(entry));
		tmem_table_set(&pager->table, handle, PAGE_RESIDENT, 0);
		break;
	case PAGE_LEAVING:
		tmem_frame(&pager->frames, tmem_entry_value(entry))->gone =
			true;
		tmem_table_set(&pager->table, handle, PAGE_RESIDENT, 0);
		break;
	default: /* who loads it will see */
		break;
	}
	return true;
}

static void discover(struct tmem_pager *pager, struct scan *s, uint64_t start,
		     uint64_t end) TMEM_REQUIRES(&pager->lock)
{
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.start = start,
		.end = end,
		.vec = (uintptr_t)s->regions,
		.vec_len = SCAN_REGIONS,
		.category_mask = PAGE_IS_PRESENT,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_PFNZERO,
	};

	while (arg.start < end) {
		long n = tmem_sys(SYS_ioctl, pager->pagemap_fd, PAGEMAP_SCAN,
				  &arg),
		     i;

		for (i = 0; i < n; i++) {
			uint64_t vpn = tmem_vpn(s->regions[i].start);
			uint64_t stop = tmem_vpn(s->regions[i].end);

			if (s->regions[i].categories & PAGE_IS_PFNZERO)
				s->zeros += stop - vpn;
			for (; vpn < stop; vpn++)
				if (!found_present_locked(pager, s, vpn)) {
					s->unsure = true;
					return;
				}
		}
		if (n < 0 || arg.walk_end <= arg.start) {
			s->unsure = true;
			return;
		}
		arg.start = arg.walk_end;
	}
}

static long register_range(struct tmem_pager *pager, uint64_t start,
			   uint64_t end)
{
	struct uffdio_register r = {
		.range = { .start = start, .len = end - start },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return tmem_sys(SYS_ioctl, pager->uffd, UFFDIO_REGISTER, &r);
}

/* A page that is out and was not to be registered again: is it mapped? */
static void look_if_mapped(void *arg, uint32_t handle, uint32_t entry)
{
	struct scan *s = arg;
	uint64_t vpn = tmem_table_vpn(&s->pager->table, handle);
	uint8_t there;

	if (tmem_entry_state(entry) >= PAGE_STORED &&
	    tmem_sys(SYS_mincore, vpn * TMEM_PAGE_SIZE, TMEM_PAGE_SIZE,
		     &there) != -ENOMEM)
		s->unsure = s->lost = true;
}

static void drop_unmapped(struct tmem_pager *pager, struct scan *s,
			  uint64_t until) TMEM_REQUIRES(&pager->lock)
{
	if (!s->adopt || s->adopted >= until)
		return;
	tmem_table_walk(&pager->table, tmem_vpn(s->adopted), tmem_vpn(until),
			look_if_mapped, s);
	tmem_event_forget_locked(pager, tmem_vpn(s->adopted), tmem_vpn(until));
}

/* Past us no child gets what is watched here: trap.h. */
static long keep_from_children(const struct tmem_pager *pager, uint64_t start,
			       uint64_t end)
{
	if (!pager->trapped)
		return 0;
	return tmem_sys_madvise(tmem_sys_pointer(start), end - start,
				MADV_DONTFORK);
}

static void register_run(struct tmem_pager *pager, struct scan *s,
			 uint64_t start, uint64_t end)
	TMEM_REQUIRES(&pager->lock)
{
	drop_unmapped(pager, s, start);
	s->adopted = start;
	if (!tmem_late_may_register_locked(pager, start, end)) {
		s->unsure = true; /* the next scan */
		return;
	}
	if (register_range(pager, start, end) < 0) {
		s->unsure = true;
		return;
	}
	s->adopted = end;
	s->unsure |= keep_from_children(pager, start, end) == -ENOMEM;
	if (end - start >= SMALL_BYTES) /* else none can be there */
		tmem_sys_madvise(tmem_sys_pointer(start), end - start,
				 MADV_NOHUGEPAGE);
	discover(pager, s, start, end);
}

static void add_piece(struct scan *s, uint64_t start, uint64_t end)
{
	if (start >= end)
		return;
	if (s->nr_runs && s->runs[s->nr_runs - 1].end == start)
		s->runs[s->nr_runs - 1].end = end;
	else if (s->nr_runs < MAX_RUNS)
		s->runs[s->nr_runs++] = (struct tmem_range){ start, end };
}

/* What remains of a mapping without the excluded ranges. */
static void add_mapping(struct scan *s, uint64_t start, uint64_t end)
{
	unsigned lo = 0, hi = s->nr_excluded;

	while (lo < hi) { /* the first that ends after start */
		unsigned mid = (lo + hi) / 2;

		if (s->excluded[mid].end <= start)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < s->nr_excluded && s->excluded[lo].start < end; lo++) {
		add_piece(s, start, s->excluded[lo].start);
		if (s->excluded[lo].end > start)
			start = s->excluded[lo].end;
	}
	add_piece(s, start, end);
}

static void note_known(void *arg, uint32_t handle, uint32_t entry)
{
	(void)handle;
	(void)entry;
	*(bool *)arg = true;
}

/* Was it registered before? */
static bool may_be_registered(struct scan *s, uint64_t start, uint64_t end)
{
	bool known = s->all;

	if (s->adopt && !known)
		tmem_table_walk(&s->pager->table, tmem_vpn(start),
				tmem_vpn(end), note_known, &known);
	return known;
}

static void see_mapping(struct scan *s, uint64_t start, uint64_t end,
			uint64_t inode, bool is_private, const char *name)
{
	if (inode)
		s->file_end = end;
	/*
	 * The end of a library's data: libc's serves us, too.  A library that
	 * was loaded later may come to lie in front of other memory.
	 */
	if (start == s->file_end && end - start < BSS_BYTES &&
	    !may_be_registered(s, start, end))
		return;
	if (inode || !is_private ||
	    (*name == '[' && memcmp(name, "[heap]", 6) != 0 &&
	     memcmp(name, "[anon:", 6) != 0))
		return;
	if (end - start < SMALL_BYTES && !s->pager->small_too) {
		s->small_bytes += end - start;
		/* Left out now, but perhaps not before: keep what it knows. */
		if (!s->adopt && !s->all)
			return;
	}
	add_mapping(s, start, end);
}

/* "start-end perms offset dev inode  name" */
static void parse_line(struct scan *s, const char *p)
{
	uint64_t start = tmem_procfs_hex(&p), end, inode;
	const char *perms;

	p++;
	end = tmem_procfs_hex(&p);
	perms = ++p;
	p += 5;
	tmem_procfs_hex(&p); /* offset */
	p++;
	tmem_procfs_hex(&p); /* major:minor */
	p++;
	tmem_procfs_hex(&p);
	p++;
	inode = tmem_procfs_decimal(&p);
	while (*p == ' ')
		p++;
	see_mapping(s, start, end, inode, perms[3] == 'p', p);
}

static int parse_maps(struct scan *s)
{
	char *buffer = (char *)s->pager->maps_buffer;
	long fd =
		tmem_sys(SYS_open, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	long have = 0, n;

	if (fd < 0)
		return (int)fd;
	s->nr_runs = 0;
	s->small_bytes = 0;
	for (;;) {
		char *line = buffer, *nl;

		n = tmem_sys(SYS_read, fd, buffer + have,
			     (size_t)(PAGER_MAPS_BUFFER - have));
		if (n <= 0)
			break;
		have += n;
		buffer[have] = 0;
		while ((nl = memchr(line, '\n',
				    (size_t)(buffer + have - line)))) {
			*nl = 0;
			parse_line(s, line);
			line = nl + 1;
		}
		have = buffer + have - line;
		memmove(buffer, line, (size_t)have);
		if (have == PAGER_MAPS_BUFFER)
			have = 0; /* a line longer than any path */
	}
	tmem_sys_close((int)fd);
	return n < 0 ? (int)n : 0;
}

static struct scan new_scan(struct tmem_pager *pager, bool adopt)
{
	return (struct scan){ .pager = pager,
			      .excluded = pager->excluded,
			      .regions = pager->regions,
			      .runs = pager->runs,
			      .adopt = adopt };
}

void tmem_region_refill_locked(struct tmem_pager *pager, uint64_t start,
			       uint64_t end)
{
	struct scan s = new_scan(pager, false);
	/* From one byte before: is a file's mapping in front of it? */
	uint64_t at = start - 1;
	unsigned i;

	if (pager->maps_fd < 0 || pager->scans_off)
		return;
	collect_excluded(&s);
	while (at < end) {
		struct procmap_query q = {
			.size = sizeof(q),
			.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
			.query_addr = at,
			.vma_name_addr = (uintptr_t)pager->maps_buffer,
			.vma_name_size = PAGER_MAPS_BUFFER,
		};

		if (tmem_sys(SYS_ioctl, pager->maps_fd, PROCMAP_QUERY, &q) < 0)
			break;
		if (!q.vma_name_size)
			pager->maps_buffer[0] = 0;
		if (q.vma_start < end)
			see_mapping(&s,
				    q.vma_start > start ? q.vma_start : start,
				    q.vma_end < end ? q.vma_end : end, q.inode,
				    !(q.vma_flags & PROCMAP_QUERY_VMA_SHARED),
				    (char *)pager->maps_buffer);
		at = q.vma_end;
	}
	for (i = 0; i < s.nr_runs; i++)
		register_run(pager, &s, s.runs[i].start, s.runs[i].end);
}

/* False: adopting, it found something that is not as it was. */
static bool scan(struct tmem_pager *pager, bool adopt)
{
	struct scan s = new_scan(pager, adopt);
	uint64_t small_limit = atomic_load(&pager->slot->grant_bytes) / 16;
	unsigned i;

	tmem_budget_acquire(pager);
	if (atomic_load(&pager->fork_mode) || (pager->scans_off && !adopt)) {
		tmem_lock_release(&pager->lock);
		return false;
	}
	collect_excluded(&s);
	s.unsure = parse_maps(&s) < 0;
	if (!pager->small_too && s.small_bytes > small_limit) {
		pager->small_too = true;
		parse_maps(&s);
	}
	for (i = 0; i < s.nr_runs; i++)
		register_run(pager, &s, s.runs[i].start, s.runs[i].end);
	if (adopt)
		drop_unmapped(pager, &s, 1ull << 47);
	atomic_store(&pager->slot->unpageable_bytes,
		     pager->small_too ? 0 : s.small_bytes);
	pager->zeros_found = s.zeros;
	pager->zeros_new = true;
	PAGER_COUNT(pager, scans, 1);
	tmem_lock_release(&pager->lock);
	/* It would read zeros, and there is no fork to try again. */
	TMEM_ASSERT(!s.lost || pager->trapped);
	return !s.unsure;
}

static bool is_end_of_mapping(const struct tmem_pager *pager, uint64_t addr,
			      bool start)
{
	struct procmap_query q = { .size = sizeof(q),
				   .query_addr = start ? addr : addr - 1 };

	return tmem_sys(SYS_ioctl, pager->maps_fd, PROCMAP_QUERY, &q) >= 0 &&
	       addr == (start ? q.vma_start : q.vma_end);
}

/*
 * Of what was unmapped before anything was watched nobody told us: a mapping
 * that came there has its ends elsewhere.
 */
static void forget_lost_homes(struct tmem_pager *pager)
{
	unsigned i = 0;

	while (i < pager->nr_homes && pager->maps_fd >= 0) {
		const struct tmem_range *r = &pager->homes[i];

		if (is_end_of_mapping(pager, r->start, true) &&
		    is_end_of_mapping(pager, r->end, false))
			i++;
		else
			pager->homes[i] = pager->homes[--pager->nr_homes];
	}
}

/* Frames and doorbell; with them registered, the pager is armed.  0, -errno. */
static int arm(struct tmem_pager *pager)
{
	uint64_t bell = (uintptr_t)pager->doorbell;
	int r = -EAGAIN;

	tmem_budget_acquire(pager);
	if (!atomic_load(&pager->fork_mode))
		r = tmem_frames_register(pager);
	if (r == 0)
		r = tmem_chaos_hits(TMEM_CHAOS_HELD)
			    ? -EBUSY
			    : (int)register_range(pager, bell,
						  bell + 2ul * TMEM_PAGE_SIZE);
	if (r == 0) {
		forget_lost_homes(pager);
		atomic_store(&pager->armed, 1);
	}
	tmem_lock_release(&pager->lock);
	return r;
}

void tmem_region_scan(struct tmem_pager *pager)
{
	if (!atomic_load(&pager->armed) && arm(pager) < 0)
		return;
	tmem_region_pin_threads(pager);
	scan(pager, false);
}

int tmem_region_adopt(struct tmem_pager *pager)
{
	bool sure;
	int r;

	/*
	 * Our parent's pager has answered the doorbell, and closes its
	 * userfaultfd of this memory: all of it is let go of at once, in the
	 * middle of that.
	 */
	while ((r = arm(pager)) == -EBUSY)
		tmem_sys_pause();
	sure = r == 0 && scan(pager, true);
	TMEM_ASSERT(r == 0 || pager->trapped);
	return sure || !pager->trapped ? 0 : -EAGAIN;
}

/* All of it but for the homes, run by run, to children or not. */
static void advise_runs(const struct tmem_pager *pager, int advice)
{
	const struct tmem_range *runs = pager->runs;
	unsigned i, k;

	for (i = 0; i < pager->nr_let; i++) {
		uint64_t at = runs[i].start, end = runs[i].end;

		tmem_sys_madvise(tmem_sys_pointer(at), end - at, advice);
		for (k = 0; k < pager->nr_homes; k++) {
			uint64_t from = pager->homes[k].start;
			uint64_t to = pager->homes[k].end;

			from = from > at ? from : at;
			to = to < end ? to : end;
			if (from < to)
				tmem_sys_madvise(tmem_sys_pointer(from),
						 to - from, MADV_DONTFORK);
		}
	}
}

void tmem_region_let_go_locked(struct tmem_pager *pager)
{
	struct scan s = new_scan(pager, false);

	s.all = true;
	collect_excluded(&s);
	parse_maps(&s);
	if (s.nr_runs == MAX_RUNS) { /* then as when they were registered */
		s.all = false;
		parse_maps(&s);
	}
	pager->nr_let = s.nr_runs;
	advise_runs(pager, MADV_DOFORK);
}

void tmem_region_keep_locked(struct tmem_pager *pager)
{
	advise_runs(pager, MADV_DONTFORK);
	pager->nr_let = 0;
}

void tmem_region_home_locked(struct tmem_pager *pager, uint64_t start,
			     uint64_t end)
{
	/* What is small may never be watched, and its end not be told. */
	if (end - start >= SMALL_BYTES && pager->nr_homes < PAGER_MAX_HOMES)
		pager->homes[pager->nr_homes++] =
			(struct tmem_range){ start, end };
}

void tmem_region_no_home_locked(struct tmem_pager *pager, uint64_t start,
				uint64_t end)
{
	unsigned i = 0;

	while (i < pager->nr_homes)
		if (start < pager->homes[i].end && pager->homes[i].start < end)
			pager->homes[i] = pager->homes[--pager->nr_homes];
		else
			i++;
}

void tmem_region_leave_out_locked(struct tmem_pager *pager, uint64_t start,
				  uint64_t end)
{
	unsigned i;

	for (i = 0; i < pager->nr_left_out; i++)
		if (pager->left_out[i].start <= start &&
		    end <= pager->left_out[i].end)
			return;
	if (pager->nr_left_out == PAGER_MAX_LEFT_OUT) {
		pager->scans_off = true; /* better nothing than a wrong one */
		return;
	}
	pager->left_out[pager->nr_left_out++] =
		(struct tmem_range){ start, end };
}
