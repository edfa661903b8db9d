/* SPDX-License-Identifier: MIT */
/* What can be paged: crafted executables, one trait at a time. */
#include "base/assert.h"
#include "base/exe.h"

#include <elf.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define GLIBC "/lib64/ld-linux-x86-64.so.2"

static char dir[] = "/var/tmp/tmem-exe-XXXXXX";
static char path[128];

static void write_file(const char *name, const void *bytes, size_t len,
		       mode_t mode)
{
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	TMEM_ASSERT(fd >= 0);
	TMEM_ASSERT(write(fd, bytes, len) == (ssize_t)len);
	TMEM_ASSERT(fchmod(fd, mode) == 0);
	close(fd);
}

struct image {
	Elf64_Ehdr header;
	Elf64_Phdr ph[2];
	char interp[64];
};

static struct image make_image(const char *interp)
{
	struct image i = { 0 };

	memcpy(i.header.e_ident, ELFMAG, SELFMAG);
	i.header.e_ident[EI_CLASS] = ELFCLASS64;
	i.header.e_ident[EI_DATA] = ELFDATA2LSB;
	i.header.e_type = ET_DYN;
	i.header.e_machine = EM_X86_64;
	i.header.e_phoff = offsetof(struct image, ph);
	i.header.e_phentsize = sizeof(Elf64_Phdr);
	i.header.e_phnum = 2;
	i.ph[0].p_type = PT_LOAD;
	if (interp) {
		i.ph[1].p_type = PT_INTERP;
		i.ph[1].p_offset = offsetof(struct image, interp);
		i.ph[1].p_filesz = strlen(interp) + 1;
		memcpy(i.interp, interp, i.ph[1].p_filesz);
	}
	return i;
}

static enum tmem_exe_kind classify(const struct image *i, mode_t mode)
{
	write_file("program", i, sizeof(*i), mode);
	return tmem_exe_classify(path);
}

static enum tmem_exe_kind classify_script(const char *text)
{
	write_file("script", text, strlen(text), 0755);
	return tmem_exe_classify(path);
}

static void programs(void)
{
	struct image i = make_image(GLIBC);

	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_OK);
	TMEM_ASSERT(classify(&i, 0644) == TMEM_EXE_DENIED);
	TMEM_ASSERT(classify(&i, 04755) == TMEM_EXE_SETUID);
	TMEM_ASSERT(classify(&i, 02755) == TMEM_EXE_SETUID);
	/* Without group execution the bit means something else. */
	TMEM_ASSERT(classify(&i, 02705) == TMEM_EXE_OK);
	i = make_image("/nix/store/x-glibc/lib/ld-linux-x86-64.so.2");
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_OK);
	i = make_image("/lib/ld-musl-x86_64.so.1");
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_MUSL);
	i = make_image("/system/bin/linker64");
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_LOADER);
	i = make_image(NULL);
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_STATIC);
	i = make_image(GLIBC);
	i.header.e_machine = EM_AARCH64;
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_MACHINE);
	i = make_image(GLIBC);
	i.header.e_ident[EI_CLASS] = ELFCLASS32;
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_MACHINE);
}

static void damaged_programs(void)
{
	struct image i = make_image(GLIBC);

	i.header.e_type = ET_REL;
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_FORMAT);
	i = make_image(GLIBC);
	i.header.e_phoff = 1 << 20;
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_FORMAT);
	i = make_image(GLIBC);
	i.header.e_phentsize = 1;
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_FORMAT);
	i = make_image(GLIBC);
	i.ph[1].p_filesz = 4096;
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_FORMAT);
	i = make_image(GLIBC);
	i.ph[1].p_filesz--; /* no NUL at the end */
	TMEM_ASSERT(classify(&i, 0755) == TMEM_EXE_FORMAT);
	write_file("program", &i, 20, 0755);
	TMEM_ASSERT(tmem_exe_classify(path) == TMEM_EXE_FORMAT);
	write_file("program", "", 0, 0755);
	TMEM_ASSERT(tmem_exe_classify(path) == TMEM_EXE_FORMAT);
}

static void capabilities(void)
{
	/* cap_net_raw+ep, version 2. */
	static const unsigned char caps[20] = { 1, 0, 0, 2, 0, 0x20 };
	struct image i = make_image(GLIBC);

	write_file("program", &i, sizeof(i), 0755);
	/* Needs a right and a file system that not every machine has. */
	if (setxattr(path, "security.capability", caps, sizeof(caps), 0) == 0)
		TMEM_ASSERT(tmem_exe_classify(path) == TMEM_EXE_SETUID);
}

static void scripts(void)
{
	struct image i = make_image("/lib/ld-musl-x86_64.so.1");
	char text[512], inner[128];
	int depth;

	TMEM_ASSERT(classify_script("#!/bin/sh\n") == TMEM_EXE_OK);
	TMEM_ASSERT(classify_script("#! \t/bin/sh -e\nx") == TMEM_EXE_OK);
	TMEM_ASSERT(classify_script("#!/bin/sh") == TMEM_EXE_OK);
	TMEM_ASSERT(classify_script("#!\n") == TMEM_EXE_FORMAT);
	TMEM_ASSERT(classify_script("#!") == TMEM_EXE_FORMAT);
	TMEM_ASSERT(classify_script("echo\n") == TMEM_EXE_FORMAT);
	TMEM_ASSERT(classify_script("#!/nonexistent/x\n") == TMEM_EXE_MISSING);
	TMEM_ASSERT(classify_script("#!/etc/passwd\n") == TMEM_EXE_DENIED);
	/* A first line longer than the kernel reads. */
	memset(text, 'x', sizeof(text));
	memcpy(text, "#!/", 3);
	text[sizeof(text) - 1] = '\0';
	TMEM_ASSERT(classify_script(text) == TMEM_EXE_FORMAT);
	/* The interpreter is what counts. */
	write_file("program", &i, sizeof(i), 0755);
	snprintf(text, sizeof(text), "#!%s\n", path);
	TMEM_ASSERT(classify_script(text) == TMEM_EXE_MUSL);
	/* Set-ID bits of a script mean nothing. */
	write_file("suid", "#!/bin/sh\n", 10, 04755);
	TMEM_ASSERT(tmem_exe_classify(path) == TMEM_EXE_OK);
	/* Scripts of scripts: four, but no circle. */
	strcpy(inner, "/bin/sh");
	for (depth = 1; depth <= 5; depth++) {
		snprintf(text, sizeof(text), "#!%s\n", inner);
		sprintf(inner, "nested%d", depth);
		write_file(inner, text, strlen(text), 0755);
		TMEM_ASSERT(tmem_exe_classify(path) ==
			    (depth <= 4 ? TMEM_EXE_OK : TMEM_EXE_FORMAT));
		memcpy(inner, path, sizeof(inner));
	}
	snprintf(text, sizeof(text), "#!%s/self\n", dir);
	write_file("self", text, strlen(text), 0755);
	TMEM_ASSERT(tmem_exe_classify(path) == TMEM_EXE_FORMAT);
}

static void other_ways(void)
{
	int fd, path_fd, dir_fd = open(dir, O_RDONLY | O_DIRECTORY);
	struct image i = make_image(NULL);

	write_file("program", &i, sizeof(i), 0755);
	fd = open(path, O_RDONLY);
	path_fd = open(path, O_PATH);
	TMEM_ASSERT(tmem_exe_classify_at(dir_fd, "program") == TMEM_EXE_STATIC);
	TMEM_ASSERT(tmem_exe_classify_at(fd, "") == TMEM_EXE_STATIC);
	/* Cannot be read: unknown. */
	TMEM_ASSERT(tmem_exe_classify_at(path_fd, "") == TMEM_EXE_OK);
	TMEM_ASSERT(tmem_exe_classify_at(dir_fd, "none") == TMEM_EXE_MISSING);
	TMEM_ASSERT(tmem_exe_classify(dir) == TMEM_EXE_DENIED);
	TMEM_ASSERT(tmem_exe_classify("") == TMEM_EXE_MISSING);
	TMEM_ASSERT(tmem_exe_classify("/proc/self/exe") == TMEM_EXE_OK);
	close(fd);
	close(path_fd);
	close(dir_fd);
}

int main(void)
{
	char command[256];

	TMEM_ASSERT(mkdtemp(dir));
	programs();
	damaged_programs();
	capabilities();
	scripts();
	other_ways();
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}
