/* SPDX-License-Identifier: MIT */
/*
 * What zstd would take from its surroundings, in the two shared libraries.
 *
 * libzstd.a names malloc, calloc and free, for contexts that it makes itself
 * and for frames of before 2016.  Ours lie in memory that we give it, and our
 * frames begin with bytes that no old frame begins with (zstdpage.h): so it
 * never calls them.  These, hidden, are what the linker binds it to, so that
 * a mistake can't reach the program's: it is an answer, "out of memory".
 * tools/check-symbols sees to it that no other name of the kind is left.
 *
 * The tracing functions it calls if anybody has them: a program that has must
 * not be called by our zstd.
 */
#include <stddef.h>

#include "base/assert.h"

void *malloc(size_t bytes);
void *calloc(size_t nr, size_t bytes);
void free(void *memory);
unsigned long long ZSTD_trace_compress_begin(const void *context);
void ZSTD_trace_compress_end(unsigned long long trace, const void *report);
unsigned long long ZSTD_trace_decompress_begin(const void *context);
void ZSTD_trace_decompress_end(unsigned long long trace, const void *report);

void *malloc(size_t bytes)
{
	(void)bytes;
	return NULL;
}

void *calloc(size_t nr, size_t bytes)
{
	(void)nr;
	(void)bytes;
	return NULL;
}

void free(void *memory)
{
	TMEM_ASSERT(!memory);
}

unsigned long long ZSTD_trace_compress_begin(const void *context)
{
	(void)context;
	return 0;
}

void ZSTD_trace_compress_end(unsigned long long trace, const void *report)
{
	(void)trace;
	(void)report;
}

unsigned long long ZSTD_trace_decompress_begin(const void *context)
{
	(void)context;
	return 0;
}

void ZSTD_trace_decompress_end(unsigned long long trace, const void *report)
{
	(void)trace;
	(void)report;
}
