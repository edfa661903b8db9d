/* SPDX-License-Identifier: MIT */
/*
 * One file after another, and each is forgotten before the next: what libdw
 * knows of a file can be larger than the file.
 */
#include "profile/names.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	INLINED_MAX = 16,
	TEXT_BYTES = 1024
};

struct name {
	char *frames; /* "outer;inlined;innermost" */
	char *line;   /* "source.c:12", or NULL */
};

struct tmem_names {
	uint32_t nr;
	struct name names[];
};

static const Dwfl_Callbacks callbacks = {
	.section_address = dwfl_offline_section_address,
	.find_debuginfo = dwfl_standard_find_debuginfo,
};

static const char *const kinds[PLACE_KINDS] = {
	[PLACE_ANON] = "[anon]",
	[PLACE_CUT] = "[cut]",
	[PLACE_UNKNOWN] = "[unknown]",
	[PLACE_SYSCALL] = "[system call]",
};

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* What would end a frame or a line becomes another character. */
static void print_clean(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == ';')
			putc(':', out);
		else if ((unsigned char)*text < ' ' || *text == 127)
			putc('?', out);
		else
			putc(*text, out);
	}
}

/* Its name in the linker's eyes if it has one, as symbols have. */
static const char *die_name(Dwarf_Die *die)
{
	Dwarf_Attribute attribute;
	const char *name = NULL;

	if (dwarf_attr_integrate(die, DW_AT_linkage_name, &attribute))
		name = dwarf_formstring(&attribute);
	return name ? name : dwarf_diename(die);
}

static bool is_function(Dwarf_Die *die)
{
	int tag = dwarf_tag(die);

	return tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine;
}

/* The names of functions that were inlined there, the innermost first. */
static unsigned find_inlined(Dwfl_Module *module, Dwarf_Addr at,
			     const char **ret_names)
{
	Dwarf_Addr bias = 0;
	Dwarf_Die *unit = dwfl_module_addrdie(module, at, &bias);
	Dwarf_Die *scopes = NULL, *outer = NULL;
	int nr = unit ? dwarf_getscopes(unit, at - bias, &scopes) : 0, i;
	unsigned n = 0;

	for (i = 0; i < nr && !is_function(&scopes[i]); i++)
		;
	/* Where it is in the code, not where it was written. */
	nr = i < nr ? dwarf_getscopes_die(&scopes[i], &outer) : 0;
	for (i = 0; i < nr && n < INLINED_MAX; i++) {
		if (dwarf_tag(&outer[i]) == DW_TAG_subprogram)
			break;
		if (dwarf_tag(&outer[i]) != DW_TAG_inlined_subroutine)
			continue;
		ret_names[n] = die_name(&outer[i]);
		n += ret_names[n] != NULL;
	}
	free(scopes);
	free(outer);
	return n;
}

static char *find_line(Dwfl_Module *module, Dwarf_Addr at)
{
	Dwfl_Line *line = dwfl_module_getsrc(module, at);
	const char *file;
	char *text = NULL;
	int nr = 0;

	file = line ? dwfl_lineinfo(line, NULL, &nr, NULL, NULL, NULL) : NULL;
	if (!file || nr <= 0)
		return NULL;
	return asprintf(&text, "%s:%d", base_name(file), nr) < 0 ? NULL : text;
}

/* module: NULL if the file could not be read. */
static struct name name_place(Dwfl_Module *module, uint64_t bias,
			      const char *path, uint64_t address)
{
	const char *inlined[INLINED_MAX], *name = NULL;
	char by_file[TEXT_BYTES];
	struct name n = { NULL, NULL };
	unsigned nr = 0;
	size_t bytes;
	GElf_Off offset;
	GElf_Sym sym;
	FILE *out = open_memstream(&n.frames, &bytes);

	if (!out)
		return n;
	if (module) {
		name = dwfl_module_addrinfo(module, address + bias, &offset,
					    &sym, NULL, NULL, NULL);
		nr = find_inlined(module, address + bias, inlined);
		n.line = find_line(module, address + bias);
	}
	if (!name) {
		snprintf(by_file, sizeof(by_file), "%s+0x%llx", base_name(path),
			 (unsigned long long)address);
		name = by_file;
	}
	print_clean(out, name);
	while (nr-- > 0) {
		putc(';', out);
		print_clean(out, inlined[nr]);
	}
	fclose(out);
	return n;
}

static void name_places_of(struct tmem_names *names,
			   const struct tmem_places *places, uint32_t file)
{
	const char *path = tmem_places_file_path(places, file);
	int fd = tmem_places_file_fd(places, file);
	Dwfl *dwfl = dwfl_begin(&callbacks);
	Dwfl_Module *module = NULL;
	Dwarf_Addr bias = 0;
	uint32_t i;

	/* It takes the descriptor if it succeeds. */
	fd = fd >= 0 ? dup(fd) : -1;
	if (dwfl && fd >= 0) {
		dwfl_report_begin(dwfl);
		module = dwfl_report_offline(dwfl, path, path, fd);
		dwfl_report_end(dwfl, NULL, NULL);
	}
	if (!module && fd >= 0)
		close(fd);
	if (module && !dwfl_module_getelf(module, &bias))
		module = NULL;
	for (i = 0; i < names->nr; i++) {
		const struct tmem_place *p = tmem_places_get(places, i);

		if (p->file == file)
			names->names[i] =
				name_place(module, bias, path, p->address);
	}
	if (dwfl)
		dwfl_end(dwfl);
}

struct tmem_names *tmem_names_find(const struct tmem_places *places)
{
	uint32_t nr = places->places.nr, i;
	struct tmem_names *names =
		calloc(1, sizeof(*names) + nr * sizeof(*names->names));

	if (!names)
		return NULL;
	names->nr = nr;
	for (i = 0; i < places->files.nr; i++)
		name_places_of(names, places, i);
	return names;
}

void tmem_names_free(struct tmem_names *names)
{
	uint32_t i;

	if (!names)
		return;
	for (i = 0; i < names->nr; i++) {
		free(names->names[i].frames);
		free(names->names[i].line);
	}
	free(names);
}

void tmem_names_write(const struct tmem_names *names, const uint32_t *places,
		      unsigned nr, FILE *out)
{
	unsigned i, with_line = nr;

	for (i = nr; i-- > 0 && with_line == nr;)
		if (names->names[places[i]].line)
			with_line = i;
	for (i = 0; i < nr; i++) {
		const struct name *n = &names->names[places[i]];

		fprintf(out, ";%s",
			places[i] < PLACE_KINDS ? kinds[places[i]]
			: n->frames		? n->frames
						: "?");
		if (i == with_line) {
			fputs(" (", out);
			print_clean(out, n->line);
			putc(')', out);
		}
	}
}
