/* SPDX-License-Identifier: MIT */
/*
 * What a failed assert does: builds its line on the stack, tells the hook,
 * writes it and traps.  The trap is a fault, so it ends even a process that
 * blocks every signal.
 */
#include "assert.h"

#include <stddef.h>
#include <stdint.h>

#include "sys.h"

enum {
	LINE_BYTES = 256
};

void (*tmem_assert_hook)(const char *line);

static size_t append(char *line, size_t len, const char *text)
{
	while (*text && len < LINE_BYTES - 2)
		line[len++] = *text++;
	return len;
}

static size_t append_number(char *line, size_t len, int number)
{
	char digits[12];
	unsigned n = number < 0 ? 0 : (unsigned)number;
	size_t i = sizeof(digits);

	digits[--i] = '\0';
	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	return append(line, len, &digits[i]);
}

_Noreturn void tmem_assert_fail(const char *what, const char *file, int line)
{
	char text[LINE_BYTES];
	size_t len = 0;

	len = append(text, len, "tmem: ");
	len = append(text, len, file);
	len = append(text, len, ":");
	len = append_number(text, len, line);
	len = append(text, len, ": failed: ");
	len = append(text, len, what);
	text[len] = '\0';
	if (tmem_assert_hook)
		tmem_assert_hook(text);
	text[len++] = '\n';
	tmem_sys(SYS_write, 2, text, len);
	__builtin_trap();
}
