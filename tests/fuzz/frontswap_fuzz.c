/* SPDX-License-Identifier: MIT */
/*
 * Sequences of operations from bytes: the first byte picks the setting, each
 * 8 that follow are one operation of tests/lib/fsmodel.h.  The invariants are
 * walked after each step.
 *
 * Linked with -fsanitize=fuzzer, or with tests/fuzz/corpus.c, which
 * runs the files that it is given.
 */
#include "fsmodel.h"
#include "fstest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fsmodel_options o = {
		.store_limit_bytes = 1u << 20,
		.swap_pages = 24,
		.nr_offsets = 16,
		.faults = true,
		.check_every = 1,
	};
	struct fsmodel *m;

	if (size == 0 || size > 1 + 8 * 400)
		return 0;
	o.writethrough = data[0] & 1;
	o.exclusive = data[0] & 2;
	o.no_uring = data[0] & 4;
	m = fsmodel_open(&o);
	for (size_t i = 1; i + 8 <= size; i += 8) {
		struct fsmodel_op op;

		memcpy(&op, data + i, sizeof(op));
		fsmodel_step(m, &op);
	}
	fsmodel_close(m);
	return 0;
}
