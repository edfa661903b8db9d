/* SPDX-License-Identifier: MIT */
/* See procfs.h. */
#include "procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/sys.h"
#include "base/uffd.h"

enum {
	DIRENTS = 2048
};

uint64_t tmem_procfs_decimal(const char **text)
{
	uint64_t n = 0;

	for (; **text >= '0' && **text <= '9'; ++*text)
		n = n * 10 + (uint64_t)(**text - '0');
	return n;
}

uint64_t tmem_procfs_hex(const char **text)
{
	uint64_t n = 0;

	for (;; ++*text) {
		char c = **text;

		if (c >= '0' && c <= '9')
			n = n * 16 + (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			n = n * 16 + (uint64_t)(c - 'a') + 10;
		else
			return n;
	}
}

void tmem_procfs_path(char *out, const char *prefix, uint64_t nr,
		      const char *suffix)
{
	char digits[20];
	int n = 0;

	while (*prefix)
		*out++ = *prefix++;
	do {
		digits[n++] = (char)('0' + nr % 10);
		nr /= 10;
	} while (nr);
	while (n)
		*out++ = digits[--n];
	while (*suffix)
		*out++ = *suffix++;
	*out = 0;
}

int tmem_procfs_statm(int fd, uint64_t *ret_rss, uint64_t *ret_file_shmem)
{
	char text[128];
	const char *p = text;
	long n = tmem_sys(SYS_pread64, fd, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return n < 0 ? (int)n : -ENODATA;
	text[n] = 0;
	tmem_procfs_decimal(&p);
	p += *p == ' ';
	*ret_rss = tmem_procfs_decimal(&p);
	p += *p == ' ';
	*ret_file_shmem = tmem_procfs_decimal(&p);
	return 0;
}

/* Calls see(arg, line) for each line of a file, until it returns true. */
static void each_line(const char *path, char *buffer, size_t room,
		      bool (*see)(void *arg, const char *line), void *arg)
{
	long fd = tmem_sys(SYS_open, path, O_RDONLY | O_CLOEXEC, 0);
	long have = 0, n;
	bool done = false;

	while (fd >= 0 && !done &&
	       (n = tmem_sys(SYS_read, fd, buffer + have,
			     room - 1 - (size_t)have)) > 0) {
		char *line = buffer, *nl;

		have += n;
		buffer[have] = 0;
		for (; !done && (nl = strchr(line, '\n')); line = nl + 1) {
			*nl = 0;
			done = see(arg, line);
		}
		have = buffer + have - line;
		memmove(buffer, line, (size_t)have);
	}
	if (fd >= 0)
		tmem_sys_close((int)fd);
}

/* "start-end ..." at the start of a line. */
static bool parse_range(const char *line, struct tmem_range *ret_range)
{
	const char *p = line;

	ret_range->start = tmem_procfs_hex(&p);
	if (p == line || *p != '-')
		return false;
	p++;
	ret_range->end = tmem_procfs_hex(&p);
	return true;
}

struct watched {
	struct tmem_range asked;
	struct tmem_range mapping; /* whose lines follow */
	struct tmem_range *there;
	unsigned nr;
};

static bool see_watched(void *arg, const char *line)
{
	struct watched *w = arg;
	struct tmem_range r;

	if (parse_range(line, &r)) {
		w->mapping = r;
		return r.start >= w->asked.end;
	}
	if (strncmp(line, "VmFlags:", 8) != 0 || !strstr(line, " um"))
		return false;
	r = w->mapping;
	if (r.start < w->asked.start)
		r.start = w->asked.start;
	if (r.end > w->asked.end)
		r.end = w->asked.end;
	if (r.start < r.end)
		w->there[w->nr++] = r;
	return w->nr == PROCFS_WATCHED;
}

unsigned tmem_procfs_watched(uint64_t start, uint64_t end, char *buffer,
			     size_t room,
			     struct tmem_range ret_there[PROCFS_WATCHED])
{
	struct watched w = { .asked = { start, end }, .there = ret_there };

	each_line("/proc/self/smaps", buffer, room, see_watched, &w);
	return w.nr;
}

static bool see_mapping_of(void *arg, const char *line)
{
	struct tmem_range *asked = arg, r;

	if (!parse_range(line, &r) || asked->start >= r.end)
		return false;
	asked->end = asked->start >= r.start ? r.end : 0;
	return true;
}

uint64_t tmem_procfs_mapping_end(int maps_fd, uint64_t addr, char *buffer,
				 size_t room)
{
	struct procmap_query q = { .size = sizeof(q), .query_addr = addr };
	struct tmem_range r = { addr, 0 };

	if (maps_fd >= 0)
		return tmem_sys(SYS_ioctl, maps_fd, PROCMAP_QUERY, &q) < 0
			       ? 0
			       : q.vma_end;
	each_line("/proc/self/maps", buffer, room, see_mapping_of, &r);
	return r.end;
}

bool tmem_procfs_is_mapped(int maps_fd, uint64_t start, uint64_t end)
{
	struct procmap_query q = {
		.size = sizeof(q),
		.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
		.query_addr = start,
	};

	if (maps_fd < 0)
		return true;
	return tmem_sys(SYS_ioctl, maps_fd, PROCMAP_QUERY, &q) == 0 &&
	       q.vma_start < end;
}

static long read_file(const char *path, char *text, size_t room)
{
	long fd = tmem_sys(SYS_open, path, O_RDONLY | O_CLOEXEC, 0);
	long n, total = 0;

	if (fd < 0)
		return fd;
	do {
		n = tmem_sys(SYS_read, fd, text + total,
			     room - 1 - (size_t)total);
		if (n > 0)
			total += n;
	} while (n > 0 && (size_t)total < room - 1);
	tmem_sys_close((int)fd);
	text[total] = 0;
	return n < 0 ? n : total;
}

static const char *find(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (; *text; text++)
		if (memcmp(text, key, len) == 0)
			return text + len;
	return NULL;
}

/* A value of "key   N" in text whose end is NUL-padded by the key's length. */
static int value_in(const char *text, const char *key, uint64_t *ret_value)
{
	const char *p = find(text, key);

	if (!p)
		return -ENOENT;
	while (*p == ' ' || *p == '\t')
		p++;
	*ret_value = tmem_procfs_decimal(&p);
	return 0;
}

int tmem_procfs_value(const char *path, const char *key, uint64_t *ret_value)
{
	char text[4096 + 64];
	long n = read_file(path, text, 4096);

	if (n < 0)
		return (int)n;
	memset(text + n, 0, 64);
	return value_in(text, key, ret_value);
}

struct dirent64 {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

bool tmem_procfs_tasks(int pid, tmem_procfs_task_fn *fn, void *arg)
{
	char path[64];
	uint64_t buffer[DIRENTS / 8];
	bool found = false;
	long fd, n, at;

	tmem_procfs_path(path, "/proc/", (uint64_t)pid, "/task");
	fd = tmem_sys(SYS_open, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	while (!found &&
	       (n = tmem_sys(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
		for (at = 0; at < n && !found;) {
			const struct dirent64 *d =
				(const void *)((const char *)buffer + at);
			const char *name = d->name;
			int tid = (int)tmem_procfs_decimal(&name);

			found = tid && fn(arg, tid);
			at += d->reclen;
		}
	}
	tmem_sys_close((int)fd);
	return found;
}

int tmem_procfs_syscall(int pid, int tid, uint64_t nr, uint64_t ret_args[6])
{
	char base[64], path[96], text[256];
	const char *p = text;
	unsigned i;
	long n;

	tmem_procfs_path(base, "/proc/", (uint64_t)pid, "/task/");
	tmem_procfs_path(path, base, (uint64_t)tid, "/syscall");
	n = read_file(path, text, sizeof(text));
	if (n <= 0)
		return n < 0 ? (int)n : -ENOENT;
	if (*p == 'r') /* running */
		return -EAGAIN;
	if (*p < '0' || *p > '9' || tmem_procfs_decimal(&p) != nr)
		return -ENOENT;
	for (i = 0; i < 6; i++) {
		if (memcmp(p, " 0x", 3) != 0)
			return -ENOENT;
		p += 3;
		ret_args[i] = tmem_procfs_hex(&p);
	}
	return 0;
}

bool tmem_procfs_linux(unsigned major, unsigned minor)
{
	struct utsname name;
	const char *p = name.release;
	uint64_t is;

	if (tmem_sys(SYS_uname, &name) < 0)
		return false;
	is = tmem_procfs_decimal(&p);
	p += *p == '.';
	return is > major || (is == major && tmem_procfs_decimal(&p) >= minor);
}

unsigned tmem_procfs_runnable(void)
{
	char text[128];
	const char *p = text;

	/* Three averages, then "runnable/all". */
	if (read_file("/proc/loadavg", text, sizeof(text)) <= 0)
		return 0;
	for (unsigned i = 0; i < 3; i++) {
		while (*p && *p != ' ')
			p++;
		p += *p == ' ';
	}
	return (unsigned)tmem_procfs_decimal(&p);
}

uint64_t tmem_procfs_mapped_pages(int pid)
{
	char path[64], text[128];
	const char *p = text;
	long n;

	tmem_procfs_path(path, "/proc/", (uint64_t)pid, "/statm");
	n = read_file(path, text, sizeof(text));
	return n <= 0 ? 0 : tmem_procfs_decimal(&p);
}

uint64_t tmem_procfs_stat(int pid, int field)
{
	char path[64], text[1024 + 64];
	const char *p;
	long n;
	int at;

	tmem_procfs_path(path, "/proc/", (uint64_t)pid, "/stat");
	n = read_file(path, text, 1024);
	if (n <= 0)
		return 0;
	for (p = text + n; p > text && *p != ')'; p--)
		;
	/* The name, field 2, may hold anything. */
	for (at = 2; *p && at < field; p++)
		at += *p == ' ';
	return tmem_procfs_decimal(&p);
}

int tmem_procfs_shares(int64_t *ret_anon_less, uint64_t *ret_shmem)
{
	char text[4096 + 64];
	uint64_t anon, mapped, shmem;
	long n = read_file("/proc/self/smaps_rollup", text, 4096);

	if (n < 0)
		return (int)n;
	memset(text + n, 0, 64);
	if (value_in(text, "Pss_Anon:", &anon) != 0 ||
	    value_in(text, "\nAnonymous:", &mapped) != 0 ||
	    value_in(text, "Pss_Shmem:", &shmem) != 0)
		return -ENOENT;
	*ret_anon_less = ((int64_t)mapped - (int64_t)anon) / 4;
	*ret_shmem = shmem / 4;
	return 0;
}

int tmem_procfs_shmem_pages(uint64_t *ret_pages)
{
	uint64_t kib;
	int r = tmem_procfs_value("/proc/self/status", "RssShmem:", &kib);

	if (r == 0)
		*ret_pages = kib / 4;
	return r;
}
