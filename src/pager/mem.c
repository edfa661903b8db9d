/* SPDX-License-Identifier: MIT */
/*
 * memcpy, memmove, memset and memcmp of the pager's own, hidden: the linker
 * binds the codecs and everything else in this library to them.
 *
 * libc's pick their code by CPU and read thresholds from libc's data, which
 * is anonymous memory in part and could be evicted; and a program may bring
 * functions of its own by these names.
 */
#include <stddef.h>
#include <stdint.h>

/* A loop here must not become a call of the function that it is in. */
#ifdef __clang__
#define LITERALLY __attribute__((no_builtin))
#else
#define LITERALLY __attribute__((optimize("no-tree-loop-distribute-patterns")))
#endif

typedef uint64_t word __attribute__((may_alias, aligned(1)));

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

enum {
	REP_BYTES = 512,
	BLOCK = 32
};

/* 1 to 16 bytes, both ends at once: they may overlap each other. */
LITERALLY static void copy_short(char *t, const char *f, size_t n)
{
	if (n >= 8) {
		word a = *(const word *)f, b = *(const word *)(f + n - 8);

		*(word *)t = a;
		*(word *)(t + n - 8) = b;
		return;
	}
	while (n--)
		*t++ = *f++;
}

LITERALLY void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	char *t = to;
	const char *f = from;

	if (n >= REP_BYTES) {
		__asm__ volatile("rep movsb"
				 : "+D"(t), "+S"(f), "+c"(n)
				 :
				 : "memory");
		return to;
	}
	for (; n > 16; n -= 16, t += 16, f += 16) {
		word a = *(const word *)f, b = *(const word *)(f + 8);

		*(word *)t = a;
		*(word *)(t + 8) = b;
	}
	copy_short(t, f, n);
	return to;
}

LITERALLY void *memmove(void *to, const void *from, size_t n)
{
	char *t = to;
	const char *f = from;

	if ((uintptr_t)t - (uintptr_t)f >= n)
		return memcpy(to, from, n);
	while (n >= 8) {
		n -= 8;
		*(word *)(t + n) = *(const word *)(f + n);
	}
	while (n--)
		t[n] = f[n];
	return to;
}

LITERALLY void *memset(void *to, int byte, size_t n)
{
	char *t = to;

	__asm__ volatile("rep stosb" : "+D"(t), "+c"(n) : "a"(byte) : "memory");
	return to;
}

LITERALLY int memcmp(const void *a, const void *b, size_t n)
{
	const unsigned char *x = a, *y = b;

	while (n >= BLOCK) {
		const word *p = (const word *)x, *q = (const word *)y;

		if ((p[0] ^ q[0]) | (p[1] ^ q[1]) | (p[2] ^ q[2]) |
		    (p[3] ^ q[3]))
			break;
		x += BLOCK;
		y += BLOCK;
		n -= BLOCK;
	}
	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}
