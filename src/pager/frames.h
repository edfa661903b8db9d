/* SPDX-License-Identifier: MIT */
/*
 * Frames: where pages go on their way out.
 *
 * UFFDIO_MOVE takes a page from the program and puts it, without copying,
 * under an address of ours: a frame.  There it is compressed or written to
 * the swap file; then its memory is given back to the kernel, never
 * overwritten (the kernel may still be sending it: a zero-copy send or a
 * vmsplice holds the page, and MOVE does not see that).
 *
 * Frames come in groups of 16 with a mapping each, so that one group can be
 * taken out of userfaultfd's sight while it is released (madvise on watched
 * memory would wait for an event that only we can read).  MOVE wants source
 * and destination with equal protection: there are groups that are
 * read-write and groups that may be executed too.  A large one is kept for
 * pages of zeros, which leave many at a time (zeros.h).
 *
 *   F1  A group is free, or owned by one evictor, or waits without an owner
 *       for its last write, or for a page that can't be put back now; whoever
 *       sees that one done owns it to free it.
 *   F2  A used frame's page names it: entry LEAVING with the frame's number,
 *       unless `gone` (the program took the page back, or unmapped it).
 *   F3  A free group holds no memory and is registered.
 *
 * Guarded by the pager's lock; a group's content by its owner.
 */
#ifndef TMEM_PAGER_FRAMES_H
#define TMEM_PAGER_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include <tmem/frontswap.h>

struct tmem_pager;

enum {
	FRAME_GROUP = 16,
	FRAME_GROUPS_RW = 16,
	FRAME_GROUPS_RWX = 2,
	FRAME_ZEROS = 512 /* pages of the group for zeros */
};
enum {
	FRAME_GROUPS_SMALL = FRAME_GROUPS_RW + FRAME_GROUPS_RWX,
	FRAME_GROUPS = FRAME_GROUPS_SMALL + 1,
	FRAMES_SMALL = FRAME_GROUPS_SMALL * FRAME_GROUP,
	FRAMES = FRAMES_SMALL + FRAME_ZEROS
};

struct tmem_frame {
	uint32_t handle; /* of the page */
	uint32_t offset; /* of frontswap, given to this page */
	bool gone;	 /* F2: drop what was stored */
	bool used;
	bool unsent; /* its owner has yet to look at it */
	bool kept;   /* offset holds an older copy, maybe still equal */
	bool poor;   /* was refused before: the swap file's, if it is again */
	bool to_swap;
	int result; /* what became of it: evict.c */
	_Atomic bool writing;
	struct tmem_swapdev_request request;
};

struct tmem_frame_group {
	uint8_t *pages;
	struct tmem_frame *frame; /* as many */
	unsigned nr_pages;
	uint32_t first; /* number of the first frame */
	bool busy;
	bool owned; /* by an evictor; busy without an owner: being written */
	bool executable;
	unsigned nr_used; /* frames filled since it was taken */
};

struct tmem_frames {
	struct tmem_frame_group group[FRAME_GROUPS]; /* the last: for zeros */
	struct tmem_frame frame[FRAMES];
};

/* Maps the groups; they are registered by tmem_frames_register(). */
int tmem_frames_init(struct tmem_pager *pager);
int tmem_frames_register(struct tmem_pager *pager);
/* In a fork's child, which did not inherit them: the same places, empty. */
int tmem_frames_remap(struct tmem_pager *pager);

/* A free group, or NULL.  The lock is held. */
struct tmem_frame_group *tmem_frames_take_locked(struct tmem_pager *pager,
						 bool executable);
/* The one for zeros: not for what the swap file may have to take. */
struct tmem_frame_group *
tmem_frames_take_zeros_locked(struct tmem_pager *pager);
/* Gives the memory back; the caller marks it free under the lock. */
void tmem_frames_release(struct tmem_pager *pager,
			 struct tmem_frame_group *group);

static inline const struct tmem_frame_group *
tmem_frame_group(const struct tmem_frames *frames, uint32_t nr)
{
	return &frames->group[nr < FRAMES_SMALL ? nr / FRAME_GROUP
						: FRAME_GROUPS_SMALL];
}

static inline uint8_t *tmem_frame_page(const struct tmem_frames *frames,
				       uint32_t nr)
{
	const struct tmem_frame_group *group = tmem_frame_group(frames, nr);

	return group->pages + (size_t)(nr - group->first) * TMEM_PAGE_SIZE;
}

static inline struct tmem_frame *tmem_frame(struct tmem_frames *frames,
					    uint32_t nr)
{
	return &frames->frame[nr];
}

#endif
