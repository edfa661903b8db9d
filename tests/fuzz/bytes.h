/* SPDX-License-Identifier: MIT */
/* Numbers from a fuzzer's input, for a model that draws them. */
#ifndef FUZZ_BYTES_H
#define FUZZ_BYTES_H

#include <stddef.h>
#include <stdint.h>

struct bytes {
	const uint8_t *data;
	size_t size;
	size_t at; /* beyond `size`: all are used up */
};

static inline uint32_t draw(void *arg)
{
	struct bytes *b = arg;
	uint32_t number = 0;

	if (b->at + 2 <= b->size)
		number = b->data[b->at] | (uint32_t)b->data[b->at + 1] << 8;
	b->at += 2;
	return number;
}

#endif
