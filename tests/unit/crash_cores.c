/* SPDX-License-Identifier: MIT */
/*
 * Core dumps, whole and damaged: what is rebuilt is right to the byte, what
 * can't be is told, and nothing makes the reader stumble.
 *
 * Usage: crash_cores [ROUNDS [SEED]]
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "arena/slot.h"
#include "base/sys.h"
#include "core/core.h"
#include "testcore.h"

static struct testcore tc;

struct seen {
	enum tmem_page_fate fate[TESTCORE_PAGES]; /* TMEM_FATES: not told of */
	bool lenient; /* what no checksum covers may be wrong */
	uint64_t nr;
};

static int look(void *arg, const struct tmem_fate *fate)
{
	uint64_t i = (fate->addr - TESTCORE_PROGRAM) / PAGE;
	struct seen *seen = arg;
	uint8_t content[PAGE];
	enum testcore_kind kind;

	seen->nr++;
	if (i >= TESTCORE_PAGES) /* damage only */
		return 0;
	seen->fate[i] = fate->fate;
	if (fate->fate != TMEM_FATE_REBUILT)
		return 0;
	CHECK(fate->file_offset <= tc.bytes - PAGE);
	kind = testcore_kind((unsigned)i);
	if (seen->lenient &&
	    (kind == TESTCORE_LEAVING || kind == TESTCORE_LOOSE))
		return 0;
	page_fill(content, i + 1);
	CHECK(memcmp(content, fate->content, PAGE) == 0);
	return 0;
}

/* Reads a core; what tmem_deadpager_open() said, or 100 + the file's. */
static int examine(int fd, struct seen *seen, struct tmem_deadpager_info *info)
{
	struct tmem_deadpager_info own;
	struct tmem_corefile core;
	struct tmem_deadpager *dp;
	int r;

	for (unsigned i = 0; i < TESTCORE_PAGES; i++)
		seen->fate[i] = TMEM_FATES;
	seen->nr = 0;
	r = tmem_corefile_open(&core, fd);
	if (r != 0)
		return r > 0 ? 100 + r : r;
	r = tmem_deadpager_open(&core, &dp, info ? info : &own);
	if (r == 0) {
		CHECK_EQ(tmem_deadpager_walk(dp, look, seen), 0);
		tmem_deadpager_get_info(dp, info ? info : &own);
		tmem_deadpager_close(dp);
	}
	tmem_corefile_close(&core);
	return r;
}

static void poke(int fd, uint64_t at, const void *bytes, size_t n)
{
	CHECK_EQ(pwrite(fd, bytes, n, (off_t)at), (long long)n);
}

static void poke_at(int fd, const void *addr, const void *bytes, size_t n)
{
	poke(fd, testcore_place(fd, addr), bytes, n);
}

/* As it is in a core that is whole, but for the pages named. */
static void expect(const struct seen *seen, const unsigned *but, unsigned nr)
{
	for (unsigned i = 0; i < TESTCORE_PAGES; i++) {
		bool skip = false;

		for (unsigned k = 0; k < nr; k++)
			skip |= but[k] == i;
		if (!skip)
			CHECK_EQ(seen->fate[i],
				 testcore_fate(testcore_kind(i)));
	}
}

static unsigned first_of(enum testcore_kind kind)
{
	unsigned i = 0;

	while (testcore_kind(i) != kind)
		i++;
	CHECK(i < TESTCORE_PAGES);
	return i;
}

static void a_whole_core_is_rebuilt(void)
{
	struct tmem_deadpager_info info;
	struct seen seen = { 0 };
	int fd = testcore_memfd(&tc);

	CHECK_EQ(examine(fd, &seen, &info), 0);
	expect(&seen, NULL, 0);
	CHECK(strcmp(info.comm, "te?st") == 0);
	CHECK(strcmp(info.version, TMEM_VERSION) == 0);
	CHECK_EQ(info.doubt, TMEM_DOUBT_NONE);
	CHECK_EQ(info.nr_damaged, 0);
	close(fd);
}

static int why_of(const void *bytes, size_t n)
{
	struct seen seen = { 0 };
	int fd = memfd_create("no core", MFD_CLOEXEC), r;

	poke(fd, 0, bytes, n);
	r = examine(fd, &seen, NULL);
	close(fd);
	return r;
}

static void other_files_are_told(void)
{
	struct seen seen = { 0 };
	int fd = open("/proc/self/exe", O_RDONLY);

	CHECK_EQ(examine(fd, &seen, NULL), 100 + TMEM_CORE_NO_CORE);
	close(fd);
	CHECK_EQ(why_of("", 0), 100 + TMEM_CORE_NO_ELF);
	CHECK_EQ(why_of("some text\n", 10), 100 + TMEM_CORE_NO_ELF);
	CHECK_EQ(why_of("\x28\xb5\x2f\xfd....", 8), 100 + TMEM_CORE_COMPRESSED);
	CHECK_EQ(why_of("\177ELF\1\1", 6), 100 + TMEM_CORE_MACHINE);
	CHECK_EQ(why_of("\177ELF\2\1", 6), 100 + TMEM_CORE_TRUNCATED);
	fd = open("/", O_RDONLY);
	CHECK_EQ(examine(fd, &seen, NULL), -EISDIR);
	close(fd);
	fd = open("/dev/null", O_RDONLY);
	CHECK_EQ(examine(fd, &seen, NULL), -ESPIPE);
	close(fd);
}

static void a_truncated_core_is_told(void)
{
	struct seen seen = { 0 };
	struct stat st;
	int fd = testcore_memfd(&tc);
	off_t n;

	CHECK_EQ(fstat(fd, &st), 0);
	for (n = st.st_size - 1; n > 0; n -= 1 + n / 7) {
		CHECK_EQ(ftruncate(fd, n), 0);
		CHECK_EQ(examine(fd, &seen, NULL),
			 100 + (n < 4	? TMEM_CORE_NO_ELF
				: n < 6 ? TMEM_CORE_MACHINE
					: TMEM_CORE_TRUNCATED));
	}
	close(fd);
}

static void another_build_is_told(void)
{
	struct tmem_deadpager_info info;
	struct seen seen = { 0 };
	int fd = testcore_memfd(&tc);
	uint64_t at = testcore_place(
		fd, (const char *)tmem_sys_pointer(TMEM_ANCHOR_ADDR) +
			    offsetof(struct tmem_anchor, source));

	poke(fd, at, "x", 1);
	CHECK_EQ(examine(fd, &seen, &info), TMEM_DEAD_OTHER_BUILD);
	CHECK(strcmp(info.version, TMEM_VERSION) == 0);
	poke_at(fd, (const char *)tmem_sys_pointer(TMEM_ANCHOR_ADDR), "x", 1);
	CHECK_EQ(examine(fd, &seen, &info), TMEM_DEAD_NO_PAGER);
	close(fd);
}

static void poke_u32(int fd, const void *addr, uint32_t value)
{
	poke_at(fd, addr, &value, sizeof(value));
}

/* A pager that was not this process's, or not yet: nothing is written. */
static void doubtful_processes_are_left_alone(void)
{
	struct tmem_deadpager_info info;
	struct seen seen = { 0 };
	int fd = testcore_memfd(&tc);

	poke_u32(fd, &tc.pager->program_pid, TESTCORE_PID + 1);
	CHECK_EQ(examine(fd, &seen, &info), 0);
	CHECK_EQ(info.doubt, TMEM_DOUBT_PROCESS);
	CHECK_EQ(seen.fate[first_of(TESTCORE_STORED)], TMEM_FATE_UNSURE);
	poke_u32(fd, &tc.pager->program_pid, TESTCORE_PID);
	poke_u32(fd, &tc.pager->state, PAGER_STARTING);
	poke_at(fd, &tc.pager->forked, "\1", 1);
	CHECK_EQ(examine(fd, &seen, &info), 0);
	CHECK_EQ(info.doubt, TMEM_DOUBT_FORKED);
	CHECK_EQ(seen.fate[first_of(TESTCORE_STORED)], TMEM_FATE_UNSURE);
	poke_u32(fd, &tc.pager->state, PAGER_FAILED);
	CHECK_EQ(examine(fd, &seen, &info), 0);
	CHECK_EQ(seen.nr, 0);
	CHECK(!info.served);
	close(fd);
}

/* With those pages moved out while the core was written. */
static void examine_moved(struct seen *seen, const unsigned *pages, unsigned nr,
			  bool kept)
{
	struct tmem_deadpager_info info;
	int fd;

	for (unsigned i = 0; i < nr; i++)
		tc.anchor->moved[(5000 + i) % TMEM_ANCHOR_MOVED] =
			(struct tmem_anchor_move){
				.vpn = tmem_vpn(TESTCORE_PROGRAM) + pages[i],
				.offset = tc.offset[pages[i]],
				.kept = kept
			};
	tc.anchor->nr_taken += nr;
	fd = testcore_memfd(&tc);
	CHECK_EQ(examine(fd, seen, &info), 0);
	CHECK_EQ(info.doubt,
		 nr > TMEM_ANCHOR_MOVED ? TMEM_DOUBT_AT_WORK : TMEM_DOUBT_NONE);
	close(fd);
	tc.anchor->nr_taken = 5000;
}

/* The table may not know of it yet; frames may have others' pages by now. */
static void what_moved_meanwhile_is_found(void)
{
	unsigned kept = first_of(TESTCORE_KEPT), but[TESTCORE_PAGES], nr = 0;
	unsigned pages[2] = { first_of(TESTCORE_STORED), kept };
	uint8_t *page = tc.program + kept * PAGE;
	struct seen seen = { 0 };

	memset(page, 0, PAGE);
	for (unsigned k = 0; k < TESTCORE_PAGES; k++)
		if (testcore_kind(k) == TESTCORE_LEAVING)
			but[nr++] = k;
	but[nr++] = kept;
	examine_moved(&seen, pages, 2, false);
	expect(&seen, but, nr);
	CHECK_EQ(seen.fate[kept], TMEM_FATE_REBUILT);
	CHECK_EQ(seen.fate[but[0]], TMEM_FATE_UNSURE);
	page_fill(page, kept + 1);
}

/* What is there may be of another page, or of yesterday. */
static void what_moved_after_a_drop_is_left_alone(void)
{
	unsigned page = first_of(TESTCORE_STORED), next = page + 1, resident;
	unsigned many[TMEM_ANCHOR_MOVED + 1] = { page };
	struct seen seen = { 0 };

	while (testcore_kind(next) != TESTCORE_STORED)
		next++;
	examine_moved(&seen, &page, 1, true);
	CHECK_EQ(seen.fate[page], TMEM_FATE_UNSURE);
	CHECK_EQ(seen.fate[next], TMEM_FATE_REBUILT);
	tc.anchor->nr_dropped = 1;
	examine_moved(&seen, &page, 1, false);
	CHECK_EQ(seen.fate[page], TMEM_FATE_UNSURE);
	CHECK_EQ(seen.fate[next], TMEM_FATE_REBUILT);
	tc.anchor->nr_dropped = 0;
	tmem_lock_acquire(&tc.pager->lock);
	examine_moved(&seen, &page, 1, false);
	tmem_lock_release(&tc.pager->lock);
	CHECK_EQ(seen.fate[page], TMEM_FATE_UNSURE);
	resident = first_of(TESTCORE_RESIDENT);
	memset(tc.program + resident * PAGE, 0, PAGE);
	examine_moved(&seen, many, TMEM_ANCHOR_MOVED, false);
	CHECK_EQ(seen.fate[next], TMEM_FATE_REBUILT);
	CHECK_EQ(seen.fate[resident], TMEM_FATES);
	examine_moved(&seen, many, TMEM_ANCHOR_MOVED + 1, false);
	CHECK_EQ(seen.fate[next], TMEM_FATE_UNSURE);
	CHECK_EQ(seen.fate[resident], TMEM_FATE_UNSURE);
	page_fill(tc.program + resident * PAGE, resident + 1);
}

static void events_put_off_are_heeded(void)
{
	unsigned i = first_of(TESTCORE_STORED);
	uint64_t vpn = tmem_vpn(TESTCORE_PROGRAM) + i;
	struct seen seen = { 0 };
	int fd;

	tc.deferred->nr = 1;
	tc.deferred->note[0] = (struct tmem_note){ NOTE_GONE, vpn, vpn + 1, 0 };
	fd = testcore_memfd(&tc);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	CHECK_EQ(seen.fate[i], TMEM_FATE_UNSURE);
	expect(&seen, &i, 1);
	close(fd);
	tc.deferred->note[0] =
		(struct tmem_note){ NOTE_MOVED, vpn + (1 << 20), vpn, 1 };
	fd = testcore_memfd(&tc);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	CHECK_EQ(seen.fate[i], TMEM_FATE_UNSURE);
	close(fd);
	tc.deferred->nr = 0;
}

static void a_load_under_way_is_left_alone(void)
{
	struct seen seen = { 0 };
	int fd;

	tmem_lock_acquire(&tc.pager->lock);
	fd = testcore_memfd(&tc);
	tmem_lock_release(&tc.pager->lock);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	CHECK_EQ(seen.fate[first_of(TESTCORE_LOADING)], TMEM_FATE_UNSURE);
	CHECK_EQ(seen.fate[first_of(TESTCORE_STORED)], TMEM_FATE_REBUILT);
	close(fd);
}

/* It may have come after its place was written; others' zeros are zeros. */
static void what_was_read_ahead_is_not_taken_for_zeros(void)
{
	unsigned i = first_of(TESTCORE_RESIDENT), next = i + 1;
	struct seen seen = { 0 };
	int fd;

	while (testcore_kind(next) != TESTCORE_RESIDENT)
		next++;
	CHECK(next < TESTCORE_PAGES);
	memset(tc.program + i * PAGE, 0, PAGE);
	memset(tc.program + next * PAGE, 0, PAGE);
	tmem_table_set_ahead(&tc.pager->table, testcore_handle(&tc, i));
	fd = testcore_memfd(&tc);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	CHECK_EQ(seen.fate[i], TMEM_FATE_UNSURE);
	expect(&seen, &i, 1);
	close(fd);
	page_fill(tc.program + i * PAGE, i + 1);
	page_fill(tc.program + next * PAGE, next + 1);
	fd = testcore_memfd(&tc);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	expect(&seen, NULL, 0);
	close(fd);
	tmem_table_use(&tc.pager->table, testcore_handle(&tc, i));
}

/* Two pages say that an offset is theirs: neither gets it. */
static void an_offset_has_one_page(void)
{
	unsigned a = first_of(TESTCORE_STORED), b = a + 1;
	uint32_t handle, entry = (uint32_t)PAGE_STORED << TABLE_VALUE_BITS |
				 tc.offset[a];
	struct seen seen = { 0 };
	int fd = testcore_memfd(&tc);

	while (testcore_kind(b) != TESTCORE_STORED)
		b++;
	handle = testcore_handle(&tc, b);
	poke_u32(fd,
		 &tmem_table_leaf(&tc.pager->table, handle >> LEAF_SHIFT)
			  ->entry[handle % LEAF_PAGES],
		 entry);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	CHECK_EQ(seen.fate[a], TMEM_FATE_DAMAGED);
	CHECK_EQ(seen.fate[b], TMEM_FATE_DAMAGED);
	expect(&seen, (unsigned[]){ a, b }, 2);
	close(fd);
}

static const struct tmem_slot *slot_of(unsigned page)
{
	struct tmem_io io = { .object.word[0] = tc.offset[page] & 15,
			      .index = tc.offset[page] >> 4 };
	uint32_t nr;

	for (nr = 64; nr < 1 << 20; nr++) {
		const struct tmem_slot *s;

		if (!tmem_arena_has(&tc.store->arena, nr))
			continue;
		s = tmem_arena_slot(&tc.store->arena, nr);
		if (tmem_slot_form(s) && s->index == io.index &&
		    tmem_object_nr(tc.store, s->object)->id.word[0] ==
			    io.object.word[0])
			return s;
	}
	CHECK(false);
	return NULL;
}

/* Every byte of a slot counts. */
static void a_damaged_slot_is_told(void)
{
	unsigned i = first_of(TESTCORE_STORED);
	const struct tmem_slot *slot = slot_of(i);
	const uint8_t *bytes = (const void *)slot;
	struct seen seen = { 0 };
	int fd = testcore_memfd(&tc);

	for (size_t k = 0; k < sizeof(*slot) + slot->length; k++) {
		uint8_t wrong = bytes[k] ^ 0x11;

		poke_at(fd, bytes + k, &wrong, 1);
		CHECK_EQ(examine(fd, &seen, NULL), 0);
		CHECK_EQ(seen.fate[i], TMEM_FATE_DAMAGED);
		poke_at(fd, bytes + k, bytes + k, 1);
		if (k >= sizeof(*slot) + 16)
			k += 31;
	}
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	expect(&seen, NULL, 0);
	/* It may just have been moved elsewhere, if there was time for that. */
	poke_at(fd, bytes, "\x11\x22\x33\x44", 4);
	poke_u32(fd, &tc.pager->nr_storing, 1);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	CHECK_EQ(seen.fate[i], TMEM_FATE_UNSURE);
	expect(&seen, &i, 1);
	close(fd);
}

/* What was stored there before is not what is stored there now. */
static void the_newest_content_is_taken(void)
{
	unsigned i = first_of(TESTCORE_STORED);
	struct seen seen = { 0 };
	uint8_t content[PAGE];
	int fd;

	page_fill(content, 3 * 4999 + 1); /* of another size class */
	CHECK_EQ(tmem_frontswap_store(tc.pager->frontswap, 0, tc.offset[i],
				      content),
		 0);
	page_fill(content, i + 1);
	CHECK_EQ(tmem_frontswap_store(tc.pager->frontswap, 0, tc.offset[i],
				      content),
		 0);
	fd = testcore_memfd(&tc);
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	expect(&seen, NULL, 0);
	close(fd);
}

/* One wrong byte anywhere never becomes a wrong page. */
static void one_wrong_byte_does_no_harm(unsigned rounds, uint64_t seed)
{
	struct rng rng = { seed };
	struct seen seen = { .lenient = true };
	int fd = testcore_memfd(&tc);

	printf("seed %llu\n", (unsigned long long)seed);
	while (rounds--) {
		uint64_t at = tc.data[rng_below(&rng, tc.nr_data)] +
			      rng_below(&rng, PAGE);
		uint8_t old, new = (uint8_t)rng_next(&rng);

		CHECK_EQ(pread(fd, &old, 1, (off_t)at), 1);
		poke(fd, at, &new, 1);
		examine(fd, &seen, NULL);
		poke(fd, at, &old, 1);
	}
	seen.lenient = false;
	CHECK_EQ(examine(fd, &seen, NULL), 0);
	expect(&seen, NULL, 0);
	close(fd);
}

int main(int argc, char **argv)
{
	unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 0) : 300;
	uint64_t seed =
		argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);

	testcore_make(&tc);
	RUN(a_whole_core_is_rebuilt);
	RUN(other_files_are_told);
	RUN(a_truncated_core_is_told);
	RUN(another_build_is_told);
	RUN(doubtful_processes_are_left_alone);
	RUN(what_moved_meanwhile_is_found);
	RUN(what_moved_after_a_drop_is_left_alone);
	RUN(events_put_off_are_heeded);
	RUN(a_load_under_way_is_left_alone);
	RUN(what_was_read_ahead_is_not_taken_for_zeros);
	RUN(an_offset_has_one_page);
	RUN(a_damaged_slot_is_told);
	one_wrong_byte_does_no_harm(rounds, seed);
	RUN(the_newest_content_is_taken);
	testcore_free(&tc);
	puts("ok");
	return 0;
}
