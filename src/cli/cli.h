/* SPDX-License-Identifier: MIT */
/* What the files of the tmem command share: exit codes and the one line. */
#ifndef TMEM_CLI_CLI_H
#define TMEM_CLI_CLI_H

enum {
	TMEM_EXIT_FAIL = 125,	/* tmem itself failed; nothing was started */
	TMEM_EXIT_NOEXEC = 126, /* found, but not executable: as a shell does */
	TMEM_EXIT_NOTFOUND = 127
};

/*
 * Prints "tmem: <message>" as one line on standard error and
 * returns `status`.  Control characters in the message become '?'.
 */
int tmem_cli_fail(int status, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* The same without an exit status: something the user should know. */
void tmem_cli_warn(const char *format, ...)
	__attribute__((format(printf, 1, 2)));

/* argv[0] is the command's name.  They return an exit status. */
int tmem_run_main(int argc, char **argv);
int tmem_core_main(int argc, char **argv);
int tmem_doctor_main(int argc, char **argv);
int tmem_bench_main(int argc, char **argv);
int tmem_estimate_main(int argc, char **argv);
int tmem_set_main(int argc, char **argv);
int tmem_top_main(int argc, char **argv);

#endif
