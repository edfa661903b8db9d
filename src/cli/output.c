/* SPDX-License-Identifier: MIT */
/* See output.h. */
#include "cli/output.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

int tmem_output_write(int fd, const char *text)
{
	size_t left = strlen(text);
	ssize_t n;

	while (left) {
		n = write(fd, text, left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		text += n;
		left -= (size_t)n;
	}
	return 0;
}

int tmem_output_write_over(int fd, const char *text)
{
	bool is_file = lseek(fd, 0, SEEK_SET) == 0;
	int error = tmem_output_write(fd, text), r;

	if (is_file) {
		r = ftruncate(fd, (off_t)strlen(text));
		(void)r; /* a device has no end */
	}
	return error;
}
