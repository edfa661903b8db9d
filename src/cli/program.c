/* SPDX-License-Identifier: MIT */
/*
 * Everything that can be wrong with a program is found before anything is
 * started, by the rules of execvp(3): a name with a slash is a path, others
 * are looked up in PATH, and a file that may not be executed is passed over
 * but remembered, so that the answer is "not executable" (126) rather than
 * "not found" (127).
 */
#include "cli/program.h"

#include "cli/cli.h"
#include "wire/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGER_NAME "libtmem-pager.so"

/* Executable and what may be executed?  Else denied or missing. */
static enum tmem_exe_kind look(const char *path)
{
	enum tmem_exe_kind kind = tmem_exe_classify(path);

	/* A script whose interpreter is missing is still found. */
	if (kind == TMEM_EXE_MISSING)
		return access(path, F_OK) == 0 ? TMEM_EXE_OK : kind;
	return kind == TMEM_EXE_DENIED ? kind : TMEM_EXE_OK;
}

static enum tmem_exe_kind find_in_path(const char *name, char *ret_path)
{
	const char *dirs = getenv("PATH");
	enum tmem_exe_kind result = TMEM_EXE_MISSING;
	char path[PATH_MAX];
	int dir_len, n;

	for (dirs = dirs ? dirs : "/bin:/usr/bin";; dirs++) {
		dir_len = (int)strcspn(dirs, ":");
		/* An empty element is the current directory. */
		n = snprintf(path, sizeof(path), "%.*s%s%s", dir_len, dirs,
			     dir_len ? "/" : "./", name);
		if (n < (int)sizeof(path)) {
			switch (look(path)) {
			case TMEM_EXE_OK:
				memcpy(ret_path, path, (size_t)n + 1);
				return TMEM_EXE_OK;
			case TMEM_EXE_DENIED:
				result = TMEM_EXE_DENIED;
				break;
			default:
				break;
			}
		}
		dirs += dir_len;
		if (!*dirs)
			return result;
	}
}

enum tmem_exe_kind tmem_program_find(const char *name, char *ret_path)
{
	enum tmem_exe_kind kind;

	if (!*name || strlen(name) >= PATH_MAX)
		return TMEM_EXE_MISSING;
	if (!strchr(name, '/'))
		return find_in_path(name, ret_path);
	kind = look(name);
	if (kind == TMEM_EXE_OK)
		memcpy(ret_path, name, strlen(name) + 1);
	return kind;
}

static bool looks_like_text(const char *path)
{
	char buf[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	if (fd >= 0)
		close(fd);
	return n == 0 || (n > 0 && !memchr(buf, '\0', (size_t)n) &&
			  memcmp(buf, "#!", n < 2 ? (size_t)n : 2) != 0);
}

enum tmem_exe_kind tmem_program_classify(const char *path)
{
	enum tmem_exe_kind kind = tmem_exe_classify(path);

	if (kind == TMEM_EXE_FORMAT && looks_like_text(path))
		return tmem_exe_classify("/bin/sh");
	return kind;
}

const char *tmem_program_remedy(enum tmem_exe_kind kind)
{
	switch (kind) {
	case TMEM_EXE_OK:
		return "";
	case TMEM_EXE_STATIC:
		return "use a dynamically linked build, or run it without tmem";
	case TMEM_EXE_SETUID:
		return "run a copy without these rights, or run it without "
		       "tmem";
	case TMEM_EXE_MUSL:
		return "use a build for glibc, or run it without tmem";
	case TMEM_EXE_LOADER:
	case TMEM_EXE_MACHINE:
		return "use a build for x86-64 and glibc, or run it without "
		       "tmem";
	case TMEM_EXE_FORMAT:
		return "name a program, or begin the script with #!/bin/sh";
	case TMEM_EXE_DENIED:
		return "name a file that you may execute (chmod +x)";
	case TMEM_EXE_MISSING:
		return "check the name, the PATH and the script's #! line";
	}
	return "";
}

int tmem_program_check(const char *name)
{
	char path[PATH_MAX] = "";
	enum tmem_exe_kind kind = tmem_program_find(name, path);
	int status = TMEM_EXIT_FAIL;

	if (kind == TMEM_EXE_OK)
		kind = tmem_program_classify(path);
	if (kind == TMEM_EXE_OK)
		return 0;
	if (kind == TMEM_EXE_MISSING)
		status = TMEM_EXIT_NOTFOUND;
	else if (kind == TMEM_EXE_DENIED || kind == TMEM_EXE_FORMAT)
		status = TMEM_EXIT_NOEXEC;
	return tmem_cli_fail(status, "%s: %s%s; %s", name,
			     tmem_exe_kind_text(kind),
			     status == TMEM_EXIT_FAIL ? ", so no pager can be "
							"loaded into it"
						      : "",
			     tmem_program_remedy(kind));
}

int tmem_program_find_pager(char *ret_path)
{
	char self[PATH_MAX - sizeof(PAGER_NAME) - 1];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	snprintf(ret_path, PATH_MAX, "%s/%s", self, PAGER_NAME);
	if (!slash || access(ret_path, R_OK) != 0)
		snprintf(ret_path, PATH_MAX, "%s/%s", TMEM_PAGER_DIR,
			 PAGER_NAME);
	if (access(ret_path, R_OK) != 0)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: not found beside tmem nor in %s; "
				     "install tmem whole",
				     PAGER_NAME, TMEM_PAGER_DIR);
	if (strpbrk(ret_path, " :\t\n"))
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: LD_PRELOAD cannot hold a path with "
				     "blanks or colons; move it",
				     ret_path);
	return 0;
}

int tmem_program_set_environment(const char *pager_path, const char *tree_name)
{
	const char *old = getenv("LD_PRELOAD");
	char *value = NULL;
	int r = 0;

	if (asprintf(&value, "%s%s%s", pager_path, old && *old ? ":" : "",
		     old ? old : "") < 0)
		return -ENOMEM;
	if (setenv("LD_PRELOAD", value, 1) < 0 ||
	    setenv(TMEM_TREE_ENV, tree_name, 1) < 0)
		r = -errno;
	free(value);
	return r;
}
