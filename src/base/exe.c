/* SPDX-License-Identifier: MIT */
/*
 * Reads what the kernel would read to start a program: mode bits and the
 * capability attribute, the ELF header and its PT_INTERP, or the #! line, in
 * which case the interpreter is what counts (the kernel ignores the set-ID
 * bits of scripts).  Everything goes through one small buffer, reused from
 * script to interpreter, so that the stack stays small.
 *
 * The set-ID bits count even where they would change nothing for this caller
 * (root and a set-user-ID-root file): a simple rule that can be looked up.
 */
#include "base/exe.h"

#include "base/sys.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	LINE_BYTES = 256, /* the kernel's BINPRM_BUF_SIZE */
	MAX_SCRIPTS = 4,
	MAX_HEADERS = 64,
	MAX_CAPS = 32
};

static bool starts_with(const char *text, const char *prefix)
{
	while (*prefix)
		if (*text++ != *prefix++)
			return false;
	return true;
}

static const char *base_name(const char *path)
{
	const char *name = path;

	for (; *path; path++)
		if (*path == '/')
			name = path + 1;
	return name;
}

static enum tmem_exe_kind classify_loader(const char *path)
{
	const char *name = base_name(path);

	if (starts_with(name, "ld-linux-x86-64.so"))
		return TMEM_EXE_OK;
	if (starts_with(name, "ld-musl-"))
		return TMEM_EXE_MUSL;
	return TMEM_EXE_LOADER;
}

/* `buf` holds the first bytes of the file and is used up. */
static enum tmem_exe_kind classify_elf(int fd, char *buf, long len)
{
	Elf64_Ehdr header;
	Elf64_Phdr ph = { 0 };
	unsigned i;

	if (len < (long)sizeof(header))
		return TMEM_EXE_FORMAT;
	__builtin_memcpy(&header, buf, sizeof(header));
	if (header.e_ident[EI_CLASS] != ELFCLASS64 ||
	    header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    header.e_machine != EM_X86_64)
		return TMEM_EXE_MACHINE;
	if ((header.e_type != ET_EXEC && header.e_type != ET_DYN) ||
	    header.e_phentsize != sizeof(ph))
		return TMEM_EXE_FORMAT;
	for (i = 0; i < header.e_phnum && i < MAX_HEADERS; i++) {
		if (tmem_sys(SYS_pread64, fd, &ph, sizeof(ph),
			     header.e_phoff + i * sizeof(ph)) != sizeof(ph))
			return TMEM_EXE_FORMAT;
		if (ph.p_type != PT_INTERP)
			continue;
		if (ph.p_filesz < 2 || ph.p_filesz > LINE_BYTES ||
		    tmem_sys(SYS_pread64, fd, buf, ph.p_filesz, ph.p_offset) !=
			    (long)ph.p_filesz ||
		    buf[ph.p_filesz - 1] != '\0')
			return TMEM_EXE_FORMAT;
		return classify_loader(buf);
	}
	return TMEM_EXE_STATIC;
}

/* Leaves the interpreter's path in buf; false if there is none. */
static bool parse_script(char *buf, long len)
{
	long in = 2, out = 0;

	while (in < len && (buf[in] == ' ' || buf[in] == '\t'))
		in++;
	while (in < len && buf[in] != ' ' && buf[in] != '\t' &&
	       buf[in] != '\n' && buf[in] != '\0')
		buf[out++] = buf[in++];
	/* A path that fills the buffer is cut: the kernel refuses it. */
	if (out == 0 || in == LINE_BYTES)
		return false;
	buf[out] = '\0';
	return true;
}

static bool gains_rights(int fd, const struct stat *st)
{
	char caps[MAX_CAPS];

	if (st->st_mode & S_ISUID)
		return true;
	if ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		return true;
	return fd >= 0 && tmem_sys(SYS_fgetxattr, fd, "security.capability",
				   caps, sizeof(caps)) > 0;
}

static enum tmem_exe_kind from_errno(long r)
{
	return r == -ENOENT || r == -ENOTDIR ? TMEM_EXE_MISSING
					     : TMEM_EXE_DENIED;
}

/* May it be run at all, as far as modes say? */
static long check_access(int dir_fd, const char *path, struct stat *ret_st)
{
	long r = tmem_sys(SYS_newfstatat, dir_fd, path, ret_st, AT_EMPTY_PATH);

	if (r < 0)
		return r;
	if (!S_ISREG(ret_st->st_mode) || !(ret_st->st_mode & 0111))
		return -EACCES;
	/* Through an empty path the descriptor itself is the permission. */
	return *path ? tmem_sys(SYS_faccessat, dir_fd, path, X_OK) : 0;
}

static long open_to_read(int dir_fd, const char *path)
{
	if (*path)
		return tmem_sys(SYS_openat, dir_fd, path, O_RDONLY | O_CLOEXEC);
	/* A descriptor opened with O_PATH cannot be read: unknown. */
	return tmem_sys(SYS_fcntl, dir_fd, F_DUPFD_CLOEXEC, 0);
}

enum tmem_exe_kind tmem_exe_classify_at(int dir_fd, const char *path)
{
	char buf[LINE_BYTES];
	enum tmem_exe_kind kind;
	struct stat st = { 0 };
	long fd, len, r;
	int i;

	for (i = 0; i <= MAX_SCRIPTS; i++) {
		r = check_access(dir_fd, path, &st);
		if (r < 0)
			return from_errno(r);
		fd = open_to_read(dir_fd, path);
		len = fd < 0 ? -1
			     : tmem_sys(SYS_pread64, fd, buf, sizeof(buf), 0);
		if (len >= 2 && buf[0] == '#' && buf[1] == '!') {
			tmem_sys_close((int)fd);
			if (!parse_script(buf, len))
				return TMEM_EXE_FORMAT;
			path = buf;
			dir_fd = AT_FDCWD;
			continue;
		}
		if (gains_rights((int)fd, &st))
			kind = TMEM_EXE_SETUID;
		else if (len < 0)
			kind = TMEM_EXE_OK;
		else if (len >= SELFMAG && starts_with(buf, ELFMAG))
			kind = classify_elf((int)fd, buf, len);
		else
			kind = TMEM_EXE_FORMAT;
		if (fd >= 0)
			tmem_sys_close((int)fd);
		return kind;
	}
	return TMEM_EXE_FORMAT;
}

enum tmem_exe_kind tmem_exe_classify(const char *path)
{
	return *path ? tmem_exe_classify_at(AT_FDCWD, path) : TMEM_EXE_MISSING;
}

const char *tmem_exe_kind_text(enum tmem_exe_kind kind)
{
	switch (kind) {
	case TMEM_EXE_OK:
		return "a program that tmem can page";
	case TMEM_EXE_STATIC:
		return "statically linked";
	case TMEM_EXE_SETUID:
		return "set-user-ID, set-group-ID or has file capabilities";
	case TMEM_EXE_MUSL:
		return "linked with musl instead of glibc";
	case TMEM_EXE_LOADER:
		return "made for another dynamic loader";
	case TMEM_EXE_MACHINE:
		return "made for another kind of machine";
	case TMEM_EXE_FORMAT:
		return "neither an ELF program nor a script that begins with #!";
	case TMEM_EXE_DENIED:
		return "not executable";
	case TMEM_EXE_MISSING:
		return "not found";
	}
	return "unknown";
}
