/* SPDX-License-Identifier: MIT */
/*
 * `tmem doctor`: the probes of probe.c, and whether given programs can be
 * paged, for people or as JSON.  Exit status 0: all well; 1: something that
 * is needed is missing; 125: wrong usage.
 */
#include "cli/args.h"
#include "cli/cli.h"
#include "cli/probe.h"
#include "cli/program.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

enum {
	EXIT_MISSING = 1
};

enum option_id {
	OPTION_JSON = TMEM_ARGS_LONG
};

struct doctor {
	bool json;
	bool help;
	char **programs;
	struct tmem_probe probes[TMEM_PROBE_COUNT];
};

static void print_help(void)
{
	puts("Usage: tmem doctor [--json] [--] [PROGRAM...]\n"
	     "\n"
	     "Says what this kernel and this user may do, what is missing, and "
	     "the remedy;\n"
	     "of each PROGRAM, whether tmem can page it.\n"
	     "\n"
	     "Options:\n"
	     "  --json\n"
	     "        Print one JSON object.\n"
	     "  -h, --help\n"
	     "        Show this help.\n"
	     "\n"
	     "Examples:\n"
	     "  tmem doctor\n"
	     "  tmem doctor -- /usr/bin/python3 ./my-static-tool\n"
	     "\n"
	     "Exit status: 0 if all is well, 1 if something needed is missing "
	     "or a program\n"
	     "cannot be paged, 125 for wrong usage. See tmem-doctor(1).");
}

static int parse_one(void *options, int c, const char *arg)
{
	struct doctor *d = options;

	(void)arg;
	if (c == OPTION_JSON)
		d->json = true;
	else
		d->help = true;
	return 0;
}

static int parse(int argc, char **argv, struct doctor *d)
{
	static const struct option table[] = {
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	static const struct tmem_args args = { "doctor", "+:h", table,
					       parse_one };
	int r = tmem_args_take(&args, argc, argv, d);

	d->programs = argv + optind;
	return r;
}

static enum tmem_exe_kind examine(const char *name, char *path)
{
	enum tmem_exe_kind kind = tmem_program_find(name, path);

	return kind == TMEM_EXE_OK ? tmem_program_classify(path) : kind;
}

/* True if all can be paged. */
static bool print_programs(const struct doctor *d)
{
	char path[PATH_MAX] = "";
	enum tmem_exe_kind kind;
	bool ok = true;
	char **name;

	for (name = d->programs; *name; name++) {
		kind = examine(*name, path);
		printf("%-8s %s: %s\n", kind ? "NO" : "ok", *name,
		       tmem_exe_kind_text(kind));
		if (kind)
			printf("         remedy: %s\n",
			       tmem_program_remedy(kind));
		ok &= kind == TMEM_EXE_OK;
	}
	return ok;
}

static bool print_text(const struct doctor *d)
{
	const struct tmem_probe *p, *missing = tmem_probe_missing(d->probes);
	struct utsname name = { 0 };
	bool ok;

	uname(&name);
	printf("tmem %s on Linux %s, user %u\n", TMEM_VERSION, name.release,
	       (unsigned)geteuid());
	for (p = d->probes; p < d->probes + TMEM_PROBE_COUNT; p++) {
		printf("%-8s %-13s %s\n",
		       p->ok	   ? "ok"
		       : p->needed ? "MISSING"
				   : "absent",
		       p->name, p->detail);
		if (!p->ok)
			printf("         remedy: %s\n", p->remedy);
	}
	ok = print_programs(d);
	printf("%s\n",
	       missing ? "tmem run cannot work here." : "tmem run works here.");
	return ok && !missing;
}

static json_t *json_probe(const struct tmem_probe *p)
{
	return json_pack("{s:s, s:b, s:b, s:s, s:s}", "name", p->name, "needed",
			 p->needed, "ok", p->ok, "detail", p->detail, "remedy",
			 p->remedy);
}

static bool print_json(const struct doctor *d)
{
	bool ok = !tmem_probe_missing(d->probes);
	json_t *root = json_object(), *probes = json_array();
	json_t *programs = json_array(), *o;
	char path[PATH_MAX] = "";
	struct utsname name = { 0 };
	enum tmem_exe_kind kind;
	char **program;
	int i;

	for (i = 0; i < TMEM_PROBE_COUNT; i++)
		json_array_append_new(probes, json_probe(&d->probes[i]));
	for (program = d->programs; *program; program++) {
		kind = examine(*program, path);
		o = json_pack("{s:s, s:b, s:s, s:s}", "name", *program, "ok",
			      kind == TMEM_EXE_OK, "detail",
			      tmem_exe_kind_text(kind), "remedy",
			      tmem_program_remedy(kind));
		/* Fails for a name that is not UTF-8. */
		json_array_append_new(programs, o ? o : json_null());
		ok &= kind == TMEM_EXE_OK;
	}
	uname(&name);
	json_object_set_new(root, "version", json_string(TMEM_VERSION));
	json_object_set_new(root, "kernel", json_string(name.release));
	json_object_set_new(root, "ok", json_boolean(ok));
	json_object_set_new(root, "probes", probes);
	json_object_set_new(root, "programs", programs);
	json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return ok;
}

int tmem_doctor_main(int argc, char **argv)
{
	struct doctor d = { 0 };
	int r = parse(argc, argv, &d);
	bool ok;

	if (r)
		return r;
	if (d.help) {
		print_help();
		return 0;
	}
	tmem_probe_all(d.probes);
	ok = d.json ? print_json(&d) : print_text(&d);
	return ok ? 0 : EXIT_MISSING;
}
