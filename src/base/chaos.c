/* SPDX-License-Identifier: MIT */
/*
 * See chaos.h.  No state but a counter: the n-th question has the n-th number
 * of a sequence that the seed makes.
 */
#include "chaos.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "sys.h"

enum {
	MOST = 1000,
	SHORT_NS = 100000,
	LONG_NS = 1000000,
	LONGEST_NS = 5000000
};

static struct tmem_chaos_page own_page;
static struct tmem_chaos_page *page = &own_page;
static bool is_on;
static uint64_t seed;
static _Atomic uint64_t drawn;
static uint32_t rate[TMEM_CHAOS_KINDS];

static const struct {
	const char *word;
	uint32_t per_mille;
} kinds[] = {
#define CHAOS_KIND(name, word, per_mille, text) { #word, per_mille },
#include "chaos.def"
#undef CHAOS_KIND
};

static uint64_t number(uint64_t n)
{
	uint64_t x = seed + n * 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static uint64_t draw(void)
{
	return number(atomic_fetch_add(&drawn, 1));
}

/* A test that misspells a kind proves nothing. */
static void set_rate(const char *word, size_t length, uint32_t per_mille)
{
	bool all = length == 3 && memcmp(word, "all", 3) == 0, found = all;
	unsigned i;

	for (i = 0; i < TMEM_CHAOS_KINDS; i++) {
		if (!all && (strlen(kinds[i].word) != length ||
			     memcmp(kinds[i].word, word, length) != 0))
			continue;
		rate[i] = per_mille;
		found = true;
	}
	if (!found)
		abort();
}

static void read_rates(const char *text)
{
	char *end;
	unsigned i;

	for (i = 0; i < TMEM_CHAOS_KINDS; i++)
		rate[i] = kinds[i].per_mille;
	seed = strtoull(text, &end, 0) * 0xda942042e4dd58b5;
	while (*end == ',') {
		const char *word = end + 1;
		size_t length = strcspn(word, "=");

		if (!word[length])
			abort();
		set_rate(word, length,
			 (uint32_t)strtoul(word + length + 1, &end, 0));
	}
	if (*end)
		abort();
	is_on = true;
}

static void map_page(const char *name)
{
	long fd = tmem_sys(SYS_open, name, O_RDWR | O_CLOEXEC, 0), at;

	if (fd < 0)
		abort();
	at = tmem_sys(SYS_mmap, 0, sizeof(*page), PROT_READ | PROT_WRITE,
		      MAP_SHARED, fd, 0);
	if (at < 0 && at > -4096)
		abort();
	page = tmem_sys_pointer((uint64_t)at);
	tmem_sys_close((int)fd);
}

void tmem_chaos_start(void)
{
	const char *rates = getenv("TMEM_CHAOS");
	const char *file = getenv("TMEM_CHAOS_FILE");

	if (file)
		map_page(file);
	if (rates)
		read_rates(rates);
}

static bool decide(enum tmem_chaos_kind kind, uint64_t random)
{
	if (random % MOST >= rate[kind])
		return false;
	atomic_fetch_add(&page->hits[kind], 1);
	return true;
}

bool tmem_chaos_hits(enum tmem_chaos_kind kind)
{
	return is_on && decide(kind, draw());
}

bool tmem_chaos_picks(enum tmem_chaos_kind kind, uint64_t thing)
{
	return is_on && decide(kind, number(~thing));
}

unsigned tmem_chaos_fewer(enum tmem_chaos_kind kind, unsigned nr)
{
	if (nr <= 1 || !tmem_chaos_hits(kind))
		return nr;
	return 1 + (unsigned)(draw() % (nr - 1));
}

void tmem_chaos_pause(void)
{
	struct timespec ts = { 0, 0 };
	uint64_t dice;

	if (!tmem_chaos_hits(TMEM_CHAOS_PAUSE))
		return;
	dice = draw() % 100;
	ts.tv_nsec = (long)(draw() % (dice < 90	  ? SHORT_NS
				      : dice < 99 ? LONG_NS
						  : LONGEST_NS));
	tmem_sys(SYS_nanosleep, &ts, 0);
}

static bool takes(struct tmem_chaos_point *p, uint64_t vpn)
{
	uint32_t left = atomic_load(&p->left);

	if (!left || vpn < atomic_load(&p->start) ||
	    vpn >= atomic_load(&p->end))
		return false;
	while (left && !atomic_compare_exchange_weak(&p->left, &left, left - 1))
		;
	return left != 0;
}

void tmem_chaos_at(enum tmem_chaos_place place, uint64_t vpn)
{
	struct tmem_chaos_point *p = &page->point[place];
	uint32_t mine, passed;

	atomic_fetch_add(&p->seen, 1);
	if (!takes(p, vpn))
		return;
	mine = atomic_fetch_add(&p->arrived, 1);
	tmem_sys(SYS_futex, &p->arrived, FUTEX_WAKE, INT32_MAX);
	while ((passed = atomic_load(&p->passed)) <= mine)
		tmem_sys(SYS_futex, &p->passed, FUTEX_WAIT, passed, NULL);
}

bool tmem_chaos_wants(uint64_t *vpn)
{
	uint64_t start = atomic_load(&page->wanted_start);

	if (*vpn < start)
		*vpn = start;
	return *vpn < atomic_load(&page->wanted_end);
}
