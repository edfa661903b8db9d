/* SPDX-License-Identifier: MIT */
/* See amount.h; cgroup.h has the arithmetic of cgroups. */
#include "cli/amount.h"

#include "cli/args.h"
#include "cli/cgroup.h"
#include "cli/cli.h"
#include "cli/size.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static int parse_percent(const char *text, size_t digits, uint64_t *ret_value)
{
	char number[8] = "";

	if (digits < sizeof(number))
		memcpy(number, text, digits);
	if (tmem_number_parse(number, 1, 100, ret_value) == 0)
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "-m %s: not a percentage of memory; write one "
			     "from 1%% to 100%%",
			     text);
}

int tmem_amount_check(const char *text, uint64_t bytes)
{
	if (bytes >= TMEM_MIN_LIMIT_BYTES)
		return 0;
	return tmem_cli_fail(TMEM_EXIT_FAIL,
			     "-m %s: less than 16 MiB, which tmem "
			     "needs to work in; give more",
			     text);
}

int tmem_amount_parse(const char *text, struct tmem_amount *ret_amount)
{
	struct tmem_amount a = { .kind = TMEM_AMOUNT_BYTES };
	size_t len = strlen(text);
	int r;

	if (!strcmp(text, "auto")) {
		*ret_amount = (struct tmem_amount){ TMEM_AMOUNT_AUTO, 0 };
		return 0;
	}
	if (len && text[len - 1] == '%') {
		a.kind = TMEM_AMOUNT_PERCENT;
		r = parse_percent(text, len - 1, &a.value);
	} else {
		r = tmem_args_size("-m", text, &a.value);
		if (!r)
			r = tmem_amount_check(text, a.value);
		if (!r && a.value > INT64_MAX)
			r = tmem_cli_fail(
				TMEM_EXIT_FAIL,
				"-m %s: larger than any memory; write "
				"for example 512M or 1.5G",
				text);
	}
	if (!r)
		*ret_amount = a;
	return r;
}

static uint64_t machine_bytes(const char *root)
{
	char path[PATH_MAX], line[128];
	uint64_t kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/proc/meminfo", root);
	f = fopen(path, "re");
	if (!f)
		return INT64_MAX;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "MemTotal: %" SCNu64, &kib) == 1)
			break;
	fclose(f);
	return kib && kib <= INT64_MAX >> 10 ? kib << 10 : INT64_MAX;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t tmem_amount_bytes(const struct tmem_amount *amount, const char *root,
			   pid_t pid, uint64_t tree_bytes)
{
	uint64_t bytes;

	switch (amount->kind) {
	case TMEM_AMOUNT_PERCENT:
		bytes = least(machine_bytes(root),
			      tmem_cgroup_limit(root, pid));
		/* No product: INT64_MAX means that nothing is known. */
		return bytes / 100 * amount->value;
	case TMEM_AMOUNT_AUTO:
		bytes = machine_bytes(root);
		bytes = least(bytes - bytes / TMEM_CGROUP_SPARE,
			      tmem_cgroup_allowance(root, pid, tree_bytes));
		return bytes > TMEM_MIN_LIMIT_BYTES ? bytes
						    : TMEM_MIN_LIMIT_BYTES;
	default:
		return amount->value;
	}
}
