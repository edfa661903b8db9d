/* SPDX-License-Identifier: MIT */
/*
 * A program that exports functions under the names that a pager's libraries
 * use.  They abort: a pager that calls the program's own codec is caught.
 */
#include "torture.h"

#include <stdlib.h>

#define TRAP(name)                                                   \
	__attribute__((visibility("default"))) void name(void);      \
	void name(void)                                              \
	{                                                            \
		tt_fail("somebody called the program's own " #name); \
	}

TRAP(LZ4_compress_default)
TRAP(LZ4_compress_fast)
TRAP(LZ4_compress_fast_extState)
TRAP(LZ4_compress_fast_extState_fastReset)
TRAP(LZ4_compressBound)
TRAP(LZ4_initStream)
TRAP(LZ4_sizeofState)
TRAP(LZ4_decompress_safe)
TRAP(LZ4_decompress_fast)
TRAP(LZ4_compress_fast_continue)
TRAP(LZ4_decompress_safe_usingDict)
TRAP(ZSTD_compressCCtx)
TRAP(ZSTD_decompressDCtx)
TRAP(ZSTD_initStaticCCtx)
TRAP(ZSTD_initStaticDCtx)
TRAP(ZSTD_CCtx_refCDict)
TRAP(ZSTD_compress2)
TRAP(ZSTD_decompress_usingDDict)
TRAP(ZSTD_trace_compress_begin)
TRAP(ZSTD_trace_decompress_begin)
TRAP(XXH3_64bits)
TRAP(XXH3_64bits_withSeed)
TRAP(XXH3_128bits)
TRAP(XXH64)
TRAP(XXH32)
TRAP(io_uring_queue_init)
TRAP(io_uring_submit)
TRAP(tmem_store_create)
TRAP(tmem_pool_store)

static void symbols(void)
{
	uint64_t rng = tt_rand_start(1);
	struct tt_region region;
	pid_t pid;

	tt_pressure_init(60);
	tt_region_map(&region, tt_pages(30), 1);
	tt_region_fill(&region);
	tt_region_work(&region, &rng, region.nr_pages, 2);
	tt_pressure();
	pid = tt_fork();
	tt_region_verify_shuffled(&region);
	if (!pid)
		exit(0);
	tt_wait(pid);
	tt_region_unmap(&region);
}

int main(int argc, char **argv)
{
	static const struct tt_case cases[] = { { "symbols", symbols },
						{ NULL } };

	tt_main(argc, argv, 192, cases);
}
