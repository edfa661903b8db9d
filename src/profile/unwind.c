/* SPDX-License-Identifier: MIT */
/*
 * A Dwfl for each process: which file is where in its memory.  libdw unwinds by
 * it, asking for memory that we have in the sample only.
 *
 * An address in no file makes the map be read again, as a library may have
 * come; at most once a second, as it may be code that was made at run time.
 */
#include "profile/unwind.h"

#include <elfutils/libdwfl.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A module of the Dwfl, as we know it. */
struct mapped {
	struct tmem_unwind *unwind;
	uint32_t file; /* of places; TMEM_INTERN_NONE: not looked for yet */
	struct mapped *next;
};

struct tmem_unwind {
	Dwfl *dwfl;
	pid_t pid;
	struct tmem_places *places;
	struct tmem_fold *fold;
	struct mapped *mapped;
	time_t read_at; /* the map */
	bool attached;
	const struct tmem_perf_sample *sample;
	uint64_t pcs[TMEM_FOLD_DEPTH];
	unsigned nr_pcs;
};

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* As the process sees its files, if it is still there. */
static bool find_path(const struct tmem_unwind *u, const char *name,
		      char *ret_path)
{
	if (name[0] != '/')
		return false;
	snprintf(ret_path, PATH_MAX, "/proc/%d/root%s", (int)u->pid, name);
	if (is_file(ret_path))
		return true;
	snprintf(ret_path, PATH_MAX, "%s", name);
	return is_file(ret_path);
}

static int find_elf(Dwfl_Module *module, void **userdata, const char *name,
		    Dwarf_Addr base, char **ret_path, Elf **ret_elf)
{
	const struct mapped *m = *userdata;
	char path[PATH_MAX];
	int fd = -1;

	if (m && find_path(m->unwind, name, path))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		*ret_path = strdup(name);
		return fd;
	}
	return dwfl_linux_proc_find_elf(module, userdata, name, base, ret_path,
					ret_elf);
}

/* What is in the file itself is enough to unwind by. */
static int find_no_debuginfo(Dwfl_Module *module, void **userdata,
			     const char *name, Dwarf_Addr base,
			     const char *file, const char *link, GElf_Word crc,
			     char **ret_path)
{
	(void)module;
	(void)userdata;
	(void)name;
	(void)base;
	(void)file;
	(void)link;
	(void)crc;
	(void)ret_path;
	return -1;
}

static const Dwfl_Callbacks file_callbacks = {
	.find_elf = find_elf,
	.find_debuginfo = find_no_debuginfo,
};

static pid_t next_thread(Dwfl *dwfl, void *arg, void **thread_arg)
{
	(void)dwfl;
	(void)arg;
	(void)thread_arg;
	return 0;
}

static bool get_thread(Dwfl *dwfl, pid_t tid, void *arg, void **thread_arg)
{
	(void)dwfl;
	(void)tid;
	*thread_arg = arg;
	return true;
}

static bool read_memory(Dwfl *dwfl, Dwarf_Addr address, Dwarf_Word *ret,
			void *arg)
{
	const struct tmem_perf_sample *s = ((struct tmem_unwind *)arg)->sample;
	uint64_t at = address - s->regs[TMEM_PERF_RSP];

	(void)dwfl;
	if (address < s->regs[TMEM_PERF_RSP] || s->stack_bytes < sizeof(*ret) ||
	    at > s->stack_bytes - sizeof(*ret))
		return false;
	memcpy(ret, (const char *)s->stack + at, sizeof(*ret));
	return true;
}

static bool set_registers(Dwfl_Thread *thread, void *arg)
{
	const struct tmem_unwind *u = arg;
	Dwarf_Word regs[TMEM_PERF_REGS];
	int i;

	for (i = 0; i < TMEM_PERF_REGS; i++)
		regs[i] = u->sample->regs[i];
	return dwfl_thread_state_registers(thread, 0, TMEM_PERF_REGS, regs);
}

static const Dwfl_Thread_Callbacks thread_callbacks = {
	.next_thread = next_thread,
	.get_thread = get_thread,
	.memory_read = read_memory,
	.set_initial_registers = set_registers,
};

/* Each module that is new. */
static int meet(Dwfl_Module *module, void **userdata, const char *name,
		Dwarf_Addr start, void *arg)
{
	struct tmem_unwind *u = arg;
	struct mapped *m;

	(void)module;
	(void)name;
	(void)start;
	if (*userdata)
		return DWARF_CB_OK;
	m = calloc(1, sizeof(*m));
	if (!m)
		return DWARF_CB_OK;
	m->unwind = u;
	m->file = TMEM_INTERN_NONE;
	m->next = u->mapped;
	u->mapped = m;
	*userdata = m;
	return DWARF_CB_OK;
}

static time_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* 0 or -errno. */
static int read_map(struct tmem_unwind *u)
{
	int r;

	u->read_at = now();
	dwfl_report_begin(u->dwfl);
	r = dwfl_linux_proc_report(u->dwfl, u->pid);
	dwfl_report_end(u->dwfl, NULL, NULL);
	dwfl_getmodules(u->dwfl, meet, u, 0);
	if (r > 0)
		return -r;
	return r < 0 ? -EIO : 0;
}

int tmem_unwind_open(pid_t pid, struct tmem_places *places,
		     struct tmem_fold *fold, struct tmem_unwind **ret_unwind)
{
	struct tmem_unwind *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	u->pid = pid;
	u->places = places;
	u->fold = fold;
	u->dwfl = dwfl_begin(&file_callbacks);
	r = u->dwfl ? read_map(u) : -ENOMEM;
	if (r < 0) {
		tmem_unwind_close(u);
		return r;
	}
	*ret_unwind = u;
	return 0;
}

void tmem_unwind_close(struct tmem_unwind *unwind)
{
	struct mapped *m;

	if (!unwind)
		return;
	if (unwind->dwfl)
		dwfl_end(unwind->dwfl);
	while ((m = unwind->mapped)) {
		unwind->mapped = m->next;
		free(m);
	}
	free(unwind);
}

/* Its number, kept with the module once it is known. */
static uint32_t file_of(struct tmem_unwind *u, Dwfl_Module *module,
			struct mapped *m)
{
	const char *name;
	char path[PATH_MAX];
	int fd = -1;

	if (m->file != TMEM_INTERN_NONE)
		return m->file;
	name = dwfl_module_info(module, NULL, NULL, NULL, NULL, NULL, NULL,
				NULL);
	if (!name)
		return TMEM_INTERN_NONE;
	if (find_path(u, name, path))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	m->file = tmem_places_file(u->places, name, fd);
	if (fd >= 0)
		close(fd);
	return m->file;
}

static uint32_t place_of(struct tmem_unwind *u, uint64_t pc)
{
	Dwfl_Module *module = dwfl_addrmodule(u->dwfl, pc);
	Dwarf_Addr start = 0, bias = 0;
	void **userdata = NULL;
	uint32_t file;

	if (!module)
		return PLACE_ANON;
	dwfl_module_info(module, &userdata, &start, NULL, NULL, NULL, NULL,
			 NULL);
	file = userdata && *userdata ? file_of(u, module, *userdata)
				     : TMEM_INTERN_NONE;
	if (file == TMEM_INTERN_NONE)
		return PLACE_ANON;
	/* Addresses as in the file; where it can't be read, in the mapping. */
	if (!dwfl_module_getelf(module, &bias))
		bias = start;
	return tmem_places_add(u->places, file, pc - bias);
}

static int note_frame(Dwfl_Frame *frame, void *arg)
{
	struct tmem_unwind *u = arg;
	bool is_exact = false;
	Dwarf_Addr pc;

	if (u->nr_pcs == TMEM_FOLD_DEPTH ||
	    !dwfl_frame_pc(frame, &pc, &is_exact))
		return DWARF_CB_ABORT;
	/* A return address may be the next function's. */
	u->pcs[u->nr_pcs++] = is_exact ? pc : pc - 1;
	return DWARF_CB_OK;
}

/* True if the program's or thread's start was reached. */
static bool walk(struct tmem_unwind *u)
{
	u->nr_pcs = 0;
	if (!u->attached &&
	    dwfl_attach_state(u->dwfl, NULL, u->pid, &thread_callbacks, u))
		u->attached = true;
	if (u->attached &&
	    dwfl_getthread_frames(u->dwfl, u->pid, note_frame, u) == 0)
		return true;
	/* One frame is known in any case. */
	if (!u->nr_pcs)
		u->pcs[u->nr_pcs++] = u->sample->regs[TMEM_PERF_RIP];
	return false;
}

static bool is_all_mapped(struct tmem_unwind *u)
{
	unsigned i;

	for (i = 0; i < u->nr_pcs; i++)
		if (!dwfl_addrmodule(u->dwfl, u->pcs[i]))
			return false;
	return true;
}

/* Where the thread was, from the start of the stack on; how many. */
static unsigned list_places(struct tmem_unwind *u, bool whole,
			    uint32_t *ret_places)
{
	bool in_kernel = u->sample->in_kernel;
	unsigned nr = u->nr_pcs, n = 0, i;

	if (nr > TMEM_FOLD_DEPTH - 2) { /* the innermost count */
		nr = TMEM_FOLD_DEPTH - 2;
		whole = false;
	}
	if (!whole)
		ret_places[n++] = PLACE_CUT;
	for (i = nr; i-- > 0;)
		ret_places[n++] = place_of(u, u->pcs[i]);
	if (in_kernel)
		ret_places[n++] = PLACE_SYSCALL;
	return n;
}

uint32_t tmem_unwind_stack(struct tmem_unwind *unwind, uint32_t group,
			   const struct tmem_perf_sample *sample)
{
	uint32_t places[TMEM_FOLD_DEPTH];
	unsigned nr, i;
	bool whole;

	unwind->sample = sample;
	whole = walk(unwind);
	if (!is_all_mapped(unwind) && now() > unwind->read_at &&
	    read_map(unwind) == 0)
		whole = walk(unwind);
	nr = list_places(unwind, whole, places);
	unwind->sample = NULL;
	for (i = 0; i < nr; i++)
		if (places[i] == TMEM_INTERN_NONE)
			return TMEM_INTERN_NONE;
	return tmem_fold_stack(unwind->fold, group, places, nr);
}
