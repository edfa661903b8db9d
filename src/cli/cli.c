/* SPDX-License-Identifier: MIT */
/* The one line that says what is wrong and what to do. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* One write, so that lines of several processes do not mix. */
static void print_line(const char *format, va_list args)
{
	char line[4096];
	int n, i, start;

	start = snprintf(line, sizeof(line), "tmem: ");
	n = vsnprintf(line + start, sizeof(line) - (size_t)start - 1, format,
		      args);
	n = n < 0 ? start : n + start;
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	for (i = 0; i < n; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	/* There is nowhere to report a failure to. */
	if (write(STDERR_FILENO, line, (size_t)n) != n)
		return;
}

int tmem_cli_fail(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_line(format, args);
	va_end(args);
	return status;
}

void tmem_cli_warn(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_line(format, args);
	va_end(args);
}
