/* SPDX-License-Identifier: MIT */
/*
 * Fuzzes sequences of operations on the page store, beside an oracle, with
 * the walk over the invariants after each (lib/storemodel.h).
 *
 * Input: one byte that picks limit and options, then the numbers that the
 * operations draw, two bytes each.  The operations end with the bytes.
 */
#include "bytes.h"
#include "fstest.h"
#include "storemodel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = { data, size, 1 };
	uint64_t limit = TMEM_STORE_MIN_BYTES;
	struct storemodel_options o = { .draw = draw, .arg = &b };
	struct storemodel *m;
	unsigned steps;

	if (!size || size > 8192)
		return 0;
	storemodel_maps_arm(data[0] >> 6 ? data[0] >> 2 & 15 : 0, data[0] >> 7);
	o.limit_bytes = limit + (uint64_t)(data[0] & 3) * 64 * 1024;
	o.max_limit_bytes = o.limit_bytes + (uint64_t)(data[0] & 1) * (1 << 20);
	o.no_raw = data[0] >> 1 & 1;
	m = storemodel_open(&o);
	if (!m) {
		CHECK(storemodel_maps_struck() > 0);
		CHECK_EQ(storemodel_maps_bytes(), 0);
		return 0;
	}
	for (steps = 0; b.at < b.size; steps++) {
		storemodel_step(m);
		if (steps % 16 == 0)
			storemodel_check(m);
		else
			tmem_store_check(storemodel_store(m));
	}
	storemodel_check(m);
	storemodel_close(m);
	CHECK_EQ(storemodel_maps_bytes(), 0);
	return 0;
}
