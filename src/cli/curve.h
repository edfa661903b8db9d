/* SPDX-License-Identifier: MIT */
/*
 * How a process uses its pages, and what that costs when some are evicted.
 *
 * The curve W(t): how many different pages were used within t seconds (of CPU
 * time: track.h) of a moment.  It starts with the rate at which pages are
 * touched, and flattens as the same ones come again.  Beyond its last point it
 * is continued with the slope of its last third, up to all pages there are.
 *
 * Reckoned is a pager that does not know which pages are used: each stays for
 * about the same time T after each fault.  (What is hot stays longer, pager/
 * heat.h: most programs that have favourites fare better.)  If
 * page i is used at the rate l_i, at moments independent of the others', it is
 * resident for l_i T / (1 + l_i T) of the time.  Summed over all pages this is
 * the mean of W over an exponentially distributed time of mean T:
 *
 *	resident(T) = integral of W(t) exp(-t / T) / T dt
 *
 * and, as each of them stays for T, resident(T) / T pages fault each second.
 * So the T at which resident(T) is what there is room for gives the faults.
 */
#ifndef TMEM_CLI_CURVE_H
#define TMEM_CLI_CURVE_H

enum {
	TMEM_CURVE_POINTS = 64
};

struct tmem_curve {
	unsigned nr;
	double seconds[TMEM_CURVE_POINTS]; /* rising, the first above 0 */
	double pages[TMEM_CURVE_POINTS];   /* rising ever more slowly */
	double all_pages;		   /* W never exceeds this */
};

/*
 * Adds a point, made to fit what is said above.  What is used at a steady pace
 * flattens all the way, so a point that lies below its neighbours goes: the
 * process did less just then.
 */
void tmem_curve_add(struct tmem_curve *curve, double seconds, double pages);

/* Pages used up to the last point. */
double tmem_curve_used_pages(const struct tmem_curve *curve);
/* Pages touched each second, as far as the first point can tell. */
double tmem_curve_touch_rate(const struct tmem_curve *curve);
/* Pages that fault each second with room for so many. */
double tmem_curve_fault_rate(const struct tmem_curve *curve,
			     double resident_pages);

#endif
