/* SPDX-License-Identifier: MIT */
/*
 * Heaps.
 *
 *   brk     the break grows, shrinks and grows again: what was given back
 *           reads zero
 *   malloc  several threads allocate, verify and free blocks of all sizes,
 *           also each other's
 *   calloc  zeroed blocks really are zeroed, also when memory is reused
 *   trim    malloc_trim gives memory back between phases
 */
#include "torture.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	NR_THREADS = 4,
	NR_SLOTS = 2048
};

static void brk_case(void)
{
	size_t step = tt_pages(5), n = 0;
	uint64_t rng = tt_rand_start(1);
	struct tt_region region;
	unsigned char *start = sbrk(0);

	start += (TT_PAGE - (uintptr_t)start % TT_PAGE) % TT_PAGE;
	TT_SYS(brk(start));
	tt_pressure_init(60);
	tt_region_over(&region, start, tt_pages(35), 1);
	region.nr_pages = 0;
	for (unsigned i = 0; i < 24; i++) {
		bool shrinks = i % 4 == 3 && n > 2;

		n += shrinks ? -2 : n < 6 ? 1 : 0;
		if (brk(start + n * step * TT_PAGE))
			tt_fail("brk: somebody mapped memory above the heap");
		if (shrinks)
			tt_region_dropped(&region, n * step, 2 * step);
		region.nr_pages = n * step;
		tt_region_work(&region, &rng, step, 2);
		if (i % 6 == 5)
			tt_pressure();
		tt_region_verify_shuffled(&region);
	}
	TT_SYS(brk(start));
}

struct block {
	unsigned char *start;
	uint32_t bytes;
	uint8_t tag;
};

struct slot {
	pthread_mutex_t lock;
	struct block block;
};

static struct slot *slots;
static size_t largest;

static void check_block(const struct block *b)
{
	unsigned char expected[256];

	for (size_t at = 0; at < b->bytes; at += sizeof(expected)) {
		size_t n = b->bytes - at;

		if (n > sizeof(expected))
			n = sizeof(expected);
		memset(expected, (int)(uint8_t)(b->tag + at / 256), n);
		tt_same(b->start + at, expected, n, "malloc block");
	}
}

static void make_block(struct block *b, uint64_t dice)
{
	/* Mostly small, some of several pages, a few large. */
	size_t most = dice % 16 ? dice % 4 ? 300 : 3 * TT_PAGE : largest;

	b->bytes = (uint32_t)(1 + (dice >> 20) % most);
	b->tag = (uint8_t)(dice >> 8);
	b->start = malloc(b->bytes);
	TT_ASSERT(b->start);
	for (size_t at = 0; at < b->bytes; at += 256)
		memset(b->start + at, (int)(uint8_t)(b->tag + at / 256),
		       b->bytes - at < 256 ? b->bytes - at : 256);
}

static void *malloc_thread(void *argument)
{
	uint64_t rng = tt_rand_start(50 + (uintptr_t)argument);

	for (size_t i = 0; i < tt_mib * 64; i++) {
		uint64_t dice = tt_rand(&rng);
		struct slot *s = &slots[(dice >> 48) % NR_SLOTS];

		pthread_mutex_lock(&s->lock);
		if (s->block.start) {
			check_block(&s->block);
			free(s->block.start);
			s->block.start = NULL;
		}
		if (dice % 5)
			make_block(&s->block, dice / 5);
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

static void empty_slots(void)
{
	for (unsigned i = 0; i < NR_SLOTS; i++) {
		if (!slots[i].block.start)
			continue;
		check_block(&slots[i].block);
		free(slots[i].block.start);
	}
	free(slots);
}

static void make_slots(void)
{
	slots = calloc(NR_SLOTS, sizeof(*slots));
	TT_ASSERT(slots);
	for (unsigned i = 0; i < NR_SLOTS; i++)
		TT_ZERO(pthread_mutex_init(&slots[i].lock, NULL));
	/* One block in 20 is large: together most of what may be used. */
	largest = tt_pages(90) * TT_PAGE / (NR_SLOTS / 20) * 2;
}

static void malloc_case(void)
{
	pthread_t thread[NR_THREADS];

	make_slots();
	for (uintptr_t i = 0; i < NR_THREADS; i++)
		thread[i] = tt_thread(malloc_thread, tt_argument(i));
	for (unsigned i = 0; i < NR_THREADS; i++)
		tt_join(thread[i]);
	empty_slots();
}

static void calloc_case(void)
{
	enum {
		NR = 64
	};
	unsigned char *block[NR] = { 0 };
	size_t bytes[NR] = { 0 };
	uint64_t rng = tt_rand_start(3);

	for (unsigned i = 0; i < 1500; i++) {
		uint64_t dice = tt_rand(&rng);
		unsigned k = (dice >> 40) % NR;
		size_t most = dice % 3 ? 2 * tt_pages(90) * TT_PAGE / NR : 9000;

		free(block[k]);
		bytes[k] = 1 + (dice >> 8) % most;
		block[k] = calloc(1, bytes[k]);
		TT_ASSERT(block[k]);
		tt_check_zero(block[k], bytes[k], "calloc");
		memset(block[k], (int)(1 + k), bytes[k]);
	}
	for (unsigned k = 0; k < NR; k++) {
		for (size_t at = 0; at < bytes[k]; at++)
			if (block[k][at] != 1 + k)
				tt_fail("WRONG BYTE at %p: expected 0x%02x, "
					"got 0x%02x",
					(void *)&block[k][at], 1 + k,
					block[k][at]);
		free(block[k]);
	}
}

static void trim(void)
{
	for (unsigned round = 0; round < 3; round++) {
		make_slots();
		malloc_thread(tt_argument(10 + round));
		malloc_trim(0);
		malloc_thread(tt_argument(20 + round));
		empty_slots();
		malloc_trim(0);
	}
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "brk", brk_case },
						{ "malloc", malloc_case },
						{ "calloc", calloc_case },
						{ "trim", trim },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
