/* SPDX-License-Identifier: MIT */
/*
 * /proc/PID/stat in one read; the name in it may hold anything, blanks and
 * parentheses too, so fields are counted from the last parenthesis.
 */
#include "cli/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Reads a small file whole, NUL-ended.  0 or -errno. */
static int read_file(const char *path, char *buf, size_t buf_bytes)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	while (len < buf_bytes - 1) {
		n = read(fd, buf + len, buf_bytes - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(fd);
	buf[len] = '\0';
	return len ? 0 : -ESRCH;
}

int tmem_proc_read(pid_t pid, struct tmem_proc *ret_proc)
{
	struct tmem_proc p = { .pid = pid };
	unsigned long long ticks[4], start_time, start_stack;
	char path[64], buf[1024], *open_at, *close_at;
	size_t len;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = read_file(path, buf, sizeof(buf));
	if (r < 0)
		return r;
	open_at = strchr(buf, '(');
	close_at = strrchr(buf, ')');
	if (!open_at || !close_at)
		return -EIO;
	len = (size_t)(close_at - open_at - 1);
	if (len >= sizeof(p.comm))
		len = sizeof(p.comm) - 1;
	memcpy(p.comm, open_at + 1, len);
	/* Fields 3, 4, 14 to 17, 22 and 28 of proc(5). */
	if (sscanf(close_at + 1,
		   " %c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu %llu %llu "
		   "%llu %*s %*s %*s %*s %llu %*s %*s %*s %*s %*s %llu",
		   &p.state, &p.ppid, &ticks[0], &ticks[1], &ticks[2],
		   &ticks[3], &start_time, &start_stack) != 8)
		return -EIO;
	p.cpu_ticks = ticks[0] + ticks[1] + ticks[2] + ticks[3];
	p.start_time = start_time;
	p.start_stack = start_stack;
	*ret_proc = p;
	return 0;
}

bool tmem_proc_is_alive(pid_t pid)
{
	struct tmem_proc p;

	return tmem_proc_read(pid, &p) == 0 && p.state != 'Z' && p.state != 'X';
}

bool tmem_proc_descends(pid_t pid, pid_t ancestor)
{
	struct tmem_proc p;
	int i;

	/* Bounded: parents may change while we walk. */
	for (i = 0; i < 4096 && pid > 0; i++) {
		if (pid == ancestor)
			return true;
		if (pid == 1 || tmem_proc_read(pid, &p) < 0)
			return false;
		pid = p.ppid;
	}
	return false;
}

static bool same_pid_namespace(pid_t a, const char *link)
{
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)a);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return strcmp(target, link) == 0;
}

/* The last number of the line "NSpid:": its pid in its own namespace. */
static pid_t innermost_pid(pid_t pid)
{
	char path[64], buf[4096], *line, *end;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (read_file(path, buf, sizeof(buf)) < 0)
		return 0;
	line = strstr(buf, "\nNSpid:");
	if (!line)
		return pid;
	line++;
	end = strchrnul(line, '\n');
	*end = '\0';
	return (pid_t)atoi(strrchr(line, '\t') ? strrchr(line, '\t') : "0");
}

struct translation {
	pid_t inner_pid;
	pid_t found;
	char link[64];
};

static bool match_inner(void *arg, const struct tmem_proc *proc)
{
	struct translation *t = arg;

	if (innermost_pid(proc->pid) != t->inner_pid ||
	    !same_pid_namespace(proc->pid, t->link))
		return true;
	t->found = proc->pid;
	return false;
}

pid_t tmem_proc_translate(pid_t inner_pid, pid_t sibling)
{
	struct translation t = { .inner_pid = inner_pid };
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", (int)sibling);
	n = readlink(path, t.link, sizeof(t.link) - 1);
	if (n < 0)
		return 0;
	t.link[n] = '\0';
	if (same_pid_namespace(getpid(), t.link))
		return inner_pid;
	tmem_proc_for_each(match_inner, &t);
	return t.found;
}

int tmem_proc_same_memory(pid_t a, pid_t b)
{
	long r;

	if (a == b)
		return 1;
	r = syscall(SYS_kcmp, a, b, KCMP_VM, 0, 0);
	return r < 0 ? -errno : r == 0;
}

uint64_t tmem_proc_memory_bytes(pid_t pid)
{
	static const char *const fields[] = { "\nPss_Anon:", "\nPss_Shmem:" };
	char path[64], buf[2048], *at;
	uint64_t kib = 0;
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	if (read_file(path, buf, sizeof(buf)) < 0)
		return 0;
	for (i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		at = strstr(buf, fields[i]);
		if (at)
			kib += strtoull(at + strlen(fields[i]), NULL, 10);
	}
	return kib << 10;
}

void tmem_proc_for_each(bool (*fn)(void *arg, const struct tmem_proc *proc),
			void *arg)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	struct tmem_proc p;

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		if (tmem_proc_read((pid_t)atoi(entry->d_name), &p) < 0)
			continue;
		if (!fn(arg, &p))
			break;
	}
	closedir(dir);
}
