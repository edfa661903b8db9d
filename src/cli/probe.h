/* SPDX-License-Identifier: MIT */
/*
 * What this kernel and this user may do, found out by doing it.  `tmem run`
 * and `tmem doctor` ask here, so that both say the same words.
 */
#ifndef TMEM_CLI_PROBE_H
#define TMEM_CLI_PROBE_H

#include <stdbool.h>
#include <stdint.h>

enum tmem_probe_id {
	TMEM_PROBE_USERFAULTFD = 0,
	TMEM_PROBE_EVENTS,
	TMEM_PROBE_FORK,
	TMEM_PROBE_MOVE,
	TMEM_PROBE_POISON,
	TMEM_PROBE_PIDFD,
	TMEM_PROBE_MEMFD,
	TMEM_PROBE_PAGEMAP,
	TMEM_PROBE_KCMP,
	TMEM_PROBE_IO_URING,
	TMEM_PROBE_COUNT
};

struct tmem_probe {
	const char *name;
	bool needed; /* else tmem does without it */
	bool ok;
	char detail[128]; /* what was found */
	char remedy[192]; /* empty if ok */
};

/* Tries everything; fills all TMEM_PROBE_COUNT elements. */
void tmem_probe_all(struct tmem_probe *ret_probes);
/* The first needed one that is missing, or NULL. */
const struct tmem_probe *tmem_probe_missing(const struct tmem_probe *probes);
/* A descriptor of /dev/userfaultfd for others to use, or -errno. */
int tmem_probe_open_device(void);

#endif
