/* SPDX-License-Identifier: MIT */
/*
 * The image: an arena's chunks on a memfd or a regular file, from where
 * another process can take them up when this one was killed.
 *
 * The file is mapped as a whole and shared, with room to grow: chunk n is its
 * n-th 4 MiB.  The first one holds only the *superblock*, a page.  Of an
 * arena's memory only chunks lie here; all else is private, and rebuilt.
 *
 * RUNS.  Two pages of a chunk's header say which runs of pages are spans: where
 * one begins, a word with its number and class, and a hash of both and of the
 * place.  A word is set before a slot of the span is used and cleared before
 * its pages can be another's; it is stored at once, so a kill at any
 * instruction leaves the old one or the new one.
 *
 * MEMORY.  Pages are allocated in the file before they are touched (a full
 * file system is then an answer, not SIGBUS), and holes are punched to give
 * them back.
 *
 * SIZE.  The file only grows, and a word beside the superblock follows: one
 * that is shorter than that was cut, and what it lacks can't be known.
 *
 * WHO.  The file is opened anew, so that the lock on it is this process's own
 * and goes with it.  What a machine's crash leaves of a file on a disk is not
 * in the order in which it was written; so the superblock says in which boot
 * it was written, and whether it was closed.
 */
#ifndef TMEM_ARENA_IMAGE_H
#define TMEM_ARENA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tmem_image {
	int fd;
	bool in_memory;	  /* tmpfs or memfd: no other boot will see it */
	bool knows_holes; /* SEEK_DATA is right, dirty pages included */
	bool is_new;
	bool is_open;	    /* its superblock says so, in this boot */
	uint32_t nr_shards; /* of the store's index: part of the format */
	uint32_t nr_chunks; /* in the file, the superblock's place included */
	uint32_t max_chunks;
	uint32_t hint; /* no chunk below is free */
	char *base;
	uint64_t *used; /* a bit for each chunk that is in use */
};

/*
 * Makes an image in an empty file, for so many shards, or takes up the one
 * that is there.  0, or with nothing changed: -EBUSY: another process has it;
 * -EBADMSG: something else, or damaged; -EPROTONOSUPPORT: of another version;
 * -ESTALE: written in another boot and not closed; -EINVAL: no regular file;
 * or what a system call said.
 */
int tmem_image_open(struct tmem_image *image, int fd, uint64_t max_bytes,
		    uint32_t nr_shards);
/* From now on the file is written to. */
int tmem_image_begin(struct tmem_image *image);
/* `clean`: what is there may be taken up in another boot, too. */
void tmem_image_close(struct tmem_image *image, bool clean);
/* Private memory that it takes. */
size_t tmem_image_private_bytes(const struct tmem_image *image);

/* A chunk of zeroes whose header page may be touched; NULL: none. */
void *tmem_image_map(struct tmem_image *image);
void tmem_image_unmap(struct tmem_image *image, void *chunk);
/* The chunk number *nr or a later one that may hold something; or NULL. */
void *tmem_image_next(struct tmem_image *image, uint32_t *nr);
void tmem_image_adopt(struct tmem_image *image, void *chunk);
/* Which pages of a chunk are not holes. */
void tmem_image_find_data(const struct tmem_image *image, const void *chunk,
			  uint64_t *ret_pages);

/*
 * No more things than that, so many to a page at most, were ever there at once:
 * a file does not become shorter.  Numbers of records are given out without
 * gaps, but for a few (a page of them, and what was taken in vain).
 */
uint64_t tmem_image_most(const struct tmem_image *image, unsigned per_page);

/* Whole pages.  populate: false if the file system has no room. */
bool tmem_image_populate(const struct tmem_image *image, void *start,
			 size_t bytes);
void tmem_image_discard(const struct tmem_image *image, void *start,
			size_t bytes);

/* The span that begins there; class 0: none. */
void tmem_image_set_run(const struct tmem_image *image, void *start,
			uint32_t span, unsigned class);
/* False if there is none, or what says so is damaged. */
bool tmem_image_get_run(const struct tmem_image *image, const void *start,
			uint32_t *ret_span, unsigned *ret_class);

/*
 * What a tier of the store is known by (core/reopen.c); false: there is none.
 * It is not set in one step: a kill meanwhile leaves none.
 */
enum {
	TMEM_IMAGE_LABELS = 4,
	TMEM_IMAGE_LABEL_BYTES = 16
};
bool tmem_image_get_label(const struct tmem_image *image, unsigned nr,
			  uint8_t ret_label[TMEM_IMAGE_LABEL_BYTES]);
void tmem_image_set_label(const struct tmem_image *image, unsigned nr,
			  const uint8_t label[TMEM_IMAGE_LABEL_BYTES]);

/* A word in the superblock that is its user's. */
uint64_t tmem_image_word(const struct tmem_image *image);
void tmem_image_set_word(const struct tmem_image *image, uint64_t word);

#endif
