/* SPDX-License-Identifier: MIT */
/*
 * Sequences of operations on cleancache from bytes, beside an oracle, with
 * the invariants after each step (tests/lib/ccmodel.h).
 *
 * Input: one byte that picks limit and faults, then the numbers that the
 * operations draw, two bytes each.  The operations end with the bytes.
 */
#include "bytes.h"
#include "ccmodel.h"
#include "fstest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
