/* SPDX-License-Identifier: MIT */
/* See notes.h. */
#include "notes.h"

#include <stdbool.h>

#include "late.h"

/* Is what is at vpn there because of this move? */
static bool is_aside(const struct tmem_note *n, uint64_t vpn)
{
	return vpn >= n->to + LATE_ASIDE && vpn < n->to + LATE_ASIDE + n->nr;
}

uint64_t tmem_notes_resolve(const struct tmem_deferred *notes, uint64_t vpn)
{
	uint64_t nr = atomic_load(&notes->nr);

	while (nr-- > 0) {
		const struct tmem_note *n = &notes->note[nr];

		if (n->kind != NOTE_MOVED) {
			if (vpn >= n->from && vpn < n->to)
				return UINT64_MAX;
		} else if (vpn >= n->to && vpn < n->to + n->nr) {
			vpn = vpn - n->to + n->from;
		} else if (is_aside(n, vpn)) {
			vpn -= LATE_ASIDE;
		} else if (vpn >= n->from && vpn < n->from + n->nr) {
			return UINT64_MAX;
		}
	}
	return vpn;
}

uint64_t tmem_notes_follow(const struct tmem_deferred *notes, uint64_t vpn)
{
	uint64_t i, nr = atomic_load(&notes->nr);

	for (i = 0; i < nr; i++) {
		const struct tmem_note *n = &notes->note[i];

		if (n->kind != NOTE_MOVED) {
			if (vpn >= n->from && vpn < n->to)
				return UINT64_MAX;
		} else if (vpn >= n->from && vpn < n->from + n->nr) {
			vpn = vpn - n->from + n->to;
		} else if (vpn >= n->to && vpn < n->to + n->nr) {
			vpn += LATE_ASIDE;
		} else if (is_aside(n, vpn)) {
			return UINT64_MAX;
		}
	}
	return vpn;
}
