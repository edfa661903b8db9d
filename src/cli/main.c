/* SPDX-License-Identifier: MIT */
/* The tmem command: finds the subcommand. */
#include "cli/cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	const char *text;
	int (*main)(int argc, char **argv);
} commands[] = {
	{ "run", "run a program in less memory than it needs", tmem_run_main },
	{ "doctor", "say what this kernel and this user may do",
	  tmem_doctor_main },
};

enum {
	NR_COMMANDS = sizeof(commands) / sizeof(*commands)
};

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

static int print_help(void)
{
	int i;

	puts("Usage: tmem COMMAND [ARGUMENT...]\n"
	     "\n"
	     "Transcendent memory in user space: programs run in less memory "
	     "than they need.\n"
	     "\n"
	     "Commands:");
	for (i = 0; i < NR_COMMANDS; i++)
		printf("  %-8s %s\n", commands[i].name, commands[i].text);
	puts("  help     explain a command\n"
	     "\n"
	     "Options:\n"
	     "  -h, --help     Show this help.\n"
	     "  --version      Show the version.\n"
	     "\n"
	     "Begin with:\n"
	     "  tmem doctor\n"
	     "  tmem run -m 512M -- python3 job.py\n"
	     "\n"
	     "See tmem(7).");
	return 0;
}

static int run_command(int argc, char **argv)
{
	int i;

	for (i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(commands[i].name, argv[0]))
			return commands[i].main(argc, argv);
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "%s: unknown command; `tmem --help' lists them",
			     argv[0]);
}

static int help(int argc, char **argv)
{
	char option[] = "--help";
	char *args[3] = { NULL, option, NULL };

	if (argc < 2)
		return print_help();
	args[0] = argv[1];
	return run_command(2, args);
}

int main(int argc, char **argv)
{
	const char *first = argc > 1 ? argv[1] : "";

	if (argc < 2)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "no command; `tmem --help' lists them");
	if (!strcmp(first, "--help") || !strcmp(first, "-h"))
		return print_help();
	if (!strcmp(first, "--version")) {
		puts("tmem " TMEM_VERSION);
		return 0;
	}
	if (!strcmp(first, "help"))
		return help(argc - 1, argv + 1);
	return run_command(argc - 1, argv + 1);
}
