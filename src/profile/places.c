/* SPDX-License-Identifier: MIT */
/* See places.h. */
#include "profile/places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"

struct file {
	int fd; /* + 1; 0: none */
	char *path;
};

int tmem_places_init(struct tmem_places *places)
{
	struct tmem_place p = { .file = TMEM_INTERN_NONE };

	memset(places, 0, sizeof(*places));
	places->files.record_bytes = sizeof(struct file);
	for (p.address = 0; p.address < PLACE_KINDS; p.address++)
		if (tmem_intern_add(&places->places, &p, sizeof(p)) !=
		    p.address)
			return -ENOMEM;
	return 0;
}

void tmem_places_fini(struct tmem_places *places)
{
	const struct file *f;
	uint32_t i;

	for (i = 0; i < places->files.nr; i++) {
		f = tmem_intern_record(&places->files, i);
		if (f->fd)
			close(f->fd - 1);
		free(f->path);
	}
	tmem_intern_fini(&places->files);
	tmem_intern_fini(&places->places);
}

uint32_t tmem_places_file(struct tmem_places *places, const char *path, int fd)
{
	struct stat st = { 0 };
	struct file *f;
	char *key = NULL;
	uint32_t nr;
	int copy;

	/* A package may be upgraded while the program runs. */
	if (fd >= 0)
		fstat(fd, &st);
	if (asprintf(&key, "%llx:%llx:%s", (unsigned long long)st.st_dev,
		     (unsigned long long)st.st_ino, path) < 0)
		return TMEM_INTERN_NONE;
	nr = tmem_intern_add(&places->files, key, strlen(key) + 1);
	free(key);
	if (nr == TMEM_INTERN_NONE)
		return nr;
	f = tmem_intern_record(&places->files, nr);
	if (!f->path)
		f->path = strdup(path);
	copy = fd >= 0 && !f->fd ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (copy >= 0)
		f->fd = copy + 1;
	return f->path ? nr : TMEM_INTERN_NONE;
}

int tmem_places_file_fd(const struct tmem_places *places, uint32_t file)
{
	const struct file *f = tmem_intern_record(&places->files, file);

	return f->fd - 1;
}

const char *tmem_places_file_path(const struct tmem_places *places,
				  uint32_t file)
{
	const struct file *f = tmem_intern_record(&places->files, file);

	return f->path;
}

uint32_t tmem_places_add(struct tmem_places *places, uint32_t file,
			 uint64_t address)
{
	const struct tmem_place p = { .file = file, .address = address };

	TMEM_ASSERT(file < places->files.nr);
	return tmem_intern_add(&places->places, &p, sizeof(p));
}
