/* SPDX-License-Identifier: MIT */
/* The tmem command: finds the subcommand. */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	const char *text;
	int (*main)(int argc, char **argv);
} commands[] = {
	{ "run", "run a program in less memory than it needs", tmem_run_main },
	{ "top", "show the programs that run so", tmem_top_main },
	{ "set", "change the memory of one while it runs", tmem_set_main },
	{ "core", "rebuild evicted pages in a core dump", tmem_core_main },
	{ "doctor", "say what this kernel and this user may do",
	  tmem_doctor_main },
	{ "estimate", "say in how little memory a process would fit",
	  tmem_estimate_main },
	{ "bench", "measure what the store makes of pages", tmem_bench_main },
};

enum {
	NR_COMMANDS = sizeof(commands) / sizeof(*commands)
};

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

/*
 * A caller that closed one of these: what we open must not take its place.
 * The program gets it closed, as its caller meant it.
 */
static void occupy_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	const char *first = argc > 1 ? argv[1] : "";

	occupy_standard_descriptors();
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
