/* SPDX-License-Identifier: MIT */
/*
 * The swap file's encryption: nothing of a page is on the disk, what was
 * changed, moved or put back there is an error, and no two writes have the
 * same nonce, in whatever process of the tree.
 */
#include <signal.h>
#include <sys/wait.h>

#include "frontends/swapmap.h"
#include "fstest.h"
#include "testfile.h"

enum {
	MAX_PAGES = 4096,
	OFFSETS = 2048,
	USERS = 4
};

static int file_fd, map_fd;

static struct tmem_swapfile *open_file(unsigned user, bool no_encrypt)
{
	struct tmem_swapfile_options options = {
		.file_fd = file_fd,
		.map_fd = map_fd,
		.user = user,
		.depth = 16,
		.nr_offsets = OFFSETS,
		.no_encrypt = no_encrypt,
	};
	struct tmem_swapfile *f;

	CHECK_EQ(tmem_swapfile_open(&options, &f), 0);
	return f;
}

static void close_file(struct tmem_swapfile *f)
{
	struct tmem_swapdev dev = tmem_swapfile_device(f);

	tmem_swapfile_check(f);
	dev.ops->close(dev.self);
}

static void write_done(struct tmem_swapdev_request *request, int result)
{
	*(int *)request->arg = result;
}

static void put(struct tmem_swapfile *f, uint64_t offset, void *page)
{
	struct tmem_swapdev dev = tmem_swapfile_device(f);
	int result = 1;
	struct tmem_swapdev_request q = { .offset = offset,
					  .page = page,
					  .done = write_done,
					  .arg = &result };

	CHECK_EQ(dev.ops->write(dev.self, &q), 0);
	while (result == 1)
		dev.ops->reap(dev.self, true);
	CHECK_EQ(result, 0);
}

static void put_tag(struct tmem_swapfile *f, uint64_t offset, uint64_t tag)
{
	char *page = pages_alloc(1);

	page_fill(page, tag);
	put(f, offset, page);
	pages_free(page, 1);
}

static int get(struct tmem_swapfile *f, uint64_t offset, void *page)
{
	struct tmem_swapdev dev = tmem_swapfile_device(f);

	return dev.ops->read(dev.self, offset, page);
}

static bool holds(struct tmem_swapfile *f, uint64_t offset, uint64_t tag)
{
	char page[PAGE];

	return get(f, offset, page) == 0 && page_is(page, tag);
}

static void read_slot(unsigned slot, void *page)
{
	CHECK_EQ(pread(file_fd, page, PAGE, (off_t)(slot * PAGE)), PAGE);
}

static void write_slot(unsigned slot, const void *page)
{
	CHECK_EQ(pwrite(file_fd, page, PAGE, (off_t)(slot * PAGE)), PAGE);
}

/* How many of the file's blocks have these 16 bytes anywhere. */
static unsigned blocks_with(const char *what)
{
	char *page = pages_alloc(1);
	unsigned n = 0;

	for (unsigned slot = 0; slot < 512; slot++) {
		read_slot(slot, page);
		n += memmem(page, PAGE, what, 16) != NULL;
	}
	pages_free(page, 1);
	return n;
}

static void nothing_of_a_page_is_on_the_disk(void)
{
	static const char secret[] = "sixteen letters!";

	for (int no_encrypt = 0; no_encrypt < 2; no_encrypt++) {
		struct tmem_swapfile *f = open_file(0, no_encrypt);
		char *page = pages_alloc(1), back[PAGE];

		for (unsigned i = 0; i < 100; i++) {
			memset(page, 0, PAGE);
			memcpy(page + (size_t)i * 40, secret, 16);
			put(f, i, page);
			CHECK_EQ(get(f, i, back), 0);
			CHECK(memcmp(page, back, PAGE) == 0);
		}
		CHECK_EQ(blocks_with(secret), no_encrypt ? 100 : 0);
		CHECK_EQ(strcmp(tmem_swapfile_cipher(f), "none") == 0,
			 no_encrypt);
		pages_free(page, 1);
		close_file(f);
	}
}

static void every_changed_byte_is_an_error(void)
{
	struct tmem_swapfile *f = open_file(0, false);
	char *block = pages_alloc(1), back[PAGE];

	put_tag(f, 7, 70);
	read_slot(0, block);
	for (unsigned i = 0; i < PAGE; i += 61) {
		block[i] ^= 0x10;
		write_slot(0, block);
		CHECK_EQ(get(f, 7, back), -EBADMSG);
		block[i] ^= 0x10;
	}
	write_slot(0, block);
	CHECK(holds(f, 7, 70));
	pages_free(block, 1);
	close_file(f);
}

static void blocks_that_change_places_are_errors(void)
{
	struct tmem_swapfile *f = open_file(0, false);
	char *a = pages_alloc(1), *b = pages_alloc(1), back[PAGE];

	put_tag(f, 1, 11);
	put_tag(f, 2, 11); /* the same page, even so */
	put_tag(f, 3, 33);
	read_slot(0, a);
	read_slot(1, b);
	CHECK(memcmp(a, b, PAGE) != 0);
	write_slot(0, b);
	write_slot(1, a);
	CHECK_EQ(get(f, 1, back), -EBADMSG);
	CHECK_EQ(get(f, 2, back), -EBADMSG);
	CHECK(holds(f, 3, 33));
	write_slot(0, a);
	write_slot(1, b);
	CHECK(holds(f, 1, 11) && holds(f, 2, 11));
	pages_free(a, 1);
	pages_free(b, 1);
	close_file(f);
}

/* What was once right in that place, put back. */
static void an_older_block_is_an_error(void)
{
	struct tmem_swapfile *f = open_file(0, false);
	struct tmem_swapdev dev = tmem_swapfile_device(f);
	char *old = pages_alloc(1), *now = pages_alloc(1), back[PAGE];
	unsigned slot;

	put_tag(f, 1, 11);
	read_slot(0, old);
	dev.ops->discard(dev.self, 1, 1);
	/* Until that slot comes round again. */
	for (slot = 0; slot < 2 * MAX_PAGES; slot++) {
		put_tag(f, 1, 11);
		read_slot(0, now);
		if (memcmp(now, old, PAGE) != 0)
			break;
		dev.ops->discard(dev.self, 1, 1);
	}
	CHECK(slot < 2 * MAX_PAGES);
	CHECK(holds(f, 1, 11));
	write_slot(0, old);
	CHECK_EQ(get(f, 1, back), -EBADMSG);
	pages_free(old, 1);
	pages_free(now, 1);
	close_file(f);
}

static int compare_blocks(const void *a, const void *b)
{
	return memcmp(a, b, PAGE);
}

/*
 * One page, all over the file, by a parent and its children, some of them
 * killed: with a nonce twice, two blocks would be alike but for their tags,
 * as the stream that hides them would be the same.
 */
static void no_nonce_comes_twice_in_a_tree(void)
{
	struct tmem_swapfile *f = open_file(0, false);
	char *page = pages_alloc(1), *all;
	unsigned nr = 0;
	pid_t pids[3];

	page_fill(page, 5);
	put(f, 0, page);
	for (unsigned c = 0; c < 3; c++) {
		CHECK_EQ(tmem_swapfile_before_fork(f, c + 1), 0);
		pids[c] = fork();
		CHECK(pids[c] >= 0);
		if (pids[c] != 0)
			continue;
		CHECK_EQ(tmem_swapfile_reopen(f, file_fd, map_fd, c + 1), 0);
		for (unsigned i = 1; i < 600; i++)
			put(f, i, page);
		if (c == 0)
			kill(getpid(), SIGKILL);
		CHECK(holds(f, 0, 5) && holds(f, 599, 5));
		_exit(0);
	}
	for (unsigned i = 1; i < 600; i++)
		put(f, i, page);
	for (unsigned c = 0; c < 3; c++)
		CHECK_EQ(waitpid(pids[c], NULL, 0), pids[c]);
	all = malloc(MAX_PAGES * PAGE);
	CHECK(all != NULL);
	CHECK_EQ(pread(file_fd, all, MAX_PAGES * PAGE, 0), MAX_PAGES * PAGE);
	qsort(all, MAX_PAGES, PAGE, compare_blocks);
	for (unsigned i = 0; i < MAX_PAGES; i++) {
		const char *block = all + i * PAGE;

		if (block[0] == 0 && memcmp(block, block + 1, PAGE - 1) == 0)
			continue; /* never written */
		nr++;
		CHECK(i == 0 || memcmp(block, block - PAGE, PAGE) != 0);
	}
	CHECK_EQ(nr, 1 + 4 * 599);
	free(all);
	pages_free(page, 1);
	for (unsigned c = 0; c < 3; c++)
		CHECK_EQ(tmem_swapmap_reap(map_fd, c + 1), 0);
	close_file(f);
}

/* Numbers are given out once, to threads of many processes alike. */
static void numbers_are_given_out_once(void)
{
	struct tmem_swapmap map;
	uint64_t first;
	pid_t pid;

	CHECK_EQ(tmem_swapmap_open(&map, map_fd, 0), 0);
	first = tmem_swapmap_draw_numbers(&map, 10);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		tmem_swapmap_draw_numbers(&map, 5);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, NULL, 0), pid);
	CHECK_EQ(tmem_swapmap_draw_numbers(&map, 1), first + 15);
	tmem_swapmap_close(&map);
}

/* Every mapping of the key: "dd" in VmFlags keeps it out of core dumps. */
static void no_mapping_of_the_map_is_dumped(void)
{
	struct tmem_swapfile *f = open_file(0, false);
	FILE *maps = fopen("/proc/self/smaps", "r");
	unsigned nr = 0, nr_dont_dump = 0;
	unsigned long start, end;
	char line[512];
	bool ours = false;

	CHECK(maps != NULL);
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			ours = strstr(line, "tmem-swapmap") != NULL;
		if (!ours || strncmp(line, "VmFlags:", 8) != 0)
			continue;
		nr++;
		nr_dont_dump += strstr(line, " dd") != NULL;
	}
	fclose(maps);
	CHECK(nr >= 2);
	CHECK_EQ(nr, nr_dont_dump);
	close_file(f);
}

static void run(void (*test)(void), const char *name)
{
	fprintf(stderr, "  %s\n", name);
	file_fd = testfile_ram();
	map_fd = testfile_map(MAX_PAGES, USERS);
	test();
	close(file_fd);
	close(map_fd);
}

#define RUN_FILE(test) run(test, #test)

int main(void)
{
	RUN_FILE(nothing_of_a_page_is_on_the_disk);
	RUN_FILE(every_changed_byte_is_an_error);
	RUN_FILE(blocks_that_change_places_are_errors);
	RUN_FILE(an_older_block_is_an_error);
	RUN_FILE(no_nonce_comes_twice_in_a_tree);
	RUN_FILE(numbers_are_given_out_once);
	RUN_FILE(no_mapping_of_the_map_is_dumped);
	return 0;
}
