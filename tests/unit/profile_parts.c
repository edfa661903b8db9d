/* SPDX-License-Identifier: MIT */
/*
 * The parts of the profiler that need no kernel: the log of stalls, samples
 * that find their stall, numbers for bytes, and what the stacks of a group
 * cost.
 */
#include "base/assert.h"

#include "profile/fold.h"
#include "profile/match.h"
#include "profile/places.h"
#include "wire/stalls.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	WRITERS = 4,
	ROUNDS = 40,
	PER_ROUND = TMEM_STALL_LOG_ENTRIES / WRITERS / 2,
	PER_WRITER = ROUNDS * PER_ROUND
};

static struct tmem_stall_log stall_log;
static struct tmem_match match;
static pthread_barrier_t barrier;

static struct tmem_stall stall_of(uint64_t n)
{
	return (struct tmem_stall){ .vpn = n,
				    .start_ns = n * 3,
				    .ns = n * 5,
				    .slot = (int)(n % TMEM_TREE_SLOTS) };
}

static void *write_stalls(void *arg)
{
	uint64_t first = *(const uint64_t *)arg, i;

	/* Nobody comes round while another writes. */
	for (i = 0; i < PER_WRITER; i++) {
		const struct tmem_stall s = stall_of(first + i);

		if (i % PER_ROUND == 0)
			pthread_barrier_wait(&barrier);
		tmem_stall_log_add(&stall_log, &s);
	}
	return NULL;
}

static void an_entry_is_read_whole_or_not_at_all(void)
{
	uint64_t first[WRITERS], next = 0, end, seen = 0;
	pthread_t threads[WRITERS];
	struct tmem_stall s, expected;
	int i;

	pthread_barrier_init(&barrier, NULL, WRITERS);
	for (i = 0; i < WRITERS; i++) {
		first[i] = (uint64_t)(i + 1) << 20;
		TMEM_ASSERT(pthread_create(&threads[i], NULL, write_stalls,
					   &first[i]) == 0);
	}
	while (next < (uint64_t)WRITERS * PER_WRITER) {
		end = atomic_load(&stall_log.next);
		for (; next < end; next++) {
			if (!tmem_stall_log_get(&stall_log, next, &s))
				continue;
			expected = stall_of(s.vpn);
			TMEM_ASSERT(s.start_ns == expected.start_ns &&
				    s.ns == expected.ns &&
				    s.slot == expected.slot);
			seen++;
		}
	}
	for (i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	TMEM_ASSERT(seen > 0);
	/* At rest the last round is there, and nothing older. */
	end = atomic_load(&stall_log.next);
	TMEM_ASSERT(end == (uint64_t)WRITERS * PER_WRITER);
	for (next = end - TMEM_STALL_LOG_ENTRIES; next < end; next++)
		TMEM_ASSERT(tmem_stall_log_get(&stall_log, next, &s));
	TMEM_ASSERT(!tmem_stall_log_get(&stall_log,
					end - TMEM_STALL_LOG_ENTRIES - 1, &s));
	TMEM_ASSERT(!tmem_stall_log_get(&stall_log, end, &s));
}

static void put(int slot, uint64_t vpn, uint64_t time_ns, uint32_t stack)
{
	const struct tmem_match_sample s = {
		.vpn = vpn, .time_ns = time_ns, .slot = slot, .stack = stack
	};

	tmem_match_put(&match, &s);
}

static struct tmem_match_found meet(int slot, uint64_t vpn, uint64_t start_ns)
{
	const struct tmem_stall s = {
		.vpn = vpn, .start_ns = start_ns, .ns = 1000, .slot = slot
	};

	return tmem_match_stall(&match, &s);
}

static void a_stall_finds_its_sample_once(void)
{
	const uint64_t t = 5000000000;

	memset(&match, 0, sizeof(match));
	put(1, 77, t, 10);
	put(1, 77, t + 50, 11); /* another thread's */
	TMEM_ASSERT(meet(2, 77, t + 100).stack == TMEM_INTERN_NONE);
	TMEM_ASSERT(meet(1, 78, t + 100).stack == TMEM_INTERN_NONE);
	TMEM_ASSERT(meet(1, 77, t + 100).stack == 10);
	TMEM_ASSERT(meet(1, 77, t + 200).stack == 11);
	/* Those were all; what comes now is the last one's, again. */
	TMEM_ASSERT(meet(1, 77, t + 2000).stack == 11);
	TMEM_ASSERT(meet(1, 77, t + 4000).again);
	TMEM_ASSERT(meet(1, 77, t + 500000000).stack == TMEM_INTERN_NONE);
	/* Of a page that was touched long before, or afterwards. */
	put(3, 5, t, 12);
	TMEM_ASSERT(meet(3, 5, t + 2000000000).stack == TMEM_INTERN_NONE);
	TMEM_ASSERT(meet(3, 5, t - 2000000).stack == TMEM_INTERN_NONE);
}

static void old_samples_make_room(void)
{
	uint64_t i, t = 5000000000;

	memset(&match, 0, sizeof(match));
	for (i = 0; i < 3ull * MATCH_WAITING; i++) {
		put(1, i % 5000, t + i, (uint32_t)i);
		if (i % 3 == 0)
			TMEM_ASSERT(meet(1, i % 5000, t + i).stack <= i);
	}
	/* The last ones are all there, the first none. */
	TMEM_ASSERT(meet(1, (i - 1) % 5000, t + i).stack == i - 1);
	put(7, 1, t, 1);
	for (i = 0; i < MATCH_WAITING; i++)
		put(8, i, t, 2);
	TMEM_ASSERT(meet(7, 1, t).stack == TMEM_INTERN_NONE);
}

static void equal_bytes_have_one_number(void)
{
	struct tmem_intern t = { .record_bytes = 0 };
	char key[16];
	uint32_t i;

	for (i = 0; i < 5000; i++) {
		snprintf(key, sizeof(key), "key %u", i);
		TMEM_ASSERT(tmem_intern_add(&t, key, sizeof(key)) == i);
	}
	for (i = 0; i < 5000; i++) {
		memset(key, 0, sizeof(key));
		snprintf(key, sizeof(key), "key %u", i);
		TMEM_ASSERT(tmem_intern_add(&t, key, strlen(key)) >= 5000);
	}
	tmem_intern_fini(&t);
}

/* Costs of a long stall that is rare, and of many short ones. */
static void the_stall_of_a_group_is_divided_among_its_stacks(void)
{
	const uint32_t cut = PLACE_CUT, other = PLACE_UNKNOWN;
	struct tmem_fold_sums sums = { 0 };
	struct tmem_places places;
	struct tmem_names *names;
	struct tmem_fold fold;
	uint32_t group, silent, a, b;
	char *text;
	int i;

	TMEM_ASSERT(tmem_places_init(&places) == 0);
	tmem_fold_init(&fold);
	group = tmem_fold_group(&fold, "a;b\nc");
	silent = tmem_fold_group(&fold, "silent");
	a = tmem_fold_stack(&fold, group, &cut, 1);
	b = tmem_fold_stack(&fold, group, &other, 1);
	TMEM_ASSERT(tmem_fold_stack(&fold, group, &cut, 1) == a);
	for (i = 0; i < 4000; i++)
		tmem_fold_stall(&fold, group, 20000);
	for (i = 0; i < 30; i++)
		tmem_fold_sample(&fold, i % 3 ? a : b, 100, 20000, false);
	tmem_fold_stall(&fold, group, 50000000);
	tmem_fold_sample(&fold, b, 100, 50000000, false);
	/* One so long that nobody has a sample like it goes with the last. */
	tmem_fold_stall(&fold, group, 400000000);
	tmem_fold_stall(&fold, silent, 7000);
	names = tmem_names_find(&places);
	TMEM_ASSERT(names);
	text = tmem_fold_text(&fold, names, &sums);
	TMEM_ASSERT(text);
	fputs(text, stdout);
	TMEM_ASSERT(strcmp(text, "a:b?c;[cut] 53333\n"
				 "a:b?c;[unknown] 476667\n"
				 "silent;[no stack] 7\n") == 0);
	TMEM_ASSERT(sums.stall_us == 530007 && sums.stacks == 3 &&
		    sums.samples == 31);
	free(text);
	tmem_names_free(names);
	tmem_fold_fini(&fold);
	tmem_places_fini(&places);
}

/* A file that can't be read, and one that is no program. */
static void what_has_no_name_has_an_address(void)
{
	struct tmem_places places;
	struct tmem_names *names;
	uint32_t gone, text_file, at[2];
	char path[] = "/tmp/tmem-profile-XXXXXX", *text = NULL;
	int fd = mkstemp(path);
	size_t bytes;
	FILE *out;

	TMEM_ASSERT(fd >= 0 && write(fd, "no program", 10) == 10);
	unlink(path);
	TMEM_ASSERT(tmem_places_init(&places) == 0);
	gone = tmem_places_file(&places, "/nowhere/lib;x.so", -1);
	text_file = tmem_places_file(&places, "/tmp/text", fd);
	close(fd);
	TMEM_ASSERT(gone != text_file);
	at[0] = tmem_places_add(&places, gone, 0x123);
	at[1] = tmem_places_add(&places, text_file, 0x456);
	names = tmem_names_find(&places);
	TMEM_ASSERT(names);
	out = open_memstream(&text, &bytes);
	TMEM_ASSERT(out);
	tmem_names_write(names, at, 2, out);
	fclose(out);
	TMEM_ASSERT(strcmp(text, ";lib:x.so+0x123;text+0x456") == 0);
	free(text);
	tmem_names_free(names);
	tmem_places_fini(&places);
}

int main(void)
{
	an_entry_is_read_whole_or_not_at_all();
	a_stall_finds_its_sample_once();
	old_samples_make_room();
	equal_bytes_have_one_number();
	the_stall_of_a_group_is_divided_among_its_stacks();
	what_has_no_name_has_an_address();
	return 0;
}
