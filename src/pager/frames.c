/* SPDX-License-Identifier: MIT */
/* See frames.h. */
#include "frames.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/sys.h"
#include "base/uffd.h"
#include "pager.h"

static size_t bytes_of(const struct tmem_frame_group *group)
{
	return (size_t)group->nr_pages * TMEM_PAGE_SIZE;
}

static long register_group(struct tmem_pager *pager,
			   const struct tmem_frame_group *group)
{
	struct uffdio_register r = {
		.range = { .start = (uintptr_t)group->pages,
			   .len = bytes_of(group) },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return tmem_sys(SYS_ioctl, pager->uffd, UFFDIO_REGISTER, &r);
}

static void advise_group(const struct tmem_frame_group *group)
{
	tmem_sys_madvise(group->pages, bytes_of(group), MADV_NOHUGEPAGE);
	tmem_sys_madvise(group->pages, bytes_of(group), MADV_DONTFORK);
}

static int init_group(struct tmem_pager *pager, struct tmem_frame_group *group)
{
	int prot = PROT_READ | PROT_WRITE;
	size_t bytes = bytes_of(group);
	uint8_t *p = tmem_pager_map(pager, bytes + 2ul * TMEM_PAGE_SIZE);

	if (!p)
		return -ENOMEM;
	if (group->executable)
		prot |= PROT_EXEC;
	group->pages = p + TMEM_PAGE_SIZE;
	/* Fences, so that no mapping merges with a group's. */
	tmem_sys(SYS_mprotect, p, TMEM_PAGE_SIZE, PROT_NONE);
	tmem_sys(SYS_mprotect, group->pages + bytes, TMEM_PAGE_SIZE, PROT_NONE);
	if (group->executable &&
	    tmem_sys(SYS_mprotect, group->pages, bytes, prot) < 0)
		group->busy = true; /* not allowed here: never taken */
	advise_group(group);
	return 0;
}

int tmem_frames_init(struct tmem_pager *pager)
{
	struct tmem_frames *frames = &pager->frames;
	unsigned i;
	int r = 0;

	memset(frames->group, 0, sizeof(frames->group));
	for (i = 0; i < FRAME_GROUPS && r == 0; i++) {
		struct tmem_frame_group *group = &frames->group[i];

		group->first = i * FRAME_GROUP;
		group->frame = &frames->frame[group->first];
		group->nr_pages = FRAME_GROUP;
		group->executable = i >= FRAME_GROUPS_RW;
		if (i == FRAME_GROUPS_SMALL) {
			group->nr_pages = FRAME_ZEROS;
			group->executable = false;
		}
		r = init_group(pager, group);
	}
	return r;
}

int tmem_frames_remap(struct tmem_pager *pager)
{
	unsigned i;

	for (i = 0; i < FRAME_GROUPS; i++) {
		struct tmem_frame_group *group = &pager->frames.group[i];
		int prot = PROT_READ | PROT_WRITE;
		long r;

		if (group->busy) /* executable memory is not allowed here */
			continue;
		if (group->executable)
			prot |= PROT_EXEC;
		r = tmem_sys(SYS_mmap, group->pages, bytes_of(group), prot,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE |
				     MAP_FIXED,
			     -1, 0);
		if (r < 0 && r > -4096)
			return (int)r;
		advise_group(group);
	}
	return 0;
}

int tmem_frames_register(struct tmem_pager *pager)
{
	unsigned i;
	long r = 0;

	for (i = 0; i < FRAME_GROUPS && r == 0; i++)
		if (!pager->frames.group[i].busy)
			r = register_group(pager, &pager->frames.group[i]);
	return (int)r;
}

static struct tmem_frame_group *take(struct tmem_frame_group *group)
{
	if (group->busy)
		return NULL;
	group->busy = true;
	group->owned = true;
	group->nr_used = 0;
	return group;
}

struct tmem_frame_group *tmem_frames_take_locked(struct tmem_pager *pager,
						 bool executable)
{
	struct tmem_frame_group *group = NULL;
	unsigned i;

	for (i = 0; i < FRAME_GROUPS_SMALL && !group; i++)
		if (pager->frames.group[i].executable == executable)
			group = take(&pager->frames.group[i]);
	return group;
}

struct tmem_frame_group *tmem_frames_take_zeros_locked(struct tmem_pager *pager)
{
	return take(&pager->frames.group[FRAME_GROUPS_SMALL]);
}

void tmem_frames_release(struct tmem_pager *pager,
			 struct tmem_frame_group *group)
{
	struct uffdio_range range = { .start = (uintptr_t)group->pages,
				      .len = bytes_of(group) };
	long r;

	/* Out of sight first: a watched madvise waits for its own event. */
	r = tmem_sys(SYS_ioctl, pager->uffd, UFFDIO_UNREGISTER, &range);
	TMEM_ASSERT(r == 0);
	r = tmem_sys_madvise(group->pages,
			     (size_t)group->nr_used * TMEM_PAGE_SIZE,
			     MADV_DONTNEED);
	if (r == -EINVAL) /* the program locked all its memory */
		r = tmem_sys_madvise(group->pages, bytes_of(group),
				     MADV_DONTNEED_LOCKED);
	TMEM_ASSERT(r == 0);
	r = register_group(pager, group);
	TMEM_ASSERT(r == 0);
}
