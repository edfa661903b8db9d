/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzzer's entry point over the files of directories: corpora are
 * ordinary tests too.  With --make DIR writes seeds of its own there.
 */
#include <dirent.h>

#include "fstest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void run_file(const char *path)
{
	static uint8_t data[1 << 16];
	FILE *f = fopen(path, "rb");
	size_t size;

	CHECK(f != NULL);
	size = fread(data, 1, sizeof(data), f);
	fclose(f);
	LLVMFuzzerTestOneInput(data, size);
}

static unsigned run_dir(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	unsigned n = 0;

	CHECK(d != NULL);
	while ((entry = readdir(d)) != NULL) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		run_file(path);
		n++;
	}
	closedir(d);
	return n;
}

static void make_seeds(const char *dir)
{
	for (unsigned i = 0; i < 32; i++) {
		struct rng rng = { i };
		unsigned size = 1 + 8 * (10 + (unsigned)rng_below(&rng, 150));
		char path[4096];
		FILE *f;

		snprintf(path, sizeof(path), "%s/seed-%02u", dir, i);
		f = fopen(path, "wb");
		CHECK(f != NULL);
		for (unsigned k = 0; k < size; k++)
			fputc(k ? (int)(rng_next(&rng) & 255) : (int)(i % 8),
			      f);
		CHECK_EQ(fclose(f), 0);
	}
}

int main(int argc, char **argv)
{
	unsigned n = 0;

	if (argc == 3 && strcmp(argv[1], "--make") == 0) {
		make_seeds(argv[2]);
		return 0;
	}
	for (int i = 1; i < argc; i++)
		n += run_dir(argv[i]);
	printf("%u files\n", n);
	return n == 0;
}
