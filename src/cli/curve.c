/* SPDX-License-Identifier: MIT */
/* See curve.h.  W is a chain of straight pieces: their integrals are exact. */
#include "cli/curve.h"

#include <math.h>
#include <stdbool.h>

/* Nobody waits for a page longer than that; nor less. */
#define LONGEST_SECONDS	 1e9
#define SHORTEST_SECONDS 1e-6

enum {
	BISECTIONS = 100
};

/* The last piece rises faster than the one before it. */
static bool is_dented(const struct tmem_curve *c, double seconds, double pages)
{
	double at = 0, from = 0;

	if (!c->nr)
		return false;
	if (c->nr > 1) {
		at = c->seconds[c->nr - 2];
		from = c->pages[c->nr - 2];
	}
	return (pages - c->pages[c->nr - 1]) * (c->seconds[c->nr - 1] - at) >
	       (c->pages[c->nr - 1] - from) * (seconds - c->seconds[c->nr - 1]);
}

void tmem_curve_add(struct tmem_curve *curve, double seconds, double pages)
{
	double last_seconds = 0, last_pages = 0;

	if (curve->nr) {
		last_seconds = curve->seconds[curve->nr - 1];
		last_pages = curve->pages[curve->nr - 1];
	}
	if (curve->nr == TMEM_CURVE_POINTS || seconds <= last_seconds)
		return;
	if (pages > curve->all_pages)
		pages = curve->all_pages;
	if (pages < last_pages)
		pages = last_pages;
	while (is_dented(curve, seconds, pages))
		curve->nr--;
	curve->seconds[curve->nr] = seconds;
	curve->pages[curve->nr] = pages;
	curve->nr++;
}

double tmem_curve_used_pages(const struct tmem_curve *curve)
{
	return curve->nr ? curve->pages[curve->nr - 1] : 0;
}

double tmem_curve_touch_rate(const struct tmem_curve *curve)
{
	return curve->nr ? curve->pages[0] / curve->seconds[0] : 0;
}

/* Pages each second, at the end. */
static double last_slope(const struct tmem_curve *curve)
{
	unsigned end = curve->nr - 1, i = end;

	while (i > 0 && curve->seconds[i] > curve->seconds[end] * 2 / 3)
		i--;
	if (i == end)
		return 0;
	return (curve->pages[end] - curve->pages[i]) /
	       (curve->seconds[end] - curve->seconds[i]);
}

/* The integral over one piece: its slope over the time from a to b. */
static double piece(double slope, double a, double b, double t)
{
	return slope * t * (exp(-a / t) - exp(-b / t));
}

static double resident(const struct tmem_curve *curve, double t)
{
	double a = 0, pages = 0, sum = 0, slope;
	unsigned i;

	for (i = 0; i < curve->nr; i++) {
		slope = (curve->pages[i] - pages) / (curve->seconds[i] - a);
		sum += piece(slope, a, curve->seconds[i], t);
		a = curve->seconds[i];
		pages = curve->pages[i];
	}
	slope = last_slope(curve);
	if (slope > 0)
		sum += piece(slope, a, a + (curve->all_pages - pages) / slope,
			     t);
	return sum;
}

double tmem_curve_fault_rate(const struct tmem_curve *curve,
			     double resident_pages)
{
	double shorter = SHORTEST_SECONDS, longer = LONGEST_SECONDS, t;
	unsigned i;

	if (!curve->nr || resident(curve, longer) <= resident_pages)
		return 0;
	if (resident(curve, shorter) >= resident_pages)
		return tmem_curve_touch_rate(curve);
	for (i = 0; i < BISECTIONS; i++) {
		t = sqrt(shorter * longer);
		if (resident(curve, t) < resident_pages)
			shorter = t;
		else
			longer = t;
	}
	return resident_pages / longer;
}
