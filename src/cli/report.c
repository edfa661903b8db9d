/* SPDX-License-Identifier: MIT */
/*
 * What the tree did, as text for people or as one JSON object.
 *
 * Store figures are those of the moment when most pages were stored.  The
 * ratio is pages' bytes to everything that the store held for them, its
 * metadata included.
 */
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/keeper.h"
#include "cli/output.h"
#include "cli/size.h"
#include "cli/stall.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <tmem/tmem.h>
#include <unistd.h>

enum {
	SIZE_TEXT = 32
};

struct report {
	const struct tmem_keeper *k;
	struct tmem_keeper_totals totals;
	unsigned nr_living;
	double wall_seconds;
	double cpu_seconds;
	double ratio;
};

static uint64_t get(const _Atomic uint64_t *value)
{
	return atomic_load_explicit(value, memory_order_relaxed);
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static unsigned nr_outside(const struct tmem_keeper *k)
{
	unsigned i, sum = 0;

	for (i = 0; i < k->nr_outside_kinds; i++)
		sum += k->outside[i].count;
	return sum;
}

static void gather(const struct tmem_keeper *k, struct report *r)
{
	uint64_t end = k->end_ns ? k->end_ns : tmem_keeper_now_ns();
	const struct tmem_keeper_totals *t = &r->totals;

	tmem_slots_totals(k, &r->totals);
	r->k = k;
	r->wall_seconds = seconds(end - k->start_ns);
	r->cpu_seconds = seconds(k->cpu_ns + k->main_cpu_ns);
	r->ratio = t->peak_held_bytes
			   ? (double)t->peak_stored_pages * TMEM_PAGE_SIZE /
				     (double)t->peak_held_bytes
			   : 0;
}

/* One line of the text form. */
static void line(FILE *out, const char *title, const char *format, ...)
{
	va_list args;

	fprintf(out, "tmem: %-10s", title);
	va_start(args, format);
	vfprintf(out, format, args);
	va_end(args);
	putc('\n', out);
}

static const char *size(uint64_t bytes, char *buf)
{
	tmem_size_format(bytes, buf, SIZE_TEXT);
	return buf;
}

static void text_end(const struct report *r, FILE *out)
{
	const struct tmem_keeper *k = r->k;
	const char *name = strrchr(k->options->program[0], '/');
	char how[64] = "still running";

	name = name ? name + 1 : k->options->program[0];
	if (k->main_ended && !k->main_status_known)
		snprintf(how, sizeof(how), "ended");
	else if (k->main_ended && WIFEXITED(k->main_status))
		snprintf(how, sizeof(how), "exit status %d",
			 WEXITSTATUS(k->main_status));
	else if (k->main_ended)
		snprintf(how, sizeof(how), "killed by signal %d",
			 WTERMSIG(k->main_status));
	line(out, "program",
	     "%s: %s after %.2f s, CPU %.2f s and %.2f s paging", name, how,
	     r->wall_seconds, r->cpu_seconds,
	     seconds(get(&r->totals.counters.pager_cpu_ns)));
	if (r->nr_living)
		line(out, "", "%u of its processes live on, still paged",
		     r->nr_living);
}

static void text_memory(const struct report *r, FILE *out)
{
	const struct tmem_keeper_totals *t = &r->totals;
	char a[SIZE_TEXT], b[SIZE_TEXT];

	line(out, "memory", "asked %s, peak %s", size(r->k->asked_bytes, a),
	     size(t->peak_bytes, b));
	line(out, "store",
	     "%" PRIu64 " pages (%s) in %s, ratio %.2f; same-filled %" PRIu64
	     ", raw %" PRIu64 ", refused %" PRIu64,
	     t->peak_stored_pages,
	     size(t->peak_stored_pages * TMEM_PAGE_SIZE, a),
	     size(t->peak_held_bytes, b), r->ratio, t->peak_same_pages,
	     t->peak_raw_pages, t->refused_pages);
	line(out, "swap", "%" PRIu64 " pages (%s)", t->peak_swapped_pages,
	     size(t->peak_swapped_pages * TMEM_PAGE_SIZE, a));
	if (t->peak_shared_bytes)
		line(out, "shared", "%s of shared memory, not pageable",
		     size(t->peak_shared_bytes, a));
	if (t->peak_unpageable_bytes)
		line(out, "left out", "%s of private memory, not pageable",
		     size(t->peak_unpageable_bytes, a));
}

static void text_faults(const struct report *r, FILE *out)
{
	const struct tmem_tree_counters *c = &r->totals.counters;

	line(out, "faults",
	     "zero %" PRIu64 ", store %" PRIu64 ", swap %" PRIu64
	     ", frame %" PRIu64 ", raced %" PRIu64 ", lost %" PRIu64,
	     get(&c->faults_zero), get(&c->faults_store), get(&c->faults_swap),
	     get(&c->faults_frame), get(&c->faults_raced),
	     get(&c->faults_lost));
	line(out, "stall", "%.3f s in all, longest %.3f ms",
	     seconds(get(&c->stall_ns)), (double)get(&c->stall_max_ns) / 1e6);
}

static double percentile_us(const struct tmem_tree_counters *c,
			    unsigned per_mille)
{
	return (double)tmem_stall_percentile_ns(c, per_mille) / 1e3;
}

/* A row for each bucket from the first that is not empty to the last. */
static void text_stalls(const struct report *r, FILE *out)
{
	static const char bar[] = "##############################";
	const struct tmem_tree_counters *c = &r->totals.counters;
	uint64_t all = tmem_stall_count(c), seen = 0, n;
	double percent;
	unsigned i;
	int width;

	if (!all)
		return;
	line(out, "", "p50 %.1f us, p99 %.1f us, p99.9 %.1f us",
	     percentile_us(c, 500), percentile_us(c, 990),
	     percentile_us(c, 999));
	for (i = 0; i < TMEM_STALL_BUCKETS && seen < all; i++) {
		n = get(&c->stall_buckets[i]);
		seen += n;
		if (!seen)
			continue;
		percent = 100.0 * (double)n / (double)all;
		width = (int)(percent * 0.3 + 0.5);
		line(out, "", "from %10.3f us %6.2f %%%s%.*s",
		     (double)tmem_stall_floor_ns(i) / 1e3, percent,
		     width ? " " : "", width, bar);
	}
}

static void text_outside(const struct report *r, FILE *out)
{
	const struct tmem_keeper *k = r->k;
	unsigned i;

	if (!k->nr_outside_kinds)
		return;
	line(out, "not paged", "%u processes:", nr_outside(k));
	for (i = 0; i < k->nr_outside_kinds; i++)
		line(out, "", "%u %s: %s", k->outside[i].count,
		     k->outside[i].comm,
		     tmem_not_paged_text(k->outside[i].reason));
}

static void text_lost(const struct report *r, FILE *out)
{
	uint64_t all = get(&r->totals.counters.faults_lost);
	char why[160];
	unsigned i;

	if (!all)
		return;
	line(out, "lost", "%" PRIu64 " pages could not be read back:", all);
	for (i = 0; i < r->k->nr_lost; i++) {
		const struct tmem_keeper_lost *lost = &r->k->lost[i];

		tmem_lost_text(lost, why, sizeof(why));
		line(out, "", "0x%" PRIx64 " of process %d (%s): %s",
		     lost->addr, (int)lost->pid, lost->comm, why);
	}
	if (all > r->k->nr_lost)
		line(out, "", "and %" PRIu64 " more", all - r->k->nr_lost);
}

static void text_profile(const struct report *r, FILE *out)
{
	const struct tmem_profile *p = &r->k->profile;

	if (p->known)
		line(out, "profile",
		     "%" PRIu64 " stacks from %" PRIu64 " samples, %" PRIu64
		     " lost: %s",
		     p->result.stacks, p->result.samples, p->result.lost,
		     r->k->options->profile);
}

static char *make_text(const struct report *r)
{
	char *text = NULL;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	if (!out)
		return NULL;
	text_end(r, out);
	text_memory(r, out);
	text_faults(r, out);
	text_stalls(r, out);
	text_lost(r, out);
	text_profile(r, out);
	text_outside(r, out);
	fclose(out);
	return text;
}

static json_t *json_store(const struct report *r)
{
	const struct tmem_keeper_totals *t = &r->totals;
	json_t *o = json_object();

	tmem_json_set(o, "pages", t->peak_stored_pages);
	tmem_json_set(o, "bytes", t->peak_stored_bytes);
	tmem_json_set(o, "held_bytes", t->peak_held_bytes);
	json_object_set_new(o, "ratio", json_real(r->ratio));
	tmem_json_set(o, "same_filled_pages", t->peak_same_pages);
	tmem_json_set(o, "raw_pages", t->peak_raw_pages);
	tmem_json_set(o, "refused_pages", t->refused_pages);
	return o;
}

/* Empty buckets are left out. */
static json_t *json_stalls(const struct report *r)
{
	const struct tmem_tree_counters *c = &r->totals.counters;
	json_t *o = json_object(), *list = json_array(), *row;
	uint64_t n;
	unsigned i;

	tmem_json_set(o, "faults", tmem_stall_count(c));
	tmem_json_set(o, "p50_ns", tmem_stall_percentile_ns(c, 500));
	tmem_json_set(o, "p99_ns", tmem_stall_percentile_ns(c, 990));
	tmem_json_set(o, "p999_ns", tmem_stall_percentile_ns(c, 999));
	for (i = 0; i < TMEM_STALL_BUCKETS; i++) {
		n = get(&c->stall_buckets[i]);
		if (!n)
			continue;
		row = json_object();
		tmem_json_set(row, "from_ns", tmem_stall_floor_ns(i));
		tmem_json_set(row, "faults", n);
		json_array_append_new(list, row);
	}
	json_object_set_new(o, "histogram", list);
	return o;
}

/* null: there is none. */
static json_t *json_profile(const struct tmem_profile *p)
{
	json_t *o;

	if (!p->known)
		return json_null();
	o = json_object();
	tmem_json_set(o, "stall_us", p->result.stall_us);
	tmem_json_set(o, "stacks", p->result.stacks);
	tmem_json_set(o, "samples", p->result.samples);
	tmem_json_set(o, "lost", p->result.lost);
	return o;
}

static json_t *json_outside(const struct report *r)
{
	const struct tmem_keeper *k = r->k;
	json_t *list = json_array(), *o;
	unsigned i;

	for (i = 0; i < k->nr_outside_kinds; i++) {
		o = json_object();
		json_object_set_new(o, "name", json_string(k->outside[i].comm));
		json_object_set_new(
			o, "reason",
			json_string(tmem_not_paged_text(k->outside[i].reason)));
		tmem_json_set(o, "count", k->outside[i].count);
		json_array_append_new(list, o);
	}
	return list;
}

/* A program's name is bytes; JSON is text. */
static json_t *json_name(const char *name)
{
	json_t *string = json_string(name);

	return string ? string : json_string("(not UTF-8)");
}

static json_t *json_lost(const struct tmem_keeper_lost *lost)
{
	json_t *o = json_object();
	char why[160];

	tmem_lost_text(lost, why, sizeof(why));
	tmem_json_set(o, "pid", (uint64_t)lost->pid);
	json_object_set_new(o, "name", json_name(lost->comm));
	tmem_json_set(o, "address", lost->addr);
	json_object_set_new(o, "cause", json_string(why));
	json_object_set_new(o, "swap_file_offset",
			    lost->place < 0 ? json_null()
					    : json_integer(lost->place));
	return o;
}

static json_t *json_all_lost(const struct tmem_keeper *k)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; i < k->nr_lost; i++)
		json_array_append_new(list, json_lost(&k->lost[i]));
	return list;
}

static void set_exit(json_t *o, const struct tmem_keeper *k)
{
	json_t *code = json_null(), *sig = json_null();

	if (k->main_ended && k->main_status_known) {
		if (WIFEXITED(k->main_status))
			code = json_integer(WEXITSTATUS(k->main_status));
		else
			sig = json_integer(WTERMSIG(k->main_status));
	}
	json_object_set_new(o, "exit_status", code);
	json_object_set_new(o, "signal", sig);
}

static char *make_json(const struct report *r)
{
	const struct tmem_keeper_totals *t = &r->totals;
	json_t *o = json_object();
	char *dump, *text = NULL;

	tmem_json_set(o, "report_version", 1);
	json_object_set_new(o, "tmem_version", json_string(TMEM_VERSION));
	json_object_set_new(o, "program", json_name(r->k->options->program[0]));
	set_exit(o, r->k);
	json_object_set_new(o, "wall_seconds", json_real(r->wall_seconds));
	json_object_set_new(o, "cpu_seconds", json_real(r->cpu_seconds));
	tmem_json_set(o, "asked_bytes", r->k->asked_bytes);
	tmem_json_set(o, "peak_bytes", t->peak_bytes);
	json_object_set_new(o, "store", json_store(r));
	tmem_json_set(o, "swapped_pages", t->peak_swapped_pages);
	tmem_json_set(o, "swap_max_pages", r->k->swap.max_pages);
	json_object_set_new(o, "counters",
			    tmem_json_counters(&r->totals.counters));
	json_object_set_new(o, "stall", json_stalls(r));
	json_object_set_new(o, "lost", json_all_lost(r->k));
	json_object_set_new(o, "profile", json_profile(&r->k->profile));
	tmem_json_set(o, "shared_bytes", t->peak_shared_bytes);
	tmem_json_set(o, "unpageable_bytes", t->peak_unpageable_bytes);
	tmem_json_set(o, "programs_paged", t->nr_paged);
	tmem_json_set(o, "programs_living", r->nr_living);
	tmem_json_set(o, "not_paged_count", nr_outside(r->k));
	json_object_set_new(o, "not_paged", json_outside(r));
	dump = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(6));
	json_decref(o);
	if (dump && asprintf(&text, "%s\n", dump) < 0)
		text = NULL;
	free(dump);
	return text;
}

void tmem_report_write(struct tmem_keeper *k, unsigned nr_living)
{
	struct report r = { .nr_living = nr_living };
	char *text;
	int error;

	if (k->options->report == TMEM_REPORT_NONE)
		return;
	tmem_lost_look(k);
	gather(k, &r);
	text = k->options->report == TMEM_REPORT_JSON ? make_json(&r)
						      : make_text(&r);
	if (!text)
		return;
	if (k->report_fd < 0) {
		tmem_output_write(STDERR_FILENO,
				  text); /* nobody else to tell */
	} else {
		error = tmem_output_write_over(k->report_fd, text);
		if (error)
			tmem_keeper_say(k,
					"--report-file %s: %s; the report is "
					"lost, or a part of it",
					k->options->report_file,
					strerror(error));
	}
	free(text);
}
