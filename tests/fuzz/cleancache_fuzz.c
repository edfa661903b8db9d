/* SPDX-License-Identifier: MIT */
/*
 * Sequences of operations on cleancache from bytes, beside an oracle, with
 * the invariants after each step (tests/lib/ccmodel.h).
 *
 * Input: one byte that picks limit and faults, then the numbers that the
 * operations draw, two bytes each.  The operations end with the bytes.
 */
#include "ccmodel.h"
#include "fstest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
	const uint8_t *data;
	size_t size;
	size_t at;
};

static uint32_t draw(void *arg)
{
	struct bytes *b = arg;
	uint32_t number = 0;

	if (b->at + 2 <= b->size)
		number = b->data[b->at] | (uint32_t)b->data[b->at + 1] << 8;
	b->at += 2;
	return number;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = { data, size, 1 };
	struct ccmodel_options o = { .draw = draw, .arg = &b };
	struct ccmodel *m;

	if (size == 0 || size > 8192)
		return 0;
	o.limit_bytes = (1u << 20) + (uint64_t)(data[0] >> 1 & 3) * (128 << 10);
	o.faults = o.strikes = data[0] & 1;
	m = ccmodel_open(&o);
	CHECK(m != NULL);
	for (unsigned steps = 0; b.at < b.size; steps++) {
		ccmodel_step(m);
		if (steps % 8 == 0)
			ccmodel_check(m);
	}
	ccmodel_close(m);
	return 0;
}
