/* SPDX-License-Identifier: MIT */
/*
 * `tmem core`: rebuilds evicted pages in a copy of a core dump; src/crash
 * tells which they are.
 *
 * The copy is made beside where it belongs and renamed when it is whole, so
 * that no half-rebuilt one is taken for more.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/copy.h"
#include "cli/json.h"
#include "cli/size.h"
#include "crash/deadpager.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	EXIT_MISSING = 1,
	OPTION_IN_PLACE = TMEM_ARGS_LONG,
	OPTION_JSON
};

struct options {
	const char *file;
	const char *output;
	bool in_place;
	bool json;
	bool help;
	char own_output[PATH_MAX]; /* FILE.tmem */
};

struct range {
	uint64_t start;
	uint64_t end;
	enum tmem_page_fate fate;
};

struct work {
	int fd; /* of what pages are written to */
	struct tmem_corefile core;
	struct tmem_deadpager *pager;
	struct tmem_deadpager_info info;
	uint64_t nr[TMEM_FATES];
	struct range *missing;
	size_t nr_missing;
	size_t room;
};

static const struct {
	const char *key;  /* of JSON, and "why" there */
	const char *text; /* NULL: it is not missing */
} fates[TMEM_FATES] = {
	[TMEM_FATE_REBUILT] = { "rebuilt", NULL },
	[TMEM_FATE_PRESENT] = { "present", NULL },
	[TMEM_FATE_SWAPPED] = { "swapped", "in the swap file" },
	[TMEM_FATE_DAMAGED] = { "damaged", "damaged" },
	[TMEM_FATE_LOST] = { "lost", "lost before the crash" },
	[TMEM_FATE_UNSURE] = { "unsure", "uncertain, the pager was at work" },
	[TMEM_FATE_LEFT_OUT] = { "left_out", "left out of the core" },
	[TMEM_FATE_NO_BYTES] = { "no_bytes", "in memory; zeros, or not read by "
					     "gdb" },
};

static const char *const doubts[] = {
	[TMEM_DOUBT_NONE] = NULL,
	[TMEM_DOUBT_PROCESS] = "the core is of another process than the pager "
			       "served (a child, or seen from another pid "
			       "namespace)",
	[TMEM_DOUBT_FORKED] = "the process had just been forked",
	[TMEM_DOUBT_AT_WORK] = "the pager went on while the core was written",
};

static void print_help(void)
{
	puts("Usage: tmem core [OPTIONS] FILE\n"
	     "\n"
	     "Rebuilds in a core dump what was evicted: without it a debugger "
	     "sees zeros there.\n"
	     "FILE is the core dump of a program that `tmem run' ran; the copy "
	     "FILE.tmem is it\n"
	     "with all pages that the dump itself still has, compressed. Pages "
	     "in the swap file\n"
	     "are gone with the program: they are listed as missing.\n"
	     "\n"
	     "Options:\n"
	     "  -o, --output OUT\n"
	     "        Write the copy there (default: FILE.tmem).\n"
	     "  --in-place\n"
	     "        Write into FILE itself; no copy.\n"
	     "  --json\n"
	     "        Print the report as JSON.\n"
	     "  -h, --help\n"
	     "        Show this help.\n"
	     "\n"
	     "Examples:\n"
	     "  ulimit -c unlimited; tmem run -m 1G -- ./server\n"
	     "  tmem core core.4711 && gdb ./server core.4711.tmem\n"
	     "  coredumpctl dump 4711 -o core; tmem core --in-place core\n"
	     "\n"
	     "Exit status: 0 if nothing is missing, 1 if something is, 125 if "
	     "nothing was written.\n"
	     "See tmem-core(1).");
}

static int check(struct options *o, int nr_left)
{
	int n;

	if (nr_left != 1)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "one core dump is needed; write for "
				     "example `tmem core core.4711'");
	if (o->in_place && o->output)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "--in-place and --output exclude each "
				     "other");
	if (o->output || o->in_place)
		return 0;
	n = snprintf(o->own_output, sizeof(o->own_output), "%s.tmem", o->file);
	if (n < 0 || (size_t)n >= sizeof(o->own_output))
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "the file's name is too long; give "
				     "another one with -o");
	o->output = o->own_output;
	return 0;
}

static int parse_one(void *options, int c, const char *arg)
{
	struct options *o = options;

	switch (c) {
	case 'o':
		o->output = arg;
		break;
	case OPTION_IN_PLACE:
		o->in_place = true;
		break;
	case OPTION_JSON:
		o->json = true;
		break;
	default:
		o->help = true;
		break;
	}
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option table[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "in-place", no_argument, NULL, OPTION_IN_PLACE },
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	static const struct tmem_args args = { "core", ":o:h", table,
					       parse_one };
	int status = tmem_args_take(&args, argc, argv, o);

	if (status || o->help)
		return status;
	o->file = argv[optind];
	return check(o, argc - optind);
}

static int fail(const char *file, int error)
{
	return tmem_cli_fail(TMEM_EXIT_FAIL, "%s: %s", file, strerror(error));
}

static int explain_file(const char *file, int why)
{
	static const char *const texts[] = {
		[TMEM_CORE_NO_ELF] = "not a core dump",
		[TMEM_CORE_COMPRESSED] = "compressed; decompress it first, "
					 "with zstd -d, lz4 -d, xz -d or "
					 "gunzip",
		[TMEM_CORE_NO_CORE] = "an ELF file, but not a core dump",
		[TMEM_CORE_MACHINE] = "a core dump of another kind of machine; "
				      "tmem is for x86-64",
		[TMEM_CORE_TRUNCATED] = "truncated; let it be dumped again "
					"with `ulimit -c unlimited' and room "
					"on the disk",
		[TMEM_CORE_DAMAGED] = "damaged: its headers make no sense",
	};

	if (why == -ESPIPE)
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: not a regular file; write the core "
				     "dump into one first",
				     file);
	if (why < 0)
		return fail(file, -why);
	return tmem_cli_fail(TMEM_EXIT_FAIL, "%s: %s", file, texts[why]);
}

static int explain_pager(const char *file, int why, const char *version)
{
	switch (why) {
	case TMEM_DEAD_NO_PAGER:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: no pager of tmem's in it: it is not "
				     "of a program that `tmem run' paged, or "
				     "its coredump_filter leaves out private "
				     "memory",
				     file);
	case TMEM_DEAD_OTHER_BUILD:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: of another build of tmem (%s; this "
				     "is %s); use the `tmem core' that belongs "
				     "to it",
				     file, version, TMEM_VERSION);
	case TMEM_DEAD_DAMAGED:
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: the pager's memory in it is damaged; "
				     "nothing can be rebuilt",
				     file);
	}
	return fail(file, -why);
}

static int add_missing(struct work *w, const struct tmem_fate *fate)
{
	struct range *last = w->missing + w->nr_missing;

	if (w->nr_missing && last[-1].end == fate->addr &&
	    last[-1].fate == fate->fate) {
		last[-1].end += TMEM_PAGE_SIZE;
		return 0;
	}
	if (w->nr_missing == w->room) {
		size_t room = w->room ? 2 * w->room : 256;
		struct range *more =
			reallocarray(w->missing, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		w->missing = more;
		w->room = room;
	}
	w->missing[w->nr_missing++] =
		(struct range){ fate->addr, fate->addr + TMEM_PAGE_SIZE,
				fate->fate };
	return 0;
}

static int take_fate(void *arg, const struct tmem_fate *fate)
{
	struct work *w = arg;
	ssize_t n;

	w->nr[fate->fate]++;
	if (fates[fate->fate].text)
		return add_missing(w, fate);
	if (fate->fate != TMEM_FATE_REBUILT)
		return 0;
	n = pwrite(w->fd, fate->content, TMEM_PAGE_SIZE,
		   (off_t)fate->file_offset);
	if (n == TMEM_PAGE_SIZE)
		return 0;
	return n < 0 ? -errno : -ENOSPC;
}

static int rebuild(struct work *w)
{
	int r = tmem_deadpager_walk(w->pager, take_fate, w);

	tmem_deadpager_get_info(w->pager, &w->info);
	return r;
}

static bool are_same(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Into a copy, which takes its name when all is done. */
static int rebuild_copy(struct work *w, const struct options *o)
{
	char name[PATH_MAX];
	struct stat st;
	int r;

	if (are_same(w->core.fd, o->output))
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: that is the core dump itself; "
				     "--in-place writes into it",
				     o->output);
	if (stat(o->output, &st) == 0 && !S_ISREG(st.st_mode))
		return tmem_cli_fail(TMEM_EXIT_FAIL,
				     "%s: not a regular file; give another "
				     "one with -o",
				     o->output);
	w->fd = tmem_copy_begin(o->output, w->core.fd, name, sizeof(name));
	if (w->fd < 0)
		return fail(o->output, -w->fd);
	r = tmem_copy_sparse(w->core.fd, w->fd);
	if (r == 0)
		r = rebuild(w);
	if (close(w->fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(name, o->output) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	unlink(name);
	return fail(o->output, -r);
}

static int rebuild_in_place(struct work *w, const struct options *o)
{
	int r;

	w->fd = w->core.fd;
	r = rebuild(w);
	if (r == 0)
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "%s: %s; it is rebuilt in part, and this can be "
			     "done again",
			     o->file, strerror(-r));
}

/* A file's name, which need not be text. */
static json_t *name_of(const char *name)
{
	json_t *text = json_string(name);

	return text ? text : json_string("?");
}

static void report_json(const struct work *w, const struct options *o)
{
	json_t *j = json_object(), *list = json_array();
	uint64_t nr_evicted = 0;
	char key[32], addr[32];
	size_t i;

	json_object_set_new(j, "core", name_of(o->file));
	json_object_set_new(j, "output",
			    name_of(o->in_place ? o->file : o->output));
	json_object_set_new(j, "program", json_string(w->info.comm));
	tmem_json_set(j, "pid", (uint64_t)w->info.pid);
	json_object_set_new(j, "doubt",
			    w->info.doubt ? json_string(doubts[w->info.doubt])
					  : json_null());
	for (i = 0; i < TMEM_FATES; i++) {
		snprintf(key, sizeof(key), "%s_pages", fates[i].key);
		tmem_json_set(j, key, w->nr[i]);
		nr_evicted += i == TMEM_FATE_NO_BYTES ? 0 : w->nr[i];
	}
	tmem_json_set(j, "evicted_pages", nr_evicted);
	tmem_json_set(j, "damaged_parts", w->info.nr_damaged);
	for (i = 0; i < w->nr_missing; i++) {
		json_t *m = json_object();

		snprintf(addr, sizeof(addr), "0x%llx",
			 (unsigned long long)w->missing[i].start);
		json_object_set_new(m, "start", json_string(addr));
		snprintf(addr, sizeof(addr), "0x%llx",
			 (unsigned long long)w->missing[i].end);
		json_object_set_new(m, "end", json_string(addr));
		json_object_set_new(m, "why",
				    json_string(fates[w->missing[i].fate].key));
		json_array_append_new(list, m);
	}
	json_object_set_new(j, "missing", list);
	json_dumpf(j, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(j);
}

static void report_line(const char *what, uint64_t nr)
{
	char size[32];

	tmem_size_format(nr * TMEM_PAGE_SIZE, size, sizeof(size));
	printf("  %-9s %llu page%s, %s\n", what, (unsigned long long)nr,
	       nr == 1 ? "" : "s", size);
}

static void report_text(const struct work *w, const struct options *o)
{
	size_t i;

	printf("%s: %s, pid %d\n", o->in_place ? o->file : o->output,
	       w->info.comm, (int)w->info.pid);
	report_line("rebuilt", w->nr[TMEM_FATE_REBUILT]);
	if (w->nr[TMEM_FATE_PRESENT])
		report_line("present", w->nr[TMEM_FATE_PRESENT]);
	for (i = 0; i < w->nr_missing; i++) {
		const struct range *m = &w->missing[i];
		uint64_t nr = (m->end - m->start) / TMEM_PAGE_SIZE;

		printf("  missing   0x%llx-0x%llx, %llu page%s: %s\n",
		       (unsigned long long)m->start, (unsigned long long)m->end,
		       (unsigned long long)nr, nr == 1 ? "" : "s",
		       fates[m->fate].text);
	}
}

static int report(const struct work *w, const struct options *o)
{
	if (o->json)
		report_json(w, o);
	else
		report_text(w, o);
	if (w->info.doubt && w->nr[TMEM_FATE_UNSURE])
		tmem_cli_warn("%s: %s: pages of zeros are left as they are",
			      o->file, doubts[w->info.doubt]);
	if (w->info.nr_damaged)
		tmem_cli_warn("%s: %llu parts of the pager's tables are "
			      "damaged: what they said of is not listed",
			      o->file, (unsigned long long)w->info.nr_damaged);
	if (w->nr[TMEM_FATE_NO_BYTES])
		tmem_cli_warn("%s: written by gdb, which skips the rest of a "
			      "mapping where a page is out; let the kernel "
			      "write it (tmem-core(1))",
			      o->file);
	return w->nr_missing || w->info.nr_damaged ? EXIT_MISSING : 0;
}

static int work_on(struct work *w, const struct options *o)
{
	int fd = open(o->file, (o->in_place ? O_RDWR : O_RDONLY) | O_CLOEXEC |
				       O_NOCTTY | O_NONBLOCK);
	int r, status;

	if (fd < 0)
		return fail(o->file, errno);
	r = tmem_corefile_open(&w->core, fd);
	if (r != 0) {
		close(fd);
		return explain_file(o->file, r);
	}
	r = tmem_deadpager_open(&w->core, &w->pager, &w->info);
	if (r != 0)
		status = explain_pager(o->file, r, w->info.version);
	else if (o->in_place)
		status = rebuild_in_place(w, o);
	else
		status = rebuild_copy(w, o);
	if (r == 0)
		tmem_deadpager_close(w->pager);
	tmem_corefile_close(&w->core);
	close(fd);
	return status ? status : report(w, o);
}

int tmem_core_main(int argc, char **argv)
{
	static struct options o;
	struct work w = { 0 };
	int status = parse(argc, argv, &o);

	if (status)
		return status;
	if (o.help) {
		print_help();
		return 0;
	}
	status = work_on(&w, &o);
	free(w.missing);
	return status;
}
