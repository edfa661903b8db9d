/* SPDX-License-Identifier: MIT */
/* The curve of used pages against what can be computed exactly. */
#include "base/assert.h"
#include "cli/curve.h"

#include <math.h>
#include <string.h>

static void near(double value, double expected, double tolerance)
{
	TMEM_ASSERT(fabs(value - expected) <= tolerance * fabs(expected));
}

/* Two kinds of pages, each used alike: how many at which rate. */
struct kinds {
	double nr[2];
	double rate[2];
};

static struct tmem_curve curve_of(const struct kinds *k, double seconds)
{
	struct tmem_curve c = { .all_pages = k->nr[0] + k->nr[1] };
	double t = 0.001;

	while (t < seconds) {
		t *= 1.2;
		tmem_curve_add(&c, t,
			       k->nr[0] * (1 - exp(-k->rate[0] * t)) +
				       k->nr[1] * (1 - exp(-k->rate[1] * t)));
	}
	return c;
}

/* Each page stays for T: found by bisection over T, page by page. */
static double exact(const struct kinds *k, double resident)
{
	double low = 1e-6, high = 1e6, t = 1, sum;
	int i, j;

	for (i = 0; i < 200; i++) {
		t = sqrt(low * high);
		for (j = 0, sum = 0; j < 2; j++)
			sum += k->nr[j] * k->rate[j] * t / (1 + k->rate[j] * t);
		*(sum < resident ? &low : &high) = t;
	}
	return resident / t;
}

static void pages_used_alike_fault_as_they_are_missing(void)
{
	struct kinds k = { { 100000, 0 }, { 2, 0 } };
	struct tmem_curve c = curve_of(&k, 20);
	unsigned tenth;

	near(tmem_curve_touch_rate(&c), 200000, 0.01);
	for (tenth = 1; tenth < 10; tenth++)
		near(tmem_curve_fault_rate(&c, 1e4 * tenth), 2e4 * (10 - tenth),
		     0.05);
	/* Within the window, too, if it is short. */
	c = curve_of(&k, 1);
	near(tmem_curve_fault_rate(&c, 30000), 140000, 0.05);
}

static void what_is_hot_stays_longer(void)
{
	struct kinds k = { { 10000, 90000 }, { 20, 0.5 } };
	struct tmem_curve c = curve_of(&k, 20);
	unsigned resident;

	for (resident = 5000; resident < 95000; resident += 10000)
		near(tmem_curve_fault_rate(&c, resident), exact(&k, resident),
		     0.05);
}

static void room_for_all_that_is_used_means_no_faults(void)
{
	struct kinds k = { { 1000, 0 }, { 100, 0 } };
	struct tmem_curve c = curve_of(&k, 10);

	c.all_pages = 50000;
	TMEM_ASSERT(tmem_curve_fault_rate(&c, 1000) < 1);
	TMEM_ASSERT(tmem_curve_fault_rate(&c, 40000) < 1);
	near(tmem_curve_fault_rate(&c, 0), tmem_curve_touch_rate(&c), 0.001);
}

static void odd_readings(void)
{
	struct tmem_curve c = { .all_pages = 100 };
	unsigned i;

	TMEM_ASSERT(tmem_curve_fault_rate(&c, 10) == 0);
	TMEM_ASSERT(tmem_curve_touch_rate(&c) == 0);
	tmem_curve_add(&c, 0, 5); /* no time: left out */
	TMEM_ASSERT(c.nr == 0);
	tmem_curve_add(&c, 1, 50);
	tmem_curve_add(&c, 1, 60); /* the same time */
	tmem_curve_add(&c, 2, 40); /* pages went */
	tmem_curve_add(&c, 3, 400);
	/* The one in the middle was a dent. */
	TMEM_ASSERT(c.nr == 2 && c.pages[0] == 50 && c.pages[1] == 100);
	for (i = 0; i < 2 * TMEM_CURVE_POINTS; i++)
		tmem_curve_add(&c, 4 + i, 100);
	TMEM_ASSERT(c.nr == TMEM_CURVE_POINTS);
	/* A process that does nothing. */
	memset(&c, 0, sizeof(c));
	c.all_pages = 100;
	tmem_curve_add(&c, 1, 0);
	tmem_curve_add(&c, 2, 0);
	TMEM_ASSERT(tmem_curve_fault_rate(&c, 0) == 0);
	TMEM_ASSERT(tmem_curve_fault_rate(&c, 10) == 0);
}

int main(void)
{
	pages_used_alike_fault_as_they_are_missing();
	what_is_hot_stays_longer();
	room_for_all_that_is_used_means_no_faults();
	odd_readings();
	return 0;
}
